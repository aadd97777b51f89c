"""The regression guard: instructions of the hot paths, which no machine makes noisy.

    python -m bench.instructions            compare with the committed figures
    python -m bench.instructions --update   write this Python's figures

`workload.py` runs in one process under callgrind, which counts from `marker.c`'s begin to its
end only. Each workload runs N and 2N times after a warm-up; the difference over N is the figure,
so that neither start-up nor anything else that happens once is in it.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from bench.machine import BUILD, HERE, ROOT, BenchError

FIGURES = HERE / "instructions.json"
TOLERANCE = 0.05


def _key() -> str:
    """Figures hold for one build of Python on one kind of processor."""
    optimized = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
    return "-".join(
        (
            sys.implementation.name,
            platform.python_version(),
            platform.machine(),
            "optimized" if optimized else "plain",
        )
    )


def _build_marker() -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or shutil.which("valgrind") is None:
        raise BenchError("a C compiler and valgrind are needed (apt-get install gcc valgrind)")
    BUILD.mkdir(exist_ok=True)
    library = BUILD / "marker.so"
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(HERE / "marker.c")]
    if subprocess.run(command, check=False).returncode:
        raise BenchError("marker.c cannot be compiled: are valgrind's headers installed?")
    return library


def count() -> dict[str, int]:
    """Run the workloads under callgrind; answer the instructions of each, once."""
    library = _build_marker()
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        out = Path(directory) / "out"
        command = [
            *("valgrind", "--tool=callgrind", "--quiet", "--instr-atstart=no"),
            f"--callgrind-out-file={out}",
            *(sys.executable, "-m", "bench.instructions", "--inside", str(library)),
        ]
        environment = os.environ | {"PYTHONHASHSEED": "0", "PYTHONMALLOC": "pymalloc"}
        done = subprocess.run(command, cwd=ROOT, env=environment, check=False)
        if done.returncode:
            raise BenchError("the workload has failed under valgrind")
        totals: dict[str, dict[str, int]] = {}
        for file in Path(directory).iterdir():
            text = file.read_text()
            trigger = re.search(r"^desc: Trigger: Client Request: (.*):(N|2N):(\d+)$", text, re.M)
            total = re.search(r"^(?:totals|summary): (\d+)", text, re.M)
            if trigger and total:
                name, run, times = trigger.groups()
                totals.setdefault(name, {})[run] = int(total[1])
                totals[name]["times"] = int(times)
    return {
        name: round((found["2N"] - found["N"]) / found["times"])
        for name, found in sorted(totals.items())
    }


def _inside(library: str) -> None:
    """What runs under valgrind."""
    from bench.workload import WORKLOADS

    marker = ctypes.CDLL(library)
    if not marker.under_valgrind():
        raise BenchError("this only counts under valgrind")
    for name, (prepare, times) in WORKLOADS.items():
        work = prepare()
        work(20)
        gc.collect()
        gc.freeze()
        gc.disable()
        for run, factor in (("N", 1), ("2N", 2)):
            label = f"{name}:{run}:{times}".encode()
            marker.begin()
            work(times * factor)
            marker.end(label)
        gc.enable()


def compare(found: dict[str, int], committed: dict[str, int]) -> list[str]:
    """Print both; answer what has grown, or shrunk, by more than is tolerated."""
    problems = []
    for name in sorted(found.keys() | committed.keys()):
        now, then = found.get(name), committed.get(name)
        if now is None or then is None:
            problems.append(f"{name}: counted {now}, committed {then}")
            continue
        change = now / then - 1
        print(f"{name:10} {now:10,} instructions, committed {then:10,}: {change:+.2%}")
        if change > TOLERANCE:
            problems.append(f"{name} takes {change:.1%} more instructions")
        elif change < -TOLERANCE:
            problems.append(f"{name} takes {-change:.1%} fewer instructions: --update the figure")
    return problems


def main() -> int:
    """Do what the command line says; answer the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.instructions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--update", action="store_true", help="write this Python's figures")
    parser.add_argument("--inside", metavar="LIBRARY", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        _inside(options.inside)
        return 0
    figures = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    found = count()
    if options.update:
        figures[_key()] = found
        FIGURES.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n")
        print(f"{_key()}: {found}")
        return 0
    if _key() not in figures:
        raise BenchError(f"no figures for {_key()}: write them with --update")
    problems = compare(found, figures[_key()])
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as error:
        sys.exit(f"bench: {error}")
