"""How texts of options are read: each gives a value, or a `ValueError` that says what is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

from realtime.addresses import UNIX
from realtime.errors import ConfigurationError
from realtime.names import is_role
from realtime.origins import Origins
from realtime.redis_url import RedisAddress, read_redis_url
from realtime.token_keys import MIN_SECRET_BYTES


def integer(low: int, high: int) -> Callable[[str], int]:
    """A whole number, `low` to `high`."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,18}", text):
            raise ValueError("is not a whole number")
        value = int(text)
        if not low <= value <= high:
            raise ValueError(f"is not between {low} and {high}")
        return value

    return parse


def number(low: float, high: float) -> Callable[[str], float]:
    """A number, `low` to `high`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise ValueError("is not a number") from None
        if not low <= value <= high:
            raise ValueError(f"is not between {low:g} and {high:g}")
        return value

    return parse


def one_of(*choices: str) -> Callable[[str], str]:
    """One of some words."""

    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"is none of {', '.join(choices)}")
        return text

    return parse


def text(text: str) -> str:
    """Any text that can be shown."""
    if not text or not text.isprintable():
        raise ValueError("is empty or not printable")
    return text


def switch(text: str) -> bool:
    """True or false, in the words that people use for them."""
    if text.lower() not in ("true", "false", "1", "0", "yes", "no", "on", "off"):
        raise ValueError("is neither true nor false")
    return text.lower() in ("true", "1", "yes", "on")


def origin(text: str) -> str:
    """What `Origins` takes."""
    try:
        Origins([text])
    except ConfigurationError:
        raise ValueError("is not an origin: write scheme://host[:port], or * for all") from None
    return text


def role(text: str) -> str:
    """The name of a role."""
    if not is_role(text):
        raise ValueError("is not a role's name")
    return text


def url(text: str) -> str:
    """An address to which requests are sent."""
    try:
        parts = urlsplit(text)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known or not re.fullmatch(r"[!-~]+", text) or "#" in text:
        raise ValueError("is not a URL that begins with http:// or https://")
    return text


def redis_url(text: str) -> RedisAddress:
    """The address of a Redis."""
    return read_redis_url(text)


def secrets(text: str) -> tuple[str, ...]:
    """What signs and verifies tokens: one, or several with white space between them."""
    several = tuple(text.split())
    if not several or any(len(each.encode()) < MIN_SECRET_BYTES for each in several):
        raise ValueError(
            f"has a secret of fewer than {MIN_SECRET_BYTES} bytes (white space separates several)"
        )
    return several


def key_url(text: str) -> str:
    """Where keys are read from: nobody may be able to change them on the way."""
    parts = urlsplit(url(text))
    if "@" in parts.netloc:
        raise ValueError("has a user or password in it")
    if parts.scheme != "https" and not _is_loopback(parts.hostname or ""):
        raise ValueError("does not begin with https://, as it has to unless it is this machine's")
    return text


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def prefix(text: str) -> str:
    """A short text without white space."""
    if not re.fullmatch(r"[!-~]{1,64}", text):
        raise ValueError("is not 1 to 64 characters of ASCII without blanks")
    return text


def proxy(text: str) -> str:
    """An address or network that is a proxy's, or `unix`."""
    if text != UNIX:
        try:
            ip_network(text, strict=False)
        except ValueError:
            raise ValueError("is no address or network, nor unix") from None
    return text
