"""The bodies that the reference shows, sent to and compared with those of a real server."""

from __future__ import annotations

import json
import re
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from websockets.sync.client import connect

from realtime.errors import ErrorCode
from tests.support.reference import code_blocks, no_reference, text
from tests.support.server import Server

BODIES = ("Request", "Response")
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def shown(part: str, endpoint: str = "") -> list[Any]:
    """The JSON bodies below a heading, that of an endpoint if one is given."""
    return [json.loads(block) for block in code_blocks("json", part, endpoint)]


def shape(value: Any) -> Any:
    """The members and types of a JSON value, without what it says."""
    if isinstance(value, dict):
        return {name: shape(member) for name, member in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__


class RestTests(SynchronousTestCase):
    """Endpoint by endpoint."""

    skip = no_reference()

    def setUp(self) -> None:
        self.server = Server("--max-connections=1").start()
        self.addCleanup(self.server.stop)

    def same(self, answer: tuple[int, Any, Any], status: int, body: Any) -> Any:
        """An answer has a status, and the shape of a body that is shown."""
        self.assertEqual((answer[0], shape(answer[2])), (status, shape(body)))
        return answer[2]

    def test_health(self) -> None:
        """A healthy server and one at capacity answer as shown, the reason word for word."""
        healthy, full = shown("Response", "GET /health")
        found = self.same(self.server.request("GET", "/health"), 200, healthy)
        self.assertEqual(found["status"], healthy["status"])
        token = self.server.login("admin", self.server.admin_password)["access_token"]
        with connect(self.server.token_url(token)) as client:
            client.recv(30)
            found = self.same(self.server.request("GET", "/health"), 503, full)
        self.assertEqual(found, full | {"active_connections": 1, "max_connections": 1})

    def test_metrics_and_info(self) -> None:
        """Metrics have the members shown; so has the information, with the same features."""
        (metrics,) = shown("Response", "GET /metrics")
        self.same(self.server.request("GET", "/metrics"), 200, metrics)
        (info,) = shown("Response", "GET /info")
        found = self.same(self.server.request("GET", "/info"), 200, info)
        self.assertEqual(found["features"], info["features"])
        self.assertEqual(found["server"]["name"], info["server"]["name"])
        config = found["server"]["config"]
        ours = {"host": "127.0.0.1", "port": self.server.port, "max_connections": 1}
        self.assertEqual(config, info["server"]["config"] | ours)

    def test_sessions(self) -> None:
        """The credentials shown log in, refresh and log out, with the answers shown."""
        ((credentials,), (answer,)) = (shown(part, "POST /sessions") for part in BODIES)
        self.server.add_user(credentials["username"], credentials["password"])
        login = self.same(
            self.server.request("POST", "/sessions", credentials),
            200,
            answer | {"session_id": "what ends it"},
        )
        self.assertEqual(login["user"], answer["user"] | {"id": login["user"]["id"]})
        for name in ("token_type", "expires_in"):
            self.assertEqual(login[name], answer[name])

        ((body,), (answer,)) = (shown(part, "POST /sessions/refresh") for part in BODIES)
        self.assertEqual(list(body), ["refresh_token"])
        body["refresh_token"] = login["refresh_token"]
        renewed = self.same(self.server.request("POST", "/sessions/refresh", body), 200, answer)

        bearer = {"Authorization": f"Bearer {renewed['access_token']}"}
        path = f"/sessions/{login['session_id']}"
        status, headers, content = self.server.request("DELETE", path, **bearer)
        self.assertEqual((status, content), (204, b""))
        self.assertNotIn("content-type", headers)

        (envelope,) = shown("Error Handling")
        for answered, status, code in (
            (self.server.request("POST", "/sessions/refresh", body), 401, "INVALID_TOKEN"),
            (self.server.request("DELETE", path, **bearer), 401, "INVALID_TOKEN"),
            (self.server.request("POST", "/sessions", {}), 400, "INVALID_REQUEST"),
            (self.server.request("GET", "/ws", **UPGRADE), 401, "INVALID_TOKEN"),
        ):
            self.assertEqual((answered[0], answered[2]["error"]["code"]), (status, code))
            self.assertIsInstance(answered[2]["error"]["details"], dict)
            answered[2]["error"]["details"] = envelope["error"]["details"]
            self.assertEqual(shape(answered[2]), shape(envelope))


class ErrorTests(SynchronousTestCase):
    """What the reference tells of errors."""

    skip = no_reference()

    def test_error_codes(self) -> None:
        """Every error code that is listed is one of ours."""
        listed = re.findall(r"^- `([A-Z_]+)`: ", text(), flags=re.M)
        self.assertEqual(len(listed), 6)
        self.assertLessEqual(set(listed), {code.value for code in ErrorCode})
