"""`python -m realtime doctor`: looks at a running server from outside, as a client does.

Each finding is one sentence: what holds, or what is wrong and what to do about it.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import jwt
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake, InvalidStatus, WebSocketException
from websockets.typing import Origin, Subprotocol

from realtime.client.errors import RealtimeError
from realtime.tokens import misfit

# Seconds for each answer; seconds by which clocks may differ, which is the server's leeway.
PATIENCE = 5.0
LEEWAY = 10


@dataclass(frozen=True, slots=True)
class Finding:
    """`mark` is ok, note, or FAIL."""

    mark: str
    text: str


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body, or nothing where it is no JSON object."""
        try:
            value = json.loads(self.body)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}


async def examine(
    url: str, ws_url: str, token: str | None, origin: str | None = None
) -> AsyncIterator[Finding]:
    """Look at the server at `url`, and at its WebSockets; stops where the rest cannot be seen."""
    try:
        health = await _get(url, "/health")
        info = (await _get(url, "/info")).json()
    except ssl.SSLError as error:
        hint = ""
        if isinstance(error, ssl.SSLCertVerificationError):
            hint = f" {error.verify_message}. SSL_CERT_FILE names authorities of your own."
        yield Finding("FAIL", f"TLS does not work: {error.reason or error}.{hint}")
        return
    except http.client.RemoteDisconnected:
        asked = "is it https there?" if url.startswith("http:") else "is a proxy's server away?"
        yield Finding("FAIL", f"{url} closes the connection and says nothing: {asked}")
        return
    except (OSError, http.client.HTTPException) as error:
        why = error or type(error).__name__
        if "handshake" in str(error):
            yield Finding("FAIL", f"Nobody answers a TLS handshake at {url}: is it http there?")
            return
        yield Finding("FAIL", f"{url} cannot be reached: {why}. Is the server running there?")
        return
    about = info.get("server", {})
    if "version" not in about:
        yield Finding("FAIL", f"What answers at {url} is not this server: /info is not its own.")
        return
    yield Finding("ok", f"{url} is version {about['version']}.")
    yield _health(health)
    yield _clock(health)
    if token is None:
        no_token = (
            "There is no token to connect with: set REALTIME_TOKEN, or name the server's --state."
        )
        yield Finding("FAIL", no_token)
        return
    claims = _claims(token)
    for finding in _token(claims):
        yield finding
    async for finding in _websocket(ws_url, token, origin):
        yield finding
    yield await _stream(url, token)
    if origin is not None:
        yield await _preflight(url, origin)


def _health(health: _Answer) -> Finding:
    shown = health.json()
    if health.status == 200:
        open_now, most = shown.get("active_connections"), shown.get("max_connections")
        return Finding("ok", f"It is healthy, with {open_now} of {most} connections.")
    return Finding("FAIL", f"It is not healthy: {shown.get('reason', health.status)}.")


def _clock(answer: _Answer) -> Finding:
    """The other clock, by the Date header, which has whole seconds."""
    try:
        there = parsedate_to_datetime(answer.headers.get("date", "")).timestamp()
    except ValueError:
        return Finding("note", "The answers have no Date, so that clocks cannot be compared.")
    off = there - time.time()
    if abs(off) > LEEWAY:
        return Finding(
            "FAIL",
            f"The clocks differ by {abs(off):.0f} seconds, so that tokens seem expired or not yet "
            "valid: set both by NTP.",
        )
    return Finding("ok", "The clocks agree.")


def _claims(token: str) -> dict[str, Any]:
    try:
        claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    except jwt.InvalidTokenError:
        return {}
    return claims


def _token(claims: Mapping[str, Any]) -> list[Finding]:
    if not claims:
        return [Finding("FAIL", "The token is no JWT.")]
    found = []
    if claims.get("typ") == "refresh":
        found.append(
            Finding("FAIL", "The token is a refresh token: connect with the access token.")
        )
    expires_at = claims.get("exp")
    problem = misfit(claims)
    if problem is not None and "exp" in claims:
        return [*found, Finding("FAIL", f"The server cannot read the token's claims: {problem}.")]
    if not isinstance(expires_at, int | float):
        found.append(Finding("FAIL", "The token has no claim exp, which the server demands."))
    elif expires_at < time.time():
        ago = time.time() - expires_at
        found.append(Finding("FAIL", f"The token expired {ago:.0f} seconds ago: get another."))
    else:
        left = expires_at - time.time()
        roles = ", ".join(map(str, claims.get("roles") or ())) or "none"
        found.append(
            Finding(
                "ok", f"The token is for {claims.get('sub')}, roles: {roles}, {left:.0f} s left."
            )
        )
    return found


async def _websocket(ws_url: str, token: str, origin: str | None) -> AsyncIterator[Finding]:
    ways: dict[str, dict[str, Any]] = {
        "header": {"additional_headers": {"Authorization": f"Bearer {token}"}},
        "subprotocol": {"subprotocols": [Subprotocol(f"access_token.{token}")]},
    }
    for name, way in ways.items():
        if origin is not None:
            way["origin"] = Origin(origin)
        try:
            async with (
                asyncio.timeout(PATIENCE),
                connect(ws_url, open_timeout=None, close_timeout=1, **way) as socket,
            ):
                await socket.recv()
                await socket.send('{"type": "Ping", "id": "doctor"}')
                while json.loads(await socket.recv()).get("id") != "doctor":
                    pass
        except InvalidStatus as refusal:
            yield Finding("FAIL", _refused(refusal, name, origin))
            continue
        except InvalidHandshake as problem:
            yield Finding("FAIL", f"The WebSocket handshake fails: {problem}.")
        except TimeoutError:
            yield Finding(
                "FAIL", "The WebSocket opens, or not, but nothing comes: a proxy holds it back."
            )
        except (OSError, WebSocketException) as problem:
            yield Finding("FAIL", f"The WebSocket breaks: {problem}.")
        else:
            yield Finding("ok", f"A WebSocket connects with the token as {name}, and answers.")


def _refused(refusal: InvalidStatus, way: str, origin: str | None) -> str:
    """What a refused handshake means, in a sentence."""
    response = refusal.response
    body = _Answer(response.status_code, {}, bytes(response.body or b"")).json()
    if "error" not in body:
        return (
            f"The handshake got status {response.status_code}, and not from this server: the proxy "
            "does not pass WebSockets on (Upgrade and Connection headers)."
        )
    error = RealtimeError.read(body["error"])
    if response.status_code == 426:
        return "The headers Upgrade and Connection are lost on the way: let the proxy pass them on."
    if error.code == "INVALID_TOKEN" and way == "header" and "missing" in error.message:
        return f"The token as {way} is refused: {error.message} Does a proxy drop Authorization?"
    if "key is not known" in error.message:
        return (
            f"The token as {way} is refused, for its key is not the server's: is it of another "
            "state directory, issuer or node? Nodes have one --secret-file."
        )
    if error.code == "FORBIDDEN" and origin is not None and "origin" in error.message:
        return f"Pages of {origin} may not connect: add --origin {origin}."
    return f"The token as {way} is refused: {error.code}, {error.message}"


async def _stream(url: str, token: str) -> Finding:
    """Whether server-sent events come at once, or are collected on the way."""
    try:
        first = await asyncio.to_thread(_first_of_stream, url, token)
    except TimeoutError:
        return Finding(
            "FAIL", "Server-sent events are held back: turn the proxy's buffering off for /sse."
        )
    except (OSError, http.client.HTTPException) as problem:
        return Finding("FAIL", f"The stream /sse breaks: {problem}.")
    if first.status != 200 or not first.body.startswith(b"retry:"):
        return Finding("FAIL", f"The stream /sse is refused with status {first.status}.")
    return Finding("ok", "Server-sent events come at once.")


def _first_of_stream(url: str, token: str) -> _Answer:
    connection = _connection(url)
    try:
        connection.request("GET", "/sse", headers={"Authorization": f"Bearer {token}"})
        response = connection.getresponse()
        return _Answer(response.status, {}, response.readline())
    finally:
        connection.close()


async def _preflight(url: str, origin: str) -> Finding:
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    answer = await _get(url, "/sessions", "OPTIONS", headers)
    if answer.headers.get("access-control-allow-origin") in ("*", origin):
        return Finding("ok", f"Pages of {origin} may use the REST interface.")
    return Finding("FAIL", f"Pages of {origin} may not use REST: add --origin {origin}.")


async def _get(
    url: str, path: str, method: str = "GET", headers: Mapping[str, str] | None = None
) -> _Answer:
    return await asyncio.to_thread(partial(_ask, url, path, method, headers or {}))


def _ask(url: str, path: str, method: str, headers: Mapping[str, str]) -> _Answer:
    connection = _connection(url)
    try:
        connection.request(method, path, headers=dict(headers))
        response = connection.getresponse()
        named = {name.lower(): value for name, value in response.getheaders()}
        return _Answer(response.status, named, response.read(1 << 20))
    finally:
        connection.close()


def _connection(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(parts.hostname or "", parts.port, timeout=PATIENCE)
