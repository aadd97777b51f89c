"""The console at `/console`: its static files.

Its data are those of the server API and of `rest_console`.
"""

from __future__ import annotations

from typing import Final

from klein import Klein

from realtime.page import add_files

_SCRIPT: Final = "text/javascript; charset=utf-8"
_STYLE: Final = "text/css; charset=utf-8"
_MODULES: Final = (
    *("api", "charts", "console", "dom", "overview", "publish", "topics", "trace"),
    *("uplot", "users", "words"),
)
_FILES: Final = {
    "/console": ("console/index.html", "text/html; charset=utf-8"),
    **{f"/static/console/{name}.js": (f"console/{name}.js", _SCRIPT) for name in _MODULES},
    **{
        f"/static/console/{name}.css": (f"console/{name}.css", _STYLE)
        for name in ("console", "uplot")
    },
    "/static/console/uplot.LICENSE.txt": ("console/uplot.LICENSE.txt", "text/plain; charset=utf-8"),
}


def add_console(app: Klein) -> None:
    """Add the page and what it needs to an application."""
    add_files(app, _FILES)
