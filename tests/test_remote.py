"""Tests of realtime.remote, realtime.load and realtime.doctor, against a real server."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import jwt
from twisted.trial.unittest import SynchronousTestCase

from realtime.doctor import LEEWAY
from tests.support.certificates import make_certificate
from tests.support.process import spawn
from tests.support.proxy import Proxy
from tests.support.server import Server, free_port, run, wait_until

CONFIG = """
origin = ["https://good.example"]

[[topic]]
pattern = "kept.>"
history_size = 100

[[topic]]
pattern = "closed.>"
subscribe = ["nobody"]
publish = ["nobody"]
"""


class RemoteTestCase(SynchronousTestCase):
    """A server, and commands that talk to it."""

    def setUp(self) -> None:
        """Start it."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        config = self.folder / "config.toml"
        config.write_text(CONFIG)
        self.server = Server("--config", str(config)).start()
        self.addCleanup(self.server.stop)
        self.arguments = ("-m", "realtime", "--state", self.server.state)

    def command(self, *arguments: str, input: str = "", **environ: str) -> tuple[int, str, str]:
        """Run a command; answer its status, output and complaints."""
        environ.setdefault("REALTIME_URL", self.server.http_url)
        done = run(*self.arguments, *arguments, input=input, **environ)
        return done.returncode, done.stdout, done.stderr

    def done(self, *arguments: str, **more: Any) -> list[Any]:
        """Run a command that succeeds; answer the JSON of its lines."""
        status, output, complaints = self.command(*arguments, **more)
        self.assertEqual((status, complaints), (0, ""))
        return [json.loads(line) for line in output.splitlines()]

    def refused(self, *arguments: str, **more: Any) -> str:
        """Run a command that fails with one line; answer it."""
        status, output, complaints = self.command(*arguments, **more)
        self.assertEqual((status, output), (1, ""))
        self.assertRegex(complaints, r"\Arealtime: [^\n]+\n\Z")
        return complaints


class TalkTests(RemoteTestCase):
    """`publish` and `tail`."""

    def test_publish_and_tail(self) -> None:
        """What one publishes the other prints, after what the history has."""
        acks = self.done("publish", "kept.a", '{"n": 1}')
        self.assertEqual((acks[0]["topic"], acks[0]["offset"]), ("kept.a", 1))
        self.done("publish", "--text", "kept.a", "-", input="two\nthree\n")
        tail = spawn(
            self,
            [sys.executable, *self.arguments, "tail", "--history=2", "--count=1", "kept.a"],
            REALTIME_URL=self.server.http_url,
        )
        assert tail.stdout is not None
        lines = [json.loads(tail.stdout.readline()) for _ in range(2)]
        self.assertEqual([each["payload"] for each in lines], ["two", "three"])
        self.done("publish", "kept.a", "4")
        last = json.loads(tail.stdout.readline())
        self.assertEqual((last["topic"], last["payload"], last["offset"]), ("kept.a", 4, 4))
        self.assertEqual(tail.wait(10), 0)

    def test_tokens(self) -> None:
        """The token comes from a file, the environment, or the state directory's key."""
        token = run(*self.arguments, "token", "--user", "admin").stdout
        file = self.folder / "token"
        file.write_text(token)
        self.arguments = ("-m", "realtime", "--state", str(self.folder / "none"))
        self.assertIn("a token is needed", self.refused("publish", "a", "1"))
        self.done("publish", "a", "1", REALTIME_TOKEN=token.strip())
        self.done("publish", "--token-file", str(file), "a", "1")
        self.done("publish", "--token-file", "-", "a", "1", input=token)
        self.refused("publish", "--token-file", str(self.folder / "missing"), "a", "1")

    def test_refusals(self) -> None:
        """What the server refuses is one line, and what is no URL or JSON too."""
        self.assertIn("FORBIDDEN", self.refused("publish", "closed.a", "1"))
        self.assertIn("FORBIDDEN", self.refused("tail", "closed.a"))
        self.assertIn("INVALID_TOKEN", self.refused("tail", "a", REALTIME_TOKEN="x.y.z"))
        self.assertIn("--text", self.refused("publish", "a", "no json"))
        for payload in ("NaN", "[1, Infinity]"):
            self.assertIn("--text", self.refused("publish", "a", payload))
        self.assertIn("UTF-8", self.refused("publish", "a", '"\udcff"'))
        for url in ("localhost:8081", "ftp://x", "http://", "http://x:99999", "http://[::1"):
            self.assertIn("--url", self.refused("tail", "--url", url, "a"))

    def test_interrupted(self) -> None:
        """One Ctrl-C ends it while it reads."""
        publish = spawn(
            self,
            [sys.executable, *self.arguments, "publish", "a", "-"],
            REALTIME_URL=self.server.http_url,
        )
        assert publish.stdin is not None
        assert publish.stdout is not None
        publish.stdin.write("1\n")
        publish.stdin.flush()
        publish.stdout.readline()
        publish.send_signal(signal.SIGINT)
        self.assertEqual(publish.wait(60), 1)

    def test_no_server(self) -> None:
        """It goes on trying, and says so."""
        tail = spawn(
            self,
            [sys.executable, *self.arguments, "tail", "a"],
            REALTIME_URL=f"http://127.0.0.1:{free_port()}",
        )
        assert tail.stderr is not None
        self.assertIn("trying again", tail.stderr.readline())

    def test_server_ignores_the_variables(self) -> None:
        """A server started where they are set does not take them for options of its own."""
        other = Server(REALTIME_URL="http://x", REALTIME_TOKEN="x").start()
        self.addCleanup(other.stop)


class LoadTests(RemoteTestCase):
    """`bench`."""

    def test_bench(self) -> None:
        """It counts what it has sent, and what has arrived."""
        status, output, complaints = self.command(
            *("bench", "--connections=20", "--rate=50", "--seconds=1", "--size=64")
        )
        self.assertEqual((status, complaints), (0, ""))
        found = dict(line.rsplit(maxsplit=1) for line in output.splitlines())
        self.assertEqual(
            [found[name] for name in ("published", "deliveries", "lost", "errors")],
            ["50", "1000", "0", "0"],
        )
        self.assertGreater(float(found["latency p99, ms"]), 0)

    def test_refused(self) -> None:
        """Refused publications are errors, and the status tells of them."""
        self.assertIn("FORBIDDEN", self.refused("bench", "--topic=closed.a", "--connections=1"))
        for option in ("--connections=0", "--rate=0", "--rate=nan", "--seconds=-1"):
            self.assertIn("more than 0", self.refused("bench", option))


class DoctorTests(RemoteTestCase):
    """`doctor`: each ailment has its sentence."""

    def examine(self, *arguments: str, **environ: str) -> tuple[int, str]:
        """Status and findings."""
        status, output, complaints = self.command("doctor", *arguments, **environ)
        self.assertEqual(complaints, "")
        return status, output

    def ill(self, sentence: str, *arguments: str, **environ: str) -> None:
        """Something is wrong, and this says what."""
        status, output = self.examine(*arguments, **environ)
        self.assertEqual(status, 1, output)
        self.assertIn(sentence, " ".join(output.split()))

    def token(self, **claims: Any) -> str:
        """A token that is nobody's, with these claims."""
        return jwt.encode(claims, "k" * 32)

    def test_healthy(self) -> None:
        """All is well, for the origin that is allowed as well."""
        status, output = self.examine("--origin", "https://good.example")
        self.assertEqual(status, 0, output)
        self.assertEqual({line.split()[0] for line in output.splitlines()}, {"ok"})
        self.assertEqual(len(output.splitlines()), 8)

    def test_origin(self) -> None:
        """Pages of another origin may not."""
        self.ill("add --origin https://evil.example", "--origin", "https://evil.example")

    def test_not_there(self) -> None:
        """Nobody listens there."""
        self.ill("Is the server running there?", REALTIME_URL=f"http://127.0.0.1:{free_port()}")

    def test_tls(self) -> None:
        """The port speaks no TLS."""
        url = self.server.http_url.replace("http:", "https:")
        self.ill("Nobody answers a TLS handshake", REALTIME_URL=url)

    def test_certificate(self) -> None:
        """The certificate is nobody's that is known; and who asks it for http is told."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        cert, key = make_certificate(Path(folder.name))
        server = Server(f"--tls-cert={cert}", f"--tls-key={key}").start()
        self.addCleanup(server.stop)
        self.ill("SSL_CERT_FILE", REALTIME_URL=f"https://localhost:{server.port}")
        self.ill("is it https there?", REALTIME_URL=f"http://localhost:{server.port}")

    def test_tokens(self) -> None:
        """Tokens that expired, are for refreshing, lack exp, are of another key or none."""
        now = int(time.time())
        for sentence, token in (
            ("The token expired", self.token(sub="u", exp=now - 100)),
            ("is a refresh token", self.token(sub="u", exp=now + 100, typ="refresh")),
            ("has no claim exp", self.token(sub="u")),
            ("The token as subprotocol is refused", self.token(sub="u", exp=now + 100)),
            ("The token is no JWT", "nonsense"),
            ("got `null` - at `$.username`", self.token(sub="u", exp=now + 100, username=None)),
            ("- at `$.exp`", self.token(sub="u", exp=(now + 100) * 1000)),
            ("sub cannot be", self.token(sub="a\nb", exp=now + 100)),
        ):
            self.ill(sentence, REALTIME_TOKEN=token)
        other = jwt.encode({"sub": "u", "exp": now + 100}, "k" * 32, headers={"kid": "abcdef"})
        self.ill("Nodes have one --secret-file", REALTIME_TOKEN=other)

    def test_draining_or_full(self) -> None:
        """A server without room says so."""
        full = Server("--max-connections=1").start()
        self.addCleanup(full.stop)
        token = full.login("admin", full.admin_password)["access_token"]
        tail = spawn(
            self,
            [sys.executable, *self.arguments, "tail", "a"],
            REALTIME_URL=full.http_url,
            REALTIME_TOKEN=token,
        )
        wait_until(lambda: full.request("GET", "/health")[0] == 503)
        self.ill("It is not healthy", REALTIME_URL=full.http_url, REALTIME_TOKEN=token)
        tail.kill()

    def test_proxy_without_websockets(self) -> None:
        """A proxy that ends WebSockets is found out, though streams work."""
        proxy = Proxy(self, self.server.port)
        proxy.no_websockets = True
        status, output = self.examine(REALTIME_URL=f"http://127.0.0.1:{proxy.port}")
        self.assertEqual(status, 1)
        self.assertIn("FAIL  The WebSocket", output)
        self.assertIn("Server-sent events come at once", output)

    def test_another_server(self) -> None:
        """What is not this server is told apart, and so are wrong clocks."""
        ours: set[str] = set()

        class Other(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = b'{"server": {"version": "1"}}' if self.path in ours else b"<html>"
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def date_time_string(self, timestamp: float | None = None) -> str:
                return formatdate(time.time() - LEEWAY - 100, usegmt=True)

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Other)
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        self.addCleanup(server.server_close)
        self.addCleanup(thread.join)
        self.addCleanup(server.shutdown)
        url = f"http://127.0.0.1:{server.server_port}"
        self.ill("is not this server", REALTIME_URL=url)
        ours.add("/info")
        self.ill("The clocks differ by 11", REALTIME_URL=url)
        # No proxy of ours would answer a handshake so.
        self.ill("the proxy does not pass WebSockets on", REALTIME_URL=url)
