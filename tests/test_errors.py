"""Tests of realtime.errors."""

from __future__ import annotations

from typing import get_type_hints

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from realtime import errors
from realtime.errors import (
    CloseCode,
    ConfigurationError,
    ErrorCode,
    InvalidRequest,
    InvalidToken,
    RateLimited,
    RealtimeError,
    ServerFull,
    TokenExpired,
    Unavailable,
)
from tests.support import strategies  # noqa: F401

REFERENCE_CODES = {
    "INVALID_TOKEN",
    "TOKEN_EXPIRED",
    "SERVER_FULL",
    "RATE_LIMITED",
    "INVALID_REQUEST",
    "INTERNAL_ERROR",
}


def all_errors() -> list[type[RealtimeError]]:
    """The whole tree below `RealtimeError`."""
    found = [RealtimeError]
    for kind in found:
        found += kind.__subclasses__()
    return [kind for kind in found if kind.__module__ == errors.__name__]


class ErrorCodeTests(SynchronousTestCase):
    """The table of error codes."""

    def test_is_its_text(self) -> None:
        """A code is the string that goes over the wire, spelt as its name."""
        for code in ErrorCode:
            self.assertEqual(str(code), code.name)
            self.assertEqual(code.value, code.name)

    def test_reference_codes(self) -> None:
        """All codes of the reference are there."""
        self.assertLessEqual(REFERENCE_CODES, {code.value for code in ErrorCode})

    def test_statuses(self) -> None:
        """Each code has the HTTP status that the reference and RFC 9110 give it."""
        self.assertEqual(
            {code.value: code.status for code in ErrorCode},
            {
                "INVALID_TOKEN": 401,
                "TOKEN_EXPIRED": 401,
                "INVALID_CREDENTIALS": 401,
                "FORBIDDEN": 403,
                "NOT_FOUND": 404,
                "METHOD_NOT_ALLOWED": 405,
                "CONFLICT": 409,
                "INVALID_REQUEST": 400,
                "RATE_LIMITED": 429,
                "SERVER_FULL": 503,
                "UNAVAILABLE": 503,
                "INTERNAL_ERROR": 500,
            },
        )

    def test_each_code_can_be_raised(self) -> None:
        """Every code belongs to an error that can be raised."""
        self.assertEqual({kind.code for kind in all_errors()}, set(ErrorCode))


class CloseCodeTests(SynchronousTestCase):
    """The table of close codes."""

    def test_own_codes_tell_whether_to_reconnect(self) -> None:
        """Of our own, exactly 4000 to 4499 invite to connect again (DESIGN section 3)."""
        own = {int(code): code.reconnect for code in CloseCode if code >= 4000}
        self.assertEqual(
            own,
            {
                4001: True,
                4002: True,
                4003: True,
                4004: True,
                4005: True,
                4500: False,
                4501: False,
                4502: False,
            },
        )

    def test_standard_codes(self) -> None:
        """Of the standard codes, going away and restart invite to connect again."""
        standard = {int(code): code.reconnect for code in CloseCode if code < 4000}
        self.assertEqual(
            standard,
            {
                1000: False,
                1001: True,
                1002: False,
                1003: False,
                1007: False,
                1009: False,
                1012: True,
            },
        )

    def test_meaning_fits_a_close_frame(self) -> None:
        """A meaning fits the 123 bytes that a Close frame has for the reason."""
        for code in CloseCode:
            self.assertTrue(0 < len(code.meaning.encode()) <= 123, code)


class RealtimeErrorTests(SynchronousTestCase):
    """The error tree."""

    def test_defaults_come_from_the_code(self) -> None:
        """An error says what its code means, with the code's status, unless told otherwise."""
        plain = InvalidRequest()
        self.assertEqual(plain.message, ErrorCode.INVALID_REQUEST.meaning)
        self.assertEqual(str(plain), plain.message)
        self.assertEqual((plain.status, plain.details, plain.headers), (400, {}, {}))
        told = InvalidRequest("no", details={"field": "x"}, status=413, headers={"A": "b"})
        self.assertEqual(
            (told.message, told.details, told.status, told.headers),
            ("no", {"field": "x"}, 413, {"A": "b"}),
        )

    def test_details_are_not_shared(self) -> None:
        """An error's details and headers are its own."""
        details = {"a": 1}
        error = InvalidRequest(details=details, headers=details)  # type: ignore[arg-type]
        error.details["b"] = error.headers["b"] = "2"
        self.assertEqual(details, {"a": 1})
        self.assertEqual(InvalidRequest().details, {})

    def test_unauthenticated_is_challenged(self) -> None:
        """A bad or expired token is answered with a Bearer challenge (RFC 6750)."""
        for kind in (InvalidToken, TokenExpired):
            self.assertEqual(kind().headers, {"WWW-Authenticate": "Bearer"})
        kept = InvalidToken(headers={"WWW-Authenticate": "Bearer realm=x"})
        self.assertEqual(kept.headers, {"WWW-Authenticate": "Bearer realm=x"})

    def test_what_passes_says_when(self) -> None:
        """Errors that pass have Retry-After in whole seconds."""
        self.assertEqual(ServerFull().headers, {"Retry-After": "5"})
        self.assertEqual(Unavailable(retry_after=1).headers, {"Retry-After": "1"})
        self.assertEqual(Unavailable("gone").message, "gone")

    def test_rate_limited(self) -> None:
        """The wait is told in milliseconds, and in whole seconds for HTTP."""
        for wait, milliseconds, seconds in [
            (0.25, 250, "1"),
            (1.0, 1000, "1"),
            (1.0001, 1001, "2"),
            (0.0, 1, "1"),
            (90.5, 90500, "91"),
        ]:
            error = RateLimited(wait)
            self.assertEqual(error.details, {"retry_after_ms": milliseconds})
            self.assertEqual(error.headers, {"Retry-After": seconds})

    @given(st.floats(0, 1e6))
    def test_rate_limited_is_never_too_short(self, wait: float) -> None:
        """Who waits as long as told has waited long enough, and not a unit too long."""
        error = RateLimited(wait)
        self.assertTrue(wait * 1000 <= error.details["retry_after_ms"] < wait * 1000 + 1.0001)
        self.assertTrue(wait <= int(error.headers["Retry-After"]) < wait + 1.0001)

    def test_configuration_error_is_not_for_clients(self) -> None:
        """An operator's mistake is not among the errors that clients are told."""
        self.assertFalse(issubclass(ConfigurationError, RealtimeError))

    def test_codes_are_declared(self) -> None:
        """Each error's code is a member of the table."""
        self.assertIs(get_type_hints(RealtimeError)["code"], ErrorCode)
        for kind in all_errors():
            self.assertIsInstance(kind.code, ErrorCode)
