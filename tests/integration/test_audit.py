"""The audit log of a running server, and of the commands beside it."""

from __future__ import annotations

import json
import os
import re
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import jwt
from twisted.trial.unittest import SynchronousTestCase
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from realtime.signing_keys import FORMER_KEYS, SIGNING_KEY
from tests.support.server import Server, run, wait_until

PASSWORD = "correct horse battery"
WRONG = "staple-of-the-wrong-kind"
ACCESS = "session_end disconnect publish history_remove account_read trace"


class AuditTests(SynchronousTestCase):
    """`--audit-log`."""

    def setUp(self) -> None:
        """Make a folder with a state directory."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.state = self.folder / "state"
        self.state.mkdir(mode=0o700)
        self.path = self.folder / "audit.log"
        self.secrets: set[str] = {PASSWORD, WRONG}

    def realtime(self, *arguments: str, input: str = "") -> str:
        """Run a command that writes to the same log; answer its output."""
        done = run(
            *("-m", "realtime", "--state", str(self.state), *arguments),
            input=input,
            REALTIME_AUDIT_LOG=str(self.path),
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.strip()

    def serve(self, *options: str) -> Server:
        """Start a server with a log, and a topic that has a history."""
        config = self.folder / "realtime.toml"
        config.write_text('[[topic]]\npattern = "chat.*"\nhistory_size = 10\n')
        server = Server(f"--config={config}", *options, state=str(self.state)).start()
        self.addCleanup(server.stop)
        return server

    def login(self, server: Server, name: str, password: str = PASSWORD) -> dict[str, Any]:
        """Log in, and note what may not show up."""
        login = server.login(name, password)
        self.secrets |= {login["access_token"], login["refresh_token"]}
        return login

    def ask(self, server: Server, token: str, method: str, path: str, body: Any = None) -> int:
        """The status of a request."""
        headers = {"Authorization": f"Bearer {token}"}
        return server.request(method, path, body, **headers)[0]

    def lines(self, *paths: Path) -> list[dict[str, Any]]:
        """What is written."""
        text = "".join(path.read_text() for path in paths or (self.path,))
        return [json.loads(line) for line in text.splitlines()]

    def test_everything(self) -> None:
        """Each kind of event has its line, with who, from where and on what; none has a secret."""
        self.realtime("user", "add", "root", "--role=admin", input=f"{PASSWORD}\n")
        self.realtime("user", "add", "alice", input=f"{PASSWORD}\n")
        key = self.realtime("key", "add", "billing")
        self.secrets.add(key)
        server = self.serve(f"--audit-log={self.path}")
        root, alice = self.login(server, "root"), self.login(server, "alice")
        admin, user = root["access_token"], alice["access_token"]
        # Refusals.
        for name in ("alice", "nobody"):
            body = {"username": name, "password": WRONG}
            self.assertEqual(server.request("POST", "/sessions", body)[0], 401)
        forged = jwt.encode({"sub": "root", "exp": int(time.time()) + 60}, "x" * 32, "HS256")
        self.secrets.add(forged)
        for url in (server.token_url(forged), f"{server.ws_url}?query=hidden"):
            self.assertRaises(InvalidStatus, connect, url)
        self.secrets.add("hidden")
        self.assertEqual(self.ask(server, forged, "GET", "/topics?prefix=hidden"), 401)
        self.assertEqual(self.ask(server, forged, "GET", "/sse?topics=hidden"), 401)
        self.assertEqual(self.ask(server, "rk_" + "z" * 43, "GET", "/connections"), 401)
        self.secrets.add("z" * 43)
        self.assertEqual(self.ask(server, user, "GET", "/topics"), 403)
        self.assertEqual(self.ask(server, user, "DELETE", f"/sessions/{root['session_id']}"), 403)
        self.assertEqual(self.ask(server, user, "DELETE", f"/sessions/{admin}"), 404)
        bad = {"refresh_token": forged}
        self.assertEqual(server.request("POST", "/sessions/refresh", bad)[0], 401)
        # What is done.
        good = {"refresh_token": alice["refresh_token"]}
        renewed = server.request("POST", "/sessions/refresh", good)[2]
        self.secrets.add(renewed["access_token"])
        publication = {"topic": "chat.a", "payload": "a-payload"}
        self.secrets.add("a-payload")
        self.assertEqual(self.ask(server, key, "POST", "/publish", publication), 200)
        as_alice = publication | {"from_user": "alice"}
        self.assertEqual(self.ask(server, key, "POST", "/publish", as_alice), 200)
        self.assertEqual(self.ask(server, admin, "POST", "/publish", publication), 200)
        batch = {"commands": [{"publish": publication}, {"direct": {"user": "x", "payload": 1}}]}
        self.assertEqual(self.ask(server, admin, "POST", "/batch", batch), 200)
        message = {"payload": "a-payload"}
        self.assertEqual(self.ask(server, admin, "POST", "/users/alice/messages", message), 200)
        client = connect(server.ws_url, additional_headers={"Authorization": f"Bearer {user}"})
        self.addCleanup(client.close)
        connection = json.loads(client.recv(30))["data"]["connection_id"]
        for token in (forged, admin):
            client.send(json.dumps({"type": "Authenticate", "id": "1", "data": {"token": token}}))
            self.assertEqual(json.loads(client.recv(30))["type"], "Error")
        self.assertEqual(self.ask(server, admin, "DELETE", f"/connections/{connection}"), 204)
        self.assertEqual(self.ask(server, admin, "DELETE", "/users/alice/connections"), 200)
        self.assertEqual(self.ask(server, admin, "DELETE", "/topics/chat.a/history"), 204)
        self.assertEqual(self.ask(server, admin, "GET", "/console/users/alice"), 200)
        trace = {"id": "t" * 20, "topic": "chat.a"}
        self.assertEqual(self.ask(server, admin, "POST", "/console/trace", trace), 200)
        self.assertEqual(self.ask(server, admin, "DELETE", f"/sessions/{alice['session_id']}"), 204)
        # What is done beside the server.
        self.secrets |= {Path(self.state, SIGNING_KEY).read_text().strip()}
        kid = self.realtime("key", "rotate")
        former = jwt.get_unverified_header(admin)["kid"]
        os.kill(server.pid, signal.SIGHUP)
        wait_until(lambda: "Reloaded" in server.output)
        self.realtime("key", "drop", former)
        self.secrets |= {Path(self.state, SIGNING_KEY).read_text().strip()}
        self.assertIn("[]", Path(self.state, FORMER_KEYS).read_text())
        self.realtime("key", "remove", "billing")
        self.secrets.add(self.realtime("token", "--user=alice"))
        self.realtime("user", "roles", "alice")  # which changes nothing
        self.realtime("user", "roles", "alice", "--role=user", "--role=moderator")
        self.secrets.add("another password")
        self.realtime("user", "passwd", "alice", input="another password\n")
        for action in ("disable", "enable", "remove"):
            self.realtime("user", action, "alice")
        wait_until(lambda: any(line["event"] == "signing_keys" for line in self.lines()[-12:]))
        server.stop()

        lines = self.lines()
        for line in lines:
            self.assertRegex(line["time"], r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\Z")
            self.assertIn(line["outcome"], ("ok", "refused"))
        found = [(line["event"], line["outcome"]) for line in lines]
        ids = {name: login["user"]["id"] for name, login in (("root", root), ("alice", alice))}
        refusals = [line for line in lines if line["outcome"] == "refused"]
        self.assertEqual(
            [
                (line["event"], line["reason"], line.get("request"), line.get("actor"))
                for line in refusals
            ],
            [
                ("login", "INVALID_CREDENTIALS", None, None),
                ("login", "INVALID_CREDENTIALS", None, None),
                ("connect", "INVALID_TOKEN", None, None),
                ("connect", "INVALID_TOKEN", None, None),
                ("request", "INVALID_TOKEN", "GET /topics", None),
                ("connect", "INVALID_TOKEN", None, None),
                ("request", "INVALID_TOKEN", "GET /connections", None),
                ("request", "FORBIDDEN", "GET /topics", ids["alice"]),
                ("request", "FORBIDDEN", "DELETE /sessions", ids["alice"]),
                ("refresh", "INVALID_TOKEN", None, None),
                ("authenticate", "INVALID_TOKEN", None, ids["alice"]),
                ("authenticate", "FORBIDDEN", None, ids["alice"]),
            ],
        )
        self.assertEqual([line["username"] for line in refusals[:2]], ["alice", "nobody"])
        self.assertEqual({line["address"] for line in refusals[:-2]}, {"127.0.0.1"})
        self.assertEqual({line["connection"] for line in refusals[-2:]}, {connection})
        acts = [line for line in lines if line["event"] in ACCESS.split()]
        self.assertEqual({line["address"] for line in acts}, {"127.0.0.1"})
        shown = [
            {k: v for k, v in line.items() if k not in ("time", "outcome", "address")}
            for line in acts
        ]
        by = {"actor": ids["root"]}
        self.assertEqual(
            shown,
            [
                {"event": "publish", "actor": "key:billing", "commands": 1, "topic": "chat.a",
                 "sender": "alice"},
                {"event": "publish", **by, "commands": 1, "topic": "chat.a"},
                {"event": "publish", **by, "commands": 2},
                {"event": "publish", **by, "commands": 1, "user": "alice"},
                {"event": "disconnect", **by, "connection": connection},
                {"event": "disconnect", **by, "user": "alice", "connections": 0},
                {"event": "history_remove", **by, "topic": "chat.a"},
                {"event": "account_read", **by, "user": ids["alice"]},
                {"event": "trace", **by, "topic": "chat.a"},
                {"event": "session_end", **by, "user": ids["alice"],
                 "session": alice["session_id"]},
            ],
        )  # fmt: skip
        commands = [line for line in lines if line.get("actor") == f"uid:{os.getuid()}"]
        self.assertEqual(
            [line["event"] for line in commands],
            [
                *("user_add", "user_add", "api_key_add", "signing_key_rotate", "signing_key_drop"),
                *("api_key_remove", "token_make", "user_roles", "user_password"),
                *("user_disable", "user_enable", "user_remove"),
            ],
        )
        self.assertEqual(commands[-1]["user"], ids["alice"])
        self.assertEqual([each["key"] for each in commands[3:5]], [kid, former])
        self.assertEqual(commands[7]["roles"], "user,moderator")
        for event in ("start", "stop", "reload", "refresh", "signing_keys"):
            self.assertIn((event, "ok"), found)
        self.assertEqual(found.count(("login", "ok")), 2)
        text = self.path.read_text()
        self.secrets |= {token.rpartition(".")[2] for token in self.secrets if "." in token}
        for secret in self.secrets:
            self.assertGreater(len(secret), 5)
            self.assertNotIn(secret, text)
        self.assertNotRegex(text, r"eyJ|rk_|\$argon2")

    def test_moved_away(self) -> None:
        """SIGHUP opens the file again, as those who move logs away need it, whatever else fails."""
        server = self.serve(f"--audit-log={self.path}")
        moved = self.path.rename(self.folder / "audit.log.1")
        (self.folder / "realtime.toml").write_text("nothing = 1\n")
        os.kill(server.pid, signal.SIGHUP)
        wait_until(self.path.exists)
        wait_until(lambda: len(self.lines()) == 1)
        self.assertEqual(
            [(line["event"], line["outcome"]) for line in self.lines()], [("reload", "failed")]
        )
        server.request("POST", "/sessions", {"username": "u", "password": WRONG})
        self.assertEqual(self.lines()[-1]["event"], "login")
        self.assertEqual([line["event"] for line in self.lines(moved)], ["user_add", "start"])

    def test_standard_output(self) -> None:
        """`-` is standard output; the commands, which print there, use standard error."""
        server = self.serve("--audit-log=-")
        server.request("POST", "/sessions", {"username": "u", "password": WRONG})
        wait_until(lambda: '"event":"login"' in server.output)
        done = run(
            *("-m", "realtime", "--state", str(self.state), "key", "add", "billing"),
            REALTIME_AUDIT_LOG="-",
        )
        self.assertRegex(done.stdout, r"\Ark_\S+\n\Z")
        self.assertEqual(json.loads(done.stderr)["event"], "api_key_add")

    def test_flood(self) -> None:
        """Thousands of refusals are few lines, and how many they were is told."""
        server = self.serve(f"--audit-log={self.path}")
        for _ in range(300):
            self.assertEqual(self.ask(server, "rubbish", "GET", "/topics"), 401)
        server.stop()
        events = [line["event"] for line in self.lines()]
        self.assertLess(events.count("request"), 20)
        (told,) = [line for line in self.lines() if line["event"] == "omitted"]
        self.assertEqual(told["counts"]["request"] + events.count("request"), 300)

    def test_bad_file(self) -> None:
        """A file that cannot be written keeps the server from starting."""
        with self.assertRaises(AssertionError) as caught:
            self.serve(f"--audit-log={self.folder}")
        self.assertTrue(re.search(r"realtime: --audit-log \S+: ", str(caught.exception)))
