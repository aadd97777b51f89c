"""The `[[topic]]` tables of the TOML file."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from realtime.errors import ConfigurationError
from realtime.model import Namespace
from realtime.namespaces import read_namespaces
from realtime.settings import Settings, read_settings


class NamespacesTests(SynchronousTestCase):
    """Rules out of a file."""

    def read(self, text: str) -> Settings:
        """The settings of a file with this text."""
        self.path = Path(self.mktemp())
        self.path.write_text(text, encoding="utf-8")
        return read_settings({}, {}, str(self.path))

    def rule(self, text: str) -> Namespace:
        """The rule of a file with this one."""
        (namespace,) = self.read(f"[[topic]]\n{text}").topics
        return namespace

    def refused(self, text: str, *words: str) -> None:
        """The text is refused in one line that names the file and has all of `words`."""
        error = self.assertRaises(ConfigurationError, self.read, text)
        for word in (str(self.path), *words):
            self.assertIn(word, str(error))
        self.assertNotIn("\n", str(error))

    def refused_rule(self, text: str, *words: str) -> None:
        """A rule is refused, and named."""
        self.refused(f'[[topic]]\npattern = "first"\n[[topic]]\n{text}', "[[topic]] rule 2", *words)

    def test_without(self) -> None:
        """No file, and a file without rules, give none."""
        self.assertEqual(read_settings({}, {}).topics, ())
        self.assertEqual(self.read("port = 1").topics, ())

    def test_every_key(self) -> None:
        """Each key of a table is a field of the namespace."""
        text = """
            port = 99
            strict-topics = true
            [[topic]]
            pattern = "orders.$user.>"
            subscribe = ["$user", "admin"]
            publish = ["service"]
            read_presence = ["admin"]
            read_history = []
            history_size = 100
            history_ttl = 3600
            durable = true
            presence = true
            join_leave = true
            rate = 2.5
            max_payload = 1024
            slow_consumers = "latest"
            [[topic]]
            pattern = ">"
        """
        settings = self.read(text)
        self.assertEqual((settings.port, settings.strict_topics), (99, True))
        self.assertEqual(
            settings.topics,
            (
                Namespace(
                    "orders.$user.>",
                    subscribe=frozenset({"$user", "admin"}),
                    publish=frozenset({"service"}),
                    read_presence=frozenset({"admin"}),
                    read_history=frozenset(),
                    history_size=100,
                    history_ttl=3600.0,
                    durable=True,
                    presence=True,
                    join_leave=True,
                    rate=2.5,
                    max_payload=1024,
                    slow_consumers="latest",
                ),
                Namespace(">"),
            ),
        )
        for field in fields(Namespace):
            self.assertIn(f"{field.name} = ", text)

    def test_rights_that_are_not_given(self) -> None:
        """They are the user's own where a part is `$user`, and everybody's elsewhere."""
        own = frozenset({"$user"})
        self.assertEqual(self.rule('pattern = "a.$user"'), Namespace("a.$user", own, own))
        self.assertEqual(
            self.rule('pattern = "a.$user"\nsubscribe = ["r"]'),
            Namespace("a.$user", frozenset({"r"}), own),
        )
        self.assertEqual(self.rule('pattern = "a.*"'), Namespace("a.*"))

    def test_everyone(self) -> None:
        """`*` is everybody; for reading it is said, since that would go with subscribing."""
        text = 'pattern = "a.$user"\nsubscribe = ["*", "r"]\npublish = ["*"]\nread_history = ["*"]'
        self.assertEqual(
            self.rule(text), Namespace("a.$user", None, None, read_history=frozenset({"*"}))
        )

    def test_mistakes_in_keys(self) -> None:
        """What is unknown, missing, of the wrong type or out of bounds is named."""
        self.refused_rule('pattern = "a"\nhistory = 3', "(a)", "unknown key 'history'")
        self.refused_rule('pattern = "a"\nport = 3', "unknown key 'port'", "before the first")
        self.refused_rule('pattern = "a"\nhistroy_size = 3', "is it history_size?")
        self.refused_rule('pattern = "a"\nhistory-size = 3', "is it history_size?")
        self.refused_rule("presence = true", "pattern is missing")
        for line in (
            *('pattern = "a b"', 'pattern = "a.>.b"', 'pattern = ""', "pattern = 3"),
            *('pattern = "a.x$user"', 'pattern = "a.$users"', 'pattern = "$user.$user"'),
            *('pattern = "$sys.>"', 'pattern = "inbox.$usr"', "pattern = ['a']"),
        ):
            self.refused_rule(line, "pattern: ")
        for line in (
            *('subscribe = "admin"', "publish = [1]", 'read_presence = ["a b"]'),
            *('read_history = ["$admin"]', "subscribe = true", 'publish = [""]'),
            *("history_size = -1", "history_size = 100001", "history_size = 1.0"),
            *("history_size = true", 'history_ttl = "5m"', "history_ttl = nan"),
            *("history_ttl = -1", "history_ttl = inf", 'durable = "yes"', "presence = 1"),
            *("join_leave = []", "rate = 0", 'rate = "1"', "rate = false", "max_payload = 0"),
            *("max_payload = 1e3", "subscribe = [['a']]", "history_ttl = 1979-05-27"),
            *('slow_consumers = "drop"', "slow_consumers = []", "slow_consumers = true"),
        ):
            key = line.partition(" ")[0]
            self.refused_rule(f'pattern = "a"\n{line}', "(a)", f"{key}: ")

    def test_mistakes_in_combination(self) -> None:
        """A key that needs another is refused without it."""
        self.refused_rule('pattern = "a"\ndurable = true', "durable needs history_size")
        self.refused_rule('pattern = "a"\nhistory_ttl = 5', "history_ttl needs history_size")
        self.refused_rule('pattern = "a"\njoin_leave = true', "join_leave needs presence")
        for key in ("subscribe", "publish", "read_presence", "read_history"):
            self.refused_rule(f'pattern = "a"\n{key} = ["$user"]', f"{key}: $user")

    def test_rules_that_never_count(self) -> None:
        """A rule is refused when an earlier one matches all that it does; both are named."""
        for earlier, later in [
            (">", "chat.*"),
            ("chat.>", "chat.a"),
            ("a.b", "a.b"),
            ("a.$user", "a.*"),
            ("a.*", "a.$user"),
        ]:
            text = f'[[topic]]\npattern = "{earlier}"\n[[topic]]\npattern = "{later}"'
            self.refused(text, f"rule 2 ({later})", f"rule 1 ({earlier})")
        both = '[[topic]]\npattern = "chat.a"\n[[topic]]\npattern = "chat.>"'
        self.assertEqual([rule.pattern for rule in self.read(both).topics], ["chat.a", "chat.>"])

    def test_not_a_list_of_tables(self) -> None:
        """A single [topic] table, or a plain value, is told how to write it."""
        for text in ('[topic]\npattern = "a"', "topic = 3", "topic = [3]"):
            self.refused(text, "[[topic]]")

    @given(
        st.lists(
            st.dictionaries(
                st.sampled_from([field.name for field in fields(Namespace)]) | st.text(),
                st.one_of(
                    *(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
                    *(st.just("a.$user"), st.just(">"), st.lists(st.text() | st.just("$user"))),
                ),
            )
        )
    )
    def test_anything(self, tables: list[dict[str, object]]) -> None:
        """Whatever a table has, it gives a rule or a one-line mistake."""
        try:
            found = read_namespaces(tables, "realtime.toml")
        except ConfigurationError as error:
            self.assertNotIn("\n", str(error))
        else:
            self.assertEqual(len(found), len(tables))
