"""Every option of the server, in one table.

From it come the flags of `twistd realtime`, the environment variables, the keys of the TOML file,
the manual, and `settings.Settings`, whose fields are in this order.
"""

from __future__ import annotations

from typing import Final

from realtime import parse
from realtime.limit_options import LIMIT_OPTIONS
from realtime.option import Option
from realtime.redis_keys import DEFAULT_PREFIX

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
        "unix",
        "PATH",
        None,
        "Unix socket to listen on, instead of the address and port.",
        parse.text,
    ),
    Option(
        "metrics-port",
        "PORT",
        0,
        "Port for /metrics and /health beside the other, without TLS; of several workers each has "
        "the next one. 0: none.",
        parse.integer(0, 65535),
    ),
    Option(
        "tls-cert",
        "FILE",
        None,
        "Certificate in PEM, its chain after it; read again on SIGHUP.",
        parse.text,
    ),
    Option("tls-key", "FILE", None, "Its private key in PEM.", parse.text),
    *LIMIT_OPTIONS,
    Option(
        "compression",
        "true|false",
        False,
        "Compress messages for clients that offer it (permessage-deflate).",
        parse.switch,
    ),
    Option(
        "drain-seconds",
        "SECONDS",
        10,
        "Over how long connections are closed when the server stops, so that they come back "
        "spread; 0 closes all at once.",
        parse.integer(0, 3600),
    ),
    Option(
        "shutdown-timeout",
        "SECONDS",
        5,
        "How long clients have to answer the closing handshake when the server stops.",
        parse.integer(0, 8),
    ),
    Option(
        "trusted-proxy",
        "NETWORK",
        (),
        "Proxy whose X-Forwarded-For is believed: an address, a network, or unix; repeatable.",
        parse.proxy,
        repeatable=True,
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
        "token-in-url",
        "true|false",
        True,
        "Take tokens from URLs (?token=), which proxies write to logs.",
        parse.switch,
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
        "strict-topics",
        "",
        False,
        "Refuse topics that no [[topic]] rule of the file names.",
        parse.switch,
    ),
    Option(
        "presence-grace",
        "SECONDS",
        5,
        "How long a user may be gone before Leave is announced; 0 announces at once.",
        parse.integer(0, 3600),
    ),
    Option(
        "redis",
        "URL",
        (),
        "Redis, which makes one service of all nodes that name it: redis://, rediss:// for TLS, "
        "unix:// or redis+sentinel://. Repeatable: topics are shared out among several.",
        parse.redis_url,
        repeatable=True,
        environment="REDIS_URL",
        private=True,
        # A list of sentinels has commas, too.
        separator=r"\s*,\s*(?=[a-z+]+://)",
    ),
    Option(
        "workers",
        "N",
        1,
        "Server processes on the one port, to use all processors; more than one need --redis.",
        parse.integer(1, 1024),
    ),
    Option(
        "redis-prefix",
        "TEXT",
        DEFAULT_PREFIX,
        "What all keys and channels in Redis begin with; nodes of one service have the same.",
        parse.prefix,
    ),
    Option(
        "secret-file",
        "FILE",
        None,
        "The secret that signs tokens, 32 bytes or more; more lines are more secrets, which only "
        "verify. Without it one is made in the state directory.",
        parse.text,
    ),
    Option(
        "secret",
        "TEXT",
        None,
        "That secret itself; give it in the environment (REALTIME_SECRET), where there is no file. "
        "Others may follow after white space, which only verify.",
        parse.secrets,
        private=True,
    ),
    Option(
        "jwt-algorithm",
        "RS256|ES256|EdDSA",
        None,
        "Algorithm of another issuer's tokens.",
        parse.one_of("RS256", "ES256", "EdDSA"),
    ),
    Option("jwt-public-key", "FILE", None, "That issuer's public key (PEM).", parse.text),
    Option(
        "jwks-url",
        "URL",
        None,
        "Where another issuer's public keys are read from, a JSON Web Key Set: https, or http on "
        "this machine.",
        parse.key_url,
    ),
    Option(
        "jwks-file",
        "FILE",
        None,
        "File of such keys, instead of a URL.",
        parse.text,
    ),
    Option(
        "jwks-refresh-seconds",
        "SECONDS",
        300,
        "How often such keys are read again.",
        parse.integer(10, 86400),
    ),
    Option("issuer", "TEXT", None, "The iss that every token must have.", parse.text),
    Option("audience", "TEXT", None, "The aud that every token must have.", parse.text),
    Option(
        "audit-log",
        "PATH",
        None,
        "File to which logins, refusals and what admins do are written, a JSON object a line; - is "
        "standard output. Opened again on SIGHUP.",
        parse.text,
    ),
    Option(
        "webhook-url",
        "URL",
        None,
        "Where events are posted to. Needs --webhook-secret-file.",
        parse.url,
        private=True,
    ),
    Option(
        "webhook-event",
        "EVENT",
        ("connect", "disconnect", "subscribe", "unsubscribe", "occupied", "vacated"),
        "Event that is posted; publish, which is every message, too if named. Repeatable.",
        parse.one_of(
            "connect", "disconnect", "subscribe", "unsubscribe", "publish", "occupied", "vacated"
        ),
        repeatable=True,
    ),
    Option(
        "webhook-secret-file",
        "FILE",
        None,
        "The secret that signs what is posted to --webhook-url and --hook-url, 32 bytes or more.",
        parse.text,
    ),
    Option(
        "webhook-queue",
        "memory|disk",
        "memory",
        "Where events wait to be posted; on disk they survive a restart.",
        parse.one_of("memory", "disk"),
    ),
    Option(
        "webhook-queue-size",
        "N",
        10_000,
        "Events that may wait; the newest are dropped when there are more.",
        parse.integer(1, 10_000_000),
    ),
    Option(
        "webhook-debounce",
        "SECONDS",
        3.0,
        "How long a topic must be without subscribers to be vacated.",
        parse.number(0, 3600),
    ),
    Option(
        "hook-url",
        "URL",
        None,
        "What is asked before clients may do what --hook names. Needs --webhook-secret-file.",
        parse.url,
        private=True,
    ),
    Option(
        "hook",
        "connect|subscribe|publish",
        (),
        "What --hook-url is asked about. Repeatable.",
        parse.one_of("connect", "subscribe", "publish"),
        repeatable=True,
    ),
    Option(
        "hook-timeout",
        "SECONDS",
        2.0,
        "How long --hook-url has to answer.",
        parse.number(0.01, 60),
    ),
    Option(
        "hook-failure",
        "deny|allow",
        "deny",
        "What it means when --hook-url does not answer as it should.",
        parse.one_of("deny", "allow"),
    ),
    Option(
        "fast-path",
        "true|false",
        True,
        "Serve on the quick path where this Python, Twisted and Autobahn allow it.",
        parse.switch,
    ),
)
