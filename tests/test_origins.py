"""Tests for `realtime.origins`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from realtime.errors import ConfigurationError
from realtime.origins import Origins


class OriginsTests(SynchronousTestCase):
    """The allow-list of web origins."""

    def test_star_allows_every_origin(self) -> None:
        """`*` allows any origin, the opaque one included."""
        origins = Origins(["*"])
        for origin in ("https://a.example", "null", "anything", None):
            self.assertTrue(origins.allows(origin))
        self.assertTrue(origins.everything)

    def test_no_origin_is_no_web_page(self) -> None:
        """A request without an Origin header is allowed, whatever the list says."""
        self.assertTrue(Origins([]).allows(None))

    def test_only_what_is_listed(self) -> None:
        """Another scheme, host or port is another origin."""
        origins = Origins(["https://chat.example", "http://localhost:3000"])
        self.assertFalse(origins.everything)
        for origin in ("https://chat.example", "http://localhost:3000"):
            self.assertTrue(origins.allows(origin), origin)
        for origin in (
            "http://chat.example",
            "https://chat.example:8443",
            "https://chat.example.evil.example",
            "https://evil-chat.example",
            "http://localhost",
            "https://user@chat.example",
            "https://chat.example/path",
            "https://[broken",
            "https://chat.example:port",
            "null",
            "",
        ):
            self.assertFalse(origins.allows(origin), origin)

    def test_spellings_of_one_origin(self) -> None:
        """Case, the scheme's own port and a final slash in the list make no difference."""
        origins = Origins(["HTTPS://Chat.Example:443/", "http://[::1]:80"])
        self.assertTrue(origins.allows("https://chat.example"))
        self.assertTrue(origins.allows("https://CHAT.example:443"))
        self.assertTrue(origins.allows("http://[::1]"))

    def test_null_can_be_listed(self) -> None:
        """The opaque origin is allowed where the list has it."""
        self.assertTrue(Origins(["null"]).allows("null"))

    def test_own_pages(self) -> None:
        """A page of the host that the request is for is allowed without being listed."""
        origins = Origins(["https://chat.example"])
        self.assertTrue(origins.allows("http://localhost:8081", "localhost:8081"))
        self.assertTrue(origins.allows("https://live.example", "Live.example:443"))
        self.assertFalse(origins.allows("http://localhost:8082", "localhost:8081"))
        self.assertFalse(origins.allows("null", "null"))

    def test_configuration_errors(self) -> None:
        """What is no origin is refused in one line that names it."""
        for wrong in ("chat.example", "https://a.example/path", "https://", "", "http://a:b"):
            with self.assertRaises(ConfigurationError) as caught:
                Origins([wrong])
            self.assertIn(repr(wrong), str(caught.exception))
            self.assertNotIn("\n", str(caught.exception))

    @given(st.text(), st.none() | st.text())
    def test_any_text(self, origin: str, host: str | None) -> None:
        """Any text can be asked about; an empty list allows only the host's own pages."""
        allowed = Origins([]).allows(origin, host)
        if allowed:
            self.assertIsNotNone(host)

    def test_look_alike(self) -> None:
        """A character whose small form is an ASCII letter makes no allowed origin."""
        self.assertFalse(Origins(["https://kit.example"]).allows("https://\u212ait.example"))
