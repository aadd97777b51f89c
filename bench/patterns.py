"""What matching a topic costs, with few and with many patterns subscribed.

    python -m bench.patterns [--quick] [--json FILE]

same     the same 20 topics are asked for, each matched by two patterns that are always there;
         only how many others there are differs
spread   topics from all over the index in random order: what leaving the processor's caches costs

Figures are medians of several runs, which take turns. The acceptance is about `same`.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

from bench.machine import BenchError, machine_class
from bench.report import table
from realtime.patterns import PatternIndex

SIZES = (100, 1000, 10_000, 100_000)
# What the largest may cost, in terms of the smallest.
ACCEPTED = 2.0
SAME = 20


@dataclass(frozen=True, slots=True)
class Work:
    """An index, and topics to ask it for, each matched by two patterns."""

    index: PatternIndex[int]
    topics: list[str]


def _add_pair(index: PatternIndex[int], number: int) -> str:
    """Add two patterns; answer a topic that they match."""
    index.add(f"tenant{number}.orders.>", number)
    index.add(f"tenant{number}.*.n{number}", number)
    return f"tenant{number}.orders.n{number}"


def same(size: int) -> Work:
    """So many patterns, of which the first match the topics."""
    index: PatternIndex[int] = PatternIndex()
    topics = [_add_pair(index, number) for number in range(SAME)]
    for number in range(SAME, SAME + size - len(index)):
        # Half of them begin as the topics do, and part from them later.
        tenant = number % SAME if number % 2 else number
        index.add(
            (
                f"tenant{tenant}.sensor{number}.>",
                f"tenant{tenant}.*.x{number}",
                f"*.orders.x{number}",
            )[number % 3],
            number,
        )
    return Work(index, topics)


def spread(size: int) -> Work:
    """So many patterns, and topics among them all."""
    index: PatternIndex[int] = PatternIndex()
    topics = [_add_pair(index, number) for number in range(size // 2)]
    return Work(index, random.Random(1).choices(topics, k=100_000))


def measure(make: Callable[[int], Work], runs: int, count: int) -> dict[int, float]:
    """The µs of matching one topic, by the number of patterns; `count` topics in each run."""
    works = {size: make(size) for size in SIZES}
    for size, work in works.items():
        if len(work.index) != size or any(len(work.index.match(t)) != 2 for t in work.topics):
            raise BenchError("void: a topic is not matched by its two patterns")
    costs: dict[int, list[float]] = {size: [] for size in SIZES}
    gc.collect()
    gc.disable()
    for _ in range(runs):
        for size, work in works.items():
            costs[size].append(_time(work, count))
    gc.enable()
    return {size: statistics.median(found) for size, found in costs.items()}


def _time(work: Work, count: int) -> float:
    match = work.index.match
    topics = list(islice(cycle(work.topics), count))
    start = time.process_time()
    for topic in topics:
        match(topic)
    return (time.process_time() - start) / count * 1e6


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.patterns",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    runs, count = (3, 10_000) if options.quick else (9, 100_000)
    costs = {make.__name__: measure(make, runs, count) for make in (same, spread)}
    least, most = SIZES[0], SIZES[-1]
    print(machine_class())
    head = ["patterns", *(word for name in costs for word in (f"{name} µs", "ratio"))]
    rows = [
        [f"{size:,}"]
        + [cell for c in costs.values() for cell in (f"{c[size]:.2f}", f"{c[size] / c[least]:.2f}")]
        for size in SIZES
    ]
    print(f"\nMatching one topic, by two patterns of all (CPU, medians)\n\n{table(head, rows)}\n")
    ratio = costs["same"][most] / costs["same"][least]
    verdict = "accepted" if ratio <= ACCEPTED else "NOT accepted"
    print(f"{most:,} to {least:,} patterns: {ratio:.2f}, may be {ACCEPTED:g}: {verdict}")
    if options.json:
        figures = {"machine": machine_class(), "us_per_topic": costs, "ratio": ratio}
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    if ratio > ACCEPTED:
        raise BenchError("matching grows with the patterns that do not match")


if __name__ == "__main__":
    try:
        main()
    except BenchError as error:
        sys.exit(f"bench: {error}")
