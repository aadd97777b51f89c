"""Keys that are rotated, and another issuer's, by real processes."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm
from twisted.trial.unittest import SynchronousTestCase
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from realtime.signing_keys import FORMER_KEYS, SIGNING_KEY
from tests.support.server import Server, run, wait_until

PASSWORD = "correct horse battery"


class Case(SynchronousTestCase):
    """A server with a user, alice."""

    def setUp(self) -> None:
        """Make a state directory."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.state = folder.name

    def serve(self, *options: str, **environ: str) -> Server:
        """Start a server."""
        server = Server(*options, state=self.state, **environ).start()
        self.addCleanup(server.stop)
        return server

    def realtime(self, *arguments: str) -> str:
        """Run a command; answer its output."""
        done = run("-m", "realtime", "--state", self.state, *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.strip()

    def connect(self, server: Server, token: str) -> ClientConnection:
        """Connect, up to the welcome."""
        client = connect(server.ws_url, additional_headers={"Authorization": f"Bearer {token}"})
        self.addCleanup(client.close)
        self.assertIn("connected", str(client.recv(30)))
        return client

    def accepts(self, server: Server, token: str) -> bool:
        """Whether a token is good: who is no admin is then forbidden what admins may."""
        headers = {"Authorization": f"Bearer {token}"}
        status = server.request("GET", "/topics", **headers)[0]
        self.assertIn(status, (401, 403))
        return status == 403

    def refresh(self, server: Server, token: str) -> str:
        """A new access token."""
        status, _, body = server.request("POST", "/sessions/refresh", {"refresh_token": token})
        self.assertEqual(status, 200, body)
        return str(body["access_token"])

    def answers(self, client: ClientConnection) -> bool:
        """Whether a connection lives."""
        client.send(json.dumps({"type": "Ping", "data": {}}))
        return "Pong" in str(client.recv(30))


class RotationTests(Case):
    """`key rotate` beside a running server."""

    def accepted(self, server: Server) -> Callable[[], bool]:
        """Whether the server accepts by now what the newest key has signed."""
        secret = Path(self.state, SIGNING_KEY).read_text().strip()
        token = jwt.encode({"sub": "somebody", "exp": int(time.time()) + 600}, secret, "HS256")
        return lambda: self.accepts(server, token)

    def test_nobody_is_logged_out(self) -> None:
        """Connections, access and refresh tokens outlive rotations, and a restart after them."""
        server = self.serve()
        server.add_user("alice")
        login = server.login("alice")
        access, refresh = login["access_token"], login["refresh_token"]
        client = self.connect(server, access)
        secrets = [Path(self.state, SIGNING_KEY).read_text().strip()]
        kids = [self.realtime("key", "rotate")]
        wait_until(self.accepted(server))
        # SIGHUP has it known at once.
        secrets.append(Path(self.state, SIGNING_KEY).read_text().strip())
        kids.append(self.realtime("key", "rotate"))
        os.kill(server.pid, signal.SIGHUP)
        wait_until(self.accepted(server))
        self.assertTrue(self.answers(client))
        self.assertTrue(self.accepts(server, access))
        for token in (self.refresh(server, refresh), server.login("alice")["access_token"]):
            self.assertTrue(self.accepts(server, token))
        server.stop()
        server = self.serve()
        again = self.refresh(server, refresh)
        self.assertTrue(self.accepts(server, again) and self.accepts(server, access))
        self.connect(server, access)
        # The first key is dropped: what it has signed is refused, and what others have is not.
        first = jwt.get_unverified_header(access)["kid"]
        listed = self.realtime("key", "list").splitlines()
        self.assertEqual(len(listed), 3)
        ours = jwt.encode({"sub": "s", "exp": int(time.time()) + 600}, secrets[1], "HS256")
        opened, kept = self.connect(server, access), self.connect(server, ours)
        self.realtime("key", "drop", first)
        wait_until(lambda: not self.accepts(server, access))
        # Who has connected with it has to get another token.
        with self.assertRaises(ConnectionClosed) as ended:
            opened.recv(30)
        self.assertEqual(ended.exception.rcvd.code, 4001)
        self.assertTrue(self.answers(kept) and self.accepts(server, ours))
        # No secret is told anywhere.
        secrets.append(Path(self.state, SIGNING_KEY).read_text().strip())
        self.assertEqual(len(set(secrets)), 3)
        for secret in secrets:
            self.assertNotIn(secret, server.output + "".join(listed))
        mode = os.stat(Path(self.state, FORMER_KEYS)).st_mode & 0o777
        self.assertEqual(mode, 0o600)

    def test_workers_and_nodes(self) -> None:
        """With the secret in the environment the old one stays in the list, and so do sessions."""
        one, two = "a first secret of 32 bytes".replace(" ", "-") + "-or-so", "b" * 40
        server = self.serve(REALTIME_SECRET=one)
        server.add_user("alice")
        login = server.login("alice")
        server.stop()
        server = self.serve(REALTIME_SECRET=f"{two} {one}")
        access = self.refresh(server, login["refresh_token"])
        self.connect(server, login["access_token"])
        server.stop()
        server = self.serve(REALTIME_SECRET=two)
        self.assertTrue(self.accepts(server, access))
        self.assertFalse(self.accepts(server, login["access_token"]))


class IssuerTests(Case):
    """`--jwks-url` and `--jwks-file`."""

    def setUp(self) -> None:
        """Start an issuer."""
        super().setUp()
        self.keys = [(f"key-{n}", ec.generate_private_key(ec.SECP256R1())) for n in range(2)]
        self.shown = self.set_of(0)
        case = self

        class Handler(BaseHTTPRequestHandler):
            """Answers with the keys shown."""

            def do_GET(self) -> None:
                """Answer."""
                self.send_response(200)
                self.end_headers()
                self.wfile.write(case.shown)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        issuer = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = Thread(target=issuer.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(issuer.server_close)
        self.addCleanup(issuer.shutdown)
        self.url = f"http://127.0.0.1:{issuer.server_address[1]}/keys"

    def set_of(self, *numbers: int) -> bytes:
        """Some of the keys, as an issuer shows them."""
        jwks = []
        for number in numbers:
            kid, private = self.keys[number]
            jwks.append(ECAlgorithm.to_jwk(private.public_key(), as_dict=True) | {"kid": kid})
        return json.dumps({"keys": jwks}).encode()

    def token(self, number: int) -> str:
        """A token of the issuer's."""
        kid, private = self.keys[number]
        claims = {"sub": "theirs", "exp": int(time.time()) + 600}
        return jwt.encode(claims, private, "ES256", {"kid": kid})

    def test_url(self) -> None:
        """The keys are there when the server is; those of a reload, too; and theirs connect."""
        server = self.serve(f"--jwks-url={self.url}")
        self.connect(server, self.token(0))
        self.assertFalse(self.accepts(server, self.token(1)))
        self.shown = self.set_of(1)
        os.kill(server.pid, signal.SIGHUP)
        wait_until(lambda: self.accepts(server, self.token(1)))
        self.assertFalse(self.accepts(server, self.token(0)))
        metrics = server.request("GET", "/metrics", Accept="text/plain")[2].decode()
        self.assertIn("realtime_jwks_keys 1.0", metrics)

    def test_nobody_there(self) -> None:
        """Without its issuer the server starts, says so, and serves its own users."""
        server = self.serve("--jwks-url=http://127.0.0.1:1/keys?key=hidden")
        self.assertIn("The reading of token keys at http://127.0.0.1:1 fails", server.output)
        self.assertNotIn("hidden", server.output)
        server.add_user("alice")
        self.connect(server, server.login("alice")["access_token"])
        self.assertFalse(self.accepts(server, self.token(0)))

    def test_file(self) -> None:
        """A file has the keys as well, and a bad one keeps the server from starting."""
        path = Path(self.state, "keys.json")
        path.write_bytes(self.set_of(0, 1))
        server = self.serve(f"--jwks-file={path}")
        for number in range(2):
            self.connect(server, self.token(number))
        server.stop()
        path.write_text("{}")
        with self.assertRaises(AssertionError) as caught:
            self.serve(f"--jwks-file={path}")
        self.assertIn(f"--jwks-file {path}: it is no JSON Web Key Set", str(caught.exception))
