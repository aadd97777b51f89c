"""Tests of realtime.rules."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any, get_args

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from realtime.model import Identity, Namespace, Permissions
from realtime.rules import DEFAULT, Right, Rules, has_right, may_publish, plain_pattern
from tests.support.strategies import server_patterns, server_topics, topics
from tests.test_topics import UNIVERSE, expand, naive_matches

RIGHTS: tuple[Right, ...] = get_args(Right)


def rights(*names: str) -> frozenset[str]:
    """The value of a right."""
    return frozenset(names)


def identity_of(
    user_id: str = "alice", *roles: str, subscribe: Any = None, publish: Any = None
) -> Identity:
    """Whom a token would describe."""
    permissions = None
    if subscribe is not None or publish is not None:
        permissions = Permissions(subscribe, publish)
    return Identity(user_id, None, frozenset(roles), None, 2e9, permissions)


named = st.none() | st.frozensets(st.sampled_from(["r", "s", "*", "$user"]), max_size=2)
rule_patterns = st.builds(
    lambda middle, last: ".".join([*middle, last]),
    st.lists(st.sampled_from(["a", "b", "*", "$user"]), max_size=2),
    st.sampled_from(["a", "b", "*", ">", "$user"]),
)
namespaces = st.builds(
    Namespace,
    rule_patterns,
    subscribe=named,
    publish=named,
    read_presence=named,
    read_history=named,
)
rules = st.builds(Rules, st.lists(namespaces, max_size=4), st.booleans())
rule_lists = st.lists(namespaces, max_size=4)
grants = st.none() | st.lists(server_patterns, max_size=2).map(tuple)
identities = st.builds(
    lambda user, roles, subscribe, publish: identity_of(
        user, *roles, subscribe=subscribe, publish=publish
    ),
    st.sampled_from(["a", "b", "nobody", "*", ">"]),
    # No issuer's role is a way round.
    st.sets(st.sampled_from(["r", "s", "t", "$user"])),
    grants,
    grants,
)


def naive_namespace(found: list[Namespace], strict: bool, topic: str) -> Namespace | None:
    """The first of some rules that matches a topic."""
    if topic.startswith("$"):
        return None
    for namespace in found:
        parts = ["*" if part == "$user" else part for part in namespace.pattern.split(".")]
        if naive_matches(parts, topic.split(".")):
            return namespace
    return None if strict else DEFAULT


def naive_may(identity: Identity, right: Right, namespace: Namespace | None, topic: str) -> bool:
    """What the documentation says of one topic."""
    if namespace is None:
        return False
    wanted = getattr(namespace, right)
    if right.startswith("read_") and wanted is None:
        return naive_may(identity, "subscribe", namespace, topic)
    reads = right.startswith("read_")
    granted = getattr(identity.permissions, "subscribe" if reads else right, None)
    if granted is not None:
        named = any(naive_matches(grant.split("."), topic.split(".")) for grant in granted)
        if not (named and reads):
            return named
    if wanted is None or "*" in wanted or identity.roles & (wanted - {"$user"}):
        return True
    parts = zip_longest(namespace.pattern.split("."), topic.split("."))
    own = [part == identity.user_id for wild, part in parts if wild == "$user"]
    return "$user" in wanted and own != [] and all(own)


class OneTopicTests(SynchronousTestCase):
    """Rights to a topic."""

    @given(rule_lists, st.booleans(), identities, st.sampled_from(RIGHTS), server_topics)
    def test_as_documented(
        self,
        found: list[Namespace],
        strict: bool,
        identity: Identity,
        right: Right,
        topic: str,
    ) -> None:
        """The first rule that matches decides, by roles or by the token's own permissions."""
        rules = Rules(found, strict)
        namespace = naive_namespace(found, strict, topic)
        expected = naive_may(identity, right, namespace, topic)
        self.assertIs(rules.namespace(topic), namespace)
        self.assertIs(rules.may(identity, right, topic), expected)
        if namespace is not None:
            self.assertIs(has_right(identity, right, namespace, topic), expected)
            if right == "publish":
                self.assertIs(may_publish(identity, namespace, topic), expected)

    @given(topics, st.sampled_from(RIGHTS))
    def test_without_rules(self, topic: str, right: Right) -> None:
        """Without rules all is open but the server's own; strictly, nothing is."""
        identity = identity_of()
        self.assertIs(Rules().may(identity, right, topic), not topic.startswith("$"))
        self.assertIs(Rules((), True).may(identity, right, topic), False)

    def test_nothing_opens_the_servers_topics(self) -> None:
        """Neither a rule nor a token's permission that names it opens a topic of the server's."""
        everything = (">", "$sys", "$sys.>", "*")
        identity = identity_of("$sys", "admin", subscribe=everything, publish=everything)
        rules = Rules([Namespace(name) for name in (*everything, "$user", "$user.>")])
        for topic in ("$sys", "$sys.load", "$"):
            self.assertIsNone(rules.namespace(topic))
            for right in RIGHTS:
                self.assertFalse(rules.may(identity, right, topic))
        self.assertFalse(rules.may(identity, "subscribe", "$sys.*"))

    def test_first_match_wins(self) -> None:
        """A rule further down does not count, however well it fits."""
        rules = Rules([Namespace("a.*", subscribe=rights()), Namespace("a.b")])
        self.assertFalse(rules.may(identity_of(), "subscribe", "a.b"))
        self.assertTrue(rules.may(identity_of(), "subscribe", "a.b.c"))

    def test_a_users_own(self) -> None:
        """`$user` is for the user whose id stands there, for others only with a role that is."""
        rules = Rules(
            [Namespace("inbox.$user", subscribe=rights("$user"), publish=rights("$user", "bot"))]
        )
        self.assertTrue(rules.may(identity_of("alice"), "subscribe", "inbox.alice"))
        self.assertFalse(rules.may(identity_of("bob"), "subscribe", "inbox.alice"))
        self.assertFalse(rules.may(identity_of("x", "bot"), "subscribe", "inbox.alice"))
        self.assertTrue(rules.may(identity_of("x", "bot"), "publish", "inbox.alice"))

    def test_reading_follows_subscribing(self) -> None:
        """Who may subscribe may read, by the token's permissions too, unless the rule says who."""
        rules = Rules(
            [
                Namespace("a", subscribe=rights("r")),
                Namespace("b", subscribe=rights("r"), read_history=rights("s")),
            ]
        )
        for identity, topic, expected in [
            (identity_of("u", "r"), "a", True),
            (identity_of("u", "s"), "a", False),
            (identity_of("u", "r"), "b", False),
            (identity_of("u", "s"), "b", True),
            (identity_of("u", "s", subscribe=("a", "b")), "a", True),
            (identity_of("u", "r", subscribe=("b",)), "a", False),
            (identity_of("u", "r", subscribe=("b",)), "b", False),
        ]:
            self.assertIs(rules.may(identity, "read_history", topic), expected, (identity, topic))

    def test_tokens_narrow_and_widen(self) -> None:
        """A token's permissions replace the roles of that right, and of no other."""
        rules = Rules([Namespace("a.*", subscribe=rights("r"), publish=rights("r"))], strict=True)
        identity = identity_of("u", subscribe=("a.b", "x"))
        self.assertTrue(rules.may(identity, "subscribe", "a.b"))
        self.assertFalse(rules.may(identity, "subscribe", "a.c"))
        self.assertFalse(rules.may(identity, "publish", "a.b"))
        self.assertFalse(rules.may(identity, "subscribe", "x"))


class PatternTests(SynchronousTestCase):
    """Subscribing to a pattern."""

    @given(rule_lists, st.booleans(), identities, server_patterns)
    def test_never_more_than_its_topics(
        self, found: list[Namespace], strict: bool, identity: Identity, pattern: str
    ) -> None:
        """Who may subscribe to a pattern may subscribe to every topic that it matches."""
        rules = Rules(found, strict)
        if rules.may(identity, "subscribe", pattern):
            for place in expand(pattern):
                topic = ".".join(UNIVERSE[place])
                namespace = naive_namespace(found, strict, topic)
                self.assertTrue(naive_may(identity, "subscribe", namespace, topic), topic)

    @given(rule_lists, st.booleans(), identities, server_patterns)
    def test_as_documented(
        self, found: list[Namespace], strict: bool, identity: Identity, pattern: str
    ) -> None:
        """Every rule that matches some of it must allow, down to one that matches all of it."""
        every = expand(pattern)
        candidates = [*found] if strict else [*found, DEFAULT]
        expected = False
        if not pattern.startswith("$"):
            for namespace in candidates:
                matched = expand(plain_pattern(namespace.pattern))
                if matched & every:
                    if not naive_may_all(identity, namespace, pattern):
                        break
                    if matched >= every:
                        expected = True
                        break
        if "*" in pattern or ">" in pattern:
            self.assertIs(Rules(found, strict).may(identity, "subscribe", pattern), expected)

    @given(rules, identities, server_patterns, st.sampled_from(RIGHTS[1:]))
    def test_only_to_subscribe(
        self, rules: Rules, identity: Identity, pattern: str, right: Right
    ) -> None:
        """No other right is there for a pattern."""
        if "*" in pattern or ">" in pattern:
            self.assertFalse(rules.may(identity, right, pattern))

    def test_a_users_own(self) -> None:
        """A pattern may hold a `$user` part only where it has the user's id itself."""
        rules = Rules([Namespace("inbox.$user.>", subscribe=rights("$user"))])
        alice = identity_of("alice")
        self.assertTrue(rules.may(alice, "subscribe", "inbox.alice.*"))
        self.assertTrue(rules.may(alice, "subscribe", "*.alice.news"))
        for pattern in ("inbox.*.news", "inbox.bob.>", "inbox.>", ">", "*.*.>"):
            self.assertFalse(rules.may(alice, "subscribe", pattern), pattern)

    def test_a_user_called_as_a_wildcard(self) -> None:
        """A user whose id looks like a wildcard has no right to what the wildcard matches."""
        rules = Rules([Namespace("inbox.$user", subscribe=rights("$user"))])
        for user_id in ("*", ">"):
            self.assertFalse(rules.may(identity_of(user_id), "subscribe", f"inbox.{user_id}"))

    def test_down_to_the_rule_that_covers(self) -> None:
        """Rules below one that matches the whole pattern do not matter."""
        rules = Rules([Namespace("chat.>"), Namespace("*.secret", subscribe=rights("admin"))])
        self.assertTrue(rules.may(identity_of(), "subscribe", "chat.*"))
        self.assertFalse(rules.may(identity_of(), "subscribe", "*.*"))
        self.assertTrue(rules.may(identity_of("u", "admin"), "subscribe", "*.*"))

    def test_strict(self) -> None:
        """Strictly, one rule has to match all that the pattern does."""
        rules = Rules([Namespace("a.*"), Namespace("b.>")], strict=True)
        self.assertTrue(rules.may(identity_of(), "subscribe", "a.*"))
        self.assertTrue(rules.may(identity_of(), "subscribe", "b.*.c"))
        self.assertFalse(rules.may(identity_of(), "subscribe", "a.>"))
        self.assertFalse(rules.may(identity_of("u", subscribe=(">",)), "subscribe", "a.>"))


def naive_may_all(identity: Identity, namespace: Namespace, pattern: str) -> bool:
    """Whether a rule allows what it has of a pattern."""
    if identity.permissions is not None and identity.permissions.subscribe is not None:
        return any(expand(grant) >= expand(pattern) for grant in identity.permissions.subscribe)
    if identity.user_id in "*>":
        identity = identity_of("nobody", *identity.roles)
    return naive_may(identity, "subscribe", namespace, pattern)


class ExplainTests(SynchronousTestCase):
    """Why."""

    @given(rules, identities, st.sampled_from(RIGHTS), server_topics | server_patterns)
    def test_agrees(self, rules: Rules, identity: Identity, right: Right, name: str) -> None:
        """The explanation and the decision never differ; it is one line, its end left open."""
        decision = rules.explain(identity, right, name)
        self.assertIs(decision.allowed, rules.may(identity, right, name))
        self.assertRegex(decision.reason, r"\A[^\n]+[^.\n]\Z")
        if "*" not in name and ">" not in name:
            self.assertIs(decision.namespace, rules.namespace(name))

    def test_sentences(self) -> None:
        """Each reason names the rule, what it demands, and what the token has."""
        found = [
            Namespace("inbox.$user", subscribe=rights("$user"), publish=rights("$user", "bot")),
            Namespace("orders.>", subscribe=None, publish=rights("service", "admin")),
            Namespace("closed", subscribe=rights(), publish=rights("admin")),
        ]
        user = identity_of("alice", "user")
        token = identity_of("alice", "user", subscribe=("orders.*", "a"), publish=())
        first, second, third = "rule 1, inbox.$user", "rule 2, orders.>", "rule 3, closed"
        for identity, right, name, expected in [
            (
                *(user, "publish", "orders.new"),
                f"{second}: publishing needs one of the roles admin, service; the token has user",
            ),
            (
                *(user, "publish", "closed"),
                f"{third}: publishing needs the role admin; the token has user",
            ),
            (
                *(identity_of("u"), "publish", "closed"),
                f"{third}: publishing needs the role admin; the token has none",
            ),
            (
                *(user, "subscribe", "orders.new"),
                f"{second}: subscribing is open to every authenticated user",
            ),
            (
                *(user, "read_history", "orders.new"),
                f"{second}: reading history goes with subscribing; "
                "subscribing is open to every authenticated user",
            ),
            (
                *(user, "subscribe", "inbox.bob"),
                f"{first}: subscribing is for the user whom $user names; "
                "the token is of user alice",
            ),
            (
                *(user, "publish", "inbox.bob"),
                f"{first}: publishing is for the user whom $user names or the role bot; "
                "the token is of user alice and has user",
            ),
            (user, "subscribe", "closed", f"{third}: subscribing is closed to everybody"),
            (
                *(user, "subscribe", "x"),
                "no rule names it: subscribing is open to every authenticated user",
            ),
            (user, "subscribe", "$sys", "names that begin with $ are the server's own"),
            (
                *(token, "subscribe", "orders.new"),
                f"{second}: the token's permissions grant subscribing to orders.*, a",
            ),
            (
                *(token, "publish", "orders.new"),
                f"{second}: the token's permissions grant publishing to nothing",
            ),
            (
                *(user, "subscribe", "inbox.*"),
                f"it can match topics of {first}: subscribing is for the user whom $user "
                "names; the token is of user alice",
            ),
            (
                *(user, "subscribe", "*.x.>"),
                f"it can match topics of {second}; no rule; all of these are allowed",
            ),
            (user, "publish", "orders.*", "publishing is for single topics, not for patterns"),
        ]:
            self.assertEqual(Rules(found).explain(identity, right, name).reason, expected)
        strict = Rules(found, strict=True)
        self.assertEqual(
            strict.explain(user, "subscribe", "x").reason,
            "no rule names it, and such topics are refused (strict-topics)",
        )
        self.assertEqual(
            strict.explain(user, "subscribe", "*.x.>").reason,
            "it can match topics that no rule names, and these are refused (strict-topics)",
        )
