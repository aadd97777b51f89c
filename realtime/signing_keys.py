"""Our secrets where they are kept: in files, one that signs and those that it has replaced.

In the state directory `secret.key` has the newest, and `former-keys.json` the others, until all
that they have signed has expired. Both are replaced whole, so that who reads them needs no lock.
"""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path
from secrets import token_hex, token_urlsafe
from typing import Final

import msgspec

from realtime.errors import ConfigurationError, Conflict, NotFound
from realtime.token_keys import MIN_SECRET_BYTES, kid_of

SIGNING_KEY: Final = "secret.key"
FORMER_KEYS: Final = "former-keys.json"
# Seconds for which a replaced secret goes on signing: long enough for all processes of a state
# directory to know the new one before the first token of it comes.
OVERLAP: Final = 10.0
# Seconds for which a secret is accepted beyond the life of the last tokens that it has signed.
_SPARE: Final = 3600.0
MAX_FORMER: Final = 8
_MAX_BYTES: Final = 65536


class Former(msgspec.Struct, frozen=True):
    """A secret that was replaced. Unix seconds: until when it signs, and until when it counts."""

    secret: str
    signs_until: float
    until: float

    def __repr__(self) -> str:
        return f"Former({kid_of(self.secret.encode())!r})"


def load_secret(path: str, what: str = "signing key") -> bytes:
    """Read the secret in file `path`, less white space around it; `what` names it in errors.

    The file must be closed to all but its owner, who may let a group read it, as secret mounts
    do. Raises `ConfigurationError` otherwise, or when the secret is too short.
    """
    secret = _read(path, what).strip()
    if not MIN_SECRET_BYTES <= len(secret) <= _MAX_BYTES:
        raise ConfigurationError(
            f"{what} {path}: holds {len(secret)} bytes, must be {MIN_SECRET_BYTES} or more"
        )
    return secret


def load_secrets(path: str, what: str) -> tuple[bytes, ...]:
    """Read a file as `load_secret`, where a text may have several secrets, one a line."""
    content = load_secret(path, what)
    try:
        content.decode()
    except UnicodeDecodeError:
        return (content,)
    secrets = tuple(line.strip() for line in content.splitlines() if line.strip())
    for secret in secrets:
        if len(secret) < MIN_SECRET_BYTES:
            raise ConfigurationError(
                f"{what} {path}: a line holds {len(secret)} bytes, must be {MIN_SECRET_BYTES} or"
                " more: each line is a secret"
            )
    return secrets


def load_or_create_secret(path: str) -> bytes:
    """Read the signing secret in `path`, first making it (mode 0600) if there is none."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return load_secret(path)
    except OSError as error:
        raise ConfigurationError(f"signing key {path}: {error.strerror}") from None
    _write_to(descriptor, _new_secret())
    return load_secret(path)


def load_keys(state: Path, now: float) -> tuple[bytes, ...]:
    """The secrets of a state directory that count, the one that signs first."""
    # In this order: a secret is among the former ones before it is replaced.
    newest = load_or_create_secret(str(state / SIGNING_KEY))
    former = [each for each in _load_former(state) if each.until > now]
    still = [each for each in former if each.signs_until > now]
    # The one that all processes know for the longest.
    signing = min(still, key=lambda each: each.signs_until).secret.encode() if still else newest
    secrets = (signing, newest, *(each.secret.encode() for each in former))
    return tuple(dict.fromkeys(secrets))


def list_keys(state: Path, now: float) -> dict[str, float | None]:
    """The secrets of a state directory that count, the newest first: kids, and until when.

    None for the newest, which is not replaced yet.
    """
    newest = kid_of(load_or_create_secret(str(state / SIGNING_KEY)))
    former = {
        kid_of(each.secret.encode()): each.until
        for each in reversed(_load_former(state))
        if each.until > now
    }
    return {newest: None} | {kid: until for kid, until in former.items() if kid != newest}


def rotate_key(state: Path, now: float, life: float) -> str:
    """Make a secret that signs in place of the present one; answer its kid.

    The present one is accepted for as long as tokens live, which is `life` seconds, and somewhat
    longer. Raises `ConfigurationError`, or `Conflict` when too many were replaced lately.
    """
    with _Lock(state):
        path = state / SIGNING_KEY
        present = load_or_create_secret(str(path))
        try:
            text = present.decode()
        except UnicodeDecodeError:
            raise ConfigurationError(
                f"signing key {path}: was not made by this server, and is no text: it cannot be"
                " kept beside another"
            ) from None
        former = [each for each in _load_former(state) if each.until > now and each.secret != text]
        if len(former) >= MAX_FORMER:
            raise Conflict(
                f"{MAX_FORMER} former keys are still accepted: drop one, or wait for the first"
                " to end"
            )
        until = now + OVERLAP + life + _SPARE
        _save_former(state, [*former, Former(text, now + OVERLAP, until)])
        secret = _new_secret()
        _replace(path, secret)
    return kid_of(secret.strip())


def drop_key(state: Path, kid: str, now: float) -> None:
    """Accept a former secret no more; raises `NotFound`, or `Conflict` for the present one."""
    with _Lock(state):
        if kid == kid_of(load_secret(str(state / SIGNING_KEY))):
            raise Conflict(f"{kid} is the newest key: make another first (key rotate)")
        former = [each for each in _load_former(state) if each.until > now]
        kept = [each for each in former if kid_of(each.secret.encode()) != kid]
        if len(kept) == len(former):
            raise NotFound(f"there is no former key {kid!r}")
        _save_former(state, kept)


class _Lock:
    """Keeps other commands from changing the keys of a state directory meanwhile."""

    def __init__(self, state: Path) -> None:
        self._state = state

    def __enter__(self) -> None:
        try:
            self._descriptor = os.open(self._state, os.O_RDONLY)
        except OSError as error:
            raise ConfigurationError(f"--state {self._state}: {error.strerror}") from None
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def _new_secret() -> bytes:
    return token_urlsafe(48).encode() + b"\n"


def _load_former(state: Path) -> list[Former]:
    path = state / FORMER_KEYS
    if not path.exists():
        return []
    content = _read(str(path), "former signing keys")
    try:
        former = msgspec.json.decode(content, type=list[Former])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise ConfigurationError(f"former signing keys {path}: damaged") from None
    for each in former:
        if len(each.secret.encode()) < MIN_SECRET_BYTES:
            raise ConfigurationError(f"former signing keys {path}: damaged")
    return former


def _save_former(state: Path, former: list[Former]) -> None:
    _replace(state / FORMER_KEYS, msgspec.json.encode(former))


def _read(path: str, what: str) -> bytes:
    """A file that is closed to others; raises `ConfigurationError`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ConfigurationError(f"{what} {path}: not a regular file")
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"{what} {path}: {error.strerror}") from None
    if status.st_mode & 0o027:
        raise ConfigurationError(
            f"{what} {path}: others can read or change it; run: chmod 600 {path}"
        )
    return content


def _replace(path: Path, content: bytes) -> None:
    """Put a new file in the place of one, whole or not at all; raises `ConfigurationError`."""
    made = path.with_name(f".{path.name}.{token_hex(8)}")
    try:
        descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            _write_to(descriptor, content)
            os.replace(made, path)
        except BaseException:
            made.unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None


def _write_to(descriptor: int, content: bytes) -> None:
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
