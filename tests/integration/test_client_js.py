"""The JavaScript client passes the scenarios of all clients, by either transport."""

from __future__ import annotations

import time
from typing import Any

from tests.clients import cases
from tests.support.driver import Driver
from tests.support.js_client import built, no_build
from tests.support.proxy import Proxy
from tests.support.reference import no_node, node_modules
from tests.support.server import ROOT


class OnNode:
    """The driver in Node.js."""

    def command(self) -> list[str]:
        """The program and its arguments."""
        return ["node", str(ROOT / "tests" / "clients" / "driver.mjs")]

    def environ(self) -> dict[str, str]:
        """Where the built client is, and `ws`."""
        return {"REALTIME_CLIENT": str(built()), "NODE_PATH": node_modules()}


class JavaScriptClientTests(OnNode, cases.ClientCases):
    """`clients/js` by WebSocket."""

    skip = no_build() or no_node("ws")

    def test_websockets_blocked(self) -> None:
        """Where the network lets no WebSockets through the client is connected all the same."""
        server = self.serve()
        proxy = Proxy(self, server.port)
        proxy.no_websockets = True
        driver = self.client(proxy.ws_url, self.token(server))
        driver.ask("connect")
        driver.ask("subscribe", topics=["kept.a"])
        driver.ask("broadcast", topic="kept.a", payload=1)
        proxy.cut()
        driver.until("connected", 2)
        driver.ask("broadcast", topic="kept.a", payload=2)
        self.assertEqual(driver.until_payloads(2), [1, 2])
        proxy.no_websockets = False
        for count in range(3, 8):
            proxy.cut()
            driver.until("connected", count)
        # By now it is on a WebSocket again: a command takes no connection of its own.
        taken = proxy.taken
        driver.ask("broadcast", topic="kept.a", payload=3)
        self.assertEqual(driver.until_payloads(3), [1, 2, 3])
        self.assertEqual(proxy.taken, taken)


class StreamTests(OnNode, cases.TransportCases):
    """`clients/js` by server-sent events."""

    skip = no_build() or no_node("ws")

    def client(
        self, url: str, token: str | None = None, tokens: list[str] | None = None, **options: Any
    ) -> Driver:
        """Start a client that uses no WebSockets."""
        return super().client(url, token, tokens, **options, transport="sse")

    def assert_idle(self, driver: Driver) -> None:
        """As for all; a connection that was begun for a command has been taken by then."""
        super().assert_idle(driver)
        time.sleep(0.3)
