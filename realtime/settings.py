"""What the options say: the frozen `Settings`, put together from their four sources.

A flag wins over the environment, that over the file, and that over the default.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Literal

from realtime.errors import ConfigurationError
from realtime.model import Namespace
from realtime.names import meant
from realtime.namespaces import read_namespaces
from realtime.option import PREFIX, Option
from realtime.option_table import OPTIONS
from realtime.redis_url import RedisAddress

# Of the commands that talk to a server; the server itself has no use for them.
URL_VARIABLE: Final = f"{PREFIX}URL"
TOKEN_VARIABLE: Final = f"{PREFIX}TOKEN"

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
    unix: str | None
    metrics_port: int
    tls_cert: str | None
    tls_key: str | None
    max_connections: int
    max_connections_per_user: int
    max_connections_per_address: int
    head_timeout: int
    body_timeout: int
    max_head_size: int
    max_body_size: int
    max_frame_size: int
    max_queue_bytes: int
    max_subscriptions: int
    max_topics: int
    message_rate: float
    message_burst: float
    byte_rate: int
    heartbeat_interval: int
    client_timeout: int
    login_rate: float
    login_burst: float
    history_bytes: int
    compression: bool
    drain_seconds: int
    shutdown_timeout: int
    trusted_proxy: tuple[str, ...]
    origin: tuple[str, ...]
    connect_role: tuple[str, ...]
    token_in_url: bool
    on_token_expiry: Literal["close", "keep"]
    access_token_ttl: int
    refresh_token_ttl: int
    rotate_refresh_tokens: bool
    strict_topics: bool
    presence_grace: int
    redis: tuple[RedisAddress, ...]
    workers: int
    redis_prefix: str
    secret_file: str | None
    secret: tuple[str, ...] | None = field(repr=False)
    jwt_algorithm: str | None
    jwt_public_key: str | None
    jwks_url: str | None
    jwks_file: str | None
    jwks_refresh_seconds: int
    issuer: str | None
    audience: str | None
    audit_log: str | None
    webhook_url: str | None
    webhook_event: tuple[str, ...]
    webhook_secret_file: str | None
    webhook_queue: Literal["memory", "disk"]
    webhook_queue_size: int
    webhook_debounce: float
    hook_url: str | None
    hook: tuple[str, ...]
    hook_timeout: float
    hook_failure: Literal["deny", "allow"]
    fast_path: bool
    topics: tuple[Namespace, ...]


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
        URL_VARIABLE,
        TOKEN_VARIABLE,
        *(option.variable for option in OPTIONS),
    }
    if unknown:
        hint = meant(min(unknown), (option.variable for option in OPTIONS))
        raise ConfigurationError(f"unknown option {min(unknown)} in the environment{hint}")
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
                text = re.split(option.separator, text.strip())
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
            raise ValueError('is not a list of texts, ["...", "..."]')
        if isinstance(value, bool | int | float):
            value = str(value)
        if not isinstance(value, str):
            raise ValueError("is of the wrong type")
        return option.parse(value)
    except ValueError as error:
        shown = "what is given" if option.private else repr(value)
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
            hint = "; is it [[topic]]?" if key == "topics" else meant(key, _BY_NAME)
            raise ConfigurationError(f"unknown option {key!r} in {path}{hint}")
    return content


def _check_together(settings: Settings) -> None:
    if settings.client_timeout <= settings.heartbeat_interval:
        raise ConfigurationError(
            f"--client-timeout {settings.client_timeout} must be longer than "
            f"--heartbeat-interval {settings.heartbeat_interval}"
        )
    if (settings.jwt_algorithm is None) != (settings.jwt_public_key is None):
        raise ConfigurationError("--jwt-algorithm and --jwt-public-key go together")
    sources = (settings.jwt_public_key, settings.jwks_url, settings.jwks_file)
    if sum(source is not None for source in sources) > 1:
        raise ConfigurationError(
            "--jwt-public-key, --jwks-url and --jwks-file: only one of them can have the keys"
        )
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise ConfigurationError("--tls-cert and --tls-key go together")
    if (settings.hook_url is None) != (not settings.hook):
        raise ConfigurationError("--hook-url and --hook go together")
    if settings.secret is not None and settings.secret_file is not None:
        raise ConfigurationError("--secret and --secret-file: only one of them can be the secret")
    if settings.metrics_port + settings.workers > 65536:
        raise ConfigurationError(
            f"--metrics-port {settings.metrics_port}: there is no port for each worker"
        )
    if settings.workers > 1 and not settings.redis:
        raise ConfigurationError(f"--workers {settings.workers} needs --redis")
    if settings.workers > 1 and settings.webhook_url and settings.webhook_queue == "disk":
        raise ConfigurationError(
            "--workers and --webhook-queue disk: workers share a state directory, in which there is"
            " one queue; use memory, or nodes with directories of their own"
        )
    if len({each.server for each in settings.redis}) < len(settings.redis):
        raise ConfigurationError("--redis names one server twice")
    for name, url in (("webhook-url", settings.webhook_url), ("hook-url", settings.hook_url)):
        if url is not None and settings.webhook_secret_file is None:
            raise ConfigurationError(f"--{name} needs --webhook-secret-file")


_FIELDS: Final = [*(option.key for option in OPTIONS), "topics"]
assert [field.name for field in fields(Settings)] == _FIELDS  # noqa: S101
