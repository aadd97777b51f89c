"""What the client is subscribed to, and how it comes to be so again on a new connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from realtime.client.errors import RealtimeError
from realtime.client.outbox import refuse
from realtime.client.positions import Positions, position_in

# Topics in one command, whose recoveries share a bound, and characters of it.
_TOPICS = 50
_SIZE = 16 * 1024
# What is said of a topic for now, and not for good.
_PASSING = frozenset({"RATE_LIMITED", "UNAVAILABLE", "INTERNAL_ERROR"})


class Subscribing:
    """Topics and patterns with their positions, and the commands that subscribe to them again."""

    def __init__(self) -> None:
        self.positions = Positions()
        # Topics that resubscribing commands without an answer have named.
        self._asked: dict[str, list[str]] = {}
        self._refusals: dict[str, RealtimeError] = {}
        self._last = 0

    def again(
        self, welcome: Mapping[str, Any], topics: Sequence[str] | None = None
    ) -> Iterator[str]:
        """Commands that subscribe to all topics, or to some, from where they are."""
        if topics is None:
            self._asked.clear()
            topics = self.positions.topics
        most = min(_SIZE, int(welcome.get("max_frame_size", _SIZE)))
        part: list[str] = []
        size = 0
        for topic in topics:
            if topic not in self.positions:
                continue
            # Twice the name, its position, and escapes that JSON may need.
            cost = 4 * len(topic.encode()) + 100
            if part and (len(part) == _TOPICS or size + cost > most):
                yield self._subscribe(part)
                part, size = [], 0
            part.append(topic)
            size += cost
        if part:
            yield self._subscribe(part)

    def _subscribe(self, topics: list[str]) -> str:
        self._last += 1
        id = f"again-{self._last}"
        self._asked[id] = topics
        recover = {}
        for topic in topics:
            position = self.positions.of(topic)
            if position is not None:
                recover[topic] = position._asdict()
        data: dict[str, Any] = {"topics": topics}
        if recover:
            data["recover"] = recover
        return json.dumps({"type": "Subscribe", "data": data, "id": id}, ensure_ascii=False)

    def settle(
        self, id: str, taken: Sequence[str], error: RealtimeError | None
    ) -> list[str] | None:
        """A command has its answer; the topics to try again, None if it is none of these."""
        asked = self._asked.pop(id, None)
        if asked is None:
            return None
        rest = [topic for topic in asked if topic in self.positions and topic not in taken]
        if error is not None and error.code not in _PASSING and "topic" not in error.details:
            for topic in rest:
                self.positions.remove(topic)
            return []
        return rest

    def subscribed(self, topics: Sequence[Mapping[str, Any]]) -> list[str]:
        """Take in the statuses of topics; answer of which publications are lost."""
        lost = []
        for each in topics:
            position = position_in(each)
            if position is not None:
                self.positions.set(each["topic"], position)
            if each.get("recovered") is False:
                lost.append(each["topic"])
        return lost

    def refused(self, error: RealtimeError) -> bool:
        """Leave the topic that an error is about; answer whether it was one subscribed to."""
        topic = error.details.get("topic")
        if isinstance(topic, str) and topic in self.positions and error.code not in _PASSING:
            self.positions.remove(topic)
            self._refusals[topic] = error
            return True
        return False

    def answered(
        self,
        topics: Sequence[str],
        new: Sequence[str],
        reply: asyncio.Future[dict[str, Any]],
        answer: asyncio.Future[list[dict[str, Any]]],
    ) -> None:
        """Settle what the user waits for: the statuses, or the refusal of one of the topics."""
        refusals = {topic: self._refusals.pop(topic, None) for topic in topics}
        problem: RealtimeError | None = None
        if reply.cancelled():
            answer.cancel()
        elif (failed := reply.exception()) is not None:
            assert isinstance(failed, RealtimeError)  # noqa: S101
            problem = failed
            taken = set()
        else:
            taken = {each["topic"] for each in reply.result()["topics"]}
            if left := [topic for topic in topics if topic not in taken]:
                # Of topics that were taken there may be refusals of former connections.
                some = RealtimeError("UNAVAILABLE", "Not all topics could be subscribed to")
                problem = next(filter(None, (refusals[topic] for topic in left)), some)
        if problem is None:
            if not answer.done():
                answer.set_result(reply.result()["topics"])
            return
        if problem.code != "TIMEOUT":
            for topic in new:
                if topic not in taken:
                    self.positions.remove(topic)
        refuse(answer, problem)
