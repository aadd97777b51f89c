"""`python -m realtime check-config`, and the page about permissions."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import jwt
from twisted.trial.unittest import SynchronousTestCase

from realtime.commands import main
from realtime.signing_keys import SIGNING_KEY
from tests.support.identity import ALICE, SECRET, make_access, make_state_dir
from tests.support.server import environment

PAGE = Path(__file__).parent.parent / "docs" / "permissions.rst"


class CheckConfigCase(SynchronousTestCase):
    """Runs the command in a directory of its own."""

    def setUp(self) -> None:
        """Go to a new directory, with nothing in the environment."""
        self.directory = Path(make_state_dir(self))
        before = Path.cwd()
        os.chdir(self.directory)
        self.addCleanup(os.chdir, before)
        self.patch(os, "environ", environment())

    def write(self, text: str) -> None:
        """Write the configuration."""
        Path("realtime.toml").write_text(text, encoding="utf-8")

    def command(self, *arguments: str, input: str = "") -> tuple[int, str, str]:
        """Run `python -m realtime`; answer its status, output and complaints."""
        output, complaints = io.StringIO(), io.StringIO()
        self.patch(sys, "stdin", io.StringIO(input))
        self.patch(sys, "stdout", output)
        self.patch(sys, "stderr", complaints)
        try:
            status = main(arguments)
        finally:
            sys.stdin, sys.stdout, sys.stderr = sys.__stdin__, sys.__stdout__, sys.__stderr__
        return status, output.getvalue(), complaints.getvalue()

    def check(self, *arguments: str, status: int = 0, input: str = "") -> str:
        """Run check-config, which has nothing to complain of; answer its output."""
        given, output, complaints = self.command(
            "check-config", "realtime.toml", *arguments, input=input
        )
        self.assertEqual((given, complaints), (status, ""))
        return output

    def refused(self, *arguments: str, input: str = "") -> str:
        """Run check-config, which fails: one line, status 1; answer the line."""
        status, output, complaints = self.command(
            "check-config", "realtime.toml", *arguments, input=input
        )
        self.assertEqual((status, output), (1, ""))
        self.assertRegex(complaints, r"\Arealtime: [^\n]+\n\Z")
        return complaints


class DescriptionTests(CheckConfigCase):
    """A configuration in words."""

    def test_everything(self) -> None:
        """Rules, other topics, changed options and warnings are told; no file is made."""
        self.write(
            """
            port = 9000
            origin = ["https://a.example", "https://b.example"]
            rotate-refresh-tokens = true
            [[topic]]
            pattern = "inbox.$user"
            subscribe = ["$user", "user", "admin"]
            read_history = ["*"]
            history_size = 1000
            history_ttl = 60
            durable = true
            [[topic]]
            pattern = "orders.>"
            subscribe = []
            publish = ["service"]
            history_size = 5
            read_history = ["admin"]
            presence = true
            join_leave = true
            read_presence = ["admin"]
            rate = 5000
            max_payload = 100000
            slow_consumers = "drop-oldest"
        """.replace(', "$user"]\n            presence', "]\n            presence")
        )
        expected = """\
            realtime.toml: 2 rules

            rule 1, inbox.$user
              subscribe:      the user whom $user names, and the roles admin, user
              publish:        the user whom $user names
              history:        the last 1,000 publications, none older than 60 seconds, on disk
              read history:   every authenticated user

            rule 2, orders.>
              subscribe:      nobody
              publish:        the role service
              history:        the last 5 publications, in memory
              read history:   the role admin
              presence:       known, Join and Leave are announced
              read presence:  the role admin
              rate:           5000 publications a second and connection
              payload:        100,000 bytes at most
              slow consumers: miss the oldest publications

            Topics that no rule names are open to every authenticated user.

            Options that differ from the default:
              port = 9000
              origin = https://a.example, https://b.example
              rotate-refresh-tokens = true

            Warnings:
              rule 1, inbox.$user: subscribe lists the role user: every user who has it may read \
others' topics
              rule 1, inbox.$user: read_history is open to everyone: every user may read others' \
topics
              rule 1, inbox.$user: ids with a dot are never $user, so that their topics are open \
to everyone; a rule for inbox.> after it can close them
              rule 2, orders.>: max_payload is more than max-frame-size lets through
              rule 2, orders.>: rate is more than message-rate lets through
              no rule for the rest (>): every authenticated user may use topics that no rule \
names; strict-topics = true refuses them
        """
        self.assertEqual(self.check(), textwrap.dedent(expected))
        self.assertEqual([path.name for path in self.directory.iterdir()], ["realtime.toml"])

    def test_little(self) -> None:
        """Other topics are told of in all files, but where the last rule is for all."""
        self.write("")
        rest = "Topics that no rule names are open to every authenticated user."
        self.assertEqual(self.check(), f"realtime.toml: no rules\n\n{rest}\n")
        self.write('strict-topics = true\n[[topic]]\npattern = "a"')
        output = self.check()
        self.assertIn("\nTopics that no rule names are refused.\n", output)
        self.assertNotIn("Warnings", output)
        self.write('[[topic]]\npattern = ">"\nsubscribe = ["*"]')
        output = self.check()
        self.assertNotIn("no rule", output)
        self.assertIn("subscribe:      every authenticated user", output)

    def warnings(self, text: str) -> list[str]:
        """What is warned of in a configuration."""
        self.write(text)
        return [line.strip() for line in self.check().partition("\nWarnings:\n")[2].splitlines()]

    def test_ids_with_dots(self) -> None:
        """Users' own topics are not closed for ids with a dot, unless what is beside them is."""
        for pattern, rest in (("inbox.$user", "inbox.>"), ("a.$user.b", "a.>"), ("$user.b", ">")):
            rule = f'[[topic]]\npattern = "{pattern}"\n'
            problem = (
                f"rule 1, {pattern}: ids with a dot are never $user, so that their topics are open "
                f"to everyone; a rule for {rest} after it can close them"
            )
            self.assertIn(problem, self.warnings(rule))
            self.assertEqual(self.warnings("strict-topics = true\n" + rule), [])
            for closed in (rest, ">"):
                wide = f'{rule}[[topic]]\npattern = "{closed}"\n'
                self.assertIn(problem, self.warnings(wide))
                self.assertIn(problem, self.warnings(wide + 'subscribe = ["*", "admin"]'))
                self.assertNotIn(problem, self.warnings(wide + "subscribe = []"))
                self.assertNotIn(problem, self.warnings(wide + 'subscribe = ["service"]'))
            narrow = f'{rule}[[topic]]\npattern = "{rest[:-1]}x.y"\nsubscribe = []'
            self.assertIn(problem, self.warnings(narrow))

    def test_joins_that_not_all_may_read(self) -> None:
        """Join and Leave reach those who may not read presence."""
        problem = (
            "rule 1, >: join_leave tells everyone who may subscribe who comes and goes, those whom "
            "read_presence leaves out as well"
        )
        rule = '[[topic]]\npattern = ">"\npresence = true\n'
        for rights, warned in (
            ("", False),
            ('read_presence = ["*"]', False),
            ('read_presence = ["admin"]', True),
            ('subscribe = ["*"]\nread_presence = ["admin"]', True),
            ('subscribe = ["a"]\nread_presence = ["a", "b"]', False),
            ('subscribe = ["a", "b"]\nread_presence = ["a"]', True),
            ("subscribe = []\nread_presence = []", False),
        ):
            self.assertEqual(
                self.warnings(f"{rule}join_leave = true\n{rights}"), [problem] if warned else []
            )
            self.assertEqual(self.warnings(rule + rights), [])

    def test_bad_configurations(self) -> None:
        """What is wrong is told in one line."""
        self.assertIn("realtime.toml", self.refused())
        self.write("[[topic]]\nhistory_size = 1")
        self.assertIn("rule 1", self.refused())
        self.write("port = ")
        self.refused()


class QuestionTests(CheckConfigCase):
    """Who may do what, and why."""

    def setUp(self) -> None:
        """Have some rules."""
        super().setUp()
        self.write("""
            strict-topics = true
            [[topic]]
            pattern = "inbox.$user"
            [[topic]]
            pattern = "orders.>"
            publish = ["service", "admin"]
        """)

    def test_a_user(self) -> None:
        """Questions are answered in their order; the status tells whether one was denied."""
        output = self.check(
            *("--user", "alice", "--publish=orders.new", "--subscribe", "inbox.alice"),
            *("--subscribe", ">"),
            status=3,
        )
        self.assertEqual(
            output.splitlines(),
            [
                "denied: publish to orders.new, because rule 2, orders.>: publishing needs one of "
                "the roles admin, service; the token has subscriber, user",
                "allowed: subscribe to inbox.alice, because rule 1, inbox.$user: subscribing is "
                "for the user whom $user names; the token is of user alice",
                "denied: subscribe to >, because it can match topics that no rule names, and these "
                "are refused (strict-topics)",
            ],
        )
        self.check("--user=u", "--role=x", "--role=service", "--publish=orders.new")
        self.check("--user=u", "--role=x", "--publish=orders.new", status=3)
        self.assertEqual([path.name for path in self.directory.iterdir()], ["realtime.toml"])

    def test_who_may_not_connect(self) -> None:
        """Who has none of the roles that may connect is denied all."""
        self.write('connect-role = ["member"]')
        self.check("--user=u", "--role=member", "--subscribe=a")
        output = self.check("--user=u", "--subscribe=a", status=3)
        self.assertIn("connecting is for the role member; the token has subscriber, user", output)

    def key(self) -> None:
        """Have a state directory with a signing key."""
        state = Path("realtime-state")
        state.mkdir()
        (state / SIGNING_KEY).write_bytes(SECRET)
        (state / SIGNING_KEY).chmod(0o600)

    def test_a_token_with_the_key(self) -> None:
        """A token is verified with the key of the state directory, and nothing is made there."""
        self.key()
        token = make_access(time.time)
        question = "--subscribe=inbox.user_1"
        output = self.check("--token", token, question)
        self.assertTrue(output.startswith("allowed: subscribe to inbox.user_1, because"), output)
        self.assertEqual(self.check("--token", "-", question, input=f"{token}\n"), output)
        self.assertEqual([path.name for path in Path("realtime-state").iterdir()], [SIGNING_KEY])
        foreign = jwt.encode({"sub": "user_1", "exp": 2**32}, "x" * 32)
        for bad in (foreign, token[:-5], "", "no token", "é"):
            self.assertIn("--token", self.refused(question, f"--token={bad}"))
        self.assertIn("expired", self.refused(question, "--token", make_access(lambda: 1e9)))

    def test_a_token_with_a_key_elsewhere(self) -> None:
        """The key may be the one of --secret-file, or that of another state directory."""
        self.key()
        Path("realtime-state").rename("other")
        token = make_access(time.time)
        check = ("check-config", "realtime.toml", "--token", token, "--subscribe=inbox.user_1")
        self.assertEqual(self.command("--state", "other", *check)[::2], (0, ""))
        self.write(f'secret-file = "other/{SIGNING_KEY}"\n[[topic]]\npattern = "inbox.$user"')
        self.assertEqual(self.command(*check)[::2], (0, ""))

    def test_a_token_without_a_key(self) -> None:
        """Without the key a token is read, with a plain warning, and never shown."""
        claims: dict[str, Any] = {"sub": "u", "exp": 2**32, "roles": ["a\x1b[2Jb"]}
        token = jwt.encode(claims, "x" * 32)
        status, output, complaints = self.command(
            "check-config", "realtime.toml", "--token", token, "--publish=orders.a"
        )
        self.assertEqual(status, 3)
        self.assertRegex(complaints, r"\Arealtime: warning: the token is NOT verified[^\n]+\n\Z")
        self.assertIn(r"the token has a\x1b[2Jb", output)
        self.assertNotIn(token[:20], output + complaints)
        self.assertFalse(Path("realtime-state").exists())
        for bad in ("a.b.c", "", jwt.encode({"sub": "u", "exp": 1}, "x" * 32)):
            status, output, complaints = self.command(
                "check-config", "realtime.toml", f"--token={bad}", "--publish=orders.a"
            )
            self.assertEqual((status, output), (1, ""))

    def test_bad_questions(self) -> None:
        """Questions that cannot be answered are told in one line."""
        for arguments in (
            *(("--user=u",), ("--subscribe=a",), ("--token=x",)),
            *(("--user=u", "--subscribe=a..b"), ("--user=u", "--publish=a.*")),
            *(("--user=u", "--publish=\x1b"), ("--user=\n", "--publish=a")),
            *(("--user=u", "--role=a b", "--publish=a"), ("--user=u", "--token=x", "--publish=a")),
            ("--role=x", "--publish=a"),
        ):
            self.refused(*arguments)
        self.assertIn(r"\x1b", self.refused("--user=u", "--publish=\x1b"))


class PageTests(CheckConfigCase):
    """The examples of docs/permissions.rst."""

    def test_examples(self) -> None:
        """Each TOML block is a good configuration; each console block shows what commands print.

        A console block is run with the TOML block before it as realtime.toml, and with TOKEN set
        to a token that has the claims of the JSON block before it.
        """
        text = PAGE.read_text(encoding="utf-8")
        blocks = re.findall(r"^\.\. code-block:: (\w+)\n\n((?:   .*\n|\n)+)", text, re.MULTILINE)
        self.assertEqual({kind for kind, _ in blocks}, {"toml", "console", "json"})
        token = ""
        commands = 0
        for kind, block in blocks:
            body = textwrap.dedent(block).strip("\n")
            if kind == "toml":
                self.write(body)
                self.check()
            elif kind == "json":
                claims = {"sub": ALICE.user_id, "exp": 2**32} | json.loads(body)
                token = jwt.encode(claims, SECRET)
            else:
                for command in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
                    line, _, expected = command.partition("\n")
                    self.run_line(line.replace('"$TOKEN"', token), expected)
                    commands += 1
        self.assertGreater(commands, 4)

    def run_line(self, line: str, expected: str) -> None:
        """Run one command of the page, and compare what it prints."""
        words = shlex.split(line)
        if words == ["echo", "$?"]:
            self.assertEqual(str(self.status), expected.strip())
            return
        self.assertEqual(words[:3], ["python", "-m", "realtime"])
        self.status, output, complaints = self.command(*words[3:])
        self.assertEqual(complaints + output, expected.rstrip("\n") + "\n", line)
