"""Access tokens for the server under test, one user for each connection."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from base64 import urlsafe_b64encode
from pathlib import Path

HOUR = 3600


def _encode(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")


def write_tokens(secret: Path, tokens: Path, count: int) -> None:
    """Make a signing secret, and tokens of the users u0, u1 and so on, one a line.

    They have the claims that the server's own tokens have.
    """
    key = secrets.token_urlsafe(48).encode()
    secret.touch(mode=0o600)
    secret.write_bytes(key + b"\n")
    head = _encode(b'{"alg":"HS256","typ":"JWT"}')
    now = int(time.time())
    with tokens.open("wb") as file:
        for number in range(count):
            claims = {
                "sub": f"u{number}",
                "username": f"user{number}",
                "roles": ["user", "subscriber"],
                "sid": f"session_{number:x}",
                "typ": "access",
                "jti": secrets.token_hex(16),
                "iat": now,
                "exp": now + 6 * HOUR,
            }
            body = head + b"." + _encode(json.dumps(claims, separators=(",", ":")).encode())
            file.write(body + b"." + _encode(hmac.digest(key, body, hashlib.sha256)) + b"\n")
