"""What an attack is, and what it knows of the server that it attacks."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.hostile.wire import Line
from tests.support.server import Server

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Attack:
    """Something done to a server. `run` does it once, and answers what each attacker got.

    All that is in `expected` has to be among that, and nothing that is neither there nor in
    `tolerated`. `options` are the server's. One that `needs_many` does nothing with few.
    """

    name: str
    run: Callable[[Target], Iterable[str]]
    expected: Collection[str]
    tolerated: Collection[str] = ()
    options: Sequence[str] = ()
    needs_many: bool = False

    def verdict(self, got: Iterable[str]) -> str | None:
        """What is wrong with what the attackers got."""
        found = set(got)
        if strange := found - {*self.expected, *self.tolerated}:
            return f"not documented: {', '.join(sorted(strange))}"
        if missing := set(self.expected) - found:
            return f"never seen: {', '.join(sorted(missing))}"
        return None


class Issuer:
    """An issuer of tokens that the servers here trust."""

    def __init__(self) -> None:
        self.key: RSAPrivateKey = generate_private_key(65537, 2048)
        self.public_pem = self.key.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )

    def token(self, user: str, **claims: Any) -> str:
        """A good token of a user, or one with other claims."""
        return jwt.encode({**self.claims(user), **claims}, self.key, "RS256")

    def claims(self, user: str) -> dict[str, Any]:
        """What is in a good token."""
        return {"sub": user, "exp": int(time.time()) + 3600}


class Target:
    """A server under attack. `small` is for the suite: few of everything, and short deadlines."""

    def __init__(self, server: Server, issuer: Issuer, *, small: bool = False) -> None:
        self.server = server
        self.issuer = issuer
        self.small = small
        self.token = issuer.token("mallory")

    def many(self, full: int, small: int) -> int:
        """How many of something."""
        return small if self.small else full

    def line(self, **options: Any) -> Line:
        """Connect."""
        return Line(self.server.port, **options)

    def websocket(self, user: str = "mallory", **options: Any) -> Line:
        """Connect, and open a WebSocket."""
        token = self.token if user == "mallory" else self.issuer.token(user)
        return self.line(**options).upgrade(token)

    def post(self, path: str, body: bytes, *headers: str, version: str = "1.1") -> bytes:
        """A POST of JSON as bytes."""
        return self.request(
            *(f"POST {path} HTTP/{version}", "Content-Type: application/json", *headers),
            body=body,
        )

    def request(self, first: str, *headers: str, body: bytes | None = None) -> bytes:
        """A request with our token as bytes."""
        lines = [first, "Host: server", f"Authorization: Bearer {self.token}", *headers]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")

    def metric(self, name: str) -> int:
        """A number of the server's."""
        _, _, body = self.server.request("GET", "/metrics", Accept="text/plain")
        for line in body.decode().splitlines():
            if line.startswith(f"realtime_{name} "):
                return int(float(line.rpartition(" ")[2]))
        raise AssertionError(f"no metric {name}")


def together(function: Callable[[T], R], things: Sequence[T], most: int = 32) -> list[R]:
    """Do something with each of some things, in threads."""
    if not things:
        return []
    with ThreadPoolExecutor(min(most, len(things))) as pool:
        return list(pool.map(function, things))
