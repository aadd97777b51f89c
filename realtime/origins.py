"""Which web origins may use the server: one allow-list for CORS and for `/ws`. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from realtime.errors import ConfigurationError

_DEFAULT_PORTS = {"http": 80, "https": 443}


class Origins:
    """The origins allowed, as browsers write them (`https://chat.example`), or `*` for all.

    A request without an `Origin` header comes from no web page and is always allowed.
    Raises `ConfigurationError` for what is no origin.
    """

    def __init__(self, allowed: Iterable[str]) -> None:
        origins = set(allowed)
        self.everything = "*" in origins
        self._allowed = {_checked(origin) for origin in origins - {"*"}}

    def become(self, other: Origins) -> None:
        """Allow from now on what `other` does."""
        self.__dict__.update(other.__dict__)

    def allows(self, origin: str | None, host: str | None = None) -> bool:
        """Whether a page of `origin` may use the server.

        A page that the server serves itself, whose origin is the request's `Host`, always may.
        """
        if self.everything or origin is None:
            return True
        if not origin.isascii():  # as no browser writes it
            return False
        normal = _normal(origin)
        if normal is None:
            return origin in self._allowed  # "null"
        return normal in self._allowed or (
            host is not None and normal == _normal(f"{normal.partition(':')[0]}://{host}")
        )


def _checked(origin: str) -> str:
    normal = origin if origin == "null" else _normal(origin)
    if normal is None:
        raise ConfigurationError(
            f"{origin!r} is not an origin: write scheme://host[:port], or * for all"
        )
    return normal


def _normal(origin: str) -> str | None:
    """One spelling of an origin: lower case, without the scheme's own port; None for others."""
    try:
        parts = urlsplit(origin.lower())
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not parts.scheme or not host or parts.username is not None:
        return None
    if parts.path not in ("", "/") or parts.query or parts.fragment or not origin.isprintable():
        return None
    if ":" in host:
        host = f"[{host}]"
    if port is None or port == _DEFAULT_PORTS.get(parts.scheme):
        return f"{parts.scheme}://{host}"
    return f"{parts.scheme}://{host}:{port}"
