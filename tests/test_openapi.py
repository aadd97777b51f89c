"""Tests of realtime.openapi: what its schemas say of bodies, the server says as well."""

from __future__ import annotations

from typing import Any

from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from realtime.openapi import PATHS, openapi
from realtime.rest_publish import MAX_AT_ONCE
from tests.support.backend import BackendTestCase

PUBLISH: dict[str, Any] = {"topic": "a", "payload": 1}
DIRECT: dict[str, Any] = {"user": "u", "payload": None}
# Bodies by path: those that are taken, and those that are not.
GOOD: dict[str, list[Any]] = {
    "/publish": [
        PUBLISH,
        PUBLISH | {"topics": None, "key": None, "from_user": None, "exclude": None},
        PUBLISH | {"key": "k" * 128, "from_user": "u", "exclude": "c-1", "more": 1},
        {"topics": ["a"] * MAX_AT_ONCE, "payload": {}},
        {"topic": None, "topics": ["a", "$b"], "payload": {}},
    ],
    "/batch": [
        {"commands": []},
        {"commands": [{"publish": PUBLISH}, {"direct": DIRECT}]},
        {"commands": [{"publish": PUBLISH, "direct": None}, {"direct": DIRECT | {"key": "k"}}]},
    ],
    "/users/{user}/messages": [{"payload": 1}, {"payload": [], "key": "k", "from_user": "u"}],
}
BAD: dict[str, list[Any]] = {
    "/publish": [
        {},
        {"topic": "a"},
        {"payload": 1},
        {"topic": None, "payload": 1},
        {"topic": None, "topics": None, "payload": 1},
        PUBLISH | {"topics": ["a"]},
        {"topics": [], "payload": 1},
        {"topics": ["a"] * (MAX_AT_ONCE + 1), "payload": 1},
        PUBLISH | {"key": ""},
        PUBLISH | {"key": "k" * 129},
        PUBLISH | {"exclude": 1},
        [PUBLISH],
    ],
    "/batch": [
        {},
        {"commands": {}},
        {"commands": [{}] * (MAX_AT_ONCE + 1)},
        {"commands": [{}]},
        {"commands": [{"publish": None}]},
        {"commands": [{"publish": PUBLISH, "direct": DIRECT}]},
        {"commands": [{"publish": {"payload": 1}}]},
        {"commands": [{"direct": {"payload": 1}}]},
        {"commands": [{"direct": {"user": "", "payload": 1}}]},
        {"commands": [{"direct": {"user": "u"}}]},
    ],
    "/users/{user}/messages": [{}, {"payload": 1, "key": ""}],
}


class OpenApiTests(BackendTestCase):
    """The document as it stands."""

    def judge(self, path: str) -> Draft202012Validator:
        """What judges the bodies of a path."""
        document = openapi()
        body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        return Draft202012Validator(body["schema"] | {"components": document["components"]})

    def taken(self, path: str, body: Any) -> bool:
        """Whether the server takes a body, and in a batch each command."""
        answer = self.ask("POST", path.format(user="u"), body)
        if answer.status != 200:
            self.assertEqual(answer.status, 400, answer.body)
            return False
        results = answer.json().get("results", []) if path == "/batch" else []
        return all("error" not in result for result in results)

    def test_bodies(self) -> None:
        """A body that the document allows is taken, and one that it does not is refused."""
        self.make()
        for allowed, bodies in ((True, GOOD), (False, BAD)):
            for path, each in bodies.items():
                judge = self.judge(path)
                for body in each:
                    self.assertEqual(judge.is_valid(body), allowed, (path, str(body)[:200]))
                    self.assertEqual(self.taken(path, body), allowed, (path, str(body)[:200]))

    def test_statuses(self) -> None:
        """Every operation lists the statuses it can have, and leaves none to a default."""
        validate(openapi())
        for path, methods in PATHS.items():
            for operation in methods.values():
                statuses = set(operation["responses"])
                self.assertNotIn("default", statuses)
                self.assertLessEqual({"404"} if "{" in path else set(), statuses, path)
                self.assertLessEqual({"400", "408", "413", "431", "500"}, statuses, path)
                needs_token = operation.get("security") != []
                self.assertEqual(needs_token, "403" in statuses, path)
                self.assertEqual("requestBody" in operation, "415" in statuses, path)
