"""The listening socket: made here, or given by who has started the process."""

from __future__ import annotations

import os
import socket
from errno import EADDRINUSE
from pathlib import Path

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
        problem = f"cannot listen on {host} port {port}: {error.strerror}"
        if error.errno == EADDRINUSE:
            problem += "; --port takes another"
        raise ConfigurationError(problem) from None
    except UnicodeError:
        raise ConfigurationError(f"--host {host}: is no host's name") from None
    listening.setblocking(False)
    return listening


def listen_unix(path: str) -> socket.socket:
    """Take a unix socket, for its user and group. Raises `ConfigurationError`.

    What a server that has ended left there is replaced.
    """
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if Path(path).is_socket():
            if listening.connect_ex(path) == 0:
                raise OSError(EADDRINUSE, os.strerror(EADDRINUSE))
            os.unlink(path)
        # Closed to others from the first moment.
        mask = os.umask(0o117)
        try:
            listening.close()
            listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listening.bind(path)
        finally:
            os.umask(mask)
        listening.listen(BACKLOG)
    except (OSError, ValueError) as error:
        listening.close()
        problem = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"--unix {path}: {problem}") from None
    listening.setblocking(False)
    return listening


def protect(path: str) -> None:
    """Close a unix socket to others again, which Twisted opens to all."""
    os.chmod(path, 0o660)


def remove(path: str) -> None:
    """Remove a unix socket that `listen_unix` has made."""
    Path(path).unlink(missing_ok=True)


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
