"""`python -m realtime`: users, keys, tokens, rules, and what talks to a running server."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from realtime import __version__
from realtime.audit import Audit, own_name
from realtime.check_config import add_arguments, check_config
from realtime.credentials import make_tokens, read_secrets
from realtime.errors import ConfigurationError, NotFound, RealtimeError
from realtime.model import User
from realtime.names import ADMIN_ROLE, DEFAULT_ROLES, is_role
from realtime.remote import add_remote, run_remote
from realtime.settings import Settings, read_settings
from realtime.signing_keys import drop_key, list_keys, rotate_key
from realtime.stores import DATABASE, Stores, make_stores, run_alone, state_directory
from realtime.token_keys import kid_of

_EXAMPLES = """\
for example:
  echo 'correct horse' | python -m realtime user add alice
  python -m realtime publish chat.general '{"text": "Hello"}'
  python -m realtime doctor --url https://chat.example
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; answer the exit status. A mistake is one line on standard error."""
    parser = _parser()
    given = parser.parse_args(arguments, argparse.Namespace(state=None, config=None))
    try:
        flags = {} if given.state is None else {"state": given.state}
        settings = read_settings(flags, os.environ, given.config)
        if getattr(given, "run", None) is check_config:
            status: int = check_config(given, settings)
            sys.stdout.flush()
            return status
        if "remote" in given:
            return run_remote(given, lambda user: _own_token(given, settings, user))
        if given.run is not _add and not Path(settings.state, DATABASE).exists():
            raise ConfigurationError(
                f"--state {settings.state}: there is no database yet; name the server's directory"
            )
        run_alone(lambda reactor: _run(given, settings, reactor))
        sys.stdout.flush()
    except (ConfigurationError, RealtimeError) as error:
        print(f"realtime: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, EOFError):
        print("realtime: stopped", file=sys.stderr)
        return 1
    except BrokenPipeError:  # Who reads our output has enough of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    state, config = (
        argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
        for _ in range(2)
    )
    state.add_argument(
        "--state",
        metavar="DIR",
        help="the server's state directory [default: REALTIME_STATE, or else realtime-state]",
    )
    config.add_argument("--config", metavar="FILE", help="the server's TOML file, if it has one")
    parser = argparse.ArgumentParser(
        prog="python -m realtime",
        description="Manage users and API keys of a realtime server, make tokens, explain rules;"
        " read, publish on, load or examine a running one.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[state, config],
    )
    parser.add_argument("--version", action="version", version=f"realtime-server {__version__}")
    # Both may stand before a command or after it.
    kind: Any = partial(argparse.ArgumentParser, parents=[state, config])
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=kind)

    about = "manage users"
    user = commands.add_parser("user", help=about, description=about)
    actions = user.add_subparsers(required=True, metavar="ACTION", parser_class=kind)
    for name, help, run in (
        ("add", "add a user; the password comes from standard input or a prompt", _add),
        ("passwd", "set a user's password, which ends their sessions", _passwd),
        ("roles", "show a user's roles, or set them", _roles),
        ("disable", "refuse a user, which ends their sessions", _disable),
        ("enable", "accept a disabled user again", _enable),
        ("remove", "remove a user", _remove),
    ):
        action = actions.add_parser(name, help=help, description=help)
        action.add_argument("name", metavar="NAME")
        if name in ("add", "roles"):
            action.add_argument("--role", action="append", metavar="R", help="a role; repeatable")
        action.set_defaults(run=run)
    about = "list users: id, name, roles, and when they were added"
    actions.add_parser("list", help=about, description=about).set_defaults(run=_list)

    about = "manage API keys of your programs, and signing keys"
    key = commands.add_parser("key", help=about, description=about)
    actions = key.add_subparsers(required=True, metavar="ACTION", parser_class=kind)
    for name, help, run in (
        ("add", "make an API key, which is printed this once", _add_key),
        ("remove", "refuse an API key from now on", _remove_key),
    ):
        action = actions.add_parser(name, help=help, description=help)
        action.add_argument("name", metavar="NAME")
        action.set_defaults(run=run)
    about = "list API keys, and the keys that tokens are signed with"
    actions.add_parser("list", help=about, description=about).set_defaults(run=_list_keys)
    about = "sign tokens with a new key; the former one is accepted until its tokens have expired"
    actions.add_parser("rotate", help=about, description=about).set_defaults(run=_rotate_key)
    about = "accept a former signing key no more, and none of its tokens"
    action = actions.add_parser("drop", help=about, description=about)
    action.add_argument("kid", metavar="KID", help="as key list has it")
    action.set_defaults(run=_drop_key)

    about = "print an access token for a user"
    token = commands.add_parser("token", help=about, description=about)
    token.add_argument("--user", required=True, dest="name", metavar="NAME")
    token.add_argument(
        "--role", action="append", metavar="R", help="instead of the user's own; repeatable"
    )
    token.add_argument(
        "--ttl", type=float, metavar="SECONDS", help="its life [default: the server's]"
    )
    token.set_defaults(run=_token)

    check = commands.add_parser(
        "check-config",
        help="explain a configuration, and who may do what by it",
        description="Print a configuration in words; or answer what a token or user may do by it.",
        parents=[state],
    )
    add_arguments(check)
    check.set_defaults(run=check_config)
    add_remote(commands)
    return parser


async def _run(given: argparse.Namespace, settings: Settings, reactor: Any) -> None:
    # What a command prints goes to standard output, and is not to be mixed with this.
    audit = Audit.beside(settings.audit_log, reactor)
    stores = make_stores(state_directory(settings.state), reactor)
    await stores.database.open()
    try:
        run: Callable[..., Any] = given.run
        about: dict[str, Any] | None = await run(given, stores, settings, reactor)
        event = _EVENTS.get(getattr(run, "func", run))
        if event is not None and about is not None:
            audit.note(event, actor=own_name(), **about)
    finally:
        await stores.close()
        audit.close()


def _own_token(given: argparse.Namespace, settings: Settings, user: str) -> str | None:
    """An access token by the key of the state directory, None where there is no such."""
    if not Path(settings.state, DATABASE).exists():
        return None
    made: list[str] = []
    given.name, given.role, given.ttl = user, None, None
    given.run = partial(_token, tell=made.append)
    run_alone(lambda reactor: _run(given, settings, reactor))
    return made[0]


def _password() -> str:
    if sys.stdin.isatty():
        password = getpass.getpass("Password: ")
        if getpass.getpass("Again: ") != password:
            raise ConfigurationError("the passwords differ")
        return password
    try:
        return sys.stdin.readline().rstrip("\r\n")
    except UnicodeDecodeError:
        raise ConfigurationError("the password on standard input is not UTF-8") from None


async def _find(stores: Stores, name: str) -> User:
    user = await stores.accounts.find(name)
    if user is None:
        raise NotFound(f"there is no user {name!r} in {stores.database.path}")
    return user


def _about(user: User) -> dict[str, Any]:
    """What the audit log has of a user."""
    return {"user": user.user_id, "username": user.username}


async def _add(given: argparse.Namespace, stores: Stores, *_: Any) -> dict[str, Any]:
    first = not await stores.accounts.list()
    user = await stores.accounts.create(given.name, _password(), given.role or DEFAULT_ROLES)
    if first and ADMIN_ROLE not in user.roles:
        print(
            f"realtime: this is the first user in {stores.database.path}, so a server"
            f" there will not make an admin: add one with --role {ADMIN_ROLE}",
            file=sys.stderr,
        )
    print(f"{user.user_id}  {user.username}  {','.join(user.roles)}")
    return {**_about(user), "roles": ",".join(user.roles)}


async def _passwd(given: argparse.Namespace, stores: Stores, *_: Any) -> dict[str, Any]:
    user = await _find(stores, given.name)
    await stores.accounts.set_password(user.user_id, _password())
    return _about(user)


async def _roles(given: argparse.Namespace, stores: Stores, *_: Any) -> dict[str, Any] | None:
    user = await _find(stores, given.name)
    if given.role:
        await stores.accounts.set_roles(user.user_id, given.role)
        user = await _find(stores, given.name)
    print(",".join(user.roles))
    return {**_about(user), "roles": ",".join(user.roles)} if given.role else None


async def _disable(given: argparse.Namespace, stores: Stores, *_: Any) -> dict[str, Any]:
    user = await _find(stores, given.name)
    await stores.accounts.set_disabled(user.user_id, True)
    return _about(user)


async def _enable(given: argparse.Namespace, stores: Stores, *_: Any) -> dict[str, Any]:
    user = await _find(stores, given.name)
    await stores.accounts.set_disabled(user.user_id, False)
    return _about(user)


async def _remove(given: argparse.Namespace, stores: Stores, *_: Any) -> dict[str, Any]:
    user = await _find(stores, given.name)
    await stores.accounts.remove(user.user_id)
    return _about(user)


async def _list(given: argparse.Namespace, stores: Stores, *_: Any) -> None:
    for user in await stores.accounts.list():
        created = datetime.fromtimestamp(user.created_at, UTC).date().isoformat()
        state = "  disabled" if user.disabled else ""
        print(f"{user.user_id}  {user.username}  {','.join(user.roles)}  {created}{state}")


async def _add_key(given: argparse.Namespace, stores: Stores, *_: Any) -> dict[str, Any]:
    print(await stores.keys.add(given.name))
    return {"key": given.name}


async def _remove_key(given: argparse.Namespace, stores: Stores, *_: Any) -> dict[str, Any]:
    if not await stores.keys.remove(given.name):
        raise NotFound(f"there is no key {given.name!r} in {stores.database.path}")
    return {"key": given.name}


async def _list_keys(
    given: argparse.Namespace, stores: Stores, settings: Settings, reactor: Any
) -> None:
    for key in await stores.keys.list():
        print(f"{key.name}  {datetime.fromtimestamp(key.created_at, UTC).date().isoformat()}")
    if _has_own_keys(settings):
        for kid, until in list_keys(Path(settings.state), reactor.seconds()).items():
            print(f"signing key {kid}  {_use(until)}")
        return
    secrets = read_secrets(settings, Path(settings.state), reactor.seconds())
    for number, secret in enumerate(secrets):
        print(f"signing key {kid_of(secret)}  {'accepted' if number else 'signs'}")


def _use(until: float | None) -> str:
    if until is None:
        return "signs"
    shown = datetime.fromtimestamp(until, UTC).isoformat(timespec="seconds")
    return f"accepted until {shown.replace('+00:00', 'Z')}"


async def _rotate_key(
    given: argparse.Namespace, stores: Stores, settings: Settings, reactor: Any
) -> dict[str, Any]:
    _need_own_keys(settings)
    life = max(settings.refresh_token_ttl, settings.access_token_ttl)
    kid = rotate_key(Path(settings.state), reactor.seconds(), life)
    print(kid)
    return {"key": kid}


async def _drop_key(
    given: argparse.Namespace, stores: Stores, settings: Settings, reactor: Any
) -> dict[str, Any]:
    _need_own_keys(settings)
    drop_key(Path(settings.state), given.kid, reactor.seconds())
    return {"key": given.kid}


def _has_own_keys(settings: Settings) -> bool:
    return settings.secret is None and settings.secret_file is None


def _need_own_keys(settings: Settings) -> None:
    if not _has_own_keys(settings):
        where = "--secret" if settings.secret_file is None else "--secret-file"
        raise ConfigurationError(
            f"the signing keys are those of {where}: add one there (docs/security/keys.rst)"
        )


async def _token(
    given: argparse.Namespace,
    stores: Stores,
    settings: Settings,
    reactor: Any,
    tell: Callable[[str], object] = print,
) -> dict[str, Any]:
    user = await _find(stores, given.name)
    if user.disabled:
        raise ConfigurationError(f"the user {given.name!r} is disabled")
    if given.role:
        for role in given.role:
            if not is_role(role):
                raise ConfigurationError(f"--role {role!r} is not a role's name")
        user = replace(user, roles=tuple(given.role))
    tokens = make_tokens(settings, Path(settings.state), reactor)
    tell(tokens.issue_access(user, None, given.ttl))
    return {**_about(user), "roles": ",".join(user.roles)}


# What is written to the audit log of those that change something, or give away what opens doors.
_EVENTS: dict[Callable[..., Any], str] = {
    _add: "user_add",
    _passwd: "user_password",
    _roles: "user_roles",
    _disable: "user_disable",
    _enable: "user_enable",
    _remove: "user_remove",
    _add_key: "api_key_add",
    _remove_key: "api_key_remove",
    _rotate_key: "signing_key_rotate",
    _drop_key: "signing_key_drop",
    _token: "token_make",
}
