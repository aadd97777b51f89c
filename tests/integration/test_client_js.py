"""The JavaScript client passes the scenarios of all clients, by either transport."""

from __future__ import annotations

from typing import Any

from tests.clients import cases
from tests.support.driver import Driver
from tests.support.js_client import built, no_build
from tests.support.reference import no_node, node_modules
from tests.support.server import ROOT


class JavaScriptClientTests(cases.ClientCases):
    """`clients/js` in Node.js, by WebSocket."""

    skip = no_build() or no_node("ws")

    def command(self) -> list[str]:
        """Run the driver by Node.js."""
        return ["node", str(ROOT / "tests" / "clients" / "driver.mjs")]

    def environ(self) -> dict[str, str]:
        """Where the built client is, and `ws`."""
        return {"REALTIME_CLIENT": str(built()), "NODE_PATH": node_modules()}


class StreamTests(JavaScriptClientTests):
    """The same by server-sent events."""

    def client(
        self, url: str, token: str | None = None, tokens: list[str] | None = None, **options: Any
    ) -> Driver:
        """Start a client that uses no WebSockets."""
        return super().client(url, token, tokens, **options, transport="sse")
