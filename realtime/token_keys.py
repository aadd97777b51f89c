"""The keys of tokens: our secrets, and the public keys of another issuer.

Each key is bound to one algorithm before any token comes. A token's header chooses among the keys
that are here, by `kid`, and nothing else: neither an algorithm nor a key of its own.
"""

from __future__ import annotations

import hmac
from base64 import b32encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt import InvalidSignatureError, PyJWS, PyJWTError
from jwt.algorithms import Algorithm, get_default_algorithms

from realtime.errors import ConfigurationError, InvalidToken

MAX_TOKEN_BYTES: Final = 8192
MIN_SECRET_BYTES: Final = 32
# The algorithms of another issuer, and what their keys are.
EXTERNAL: Final = {
    "RS256": "RSA of 2048 to 8192 bits",
    "ES256": "P-256",
    "EdDSA": "Ed25519",
}

_OURS: Final = "HS256"
# Headers whose keys are remembered; those of one issuer's tokens are all alike.
_HEADERS: Final = 64


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key of another issuer; one without a `kid` answers for tokens that name any."""

    algorithm: str
    key: Any = field(repr=False)
    kid: str | None = None


class _Bound(Algorithm):
    """One algorithm with the one key that it may be used with, prepared once."""

    def __init__(self, algorithm: Algorithm, key: Any) -> None:
        self._algorithm = algorithm
        self._key = algorithm.prepare_key(key)

    def prepare_key(self, key: Any) -> Any:
        return self._key

    def check_key_length(self, key: Any) -> str | None:
        return None  # Whoever made the key has checked it.

    def sign(self, msg: bytes, key: Any) -> bytes:
        return self._algorithm.sign(msg, self._key)

    def verify(self, msg: bytes, key: Any, sig: bytes) -> bool:
        return self._algorithm.verify(msg, self._key, sig)

    @staticmethod
    def to_jwk(key_obj: Any, as_dict: bool = False) -> Any:
        raise NotImplementedError("these keys are not given away")

    @staticmethod
    def from_jwk(jwk: Any) -> Any:
        raise NotImplementedError("these keys are bound")


class _Key:
    """A key, as tokens are signed and opened with it."""

    __slots__ = ("_algorithms", "_headers", "_jws", "algorithm", "kid")

    def __init__(self, algorithm: str, key: Any, kid: str | None) -> None:
        self.algorithm = algorithm
        self.kid = kid
        self._algorithms = [algorithm]
        # Without a `typ`, which says nothing: each byte costs at every handshake.
        self._headers = {"kid": kid, "typ": None}
        self._jws = PyJWS(algorithms=[])
        bound = _Bound(get_default_algorithms()[algorithm], key)
        self._jws.register_algorithm(algorithm, bound)

    def sign(self, payload: bytes) -> str:
        return self._jws.encode(payload, b"", self.algorithm, self._headers)

    def open(self, token: str) -> bytes:
        payload: bytes = self._jws.decode(token, algorithms=self._algorithms)
        return payload


class Keys:
    """Our secrets, of which the first signs, and the public keys of another issuer.

    `on_unknown` is called when a token names a key of an issuer's that is not here.
    """

    def __init__(self, secret: bytes, *others: bytes, public: Iterable[PublicKey] = ()) -> None:
        self.on_unknown: Callable[[], object] | None = None
        self._secrets: list[_Key] = []
        self._public: list[_Key] = []
        # By a token's first part: so that it is read once for all tokens that have the same.
        self._choose = lru_cache(maxsize=_HEADERS)(self._find)
        self.become_secrets((secret, *others))
        self.become_public(public)

    @property
    def kids(self) -> list[str]:
        """The ids of our keys: first of the one that signs, then of those that only verify."""
        return [key.kid for key in self._secrets if key.kid is not None]

    def become_secrets(self, secrets: Sequence[bytes]) -> None:
        """Replace our secrets; raises `ConfigurationError`, and then all stays as it was."""
        for secret in secrets:
            if len(secret) < MIN_SECRET_BYTES:
                raise ConfigurationError(
                    f"the signing secret is shorter than {MIN_SECRET_BYTES} bytes"
                )
        try:
            keys = [_Key(_OURS, secret, kid_of(secret)) for secret in dict.fromkeys(secrets)]
        except PyJWTError:
            raise ConfigurationError(
                "the signing secret looks like a PEM key or JWK; it must be a shared secret"
            ) from None
        self._secrets = keys
        self._choose.cache_clear()

    def become_public(self, public: Iterable[PublicKey]) -> None:
        """Replace the public keys: tokens of one that is not among them are refused from now."""
        self._public = [_Key(each.algorithm, each.key, each.kid) for each in public]
        self._choose.cache_clear()

    def sign(self, payload: bytes) -> str:
        """Make a token of `payload`, signed with our secret."""
        return self._secrets[0].sign(payload)

    def open(self, token: str) -> tuple[bytes, str | None]:
        """Verify the signature of `token`, and give back its payload, and which key of ours it was.

        That is None where it is another issuer's. Raises `InvalidToken`.
        """
        if not isinstance(token, str) or len(token) > MAX_TOKEN_BYTES or not token.isascii():
            raise InvalidToken()
        try:
            for key in self._choose(token.partition(".")[0]):
                try:
                    return key.open(token), key.kid if key.algorithm == _OURS else None
                except InvalidSignatureError:
                    continue
        except (PyJWTError, RecursionError, ValueError, TypeError):
            pass
        raise InvalidToken()

    def _find(self, header: str) -> list[_Key]:
        """The keys that may have signed a token with this header, one but for our own secrets.

        Raises `InvalidToken`, or what PyJWT raises.
        """
        # Without payload and signature PyJWT reads and checks the header alone.
        head = PyJWS().get_unverified_header(f"{header}..")
        algorithm, kid = head.get("alg"), head.get("kid")
        if "crit" in head:
            raise InvalidToken()
        if algorithm == _OURS:
            # A token without `kid` may be of any of our secrets: they are few, and quick to try.
            keys = [key for key in self._secrets if kid is None or key.kid == kid]
        else:
            known = [key for key in self._public if key.algorithm == algorithm]
            keys = [key for key in known if kid is None or key.kid == kid]
            keys = keys or [key for key in known if key.kid is None]
            if len(keys) > 1:
                raise InvalidToken("The token does not say which key has signed it.")
        if not keys:
            if self.on_unknown is not None and kid is not None and algorithm in EXTERNAL:
                self.on_unknown()
            raise InvalidToken("The token's key is not known." if kid is not None else None)
        return keys


def kid_of(secret: bytes) -> str:
    """The id of a secret, the same on every node: six characters that tell nothing of it."""
    digest = hmac.digest(secret, b"realtime-server key id", "sha256")
    return b32encode(digest).decode()[:6].lower()


def load_public_key(algorithm: str, pem: bytes) -> PublicKey:
    """Another issuer's key, of a PEM; raises `ConfigurationError`."""
    if algorithm not in EXTERNAL:
        raise ConfigurationError(
            f"token algorithm {algorithm!r}: only {', '.join(EXTERNAL)} go with a public key"
        )
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError("--jwt-public-key: the file is not a public key in PEM") from None
    if not fits(algorithm, key):
        kinds = "; ".join(f"{name}: {kind}" for name, kind in EXTERNAL.items())
        raise ConfigurationError(f"--jwt-public-key: the key does not fit {algorithm} ({kinds})")
    return PublicKey(algorithm, key)


def fits(algorithm: str, key: object) -> bool:
    """Whether a key is a public one of an algorithm of `EXTERNAL`, and strong enough."""
    if isinstance(key, RSAPublicKey):
        return algorithm == "RS256" and 2048 <= key.key_size <= 8192
    if isinstance(key, EllipticCurvePublicKey):
        return algorithm == "ES256" and isinstance(key.curve, SECP256R1)
    return algorithm == "EdDSA" and isinstance(key, Ed25519PublicKey)
