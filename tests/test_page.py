"""Tests for `realtime.page`: what is served, and what it may do."""

from __future__ import annotations

import re
from importlib.resources import files

from twisted.trial.unittest import TestCase

from tests.support.http import InMemory, make_api

TYPES = {
    "/": "text/html; charset=utf-8",
    "/static/page.js": "text/javascript; charset=utf-8",
    "/static/page.css": "text/css; charset=utf-8",
    "/static/icon.svg": "image/svg+xml",
}


class PageTests(TestCase):
    """The page at `/`."""

    def setUp(self) -> None:
        """Ask in memory."""
        self.ask = InMemory(self, make_api(self).resource)
        self.html = self.ask("GET", "/").body.decode()
        self.script = self.ask("GET", "/static/page.js").body.decode()

    def test_files(self) -> None:
        """The page, its script, its style sheet and its icon are served as what they are."""
        for path, content_type in TYPES.items():
            answer = self.ask("GET", path)
            self.assertEqual(answer.status, 200, path)
            self.assertEqual(answer.header("Content-Type"), content_type)
            self.assertEqual(answer.header("X-Content-Type-Options"), "nosniff")
            self.assertGreater(len(answer.body), 100)

    def test_everything_packaged_is_served(self) -> None:
        """Each file in the package's static folder is one of those; the console's are apart."""
        folder = files("realtime").joinpath("static")
        names = {file.name for file in folder.iterdir() if file.is_file()}
        self.assertEqual(names, {"page.html", "page.js", "page.css", "icon.svg"})

    def test_conditional(self) -> None:
        """Who has a file already is told so, and everybody asks each time."""
        for path in TYPES:
            first = self.ask("GET", path)
            self.assertEqual(first.header("Cache-Control"), "no-cache")
            etag = first.header("ETag") or ""
            self.assertRegex(etag, r'^"[0-9a-f]{32}"$')
            for method in ("GET", "HEAD"):
                again = self.ask(method, path, {"If-None-Match": etag})
                self.assertEqual((again.status, again.body), (304, b""))
                self.assertEqual(again.header("ETag"), etag)
            self.assertEqual(self.ask("GET", path, {"If-None-Match": '"other"'}).status, 200)

    def test_policy(self) -> None:
        """The Content-Security-Policy allows the server's own files and nothing else."""
        header = self.ask("GET", "/").header("Content-Security-Policy") or ""
        policy = dict(part.split(" ", 1) for part in header.split("; "))
        self.assertEqual(
            policy,
            {
                "default-src": "'none'",
                "script-src": "'self'",
                "style-src": "'self'",
                "img-src": "'self'",
                "connect-src": "'self'",
                "base-uri": "'none'",
                "form-action": "'none'",
                "frame-ancestors": "'none'",
            },
        )

    def test_nothing_inline_and_nothing_foreign(self) -> None:
        """The page has no inline script or style, and refers only to what is served here."""
        self.assertNotRegex(self.html, r"(?i)<style|\sstyle=|\son\w+=|javascript:")
        self.assertEqual(re.findall(r"<script[^>]*>(.*?)</script>", self.html), [""])
        links = re.findall(r'(?:href|src)="([^"]*)"', self.html)
        for link in links:
            self.assertEqual(self.ask("GET", link).status, 200, link)
        self.assertGreater(len(links), 4)

    def test_text_only(self) -> None:
        """The script puts what others sent into the page as text, never as markup."""
        for way in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval("):
            self.assertNotIn(way, self.script)
        self.assertNotIn("?token=", self.script)

    def test_ids(self) -> None:
        """Each element that the script looks for is in the page, once."""
        for name in set(re.findall(r'\$\("([\w-]+)"\)', self.script)):
            self.assertEqual(self.html.count(f'id="{name}"'), 1, name)
