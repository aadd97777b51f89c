"""Results as reStructuredText tables, which read well in a terminal too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.chart import draw, ratio_text
from bench.run import generator_limits

Median = dict[str, Any]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A simple table of reStructuredText; the first column is to the left, others right."""
    everything = [head, *rows]
    widths = [max(len(row[i]) for row in everything) for i in range(len(head))]
    rule = "  ".join("=" * width for width in widths)

    def line(row: Sequence[str]) -> str:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        return "  ".join(cells).rstrip()

    return "\n".join([rule, line(head), rule, *map(line, rows), rule])


def report(results: dict[str, Any], before: dict[str, Any] | None = None) -> str:
    """All tables of some results; `before` adds the change from those."""
    parts = [_costs(results), _connections(results), _latencies(results), _generator(results)]
    invalid = _invalid(results)
    if invalid:
        parts.append(invalid)
    if before is not None:
        parts.append(_change(results, before))
    return "\n\n".join(part for part in parts if part)


def _title(text: str) -> str:
    return f"{text}\n{'-' * len(text)}"


def _messages(results: dict[str, Any]) -> list[str]:
    return [name for name in results["workloads"] if name != "idle"]


def _cell(median: Median | None, limit: Median | None) -> str:
    if median is None:
        return "n/a"
    if "invalid" in median:
        return "invalid"
    cost: float = median["cpu_us"]
    text = f"{cost:.2f}" if cost < 10 else f"{cost:.1f}" if cost < 100 else f"{cost:.0f}"
    if limit and "cpu_us" in limit:
        text += f" ({ratio_text(cost / limit['cpu_us'])})"
    return text


def _costs(results: dict[str, Any]) -> str:
    names = _messages(results)
    if not names:
        return ""
    medians = results["medians"]
    limit = medians.get("limit", {})
    rows = [
        [results["titles"][server], *(_cell(found[name], limit.get(name)) for name in names)]
        for server, found in medians.items()
    ]
    legend = "; ".join(f"{name}: {results['workloads'][name]}" for name in names)
    return "\n\n".join(
        [
            _title("Server CPU per delivered message"),
            "Microseconds, user and system; in brackets the ratio to the C limit.",
            table(["server", *names], rows),
            f"{legend}.",
        ]
    )


def _connections(results: dict[str, Any]) -> str:
    if "idle" not in results["workloads"]:
        return ""
    rows = []
    for server, found in results["medians"].items():
        idle = found["idle"]
        if idle is None:
            continue
        if "invalid" in idle:
            cells = ["invalid"] * 3
        else:
            cells = [
                f"{idle['kb']:.1f}",
                f"{idle['connect_us']:.0f}",
                f"{idle['generator_connect_us']:.0f}",
            ]
        rows.append([results["titles"][server], *cells])
    return "\n\n".join(
        [
            _title("Connections"),
            "Growth of resident memory per idle, subscribed connection (KB), and CPU to open and "
            "subscribe one (µs).\nOurs checks a JWT for each, of a user of its own; none of the "
            "others checks a token.",
            table(["server", "KB", "µs", "generator µs"], rows),
        ]
    )


def _latencies(results: dict[str, Any]) -> str:
    names = _messages(results)
    if not names:
        return ""
    rows = []
    for server, found in results["medians"].items():
        cells = []
        for name in names:
            median = found[name]
            if median is None:
                cells.append("n/a")
            elif "invalid" in median:
                cells.append("invalid")
            else:
                cells.append(f"{median['p50_us'] / 1e3:.2f} / {median['p99_us'] / 1e3:.2f}")
        rows.append([results["titles"][server], *cells])
    return "\n\n".join(
        [
            _title("Latency"),
            "Milliseconds from sending to receipt, median / 99th percentile. The generator sends "
            "as soon\nas the window allows, so these are latencies of a saturated server.",
            table(["server", *names], rows),
        ]
    )


def _generator(results: dict[str, Any]) -> str:
    names = _messages(results)
    if not names:
        return ""
    rows = []
    for server, found in results["medians"].items():
        cells = []
        for name in names:
            median = found[name]
            if median is None or "invalid" in median:
                cells.append("n/a")
            else:
                shares = f"{median['server_pct']:.0f} / {median['generator_pct']:.0f}"
                cells.append(shares + ("!" if generator_limits(median) else ""))
        rows.append([results["titles"][server], *cells])
    return "\n\n".join(
        [
            _title("Who is busy"),
            "Percent of its own processor that the server / the generator used. An exclamation "
            "mark where the\ngenerator had no time to spare while the server had.",
            table(["server", *names], rows),
        ]
    )


def _invalid(results: dict[str, Any]) -> str:
    lines = [
        f"* {results['titles'][server]}, {name}: {median['invalid']}"
        for server, found in results["medians"].items()
        for name, median in found.items()
        if median and "invalid" in median
    ]
    lines += [f"* {results['titles'][name]}: did not start, left out" for name in results["failed"]]
    return "\n\n".join([_title("Not counted"), "\n".join(lines)]) if lines else ""


def _change(results: dict[str, Any], before: dict[str, Any]) -> str:
    """How costs have changed, and how with the change of the C limit taken off."""
    rows = []
    for server, found in results["medians"].items():
        for name, now in found.items():
            then = before["medians"].get(server, {}).get(name)
            if not now or not then or "invalid" in now or "invalid" in then:
                continue
            key = "cpu_us" if "cpu_us" in now else "connect_us"
            change = now[key] / then[key]
            drift = _drift(results, before, name, key)
            against = f"{change / drift:.2f}" if drift else "n/a"
            cells = [f"{then[key]:.2f}", f"{now[key]:.2f}", f"{change:.2f}", against]
            rows.append([f"{results['titles'][server]}, {name}", *cells])
    if not rows:
        return ""
    return "\n\n".join(
        [
            _title(f"Change since {before['date']}"),
            "µs then and now, their ratio, and that ratio over the C limit's own.",
            table(["run", "then", "now", "ratio", "to limit"], rows),
        ]
    )


def _drift(results: dict[str, Any], before: dict[str, Any], name: str, key: str) -> float | None:
    now = results["medians"].get("limit", {}).get(name)
    then = before["medians"].get("limit", {}).get(name)
    if not now or not then or key not in now or key not in then or not then[key]:
        return None
    change: float = now[key] / then[key]
    return change


def publish(results: dict[str, Any], directory: Path) -> list[Path]:
    """Write the tables and the picture into the documentation; answer the files."""
    directory.mkdir(parents=True, exist_ok=True)
    picture = directory / "ratios.svg"
    picture.write_text(draw(results))
    page = directory / "results.rst"
    title = "Results"
    used = "; ".join(
        f"{results['titles'][server]}: "
        + ", ".join(f"{package} {version}" for package, version in found.items())
        for server, found in results["versions"].items()
        if found
    )
    page.write_text(
        "\n\n".join(
            [
                f"{title}\n{'=' * len(title)}",
                ".. written by `python -m bench --publish`; do not edit",
                f"{results['date']}, {results['machine']}. Medians of {results['rounds']} "
                f"interleaved rounds of {results['seconds']:g} s; payload {results['payload']} "
                "bytes, loopback, no TLS, no\ncompression. What the figures mean is said in "
                "`method.rst <method.rst>`_.",
                ".. image:: ratios.svg\n   :alt: Server CPU per delivered message as a multiple "
                "of the C limit",
                report(results),
                _title("Versions"),
                f"{used}.",
            ]
        )
        + "\n"
    )
    return [page, picture]
