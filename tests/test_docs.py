"""The documentation says what the code says."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from realtime.envelope import COMMANDS
from realtime.errors import CloseCode, ErrorCode

PROTOCOL = Path(__file__).parent.parent / "docs" / "protocol.rst"


def table(title: str) -> list[tuple[str, ...]]:
    """The rows of a list-table in the protocol page, without its header."""
    text = PROTOCOL.read_text(encoding="utf-8")
    body = re.split(r"\n(?=\S)", text.split(f".. list-table:: {title}\n")[1])[0]
    rows = [re.split(r"\n     - ?", row) for row in body.split("\n   * - ")[1:]]
    return [tuple(" ".join(cell.replace("``", "").split()) for cell in row) for row in rows][1:]


class ProtocolPageTests(SynchronousTestCase):
    """docs/protocol.rst against the tables in code."""

    def test_error_codes(self) -> None:
        """The page lists every error code with its status and meaning, and no other."""
        expected = {(code.value, str(code.status), code.meaning) for code in ErrorCode}
        self.assertEqual(set(table("Error codes")), expected)

    def test_close_codes(self) -> None:
        """The page lists every close code, whether to reconnect, and its meaning."""
        expected = {
            (str(int(code)), "yes" if code.reconnect else "no", code.meaning) for code in CloseCode
        }
        self.assertEqual(set(table("Close codes")), expected)

    def test_commands(self) -> None:
        """The page describes every command that the server takes."""
        self.assertEqual({row[0] for row in table("Commands")}, set(COMMANDS))
