"""SIGHUP: the configuration, the certificate and the keys of tokens are read again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

from twisted.logger import Logger

from realtime.audit import Audit
from realtime.credentials import Credentials
from realtime.errors import ConfigurationError
from realtime.node import Node
from realtime.origins import Origins
from realtime.rules import Rules
from realtime.settings import Settings
from realtime.tls import Certificates

_log = Logger()

# What can change while the server runs.
RELOADABLE = frozenset({"origin", "strict_topics", "topics"})


class Reloading:
    """Takes in what has changed; where something is wrong, all stays as it was."""

    def __init__(
        self,
        settings: Settings,
        read: Callable[[], Settings],
        node: Node,
        origins: Origins,
        certificates: Certificates | None,
        credentials: Credentials,
        audit: Audit,
    ) -> None:
        self._settings = settings
        self._read = read
        self._node = node
        self._origins = origins
        self._certificates = certificates
        self._credentials = credentials
        self._audit = audit

    def __call__(self) -> None:
        """Read again, and tell the log what came of it."""
        try:  # By itself: whoever has moved the log away waits for it, whatever else is wrong.
            self._audit.reopen()
        except ConfigurationError as error:
            _log.error("The audit log stays where it is: {problem}", problem=str(error))
        try:
            new = self._read()
            rules, origins = Rules(new.topics, new.strict_topics), Origins(new.origin)
            take_keys = self._credentials.read_again()
            if self._certificates is not None:
                self._certificates.load()
        except ConfigurationError as error:
            _log.error("Nothing is changed by the reload: {problem}", problem=str(error))
            self._audit.note("reload", "failed")
            return
        self._audit.note("reload")
        take_keys()
        self._node.rules.become(rules)
        self._node.forget_names()
        self._origins.become(origins)
        fixed = sorted(
            f"--{field.name.replace('_', '-')}"
            for field in fields(Settings)
            if field.name not in RELOADABLE
            and getattr(new, field.name) != getattr(self._settings, field.name)
        )
        if fixed:
            _log.warn("Reloaded; these need a restart: {options}", options=", ".join(fixed))
        else:
            _log.info("Reloaded the rules, the origins, the keys, and the certificate if any")
