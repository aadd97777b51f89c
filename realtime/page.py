"""The page at `/`: static files of the package, where a newcomer sees that the server works."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from importlib.resources import files

from klein import Klein
from twisted.web.http import CACHED
from twisted.web.iweb import IRequest

from realtime.answers import answer

_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/static/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/static/page.css": ("page.css", "text/css; charset=utf-8"),
    "/static/icon.svg": ("icon.svg", "image/svg+xml"),
}
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        # 'self' includes WebSockets to the page's own host and port.
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)


def add_page(app: Klein) -> None:
    """Add the page and what it needs to an application."""
    add_files(app, _FILES)


def add_files(app: Klein, served: Mapping[str, tuple[str, str]]) -> None:
    """Add static files of the package: by path the file's name, and its Content-Type."""
    for path, (name, content_type) in served.items():
        content = files("realtime").joinpath("static", name).read_bytes()
        app.route(path, methods=["GET"], endpoint=path)(_serve(content, content_type))


def _serve(content: bytes, content_type: str) -> Callable[[IRequest], bytes]:
    etag = f'"{sha256(content).hexdigest()[:32]}"'.encode("ascii")

    def serve(request: IRequest) -> bytes:
        request.setHeader("Cache-Control", "no-cache")
        request.setHeader("Content-Security-Policy", _POLICY)
        request.setHeader("Cross-Origin-Opener-Policy", "same-origin")
        if request.setETag(etag) is CACHED:
            return b""
        return answer(request, content, content_type)

    return serve
