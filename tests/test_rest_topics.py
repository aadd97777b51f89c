"""Tests of realtime.rest_topics."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from realtime import nodes as nodes_module
from realtime.model import Namespace
from tests.support.backend import BackendTestCase

RULES = (
    Namespace("kept.>", history_size=5, presence=True, subscribe=frozenset()),
    Namespace("plain.>"),
)


class TopicsTests(BackendTestCase):
    """`GET /topics`."""

    def test_pages(self) -> None:
        """Topics come by name with their counts, in pages that together have each once."""
        self.make()
        names = [f"t{number}" for number in range(7)] + ["é", "u"]
        for number, name in enumerate(names):
            for _ in range(1 + number % 2):
                self.world.connect().ask("Subscribe", {"topics": [name]})
        self.world.connect().ask("Subscribe", {"topics": ["t.*"]})
        for portion in (3, 5000):
            self.patch(nodes_module, "TOPICS_A_TURN", portion)
            seen: list[Any] = []
            after = ""
            while True:
                page = self.page(f"/topics?limit=2{after}")
                seen += page["topics"]
                if "after" not in page:
                    break
                after = "&after=" + quote(page["after"])
            self.assertEqual([each["topic"] for each in seen], sorted(names))
            self.assertEqual({each["topic"]: each["subscribers"] for each in seen}["t1"], 2)
        page = self.page("/topics?prefix=t&after=t4")
        self.assertEqual([each["topic"] for each in page["topics"]], ["t5", "t6"])
        self.assertEqual(self.page("/topics?limit=0"), {"topics": []})

    def page(self, path: str) -> Any:
        """An answer for which the node may need some turns."""
        self.world.node.clock = _Now()  # type: ignore[assignment]
        return self.ok("GET", path)

    def test_bad_queries(self) -> None:
        """A limit is a whole number."""
        self.make()
        for path, field in (
            ("/topics?limit=x", "limit"),
            ("/topics?limit=-1", "limit"),
            ("/topics?limit=1e3", "limit"),
            ("/topics?limit=%D9%A3", "limit"),
            ("/topics?prefix=%ff", "prefix"),
        ):
            self.assert_error(self.ask("GET", path), 400, "INVALID_REQUEST", field=field)


class _Now:
    """A clock for which later is now."""

    def callLater(self, seconds: float, function: Any, *arguments: Any) -> None:
        """Call at once."""
        function(*arguments)


class HistoryTests(BackendTestCase):
    """`/topics/{topic}/history`."""

    def setUp(self) -> None:
        """Publish something."""
        self.make(topics=RULES)
        for payload in range(7):
            self.ok("POST", "/publish", {"topic": "kept.a", "payload": payload})

    def test_pages(self) -> None:
        """A backend reads histories whatever roles the rule names, from a position, both ways."""
        whole = self.ok("GET", "/topics/kept.a/history")
        self.assertEqual([each["offset"] for each in whole["publications"]], [3, 4, 5, 6, 7])
        self.assertEqual((whole["topic"], whole["offset"]), ("kept.a", 7))
        since = f"since_offset=4&since_epoch={whole['epoch']}"
        for query, offsets in (
            ("?limit=2", [3, 4]),
            ("?limit=2&reverse=true", [7, 6]),
            (f"?{since}", [5, 6, 7]),
            (f"?{since}&limit=1", [5]),
        ):
            page = self.ok("GET", f"/topics/kept.a/history{query}")
            self.assertEqual([each["offset"] for each in page["publications"]], offsets)

    def test_lost(self) -> None:
        """A position of which something is missing is 409."""
        epoch = self.ok("GET", "/topics/kept.a/history")["epoch"]
        for since in (f"since_offset=1&since_epoch={epoch}", "since_offset=5&since_epoch=x"):
            answer = self.ask("GET", f"/topics/kept.a/history?{since}")
            self.assert_error(answer, 409, "CONFLICT", topic="kept.a")

    def test_remove(self) -> None:
        """A history that is removed is empty, and another epoch."""
        before = self.ok("GET", "/topics/kept.a/history")
        self.assertEqual(self.ask("DELETE", "/topics/kept.a/history").status, 204)
        after = self.ok("GET", "/topics/kept.a/history")
        self.assertEqual((after["publications"], after["offset"]), ([], 0))
        self.assertNotEqual(after["epoch"], before["epoch"])

    def test_refused(self) -> None:
        """No history, no topic, and half a position."""
        for path, status, code, details in (
            ("plain.a/history", 404, "NOT_FOUND", {"topic": "plain.a"}),
            ("$a/history", 404, "NOT_FOUND", {"topic": "$a"}),
            ("a%20b/history", 400, "INVALID_REQUEST", {"field": "topic"}),
            ("kept.*/history", 400, "INVALID_REQUEST", {"field": "topic"}),
            ("kept.a/history?since_offset=1", 400, "INVALID_REQUEST", {"field": "since_epoch"}),
            ("kept.a/history?reverse=yes", 400, "INVALID_REQUEST", {"field": "reverse"}),
        ):
            self.assert_error(self.ask("GET", f"/topics/{path}"), status, code, **details)
        answer = self.ask("DELETE", "/topics/plain.a/history")
        self.assert_error(answer, 404, "NOT_FOUND", topic="plain.a")

    def test_names(self) -> None:
        """A topic stands percent-encoded in the path, slashes too."""
        topic = "kept.é/x?y"
        self.ok("POST", "/publish", {"topic": topic, "payload": 1})
        page = self.ok("GET", f"/topics/{quote(topic, safe='')}/history")
        self.assertEqual((page["topic"], len(page["publications"])), (topic, 1))


class PresenceTests(BackendTestCase):
    """`/topics/{topic}/presence`."""

    def test_presence(self) -> None:
        """Who is there, in pages; 404 where nobody keeps account."""
        self.make(topics=(Namespace("kept.>", presence=True), Namespace("plain")))
        for user in ("u1", "u2", "u2"):
            self.world.connect(user).ask("Subscribe", {"topics": ["kept.a"]})
        page = self.ok("GET", "/topics/kept.a/presence?limit=1")
        self.assertEqual(
            page,
            {
                "topic": "kept.a",
                "users": 2,
                "connections": 3,
                "members": [{"user_id": "u1", "connections": 1}],
                "after": "u1",
            },
        )
        page = self.ok("GET", "/topics/kept.a/presence?limit=1&after=u1")
        self.assertEqual(page["members"], [{"user_id": "u2", "connections": 2}])
        self.assertNotIn("after", page)
        answer = self.ask("GET", "/topics/plain/presence")
        self.assert_error(answer, 404, "NOT_FOUND", topic="plain")
