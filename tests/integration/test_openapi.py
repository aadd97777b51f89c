"""The OpenAPI document against the running server: schemathesis makes requests of it."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.request import Request, urlopen

import schemathesis
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator
from klein import Klein
from openapi_spec_validator import validate
from schemathesis.specs.openapi.checks import positive_data_acceptance
from twisted.trial.unittest import SynchronousTestCase
from websockets.sync.client import connect

from realtime.rest_connections import add_connections
from realtime.rest_publish import add_publish
from realtime.rest_sessions import add_sessions
from realtime.rest_topics import add_topics
from realtime.sse import add_sse
from tests.support.schemas import closed
from tests.support.server import Server

CONFIG = """
login-rate = 100000.0
login-burst = 100000.0

[[topic]]
pattern = "kept.>"
history_size = 10
presence = true
"""
# Requests to each endpoint.
EXAMPLES = 12


def strict(document: dict[str, Any]) -> dict[str, Any]:
    """The document with no members allowed in answers but those that it has."""
    copy = dict(document)
    copy["components"] = components = dict(document["components"])
    components["responses"] = closed(components["responses"])
    answers = ("Error", "Member", "Entry", "Published", "Connection")
    components["schemas"] = {
        name: closed(schema) if name in answers else schema
        for name, schema in components["schemas"].items()
    }
    copy["paths"] = {
        path: {
            method: operation | {"responses": closed(operation["responses"])}
            for method, operation in methods.items()
        }
        for path, methods in document["paths"].items()
    }
    return copy


class OpenApiTests(SynchronousTestCase):
    """What the document says of the HTTP interface."""

    def setUp(self) -> None:
        """Start a server, and get its document."""
        config = tempfile.NamedTemporaryFile("w", suffix=".toml", delete=False)  # noqa: SIM115
        self.addCleanup(Path(config.name).unlink)
        with config:
            config.write(CONFIG)
        self.server = Server("--config", config.name).start()
        self.addCleanup(self.server.stop)
        with urlopen(f"{self.server.http_url}/openapi.json", timeout=10) as answer:
            self.document: dict[str, Any] = json.load(answer)

    def test_valid(self) -> None:
        """It is valid OpenAPI 3.1."""
        validate(self.document)
        self.assertEqual(self.document["openapi"][:3], "3.1")

    def test_every_route(self) -> None:
        """It has every route of the application but the page's, and no other."""
        app = Klein()
        add_routes: Any = (add_publish, add_topics, add_connections)
        for add in add_routes:
            add(app, SimpleNamespace(node=None), None)
        add_sessions(app, cast("Any", None))
        add_sse(app, cast("Any", SimpleNamespace(open=print, command=print)))
        routes = {
            (re.sub(r"<(?:path:)?(\w+)>", r"{\1}", rule.rule), method)
            for rule in app.url_map.iter_rules()
            for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        }
        described = {
            (path, method.upper())
            for path, methods in self.document["paths"].items()
            for method in methods
        }
        others = {("/health", "GET"), ("/health/live", "GET"), ("/health/ready", "GET")}
        others |= {(path, "GET") for path in ("/metrics", "/info", "/ws")}
        others |= {(path, "GET") for path in ("/openapi.json", "/asyncapi.json")}
        self.assertEqual(routes | others, described)

    def test_requests(self) -> None:
        """Whatever is asked, the answer is one that the document has."""
        token = self.server.login("admin", self.server.admin_password)["access_token"]
        schema = schemathesis.openapi.from_dict(strict(self.document))
        schema.config.update(base_url=self.server.http_url)
        for result in schema.get_all_operations():
            operation = result.ok()
            if operation.path == "/sse":  # whose answers do not end
                continue

            @settings(
                max_examples=EXAMPLES,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy())
            def ask(case: Any) -> None:
                case.call_and_validate(
                    headers={"Authorization": f"Bearer {token}"},
                    timeout=10,
                    # What a topic or a user's id may be a schema does not say.
                    excluded_checks=[positive_data_acceptance],
                )

            ask()

    def test_answers(self) -> None:
        """Every endpoint answers with what the document has, and with no member besides."""
        document = strict(self.document)
        described = {
            (path, method.upper()): operation["responses"]
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
        }
        login = {"username": "admin", "password": self.server.admin_password}
        asked: set[tuple[str, str]] = set()

        def ask(
            method: str, template: str, body: Any = None, status: int = 200, **path: str
        ) -> Any:
            target = template.format(**path)
            got, _, answer = self.server.request(method, target, body, **headers)
            self.assertEqual(got, status, (method, target, answer))
            template = template.partition("?")[0]
            response = described[template, method][str(status)]
            if "$ref" in response:
                response = document["components"]["responses"]["Refused"]
            if "content" in response:
                schema = response["content"]["application/json"]["schema"]
                Draft202012Validator(schema | {"components": document["components"]}).validate(
                    answer
                )
            asked.add((template, method))
            return answer

        headers: dict[str, str] = {}
        session = ask("POST", "/sessions", login)
        renewed = ask("POST", "/sessions/refresh", {"refresh_token": session["refresh_token"]})
        ask("POST", "/sessions", {"username": "admin"}, 400)
        ask("GET", "/ws", status=426)
        ask("GET", "/sse", status=401)
        headers["Authorization"] = f"Bearer {renewed['access_token']}"
        for path in ("health", "health/ready", "health/live", "metrics", "info"):
            ask("GET", f"/{path}")
        ask("GET", "/openapi.json")
        ask("GET", "/asyncapi.json")
        with connect(self.server.token_url(session["access_token"])) as socket:
            for command, data in (
                ("Subscribe", {"topics": ["kept.a", "b", "kept.b"]}),
                ("Presence", {"topic": "kept.a", "state": [1]}),
            ):
                socket.send(json.dumps({"type": command, "data": data, "id": command}))
                while json.loads(socket.recv(timeout=10)).get("id") != command:
                    pass
            first = ask("POST", "/publish", {"topic": "kept.a", "payload": {"n": 1}})
            ask("POST", "/publish", {"topics": ["kept.a", "b", "$c"], "payload": 2})
            ask("POST", "/publish", {"topic": "$c", "payload": 2}, 403)
            commands = [
                {"publish": {"topic": "kept.a", "payload": 3}},
                {"publish": {"topics": ["b", "$c"], "payload": 3}},
                {"direct": {"user": "admin", "payload": 4}},
                {},
            ]
            ask("POST", "/batch", {"commands": commands})
            ask("POST", "/users/{user}/messages", {"payload": 1}, user="admin")
            ask("GET", "/topics?limit=1")
            ask("GET", "/topics/{topic}/presence?limit=1", topic="kept.a")
            ask("GET", "/topics/{topic}/presence", status=404, topic="b")
            ask("GET", "/topics/{topic}/history", topic="kept.a")
            lost = f"since_offset=99&since_epoch={first['epoch']}"
            ask("GET", "/topics/{topic}/history?" + lost, status=409, topic="kept.a")
            ask("DELETE", "/topics/{topic}/history", status=204, topic="kept.a")
            ask("GET", "/connections?limit=1")
            with urlopen(
                Request(f"{self.server.http_url}/sse", headers=headers), timeout=10
            ) as sse:
                self.assertEqual(sse.headers.get_content_type(), "text/event-stream")
                while not (line := sse.readline()).startswith(b"data: "):
                    pass
                stream = json.loads(line[6:])["data"]["connection_id"]
                ask("POST", "/sse/{connection_id}", {"type": "Ping"}, 202, connection_id=stream)
            ask("DELETE", "/connections/{connection_id}", status=404, connection_id="x-1")
            ask("DELETE", "/users/{user}/connections", user=session["user"]["id"])
            ask("DELETE", "/connections/{connection_id}", status=404, connection_id="x-2")
        ask("DELETE", "/sessions/{session_id}", status=204, session_id=session["session_id"])
        self.assertEqual(asked, set(described))
