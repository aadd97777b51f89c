"""Tests of realtime.rest_connections."""

from __future__ import annotations

from urllib.parse import quote

from realtime.errors import CloseCode
from tests.support.backend import BackendTestCase


class ConnectionsTests(BackendTestCase):
    """Listing and ending connections."""

    def setUp(self) -> None:
        """Connect some."""
        self.make()
        self.wires = [
            self.world.connect("u1", username="Ann", session_id="s1"),
            self.world.connect("u2"),
            self.world.connect("u1"),
        ]
        self.ids = [wire.client.connection_id for wire in self.wires]

    def test_list(self) -> None:
        """All connections, or a user's, the oldest first, in pages."""
        self.wires[0].ask("Subscribe", {"topics": ["a", "b.*"]})
        page = self.ok("GET", "/connections")
        self.assertEqual(
            page["connections"],
            [
                {
                    "connection_id": self.ids[0],
                    "user_id": "u1",
                    "subscriptions": 2,
                    "username": "Ann",
                    "session_id": "s1",
                },
                {"connection_id": self.ids[1], "user_id": "u2", "subscriptions": 0},
                {"connection_id": self.ids[2], "user_id": "u1", "subscriptions": 0},
            ],
        )
        self.assertNotIn("after", page)
        for query, found, after in (
            ("?user=u1", [0, 2], None),
            ("?user=Ann", [0, 2], None),
            ("?user=nobody", [], None),
            ("?limit=2", [0, 1], 1),
            (f"?limit=2&after={self.ids[1]}", [2], None),
            (f"?user=u1&limit=1&after={self.ids[0]}", [2], None),
            ("?limit=0", [], None),
            (f"?after={self.ids[0].rpartition('-')[0]}-0", [0, 1, 2], None),
            ("?after=nonsense", [0, 1, 2], None),
        ):
            page = self.ok("GET", f"/connections{query}")
            shown = [each["connection_id"] for each in page["connections"]]
            self.assertEqual(shown, [self.ids[number] for number in found])
            self.assertEqual(page.get("after"), None if after is None else self.ids[after])

    def test_page_after_one_that_has_ended(self) -> None:
        """A page goes on where one ended, though its last connection has ended since."""
        self.wires[1].client.closed(1000)
        page = self.ok("GET", f"/connections?after={self.ids[1]}")
        self.assertEqual([each["connection_id"] for each in page["connections"]], [self.ids[2]])

    def test_end_one(self) -> None:
        """A connection is closed by its id with 4501; there is no other of that id."""
        self.assertEqual(self.ask("DELETE", f"/connections/{self.ids[1]}").status, 204)
        codes = [wire.close_code for wire in self.wires]
        self.assertEqual(codes, [None, CloseCode.FORCED, None])
        for id in (self.ids[1], "x", "node-1", f"other-{self.ids[0].rpartition('-')[2]}"):
            self.assert_error(self.ask("DELETE", f"/connections/{id}"), 404, "NOT_FOUND")

    def test_end_all(self) -> None:
        """All connections of a user are closed; there may be none."""
        self.assertEqual(self.ok("DELETE", "/users/u1/connections"), {"closed": 2})
        codes = [wire.close_code for wire in self.wires]
        self.assertEqual(codes, [CloseCode.FORCED, None, CloseCode.FORCED])
        self.assertEqual(self.ok("DELETE", f"/users/{quote('nö/body')}/connections"), {"closed": 0})
