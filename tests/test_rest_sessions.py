"""Tests for `realtime.rest_sessions`: the real sessions, over a real socket."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import TestCase

from realtime.model import User
from tests.support.http import Answer, OnSocket, Wire, make_api, make_site
from tests.support.identity import ALICE, PASSWORD, IdentityKit, make_identity, make_tokens

JSON = {"Content-Type": "application/json"}


class BodyTests(TestCase):
    """How the bodies of `POST /sessions` and `POST /sessions/refresh` are read."""

    def setUp(self) -> None:
        """Ask in memory: nothing here comes as far as the database."""
        self.wire = Wire(make_site(make_api(self).resource))

    def ask(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        """Send a request, and take its answer."""
        lines = [f"{method} {path} HTTP/1.1", "Host: server", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.wire.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        return self.wire.answer()

    def test_content_type(self) -> None:
        """Anything but application/json is 415, a missing Content-Type included."""
        for path in ("/sessions", "/sessions/refresh"):
            for content_type in (
                None,
                "text/plain",
                "application/x-www-form-urlencoded",
                "multipart/form-data; boundary=x",
                "application/jsonp",
                "",
                ";",
            ):
                headers = {} if content_type is None else {"Content-Type": content_type}
                answer = self.ask("POST", path, headers, b"{}")
                self.assertEqual(answer.status, 415, content_type)
                self.assertEqual(answer.error()["code"], "INVALID_REQUEST")
                self.assertEqual(answer.header("Accept-Post"), "application/json")
        answer = self.ask("POST", "/sessions", JSON | {"Content-Encoding": "gzip"}, b"{}")
        self.assertEqual(answer.status, 415)

    def test_content_type_parameters(self) -> None:
        """Parameters and case of the Content-Type make no difference."""
        for content_type in (
            "application/json; charset=utf-8",
            "Application/JSON",
            "application/json;charset=UTF-8; x=y",
        ):
            answer = self.ask("POST", "/sessions", {"Content-Type": content_type}, b"{}")
            self.assertEqual(answer.error()["details"], {"field": "username"})

    def test_not_json(self) -> None:
        """What is not strictly JSON, or not an object, is 400."""
        for body in (
            b"",
            b"{",
            b"{}x",
            b"[]",
            b"null",
            b'"username"',
            b"\xff\xfe",
            b'{"username": "a", "password": NaN}',
            b'{"username": "\xff", "password": "b"}',
            b'{"username": "\\ud800", "password": "b"}',
            b"[" * 60000,
        ):
            for path in ("/sessions", "/sessions/refresh"):
                answer = self.ask("POST", path, JSON, body)
                self.assertEqual(answer.status, 400, body[:20])
                self.assertEqual(answer.error()["code"], "INVALID_REQUEST")

    def test_fields(self) -> None:
        """A member that is missing or no string is named."""
        for path, value, field in (
            ("/sessions", {}, "username"),
            ("/sessions", {"password": "b"}, "username"),
            ("/sessions", {"username": "a"}, "password"),
            ("/sessions", {"username": None, "password": "b"}, "username"),
            ("/sessions", {"username": ["a"], "password": "b"}, "username"),
            ("/sessions", {"username": "a", "password": 1}, "password"),
            ("/sessions/refresh", {}, "refresh_token"),
            ("/sessions/refresh", {"refresh_token": 5}, "refresh_token"),
        ):
            answer = self.ask("POST", path, JSON, json.dumps(value).encode())
            self.assertEqual(answer.status, 400)
            error = answer.error()
            self.assertEqual(error["code"], "INVALID_REQUEST")
            self.assertEqual(error["details"], {"field": field})
            self.assertIn(field, error["message"])


class SessionsTests(TestCase):
    """Logging in, renewing and ending sessions."""

    kit: IdentityKit
    ask: OnSocket
    user: User

    async def setUp(self) -> None:
        """Serve one user's sessions."""
        await self.serve()

    async def serve(self, **options: Any) -> None:
        """Serve the sessions of a new database with the user alice."""
        self.kit = await make_identity(self, **options)
        self.user = await self.kit.accounts.create("alice", PASSWORD, ["user", "subscriber"])
        self.ask = OnSocket(self, make_api(self, auth=self.kit.auth).resource)

    async def post(self, path: str, **body: Any) -> Answer:
        """Post JSON."""
        return await self.ask("POST", path, JSON, json.dumps(body).encode())

    async def log_in(self, username: str = "alice") -> Any:
        """Log in, and give back the answer's body."""
        answer = await self.post("/sessions", username=username, password=PASSWORD)
        self.assertEqual(answer.status, 200)
        return answer.json()

    async def delete(self, session_id: str, token: str | None) -> Answer:
        """Try to end a session."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return await self.ask("DELETE", f"/sessions/{session_id}", headers)

    async def test_create(self) -> None:
        """Logging in answers what the reference shows, and the session's id."""
        answer = await self.post("/sessions", username="alice", password=PASSWORD, more=[1])
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.header("Cache-Control"), "no-store")
        body = answer.json()
        self.assertEqual(
            list(body),
            ["access_token", "refresh_token", "expires_in", "token_type", "session_id", "user"],
        )
        self.assertEqual((body["expires_in"], body["token_type"]), (3600, "Bearer"))
        self.assertEqual(
            body["user"],
            {"id": self.user.user_id, "username": "alice", "roles": ["user", "subscriber"]},
        )
        identity = self.kit.auth.authenticate(body["access_token"])
        self.assertEqual(identity.user_id, self.user.user_id)
        self.assertEqual(identity.session_id, body["session_id"])

    async def test_wrong_credentials(self) -> None:
        """A wrong password and an unknown user get the same 401."""
        answers = [
            await self.post("/sessions", username=username, password=password)
            for username, password in (("alice", "wrong"), ("nobody", PASSWORD), ("", ""))
        ]
        for answer in answers:
            self.assertEqual(answer.status, 401)
            self.assertEqual(answer.error()["code"], "INVALID_CREDENTIALS")
            self.assertEqual(answer.header("WWW-Authenticate"), "Bearer")
            self.assertEqual(answer.body, answers[0].body)

    async def test_rate_limit(self) -> None:
        """Too many attempts are 429 with the time to wait, for the right password as well."""
        for _ in range(3):
            await self.post("/sessions", username="alice", password="wrong")
        answer = await self.post("/sessions", username="alice", password=PASSWORD)
        self.assertEqual(answer.status, 429)
        error = answer.error()
        self.assertEqual(error["code"], "RATE_LIMITED")
        self.assertGreater(error["details"]["retry_after_ms"], 0)
        self.assertGreater(int(answer.header("Retry-After") or ""), 0)
        self.assertEqual(answer.header("Access-Control-Allow-Origin"), "*")

    async def test_refresh(self) -> None:
        """A refresh token gets another access token of its session, again and again."""
        login = await self.log_in()
        for _ in range(2):
            answer = await self.post("/sessions/refresh", refresh_token=login["refresh_token"])
            self.assertEqual(answer.status, 200)
            self.assertEqual(answer.header("Cache-Control"), "no-store")
            body = answer.json()
            self.assertEqual(list(body), ["access_token", "expires_in", "token_type"])
            self.assertEqual((body["expires_in"], body["token_type"]), (3600, "Bearer"))
            identity = self.kit.auth.authenticate(body["access_token"])
            self.assertEqual(identity.session_id, login["session_id"])
        self.kit.auth.authenticate(login["access_token"])

    async def test_rotation(self) -> None:
        """Where refresh tokens rotate the answer has the next one."""
        await self.serve(rotate_refresh_tokens=True)
        login = await self.log_in()
        answer = await self.post("/sessions/refresh", refresh_token=login["refresh_token"])
        self.assertNotEqual(answer.json()["refresh_token"], login["refresh_token"])

    async def test_refresh_refused(self) -> None:
        """Access tokens, foreign tokens and nonsense renew nothing."""
        login = await self.log_in()
        foreign = make_tokens(self.kit.clock.seconds).issue_refresh(ALICE, "no-such-session")
        for token in (login["access_token"], login["refresh_token"] + "x", foreign, "", "a.b.c"):
            answer = await self.post("/sessions/refresh", refresh_token=token)
            self.assertEqual(answer.status, 401, token)
            self.assertEqual(answer.error()["code"], "INVALID_TOKEN")
            self.assertEqual(answer.header("WWW-Authenticate"), "Bearer")

    async def test_refresh_expired(self) -> None:
        """An expired refresh token is told apart."""
        login = await self.log_in()
        self.kit.clock.advance(30 * 86400 + 11)
        answer = await self.post("/sessions/refresh", refresh_token=login["refresh_token"])
        self.assertEqual(answer.status, 401)
        self.assertEqual(answer.error()["code"], "TOKEN_EXPIRED")

    async def test_end(self) -> None:
        """Ending one's session is 204; its tokens are refused from then on."""
        login = await self.log_in()
        answer = await self.delete(login["session_id"], login["access_token"])
        self.assertEqual((answer.status, answer.body), (204, b""))
        self.assertIsNone(answer.header("Content-Type"))
        self.assertEqual(self.kit.revoked, [("session", login["session_id"])])
        again = await self.delete(login["session_id"], login["access_token"])
        self.assertEqual(again.status, 401)
        self.assertEqual(again.error()["code"], "INVALID_TOKEN")
        refresh = await self.post("/sessions/refresh", refresh_token=login["refresh_token"])
        self.assertEqual(refresh.status, 401)

    async def test_end_needs_a_token(self) -> None:
        """No token, one in the query, a refresh token or another scheme are 401."""
        login = await self.log_in()
        path = f"/sessions/{login['session_id']}"
        access, refresh = login["access_token"], login["refresh_token"]
        for suffix, headers in (
            ("", {}),
            (f"?token={access}", {}),
            ("", {"Sec-WebSocket-Protocol": f"access_token.{access}"}),
            ("", {"Authorization": access}),
            ("", {"Authorization": f"Basic {access}"}),
            ("", {"Authorization": "Bearer"}),
            ("", {"Authorization": "Bearer "}),
            ("", {"Authorization": f"Bearer {refresh}"}),
            ("", {"Authorization": f"Bearer {access[:-2]}"}),
        ):
            answer = await self.ask("DELETE", path + suffix, headers)
            self.assertEqual(answer.status, 401, headers)
            self.assertEqual(answer.error()["code"], "INVALID_TOKEN")
            self.assertEqual(answer.header("WWW-Authenticate"), "Bearer")
        answer = await self.ask("DELETE", path, {"Authorization": f"bearer  {access}"})
        self.assertEqual(answer.status, 204)

    async def test_end_expired(self) -> None:
        """An expired access token is told apart."""
        login = await self.log_in()
        self.kit.clock.advance(3611)
        answer = await self.delete(login["session_id"], login["access_token"])
        self.assertEqual(answer.status, 401)
        self.assertEqual(answer.error()["code"], "TOKEN_EXPIRED")

    async def test_end_another(self) -> None:
        """Another's session is 403, an unknown one 404; an admin may end any."""
        await self.kit.accounts.create("bob", PASSWORD, ["user"])
        await self.kit.accounts.create("root", PASSWORD, ["admin"])
        alice, bob, root = [await self.log_in(name) for name in ("alice", "bob", "root")]
        refused = await self.delete(alice["session_id"], bob["access_token"])
        self.assertEqual(refused.status, 403)
        self.assertEqual(refused.error()["code"], "FORBIDDEN")
        unknown = await self.delete("nothing", bob["access_token"])
        self.assertEqual(unknown.status, 404)
        self.assertEqual(unknown.error()["code"], "NOT_FOUND")
        ended = await self.delete(alice["session_id"], root["access_token"])
        self.assertEqual(ended.status, 204)
        self.assertEqual(self.kit.revoked, [("session", alice["session_id"])])

    async def test_unavailable(self) -> None:
        """Where the database is out of reach the answer is 503 with a time to come back."""
        await self.kit.database.close()
        answer = await self.post("/sessions", username="alice", password=PASSWORD)
        self.assertEqual(answer.status, 503)
        self.assertEqual(answer.error()["code"], "UNAVAILABLE")
        self.assertIsNotNone(answer.header("Retry-After"))
