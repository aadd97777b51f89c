"""How costs grow with subscribers, topics and connections.

    python -m bench.growth [--only deliver,topics,change,pauses] [--quick]

deliver   server CPU per delivered message from 10 to 20,000 subscribers, beside the C limit
topics    the same with 100 to 100,000 topics of 10 subscribers
change    CPU to subscribe, to unsubscribe, and to leave 1,000 topics, in one process
pauses    the reactor's longest pauses with as many connections as may be had
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import servers
from bench.chart import ratio_text
from bench.machine import BenchError, Processors, build, machine_class, open_files, processors
from bench.process import Running, read_result, running
from bench.report import table
from bench.run import FAULTS
from bench.servers import our_command

# Files that the server has open besides its connections, and wsload besides its own.
SPARE = 80
WANTED = 20_000
OURS = servers.BY_NAME["ours"]
LIMIT = servers.BY_NAME["limit"]


def most_connections() -> int:
    """How many connections one process may hold here, 20,000 at most."""
    return min(WANTED, open_files() - SPARE)


def check(result: dict[str, Any]) -> dict[str, Any]:
    """Raise where anything was lost, repeated or cut."""
    if "error" in result:
        raise BenchError(result["error"])
    faults = {name: result[name] for name in FAULTS if result.get(name)}
    if faults:
        raise BenchError(f"void: {faults}")
    return result


class Growth:
    """The measurements; each prints a table."""

    def __init__(self, wsload: Path, pinned: Processors, peers: Path, quick: bool) -> None:
        self._wsload = wsload
        self._pinned = pinned
        self._peers = peers
        self._quick = quick

    def deliver(self) -> None:
        """Per delivered message, from 10 to 20,000 subscribers."""
        sizes = [10, 100, 1000] if self._quick else [10, 100, 1000, 10_000, most_connections()]
        costs: dict[str, list[float]] = {}
        for server in (LIMIT, OURS):
            with running(server, self._peers, self._pinned) as target:
                costs[server.name] = [self._fan(target, size, 1) for size in sizes]
        rows = [
            [f"{size:,}", f"{limit:.2f}", f"{ours:.2f}", ratio_text(ours / limit)]
            for size, limit, ours in zip(sizes, costs["limit"], costs["ours"], strict=True)
        ]
        _show("µs CPU per delivered message", ["subscribers", "C limit", "ours", "ratio"], rows)

    def _fan(
        self, target: Running, subscribers: int, topics: int, per: int = 1, stride: int = 1
    ) -> float:
        dialect = target.server.dialect
        join = dialect.join
        if per > 1:
            join = tuple(word.replace('"t%t"', "%T") for word in join)
        seconds = 0.5 if self._quick else 2 if topics < 10_000 else 4
        arguments = [
            *(*dialect.common, *join, *dialect.publish, "--mode", "fan", "--window", "1"),
            *("--subs", str(subscribers), "--topics", str(topics), "--per", str(per)),
            *("--duration", str(seconds), "--warmup", "2" if topics < 1000 else "0", "--spread"),
            *("--stride", str(stride)),
        ]
        cost: float = check(target.load(self._wsload, arguments))["srv_us_per_msg"]
        return cost

    def topics(self) -> None:
        """Per delivered message, from 100 to 100,000 topics, ten subscribers each.

        There are 1,000 connections, each with one topic in a hundred. Publications go to one
        topic of each connection, the same every time; then to all topics in turn.
        """
        rows = []
        for topics in [100, 1000] if self._quick else [100, 1000, 10_000, 100_000]:
            per = topics // 100
            with running(OURS, self._peers, self._pinned) as target:
                same = self._fan(target, 1000, topics, per, stride=per)
                turn = self._fan(target, 1000, topics, per)
                rows.append([f"{topics:,}", f"{same:.2f}", f"{turn:.2f}"])
        head = ["topics", "the same 100 topics", "all topics in turn"]
        _show("µs CPU per delivered message, ten subscribers to each topic", head, rows)

    def change(self) -> None:
        """What subscribing, unsubscribing and leaving cost in one process."""
        head = [
            *("members", "topics", "subscribe µs", "unsubscribe µs"),
            *("subscribe amid a publication µs", "leave 1,000 topics ms"),
        ]
        rows = [_changes(members, topics) for members, topics in self._populations()]
        _show("Changes, without socket and kernel (medians)", head, rows)

    def _populations(self) -> list[tuple[int, int]]:
        if self._quick:
            return [(10, 1), (1000, 1000)]
        return [(10, 1), (1000, 1), (20_000, 1), (1000, 1000), (1000, 100_000), (20_000, 100_000)]

    def pauses(self) -> None:
        """The longest pauses of the reactor, by what happens meanwhile."""
        count = 1000 if self._quick else most_connections() - 20
        beat = 10
        options = ("--heartbeat-interval", str(beat), "--client-timeout", "60")
        server = replace(OURS, command=our_command(*options, probe=True))
        with running(server, self._peers, self._pinned) as target:
            time.sleep(1)  # start-up collects garbage, which is no pause for anybody
            phases = Phases(target, self._wsload)
            dialect = server.dialect
            fan = [
                *(*dialect.common, *dialect.join, *dialect.publish, "--mode", "fan", "--announce"),
                *("--window", "1", "--duration", "8", "--warmup", "0", "--farewell", "--spread"),
            ]
            with phases.load([*fan, "--subs", str(count)]) as load:
                phases.until_ready("connect", load)
                phases.bystander("fan-out to all", 5)
                phases.until_done("close, each with a Close frame", load)
            idle = [*dialect.common, *dialect.join, "--mode", "idle", "--announce", "--spread"]
            with phases.load([*idle, "--subs", str(count), "--hold", "60"]) as load:
                phases.until_ready("connect again", load)
                phases.bystander("idle, with heartbeats", beat + 4)
                load.kill()
                load.wait()
                phases.until_rest("all lost at once")
            _show(
                f"Longest pauses with {count:,} connections, ms",
                ["while", "pause", "of it working", "collecting garbage", "bystander's Ping"],
                phases.rows(),
            )


def _changes(members: int, topics: int) -> list[str]:
    """A row of `change`: a topic of so many members, among so many topics."""
    from bench.workload import Rig, broadcast, subscribe, unsubscribe

    rig = Rig()
    names = [f"t{number}" for number in range(topics)]
    for number in range(members):
        # The first connections hold many topics each, and all hold the first.
        mine = names[number * 1000 : (number + 1) * 1000]
        rig.connect(rig.request(f"u{number}")).receive(subscribe(names[0], *mine))
        rig.turn()
    peer = rig.connect(rig.request("peer"))
    publisher = rig.connect(rig.request("publisher"))
    join, leave, publication = subscribe("t0"), unsubscribe("t0"), broadcast("t0")

    def subscribing() -> None:
        peer.receive(join)
        rig.turn()

    def unsubscribing() -> None:
        peer.receive(leave)
        rig.turn()

    gc.collect()
    pairs = [(_time(subscribing), _time(unsubscribing)) for _ in range(300)]
    amid = []
    for _ in range(30):
        publisher.receive(publication)
        amid.append(_time(lambda: peer.receive(join)))
        rig.turn()
        unsubscribing()
    # Half of what it leaves, others have too.
    thousand = [*names[-500:], *(f"own{number}" for number in range(1000))][:1000]
    leaving = []
    for _ in range(15):
        wire = rig.connect(rig.request("leaver"))
        wire.receive(subscribe(*thousand))
        rig.turn()
        leaving.append(_time(wire.lose))
    return [
        f"{members:,}",
        f"{topics:,}",
        f"{statistics.median(on for on, _ in pairs) * 1e6:.1f}",
        f"{statistics.median(off for _, off in pairs) * 1e6:.1f}",
        f"{statistics.median(amid) * 1e6:.1f}",
        f"{statistics.median(leaving) * 1e3:.2f}",
    ]


class Phases:
    """Notes when each phase began and ended, and reads what the probe wrote in it."""

    def __init__(self, target: Running, wsload: Path) -> None:
        self._target = target
        self._wsload = wsload
        self._began = time.monotonic()
        self._phases: list[tuple[str, float, float, str]] = []

    @contextlib.contextmanager
    def load(self, arguments: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
        """Run wsload meanwhile."""
        command = self._target.load_command(self._wsload, arguments)
        self._began = time.monotonic()
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                yield process
            finally:
                process.kill()

    def end(self, name: str, latency: str = "") -> None:
        """End the present phase, and give it its name."""
        now = time.monotonic()
        self._phases.append((name, self._began, now, latency))
        self._began = now

    def until_ready(self, name: str, load: subprocess.Popen[str]) -> None:
        """A phase that lasts until all are connected."""
        announced(load)
        self.end(name)

    def bystander(self, name: str, seconds: float) -> None:
        """A phase in which ten more connections send Pings, 200 a second."""
        dialect = self._target.server.dialect
        arguments = [
            *(*dialect.common, *dialect.ping, "--mode", "echo", "--subs", "10"),
            *("--rate", "200", "--duration", str(seconds), "--spread"),
        ]
        self._began = time.monotonic()
        result = check(self._target.load(self._wsload, arguments))
        latency = result["lat_us"]
        self.end(name, f"p99 {latency['p99'] / 1e3:.1f}, most {latency['max'] / 1e3:.1f}")

    def until_done(self, name: str, load: subprocess.Popen[str]) -> None:
        """A phase that lasts until the load has ended of itself."""
        out = load.stdout.read() if load.stdout else ""
        result = check(read_result(out, ""))
        self.end(name)
        if result["farewells"] < result["subs"]:
            raise BenchError(f"only {result['farewells']} connections closed as they should")

    def until_rest(self, name: str) -> None:
        """A phase that lasts until the server has nothing more to do."""
        last = -1.0
        while (now := self._target.cpu()) - last > 0.05:
            last = now
            time.sleep(0.5)
        self.end(name)

    def rows(self) -> list[list[str]]:
        """Each phase's figures."""
        lines = (self._target.place.directory / "pauses").read_text().splitlines()
        probed = [json.loads(line) for line in lines]
        rows = []
        for name, began, ended, latency in self._phases:
            found = [line for line in probed if began <= line["at"] <= ended + 0.25]
            if not found:
                continue
            worst = max(found, key=lambda line: line["late_ms"])
            collected = max(found, key=lambda line: line["gc_ms"])
            rows.append(
                [
                    *(name, f"{worst['late_ms']:.1f}", f"{worst['late_cpu_ms']:.1f}"),
                    *(f"{collected['gc_ms']:.1f}", latency),
                ]
            )
        return rows


def announced(load: subprocess.Popen[str]) -> int:
    """Wait until all connections of a wsload are ready; answer how many."""
    line = load.stdout.readline() if load.stdout else ""
    try:
        ready: int = json.loads(line)["ready"]
    except (ValueError, KeyError):
        raise BenchError(f"wsload did not become ready: {line.strip()}") from None
    return ready


def _time(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _show(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print(f"\n{title}\n\n{table(head, rows)}", flush=True)


def main() -> None:
    """Do what the command line says."""
    kinds = ("deliver", "topics", "change", "pauses")
    parser = argparse.ArgumentParser(
        prog="python -m bench.growth",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", default=",".join(kinds), metavar="A,B")
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    options = parser.parse_args()
    unknown = set(options.only.split(",")) - set(kinds)
    if unknown:
        raise BenchError(f"{min(unknown)!r} is none of {', '.join(kinds)}")
    tools = build("wsload", "limit")
    growth = Growth(tools["wsload"], processors(), Path(), options.quick)
    print(machine_class())
    if most_connections() < WANTED:
        print(f"A process may open {open_files():,} files here: {most_connections():,} connections")
    for name in options.only.split(","):
        getattr(growth, name)()


if __name__ == "__main__":
    try:
        main()
    except BenchError as error:
        sys.exit(f"bench: {error}")
