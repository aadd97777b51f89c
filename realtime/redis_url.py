"""The addresses of Redis servers, as `--redis` takes them. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

DEFAULT_PORT: Final = 6379
SENTINEL_PORT: Final = 26379
_SCHEMES: Final = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel")
# The names that other clients of Redis have for these.
_QUERY: Final = ("db", "ssl_cert_reqs", "ssl_ca_certs")


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where a Redis is, and what it wants to be told.

    `hosts` are those of its sentinels where there is a `service`. `path` is a Unix socket.
    """

    hosts: tuple[tuple[str, int], ...] = ()
    path: str | None = None
    service: str | None = None
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    # Whether a server's certificate is verified, and by which file of authorities, if not the
    # system's.
    verify: bool = True
    authorities: str | None = None

    @property
    def server(self) -> tuple[object, ...]:
        """What names the server: databases share its channels."""
        return self.hosts, self.path, self.service

    def __str__(self) -> str:
        """It for people, without what is secret."""
        where = self.path or ",".join(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts
        )
        return f"{where}/{self.service}" if self.service else where


def read_redis_url(text: str) -> RedisAddress:
    """Read one address; raises `ValueError` that says what is wrong, and shows nothing of it.

    `redis://[[user]:password@]host[:port][/db]`; `rediss://` for TLS; `unix:///path[?db=N]`;
    `redis+sentinel://[...@]host[:port][,host[:port]...]/service[/db]`.
    """
    parts = urlsplit(text)
    if parts.scheme not in _SCHEMES or parts.fragment:
        raise ValueError(f"does not begin with {'://, '.join(_SCHEMES)}://")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(set(query) - set(_QUERY))
    if unknown:
        raise ValueError(f"has parameters other than {', '.join(_QUERY)}")
    username, password, hosts = _authority(parts.netloc)
    path, service, db = parts.path, None, query.get("db", "")
    if parts.scheme == "unix":
        if hosts or not path:
            raise ValueError("is not unix:///path/of/the/socket")
    else:
        names = [unquote(name) for name in path.split("/")[1:]]
        if parts.scheme.endswith("sentinel"):
            service = names.pop(0) if names else ""
            if not service:
                raise ValueError("does not name the service that the sentinels watch")
        db = db or (names.pop(0) if names else "")
        if names:
            raise ValueError("has a longer path than a database's number")
        path = ""
    if not re.fullmatch("[0-9]{0,6}", db):
        raise ValueError("has a database that is no number")
    verify = query.get("ssl_cert_reqs", "required")
    if verify not in ("required", "none"):
        raise ValueError("has an ssl_cert_reqs that is neither required nor none")
    return RedisAddress(
        hosts=_hosts(hosts, SENTINEL_PORT if service else DEFAULT_PORT, many=bool(service))
        if not path
        else (),
        path=path or None,
        service=service,
        db=int(db or 0),
        username=username,
        password=password,
        tls=parts.scheme.startswith("rediss"),
        verify=verify == "required",
        authorities=query.get("ssl_ca_certs") or None,
    )


def _authority(text: str) -> tuple[str | None, str | None, str]:
    """User, password and hosts."""
    login, _, hosts = text.rpartition("@")
    username, _, password = login.partition(":")
    return unquote(username) or None, unquote(password) or None, hosts


def _hosts(text: str, port: int, *, many: bool) -> tuple[tuple[str, int], ...]:
    texts = text.split(",")
    if len(texts) > 1 and not many:
        raise ValueError("names several hosts: give an address to each")
    hosts = []
    for each in texts:
        parts = urlsplit(f"//{each}")
        try:
            hosts.append((parts.hostname or "localhost", parts.port or port))
        except ValueError:
            raise ValueError("has a port that is no number") from None
    return tuple(hosts)
