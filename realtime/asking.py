"""A client whose commands a gatekeeper of the operator's is asked about before they are obeyed."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from msgspec import Raw
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from realtime.envelope import (
    Broadcast,
    Command,
    CommandId,
    Subscribe,
)
from realtime.errors import InternalError, RealtimeError
from realtime.interfaces import Gatekeeper
from realtime.model import Namespace
from realtime.rules import may_publish
from realtime.waiting import WaitingClient

_log = Logger()


class AskingClient(WaitingClient):
    """Obeys commands in the order in which they come, one question at a time.

    Only what the rules would allow is asked about.
    """

    __slots__ = ()

    def obey(self, command: Command, now: float) -> None:
        """Obey one command, or ask about it first."""
        question = self._question(command)
        if question is None:
            super().obey(command, now)
        else:
            self.wait(Deferred.fromCoroutine(question()).addErrback(self._fail, command.id))

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
            # Of more than these the command is refused.
            if new and len(command.data.topics) <= self.policy.max_topics:
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
        if self.is_open:
            data.payload = Raw(payload)
            super().obey(command, self.node.now())

    async def _ask_to_subscribe(
        self, hooks: Gatekeeper, command: Subscribe, new: list[str]
    ) -> None:
        denied = await hooks.subscribe(self.identity, self.connection_id, new)
        if not self.is_open:
            return
        names = [name for name in command.data.topics if name not in denied]
        # The id is answered once: by what is still to be obeyed, or by the first Error.
        unanswered = None if names else command.id
        for error in denied.values():
            self.refuse(error, unanswered, in_order=True)
            unanswered = None
        if names or not denied:
            command.data.topics = names
            super().obey(command, self.node.now())

    def _fail(self, failure: Failure, id: CommandId) -> None:
        _log.failure("Asking about a command failed", failure)
        self.refuse(InternalError(), id)
