"""What `RealtimeClient.subscribe` gives back."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Sequence,
)
from dataclasses import dataclass
from typing import Any

from realtime.client.errors import RealtimeError
from realtime.client.positions import Positions
from realtime.topics import matches

# Publications that wait for who iterates, before the connection is read no further.
WAITING = 10_000


@dataclass(frozen=True, slots=True)
class Message:
    """A publication. `timestamp` is in Unix milliseconds."""

    topic: str
    payload: Any
    from_user: str
    timestamp: int
    offset: int | None = None
    epoch: str | None = None


class Subscription:
    """Await it for the answer, iterate over it for what is published, or both.

    Iterating begins with what comes after that; with `async with`, leaving unsubscribes.
    """

    def __init__(
        self,
        topics: Sequence[str],
        answer: asyncio.Future[list[dict[str, Any]]],
        readers: set[Reader],
        leave: Callable[[Sequence[str]], Awaitable[object]],
    ) -> None:
        self.topics = tuple(topics)
        self._answer = answer
        self._readers = readers
        self._leave = leave

    def __await__(self) -> Generator[Any, None, list[dict[str, Any]]]:
        """The topics' statuses. Raises `RealtimeError` when one of them was refused."""
        return asyncio.shield(self._answer).__await__()

    def __aiter__(self) -> AsyncIterator[Message]:
        """What is published from now on. Raises `RealtimeError` as awaiting does."""
        return _Iteration(self, self._readers)

    async def __aenter__(self) -> Subscription:
        await self
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.unsubscribe()

    async def unsubscribe(self) -> None:
        """Leave the topics; iterations end."""
        await self._leave(self.topics)


class _Iteration(AsyncIterator[Message]):
    """Who iterates. Waiting for the next may be given up, and begun anew.

    No generator, which would end where its waiting is cancelled, as by `asyncio.wait_for`.
    """

    def __init__(self, subscription: Subscription, readers: set[Reader]) -> None:
        self._subscription = subscription
        self._reader = Reader(subscription.topics)
        self._readers = readers
        readers.add(self._reader)

    async def __anext__(self) -> Message:
        try:
            await self._subscription
            message = await self._reader.get()
        except RealtimeError:
            self._leave()
            raise
        if message is None:
            self._leave()
            raise StopAsyncIteration
        return message

    async def aclose(self) -> None:
        """Read no more."""
        self._leave()
        self._reader.close()

    def __del__(self) -> None:
        # Who has left a loop holds nobody up.
        self._leave()
        self._reader.close()

    def _leave(self) -> None:
        self._readers.discard(self._reader)


class Reader:
    """One iteration over what is published on some topics and patterns."""

    def __init__(self, topics: Sequence[str]) -> None:
        self._topics = topics
        self._messages: deque[Message] = deque()
        self._some = asyncio.Event()
        self._room = asyncio.Event()
        self._closed = False
        self._problem: Exception | None = None

    def wants(self, topic: str) -> bool:
        """Whether a topic is among them."""
        return any(matches(name, topic) for name in self._topics)

    def is_of(self, topics: Sequence[str]) -> bool:
        """Whether nothing more can come once these topics are left."""
        return set(self._topics) <= set(topics)

    def is_over(self, subscribed: Positions) -> bool:
        """Whether none of its topics is subscribed to any more."""
        return not any(topic in subscribed for topic in self._topics)

    async def put(self, message: Message) -> None:
        """Pass on a publication, once there is room."""
        while len(self._messages) >= WAITING and not self._closed:
            self._room.clear()
            await self._room.wait()
        if not self._closed:
            self._messages.append(message)
            self._some.set()

    async def get(self) -> Message | None:
        """The next publication, or None at the end. Raises what `close` was told."""
        while not self._messages:
            if self._problem is not None:
                raise self._problem
            if self._closed:
                return None
            self._some.clear()
            await self._some.wait()
        self._room.set()
        return self._messages.popleft()

    def close(self, problem: Exception | None = None) -> None:
        """Nothing more comes, because of a problem or by intention."""
        self._problem = problem
        self._closed = True
        self._some.set()
        self._room.set()
