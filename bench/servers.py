"""The table of servers: how each is installed and started, and how wsload speaks with it.

In wsload's templates %d is a connection's number, %m its partner's, %t a topic's, %p the
payload, %l the payload's length and %L the connection's token.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bench.machine import HERE, ROOT, open_files
from bench.tokens import write_tokens

PEERS = HERE / "peers"
# Users that have a token; more connections than that share them.
USERS = 20_001


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server is to run: its ports, a directory of its own, the installed peers."""

    port: int
    port2: int
    directory: Path
    peers: Path

    @property
    def tokens(self) -> Path:
        """The file of tokens that our own server accepts."""
        return self.directory / "tokens"


@dataclass(frozen=True, slots=True)
class Dialect:
    """What wsload is told, by kind of work; work that a server has no means for is empty."""

    # Connect, and subscribe to topic t%t.
    join: tuple[str, ...]
    # Publish on topic t%t from a connection of its own.
    publish: tuple[str, ...]
    # Connect, subscribe to a topic of one's own and publish there.
    echo: tuple[str, ...]
    # Connect, and send to the partner %m alone.
    direct: tuple[str, ...]
    # Connect, send the application's Ping, and know its Pong.
    ping: tuple[str, ...] = ()
    # For all of these.
    common: tuple[str, ...] = ()
    # Whether each topic needs a publisher of its own.
    publisher_per_topic: bool = False


@dataclass(frozen=True, slots=True)
class Server:
    """One server. `command` may write files into its place; the result is what to execute."""

    name: str
    title: str
    kind: Literal["limit", "ours", "library", "server"]
    dialect: Dialect
    command: Callable[[Place], list[str | Path]]
    # The executable without which it cannot run, relative to the directory of peers.
    needs: str | Path
    # Its packages, whose versions are reported, by the installation they are in.
    packages: dict[str, tuple[str, ...]] = field(default_factory=dict)
    # Whether it is so slow that it gets less to do: costs are per message all the same.
    slow: bool = False
    # Whether it takes part unless asked for by name.
    default: bool = True

    def missing(self, peers: Path) -> str | None:
        """What is not installed, if anything."""
        needed = peers / self.needs
        if needed.exists() or shutil.which(self.needs) or shutil.which(self.needs, path=_SBIN):
            return None
        return str(self.needs)


_SBIN = os.pathsep.join(("/usr/sbin", "/usr/local/sbin", "/sbin"))


def _fill(source: str, place: Place, name: str) -> Path:
    text = (PEERS / source).read_text()
    values = {
        "@PORT@": place.port,
        "@PORT2@": place.port2,
        "@DIR@": place.directory,
        "@FILES@": open_files(),
    }
    for key, value in values.items():
        text = text.replace(key, str(value))
    target = place.directory / name
    target.write_text(text)
    return target


# -- ours --------------------------------------------------------------------------------------


def our_command(*options: str, probe: bool = False) -> Callable[[Place], list[str | Path]]:
    """How our server is started; with `probe` it notes its pauses in the file `pauses`."""

    def command(place: Place) -> list[str | Path]:
        secret = place.directory / "secret"
        write_tokens(secret, place.tokens, USERS)
        start: tuple[str, ...] = ("-c", "from twisted.scripts.twistd import run; run()")
        if probe:
            start = ("-m", "bench.probe", str(place.directory / "pauses"))
        return [
            *(sys.executable, *start, "--nodaemon", "--pidfile="),
            "realtime",
            *("--host", "127.0.0.1", "--port", str(place.port)),
            *("--state", place.directory / "state", "--secret-file", secret),
            *("--message-rate", "1000000", "--message-burst", "1000000"),
            *("--max-connections", "100000"),
            *options,
        ]

    return command


_OURS = Dialect(
    common=("--path", "/ws", "--header", "Authorization: Bearer %L"),
    join=("--sub", '{"type":"Subscribe","data":{"topics":["t%t"]}}', "--ack", "2"),
    publish=(
        *("--pub-path", "/ws"),
        *("--pub", '{"type":"Broadcast","data":{"topic":"t%t","payload":"%p"}}'),
    ),
    echo=(
        *("--sub", '{"type":"Subscribe","data":{"topics":["e%d"]}}', "--ack", "2"),
        *("--pub", '{"type":"Broadcast","data":{"topic":"e%d","payload":"%p"}}'),
    ),
    direct=(
        *("--ack", "1"),
        *("--pub", '{"type":"DirectMessage","data":{"target_user":"u%m","payload":"%p"}}'),
    ),
    ping=(
        *("--ack", "1"),
        *("--pub", '{"type":"Ping","data":{"timestamp":1758800000000}}'),
        *("--pong", '{"type":"Pong"'),
    ),
)

# -- the limit ---------------------------------------------------------------------------------

_LIMIT = Dialect(
    join=("--path", "/sub/%t"),
    publish=("--pub-path", "/pub", "--pub", "%06t%p"),
    echo=("--path", "/echo", "--pub", "%p"),
    direct=("--path", "/sub/%d", "--pub", "%06m%p"),
    ping=("--path", "/echo", "--pub", "ping", "--pong", "ping"),
)

# -- libraries: one small protocol of our own, in each library's own style ------------------------

_SMALL = Dialect(
    common=("--path", "/?user=u%d"),
    join=("--sub", '{"op":"subscribe","topic":"t%t"}', "--ack", "1"),
    publish=(
        *("--pub-path", "/?user=publisher"),
        *("--pub", '{"op":"publish","topic":"t%t","data":"%p"}'),
    ),
    echo=(
        *("--sub", '{"op":"subscribe","topic":"e%d"}', "--ack", "1"),
        *("--pub", '{"op":"publish","topic":"e%d","data":"%p"}'),
    ),
    direct=("--pub", '{"op":"direct","user":"u%m","data":"%p"}'),
    ping=("--pub", '{"op":"ping"}', "--pong", '{"op":'),
)


def _python(script: str) -> Callable[[Place], list[str | Path]]:
    return lambda place: [place.peers / "venv/bin/python", PEERS / script, str(place.port)]


def _daphne(place: Place) -> list[str | Path]:
    return [
        *("env", f"PYTHONPATH={PEERS}"),
        place.peers / "venv/bin/daphne",
        *("--bind", "127.0.0.1", "--port", str(place.port), "--verbosity", "0"),
        "channels_server:application",
    ]


def _node(script: str) -> Callable[[Place], list[str | Path]]:
    return lambda place: [
        "env",
        f"PEER_MODULES={place.peers / 'node'}",
        "node",
        PEERS / script,
        str(place.port),
    ]


# -- Socket.IO: Engine.IO frames begin with a digit, Socket.IO's with another ---------------------

_SOCKET_IO = Dialect(
    common=(
        *("--path", "/socket.io/?EIO=4&transport=websocket&user=u%d"),
        *("--reply", "2=3", "--sub", "@1:40"),
    ),
    join=("--sub", '@2:420["subscribe","t%t"]', "--ack", "3"),
    publish=(
        *("--pub-path", "/socket.io/?EIO=4&transport=websocket&user=publisher"),
        *("--pub-init", "@1:40", "--pub", '42["publish","t%t","%p"]'),
    ),
    echo=(
        *("--sub", '@2:420["subscribe","e%d"]', "--ack", "3"),
        *("--pub", '42["publish","e%d","%p"]'),
    ),
    direct=("--ack", "2", "--pub", '42["direct","u%m","%p"]'),
    ping=("--ack", "2", "--pub", '42["ping_"]', "--pong", '42["pong_"'),
)

# -- nchan, nats, Crossbar -------------------------------------------------------------------------

_NCHAN = Dialect(
    join=("--path", "/sub/t%t"),
    publish=("--pub-path", "/pub/t%t", "--pub", "%p"),
    echo=("--path", "/pubsub/e%d", "--pub", "%p"),
    direct=("--path", "/direct/d%d/d%m", "--pub", "%p"),
    publisher_per_topic=True,
)

_NATS_HELLO = r'@1:CONNECT {"verbose":false,"pedantic":false,"protocol":1}\r\n'
_NATS = Dialect(
    common=("--path", "/", "--binary", "--reply", "PING\r\n=PONG\r\n", "--sub", _NATS_HELLO),
    join=("--sub", r"@1:SUB t%t 1\r\nPING\r\n", "--ack", "2"),
    publish=("--pub-path", "/", "--pub-init", _NATS_HELLO, "--pub", r"PUB t%t %l\r\n%p\r\n"),
    echo=(
        *("--sub", r"@1:SUB e%d 1\r\nPING\r\n", "--ack", "2"),
        *("--pub", r"PUB e%d %l\r\n%p\r\n"),
    ),
    direct=(
        *("--sub", r"@1:SUB d%d 1\r\nPING\r\n", "--ack", "2"),
        *("--pub", r"PUB d%m %l\r\n%p\r\n"),
    ),
    ping=("--sub", r"@1:PING\r\n", "--ack", "2", "--pub", r"PING\r\n", "--pong", "PONG"),
)

_WAMP_HELLO = (
    '[1,"bench",{"roles":{"publisher":{"features":{"publisher_exclusion":true}},"subscriber":{}}}]'
)
_CROSSBAR = Dialect(
    common=("--path", "/", "--subprotocol", "wamp.2.json", "--sub", _WAMP_HELLO),
    join=("--sub", '@1:[32,1,{},"t%t"]', "--ack", "2"),
    publish=("--pub-path", "/", "--pub-init", _WAMP_HELLO, "--pub", '[16,%d,{},"t%t",["%p"]]'),
    echo=(
        *("--sub", '@1:[32,1,{},"e%d"]', "--ack", "2"),
        *("--pub", '[16,1,{"exclude_me":false},"e%d",["%p"]]'),
    ),
    direct=("--sub", '@1:[32,1,{},"d%d"]', "--ack", "2", "--pub", '[16,1,{},"d%m",["%p"]]'),
)


def _crossbar(place: Place) -> list[str | Path]:
    directory = place.directory / ".crossbar"
    directory.mkdir()
    _fill("crossbar.json", place, ".crossbar/config.json")
    return [
        place.peers / "crossbar/bin/crossbar",
        *("start", "--cbdir", directory, "--loglevel", "warn"),
    ]


SERVERS: tuple[Server, ...] = (
    Server(
        "limit",
        "C limit",
        "limit",
        _LIMIT,
        lambda place: [HERE / "build/limit", str(place.port)],
        HERE / "limit.c",
    ),
    Server("ours", "realtime-server", "ours", _OURS, our_command(), ROOT / "realtime"),
    Server(
        "ours-public",
        "realtime-server, public API path",
        "ours",
        _OURS,
        our_command("--fast-path", "false"),
        ROOT / "realtime",
        default=False,
    ),
    Server(
        "picows",
        "picows",
        "library",
        _SMALL,
        _python("picows_server.py"),
        "venv/bin/python",
        {"venv": ("picows", "uvloop")},
    ),
    Server(
        "ws",
        "ws (Node)",
        "library",
        _SMALL,
        _node("ws_server.mjs"),
        "node/node_modules/ws",
        {"node": ("ws",)},
    ),
    Server(
        "aiohttp",
        "aiohttp",
        "library",
        _SMALL,
        _python("aiohttp_server.py"),
        "venv/bin/python",
        {"venv": ("aiohttp", "uvloop")},
    ),
    Server(
        "websockets",
        "websockets",
        "library",
        _SMALL,
        _python("websockets_server.py"),
        "venv/bin/python",
        {"venv": ("websockets",)},
    ),
    Server(
        "autobahn",
        "Autobahn, naive",
        "library",
        _SMALL,
        _python("autobahn_naive.py"),
        "venv/bin/python",
        {"venv": ("autobahn", "Twisted")},
    ),
    Server(
        "nchan",
        "nchan",
        "server",
        _NCHAN,
        lambda place: ["nginx", "-c", _fill("nchan.conf", place, "nginx.conf")],
        "/usr/lib/nginx/modules/ngx_nchan_module.so",
        {"debian": ("nginx", "libnginx-mod-nchan")},
    ),
    Server(
        "nats",
        "nats-server",
        "server",
        _NATS,
        lambda place: ["nats-server", "-c", _fill("nats.conf", place, "nats.conf")],
        "nats-server",
        {"debian": ("nats-server",)},
    ),
    Server(
        "socketio",
        "Socket.IO (Node)",
        "server",
        _SOCKET_IO,
        _node("socketio_server.mjs"),
        "node/node_modules/socket.io",
        {"node": ("socket.io",)},
    ),
    Server(
        "crossbar",
        "Crossbar",
        "server",
        _CROSSBAR,
        _crossbar,
        "crossbar/bin/crossbar",
        {"crossbar": ("crossbar",)},
        slow=True,
    ),
    Server(
        "python-socketio",
        "python-socketio",
        "library",
        _SOCKET_IO,
        _python("socketio_server.py"),
        "venv/bin/python",
        {"venv": ("python-socketio", "uvicorn")},
        slow=True,
    ),
    Server(
        "channels",
        "Channels with Daphne",
        "server",
        _SMALL,
        _daphne,
        "venv/bin/daphne",
        {"venv": ("channels", "daphne")},
        slow=True,
    ),
)

BY_NAME = {server.name: server for server in SERVERS}
