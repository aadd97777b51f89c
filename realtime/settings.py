"""Every option of the server, in one table.

From it come the flags of `twistd realtime`, the environment variables, the keys of the TOML file,
the manual, and the frozen `Settings`. A flag wins over the environment, that over the file, and
that over the default.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal

from realtime import parse
from realtime.errors import ConfigurationError
from realtime.model import Namespace
from realtime.namespaces import read_namespaces

PREFIX: Final = "REALTIME_"
# What Kubernetes and Docker set beside a service called "realtime", or "realtime-redis".
_LINK: Final = re.compile(
    r"REALTIME(_\w+)?_((SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)=.*"
    r"|PORT=(tcp|udp|sctp)://.*)"
)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the options say, and the file's rules of topics.

    Times are seconds, sizes bytes, rates a second.
    """

    host: str
    port: int
    state: str
    max_connections: int
    max_frame_size: int
    max_queue_bytes: int
    max_subscriptions: int
    message_rate: float
    message_burst: float
    heartbeat_interval: int
    client_timeout: int
    shutdown_timeout: int
    origin: tuple[str, ...]
    connect_role: tuple[str, ...]
    on_token_expiry: Literal["close", "keep"]
    access_token_ttl: int
    refresh_token_ttl: int
    rotate_refresh_tokens: bool
    login_rate: float
    login_burst: float
    strict_topics: bool
    history_bytes: int
    presence_grace: int
    secret_file: str | None
    jwt_algorithm: str | None
    jwt_public_key: str | None
    issuer: str | None
    audience: str | None
    fast_path: bool
    topics: tuple[Namespace, ...]


@dataclass(frozen=True, slots=True)
class Option:
    """One option. `parse` makes a value of its text, or raises `ValueError` with what is wrong."""

    name: str
    metavar: str
    default: Any
    help: str
    parse: Callable[[str], Any]
    repeatable: bool = False
    # A further environment variable, as platforms set it.
    environment: str | None = None

    @property
    def key(self) -> str:
        """Its name in `Settings`."""
        return self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return PREFIX + self.key.upper()

    @property
    def is_flag(self) -> bool:
        """Whether it takes no value on the command line."""
        return self.default is False

    def manual(self) -> str:
        """Its line in the manual."""
        if self.is_flag or self.default in (None, ()):
            return self.help
        shown = ", ".join(self.default) if self.repeatable else str(self.default).lower()
        if self.metavar in ("SECONDS", "BYTES"):
            shown += f" {self.metavar.lower()}"
        return f"{self.help} [default: {shown}]"


_DAY: Final = 86400

OPTIONS: Final[tuple[Option, ...]] = (
    Option("host", "ADDRESS", "0.0.0.0", "Address to listen on.", parse.text),  # noqa: S104
    Option(
        "port",
        "PORT",
        8081,
        "Port to listen on; 0 takes a free one.",
        parse.integer(0, 65535),
        environment="PORT",
    ),
    Option(
        "state",
        "DIR",
        "realtime-state",
        "Directory of the signing key and the database; made if need be.",
        parse.text,
    ),
    Option(
        "max-connections",
        "N",
        10_000,
        "WebSockets open at once; more get 503.",
        parse.integer(1, 10_000_000),
    ),
    Option(
        "max-frame-size",
        "BYTES",
        65536,
        "Largest message a client may send.",
        parse.integer(1024, 16 * 1024 * 1024),
    ),
    Option(
        "max-queue-bytes",
        "BYTES",
        1024 * 1024,
        "Bytes that may wait for a client that reads slowly; with more it is closed (4002).",
        parse.integer(65536, 1024**3),
    ),
    Option(
        "max-subscriptions",
        "N",
        2000,
        "Topics that one connection may subscribe to.",
        parse.integer(1, 1_000_000),
    ),
    Option(
        "message-rate",
        "N",
        1000.0,
        "Messages a second that a connection may send.",
        parse.number(0.01, 1e9),
    ),
    Option(
        "message-burst", "N", 2000.0, "Messages that it may send at once.", parse.number(1, 1e9)
    ),
    Option(
        "heartbeat-interval",
        "SECONDS",
        30,
        "How often each client is pinged.",
        parse.integer(1, _DAY),
    ),
    Option(
        "client-timeout",
        "SECONDS",
        60,
        "Silence after which a client is closed (4003).",
        parse.integer(2, _DAY),
    ),
    Option(
        "shutdown-timeout",
        "SECONDS",
        5,
        "How long clients have to answer the closing handshake when the server stops.",
        parse.integer(0, 8),
    ),
    Option(
        "origin",
        "ORIGIN",
        ("*",),
        "Origin of pages that may use the server, for CORS and "
        "WebSockets alike; * allows all. Repeatable.",
        parse.origin,
        repeatable=True,
    ),
    Option(
        "connect-role",
        "ROLE",
        (),
        "Role that may connect; others get 403. Repeatable; without it every role may.",
        parse.role,
        repeatable=True,
    ),
    Option(
        "on-token-expiry",
        "close|keep",
        "close",
        "What becomes of a connection whose token expires.",
        parse.one_of("close", "keep"),
    ),
    Option(
        "access-token-ttl",
        "SECONDS",
        3600,
        "Life of an access token.",
        parse.integer(10, 365 * _DAY),
    ),
    Option(
        "refresh-token-ttl",
        "SECONDS",
        30 * _DAY,
        "Life of a refresh token.",
        parse.integer(60, 365 * _DAY),
    ),
    Option(
        "rotate-refresh-tokens",
        "",
        False,
        "Give a new refresh token at each refresh; one used twice ends its session.",
        parse.switch,
    ),
    Option(
        "login-rate",
        "N",
        0.1,
        "Logins a second of a user from an address (of IPv6, a /64 network); ten times that per "
        "address, twenty times per user. Behind a proxy all clients have the proxy's address.",
        parse.number(0.001, 1e6),
    ),
    Option(
        "login-burst",
        "N",
        10.0,
        "Logins at once of a user from an address; ten and twenty times that as for --login-rate.",
        parse.number(1, 1e6),
    ),
    Option(
        "strict-topics",
        "",
        False,
        "Refuse topics that no [[topic]] rule of the file names.",
        parse.switch,
    ),
    Option(
        "history-bytes",
        "BYTES",
        256 * 1024 * 1024,
        "Bytes of publications kept in memory for history and recovery.",
        parse.integer(65536, 1024**4),
    ),
    Option(
        "presence-grace",
        "SECONDS",
        5,
        "How long a user may be gone before Leave is announced; 0 announces at once.",
        parse.integer(0, 3600),
    ),
    Option(
        "secret-file",
        "FILE",
        None,
        "The secret that signs tokens, 32 bytes or more. "
        "Without it one is made in the state directory.",
        parse.text,
    ),
    Option(
        "jwt-algorithm",
        "RS256|ES256|EdDSA",
        None,
        "Algorithm of another issuer's tokens.",
        parse.one_of("RS256", "ES256", "EdDSA"),
    ),
    Option("jwt-public-key", "FILE", None, "That issuer's public key (PEM).", parse.text),
    Option("issuer", "TEXT", None, "The iss that every token must have.", parse.text),
    Option("audience", "TEXT", None, "The aud that every token must have.", parse.text),
    Option(
        "fast-path",
        "true|false",
        True,
        "Serve on the quick path where this Python, Twisted and Autobahn allow it.",
        parse.switch,
    ),
)
_BY_NAME: Final = {option.name: option for option in OPTIONS}
# The key of the file that is no option: its rules of topics, [[topic]] tables.
_TOPIC: Final = "topic"


def read_settings(
    flags: Mapping[str, Any], environ: Mapping[str, str], config: str | None = None
) -> Settings:
    """Put the sources together; raises `ConfigurationError` that names what is wrong.

    `flags` has texts, a list of them where the option is repeatable, or 1 for a set switch.
    """
    environ = {name: v for name, v in environ.items() if not _LINK.fullmatch(f"{name}={v}")}
    config = config or environ.get(f"{PREFIX}CONFIG") or None
    file = _read_file(config) if config else {}
    unknown = {name for name in environ if name.startswith(PREFIX)} - {
        f"{PREFIX}CONFIG",
        *(option.variable for option in OPTIONS),
    }
    if unknown:
        raise ConfigurationError(f"unknown option {min(unknown)} in the environment")
    values = {option.key: _value(option, flags, environ, file, config) for option in OPTIONS}
    topics = read_namespaces(file[_TOPIC], str(config)) if _TOPIC in file else ()
    settings = Settings(**values, topics=topics)
    _check_together(settings)
    return settings


def _value(
    option: Option,
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
    file: Mapping[str, Any],
    config: str | None,
) -> Any:
    if option.name in flags:
        return _parse(option, flags[option.name], f"--{option.name}")
    for variable in (option.variable, option.environment):
        if variable is not None and environ.get(variable, "") != "":
            text: Any = environ[variable]
            if option.repeatable:
                text = [part.strip() for part in text.split(",")]
            return _parse(option, text, variable)
    if option.name in file:
        return _parse(option, file[option.name], f"{option.name} in {config}")
    return option.default


def _parse(option: Option, value: Any, source: str) -> Any:
    try:
        if option.repeatable:
            if isinstance(value, list) and all(isinstance(one, str) for one in value):
                single = replace(option, repeatable=False)
                return tuple(_parse(single, one, source) for one in value)
            raise ValueError("is not a list of texts")
        if isinstance(value, bool | int | float):
            value = str(value)
        if not isinstance(value, str):
            raise ValueError("is of the wrong type")
        return option.parse(value)
    except ValueError as error:
        shown = repr(value)
        if len(shown) > 60:
            shown = f"{shown[:57]}..."
        raise ConfigurationError(f"{source}: {shown} {error}") from None


def _read_file(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            content = tomllib.load(file)
    except OSError as error:
        raise ConfigurationError(f"--config {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"--config {path}: {error}") from None
    for key in content:
        if key not in _BY_NAME and key != _TOPIC:
            raise ConfigurationError(f"unknown option {key!r} in {path}")
    return content


def _check_together(settings: Settings) -> None:
    if settings.client_timeout <= settings.heartbeat_interval:
        raise ConfigurationError(
            f"--client-timeout {settings.client_timeout} must be longer than "
            f"--heartbeat-interval {settings.heartbeat_interval}"
        )
    if (settings.jwt_algorithm is None) != (settings.jwt_public_key is None):
        raise ConfigurationError("--jwt-algorithm and --jwt-public-key go together")


_FIELDS: Final = [*(option.key for option in OPTIONS), "topics"]
assert [field.name for field in fields(Settings)] == _FIELDS  # noqa: S101
