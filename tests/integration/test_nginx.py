"""The configuration for nginx that is given to operators, in a real nginx."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import signal
import ssl
import subprocess
import tempfile
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase
from websockets.sync.client import connect

from tests.support.process import spawn
from tests.support.server import ROOT, Server, free_port, wait_until

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
MAIN = """
daemon off;
pid {folder}/pid;
error_log stderr;
events {{}}
http {{
    access_log {folder}/access;
    {temporary}
    {server}
}}
"""


class NginxTests(SynchronousTestCase):
    """nginx before two nodes."""

    def start(self) -> None:
        """Start a server, and nginx before it and a port where nobody listens."""
        if NGINX is None:
            raise SkipTest("nginx is missing")
        self.server = Server().start()
        self.addCleanup(self.server.stop, signal.SIGKILL)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
                *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
                *("-keyout", self.folder / "key", "-out", self.folder / "crt"),
            ],
            check=True,
            capture_output=True,
        )
        self.port = free_port()
        text = (ROOT / "deploy" / "nginx.conf").read_text()
        for old, new in (
            ("listen 443 ssl", f"listen 127.0.0.1:{self.port} ssl"),
            (
                "server 127.0.0.1:8081 max_fails=1 fail_timeout=5s;",
                f"server 127.0.0.1:{self.server.port}; server 127.0.0.1:1;",
            ),
            ("/etc/nginx/realtime.crt", str(self.folder / "crt")),
            ("/etc/nginx/realtime.key", str(self.folder / "key")),
        ):
            self.assertIn(old, text)
            text = text.replace(old, new)
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = " ".join(f"{kind}_temp_path {self.folder / kind};" for kind in kinds)
        config = self.folder / "nginx.conf"
        config.write_text(MAIN.format(folder=self.folder, temporary=temporary, server=text))
        checked = subprocess.run(
            [NGINX, "-t", "-c", config], capture_output=True, text=True, check=False
        )
        self.assertEqual(checked.returncode, 0, checked.stderr)
        spawn(self, (NGINX, "-c", str(config)))
        self.tls = ssl.create_default_context(cafile=str(self.folder / "crt"))
        wait_until(self.answers)

    def answers(self) -> bool:
        """Whether nginx is there."""
        try:
            return self.get("/health/live")[0] == 200
        except OSError:
            return False

    def get(self, path: str) -> tuple[int, bytes]:
        """Ask for a path."""
        client = http.client.HTTPSConnection("localhost", self.port, timeout=10, context=self.tls)
        client.request("GET", path)
        response = client.getresponse()
        body = response.read()
        client.close()
        return response.status, body

    def test_through(self) -> None:
        """REST, WebSockets and streams pass, and a token in the query is not logged."""
        self.start()
        for _ in range(4):
            self.assertEqual(self.get("/info")[0], 200)
        token = self.server.login("admin", self.server.admin_password)["access_token"]
        # A stream is logged when it ends, which this one does at once.
        self.assertEqual(self.get(f"/sse?topics=a&token={token}x")[0], 401)
        url = f"wss://localhost:{self.port}/ws?token={token}"
        for _ in range(4):
            with connect(url, ssl=self.tls) as client:
                self.assertEqual(json.loads(client.recv(30))["data"]["status"], "connected")
                client.send('{"type": "Ping"}')
                self.assertEqual(json.loads(client.recv(30))["type"], "Pong")
        stream = http.client.HTTPSConnection("localhost", self.port, timeout=30, context=self.tls)
        self.addCleanup(stream.close)
        stream.request("GET", f"/sse?topics=chat.general&token={token}")
        answer = stream.getresponse()
        while b"connected" not in answer.readline():
            self.assertEqual(answer.status, 200)
        self.assertNotIn(token, (self.folder / "access").read_text())


class DeployTests(SynchronousTestCase):
    """The other files that are given to operators."""

    def test_unit(self) -> None:
        """The unit's time to stop covers draining, and its command is ours."""
        text = (ROOT / "deploy" / "realtime.service").read_text()
        self.assertGreaterEqual(int(re.findall(r"TimeoutStopSec=(\d+)", text)[0]), 10 + 5 + 2)
        self.assertIn("twistd --nodaemon --pidfile= realtime", text)

    def test_image(self) -> None:
        """In the image commands find the server's state, which is on the volume."""
        text = (ROOT / "deploy" / "Dockerfile").read_text()
        (volume,) = re.findall(r"^VOLUME (\S+)$", text, re.M)
        self.assertIn(f"\nENV REALTIME_STATE={volume}\n", text)
        self.assertNotIn("--state", text)

    def test_procfile(self) -> None:
        """The Procfile has a process `web`, in the foreground, that takes $PORT by itself."""
        line = (ROOT / "Procfile").read_text().strip()
        self.assertEqual(line, "web: twistd --nodaemon --pidfile= realtime")
