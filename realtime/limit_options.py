"""The options that bound what clients may take: each has a default."""

from __future__ import annotations

from typing import Final

from realtime import parse
from realtime.option import Option

_DAY: Final = 86400

LIMIT_OPTIONS: Final[tuple[Option, ...]] = (
    Option(
        "max-connections",
        "N",
        10_000,
        "WebSockets open at once; more get 503.",
        parse.integer(1, 10_000_000),
    ),
    Option(
        "max-connections-per-user",
        "N",
        0,
        "Of these, how many one user may have; more get 429. 0 sets no limit.",
        parse.integer(0, 10_000_000),
    ),
    Option(
        "max-connections-per-address",
        "N",
        0,
        "How many may come from one address (IPv6: 64 bits of it); more get 429. 0 sets no limit.",
        parse.integer(0, 10_000_000),
    ),
    Option(
        "head-timeout",
        "SECONDS",
        10,
        "Time in which a request's head has to arrive, also a WebSocket's handshake; then 408.",
        parse.integer(2, _DAY),
    ),
    Option(
        "body-timeout",
        "SECONDS",
        30,
        "Time in which a request has to arrive with its body; then 408.",
        parse.integer(1, _DAY),
    ),
    Option(
        "max-head-size",
        "BYTES",
        16 * 1024,
        "Largest head of a request, also of a WebSocket's handshake; larger ones get 431.",
        parse.integer(4096, 1024 * 1024),
    ),
    Option(
        "max-body-size",
        "BYTES",
        65536,
        "Largest body of a request; larger ones get 413.",
        parse.integer(1024, 16 * 1024 * 1024),
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
        "Bytes that may wait for a client that reads slowly; with more it is closed (4002), or "
        "misses what the topic's rule lets it miss.",
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
        "max-topics",
        "N",
        1000,
        "Topics that one command may name, or as many as one may subscribe to.",
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
        "byte-rate",
        "BYTES",
        4 * 1024 * 1024,
        "Bytes a second that a connection may send; what is more waits for the next. 0 sets no "
        "limit.",
        parse.integer(0, 1024**4),
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
        "login-rate",
        "N",
        0.1,
        "Logins a second of a user from an address (of IPv6, a /64 network); ten times that per "
        "address, twenty times per user. Behind a proxy that --trusted-proxy does not name all "
        "clients have one address.",
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
        "history-bytes",
        "BYTES",
        256 * 1024 * 1024,
        "Bytes of publications kept in memory for history and recovery.",
        parse.integer(65536, 1024**4),
    ),
)
