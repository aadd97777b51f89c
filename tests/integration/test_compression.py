"""Compressed messages between real clients and a real server."""

from __future__ import annotations

import json
import os
import socket
import struct
import zlib
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from websockets.sync.client import ClientConnection, connect

from tests.support.server import Server

BOMB = 40 * 1024 * 1024


def memory(pid: int) -> int:
    """The resident bytes of a process."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


class CompressionTests(SynchronousTestCase):
    """`--compression`."""

    def setUp(self) -> None:
        """Start a server."""
        self.server = Server("--compression").start()
        self.addCleanup(self.server.stop)
        login = self.server.login("admin", self.server.admin_password)
        self.url = self.server.token_url(login["access_token"])

    def client(self, compression: str | None) -> ClientConnection:
        """Connect and subscribe."""
        client = connect(self.url, compression=compression)  # type: ignore[arg-type]
        self.addCleanup(client.close)
        self.say(client, "Subscribe", topics=["a"])
        while json.loads(client.recv(30))["data"]["status"] != "subscribed":
            pass
        return client

    def say(self, client: ClientConnection, type: str, **data: Any) -> None:
        """Send a command."""
        client.send(json.dumps({"type": type, "data": data}))

    def test_together(self) -> None:
        """Those who compress and those who do not get the same messages, in order."""
        clients = [self.client(each) for each in ("deflate", None, "deflate")]
        self.assertIn("permessage-deflate", clients[0].response.headers["Sec-WebSocket-Extensions"])
        self.assertNotIn("Sec-WebSocket-Extensions", clients[1].response.headers)
        payloads = ["x", "lorem ipsum " * 1000, None, ["äöü" * 300], "y" * 60_000]
        for number, payload in enumerate(payloads):
            self.say(clients[number % 3], "Broadcast", topic="a", payload=payload)
            for client in clients:
                self.assertEqual(json.loads(client.recv(30))["data"]["payload"], payload)
        clients[0].ping().wait(10)

    def test_bomb(self) -> None:
        """A message that inflates beyond the limit closes with 1009, and takes no memory."""
        before = memory(self.server.pid)
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        bomb = packer.compress(b" " * BOMB) + packer.flush(zlib.Z_SYNC_FLUSH)
        self.assertLess(len(bomb), 65_536)
        for _ in range(3):
            answer = self.raw(bomb[:-4])
            self.assertEqual(answer[:1], b"\x88")
            self.assertEqual(struct.unpack("!H", answer[2:4])[0], 1009)
        self.assertLess(memory(self.server.pid) - before, BOMB // 4)

    def raw(self, payload: bytes) -> bytes:
        """Send one compressed frame by hand; answer what the server says after the welcome."""
        with socket.create_connection(("127.0.0.1", self.server.port), 10) as raw:
            path = self.url.partition(str(self.server.port))[2]
            raw.sendall(
                f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n".encode()
            )
            seen = b""
            while b"timestamp" not in seen and b"\r\n\r\n\xc1" not in seen:
                seen += raw.recv(65536)
            raw.sendall(struct.pack("!BBH4x", 0xC1, 0xFE, len(payload)) + payload)
            # The first byte of the answer is that of a frame of its own.
            return raw.recv(65536)
