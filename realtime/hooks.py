"""Blocking hooks: a backend of the operator's is asked before clients may do something."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from secrets import token_hex
from typing import Any, Final, Literal

from msgspec import UNSET, Raw, Struct, UnsetType
from msgspec.json import Decoder, Encoder
from twisted.internet.interfaces import IReactorTime

from realtime.errors import Forbidden, RealtimeError, Unavailable
from realtime.metrics import Counters
from realtime.model import Identity
from realtime.signed_post import NoAnswer, SignedPost, Watch, who

Kind = Literal["connect", "subscribe", "publish"]
KINDS: Final[tuple[Kind, ...]] = ("connect", "subscribe", "publish")
# Questions under way at once; more are refused.
MAX_UNDER_WAY: Final = 100
# Characters of a reason that clients are told.
MAX_REASON: Final = 200
_DENIED: Final = "This was denied"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was allowed: with another payload, JSON text, or without some of the topics."""

    payload: bytes | None = None
    denied: tuple[str, ...] = ()
    reason: str = _DENIED


class _Answer(Struct):
    allow: bool
    reason: str | None = None
    payload: Raw | UnsetType = UNSET
    deny: list[str] = []


_decode: Final = Decoder(_Answer).decode
_encode: Final = Encoder().encode


class Hooks:
    """Asks about the kinds of `wants`. `failure` says what no proper answer means."""

    def __init__(
        self,
        post: SignedPost,
        counters: Counters,
        clock: IReactorTime,
        *,
        kinds: Iterable[str],
        failure: Literal["deny", "allow"],
        max_under_way: int = MAX_UNDER_WAY,
    ) -> None:
        self.wants = frozenset(kinds)
        self._post = post
        self._counters = counters
        self._clock = clock
        self._failure = failure
        self._watch = Watch("hook", post.receiver, clock)
        self._max_under_way = max_under_way
        self._under_way = 0

    async def connect(self, identity: Identity) -> None:
        """Return if a user may connect; raises `Forbidden` or `Unavailable`."""
        await self.ask("connect", identity, None)

    async def subscribe(
        self, identity: Identity, connection_id: str, topics: Sequence[str]
    ) -> dict[str, RealtimeError]:
        """Answer which topics and patterns a connection may not subscribe to, and why."""
        try:
            verdict = await self.ask("subscribe", identity, connection_id, topics=topics)
        except RealtimeError as error:
            return {topic: _about(type(error), error.message, topic) for topic in topics}
        denied = set(verdict.denied)
        return {t: _about(Forbidden, verdict.reason, t) for t in topics if t in denied}

    async def publish(
        self, identity: Identity, connection_id: str, topic: str, payload: bytes | Raw
    ) -> bytes | Raw:
        """Answer what is to be published, JSON text; raises `Forbidden` or `Unavailable`."""
        # As the bytes received, and back: numbers keep their precision.
        question = {"topic": topic, "payload": Raw(payload)}
        try:
            verdict = await self.ask("publish", identity, connection_id, **question)
        except RealtimeError as error:
            error.details["topic"] = topic
            raise
        return payload if verdict.payload is None else verdict.payload

    async def ask(
        self, kind: Kind, identity: Identity, connection_id: str | None, **more: Any
    ) -> Verdict:
        """Ask; raises `Forbidden` when it is denied, and `Unavailable` when that is unknown."""
        counters = self._counters
        if self._under_way >= self._max_under_way:
            counters.hook_failures += 1
            raise Unavailable("Too many questions wait for their answers.", retry_after=1)
        counters.hook_questions += 1
        self._under_way += 1
        began = self._clock.seconds()
        try:
            answer = await self._ask(kind, identity, connection_id, more)
        except NoAnswer as error:
            counters.hook_failures += 1
            self._watch.failed(str(error))
            if self._failure == "allow":
                return Verdict()
            raise Unavailable("It cannot be found out now whether this is allowed.") from None
        finally:
            self._under_way -= 1
            counters.hook_seconds += max(0.0, self._clock.seconds() - began)
        self._watch.worked()
        if answer.deny or not answer.allow:
            counters.hook_denials += 1
        reason = "".join(c for c in answer.reason or "" if c.isprintable())[:MAX_REASON] or _DENIED
        if not answer.allow:
            raise Forbidden(reason)
        payload = None if answer.payload is UNSET else bytes(answer.payload)
        return Verdict(payload, tuple(answer.deny), reason)

    async def _ask(
        self, kind: Kind, identity: Identity, connection_id: str | None, more: dict[str, Any]
    ) -> _Answer:
        """Ask; raises `NoAnswer` also where there is no proper one."""
        id = token_hex(16)
        question = {
            "id": id,
            "hook": kind,
            "timestamp": int(self._clock.seconds() * 1000),
            **who(identity, connection_id),
            "roles": sorted(identity.roles),
            **more,
        }
        try:
            body = _encode(question)
        except Exception as error:  # Whatever an issuer has written into a token.
            raise NoAnswer(f"the question could not be encoded: {type(error).__name__}") from None
        answer = await self._post.send(body, id)
        if answer.status != 200:
            raise NoAnswer(f"HTTP status {answer.status}")
        try:
            # Not by msgspec alone, which does not look into what is Raw.
            return _decode(answer.body.decode())
        except (ValueError, RecursionError):
            raise NoAnswer("its answer is malformed") from None


def _about(kind: type[RealtimeError], reason: str, topic: str) -> RealtimeError:
    error = kind(reason)
    error.details["topic"] = topic
    return error
