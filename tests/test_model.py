"""Many clients, in random order: none loses, repeats or reorders a publication.

Nor does one get what it may not have. A model says what each is owed; everything from commands
to frames is real.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    multiple,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from realtime.model import Namespace, Permissions
from tests.support.node import finished
from tests.support.peers import Wire, World, identity_of

SIZE, TTL = 6, 10
KEPT = Namespace("h.>", history_size=SIZE, history_ttl=TTL)
TOPICS = ["h.a", "h.b", "p.a", "p.b"]
NAMES = [*TOPICS, "h.*", "p.>", ">"]
GRANTS = [None, (">",), ("h.>",), ("h.a", "p.*"), ()]


def matches(name: str, topic: str) -> bool:
    """Whether one of `NAMES` is, or matches, one of `TOPICS`."""
    return name in (topic, ">") or (name[-1] in "*>" and name[0] == topic[0])


def permits(grants: tuple[str, ...] | None, topic: str) -> bool:
    """Whether a token's grants allow one of `TOPICS`."""
    return grants is None or any(matches(grant, topic) for grant in grants)


class Person:
    """A connection, with what it is owed and where it knows topics to be."""

    def __init__(self, wire: Wire, user: str, grants: tuple[str, ...] | None) -> None:
        self.wire = wire
        self.user = user
        self.grants = grants
        self.names: set[str] = set()
        self.owed: dict[str, list[int]] = {topic: [] for topic in TOPICS}
        self.known: dict[str, dict[str, Any]] = {}
        self.unread: list[dict[str, Any]] = []

    @property
    def open(self) -> bool:
        """Whether the server has not closed it."""
        return self.wire.close_code is None


class Machine(RuleBasedStateMachine):
    """A world, and the truth about its publications."""

    people = Bundle("people")

    def __init__(self) -> None:
        super().__init__()
        self.world = World(
            topics=(KEPT,), message_rate=1e6, message_burst=1e6, on_token_expiry="close"
        )
        self.everybody: list[Person] = []
        # By topic: payload, offset, epoch and time of all that was accepted.
        self.truth: dict[str, list[tuple[int, int, str, float]]] = {topic: [] for topic in TOPICS}
        self.keys: dict[tuple[str, str, int], tuple[float, Any]] = {}
        self.number = 0

    def next(self) -> int:
        """A number not used before."""
        self.number += 1
        return self.number

    @initialize(target=people, seen=st.booleans())
    def begin(self, seen: bool) -> Any:
        """Two are there from the beginning, one of whom may know where the topics are."""
        both = [self.connect(user, None, 3600) for user in ("u1", "u2")]
        for topic in ("h.a", "h.b"):
            self.subscribe(both[0], topic, None)
        if seen:
            self.read(both[0], 50)
        return multiple(*both)

    # -- clients -------------------------------------------------------------------------------

    @rule(
        target=people,
        user=st.sampled_from(["u1", "u2"]),
        grants=st.sampled_from(GRANTS),
        life=st.sampled_from([15, 3600]),
    )
    def connect(self, user: str, grants: tuple[str, ...] | None, life: int) -> Person:
        """Somebody connects, some with a token that will not last."""
        permissions = None if grants is None else Permissions(grants, None)
        expires_at = self.world.clock.seconds() + life
        identity = identity_of(user, permissions=permissions, expires_at=expires_at)
        person = Person(self.world.open(identity), user, grants)
        self.everybody.append(person)
        return person

    @rule(person=people, name=st.sampled_from(NAMES), back=st.none() | st.integers(0, 3))
    def subscribe(self, person: Person, name: str, back: int | None) -> None:
        """Subscribe, perhaps recovering from where one was, or from before that."""
        if not person.open:
            return
        recover = {}
        if back is not None and name in person.known:
            known = person.known[name]
            recover[name] = known | {"offset": max(0, known["offset"] - back)}
        fresh = name not in person.names
        command = self.next()
        person.wire.say("Subscribe", {"topics": [name], "recover": recover}, id=command)
        if name in person.wire.client.topics:
            reached = [topic for topic in TOPICS if matches(name, topic)]
            assert all(permits(person.grants, topic) for topic in reached)
            person.names.add(name)
        else:
            # A pattern may be denied though each of these topics is allowed: there are others.
            assert name not in TOPICS or not permits(person.grants, name)
            return
        if recover and fresh:
            missed = self.missed(name, recover[name])
            if missed is not None:
                person.owed[name] += missed
            person.known[f"recovered by {command}"] = {"yes": missed is not None}

    def missed(self, topic: str, since: dict[str, Any]) -> list[int] | None:
        """What was published after a position, if it is all kept."""
        now = self.world.clock.seconds()
        truth = self.truth[topic]
        if not truth:
            return [] if since["offset"] == 0 else None
        if since["epoch"] != truth[-1][2] or since["offset"] > truth[-1][1]:
            return None
        after = [entry for entry in truth if entry[1] > since["offset"]]
        kept = [entry for entry in truth[-SIZE:] if entry[3] > now - TTL]
        return [entry[0] for entry in after] if set(after) <= set(kept) else None

    @rule(person=people, name=st.sampled_from(NAMES))
    def unsubscribe(self, person: Person, name: str) -> None:
        """Leave a topic or pattern."""
        if person.open:
            person.wire.say("Unsubscribe", {"topics": [name]})
            person.names.discard(name)

    @rule(person=people, grants=st.sampled_from(GRANTS))
    def renew(self, person: Person, grants: tuple[str, ...] | None) -> None:
        """Renew the token, with other permissions; what they do not allow is lost."""
        if not person.open:
            return
        permissions = None if grants is None else Permissions(grants, None)
        identity = replace(
            person.wire.client.identity,
            permissions=permissions,
            expires_at=self.world.clock.seconds() + 3600,
        )
        self.world.tokens["new"] = identity
        person.wire.say("Authenticate", {"token": "new"})
        person.grants = grants
        kept = set(person.wire.client.topics)
        for name in person.names:
            reached = [permits(grants, topic) for topic in TOPICS if matches(name, topic)]
            assert name in kept if all(reached) and name in TOPICS else True
            assert name not in kept if not all(reached) else True
        person.names &= kept
        assert person.names == kept

    @rule(person=consumes(people), read=st.integers(0, 5))
    def drop(self, person: Person, read: int) -> Any:
        """The connection is lost with something unread; the same one comes back from there."""
        self.world.settle()
        self.collect(person)
        self.process(person, read)
        if person.open:
            person.wire.client.closed(1000)
        self.everybody.remove(person)

    @rule(
        target=people,
        person=consumes(people),
        read=st.integers(0, 20),
        publisher=people,
        topics=st.lists(st.sampled_from(["h.a", "h.a", "h.b"]), max_size=SIZE + 2),
        seconds=st.sampled_from([0, 0, 1, TTL // 2]),
    )
    def come_back(
        self, person: Person, read: int, publisher: Person, topics: list[str], seconds: int
    ) -> Any:
        """The connection is lost, others publish, and its user subscribes where they left off."""
        names, known = sorted(person.names), person.known
        self.drop(person, read)
        if publisher is not person:
            for topic in topics:
                self.publish(publisher, topic, None, True)
        if seconds:
            self.wait(seconds)
        again = self.connect(person.user, person.grants, 3600)
        again.known = {name: place for name, place in known.items() if name in TOPICS}
        for name in names:
            self.subscribe(again, name, 0)
        return multiple(again)

    # -- publications --------------------------------------------------------------------------

    @rule(
        person=people,
        topic=st.sampled_from(TOPICS),
        key=st.none() | st.integers(0, 2),
        echo=st.booleans(),
    )
    def publish(self, person: Person, topic: str, key: int | None, echo: bool) -> None:
        """Publish, perhaps what was published already, perhaps not to oneself."""
        if not person.open:
            return
        payload = self.next()
        now = self.world.clock.seconds()
        data: dict[str, Any] = {"topic": topic, "payload": payload, "echo": echo}
        if key is not None:
            data["key"] = f"k{key}"
        person.wire.say("Broadcast", data, id=f"p{payload}")
        scope = (person.user, topic, key or 0)
        if key is not None:
            used = self.keys.get(scope)
            if used is not None and used[0] > now:
                return
            self.keys[scope] = (now + 300, None)
        offset, epoch = 0, ""
        if topic.startswith("h"):
            page = finished(self.world.node.history(topic, KEPT, limit=0))
            assert page is not None
            offset, epoch = page.position.offset, page.position.epoch
            truth = self.truth[topic]
            assert offset == (truth[-1][1] if truth and truth[-1][2] == epoch else 0) + 1
        self.truth[topic].append((payload, offset, epoch, now))
        for other in self.everybody:
            if other.open and any(matches(name, topic) for name in other.names):
                assert permits(other.grants, topic)
                if echo or other is not person:
                    other.owed[topic].append(payload)

    # -- time, and reading ---------------------------------------------------------------------

    @rule()
    def turn(self) -> None:
        """End a turn of the reactor."""
        self.world.turn()

    @rule(seconds=st.integers(1, 8))
    def wait(self, seconds: int) -> None:
        """Time passes: histories age, tokens expire."""
        self.world.settle()
        for person in self.everybody:
            person.wire.heard()
        self.world.pass_seconds(seconds)

    @rule(person=people, count=st.integers(0, 50))
    def read(self, person: Person, count: int) -> None:
        """Read some of what has come."""
        self.world.settle()
        self.collect(person)
        self.process(person, count)

    def collect(self, person: Person) -> None:
        """Take what has come off the wire."""
        person.unread += person.wire.read_now()

    def process(self, person: Person, count: int) -> None:
        """Look at the next messages as a client does, and compare each with what is owed."""
        now, person.unread = person.unread[:count], person.unread[count:]
        for message in now:
            data = message["data"]
            if message["type"] == "Broadcast":
                topic = data["topic"]
                assert person.owed[topic], f"not owed: {data}"
                assert data["payload"] == person.owed[topic].pop(0)
                if "offset" in data:
                    (entry,) = [e for e in self.truth[topic] if e[0] == data["payload"]]
                    assert entry[1:3] == (data["offset"], data["epoch"])
                    person.known[topic] = {"offset": data["offset"], "epoch": data["epoch"]}
            elif data.get("status") == "subscribed":
                self.note(person, message)

    def note(self, person: Person, message: dict[str, Any]) -> None:
        """Note where a topic is, and whether recovering was answered as it should be."""
        for entry in message["data"]["topics"]:
            promised = person.known.pop(f"recovered by {message['id']}", None)
            assert (promised is not None) == ("recovered" in entry)
            if promised is not None:
                assert entry["recovered"] == promised["yes"]
            if "offset" in entry:
                person.known[entry["topic"]] = {
                    "offset": entry["offset"],
                    "epoch": entry["epoch"],
                }

    def teardown(self) -> None:
        """In the end everybody who is connected has read all that was owed."""
        self.world.settle()
        for person in self.everybody:
            self.collect(person)
            self.process(person, len(person.unread))
            if person.open:
                assert not any(person.owed.values()), person.owed


class ModelTests(SynchronousTestCase):
    """The model, run."""

    def test_nothing_lost_repeated_or_reordered(self) -> None:
        """Whatever clients do in whatever order, each gets exactly what it is owed."""
        run_state_machine_as_test(
            Machine, settings=settings(max_examples=300, stateful_step_count=50)
        )
