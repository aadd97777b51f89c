"""The OpenAPI document against the running server: schemathesis makes requests of it."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.request import urlopen

import schemathesis
from hypothesis import HealthCheck, given, settings
from klein import Klein
from openapi_spec_validator import validate
from schemathesis.specs.openapi.checks import positive_data_acceptance
from twisted.trial.unittest import SynchronousTestCase

from realtime.rest_connections import add_connections
from realtime.rest_publish import add_publish
from realtime.rest_sessions import add_sessions
from realtime.rest_topics import add_topics
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


def closed(document: dict[str, Any]) -> dict[str, Any]:
    """The document with no members allowed in answers but those that it has."""
    document = json.loads(json.dumps(document))
    schemas = document["components"]["schemas"]
    for name in ("Error", "Member", "Entry", "Published", "Connection"):
        close(schemas[name])
    for methods in document["paths"].values():
        for operation in methods.values():
            close(operation["responses"])
    return document


def close(part: Any) -> None:
    """Allow no further members in any object of a schema."""
    if isinstance(part, dict):
        if "properties" in part:
            part["additionalProperties"] = False
        for each in part.values():
            close(each)
    elif isinstance(part, list):
        for each in part:
            close(each)


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
        schema = schemathesis.openapi.from_dict(closed(self.document))
        schema.config.update(base_url=self.server.http_url)
        for result in schema.get_all_operations():
            operation = result.ok()

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
