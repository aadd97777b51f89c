"""`python -m realtime tail`, `publish`, `bench` and `doctor`: commands that talk to a server."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from realtime.client import RealtimeClient, RealtimeError
from realtime.doctor import examine
from realtime.errors import ConfigurationError
from realtime.load import Load, put_load
from realtime.settings import TOKEN_VARIABLE, URL_VARIABLE

DEFAULT_URL = "http://localhost:8081"


@dataclass(frozen=True, slots=True)
class Target:
    """A server's address, `http(s)://host:port` without a path, and a token for it."""

    url: str
    token: str | None

    @property
    def ws_url(self) -> str:
        """Where WebSockets connect."""
        return f"ws{self.url.removeprefix('http')}/ws"

    def client(self) -> RealtimeClient:
        """A client, still to be connected, which says where it has to try again."""
        client = RealtimeClient(self.ws_url, self.token)
        again = f"realtime: no connection to {self.ws_url}, trying again"
        client.on("reconnecting", lambda _: print(again, file=sys.stderr))
        return client


Remote: TypeAlias = Callable[[Target, argparse.Namespace], Coroutine[Any, Any, int]]


def add_remote(commands: Any) -> None:
    """Tell the parser of the commands."""

    def add(name: str, run: Remote, help: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = commands.add_parser(name, help=help, description=help)
        parser.add_argument(
            "--url",
            default=os.environ.get(URL_VARIABLE) or DEFAULT_URL,
            help=f"the server [default: {URL_VARIABLE}, or else {DEFAULT_URL}]",
        )
        parser.add_argument(
            "--token-file",
            metavar="FILE",
            help=f"where the access token is; - is standard input [default: {TOKEN_VARIABLE}, or"
            " else one is made by the state directory's key]",
        )
        parser.add_argument(
            "--user", default="admin", metavar="NAME", help="for whom one is made [default: admin]"
        )
        parser.set_defaults(remote=run)
        return parser

    tail = add("tail", _tail, "print what is published on topics, a JSON object a line")
    tail.add_argument("topics", nargs="+", metavar="TOPIC", help="a topic or pattern")
    tail.add_argument(
        "--history", type=int, default=0, metavar="N", help="begin with the newest N of each topic"
    )
    tail.add_argument("--count", type=int, metavar="N", help="end after so many")

    publish = add("publish", _publish, "publish on a topic")
    publish.add_argument("topic", metavar="TOPIC")
    publish.add_argument(
        "payload",
        metavar="PAYLOAD",
        help="JSON; - reads a payload from each line of standard input",
    )
    publish.add_argument("--text", action="store_true", help="payloads are texts, not JSON")

    bench = add("bench", _bench, "load a server with a fan-out, and print what it did")
    for name, default, help in (
        ("connections", 100, "how many subscribe"),
        ("rate", 10.0, "publications a second"),
        ("seconds", 10.0, "for how long"),
        ("size", 128, "bytes of a payload"),
    ):
        bench.add_argument(
            f"--{name}", type=type(default), default=default, metavar="N",
            help=f"{help} [default: {default:g}]",
        )  # fmt: skip
    bench.add_argument(
        "--topic", default="bench.load", help="what they subscribe to [default: bench.load]"
    )

    doctor = add("doctor", _doctor, "check a running server as a user would, and say what is wrong")
    doctor.add_argument("--origin", help="check that pages of this origin may connect")


def run_remote(given: argparse.Namespace, make_token: Callable[[str], str | None]) -> int:
    """Run one of the commands. `make_token` makes a token for a user, where there is a key."""
    url = given.url.rstrip("/").removesuffix("/ws")
    scheme, separator, rest = url.partition("://")
    try:
        urlsplit(url).port  # noqa: B018
    except ValueError:
        separator = ""
    if not separator or scheme not in ("http", "https", "ws", "wss") or not rest:
        raise ConfigurationError(f"--url {given.url!r} is not http://host:port")
    if scheme.startswith("ws"):
        url = f"http{url.removeprefix('ws')}"
    token = _token(given, make_token)
    run: Remote = given.remote
    try:
        return asyncio.run(run(Target(url, token), given))
    except RealtimeError as error:
        raise ConfigurationError(str(error)) from None


def _token(given: argparse.Namespace, make_token: Callable[[str], str | None]) -> str | None:
    try:
        if given.token_file == "-":
            return sys.stdin.readline().strip()
        if given.token_file is not None:
            return Path(given.token_file).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"--token-file: {error}") from None
    return os.environ.get(TOKEN_VARIABLE) or make_token(given.user)


def _need_token(target: Target) -> None:
    if target.token is None:
        raise ConfigurationError(
            f"a token is needed: {TOKEN_VARIABLE}, --token-file, or --state of a server's key"
        )


async def _tail(target: Target, given: argparse.Namespace) -> int:
    _need_token(target)
    left = given.count if given.count is not None else -1
    async with target.client() as client:
        client.on("gap", lambda data: print(json.dumps({"gap": data["topics"]}), file=sys.stderr))
        subscription = client.subscribe(given.topics)
        # What comes meanwhile waits.
        messages = aiter(subscription)
        statuses = await subscription
        for status in statuses if given.history else ():
            page = await client.history(status["topic"], limit=given.history, reverse=True)
            for entry in reversed(page["publications"]):
                if entry["offset"] <= status.get("offset", 0):
                    _print({"topic": status["topic"], **entry})
        while left != 0:
            message = {
                name: v for name, v in asdict(await anext(messages)).items() if v is not None
            }
            _print(message)
            left -= 1
    return 0


def _print(message: dict[str, Any]) -> None:
    print(json.dumps(message, ensure_ascii=False), flush=True)


async def _publish(target: Target, given: argparse.Namespace) -> int:
    _need_token(target)
    texts: Iterable[str] = [given.payload]
    if given.payload == "-":
        texts = (line.rstrip("\r\n") for line in sys.stdin)
        # Else asyncio would let reading go on until the second Ctrl-C.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    text = ""
    async with target.client() as client:
        try:
            for text in texts:
                payload = text if given.text else json.loads(text)
                _print(await client.broadcast(given.topic, payload))
        except UnicodeError:
            raise ConfigurationError("a payload is not UTF-8") from None
        except ValueError:
            problem = f"{text[:40]!r} is not JSON; --text publishes it as a text"
            raise ConfigurationError(problem) from None
    return 0


async def _bench(target: Target, given: argparse.Namespace) -> int:
    _need_token(target)
    assert target.token is not None  # noqa: S101
    if given.connections < 1 or not (0 < given.rate < inf and 0 < given.seconds < inf):
        raise ConfigurationError("--connections, --rate and --seconds are more than 0")
    load = Load(given.connections, given.rate, given.seconds, given.size, given.topic)
    report = await put_load(target.ws_url, target.token, load)
    for name, value in report.items():
        print(f"{name:<28} {value}")
    return 0 if report["lost"] == 0 and report["errors"] == 0 else 1


async def _doctor(target: Target, given: argparse.Namespace) -> int:
    good = True
    async for finding in examine(target.url, target.ws_url, target.token, given.origin):
        print(f"{finding.mark:<5} {finding.text}", flush=True)
        good &= finding.mark != "FAIL"
    return 0 if good else 1
