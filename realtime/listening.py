"""The listening socket: made here, or given by who has started the process."""

from __future__ import annotations

import socket

from realtime.errors import ConfigurationError

# Connections that may wait to be accepted.
BACKLOG = 4096
# The descriptor at which a worker finds its socket.
WORKER_FD = 3


def listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Take a port; 0 takes a free one. Raises `ConfigurationError`.

    With `shared` others may take it, too: each gets its part of the connections.
    """
    listening = None
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        if listening is not None:
            listening.close()
        raise ConfigurationError(f"cannot listen on {host} port {port}: {error.strerror}") from None
    except UnicodeError:
        raise ConfigurationError(f"--host {host}: is no host's name") from None
    listening.setblocking(False)
    return listening


def inherited() -> socket.socket | None:
    """The socket that the parent of workers has handed on; None in any other process."""
    if not _handed_on:
        return None
    listening = socket.socket(fileno=_handed_on.pop())
    listening.setblocking(False)
    return listening


def hand_on(descriptor: int) -> None:
    """Have `inherited` answer the socket of a descriptor."""
    _handed_on.append(descriptor)


_handed_on: list[int] = []
