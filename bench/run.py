"""Running every workload on every server, round by round, and keeping the medians."""

from __future__ import annotations

import datetime
import json
import statistics
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.install import versions
from bench.machine import BenchError, Processors, machine_class
from bench.process import NotStarted, Running, running
from bench.servers import Server
from bench.workloads import PAYLOAD, Workload

# What must be nought in wsload's result, or the run counts for nothing.
FAULTS = (
    *("lost", "gaps", "dups", "late", "stalls"),
    *("closed_early", "connect_fail", "warm_lost", "warm_dups"),
)
# The share of a processor from which it is taken to be busy, percent.
BUSY = 90

# What is kept of a run, by our name and wsload's.
_MESSAGE_FIGURES = {
    "cpu_us": "srv_us_per_msg",
    "rate": "deliveries_per_s",
    "server_pct": "srv_cpu_pct",
    "generator_pct": "gen_cpu_pct",
    "generator_us": "gen_us_per_msg",
    "deliveries": "deliveries",
}
_IDLE_FIGURES = {
    "kb": "anon_kb_per_conn",
    "connect_us": "srv_us_per_connect",
    "connect_rate": "connects_per_s",
    "generator_connect_us": "gen_us_per_connect",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. `seconds` is how long each run measures."""

    servers: Sequence[Server]
    workloads: Sequence[Workload]
    rounds: int
    seconds: float
    quick: bool
    peers: Path
    wsload: Path
    processors: Processors


def measure(plan: Plan, tell: Callable[[str], None]) -> dict[str, Any]:
    """Run the plan; answer the results as they are written to JSON."""
    runs: dict[str, dict[str, list[dict[str, Any]]]] = {
        server.name: {workload.name: [] for workload in plan.workloads} for server in plan.servers
    }
    order = deque(plan.servers)
    failed: dict[str, str] = {}
    for number in range(plan.rounds):
        _round(plan, order, runs, failed, partial(_tell_round, tell, number + 1))
        order.rotate(-1)
    used = [server for server in plan.servers if server.name not in failed]
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": machine_class(),
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "payload": PAYLOAD,
        "quick": plan.quick,
        "versions": {server.name: versions(server, plan.peers) for server in used},
        "failed": failed,
        "titles": {server.name: server.title for server in plan.servers},
        "workloads": {workload.name: workload.title for workload in plan.workloads},
        "medians": {
            server.name: {name: median(found) for name, found in runs[server.name].items()}
            for server in used
        },
        "runs": runs,
    }


def _tell_round(tell: Callable[[str], None], number: int, text: str) -> None:
    tell(f"round {number}: {text}")


def _round(
    plan: Plan,
    order: deque[Server],
    runs: dict[str, dict[str, list[dict[str, Any]]]],
    failed: dict[str, str],
    tell: Callable[[str], None],
) -> None:
    """Each workload on each server in turn; servers stay up for the round, idle meanwhile."""
    with ExitStack() as stack:
        up: dict[str, Running] = {}
        for workload in plan.workloads:
            for server in order:
                if server.name in failed:
                    continue
                arguments = workload.scaled(server, plan.quick).arguments(server.dialect)
                if arguments is None:
                    continue
                arguments += _pace(plan, server, workload)
                try:
                    if workload.fresh:
                        with running(server, plan.peers, plan.processors) as fresh:
                            raw = fresh.load(plan.wsload, arguments)
                    else:
                        if server.name not in up:
                            start = running(server, plan.peers, plan.processors)
                            up[server.name] = stack.enter_context(start)
                        raw = up[server.name].load(plan.wsload, arguments)
                except NotStarted as error:
                    failed[server.name] = str(error)
                    tell(str(error))
                    continue
                result = judge(raw)
                runs[server.name][workload.name].append(result)
                tell(f"{workload.name:7} {server.name:16} {_brief(result)}")


def _pace(plan: Plan, server: Server, workload: Workload) -> list[str]:
    """How long to warm up and to measure; a slow server warms up on fewer messages."""
    warm = 2 if plan.quick or (server.slow and workload.connections >= 1000) else 20
    settle = 200 if plan.quick else 500
    return [
        *("--duration", str(plan.seconds), "--warmup", str(warm), "--settle", str(settle)),
        "--spread",
    ]


def judge(raw: dict[str, Any]) -> dict[str, Any]:
    """The figures of one run, and `invalid` where it counts for nothing, with the reason."""
    if "error" in raw:
        return {"invalid": raw["error"]}
    faults = {name: raw[name] for name in FAULTS if raw.get(name)}
    if raw["alive"] != raw["subs"]:
        faults["missing"] = raw["subs"] - raw["alive"]
    names = _IDLE_FIGURES if raw["mode"] == "idle" else _MESSAGE_FIGURES
    result = {ours: raw[theirs] for ours, theirs in names.items()}
    if raw["mode"] != "idle":
        result |= {"p50_us": raw["lat_us"]["p50"], "p99_us": raw["lat_us"]["p99"]}
        if not raw["deliveries"]:
            faults["deliveries"] = 0
    if faults:
        result["invalid"] = ", ".join(f"{value} {name}" for name, value in faults.items())
    return result


def generator_limits(result: dict[str, Any]) -> bool:
    """Whether the server had to wait for a generator that had no time to spare."""
    return bool(result["generator_pct"] > BUSY > result["server_pct"])


def median(found: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The median of each figure of valid runs; any invalid one makes the whole row so."""
    if not found:
        return None
    for one in found:
        if "invalid" in one:
            return {"invalid": one["invalid"]}
    return {key: round(statistics.median(one[key] for one in found), 3) for key in found[0]}


def _brief(result: dict[str, Any]) -> str:
    if "invalid" in result:
        return f"invalid: {result['invalid']}"
    if "kb" in result:
        return f"{result['kb']:6.1f} KB/connection {result['connect_us']:7.0f} µs/connect"
    return (
        f"{result['cpu_us']:8.2f} µs  p50 {result['p50_us']:7.0f}  p99 {result['p99_us']:7.0f}  "
        f"server {result['server_pct']:3.0f}%  generator {result['generator_pct']:3.0f}%"
    )


def write(results: dict[str, Any], directory: Path) -> Path:
    """Write the results as JSON; the date is the file's name."""
    directory.mkdir(parents=True, exist_ok=True)
    name = results["date"].removesuffix(" UTC").replace(":", "").replace(" ", "-")
    path = directory / f"{name}.json"
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    return path


def read(path: Path) -> dict[str, Any]:
    """Read what `write` wrote."""
    try:
        results: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BenchError(f"{path.name}: {error}") from None
    return results
