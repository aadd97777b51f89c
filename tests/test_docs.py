"""The documentation says what the code says."""

from __future__ import annotations

import json
import re
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from realtime.asyncapi import SENT, asyncapi
from realtime.envelope import COMMANDS
from realtime.option_table import OPTIONS
from tests.support.pages import folder_of, pages, read, table
from tests.support.server import ROOT

PROTOCOL = "docs/protocol.rst"


def tables() -> ModuleType:
    """docs/tables.py."""
    spec = spec_from_file_location("docs_tables", ROOT / "docs" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def members(cell: str) -> dict[str, bool]:
    """The members that `{"topic", "key"?, ...}` names, and whether each has to be there.

    Of several such objects in a cell each is one way to write the command.
    """
    ways: list[dict[str, bool]] = []
    depth = 0
    for bracket, name, optional in re.findall(r'([{}\[\]])|"([\w.]+)"(\??)', cell):
        if bracket:
            depth += 1 if bracket in "{[" else -1
            if bracket == "{" and depth == 1:
                ways.append({})
        elif depth == 1:
            ways[-1][name] = not optional
    return {name: all(way.get(name, False) for way in ways) for way in ways for name in way}


class GeneratedTableTests(SynchronousTestCase):
    """Tables that follow the code."""

    def test_tables(self) -> None:
        """They are what `python docs/tables.py` writes: options, metrics, codes, endpoints."""
        module = tables()
        for (name, title), rows in module.TABLES.items():
            page = read(f"docs/{name}")
            self.assertEqual(
                page,
                module.with_table(page, title, rows()),
                f"docs/{name}: run python docs/tables.py",
            )
        self.assertEqual(len(table("docs/options.rst", "Options")), len(OPTIONS))

    def test_table_is_replaced(self) -> None:
        """A table gets other rows, and what is around it stays."""
        page = "Before\n\n.. list-table:: T\n   :header-rows: 1\n\n   * - A\n     - B\n"
        after = "\n\nAfter\n"
        for former in ("   * - old\n     - row", "   * - x\n     -"):
            written = tables().with_table(page + former + after, "T", iter([("a", ""), ("b", "c")]))
            self.assertEqual(written, f"{page}   * - a\n     -\n   * - b\n     - c{after}")


class ProtocolPageTests(SynchronousTestCase):
    """docs/protocol.rst against the schemas of /asyncapi.json."""

    def setUp(self) -> None:
        """Read the schemas."""
        self.schemas: dict[str, Any] = asyncapi()["components"]["schemas"]

    def shape(self, schema: Any) -> dict[str, bool]:
        """The members of a schema, and whether each has to be there."""
        for option in schema.get("anyOf", []):
            schema = option if "$ref" in option else schema
        if "$ref" in schema:
            schema = self.schemas[schema["$ref"].rpartition("/")[2]]
        return {name: name in schema.get("required", []) for name in schema["properties"]}

    def test_commands(self) -> None:
        """The page describes every command, with the members that its data may and must have."""
        rows = table(PROTOCOL, "Commands")
        self.assertEqual({row[0] for row in rows}, set(COMMANDS))
        for name, data, _ in rows:
            schema = self.schemas.get(f"{name}Command", self.schemas.get(name))
            shape = self.shape(schema["properties"]["data"])
            self.assertEqual(members(data), shape, name)

    def test_sent(self) -> None:
        """The page describes every message that the server sends, with all of its members."""
        told = set()
        for names, data, _ in table(PROTOCOL, "Sent by the server"):
            for name in names.split(", "):
                told.add(name)
                if data.startswith("{") and name != "Status":
                    expected = self.shape(SENT[name][1])
                    if name == "Update":
                        expected.pop("state")
                    self.assertEqual(members(data), expected, name)
        self.assertEqual(told, set(SENT))

    def test_statuses(self) -> None:
        """The page names every status."""
        (row,) = (row for row in table(PROTOCOL, "Sent by the server") if row[0] == "Status")
        for status in SENT["Status"][1]["oneOf"]:
            self.assertIn(status["properties"]["status"]["const"], row[2])

    def test_members(self) -> None:
        """What this test reads out of a cell."""
        self.assertEqual(
            members('{"a", "b"?, "c": ["x", "y"]}'), {"a": True, "b": False, "c": True}
        )
        self.assertEqual(members('{"a", "b"?: {"x", "y"}}, or {"a", "c"}'),
                         {"a": True, "b": False, "c": False})  # fmt: skip


class LinkTests(SynchronousTestCase):
    """Links between pages."""

    def test_links(self) -> None:
        """Every page and file that a page links to is there."""
        for page in pages():
            for target in re.findall(r"<([\w./-]+)>`_", read(page)):
                self.assertTrue((folder_of(page) / target).exists(), f"{page}: {target}")

    def test_flags(self) -> None:
        """Every option that a page names is one, of the server or of a command."""
        known = {f"--{option.name}" for option in OPTIONS} | {"--config", "--help"}
        # Of python -m realtime, of bench and the chaos test, of twistd and Redis.
        sources = [*(ROOT / "realtime").glob("*.py"), *(ROOT / "bench").glob("*.py")]
        sources += [ROOT / "tests/integration/chaos.py", ROOT / "bench/wsload.c"]
        code = "".join(path.read_text(encoding="utf-8") for path in sources)
        known |= {f"--{name}" for name in re.findall(r'"-?-?([a-z][a-z-]+)"', code)}
        known |= {"--nodaemon", "--role"}
        for page in pages():
            text = re.sub(r"(?m)^\.\. code-block.*\n(?:\n| .*\n)*", "", read(page))
            for flag in re.findall(r"``(--[a-z][a-z-]+)", text):
                self.assertIn(flag, known, page)


class AsyncApiExampleTests(SynchronousTestCase):
    """JSON in the texts."""

    def test_statuses_in_text(self) -> None:
        """Each `Status {...}` in a text is one that the server sends."""
        known = {s["properties"]["status"]["const"] for s in SENT["Status"][1]["oneOf"]}
        for page in pages():
            for status in re.findall(r'"status": ("\w+")', read(page)):
                self.assertIn(json.loads(status), known, page)
