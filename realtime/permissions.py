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
    if permissions is None or permissions.subscribe is None:
        return not topic.startswith("$")
    return not topic.startswith("$") and any_covers(permissions.subscribe, topic)


def may_publish(identity: Identity, topic: str) -> bool:
    """Whether `identity` may publish on a valid topic."""
    permissions = identity.permissions
    if permissions is None or permissions.publish is None:
        return not topic.startswith("$")
    return not topic.startswith("$") and any_covers(permissions.publish, topic)
