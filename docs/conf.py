"""How Sphinx makes the site: `sphinx-build -W -n docs OUT`.

The pages are also read on a git forge. So they link to one another by file name, which becomes a
reference here, and tables that follow the code stand in them (`tables.py` writes them).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from pygments.lexers.data import JsonLexer
from pygments.token import Error, Punctuation
from sphinx import addnodes
from sphinx.application import Sphinx

ROOT = Path(__file__).parent.parent
_SOURCE = (ROOT / "realtime" / "__init__.py").read_text(encoding="utf-8")

project = "realtime-server"
copyright = "the authors of realtime-server"
(release,) = re.findall(r'__version__ = "(.+)"', _SOURCE)
version = release

exclude_patterns = ["_build"]
highlight_language = "none"
smartquotes = False

html_theme = "alabaster"
html_theme_options = {
    "description": "A self-hosted realtime messaging server",
    "fixed_sidebar": True,
    "page_width": "1240px",
    "sidebar_width": "260px",
    "font_family": "system-ui, sans-serif",
    "head_font_family": "system-ui, sans-serif",
}
html_sidebars = {"**": ["about.html", "searchfield.html", "navigation.html"]}
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False


class Messages(JsonLexer):
    """JSON with the arrows and dots of conversations."""

    def get_tokens_unprocessed(self, text: str) -> Iterator[tuple[int, Any, str]]:
        """See `JsonLexer`."""
        for index, token, value in super().get_tokens_unprocessed(text):
            is_ours = token is Error and not value.strip("→←.")
            yield index, Punctuation if is_ours else token, value


def refer(app: Sphinx, doctree: nodes.document) -> None:
    """Make references of links to other pages; one that is not there is a warning."""
    for link in list(doctree.findall(nodes.reference)):
        target = link.get("refuri", "")
        if target.endswith(".rst") and "://" not in target:
            page = addnodes.pending_xref(
                "",
                nodes.inline("", "", *link.children),
                refdomain="std",
                reftype="doc",
                reftarget=target.removesuffix(".rst"),
                refdoc=app.env.docname,
                refexplicit=True,
                refwarn=True,
            )
            link.replace_self(page)


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the above."""
    app.add_lexer("json", Messages)
    app.connect("doctree-read", refer)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
