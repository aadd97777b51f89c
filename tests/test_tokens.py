"""Tests of realtime.tokens."""

import base64
import hashlib
import hmac
import json
from typing import Any

import jwt
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from realtime.errors import InvalidRequest, InvalidToken, TokenExpired
from realtime.model import Permissions
from realtime.token_keys import MAX_TOKEN_BYTES
from realtime.tokens import MAX_TTL
from tests.support.identity import ALICE, SECRET, START, make_tokens


def b64(data: bytes) -> str:
    """Encode as a token part."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sign_raw(header: bytes, payload: bytes, secret: bytes = SECRET) -> str:
    """Sign any bytes as a token."""
    text = f"{b64(header)}.{b64(payload)}"
    return f"{text}.{b64(hmac.digest(secret, text.encode(), hashlib.sha256))}"


def sign(claims: Any, secret: bytes = SECRET) -> str:
    """Sign claims as another issuer would."""
    return sign_raw(b'{"alg":"HS256","typ":"JWT"}', json.dumps(claims).encode(), secret)


GOOD = {"sub": "user_1", "exp": START + 60}


class Case(SynchronousTestCase):
    """Tokens at a time that the test sets."""

    def setUp(self) -> None:
        self.now = START
        self.tokens = make_tokens(lambda: self.now)

    def refused(self, token: Any, tokens: Any = None) -> None:
        """Check that `token` is INVALID_TOKEN as an access token, and no other exception."""
        error = self.assertRaises(InvalidToken, (tokens or self.tokens).verify_access, token)
        self.assertEqual((error.code, error.status), ("INVALID_TOKEN", 401))
        self.assertEqual(error.headers["WWW-Authenticate"], "Bearer")


class IssuingTests(Case):
    """What we issue."""

    def test_access(self) -> None:
        """An access token says who its user is, until when, and in which session."""
        identity = self.tokens.verify_access(self.tokens.issue_access(ALICE, "sess_1"))
        self.assertEqual((identity.user_id, identity.username), ("user_1", "alice"))
        self.assertEqual(identity.roles, {"user", "subscriber"})
        self.assertEqual(identity.session_id, "sess_1")
        self.assertEqual(identity.expires_at, START + 3600)
        self.assertIsNone(identity.permissions)

    def test_claims(self) -> None:
        """The claims are the documented ones, readable by any JWT library."""
        token = self.tokens.issue_access(ALICE, "sess_1", ttl=5)
        claims = jwt.decode(token, SECRET, algorithms=["HS256"], options={"verify_exp": False})
        names = {"sub", "username", "roles", "sid", "typ", "jti", "iat", "exp"}
        self.assertEqual(set(claims), names)
        self.assertEqual((claims["typ"], claims["exp"]), ("access", START + 5))

    def test_permissions(self) -> None:
        """Permissions travel in the token; what is not said stays unsaid."""
        granted = Permissions(subscribe=("chat.*",))
        token = self.tokens.issue_access(ALICE, None, permissions=granted)
        self.assertEqual(self.tokens.verify_access(token).permissions, granted)

    def test_refresh(self) -> None:
        """A refresh token names its session and its own id."""
        claims = self.tokens.verify_refresh(self.tokens.issue_refresh(ALICE, "sess_1", "j"))
        self.assertEqual((claims.user_id, claims.session_id, claims.jti), ("user_1", "sess_1", "j"))
        self.assertEqual(claims.expires_at, START + 30 * 86400)

    def test_kinds_are_not_exchanged(self) -> None:
        """A refresh token does not authenticate, and an access token does not refresh."""
        self.refused(self.tokens.issue_refresh(ALICE, "sess_1"))
        access = self.tokens.issue_access(ALICE, "sess_1")
        self.assertRaises(InvalidToken, self.tokens.verify_refresh, access)

    def test_unbounded_life_is_refused(self) -> None:
        """No token is issued that outlives the revocations kept for it."""
        for ttl in (0, -1, MAX_TTL + 1):
            self.assertRaises(InvalidRequest, self.tokens.issue_access, ALICE, None, ttl)

    def test_issued_at_has_milliseconds(self) -> None:
        """Two tokens of one second are told apart by when they were issued."""
        self.now = START + 0.25
        _, issued_at = self.tokens.read_access(self.tokens.issue_access(ALICE, None))
        self.assertEqual(issued_at, START + 0.25)

    def test_roles_are_shared(self) -> None:
        """Identities with the same roles and permissions hold the same objects."""
        granted = Permissions(("a.>",), ("b",))
        first, second = (
            self.tokens.verify_access(self.tokens.issue_access(ALICE, s, permissions=granted))
            for s in ("sess_1", "sess_2")
        )
        self.assertIs(first.roles, second.roles)
        self.assertIs(first.permissions, second.permissions)


class TimeTests(Case):
    """Expiry and its neighbours."""

    def test_expiry_and_leeway(self) -> None:
        """A token is good until 10 seconds after `exp`, then expired."""
        token = self.tokens.issue_access(ALICE, None, ttl=60)
        self.now = START + 69.9
        self.tokens.verify_access(token)
        self.now = START + 70
        error = self.assertRaises(TokenExpired, self.tokens.verify_access, token)
        self.assertEqual(error.code, "TOKEN_EXPIRED")

    def test_refresh_expires(self) -> None:
        """A refresh token past its `exp` is expired."""
        token = self.tokens.issue_refresh(ALICE, "sess_1")
        self.now = START + 31 * 86400
        self.assertRaises(TokenExpired, self.tokens.verify_refresh, token)

    def test_expired_and_bad_is_invalid(self) -> None:
        """Expired is said only of a token that is good in all else."""
        self.refused(sign({**GOOD, "exp": 1}, secret=b"x" * 32))
        self.refused(sign({**GOOD, "exp": 1, "typ": "refresh"}))
        self.refused(sign({**GOOD, "exp": 1, "roles": None}))

    def test_not_yet(self) -> None:
        """A token from the future is refused, within the leeway it is not."""
        for claim in ("nbf", "iat"):
            self.refused(sign({**GOOD, claim: START + 11}))
            self.tokens.verify_access(sign({**GOOD, claim: START + 9}))


class ForgeryTests(Case):
    """Tokens that strangers make up."""

    def test_minimal_token_of_another_issuer(self) -> None:
        """`sub` and `exp` are enough."""
        identity = self.tokens.verify_access(sign(GOOD))
        self.assertEqual((identity.user_id, identity.roles), ("user_1", frozenset()))
        self.assertIsNone(identity.username)
        self.assertIsNone(identity.session_id)

    def test_bearer_typ(self) -> None:
        """A `typ` of Bearer, as some issuers write, is an access token; others are not."""
        self.tokens.verify_access(sign({**GOOD, "typ": "Bearer"}))
        for typ in ("ID", "Refresh", "ACCESS", ""):
            self.refused(sign({**GOOD, "typ": typ}))

    def test_alg_none(self) -> None:
        """An unsigned token is refused in every spelling."""
        payload = b64(json.dumps(GOOD).encode())
        for alg in ("none", "None", "NONE", "", None, [], {}, 5, ["HS256"], "HS512", "RS256"):
            header = b64(json.dumps({"alg": alg}).encode())
            for signature in ("", b64(b"x" * 32)):
                self.refused(f"{header}.{payload}.{signature}")

    def test_other_hmac(self) -> None:
        """Only the pinned algorithm counts, even with the right secret."""
        self.refused(jwt.encode(GOOD, SECRET * 2, "HS512"))

    def test_wrong_signature(self) -> None:
        """A token signed with another secret, or changed after signing, is refused."""
        self.refused(sign(GOOD, secret=b"y" * 32))
        header, _, signature = sign(GOOD).split(".")
        changed = b64(json.dumps({**GOOD, "sub": "admin"}).encode())
        self.refused(f"{header}.{changed}.{signature}")

    def test_odd_claims(self) -> None:
        """A signed claim of the wrong type is INVALID_TOKEN, never another error."""
        odd: dict[str, list[Any]] = {
            "sub": [None, 5, [], {}, "", "a\x00b", "a\nb", "\x85", "a" * 256, "é" * 128, "\ud800"],
            "exp": [None, "x", [], True, -1, 1e300, 10**400, START * 1000],
            "username": [None, 5, "", "a\x00b", "a" * 256, "\u202eecila"],
            "roles": [None, "admin", [5], [None], {}, [["admin"]], 5],
            "sid": [None, [], {}, 5, "", "\x00", "s" * 256],
            "typ": [None, 5, [], "refresh", "x"],
            "jti": [None, 5, []],
            "iat": [None, "x", True],
            "nbf": [None, "x"],
            "iss": [5, None],
            "aud": [5, None, [5]],
            "permissions": [
                None,
                [],
                "x",
                {"subscribe": None},
                {"subscribe": "a"},
                {"publish": [5]},
                {"publish": ["a..b"]},
                {"subscribe": ["a.>.b"]},
            ],
        }
        for claim, values in odd.items():
            for value in values:
                self.refused(sign({**GOOD, claim: value}))
        for claim in GOOD:
            self.refused(sign({k: v for k, v in GOOD.items() if k != claim}))

    def test_odd_payloads(self) -> None:
        """A signed payload that is no claims object is INVALID_TOKEN."""
        header = b'{"alg":"HS256"}'
        payloads = [b"", b"null", b"[]", b"5", b'"x"', b"{", b"\xff\xfe", b"[" * 3000]
        payloads += [
            b'{"sub":"a","exp":NaN}',
            b'{"sub":"a","exp":1e999}',
            b'{"sub":"\xff","exp":1}',
        ]
        for payload in payloads:
            self.refused(sign_raw(header, payload))
        good = json.dumps(GOOD).encode()
        headers = [
            b"",
            b"null",
            b"[]",
            b"{}",
            b"\xff",
            b"[" * 3000,
            b'{"alg":' + b"1" * 5000 + b"}",
        ]
        headers += [b'{"alg":"HS256","crit":["x"],"x":1}', b'{"alg":"HS256","kid":5}']
        for odd in headers:
            self.refused(sign_raw(odd, good))

    def test_odd_texts(self) -> None:
        """What is no token at all is INVALID_TOKEN."""
        odd: list[Any] = ["", ".", "..", "...", "a.b.c", "é.é.é", "\ud800", "\x00", None, 5, b"x"]
        for text in [*odd, sign(GOOD) + ".x", sign(GOOD) + "\n", " " + sign(GOOD)]:
            self.refused(text)

    def test_length_is_bounded(self) -> None:
        """A longer token than 8 KiB is refused before anything else is done with it."""
        self.refused(sign({**GOOD, "x": "y" * MAX_TOKEN_BYTES}))
        self.refused("a" * 10_000_000)

    def test_refusal_tells_nothing(self) -> None:
        """No part of a token shows in the error."""
        token = sign({**GOOD, "sub": 5}, secret=b"z" * 32)
        error = self.assertRaises(InvalidToken, self.tokens.verify_access, token)
        for part in token.split("."):
            self.assertNotIn(part, repr(error) + str(error.details))

    @settings(max_examples=300)
    @given(st.text() | st.from_regex(r"[\w-]*\.[\w-]*\.[\w-]*", fullmatch=True))
    def test_any_text(self, text: str) -> None:
        """Any text is INVALID_TOKEN."""
        self.assertRaises(InvalidToken, make_tokens(lambda: START).verify_access, text)

    @settings(max_examples=300)
    @given(
        st.binary(max_size=200)
        | st.dictionaries(
            st.sampled_from(["sub", "exp", "roles", "sid", "typ", "iat", "aud", "permissions"]),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(st.text(max_size=9), inner, max_size=3)
                ),
                max_leaves=5,
            ),
        ).map(lambda claims: json.dumps(claims).encode())
    )
    def test_any_signed_payload(self, payload: bytes) -> None:
        """Any signed payload gives an identity or a documented refusal."""
        try:
            make_tokens(lambda: START).verify_access(sign_raw(b'{"alg":"HS256"}', payload))
        except InvalidToken:
            pass


class IssuerTests(Case):
    """`iss` and `aud`."""

    def test_issuer_and_audience(self) -> None:
        """Where configured, `iss` and `aud` are written and must fit."""
        tokens = make_tokens(lambda: self.now, issuer="https://id", audience="chat")
        tokens.verify_access(tokens.issue_access(ALICE, None))
        fit = {**GOOD, "iss": "https://id", "aud": ["other", "chat"]}
        tokens.verify_access(sign(fit))
        for wrong in ({"iss": "https://evil"}, {"aud": "cha"}, {"aud": []}):
            self.refused(sign({**fit, **wrong}), tokens)
        self.refused(sign(GOOD), tokens)
