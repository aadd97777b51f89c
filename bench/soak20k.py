"""The soak: very many connections, ten topics each, mixed traffic, and everything closed again.

    python -m bench.soak20k [--connections N] [--seconds S] [--cycles N]

Listeners hold nearly all connections and ten topics each, and get publications; others exchange
direct messages, send Pings, and come and go. Everything is checked for loss, repetition and
order; the server's errors are read from its metrics and its log; in the end every connection
closes with a Close frame, and memory is looked at.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench import servers
from bench.growth import WANTED, Phases, announced, check, most_connections
from bench.machine import BenchError, build, machine_class, open_files, processors
from bench.process import Running, read_result, running
from bench.report import table
from bench.servers import our_command

DIRECT = 200
PINGING = 200
COMING_AND_GOING = 50
# Publications a second, each on a topic of about two hundred listeners; commands of the others.
PUBLICATIONS = 100
COMMANDS = 400
TOPICS = 1000
OURS = servers.BY_NAME["ours"]
_TEN = ",".join(f'"{{0}}%d.{number}"' for number in range(10))


def _ten_topics(prefix: str) -> tuple[str, ...]:
    """Subscribe to ten topics of one's own."""
    topics = _TEN.replace("{0}", prefix)
    return ("--sub", f'{{"type":"Subscribe","data":{{"topics":[{topics}]}}}}', "--ack", "2")


@dataclass(frozen=True, slots=True)
class Soak:
    """One soak of a running server."""

    target: Running
    wsload: Path
    connections: int
    seconds: float

    def cycle(self) -> dict[str, Any]:
        """Open, load, close; answer the figures. Raises where anything is not as it should."""
        with ExitStack() as started:
            return self._cycle(started)

    def _cycle(self, started: ExitStack) -> dict[str, Any]:
        listeners = self.connections - DIRECT - PINGING - COMING_AND_GOING
        dialect = OURS.dialect
        began = time.monotonic()
        load = self._start(
            started,
            *(*dialect.common, "--mode", "fan", "--subs", str(listeners), "--per", "10"),
            *("--sub", '{"type":"Subscribe","data":{"topics":[%T]}}', "--ack", "2"),
            *(*dialect.publish, "--topics", str(TOPICS), "--rate", str(PUBLICATIONS)),
            *("--duration", str(self.seconds + 6), "--warmup", "0", "--announce"),
        )
        ready = announced(load)
        opened = time.monotonic() - began
        if ready != listeners + 1:
            raise BenchError(f"{ready} of {listeners + 1} became ready")
        others = [
            self._start(
                started,
                *(*dialect.common, "--mode", "echo", "--partner", *self._users(0, DIRECT)),
                *(*_ten_topics("d"), *dialect.direct[2:]),
                *("--rate", str(COMMANDS), "--duration", str(self.seconds)),
            ),
            self._start(
                started,
                *(*dialect.common, "--mode", "echo", *self._users(DIRECT, PINGING)),
                *(*_ten_topics("p"), *dialect.ping[2:]),
                *("--rate", str(COMMANDS), "--duration", str(self.seconds)),
            ),
        ]
        visits: list[dict[str, Any]] = []
        done = threading.Event()
        visitors = threading.Thread(target=self._come_and_go, args=(visits, done))
        visitors.start()
        time.sleep(self.seconds / 2)
        peak = self.target.rss()
        health = self._get("/health")
        results = [check(read_result(*process.communicate())) for process in others]
        done.set()
        visitors.join()
        results.append(check(read_result(*load.communicate())))
        for result in results:
            if result["farewells"] < result["subs"]:
                raise BenchError(f"{result['farewells']} of {result['subs']} closed in order")
        if any(visit.get("farewells") != visit.get("subs", 0) for visit in visits) or not visits:
            raise BenchError(f"visitors: {visits[-1:]}")
        direct, pinged, heard = results
        return {
            "connections": health["active_connections"],
            "connect_s": round(opened, 1),
            "deliveries": heard["deliveries"],
            "direct": direct["deliveries"],
            "pongs": pinged["deliveries"],
            "visits": sum(visit["farewells"] for visit in visits),
            "p99_ms": [round(one["lat_us"]["p99"] / 1e3, 1) for one in results],
            "most_ms": [round(one["lat_us"]["max"] / 1e3, 1) for one in results],
            "peak_kb": peak,
        }

    def _start(self, started: ExitStack, *arguments: str) -> subprocess.Popen[str]:
        command = self.target.load_command(self.wsload, [*arguments, "--farewell", "--spread"])
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def _come_and_go(self, visits: list[dict[str, Any]], done: threading.Event) -> None:
        dialect = OURS.dialect
        arguments: Sequence[str] = (
            *(*dialect.common, "--mode", "idle"),
            *self._users(DIRECT + PINGING, COMING_AND_GOING - 2),
            *(*_ten_topics("v"), "--settle", "300", "--farewell", "--spread"),
        )
        while not done.is_set():
            visits.append(self.target.load(self.wsload, arguments))
            if "error" in visits[-1]:
                break

    def _users(self, first: int, count: int) -> tuple[str, ...]:
        """So many connections, of users that no other wsload has."""
        listeners = self.connections - DIRECT - PINGING - COMING_AND_GOING
        return "--subs", str(count), "--first", str(listeners + 1 + first)

    def _get(self, path: str) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.target.place.port}{path}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            body: dict[str, Any] = json.load(answer)
        return body

    def settled(self) -> int:
        """Resident memory once nobody is connected; raises where errors were counted."""
        deadline = time.monotonic() + 15
        while (metrics := self._get("/metrics"))["active_connections"]:
            if time.monotonic() > deadline:
                raise BenchError(f"{metrics['active_connections']} connections are left over")
            time.sleep(0.2)
        if metrics["errors"]:
            raise BenchError(f"the server has counted {metrics['errors']} errors")
        complaints = re.findall(r"Unhandled|Traceback|critical|error.*", self.target.log(), re.I)
        if complaints:
            raise BenchError(f"the server's log complains: {complaints[0]}")
        time.sleep(3)
        return self.target.rss()


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.soak20k",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--connections", type=int, default=WANTED)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--cycles", type=int, default=2, help="how often it is all done [2]")
    options = parser.parse_args()
    count = min(options.connections, most_connections())
    print(machine_class())
    if count < options.connections:
        print(
            f"A process may open {open_files():,} files here, so there are {count:,} connections, "
            f"not {options.connections:,}."
        )
    tools = build("wsload")
    server = replace(OURS, command=our_command(probe=True))
    with running(server, Path(), processors()) as target:
        time.sleep(1)
        soak = Soak(target, tools["wsload"], count, options.seconds)
        memory = [soak.settled()]
        rows = []
        phases = Phases(target, tools["wsload"])
        for number in range(options.cycles):
            figures = soak.cycle()
            memory.append(soak.settled())
            phases.end(f"cycle {number + 1}")
            for name, value in figures.items():
                rows.append([f"{number + 1}: {name}", str(value)])
            rows.append([f"{number + 1}: memory after, KB", str(memory[-1])])
        print(table(["figure", "value"], rows))
        print(table(["while", "pause", "of it working", "collecting garbage", ""], phases.rows()))
    for number, after in enumerate(memory[1:], 1):
        print(f"memory after cycle {number}: {after / memory[0]:.2f} of what it was at first")
    if len(memory) > 2:
        print(f"memory after the last cycle: {memory[-1] / memory[1]:.2f} of that after the first")
    print("no message lost, repeated or out of order; no error counted or logged")


if __name__ == "__main__":
    try:
        main()
    except BenchError as error:
        sys.exit(f"bench: {error}")
