"""A real process that drains."""

from __future__ import annotations

import json
import os
import signal

from twisted.trial.unittest import SynchronousTestCase
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.support.server import Server


class DrainTests(SynchronousTestCase):
    """SIGTERM, with clients."""

    def test_while_draining(self) -> None:
        """Clients are told, the server goes on answering, and refuses new clients, till the end."""
        server = Server("--drain-seconds=3600").start()
        self.addCleanup(server.stop, signal.SIGKILL)
        token = server.login("admin", server.admin_password)["access_token"]
        # Closed one in a tenth of a second: enough for what is asked meanwhile.
        clients = [connect(server.token_url(token)) for _ in range(100)]
        for client in clients:
            self.addCleanup(client.close)
            client.recv(30)
        os.kill(server.pid, signal.SIGTERM)
        self.assertEqual(json.loads(clients[-1].recv(30))["data"], {"status": "draining"})
        for path, status in (("/health", 503), ("/health/ready", 503), ("/health/live", 200)):
            self.assertEqual(server.request("GET", path)[0], status)
        self.assertEqual(server.request("GET", "/health")[2]["reason"], "Draining")
        with self.assertRaises(InvalidStatus) as refused:
            connect(server.token_url(token))
        self.assertEqual(refused.exception.response.status_code, 503)
        clients[-1].send('{"type": "Ping"}')
        self.assertEqual(json.loads(clients[-1].recv(30))["type"], "Pong")
        # A second one is a hurry.
        os.kill(server.pid, signal.SIGTERM)
        with self.assertRaises(ConnectionClosed) as closed:
            clients[-1].recv(30)
        assert closed.exception.rcvd is not None
        self.assertEqual(closed.exception.rcvd.code, 1012)
        self.assertEqual(server.wait(), 0)
