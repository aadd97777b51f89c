"""`/sessions`: logging in, renewing, ending (reference: Session Management APIs)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from klein import Klein
from twisted.web.iweb import IRequest

from realtime.addresses import Proxies
from realtime.answers import answer_json
from realtime.auth import Auth
from realtime.envelope import decode_json
from realtime.errors import InvalidRequest
from realtime.rest_requests import add_route, bearer_token, read_json


def add_sessions(app: Klein, auth: Auth, proxies: Proxies | None = None) -> None:
    """Add the routes of sessions to an application."""
    sessions = _Sessions(auth, proxies or Proxies())
    add_route(app, "POST", "/sessions", sessions.create)
    add_route(app, "POST", "/sessions/refresh", sessions.refresh)
    add_route(app, "DELETE", "/sessions/<session_id>", sessions.end)


class _Sessions:
    def __init__(self, auth: Auth, proxies: Proxies) -> None:
        self._auth = auth
        self._proxies = proxies

    async def create(self, request: IRequest) -> bytes:
        """Log in."""
        username, password = _read_strings(request, ("username", "password"))
        login = await self._auth.login(username, password, self._address(request))
        return answer_json(
            request,
            {
                "access_token": login.access_token,
                "refresh_token": login.refresh_token,
                "expires_in": login.expires_in,
                "token_type": "Bearer",
                "session_id": login.session_id,
                "user": {
                    "id": login.user.user_id,
                    "username": login.user.username,
                    "roles": list(login.user.roles),
                },
            },
        )

    async def refresh(self, request: IRequest) -> bytes:
        """Issue another access token, and where they rotate another refresh token."""
        (refresh_token,) = _read_strings(request, ("refresh_token",))
        renewal = await self._auth.refresh(refresh_token, self._address(request))
        body: dict[str, Any] = {
            "access_token": renewal.access_token,
            "expires_in": renewal.expires_in,
            "token_type": "Bearer",
        }
        if renewal.refresh_token is not None:
            body["refresh_token"] = renewal.refresh_token
        return answer_json(request, body)

    async def end(self, request: IRequest, session_id: str) -> None:
        """End a session."""
        identity = self._auth.authenticate(bearer_token(request))
        await self._auth.end_session(identity, session_id, self._address(request))
        request.setResponseCode(204)

    def _address(self, request: IRequest) -> str:
        peer = getattr(request.getClientAddress(), "host", None) or ""
        forwarded = request.requestHeaders.getRawHeaders("X-Forwarded-For", [])
        return self._proxies.client(peer, forwarded)


def _read_strings(request: IRequest, fields: Iterable[str]) -> list[str]:
    """The members of a JSON body that are needed, all strings; others are ignored."""
    body = decode_json(read_json(request))
    if not isinstance(body, dict):
        raise InvalidRequest("The body has to be a JSON object")
    for field in fields:
        if not isinstance(body.get(field), str):
            problem = "has to be a string" if field in body else "is missing"
            raise InvalidRequest(f"'{field}' {problem}", details={"field": field})
    return [body[field] for field in fields]
