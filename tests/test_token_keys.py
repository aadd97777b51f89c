"""Tests of realtime.token_keys: which key opens which token, and that no token chooses."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from twisted.trial.unittest import SynchronousTestCase

from realtime.errors import ConfigurationError, InvalidToken
from realtime.token_keys import Keys, PublicKey, kid_of, load_public_key
from realtime.tokens import Tokens
from tests.support.identity import ALICE, SECRET, START

GOOD = {"sub": "user_1", "exp": START + 60}
OTHER = b"another secret of thirty-two bytes"


def pem(key: Any) -> bytes:
    """Answer the public half of a private key."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def public(algorithm: str, private: Any, kid: str | None = None) -> PublicKey:
    """The public half of a private key, as a server has it."""
    return PublicKey(algorithm, private.public_key(), kid)


def sign(header: dict[str, Any], secret: bytes = SECRET) -> str:
    """A token with any header, signed with HMAC."""
    parts = [json.dumps(header).encode(), json.dumps(GOOD).encode()]
    text = ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
    code = hmac.digest(secret, text.encode(), hashlib.sha256)
    return f"{text}.{base64.urlsafe_b64encode(code).rstrip(b'=').decode()}"


class Case(SynchronousTestCase):
    """Keys that open, and refuse."""

    def tokens(self, keys: Keys) -> Tokens:
        """Tokens by some keys."""
        return Tokens(keys, now=lambda: START)

    def opens(self, keys: Keys, token: str) -> str | None:
        """Check that a token is good; answer which of our keys has signed it."""
        identity = self.tokens(keys).verify_access(token)
        self.assertEqual(identity.user_id, "user_1")
        return identity.key

    def refused(self, token: str, keys: Keys) -> InvalidToken:
        """Check that a token is INVALID_TOKEN, and answer the error."""
        error = self.assertRaises(InvalidToken, self.tokens(keys).verify_access, token)
        self.assertEqual((error.code, error.status), ("INVALID_TOKEN", 401))
        return error


class SecretTests(Case):
    """Our own secrets."""

    def test_kid(self) -> None:
        """A token of ours names its key, by an id that is the same wherever the secret is."""
        token = self.tokens(Keys(SECRET)).issue_access(ALICE, None)
        self.assertEqual(jwt.get_unverified_header(token)["kid"], kid_of(SECRET))
        self.assertEqual(self.opens(Keys(OTHER, SECRET), token), kid_of(SECRET))
        self.assertNotEqual(kid_of(SECRET), kid_of(OTHER))
        self.assertNotIn(SECRET.decode(), repr(Keys(SECRET)) + kid_of(SECRET))

    def test_former(self) -> None:
        """The first secret signs, all verify; a token of one that is gone is refused."""
        before = self.tokens(Keys(SECRET)).issue_access(ALICE, None)
        keys = Keys(OTHER, SECRET, OTHER)
        self.assertEqual(keys.kids, [kid_of(OTHER), kid_of(SECRET)])
        after = self.tokens(keys).issue_access(ALICE, None)
        self.assertEqual(jwt.get_unverified_header(after)["kid"], kid_of(OTHER))
        self.opens(keys, before)
        self.opens(keys, after)
        self.refused(after, Keys(SECRET))
        keys.become_secrets([OTHER])
        self.refused(before, keys)
        self.opens(keys, after)

    def test_without_kid(self) -> None:
        """A token that names no key, as backends and former versions make them, tries all."""
        keys = Keys(OTHER, SECRET)
        for secret in (SECRET, OTHER):
            self.opens(keys, jwt.encode(GOOD, secret, "HS256"))
        self.refused(jwt.encode(GOOD, b"x" * 32, "HS256"), keys)

    def test_another_kid(self) -> None:
        """A token is opened by the key that it names alone, though another would fit."""
        keys = Keys(OTHER, SECRET)
        for kid in (kid_of(OTHER), "", "x", "../secret.key", "' OR 1=1 --", "/dev/null", "é" * 99):
            self.refused(jwt.encode(GOOD, SECRET, "HS256", {"kid": kid}), keys)
        self.opens(keys, jwt.encode(GOOD, SECRET, "HS256", {"kid": kid_of(SECRET)}))

    def test_odd_headers(self) -> None:
        """What a header has beside alg and kid is not obeyed; `crit` is refused."""
        keys = Keys(SECRET)
        for name in ("jku", "jwk", "x5u", "x5c", "x5t", "cty", "typ"):
            for value in ("http://127.0.0.1:1/keys", {"kty": "oct", "k": "eHh4"}, [], None):
                self.opens(keys, sign({"alg": "HS256", name: value}))
        for extra in ({"crit": ["b64"], "b64": True}, {"crit": []}, {"crit": ["exp"], "exp": 1}):
            self.refused(sign({"alg": "HS256", **extra}), keys)
        for kid in (5, None, [], {}, True):
            self.refused(sign({"alg": "HS256", "kid": kid}), keys)

    def test_bad_replacement(self) -> None:
        """Secrets that cannot be used change nothing."""
        keys = Keys(SECRET)
        token = self.tokens(keys).issue_access(ALICE, None)
        bad = pem(ec.generate_private_key(ec.SECP256R1()))
        for secrets in ([OTHER, b"short"], [OTHER, bad]):
            self.assertRaises(ConfigurationError, keys.become_secrets, secrets)
            self.opens(keys, token)
            self.assertEqual(keys.kids, [kid_of(SECRET)])

    def test_headers_are_bounded(self) -> None:
        """However many headers come, few are remembered."""
        keys = Keys(SECRET)
        for number in range(200):
            self.opens(keys, sign({"alg": "HS256", "n": number}))
        self.assertLessEqual(keys._choose.cache_info().currsize, 64)


class ManyKeysTests(Case):
    """Several keys of another issuer."""

    def setUp(self) -> None:
        """Make some."""
        self.one = ec.generate_private_key(ec.SECP256R1())
        self.two = ec.generate_private_key(ec.SECP256R1())
        self.rsa = rsa.generate_private_key(65537, 2048)
        self.keys = Keys(
            SECRET,
            public=[
                public("ES256", self.one, "one"),
                public("ES256", self.two, "two"),
                public("RS256", self.rsa, "rsa"),
            ],
        )
        self.unknown = 0

        def note() -> None:
            self.unknown += 1

        self.keys.on_unknown = note

    def test_by_kid(self) -> None:
        """A token is opened by the key that it names, and by no other."""
        self.opens(self.keys, jwt.encode(GOOD, self.one, "ES256", {"kid": "one"}))
        self.opens(self.keys, jwt.encode(GOOD, self.two, "ES256", {"kid": "two"}))
        self.opens(self.keys, jwt.encode(GOOD, self.rsa, "RS256", {"kid": "rsa"}))
        self.refused(jwt.encode(GOOD, self.one, "ES256", {"kid": "two"}), self.keys)
        self.assertEqual(self.unknown, 0)

    def test_algorithm_of_another_key(self) -> None:
        """A kid with another algorithm than its key's names no key."""
        self.refused(jwt.encode(GOOD, self.one, "ES256", {"kid": "rsa"}), self.keys)
        self.refused(jwt.encode(GOOD, self.rsa, "RS256", {"kid": "one"}), self.keys)
        self.refused(jwt.encode(GOOD, self.rsa, "PS256", {"kid": "rsa"}), self.keys)
        self.refused(jwt.encode(GOOD, self.rsa, "RS512", {"kid": "rsa"}), self.keys)
        # The public key as an HMAC secret, by the kid of the key.
        for secret in (pem(self.rsa), pem(self.rsa).strip(), pem(self.one)):
            for kid in ("rsa", "one", kid_of(SECRET)):
                self.refused(sign({"alg": "HS256", "kid": kid}, secret), self.keys)
        # No signature at all.
        for alg in ("none", "None", ""):
            head = sign({"alg": alg, "kid": "rsa"}).rsplit(".", 1)[0]
            self.refused(f"{head}.", self.keys)

    def test_without_kid(self) -> None:
        """Without kid the only key of an algorithm counts; where there are several, none does."""
        self.opens(self.keys, jwt.encode(GOOD, self.rsa, "RS256"))
        error = self.refused(jwt.encode(GOOD, self.one, "ES256"), self.keys)
        self.assertEqual(error.message, "The token does not say which key has signed it.")

    def test_unknown_kid(self) -> None:
        """An unknown kid is told of, in a sentence that does not repeat it."""
        for kid in ("three", "../../etc/passwd", "' OR ''='", "one\x00"):
            error = self.refused(jwt.encode(GOOD, self.one, "ES256", {"kid": kid}), self.keys)
            self.assertEqual(error.message, "The token's key is not known.")
            self.assertNotIn(kid, repr(error) + str(error.details))
        self.assertEqual(self.unknown, 4)
        # No reading of keys helps with these.
        self.refused(sign({"alg": "HS256", "kid": "x"}), self.keys)
        self.refused(sign({"alg": "none", "kid": "x"}), self.keys)
        self.assertEqual(self.unknown, 4)

    def test_replaced(self) -> None:
        """A key that is taken away opens nothing more, and the others stay."""
        token = jwt.encode(GOOD, self.one, "ES256", {"kid": "one"})
        self.assertIsNone(self.opens(self.keys, token))
        self.keys.become_public([public("ES256", self.two, "two")])
        self.refused(token, self.keys)
        self.opens(self.keys, jwt.encode(GOOD, self.two, "ES256"))
        self.opens(self.keys, self.tokens(self.keys).issue_access(ALICE, None))

    def test_key_without_kid(self) -> None:
        """A PEM has no kid: it answers for tokens that name any."""
        keys = Keys(SECRET, public=[load_public_key("ES256", pem(self.one))])
        for headers in ({}, {"kid": "one"}, {"kid": "two"}):
            self.opens(keys, jwt.encode(GOOD, self.one, "ES256", headers))
            self.refused(jwt.encode(GOOD, self.two, "ES256", headers), keys)

    def test_embedded_keys(self) -> None:
        """Keys and places of keys that a token brings along are not looked at."""
        jwk = jwt.algorithms.ECAlgorithm.to_jwk(self.two.public_key(), as_dict=True)
        for headers in (
            {"kid": "one", "jwk": jwk},
            {"kid": "one", "jku": "http://127.0.0.1:1/", "x5u": "http://127.0.0.1:1/"},
            {"jwk": {**jwk, "kid": "one"}, "kid": "one", "x5c": ["AAAA"]},
        ):
            self.refused(jwt.encode(GOOD, self.two, "ES256", headers), self.keys)
            self.opens(self.keys, jwt.encode(GOOD, self.one, "ES256", headers))


class PublicKeyTests(Case):
    """Keys, and another issuer's."""

    def test_each_algorithm(self) -> None:
        """Another issuer's tokens are verified by its public key, ours still by the secret."""
        pairs: list[tuple[str, Any]] = [
            ("RS256", rsa.generate_private_key(65537, 2048)),
            ("ES256", ec.generate_private_key(ec.SECP256R1())),
            ("EdDSA", ed25519.Ed25519PrivateKey.generate()),
        ]
        for algorithm, private in pairs:
            keys = Keys(SECRET, public=[load_public_key(algorithm, pem(private))])
            external = jwt.encode(GOOD, private, algorithm)
            self.opens(keys, external)
            self.opens(keys, self.tokens(keys).issue_access(ALICE, None))
            self.refused(external, Keys(SECRET))
            self.refused(external[:-8] + "AAAAAAAA", keys)
            self.refused(external.rsplit(".", 1)[0] + ".", keys)

    def test_key_confusion(self) -> None:
        """The public key is no HMAC secret, in whatever form."""
        private = rsa.generate_private_key(65537, 2048)
        text = pem(private)
        keys = Keys(SECRET, public=[load_public_key("RS256", text)])
        for secret in (text, text.strip()):
            self.refused(sign({"alg": "HS256"}, secret), keys)

    def test_embedded_key(self) -> None:
        """A key that the token brings along is not looked at."""
        private = ec.generate_private_key(ec.SECP256R1())
        keys = Keys(SECRET, public=[load_public_key("ES256", pem(private))])
        other = ec.generate_private_key(ec.SECP256R1())
        jwk = jwt.algorithms.ECAlgorithm.to_jwk(other.public_key(), as_dict=True)
        token = jwt.encode(GOOD, other, "ES256", headers={"jwk": jwk})
        self.refused(token, keys)

    def test_misfits(self) -> None:
        """A key that does not fit its algorithm is a mistake told in one line."""
        good = ec.generate_private_key(ec.SECP256R1())
        private = good.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        misfits: list[tuple[str, bytes]] = [
            ("RS256", pem(good)),
            ("ES256", pem(ec.generate_private_key(ec.SECP384R1()))),
            ("EdDSA", pem(good)),
            ("RS256", pem(rsa.generate_private_key(65537, 1024))),
            ("HS256", pem(good)),
            ("none", pem(good)),
            ("ES256", private),
            ("ES256", b"nonsense"),
        ]
        for algorithm, public_pem in misfits:
            with self.assertRaises(ConfigurationError) as caught:
                load_public_key(algorithm, public_pem)
            self.assertRegex(str(caught.exception), r"\A(--jwt-public-key|token algorithm)[^\n]+\Z")

    def test_weak_secrets(self) -> None:
        """A short secret, or a PEM key for one, is refused."""
        text = pem(ec.generate_private_key(ec.SECP256R1()))
        for secret in (b"", b"x" * 31, text):
            self.assertRaises(ConfigurationError, Keys, secret)
