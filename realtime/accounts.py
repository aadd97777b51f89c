"""The embedded user store: accounts in SQLite, passwords as argon2id hashes."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable
from math import inf
from typing import Any, Final

from twisted.logger import Logger

from realtime.database import Damaged, Database, Workers, add_revocation
from realtime.errors import Conflict, InvalidRequest, NotFound, Unavailable
from realtime.model import User
from realtime.names import (
    DEFAULT_ROLES,
    check_username,
    is_name,
    is_role,
    new_user_id,
    username_key,
)
from realtime.passwords import Hasher, check_password, is_possible

_log = Logger()

MAX_ROLES: Final = 32
_COLUMNS: Final = "user_id, username, roles, created_at, disabled"


class Accounts:
    """Users by id and by name. `now` answers Unix seconds.

    Removing or disabling a user, or changing a password, ends the user's sessions and revokes
    the user's access tokens; `sessions_sqlite` makes running servers see it. A revocation is
    kept for `revoke_for` seconds: no token may live longer.
    """

    def __init__(
        self,
        db: Database,
        hasher: Hasher,
        workers: Workers,
        now: Callable[[], float],
        *,
        revoke_for: float = 367 * 86400,
    ) -> None:
        self._db = db
        self._hasher = hasher
        self._workers = workers
        self._now = now
        self._revoke_for = revoke_for

    async def create(
        self, username: str, password: str, roles: Iterable[str] = DEFAULT_ROLES
    ) -> User:
        """Add a user; raises `InvalidRequest`, or `Conflict` when the name is taken."""
        problem = check_username(username) or check_password(password)
        if problem is not None:
            raise InvalidRequest(f"{problem[0].upper()}{problem[1:]}.")
        user = User(new_user_id(), username, _check_roles(roles), self._now())
        password_hash = await self._workers.run(self._hasher.hash, password)
        await self._db.run(_insert, user, password_hash)
        return user

    async def get(self, user_id: str) -> User | None:
        """Answer the user with this id."""
        return await self._db.read(_select, "user_id = ?", user_id)

    async def find(self, username: str) -> User | None:
        """Answer the user with this name, in any case."""
        if not is_name(username):
            return None
        return await self._db.read(_select, "username_key = ?", username_key(username))

    async def list(self) -> list[User]:
        """Answer all users, by name."""
        return await self._db.read(_select_all)

    async def verify_password(self, username: str, password: str) -> User | None:
        """Answer the user if the password is theirs and they are not disabled.

        Takes as long for unknown and disabled users as for others.
        """
        if not is_possible(password):
            return None
        found = None
        if is_name(username):
            found = await self._db.read(_credentials, username_key(username))
        if found is None or found[0].disabled:
            await self._workers.run(self._hasher.hash, password)
            return None
        user, password_hash = found
        if not await self._workers.run(self._hasher.verify, password_hash, password):
            return None
        if self._hasher.needs_rehash(password_hash):
            await self._rehash(user.user_id, password_hash, password)
        return user

    async def set_password(self, user_id: str, password: str) -> None:
        """Change the password, which ends the user's sessions; raises `NotFound`."""
        problem = check_password(password)
        if problem is not None:
            raise InvalidRequest(f"{problem[0].upper()}{problem[1:]}.")
        password_hash = await self._workers.run(self._hasher.hash, password)
        await self._db.run(self._change, user_id, "password_hash = ?", password_hash, revoke=True)

    async def set_roles(self, user_id: str, roles: Iterable[str]) -> None:
        """Replace the roles, which tokens issued from now on carry; raises `NotFound`."""
        encoded = json.dumps(_check_roles(roles))
        await self._db.run(self._change, user_id, "roles = ?", encoded)

    async def set_disabled(self, user_id: str, disabled: bool) -> None:
        """Refuse the user until enabled again; raises `NotFound`."""
        await self._db.run(
            self._change, user_id, "disabled = ?", int(disabled), revoke=True, for_good=disabled
        )

    async def remove(self, user_id: str) -> None:
        """Remove the user for good; raises `NotFound`."""
        await self._db.run(self._remove, user_id)

    async def _rehash(self, user_id: str, old: str, password: str) -> None:
        """Bring a hash up to the present parameters; failing that does not fail a login."""
        try:
            new = await self._workers.run(self._hasher.hash, password)
            await self._db.run(_replace_hash, user_id, old, new)
        except Unavailable:
            _log.info("Rehashing the password of {user_id} is put off", user_id=user_id)

    # -- in the database's thread ----------------------------------------------------------

    def _change(
        self,
        connection: sqlite3.Connection,
        user_id: str,
        assignment: str,
        value: Any,
        *,
        revoke: bool = False,
        for_good: bool = False,
    ) -> None:
        changed = connection.execute(
            f"UPDATE users SET {assignment} WHERE user_id = ?",  # noqa: S608 - our own words
            (value, user_id),
        )
        if changed.rowcount == 0:
            raise NotFound("There is no such user.")
        if revoke:
            self._revoke(connection, user_id, for_good=for_good, expire=not for_good)

    def _remove(self, connection: sqlite3.Connection, user_id: str) -> None:
        self._revoke(connection, user_id, for_good=True, expire=True)
        removed = connection.execute("DELETE FROM users WHERE user_id = ?", (user_id,))
        if removed.rowcount == 0:
            raise NotFound("There is no such user.")  # Which undoes the revocation.

    def _revoke(
        self, connection: sqlite3.Connection, user_id: str, *, for_good: bool, expire: bool
    ) -> None:
        """Refuse the user's tokens issued up to now, or `for_good` all, and end the sessions."""
        # The clock is read in the transaction: a login that saw the former password began before.
        now = self._now()
        # Session by session, too: a token just being issued is dated later than this.
        ended = connection.execute(
            "SELECT session_id, access_until FROM sessions WHERE user_id = ?", (user_id,)
        ).fetchall()
        connection.execute("DELETE FROM sessions WHERE user_id = ?", (user_id,))
        for session_id, access_until in ended:
            add_revocation(connection, "session", session_id, now, access_until)
        expires = now + self._revoke_for if expire else inf
        add_revocation(connection, "user", user_id, inf if for_good else now, expires)


def _check_roles(roles: Iterable[str]) -> tuple[str, ...]:
    checked = tuple(dict.fromkeys(roles))
    if len(checked) > MAX_ROLES:
        raise InvalidRequest(f"A user has at most {MAX_ROLES} roles.")
    for role in checked:
        if not is_role(role):
            raise InvalidRequest(
                "A role is at most 64 ASCII letters, digits, and '_', '.', ':' or '-'."
            )
    return checked


def _insert(connection: sqlite3.Connection, user: User, password_hash: str) -> None:
    try:
        connection.execute(
            "INSERT INTO users (user_id, username, username_key, password_hash, roles,"
            " created_at) VALUES (?, ?, ?, ?, ?, ?)",
            (
                user.user_id,
                user.username,
                username_key(user.username),
                password_hash,
                json.dumps(user.roles),
                user.created_at,
            ),
        )
    except sqlite3.IntegrityError:
        raise Conflict("The username is taken.") from None


def _select(connection: sqlite3.Connection, condition: str, value: str) -> User | None:
    query = f"SELECT {_COLUMNS} FROM users WHERE {condition}"  # noqa: S608 - our own words
    row = connection.execute(query, (value,)).fetchone()
    return None if row is None else _user(row)


def _select_all(connection: sqlite3.Connection) -> list[User]:
    query = f"SELECT {_COLUMNS} FROM users ORDER BY username_key"  # noqa: S608 - our own words
    return [_user(row) for row in connection.execute(query)]


def _credentials(connection: sqlite3.Connection, key: str) -> tuple[User, str] | None:
    row = connection.execute(
        f"SELECT {_COLUMNS}, password_hash FROM users"  # noqa: S608 - our own words
        " WHERE username_key = ?",
        (key,),
    ).fetchone()
    return None if row is None else (_user(row), row[5])


def _replace_hash(connection: sqlite3.Connection, user_id: str, old: str, new: str) -> None:
    connection.execute(
        "UPDATE users SET password_hash = ? WHERE user_id = ? AND password_hash = ?",
        (new, user_id, old),
    )


def _user(row: tuple[Any, ...]) -> User:
    user_id, username, roles, created_at, disabled = row[:5]
    try:
        decoded = json.loads(roles)
    except (ValueError, TypeError, RecursionError):
        decoded = None
    if not isinstance(decoded, list) or not all(isinstance(role, str) for role in decoded):
        raise Damaged(f"the roles of the user {user_id!r} are unreadable")
    if not isinstance(username, str) or not isinstance(created_at, float):
        raise Damaged(f"the row of the user {user_id!r} is unreadable")
    return User(user_id, username, tuple(decoded), created_at, bool(disabled))
