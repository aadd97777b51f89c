"""Installing the peers, outside the repository, and asking which versions there are."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

from bench.servers import Server

_PIP = {
    "venv": (
        *("autobahn[twisted]", "websockets", "picows", "uvloop", "aiohttp"),
        *("channels", "daphne", "django", "python-socketio", "uvicorn"),
    ),
    # It pins what it needs, so it lives alone.
    "crossbar": ("crossbar",),
}
_NPM = ("ws", "socket.io")
_DEBIAN = ("nginx", "libnginx-mod-nchan", "nats-server")


def install(peers: Path, tell: Callable[[str], None]) -> None:
    """Install all that needs no administrator; say what is left to do."""
    peers.mkdir(parents=True, exist_ok=True)
    for name, packages in _PIP.items():
        tell(f"installing {', '.join(packages)}")
        directory = peers / name
        if not (directory / "bin/python").exists():
            venv.create(directory, with_pip=True)
        command = [str(directory / "bin/python"), "-m", "pip", "install", "--quiet", "--upgrade"]
        if subprocess.run([*command, *packages], check=False).returncode:
            tell(f"{name} could not be installed: its servers will be left out")
    npm = shutil.which("npm")
    if npm is None:
        tell("npm is not there: ws and Socket.IO will be left out")
    else:
        tell(f"installing {', '.join(_NPM)}")
        node = peers / "node"
        node.mkdir(exist_ok=True)
        (node / "package.json").write_text('{"private": true}\n')
        subprocess.run([npm, "install", "--no-fund", "--no-audit", *_NPM], cwd=node, check=False)
    tell(f"the rest is Debian's: apt-get install {' '.join(_DEBIAN)}")


def versions(server: Server, peers: Path) -> dict[str, str]:
    """The versions of a server's packages."""
    found = {}
    for where, packages in server.packages.items():
        for package in packages:
            version = _version(where, package, peers)
            if version:
                found[package] = version
    return found


def _version(where: str, package: str, peers: Path) -> str:
    if where == "debian":
        return _output("dpkg-query", "-W", "-f", "${Version}", package)
    if where == "node":
        described = peers / "node/node_modules" / package / "package.json"
        return str(json.loads(described.read_text())["version"])
    ask = f"import importlib.metadata as m; print(m.version({package!r}))"
    return _output(str(peers / where / "bin/python"), "-c", ask)


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit("use: python -m bench --install-peers")
