"""A client whose commands a gatekeeper of the operator's is asked about before they are obeyed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from msgspec import Raw
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from realtime.client import Client
from realtime.envelope import (
    BadCommand,
    Broadcast,
    Command,
    CommandId,
    Subscribe,
    decode_command,
    encode_json,
)
from realtime.errors import InternalError, RealtimeError
from realtime.interfaces import Gatekeeper
from realtime.model import Namespace
from realtime.rules import may_publish

_log = Logger()


class AskingClient(Client):
    """Obeys commands in the order in which they come, one question at a time.

    While a question is open nothing more is read; what has been read already waits. Only what
    the rules would allow is asked about; what has not been obeyed when the connection ends is not.
    """

    __slots__ = ("_waiting",)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._waiting: deque[bytes] | None = None

    def receive(self, message: bytes) -> None:
        """Obey one command, or ask about it first."""
        if self._waiting is not None:
            self._waiting.append(message)
            return
        try:
            command = decode_command(message)
        except BadCommand:
            question = None
        else:
            question = self._question(command)
        if question is None or not self.may_speak():
            super().receive(message)
            return
        self._waiting = deque()
        self.transport.hold()
        asked = Deferred.fromCoroutine(question())
        asked.addErrback(self._fail, command.id)
        asked.addCallback(self._go_on)

    def _question(self, command: Command) -> Callable[[], Coroutine[Any, Any, None]] | None:
        """What has to be asked about a command, if anything."""
        hooks = self.policy.hooks
        assert hooks is not None  # noqa: S101
        if isinstance(command, Broadcast) and "publish" in hooks.wants:
            data = command.data
            namespace = self.node.lookup(data.topic)
            if (
                isinstance(namespace, Namespace)
                and may_publish(self.identity, namespace, data.topic)
                and (
                    namespace.max_payload is None
                    or len(bytes(data.payload)) <= namespace.max_payload
                )
            ):
                return partial(self._ask_to_publish, hooks, command)
        elif isinstance(command, Subscribe) and "subscribe" in hooks.wants:
            may = self.node.rules.may
            new = [
                name
                for name in dict.fromkeys(command.data.topics)
                if name not in self.topics
                and type(self.node.lookup(name)) is not str
                and may(self.identity, "subscribe", name)
            ]
            if new and len(new) <= self.max_subscriptions:
                return partial(self._ask_to_subscribe, hooks, command, new)
        return None

    async def _ask_to_publish(self, hooks: Gatekeeper, command: Broadcast) -> None:
        data = command.data
        try:
            payload = await hooks.publish(
                self.identity, self.connection_id, data.topic, data.payload
            )
        except RealtimeError as error:
            self.refuse(error, command.id)
            return
        if self.send is not len:
            data.payload = Raw(payload)
            super().receive(encode_json(command))

    async def _ask_to_subscribe(
        self, hooks: Gatekeeper, command: Subscribe, new: list[str]
    ) -> None:
        denied = await hooks.subscribe(self.identity, self.connection_id, new)
        if self.send is len:
            return
        names = [name for name in command.data.topics if name not in denied]
        # The id is answered once: by what is still to be obeyed, or by the first Error.
        unanswered = None if names else command.id
        for error in denied.values():
            self.refuse(error, unanswered)
            unanswered = None
        if names or not denied:
            command.data.topics = names
            super().receive(encode_json(command))

    def _fail(self, failure: Failure, id: CommandId) -> None:
        _log.failure("Asking about a command failed", failure)
        self.refuse(InternalError(), id)

    def _go_on(self, _: object) -> None:
        """Obey what has waited, up to the next question."""
        waiting, self._waiting = self._waiting or deque(), None
        while waiting and self.send is not len:
            self.receive(waiting.popleft())
            if self._waiting is not None:
                self._waiting = waiting
                break
        self.transport.release()
