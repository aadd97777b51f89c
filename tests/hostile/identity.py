"""Tokens that nobody has issued."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterable, Iterator
from typing import Any

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.hostile.attack import Attack, Target

_HS = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}


def _part(value: Any) -> bytes:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _join(header: Any, claims: Any, signature: bytes) -> str:
    return b".".join((_part(header), _part(claims), _part(signature))).decode()


def _mac(header: Any, claims: Any, secret: bytes) -> str:
    signed = _part(header) + b"." + _part(claims)
    digest = _HS[header["alg"]]
    return _join(header, claims, hmac.digest(secret, signed, digest))


def forged(target: Target) -> Iterator[tuple[str, str]]:
    """Tokens for the admin, and what the trick is."""
    issuer = target.issuer
    claims = {**issuer.claims("admin"), "roles": ["admin"]}
    for none in ("none", "None", "NONE", "nOnE", "", None, 0, [], {}, ["none"]):
        for signature in (b"", b"x"):
            yield f"alg {none!r}", _join({"alg": none, "typ": "JWT"}, claims, signature)
    yield "no alg", _join({"typ": "JWT"}, claims, b"")
    # The public key, which everybody may know, as the secret.
    pem = issuer.public_pem
    public = issuer.key.public_key()
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pkcs1 = public.public_bytes(Encoding.PEM, PublicFormat.PKCS1)
    for secret in (pem, pem.strip(), pem.replace(b"\n", b"\r\n"), der, pkcs1, b"", b"\x00" * 32):
        for algorithm in _HS:
            yield f"{algorithm} with the public key", _mac({"alg": algorithm}, claims, secret)
    # The header names the key.
    own = generate_private_key(65537, 2048)
    numbers = own.public_key().public_numbers()
    jwk = {
        "kty": "RSA",
        "e": _part(numbers.e.to_bytes(3, "big")).decode(),
        "n": _part(numbers.n.to_bytes(256, "big")).decode(),
    }
    tricks: list[dict[str, Any]] = [
        {"kid": "../../../../../../dev/null"},
        {"kid": "/proc/sys/kernel/randomize_va_space"},
        {"kid": "' UNION SELECT 'secret' --"},
        {"kid": "| sleep 10"},
        {"kid": 7},
        {"kid": ["a"]},
        {"kid": None},
        {"kid": "x" * 4000},
        {"jwk": jwk},
        {"jku": "http://127.0.0.1:1/keys.json"},
        {"x5u": "http://127.0.0.1:1/cert.pem"},
        {"x5c": [base64.b64encode(der).decode()]},
        {"crit": ["b64"], "b64": False},
        {"crit": ["made-up"], "made-up": True},
        {"crit": "b64"},
        {"b64": False},
        {"zip": "DEF"},
        {"typ": "at+jwt", "cty": "JWT"},
    ]
    for trick in tricks:
        for algorithm in ("RS256", "RS512"):
            header = {"alg": algorithm, **trick}
            signed = _part(header) + b"." + _part(claims)
            signature = own.sign(signed, PKCS1v15(), SHA256())
            yield f"RS256 with {trick}", _join(header, claims, signature)
        yield f"HS256 with {trick}", _mac({"alg": "HS256", **trick}, claims, b"")
    for algorithm in ("ES256", "EdDSA", "PS256"):
        yield f"{algorithm} of zeros", _join({"alg": algorithm}, claims, b"\x00" * 64)
    yield from _spoiled(target, claims)


def _spoiled(target: Target, claims: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Good tokens with something exchanged, and what is hardly a token."""
    good = target.issuer.token("mallory")
    header, payload, signature = good.split(".")
    yield "others' claims", f"{header}.{_part(claims).decode()}.{signature}"
    yield "no signature", f"{header}.{payload}."
    yield "two parts", f"{header}.{payload}"
    yield "five parts", f"{header}.{payload}.{signature}.a.b"
    yield "dots", "." * 2000
    yield "a null signature", f"{header}.{payload}.{'A' * len(signature)}"
    for deep in (b"[" * 5000, b'{"a":' * 1000):
        yield "a deep header", _join(deep, claims, b"")
        yield (
            "a deep header that names its algorithm",
            _join(b'{"alg":"RS256","x":' + deep, claims, b""),
        )
        closed = deep + b"1" + (b"]" * 5000 if deep[:1] == b"[" else b"}" * 1000)
        yield (
            "a deep header that is closed",
            _join(b'{"alg":"RS256","x":' + closed[:5000], claims, b""),
        )
    number = b'{"alg":"RS256","n":' + b"9" * 5000 + b"}"
    yield "a header with a long number", _join(number, claims, b"")
    # Signed by the issuer, and yet no access tokens.
    yield "a refresh token", target.issuer.token("mallory", typ="refresh", sid="s", jti="j")
    yield "no time", target.issuer.token("mallory", nbf=4_000_000_000)
    yield "a user who is no name", target.issuer.token("")
    yield "an endless token", target.issuer.token("mallory", exp=1e300)
    yield "roles that are none", target.issuer.token("mallory", roles="admin")
    yield "a huge token", target.issuer.token("mallory", x="x" * 9000)


def confusion(target: Target) -> Iterable[str]:
    """Each forged token, at each place where a token is taken."""
    for _ in range(target.many(2, 1)):
        for trick, token in forged(target):
            for place, head in _places(token):
                line = target.line()
                line.send(head)
                status, body = line.answer()
                line.close()
                code = json.loads(body)["error"]["code"] if body else "nothing"
                got = f"{status} {code}"
                yield got if got == "401 INVALID_TOKEN" else f"{got} at {place} for {trick}"


def _places(token: str) -> Iterator[tuple[str, bytes]]:
    bearer = f"Authorization: Bearer {token}"
    socket = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    socket += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    for place, first, *headers in (
        ("/ws", "GET /ws", bearer, socket),
        ("the query", f"GET /ws?token={token}", socket),
        ("the subprotocol", "GET /ws", f"Sec-WebSocket-Protocol: access_token.{token}", socket),
        ("/sse", "GET /sse", bearer),
        ("POST /sse", "POST /sse/x-1", bearer, "Content-Length: 0"),
        ("/sessions", "DELETE /sessions/x", bearer),
        ("/connections", "GET /connections", bearer),
    ):
        lines = [f"{first} HTTP/1.1", "Host: a", *headers]
        yield place, "\r\n".join([*lines, "", ""]).encode("latin-1")


ATTACKS = (Attack("JWT key confusion", confusion, {"401 INVALID_TOKEN"}),)
