"""TLS, unix sockets, and reloading on SIGHUP, by real processes."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import stat
import tempfile
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from websockets.sync.client import ClientConnection, connect, unix_connect

from tests.support.certificates import make_certificate, trusting
from tests.support.server import Server, run, wait_until

RULES = """
origin = ["https://one.example"]

[[topic]]
pattern = "open.>"

[[topic]]
pattern = "{closed}.>"
subscribe = ["nobody"]
"""


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def connect(self) -> None:
        """Connect to the path that stands as the host."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(self.host)


class ListeningTestCase(SynchronousTestCase):
    """A folder with a state directory."""

    def setUp(self) -> None:
        """Make it."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.state = self.folder / "state"
        self.state.mkdir(mode=0o700)
        self.config = self.folder / "config.toml"
        self.config.write_text(RULES.format(closed="shut"))

    def serve(self, *options: str) -> Server:
        """Start a server."""
        server = Server("--config", str(self.config), *options, state=str(self.state)).start()
        self.addCleanup(server.stop)
        return server

    def token(self) -> str:
        """An access token of the admin."""
        done = run("-m", "realtime", "--state", str(self.state), "token", "--user", "admin")
        return done.stdout.strip()

    def say(self, client: ClientConnection, type: str, **data: Any) -> dict[str, Any]:
        """Send a command, and read its answer."""
        client.send(json.dumps({"type": type, "data": data, "id": "1"}))
        while (message := json.loads(client.recv(30))).get("id") != "1":
            pass
        answer: dict[str, Any] = message
        return answer


class TlsTests(ListeningTestCase):
    """`--tls-cert` and `--tls-key`."""

    def peer_certificate(self, port: int) -> bytes:
        """The certificate that a new connection is shown."""
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with (
            socket.create_connection(("127.0.0.1", port), 10) as plain,
            context.wrap_socket(plain) as wrapped,
        ):
            found = wrapped.getpeercert(binary_form=True)
            assert found is not None
            return found

    def test_serve_and_reload(self) -> None:
        """WebSockets and HTTP go over TLS; SIGHUP shows new ones another certificate."""
        cert, key = make_certificate(self.folder)
        server = self.serve(f"--tls-cert={cert}", f"--tls-key={key}")
        self.assertIn("https://", server.output)
        context = trusting(cert)
        link = http.client.HTTPSConnection("127.0.0.1", server.port, context=context, timeout=10)
        link.request("GET", "/health")
        self.assertEqual(link.getresponse().status, 200)
        headers = {"Authorization": f"Bearer {self.token()}"}
        url = f"wss://127.0.0.1:{server.port}/ws"
        with connect(url, ssl=context, additional_headers=headers) as client:
            self.say(client, "Subscribe", topics=["open.a"])
            first = self.peer_certificate(server.port)
            make_certificate(self.folder, "another")
            os.kill(server.pid, signal.SIGHUP)
            wait_until(lambda: self.peer_certificate(server.port) != first)
            # Who is connected stays so.
            ack = self.say(client, "Broadcast", topic="open.a", payload="x" * 50_000)
            self.assertEqual(ack["type"], "Ack")
            # A bad file changes nothing.
            second = self.peer_certificate(server.port)
            Path(key).write_text("no key")
            os.kill(server.pid, signal.SIGHUP)
            wait_until(lambda: "Nothing is changed by the reload" in server.output)
            self.assertEqual(self.peer_certificate(server.port), second)

    def test_old_versions(self) -> None:
        """What is older than TLS 1.2 is not spoken."""
        cert, key = make_certificate(self.folder)
        server = self.serve(f"--tls-cert={cert}", f"--tls-key={key}")
        context = trusting(cert)
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        with socket.create_connection(("127.0.0.1", server.port), 10) as plain:
            self.assertRaises(
                (ssl.SSLError, ConnectionError), context.wrap_socket, plain,
                server_hostname="127.0.0.1",
            )  # fmt: skip

    def test_mistakes(self) -> None:
        """Files that are not fit are one line that names the option."""
        cert, key = make_certificate(self.folder)
        other = self.folder / "other"
        other.mkdir()
        _, foreign = make_certificate(other)
        for options, problem in (
            ((cert, foreign), "is not the key of the certificate"),
            ((key, key), "--tls-cert"),
            ((cert, cert), "--tls-key"),
            ((cert, f"{key}.missing"), "No such file"),
            ((cert, None), "go together"),
        ):
            flags = [f"--tls-cert={options[0]}"]
            flags += [f"--tls-key={options[1]}"] if options[1] else []
            done = run(
                *("-c", "from twisted.scripts.twistd import run; run()", "-n", "--pidfile="),
                *("realtime", "--port=0", f"--state={self.state}", *flags),
            )
            self.assertEqual(done.returncode, 1, done.stdout)
            self.assertRegex(done.stderr, r"\Arealtime: [^\n]+\n\Z")
            self.assertIn(problem, done.stderr)


class UnixTests(ListeningTestCase):
    """`--unix`."""

    def test_serve(self) -> None:
        """HTTP and WebSockets over the socket, which others may not use, and which goes."""
        path = self.folder / "socket"
        for _ in range(2):
            server = self.serve(f"--unix={path}")
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o660)
            link = _UnixConnection(str(path))
            link.request("GET", "/info")
            config = json.load(link.getresponse())["server"]["config"]
            self.assertEqual(config["port"], 0)
            headers = {"Authorization": f"Bearer {self.token()}"}
            url = "ws://localhost/ws"
            with unix_connect(str(path), url, additional_headers=headers) as client:
                self.say(client, "Subscribe", topics=["open.a"])
                self.say(client, "Broadcast", topic="open.a", payload=1)
            done = run(
                *("-c", "from twisted.scripts.twistd import run; run()", "-n", "--pidfile="),
                *("realtime", f"--unix={path}", f"--state={self.state}"),
            )
            self.assertEqual((done.returncode, "in use" in done.stderr), (1, True), done.stderr)
            # One that was killed leaves its socket behind, which the next one replaces.
            server.stop(signal.SIGKILL)
            self.assertTrue(path.exists())
        server = self.serve(f"--unix={path}")
        server.stop()
        self.assertFalse(path.exists())


class ReloadTests(ListeningTestCase):
    """SIGHUP."""

    def test_rules(self) -> None:
        """Rules and origins change for those who are connected, too; other options are named."""
        server = self.serve()
        headers = {"Authorization": f"Bearer {self.token()}"}
        with connect(server.ws_url, additional_headers=headers) as client:
            for topic, type in (("open.a", "Status"), ("shut.a", "Error"), ("later.a", "Status")):
                self.assertEqual(self.say(client, "Subscribe", topics=[topic])["type"], type)
            text = RULES.format(closed="later").replace("one.example", "two.example")
            self.config.write_text(f"max-connections = 5\n{text}")
            os.kill(server.pid, signal.SIGHUP)
            wait_until(lambda: "these need a restart: --max-connections" in server.output)
            for topic, type in (("shut.b", "Status"), ("later.b", "Error")):
                self.assertEqual(self.say(client, "Subscribe", topics=[topic])["type"], type)
            answer = server.request("GET", "/health", Origin="https://two.example")[1]
            self.assertEqual(answer["access-control-allow-origin"], "https://two.example")
            self.config.write_text("nonsense = 1\n")
            os.kill(server.pid, signal.SIGHUP)
            wait_until(lambda: "unknown option 'nonsense'" in server.output)
            self.assertEqual(self.say(client, "Subscribe", topics=["later.c"])["type"], "Error")
