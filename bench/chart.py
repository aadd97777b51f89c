"""The picture: for each workload, every server's CPU as a multiple of the C limit. Plain SVG."""

from __future__ import annotations

import math
from typing import Any
from xml.sax.saxutils import escape

COLUMNS = 2
PANEL_WIDTH = 470
LABELS = 150
BAR = 15
GAP = 6
HEAD = 46
FOOT = 26
MARGIN = 20
VALUE = 60

_COLOURS = {"ours": "#c2410c", "ours-public": "#fb923c", "limit": "#475569"}
_OTHER = "#93b4d1"
_STYLE = (
    "text{font-family:system-ui,sans-serif;font-size:12px;fill:#1e293b}"
    ".t{font-size:14px;font-weight:600}.a{font-size:11px;fill:#64748b}.o{font-weight:600}"
)


def draw(results: dict[str, Any]) -> str:
    """The picture of some results as SVG text."""
    panels = []
    for name, title in results["workloads"].items():
        ratios = _ratios(results, name)
        if len(ratios) > 1:
            panels.append((title, ratios))
    rows = [panels[i : i + COLUMNS] for i in range(0, len(panels), COLUMNS)]
    heights = [max(_height(ratios) for _, ratios in row) for row in rows]
    width = MARGIN * 2 + COLUMNS * PANEL_WIDTH
    height = MARGIN * 2 + 24 + sum(heights)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img">',
        f"<style>{_STYLE}</style>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text class="a" x="{MARGIN}" y="{MARGIN + 6}">Server CPU per delivered message as a '
        f"multiple of the C limit (logarithmic); {escape(results['date'])}</text>",
    ]
    top = MARGIN + 24
    for row, row_height in zip(rows, heights, strict=True):
        for column, (title, ratios) in enumerate(row):
            parts += _panel(title, ratios, results["titles"], MARGIN + column * PANEL_WIDTH, top)
        top += row_height
    parts.append("</svg>\n")
    return "\n".join(parts)


def ratio_text(ratio: float) -> str:
    """A ratio with about two digits."""
    digits = 2 if ratio < 0.95 else 1 if ratio < 9.5 else 0
    return f"{ratio:.{digits}f}x"


def _ratios(results: dict[str, Any], workload: str) -> list[tuple[str, float]]:
    """Servers and their ratios, the cheapest first."""
    medians = results["medians"]
    limit = medians.get("limit", {}).get(workload)
    if not limit or not limit.get("cpu_us"):
        return []
    found = [
        (server, found[workload]["cpu_us"] / limit["cpu_us"])
        for server, found in medians.items()
        if found.get(workload) and "cpu_us" in found[workload]
    ]
    return sorted(found, key=lambda one: one[1])


def _height(ratios: list[tuple[str, float]]) -> int:
    return HEAD + len(ratios) * (BAR + GAP) + FOOT


def _panel(
    title: str, ratios: list[tuple[str, float]], titles: dict[str, str], left: int, top: int
) -> list[str]:
    low = 10 ** math.floor(math.log10(min(0.99, ratios[0][1])))
    high = max(10.0, 10 ** math.ceil(math.log10(ratios[-1][1])))
    span = PANEL_WIDTH - LABELS - VALUE
    start = left + LABELS

    def at(ratio: float) -> float:
        return start + span * math.log(ratio / low) / math.log(high / low)

    bottom = top + HEAD + len(ratios) * (BAR + GAP)
    parts = [f'<text class="t" x="{left}" y="{top + 20}">{escape(title)}</text>']
    tick = low
    while tick <= high * 1.001:
        x = at(tick)
        colour = "#475569" if abs(tick - 1) < 1e-9 else "#e2e8f0"
        parts += [
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top + HEAD - 8}" y2="{bottom}" '
            f'stroke="{colour}"/>',
            f'<text class="a" x="{x:.1f}" y="{top + HEAD - 12}" text-anchor="middle">'
            f"{tick:g}x</text>",
        ]
        tick *= 10
    for index, (server, ratio) in enumerate(ratios):
        y = top + HEAD + index * (BAR + GAP)
        x = at(ratio)
        ours = ' class="o"' if server.startswith("ours") else ""
        parts += [
            f'<text{ours} x="{start - 8}" y="{y + 12}" text-anchor="end">'
            f"{escape(titles[server])}</text>",
            f'<rect x="{start}" y="{y}" width="{max(1.0, x - start):.1f}" height="{BAR}" '
            f'fill="{_COLOURS.get(server, _OTHER)}"/>',
            f'<text{ours} x="{max(1.0 + start, x) + 5:.1f}" y="{y + 12}">'
            f"{ratio_text(ratio)}</text>",
        ]
    return parts
