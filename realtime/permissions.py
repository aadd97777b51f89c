"""Who may use which topic. Pure.

Any authenticated user may use any topic, except that topics beginning with `$` are the
server's own. A token's `permissions` narrow that to the patterns they name.
"""

from __future__ import annotations

from realtime.model import Identity
from realtime.topics import any_covers


def may_subscribe(identity: Identity, topic: str) -> bool:
    """Whether `identity` may subscribe to a valid topic."""
    permissions = identity.permissions
    return _allowed(permissions.subscribe if permissions else None, topic)


def may_publish(identity: Identity, topic: str) -> bool:
    """Whether `identity` may publish on a valid topic."""
    permissions = identity.permissions
    return _allowed(permissions.publish if permissions else None, topic)


def _allowed(granted: tuple[str, ...] | None, topic: str) -> bool:
    if granted is not None:
        return any_covers(granted, topic) and not topic.startswith("$")
    return not topic.startswith("$")
