"""The conversations in docs/history.rst and docs/presence.rst, held with a real server.

A comment `.. example: NAME` says whose connection the next blocks are; `.. example: NAME leaves`
ends it. What cannot be known, such as epochs, is bound where it is first seen, and has to be the
same from then on.
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from websockets.sync.client import ClientConnection, connect

from tests.support.server import Server, run

DOCS = Path(__file__).parent.parent.parent / "docs"
UNKNOWN = {"epoch", "user_id", "from_user", "after"}


class Conversation:
    """A page, played."""

    def __init__(self, case: SynchronousTestCase, page: str) -> None:
        self._case = case
        self._text = (DOCS / page).read_text(encoding="utf-8")
        (config,) = re.findall(r"\.\. code-block:: toml\n\n((?:(?:   .*)?\n)+)", self._text)
        file = tempfile.NamedTemporaryFile("w", suffix=".toml", delete=False)  # noqa: SIM115
        case.addCleanup(Path(file.name).unlink)
        with file:
            file.write(config.replace("\n   ", "\n"))
        self._server = Server("--config", file.name).start()
        case.addCleanup(self._server.stop)
        self._sockets: dict[str, ClientConnection] = {}
        self._bound: dict[str, Any] = {}
        self._users: dict[str, str] = {}

    def play(self) -> int:
        """Say and hear all; answer how many messages that was."""
        count = 0
        name = ""
        for comment, block in re.findall(
            r"^\.\. example: (.*)$|^\.\. code-block:: json\n\n((?:   .*\n)+)", self._text, re.M
        ):
            if comment.endswith(" leaves"):
                self._sockets.pop(comment.removesuffix(" leaves")).close()
            elif comment:
                name = comment
            else:
                for arrow, text in re.findall(r"^   ([→←]) ((?:.|\n      )+)", block, re.M):
                    count += 1
                    self._one(self._socket(name), arrow, json.loads(text))
        return count

    def _socket(self, name: str) -> ClientConnection:
        socket = self._sockets.get(name)
        if socket is None:
            if name not in self._users:
                self._add_user(name)
            url = self._server.token_url(self._server.login(name)["access_token"])
            socket = self._sockets[name] = connect(url)
            self._case.addCleanup(socket.close)
            socket.recv(timeout=10)
        return socket

    def _add_user(self, name: str) -> None:
        """Add a user whose id follows those of the users before, as members come by their ids."""
        id = ""
        while id <= max(self._users.values(), default=""):
            if id:
                run("-m", "realtime", "--state", self._server.state, "user", "remove", name)
            self._server.add_user(name)
            id = self._server.login(name)["user"]["id"]
        self._users[name] = id

    def _one(self, socket: ClientConnection, arrow: str, message: Any) -> None:
        if arrow == "→":
            socket.send(json.dumps(self._meant(message)))
        else:
            self._compare(json.loads(socket.recv(timeout=10)), message)

    def _meant(self, value: Any) -> Any:
        """A message of the page with what is bound in its place."""
        if isinstance(value, dict):
            return {name: self._meant(member) for name, member in value.items()}
        if isinstance(value, list):
            return [self._meant(member) for member in value]
        return self._bound.get(value, value) if isinstance(value, str) else value

    def _compare(self, found: Any, shown: Any, name: str = "") -> None:
        if name in UNKNOWN:
            shown = self._bound.setdefault(shown, found)
        elif name == "timestamp":
            shown = found if isinstance(found, int) and found > 10**12 else None
        elif isinstance(shown, dict) and isinstance(found, dict):
            self._case.assertEqual(set(found), set(shown), found)
            for member in shown:
                self._compare(found[member], shown[member], member)
            return
        elif isinstance(shown, list) and isinstance(found, list):
            self._case.assertEqual(len(found), len(shown), found)
            for one, other in zip(found, shown, strict=True):
                self._compare(one, other)
            return
        self._case.assertEqual(found, shown)


class ConversationTests(SynchronousTestCase):
    """The pages, word for word."""

    def test_history(self) -> None:
        """What docs/history.rst shows is what happens."""
        self.assertGreater(Conversation(self, "history.rst").play(), 10)

    def test_presence(self) -> None:
        """What docs/presence.rst shows is what happens."""
        self.assertGreater(Conversation(self, "presence.rst").play(), 10)
