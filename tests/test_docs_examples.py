"""Every code block of the README and of docs/ is run, or checked, by a test.

`BY_TESTS` says which test runs the blocks of a page in a language. All other pages are played here
(`tests/support/player.py`), block by block against a real server.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from http.client import HTTPConnection, HTTPResponse
from importlib import import_module
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from twisted.trial.unittest import SynchronousTestCase

from bench.__main__ import parse as parse_bench
from realtime.asyncapi import asyncapi
from tests.hostile.__main__ import parse as parse_attacks
from tests.hostile.catalogue import ATTACKS
from tests.support.browser import drive, no_browser
from tests.support.js_client import install, no_build
from tests.support.pages import Step, blocks, pages, steps
from tests.support.player import Player, check_syntax
from tests.support.reference import no_node
from tests.support.schemas import closed
from tests.support.server import ROOT, environment

_FIRST_RUN = "tests.integration.test_first_run.FirstRunTests.test_examples_talk"
_README = "tests.test_packaging.ReadmeTests.test_examples_are_sound"
_WEBHOOKS = "tests.test_webhooks.PageTests"
_CONVERSATIONS = "tests.integration.test_conversations.ConversationTests"
_CHECK_CONFIG = "tests.test_check_config.PageTests.test_examples"
_HERE = "tests.test_docs_examples"
# By page and language.
BY_TESTS: dict[str, dict[str, str]] = {
    "README.rst": {
        "sh": _FIRST_RUN,
        "javascript": _FIRST_RUN,
        "python": _FIRST_RUN,
        "toml": _README,
    },
    "docs/history.rst": dict.fromkeys(("toml", "json"), f"{_CONVERSATIONS}.test_history"),
    "docs/presence.rst": dict.fromkeys(("toml", "json"), f"{_CONVERSATIONS}.test_presence"),
    "docs/permissions.rst": dict.fromkeys(("toml", "console", "json"), _CHECK_CONFIG),
    "docs/server-api.rst": {
        "console": "tests.integration.test_server_api.ServerApiTests.test_page"
    },
    "docs/webhooks.rst": {
        "toml": f"{_WEBHOOKS}.test_configuration",
        "bash": f"{_WEBHOOKS}.test_secret",
        "python": f"{_WEBHOOKS}.test_verification_in_python",
        "javascript": f"{_WEBHOOKS}.test_verification_in_node",
        "http": f"{_HERE}.WebhookPageTests.test_headers",
        "json": f"{_HERE}.WebhookPageTests.test_bodies",
    },
    "docs/tutorial.rst": dict.fromkeys(
        ("sh", "toml", "console", "html", "javascript", "python"),
        "tests.test_docs_tutorial.TutorialTests.test_tutorial",
    ),
    "docs/performance/method.rst": {
        "sh": f"{_HERE}.BenchPageTests.test_commands",
        "text": f"{_HERE}.BenchPageTests.test_output",
    },
    "docs/security/attacks.rst": {"sh": f"{_HERE}.AttacksPageTests.test_commands"},
}
# Pages that are played, and the test that does.
PLAYED = {
    "docs/clients.rst": "test_clients",
    "docs/commands.rst": "test_commands",
    "docs/migrating-centrifugo.rst": "test_centrifugo",
    "docs/migrating-pusher.rst": "test_pusher",
    "docs/migrating-socketio.rst": "test_socketio",
    "docs/metrics.rst": "test_metrics",
    "docs/nodes.rst": "test_nodes",
    "docs/operations.rst": "test_operations",
    "docs/options.rst": "test_options",
    "docs/protocol.rst": "test_protocol",
    "docs/security.rst": "test_security",
    "docs/security/audit.rst": "test_security_audit",
    "docs/security/keys.rst": "test_security_keys",
    "docs/sse.rst": "test_sse",
    "docs/tokens.rst": "test_tokens",
}


class CoverageTests(SynchronousTestCase):
    """No block is left out."""

    def test_all_blocks(self) -> None:
        """Each block is of a page and a language that some test runs."""
        for page in pages():
            for block in blocks(page):
                if page not in PLAYED:
                    self.assertIn(block.language, BY_TESTS.get(page, {}), f"nobody runs {block}")
                elif not block.other:
                    # The player fails at languages that it does not know.
                    self.assertTrue(hasattr(PlayedPageTests, PLAYED[page]))

    def test_tests_exist(self) -> None:
        """The tests named are there, and the pages have what they are to run."""
        for page, languages in BY_TESTS.items():
            self.assertEqual({block.language for block in blocks(page)}, {*languages}, page)
            for name in languages.values():
                module, case, method = name.rsplit(".", 2)
                self.assertTrue(hasattr(getattr(import_module(module), case), method), name)
        for page in PLAYED:
            self.assertTrue(blocks(page), page)


class PlayedPageTests(SynchronousTestCase):
    """Pages whose examples are run in order, in a folder of their own."""

    def play(self, page: str, **more: Any) -> None:
        """Play a page to its end."""
        Player(self, f"docs/{page}", **more).play()

    def test_clients(self) -> None:
        """docs/clients.rst, the JavaScript with the package installed."""
        if problem := no_build() or no_node("ws"):
            self.skipTest(problem)

        def javascript(step: Step) -> None:
            install(player.folder, "ws")
            player.run(step)

        player = Player(
            self,
            "docs/clients.rst",
            {"javascript": javascript},
            config='[[topic]]\npattern = "chat.*"\nhistory_size = 10\n',
        )
        player.play()

    def test_commands(self) -> None:
        """docs/commands.rst: what the commands print is what the page says."""
        self.play(
            "commands.rst", start=True, config='[[topic]]\npattern = "chat.*"\nhistory_size = 10\n'
        )

    def test_metrics(self) -> None:
        """docs/metrics.rst."""
        self.play("metrics.rst")

    def test_nodes(self) -> None:
        """docs/nodes.rst: the server starts on Redis."""
        self.play("nodes.rst")

    def test_operations(self) -> None:
        """docs/operations.rst."""
        self.play("operations.rst")

    def test_options(self) -> None:
        """docs/options.rst."""
        self.play("options.rst")

    def test_security(self) -> None:
        """docs/security.rst."""
        self.play("security.rst")

    def test_security_audit(self) -> None:
        """docs/security/audit.rst: the lines shown are those written."""
        self.play("security/audit.rst", config='audit-log = "audit.log"\n', start=True)

    def test_security_keys(self) -> None:
        """docs/security/keys.rst: what the commands print is what the page says."""
        self.play("security/keys.rst", start=True)

    def test_protocol(self) -> None:
        """docs/protocol.rst: its messages are those of /asyncapi.json, with all that they have."""
        document = asyncapi()
        for step in blocks("docs/protocol.rst"):
            self.assertEqual(step.language, "json")
            message = json.loads(step.text)
            payload = document["components"]["messages"][message["type"]]["payload"]
            schema = closed(payload | {"components": document["components"]})
            Draft202012Validator(schema).validate(message)

    def test_sse(self) -> None:
        """docs/sse.rst: what is shown is what comes, and a browser's EventSource hears it."""
        if problem := no_browser():
            self.skipTest(problem)
        page = SsePage(self)
        page.player.play()

    def test_tokens(self) -> None:
        """docs/tokens.rst: a backend's own token is taken."""
        self.play("tokens.rst")

    def test_centrifugo(self) -> None:
        """docs/migrating-centrifugo.rst."""
        self.migrate("migrating-centrifugo.rst")

    def test_pusher(self) -> None:
        """docs/migrating-pusher.rst."""
        self.migrate("migrating-pusher.rst")

    def test_socketio(self) -> None:
        """docs/migrating-socketio.rst."""
        self.migrate("migrating-socketio.rst")

    def migrate(self, page: str) -> None:
        """Run what is ours, and check the syntax of what is not; there is some of both."""
        if problem := no_node("ws"):
            self.skipTest(problem)
        others = [bool(step.other) for step in blocks(f"docs/{page}")]
        self.assertGreater(others.count(True), 2)
        self.assertGreater(others.count(False), 3)
        self.play(page)


class SsePage:
    """docs/sse.rst, played: a stream is open while commands are sent."""

    def __init__(self, case: SynchronousTestCase) -> None:
        self._case = case
        self.player = Player(
            case,
            "docs/sse.rst",
            {"stream": self.stream, "eventsource": self.eventsource, "command": self.command},
            config='[[topic]]\npattern = "chat.*"\nhistory_size = 10\n',
        )
        self._heard: list[str] = []

    def open(self, token: str) -> HTTPResponse:
        """Open a stream."""
        assert self.player.server is not None
        link = HTTPConnection("127.0.0.1", self.player.server.port, timeout=20)
        self._case.addCleanup(link.close)
        headers = {"Authorization": f"Bearer {token}"}
        link.request("GET", "/sse?topics=chat.general", headers=headers)
        return link.getresponse()

    def record(self) -> list[str]:
        """The lines of a stream of which the session ends after a publication."""
        server = self.player.server
        assert server is not None
        login = server.login("alice")
        stream = self.open(login["access_token"])
        headers = {"Authorization": "Bearer " + self.player.shell("echo $KEY").strip()}
        lines = [self.until(stream, "subscribed")]
        server.request("POST", "/publish", {"topic": "chat.general", "payload": "Hello"}, **headers)
        lines.append(self.until(stream, "Hello"))
        headers = {"Authorization": f"Bearer {login['access_token']}"}
        server.request("DELETE", f"/sessions/{login['session_id']}", **headers)
        return [*"".join(lines).splitlines(), *stream.read().decode().splitlines()]

    def until(self, stream: HTTPResponse, word: str) -> str:
        """What is told up to a line with a word in it."""
        told = line = ""
        while word not in line:
            line = stream.readline().decode()
            assert line, told
            told += line
        return told

    def stream(self, step: Step) -> None:
        """Each line shown begins as one that a real stream has."""
        self._heard = self._heard or self.record()
        for line in filter(None, step.text.splitlines()):
            shown = self.mask(line.partition("...")[0])
            heard = [self.mask(each) for each in self._heard]
            self._case.assertTrue(any(each.startswith(shown) for each in heard), (shown, heard))

    def mask(self, line: str) -> str:
        """A line without what differs each time."""
        line = re.sub(r"^id: .*", "id:", line)
        return re.sub(r'("connection_id"):"[^"]*"', r"\1", line)

    def command(self, step: Step) -> None:
        """What the command says comes on the stream, and so does its Ack."""
        stream = self.open(self.player.shell("echo $TOKEN").strip())
        (id,) = re.findall(r'"connection_id":"([^"]+)"', self.until(stream, "connection_id"))
        self.player.shell(f"export CONNECTION_ID={id}")
        self.player.run(step)
        told = self.until(stream, '"Ack"')
        self._case.assertIn('"payload":"Hello"', told)

    def eventsource(self, step: Step) -> None:
        """In a page of the server's own, the script hears its topic."""
        server = self.player.server
        assert server is not None
        token = server.login("alice")["access_token"]
        publish = {"topic": "chat.general", "payload": "heard"}
        drive(
            self.player.folder,
            """
            const page = await open();
            await page.goto(input.url);
            await page.evaluate(`window.token = ${JSON.stringify(input.token)}`);
            await page.evaluate(input.example);
            await until(() => logs.length > 1);
            await fetch(`${input.url}publish`, {
              method: 'POST',
              headers: {Authorization: `Bearer ${input.key}`, 'Content-Type': 'application/json'},
              body: JSON.stringify(input.publish),
            });
            await until(() => logs.length > 2);
            const result = null;
            """,
            url=f"http://localhost:{server.port}/",
            token=token,
            key=self.player.shell("echo $KEY").strip(),
            example=step.text,
            publish=publish,
        )


class WebhookPageTests(SynchronousTestCase):
    """The requests of docs/webhooks.rst against those that are sent."""

    page = "docs/webhooks.rst"

    def test_headers(self) -> None:
        """The headers shown are those of a real request."""
        from tests.test_webhooks import PageTests

        (block,) = (step for step in blocks(self.page) if step.language == "http")
        shown = {line.partition(":")[0].lower() for line in block.text.splitlines()[1:]}
        case = PageTests("test_configuration")
        case.setUp()
        self.addCleanup(case.doCleanups)
        sent = case.posted().headers
        self.assertLessEqual(shown, set(sent))
        self.assertEqual(
            {name for name in sent if name.startswith("x-realtime")},
            {name for name in shown if name.startswith("x-realtime")},
        )

    def test_bodies(self) -> None:
        """The bodies have the members that the table says, and answers those that are read."""
        from realtime.hooks import _Answer

        known = {*("id", "event", "hook", "timestamp", "events", "roles", "topic", "topics"),
                 *("payload", "connection_id", "user_id", "username", "session_id")}  # fmt: skip
        answers = 0
        for step in blocks(self.page):
            if step.language != "json":
                continue
            body = json.loads(step.text)
            if "allow" in body:
                answers += 1
                self.assertLessEqual(set(body), set(_Answer.__struct_fields__))
            else:
                for each in body.get("events", [body]):
                    self.assertLessEqual(set(each), known)
        self.assertEqual(answers, 4)


class AttacksPageTests(SynchronousTestCase):
    """docs/security/attacks.rst. Its attacks are tried by integration/test_hostile.py."""

    def test_commands(self) -> None:
        """Every command of the page is one that the program takes, for attacks that there are."""
        (block,) = blocks("docs/security/attacks.rst")
        numbers = []
        for line in block.text.splitlines():
            words = shlex.split(line)
            self.assertEqual(words[:3], ["python", "-m", "tests.hostile"])
            attacks, _ = parse_attacks(words[3:])
            numbers.append(len(attacks))
        self.assertEqual(numbers, [len(ATTACKS), 2])


class BenchPageTests(SynchronousTestCase):
    """docs/performance/method.rst. Its commands take from minutes to hours: they are only read."""

    page = "docs/performance/method.rst"

    def test_commands(self) -> None:
        """Every command of the page is one that the programs take."""
        (block,) = (step for step in blocks(self.page) if step.language == "sh")
        check_syntax(self, block)
        known = 0
        for line in block.text.splitlines():
            words = shlex.split(line, comments=True)
            if words[:3] == ["python", "-m", "bench"]:
                parse_bench(words[3:])
            elif words and words[0] == "python":
                self.assertEqual(len(words), 3, line)
                done = subprocess.run(
                    [sys.executable, *words[1:], "--help"], cwd=ROOT, env=environment(),
                    capture_output=True, timeout=60, check=False,
                )  # fmt: skip
                self.assertEqual(done.returncode, 0, line)
            elif words:
                self.assertEqual(words[0], "apt-get", line)
                continue
            known += bool(words)
        self.assertGreater(known, 8)

    def test_output(self) -> None:
        """The output shown has the form of what the guard prints, and figures that fit."""
        (block,) = (step for step in blocks(self.page) if step.language == "text")
        lines = re.findall(
            r"^(\S+) +([\d,]+) instructions, committed +([\d,]+): ([+-][\d.]+)%$", block.text, re.M
        )
        self.assertEqual(len(lines), 4)
        for _, found, committed, change in lines:
            ratio = int(found.replace(",", "")) / int(committed.replace(",", "")) - 1
            self.assertAlmostEqual(ratio * 100, float(change), places=2)


class PlayerTests(SynchronousTestCase):
    """The harness itself: it fails where an example does."""

    def page(self, text: str) -> str:
        """A page with some text."""
        folder = Path(tempfile.mkdtemp(prefix="realtime-page-"))
        self.addCleanup(shutil.rmtree, folder)
        (folder / "page.rst").write_text(text, encoding="utf-8")
        return str(folder / "page.rst")

    def test_wrong_examples(self) -> None:
        """A command that fails, other output, bad options, bad syntax: each is an error."""
        for language, code in (
            ("sh", "false"),
            ("console", "$ echo one\n   two"),
            ("python", "1 / 0"),
            ("javascript", "throw new Error()"),
            ("toml", "nothing = 1"),
            ("json", "{"),
            ("cobol", "STOP RUN."),
        ):
            page = self.page(f".. code-block:: {language}\n\n   {code}\n")
            self.assertRaises((AssertionError, ValueError, KeyError), Player(self, page).play)

    def test_right_examples(self) -> None:
        """What is right passes; the shell keeps what it was told."""
        page = self.page(
            ".. code-block:: sh\n\n   x=1\n   mkdir a && cd a\n\n"
            ".. code-block:: console\n\n   $ echo $x; basename $PWD\n   1\n   a\n\n"
            ".. other: Else\n.. code-block:: javascript\n\n   import a from 'b';\n"
        )
        self.assertEqual(Player(self, page).play(), 3)

    def test_code_without_a_language(self) -> None:
        """Code that is shown in another way than by code-block is found."""
        for text in ("So::\n\n   x\n", ".. code:: sh\n\n   x\n", ">>> 1\n"):
            self.assertRaises(AssertionError, steps, self.page(text))
