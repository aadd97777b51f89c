"""What may be said of the machine: its class, and how its processors are shared out."""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BUILD = HERE / "build"
RESULTS = HERE / "results"
DOCS = ROOT / "docs" / "performance"


class BenchError(Exception):
    """Something that the person at the keyboard has to mend; its text says what."""


@dataclass(frozen=True, slots=True)
class Processors:
    """The processor that servers are pinned to, and the load generator's."""

    server: int
    generator: int


def processors() -> Processors:
    """The first and the last processor that we may use."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise BenchError("two processors are needed: one for the server, one for the generator")
    return Processors(allowed[0], allowed[-1])


def open_files() -> int:
    """How many files a process may open here (hard limit)."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def machine_class() -> str:
    """Processor, memory and kernel; nothing that names this very machine."""
    info = Path("/proc/cpuinfo").read_text()
    found = re.search(r"^model name\s*:\s*(.*)$", info, re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    gigabytes = round(int(memory[1]) / 1024**2) if memory else 0
    kernel = ".".join(platform.release().split(".")[:2])
    kind = "virtual machine" if "hypervisor" in info else "machine"
    return (
        f"{kind} with {os.cpu_count()} processors ({found[1] if found else platform.machine()}), "
        f"{gigabytes} GB, Linux {kernel}, Python {platform.python_version()}"
    )


def build(*names: str) -> dict[str, Path]:
    """Compile the C tools that are older than their source; answer where they are."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise BenchError("a C compiler is needed (Debian: apt-get install gcc libc6-dev)")
    BUILD.mkdir(exist_ok=True)
    tools = {}
    for name in names:
        source, tool = HERE / f"{name}.c", BUILD / name
        if not tool.exists() or tool.stat().st_mtime < source.stat().st_mtime:
            subprocess.run([compiler, "-O2", "-Wall", "-o", tool, source, "-lm"], check=True)
        tools[name] = tool
    return tools
