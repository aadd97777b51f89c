"""All attacks."""

from __future__ import annotations

from tests.hostile import floods, heads, identity, payloads, slow

ATTACKS = (
    *slow.ATTACKS,
    *heads.ATTACKS,
    *floods.ATTACKS,
    *payloads.ATTACKS,
    *identity.ATTACKS,
)
