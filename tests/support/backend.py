"""The server API, asked in memory, with a world of clients beside it."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from realtime.api_keys import ApiKeys
from realtime.backends import Backends
from realtime.database import Database
from realtime.model import User
from tests.support.http import Answer, InMemory, make_api
from tests.support.identity import IdentityKit, make_access, make_clock, make_state_dir
from tests.support.peers import World

JSON = {"Content-Type": "application/json"}


class BackendTestCase(TestCase):
    """A backend with the role service, and clients to see what it does."""

    def make(self, **options: Any) -> None:
        """Make the world and the API."""
        self.world = World(**options)
        database = Database(f"{make_state_dir(self)}/unused.sqlite3", reactor)
        kit = IdentityKit(self, database, make_clock())
        self.clock = kit.clock
        backends = Backends(kit.auth, ApiKeys(database, kit.clock.seconds))
        self.api = make_api(self, self.world.node, auth=kit.auth, backends=backends)
        self._ask = InMemory(self, self.api.resource)

    def token(self, *roles: str) -> str:
        """An access token of a user with these roles."""
        return make_access(self.clock.seconds, User("user_x", "x", roles, 0.0))

    def ask(
        self, method: str, path: str, body: Any = None, roles: tuple[str, ...] = ("service",)
    ) -> Answer:
        """Ask as one with these roles; a body is JSON, or the bytes given."""
        headers = {"Authorization": f"Bearer {self.token(*roles)}"}
        if body is not None:
            headers |= JSON
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._ask(method, path, headers, body)

    def ok(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of an answer that has to be good."""
        answer = self.ask(method, path, body)
        self.assertEqual(answer.status, 200, answer.body)
        return answer.json()

    def assert_error(self, answer: Answer, status: int, code: str, **details: Any) -> None:
        """The answer is this error."""
        self.assertEqual((answer.status, answer.error()["code"]), (status, code), answer.body)
        self.assertEqual(answer.error()["details"], details)
