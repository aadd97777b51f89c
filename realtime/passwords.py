"""Password hashes: argon2id. Pure, and slow on purpose: call it in threads only."""

from __future__ import annotations

import unicodedata

from argon2 import PasswordHasher, Type
from argon2.exceptions import Argon2Error

MIN_CHARACTERS = 8
MAX_BYTES = 1024


class Hasher:
    """Makes and checks argon2id hashes. `memory_cost` is in KiB.

    The default is the second recommended option of RFC 9106: 64 MiB, some 50 ms.
    """

    def __init__(self, *, time_cost: int = 3, memory_cost: int = 65536, parallelism: int = 4):
        self._argon2 = PasswordHasher(time_cost, memory_cost, parallelism, type=Type.ID)

    def hash(self, password: str) -> str:
        """Make a salted hash of `password`. Takes as long as `verify`."""
        return self._argon2.hash(_to_bytes(password))

    def verify(self, password_hash: str, password: str) -> bool:
        """Whether `password` is the one that the hash was made of."""
        try:
            return self._argon2.verify(password_hash, _to_bytes(password))
        except (Argon2Error, ValueError):
            return False

    def needs_rehash(self, password_hash: str) -> bool:
        """Whether the hash was made with parameters other than the present ones."""
        try:
            return self._argon2.check_needs_rehash(password_hash)
        except ValueError:
            return True


def check_password(password: str) -> str | None:
    """Say what is wrong with a new password, or None when it will do."""
    if len(password) < MIN_CHARACTERS:
        return f"a password has at least {MIN_CHARACTERS} characters"
    if not is_possible(password):
        return f"a password has at most {MAX_BYTES} bytes of UTF-8"
    return None


def is_possible(password: str) -> bool:
    """Whether `password` can be anybody's: bounds the work that a stranger can ask for."""
    if len(password) > MAX_BYTES:
        return False
    try:
        return len(_to_bytes(password)) <= MAX_BYTES
    except UnicodeEncodeError:
        return False


def _to_bytes(password: str) -> bytes:
    """Keyboards differ in how they compose accents; the password is the same."""
    return unicodedata.normalize("NFC", password).encode("utf-8")
