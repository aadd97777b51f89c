"""`python -m bench`: measure our server beside its peers and the C limit."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from bench import servers, workloads
from bench.install import install
from bench.machine import BUILD, DOCS, RESULTS, BenchError, build, processors
from bench.report import publish, report
from bench.run import Plan, measure, read, write
from bench.servers import Server
from bench.workloads import Workload

T = TypeVar("T")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--install-peers", action="store_true", help="install the peers and stop")
    parser.add_argument(
        "--peers-dir",
        type=Path,
        default=Path.home() / ".cache/realtime-bench",
        metavar="DIR",
        help="where the peers are installed [%(default)s]",
    )
    parser.add_argument("--list", action="store_true", help="list servers and workloads and stop")
    parser.add_argument("--quick", action="store_true", help="a smoke run, whose figures are void")
    parser.add_argument("--only", metavar="A,B", help="servers or workloads, by name")
    parser.add_argument("--servers", metavar="A,B", help="servers [all that are installed]")
    parser.add_argument("--workloads", metavar="A,B", help="workloads [all]")
    parser.add_argument("--rounds", type=int, help="rounds [3]")
    parser.add_argument("--seconds", type=float, help="how long each run measures [2]")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="earlier results (JSON)")
    parser.add_argument("--from", type=Path, metavar="FILE", dest="source",
                        help="report these results (JSON) and run nothing")  # fmt: skip
    parser.add_argument("--publish", action="store_true", help="write docs/performance too")
    return parser.parse_args(arguments)


def _choose(
    known: dict[str, T], wanted: str | None, only: str | None, default: Iterable[str]
) -> list[T]:
    names = list(default)
    if only is not None:
        chosen = [name for name in only.split(",") if name in known]
        names = chosen or names
    if wanted is not None:
        names = wanted.split(",")
    unknown = [name for name in names if name not in known]
    if unknown:
        raise BenchError(f"{unknown[0]!r} is none of {', '.join(known)}")
    return [known[name] for name in names]


def _chosen_servers(options: argparse.Namespace) -> list[Server]:
    default = [server.name for server in servers.SERVERS if server.default]
    chosen = _choose(servers.BY_NAME, options.servers, options.only, default)
    present = []
    for server in chosen:
        missing = server.missing(options.peers_dir)
        if missing is None:
            present.append(server)
        else:
            _tell(f"{server.name} is left out: {Path(missing).name} is not installed")
    return present


def _chosen_workloads(options: argparse.Namespace) -> list[Workload]:
    if options.only is not None:
        both = servers.BY_NAME | workloads.BY_NAME
        for name in options.only.split(","):
            if name not in both:
                raise BenchError(f"{name!r} is none of {', '.join(both)}")
    return _choose(workloads.BY_NAME, options.workloads, options.only, workloads.BY_NAME)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    options = parse(arguments)
    if options.install_peers:
        install(options.peers_dir, _tell)
        return
    if options.list:
        for server in servers.SERVERS:
            print(f"{server.name:16} {server.title}")
        for workload in workloads.WORKLOADS:
            print(f"{workload.name:16} {workload.title}")
        return
    before = read(options.compare) if options.compare else None
    if options.source:
        results = read(options.source)
    else:
        tools = build("wsload", "limit")
        plan = Plan(
            servers=_chosen_servers(options),
            workloads=_chosen_workloads(options),
            rounds=options.rounds or (1 if options.quick else 3),
            seconds=options.seconds or (0.3 if options.quick else 2.0),
            quick=options.quick,
            peers=options.peers_dir,
            wsload=tools["wsload"],
            processors=processors(),
        )
        results = measure(plan, _tell)
        chosen = options.only or options.servers or options.workloads
        partial = options.quick or (chosen and not options.publish)
        _tell(f"written: {write(results, BUILD if partial else RESULTS)}")
    print(report(results, before))
    if options.publish:
        for path in publish(results, DOCS):
            _tell(f"written: {path}")


if __name__ == "__main__":
    try:
        main()
    except BenchError as error:
        sys.exit(f"bench: {error}")
