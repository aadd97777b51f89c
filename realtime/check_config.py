"""`python -m realtime check-config`: a configuration in words, and who may do what by it."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Final

from jwt import PyJWS, PyJWTError

from realtime.credentials import make_tokens
from realtime.errors import ConfigurationError, InvalidToken
from realtime.model import Identity, Namespace, SlowConsumers
from realtime.names import DEFAULT_ROLES, is_name, is_role
from realtime.option_table import OPTIONS
from realtime.rules import EVERYONE, USER, Right, Rules, plain_pattern
from realtime.settings import Settings
from realtime.signing_keys import SIGNING_KEY
from realtime.token_keys import Keys
from realtime.tokens import Tokens
from realtime.topics import check_pattern, check_topic, covers

DENIED = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell a parser what the command takes; `config` is the file."""
    parser.add_argument("config", metavar="FILE", help="the server's TOML file")
    parser.add_argument(
        "--token", metavar="TOKEN", help="ask for whom it is; - reads it from standard input"
    )
    parser.add_argument("--user", metavar="ID", help="ask for the user of this id")
    parser.add_argument(
        "--role",
        action="append",
        metavar="R",
        help=f"a role of that user; repeatable [default: {', '.join(DEFAULT_ROLES)}]",
    )
    for right, metavar in (("subscribe", "NAME"), ("publish", "TOPIC")):
        parser.add_argument(
            f"--{right}",
            action="append",
            dest="questions",
            metavar=metavar,
            type=_question(right),
            help=f"may they {right} to it? Repeatable; exit status {DENIED} if one is denied",
        )


def check_config(given: argparse.Namespace, settings: Settings) -> int:
    """Answer the questions, or print all in words; answer the exit status. Opens no database."""
    questions: list[tuple[Right, str]] = given.questions or []
    asked = given.token is not None or given.user is not None
    if asked != bool(questions):
        raise ConfigurationError(
            "a question takes --token or --user, and --subscribe or --publish as well"
        )
    if not questions:
        print("\n".join(_describe(given.config, settings)))
        return 0
    for right, name in questions:
        problem = check_topic(name) if right == "publish" else check_pattern(name)
        if problem is not None:
            raise ConfigurationError(f"--{right} {_printable(name)}: {problem}")
    identity = _identity(given, settings)
    allowed = [_answer(settings, identity, right, name) for right, name in questions]
    return 0 if all(allowed) else DENIED


def _question(right: str) -> Callable[[str], tuple[str, str]]:
    return lambda name: (right, name)


def _answer(settings: Settings, identity: Identity, right: Right, name: str) -> bool:
    decision = Rules(settings.topics, settings.strict_topics).explain(identity, right, name)
    allowed, reason = decision.allowed, decision.reason
    if settings.connect_role and identity.roles.isdisjoint(settings.connect_role):
        wanted = _people(frozenset(settings.connect_role))
        has = ", ".join(sorted(identity.roles)) or "none"
        allowed, reason = False, f"connecting is for {wanted}; the token has {has}"
    verdict = "allowed" if allowed else "denied"
    print(f"{verdict}: {right} to {name}, because {_printable(reason)}")
    return allowed


# -- for whom --------------------------------------------------------------------------------


def _identity(given: argparse.Namespace, settings: Settings) -> Identity:
    if given.token is not None:
        if given.user is not None or given.role:
            raise ConfigurationError("--token says who it is: it goes without --user and --role")
        return _verify(_read_token() if given.token == "-" else given.token, settings)
    if not is_name(given.user):
        raise ConfigurationError(f"--user {_printable(given.user)}: cannot be a user's id")
    for role in given.role or ():
        if not is_role(role):
            raise ConfigurationError(f"--role {role!r} is not a role's name")
    return Identity(given.user, None, frozenset(given.role or DEFAULT_ROLES), None, time.time())


def _read_token() -> str:
    try:
        return sys.stdin.readline().strip()
    except UnicodeDecodeError:
        raise ConfigurationError("the token on standard input is not UTF-8") from None


def _verify(token: str, settings: Settings) -> Identity:
    state = Path(settings.state)
    given = settings.secret is not None or settings.secret_file is not None
    if settings.jwks_url is not None:
        print(
            "realtime: warning: the token is NOT verified, for --jwks-url is not asked",
            file=sys.stderr,
        )
        tokens = _unverified(settings)
    elif given or os.path.exists(state / SIGNING_KEY):
        tokens = make_tokens(settings, state, SimpleNamespace(seconds=time.time))
    else:
        where = _printable(settings.state)
        warning = f"the token is NOT verified, for there is no key in the state directory {where}"
        print(f"realtime: warning: {warning}", file=sys.stderr)
        tokens = _unverified(settings)
    try:
        return tokens.verify_access(token)
    except InvalidToken as error:
        raise ConfigurationError(f"--token: {error}") from None


def _unverified(settings: Settings) -> Tokens:
    return Tokens(_AnyKey(), issuer=settings.issuer, audience=settings.audience, now=time.time)


class _AnyKey(Keys):
    """Opens every token, whoever has signed it."""

    __slots__ = ()

    def __init__(self) -> None:
        pass

    def open(self, token: str) -> tuple[bytes, None]:
        try:
            payload: bytes = PyJWS().decode(token, options={"verify_signature": False})
        except (PyJWTError, ValueError, TypeError):
            raise InvalidToken() from None
        return payload, None


# -- in words --------------------------------------------------------------------------------


def _describe(file: str, settings: Settings) -> Iterator[str]:
    count = len(settings.topics)
    yield f"{_printable(file)}: {count or 'no'} rule{'s' * (count != 1)}"
    for number, namespace in enumerate(settings.topics, 1):
        yield f"\nrule {number}, {namespace.pattern}"
        yield from (f"  {name + ':':<15} {words}" for name, words in _rows(namespace))
    if not _has_rest(settings):
        yield ""
        if settings.strict_topics:
            yield "Topics that no rule names are refused."
        else:
            yield "Topics that no rule names are open to every authenticated user."
    changed = [
        f"  {option.name} = {option.shown(getattr(settings, option.key))}"
        for option in OPTIONS
        if getattr(settings, option.key) != option.default
    ]
    if changed:
        yield "\nOptions that differ from the default:"
        yield from changed
    warnings = [f"  {warning}" for warning in _warnings(settings)]
    if warnings:
        yield "\nWarnings:"
        yield from warnings


_SLOW_CONSUMERS: Final[dict[SlowConsumers, str]] = {
    "close": "are closed",
    "drop-oldest": "miss the oldest publications",
    "latest": "get the newest publication of each topic only",
}


def _rows(namespace: Namespace) -> Iterator[tuple[str, str]]:
    yield "subscribe", _people(namespace.subscribe)
    yield "publish", _people(namespace.publish)
    if namespace.history_size:
        age = f", none older than {namespace.history_ttl:g} seconds" * (namespace.history_ttl > 0)
        where = "on disk" if namespace.durable else "in memory"
        yield "history", f"the last {namespace.history_size:,} publications{age}, {where}"
        yield "read history", _readers(namespace.read_history)
    if namespace.presence:
        yield "presence", "known" + ", Join and Leave are announced" * namespace.join_leave
        yield "read presence", _readers(namespace.read_presence)
    if namespace.rate is not None:
        yield "rate", f"{namespace.rate:g} publications a second and connection"
    if namespace.max_payload is not None:
        yield "payload", f"{namespace.max_payload:,} bytes at most"
    if namespace.slow_consumers != "close":
        yield "slow consumers", _SLOW_CONSUMERS[namespace.slow_consumers]


def _people(named: frozenset[str] | None) -> str:
    if named is None or EVERYONE in named:
        return "every authenticated user"
    roles = sorted(named - {USER})
    words = ["the user whom $user names"] if USER in named else []
    if roles:
        words.append(f"the role{'s' * (len(roles) > 1)} {', '.join(roles)}")
    return ", and ".join(words) or "nobody"


def _readers(named: frozenset[str] | None) -> str:
    return "who may subscribe" if named is None else _people(named)


def _has_rest(settings: Settings) -> bool:
    return any(covers(plain_pattern(rule.pattern), ">") for rule in settings.topics)


def _warnings(settings: Settings) -> Iterator[str]:
    for number, namespace in enumerate(settings.topics, 1):
        where = f"rule {number}, {namespace.pattern}"
        if USER in namespace.pattern.split("."):
            yield from (f"{where}: {problem}" for problem in _leaks(namespace))
            rest = _of_dotted_ids(namespace.pattern)
            if _is_open(settings, rest):
                yield (
                    f"{where}: ids with a dot are never {USER}, so that their topics are open to "
                    f"everyone; a rule for {rest} after it can close them"
                )
        if namespace.join_leave and _reads_less(namespace):
            yield (
                f"{where}: join_leave tells everyone who may subscribe who comes and goes, those "
                "whom read_presence leaves out as well"
            )
        if namespace.max_payload is not None and namespace.max_payload > settings.max_frame_size:
            yield f"{where}: max_payload is more than max-frame-size lets through"
        if namespace.rate is not None and namespace.rate > settings.message_rate:
            yield f"{where}: rate is more than message-rate lets through"
    if settings.topics and not settings.strict_topics and not _has_rest(settings):
        yield (
            "no rule for the rest (>): every authenticated user may use topics that no rule names; "
            "strict-topics = true refuses them"
        )


def _leaks(namespace: Namespace) -> Iterator[str]:
    """Rights by which users read what is meant for the one whom `$user` names."""
    rights = {"subscribe": namespace.subscribe}
    for right, named in (
        ("read_history", namespace.read_history),
        ("read_presence", namespace.read_presence),
    ):
        if named is not None:
            rights[right] = named
    for right, named in rights.items():
        if named is None or EVERYONE in named:
            yield f"{right} is open to everyone: every user may read others' topics"
            continue
        for role in sorted(named.intersection(DEFAULT_ROLES)):
            yield f"{right} lists the role {role}: every user who has it may read others' topics"


def _of_dotted_ids(pattern: str) -> str:
    """The pattern of what ids with a dot, several parts, make of a pattern with `$user`."""
    parts = pattern.split(".")
    return ".".join([*parts[: parts.index(USER)], ">"])


def _is_open(settings: Settings, pattern: str) -> bool:
    """Whether everybody may subscribe to what a pattern matches, where no other rule holds."""
    for namespace in settings.topics:
        if covers(plain_pattern(namespace.pattern), pattern):
            return namespace.subscribe is None or EVERYONE in namespace.subscribe
    return not settings.strict_topics


def _reads_less(namespace: Namespace) -> bool:
    """Whether somebody may subscribe who may not read presence."""
    readers, subscribers = namespace.read_presence, namespace.subscribe
    if readers is None or EVERYONE in readers:
        return False
    return subscribers is None or not subscribers <= readers


def _printable(text: str) -> str:
    """A text with escapes for what a terminal might obey: roles are what an issuer writes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
