"""The Python client passes the scenarios of all clients."""

from __future__ import annotations

import sys

from tests.clients import cases


class PythonClientTests(cases.ClientCases):
    """`realtime.client`."""

    def command(self) -> list[str]:
        """Run the driver by this Python."""
        return [sys.executable, "-m", "tests.clients.driver"]
