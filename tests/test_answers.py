"""Tests for `realtime.answers`."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource

from realtime.answers import answer_error, cors_headers, whole_answer
from realtime.errors import InvalidRequest, RateLimited, RealtimeError
from realtime.origins import Origins
from tests.support.http import Wire, make_site

REFUSALS = (
    InvalidRequest(),
    InvalidRequest(status=426, headers={"Upgrade": "websocket", "Connection": "Upgrade"}),
    InvalidRequest(status=431),
    RateLimited(1),
)


class _Refusing(Resource):
    """Answers everything with one error."""

    isLeaf = True

    def __init__(self, error: RealtimeError) -> None:
        super().__init__()
        self.error = error

    def render(self, request: Any) -> bytes:
        return answer_error(request, self.error)


class AnswerTests(SynchronousTestCase):
    """What goes out."""

    def test_reason_phrases(self) -> None:
        """Every status line has the status's own phrase, newer statuses included."""
        for error in REFUSALS:
            expected = f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n".encode()
            wire = Wire(make_site(_Refusing(error)))
            wire.send(b"GET / HTTP/1.1\r\nHost: server\r\n\r\n")
            self.assertTrue(wire.transport.value().startswith(expected), wire.transport.value())
            self.assertTrue(whole_answer(error).startswith(expected))

    def test_extra_headers(self) -> None:
        """A whole answer takes headers beyond those of its error."""
        error = RateLimited(1)
        head, _, body = whole_answer(error, {"Access-Control-Allow-Origin": "*"}).partition(
            b"\r\n\r\n"
        )
        lines = head.split(b"\r\n")
        self.assertIn(b"Access-Control-Allow-Origin: *", lines)
        self.assertIn(b"Retry-After: 1", lines)
        self.assertTrue(whole_answer(error).endswith(b"\r\n\r\n" + body))
        self.assertNotIn(b"Access-Control", whole_answer(error))

    def test_cors_headers(self) -> None:
        """Origins allowed are named; that an answer depends on them is told in any case."""
        anybody, one = Origins(["*"]), Origins(["https://a.example"])
        self.assertEqual(cors_headers(anybody, None)["Access-Control-Allow-Origin"], "*")
        self.assertNotIn("Vary", cors_headers(anybody, "https://b.example"))
        named = cors_headers(one, "https://a.example")
        self.assertEqual(named["Access-Control-Allow-Origin"], "https://a.example")
        self.assertEqual(named["Vary"], "Origin")
        for origin in (None, "https://b.example"):
            self.assertEqual(cors_headers(one, origin), {"Vary": "Origin"})
