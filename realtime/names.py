"""What users, sessions and roles may be called. Pure.

A name is 1 to 255 bytes of UTF-8 without control characters, line separators, or characters that
are invisible or turn the direction of writing (two names must not look like one).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches
from secrets import token_hex

MAX_BYTES = 255
DEFAULT_ROLES = ("user", "subscriber")
ADMIN_ROLE = "admin"
SERVICE_ROLE = "service"

_UNFIT = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb"
    r"\ud800-\udfff]"
)
_ROLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}")
_USER_ID = re.compile(r"user_[0-9a-f]{20}")


def is_name(text: str) -> bool:
    """Whether `text` can be a user's or session's id, or a username."""
    if text.isascii():
        return 0 < len(text) <= MAX_BYTES and text.isprintable()
    return (
        len(text) <= MAX_BYTES
        and _UNFIT.search(text) is None
        and len(text.encode("utf-8")) <= MAX_BYTES
    )


def check_username(username: str) -> str | None:
    """Say what is wrong with `username` for a new account, or None when it is fit."""
    if not is_name(username):
        return f"a username is 1 to {MAX_BYTES} bytes without control characters"
    if username != username.strip():
        return "a username neither begins nor ends with white space"
    # A message addressed to an id must never reach a user who took that id as their name.
    if _USER_ID.fullmatch(username.casefold()):
        return "a username cannot have the form of a user id"
    return None


def username_key(username: str) -> str:
    """What two usernames have in common exactly when they count as the same."""
    folded = unicodedata.normalize("NFC", username).casefold()
    return unicodedata.normalize("NFC", folded)


def meant(word: str, known: Iterable[str]) -> str:
    """What may have been meant by a word that is not known, as the end of a sentence."""
    alike = {re.sub(r"[-_]", "", one).casefold(): one for one in known}
    near = get_close_matches(re.sub(r"[-_]", "", word).casefold(), alike, 1, 0.8)
    return f"; is it {alike[near[0]]}?" if near else ""


def is_role(text: str) -> bool:
    """Whether `text` can be a role: at most 64 ASCII letters, digits, and `_ . : -`."""
    return _ROLE.fullmatch(text) is not None


def new_user_id() -> str:
    """Make an unguessable user id."""
    return f"user_{token_hex(10)}"


def new_session_id() -> str:
    """Make an unguessable session id."""
    return f"sess_{token_hex(16)}"


def new_node_id() -> str:
    """Make an id for a server process."""
    return token_hex(4)


def connection_number(connection_id: str) -> int:
    """The number in a connection's id, 0 in what is none."""
    try:
        return int(connection_id.rpartition("-")[2], 16)
    except ValueError:
        return 0
