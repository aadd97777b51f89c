"""Tests of realtime.jwks, against a real HTTP server."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from realtime.errors import InvalidToken
from realtime.jwks import (
    MAX_BYTES,
    MAX_KEYS,
    SOON,
    TIMEOUT,
    BadKeys,
    KeyReader,
    fetch_file,
    fetch_url,
    place_of,
    read_jwks,
)
from realtime.metrics import Counters
from realtime.signed_post import Connections
from realtime.token_keys import Keys, fits
from realtime.tokens import Tokens
from tests.support.certificates import make_certificate
from tests.support.identity import SECRET, START, make_state_dir, make_workers

EVERY = 300.0


def jwk(private: Any, kid: str | None = None, **more: Any) -> dict[str, Any]:
    """The public half of a key as an issuer shows it."""
    kinds = (
        (rsa.RSAPrivateKey, RSAAlgorithm),
        (ec.EllipticCurvePrivateKey, ECAlgorithm),
        (ed25519.Ed25519PrivateKey, OKPAlgorithm),
    )
    (algorithm,) = [algorithm for kind, algorithm in kinds if isinstance(private, kind)]
    shown: dict[str, Any] = algorithm.to_jwk(private.public_key(), as_dict=True)
    shown.pop("key_ops", None)
    return shown | ({} if kid is None else {"kid": kid}) | more


def key_set(*jwks: Any) -> bytes:
    """A set, as text."""
    return json.dumps({"keys": jwks}).encode()


def token(private: Any, algorithm: str, kid: str | None) -> str:
    """A token of the issuer's."""
    headers = {} if kid is None else {"kid": kid}
    return jwt.encode({"sub": "user_1", "exp": START + 60}, private, algorithm, headers)


def write(path: str, content: bytes) -> None:
    """Put something into a file."""
    with open(path, "wb") as file:
        file.write(content)


class ReadingTests(SynchronousTestCase):
    """What counts of a set."""

    def setUp(self) -> None:
        """Make keys of all kinds."""
        self.rsa = rsa.generate_private_key(65537, 2048)
        self.ec = ec.generate_private_key(ec.SECP256R1())
        self.ed = ed25519.Ed25519PrivateKey.generate()

    def test_kinds(self) -> None:
        """RS256, ES256 and EdDSA keys count, whether or not they say what they are for."""
        for more in ({}, {"use": "sig"}, {"key_ops": ["verify"]}):
            keys, skipped = read_jwks(
                key_set(jwk(self.rsa, "a", **more), jwk(self.ec, "b", **more), jwk(self.ed, "c"))
            )
            self.assertEqual(skipped, [])
            found = [(key.algorithm, key.kid) for key in keys]
            self.assertEqual(found, [("RS256", "a"), ("ES256", "b"), ("EdDSA", "c")])

    def test_left_out(self) -> None:
        """A key that cannot be used is left out and told of, and the others count."""
        good = jwk(self.ec, "good")
        private = json.loads(ECAlgorithm.to_jwk(self.ec)) | {"kid": "private"}
        small = rsa.generate_private_key(65537, 1024)
        odd: list[Any] = [
            jwk(self.rsa, "enc", use="enc"),
            jwk(self.rsa, "ops", key_ops=["encrypt"]),
            jwk(self.rsa, "ops", key_ops=5),
            jwk(small, "small"),
            jwk(ec.generate_private_key(ec.SECP384R1()), "p384"),
            jwk(self.rsa, "ps", alg="PS256"),
            jwk(self.rsa, "rs512", alg="RS512"),
            jwk(self.rsa, "confused", alg="HS256"),
            jwk(self.rsa, "none", alg="none"),
            jwk(self.ec, "list", alg=["ES256"]),
            {"kty": "oct", "k": "eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHg", "kid": "oct"},
            private,
            {"kty": "RSA", "n": "!", "e": "AQAB", "kid": "n"},
            {"kty": "RSA", "kid": "bare"},
            {"kty": ["RSA"]},
            {},
            {**jwk(self.ec), "kid": 5},
            jwk(self.ec, "k" * 256),
            good,
            None,
            [],
            "key",
        ]
        keys, skipped = read_jwks(key_set(good, *odd))
        self.assertEqual([key.kid for key in keys], ["good"])
        self.assertEqual(len(skipped), len(odd))
        for number, problem in enumerate(skipped, 2):
            self.assertTrue(problem.startswith(f"key {number} "), problem)
            self.assertNotIn(private["d"], problem)

    def test_no_set(self) -> None:
        """What is no set at all, or too large, is refused as a whole."""
        many = key_set(*({} for _ in range(MAX_KEYS + 1)))
        for text in (b"", b"{}", b"[]", b"<html>", b'{"keys":{}}', b'{"keys":null}', b"\xff", many):
            self.assertRaises(BadKeys, read_jwks, text)
        self.assertRaises(BadKeys, read_jwks, b'{"keys":' + b"[" * 60000)

    @settings(max_examples=300)
    @given(
        st.binary(max_size=200)
        | st.lists(
            st.dictionaries(
                st.sampled_from(["kty", "crv", "alg", "use", "kid", "key_ops", *"nexydk"]),
                st.sampled_from(["RSA", "EC", "OKP", "oct", "P-256", "Ed25519", "RS256", "AQAB"])
                | st.none()
                | st.integers()
                | st.text(max_size=50)
                | st.lists(st.text(max_size=9), max_size=3),
            ),
            max_size=4,
        ).map(lambda jwks: key_set(*jwks))
    )
    def test_any_set(self, text: bytes) -> None:
        """Whatever an issuer shows is keys that fit, or is left out, or is no set."""
        try:
            keys, skipped = read_jwks(text)
        except BadKeys:
            return
        self.assertEqual(len(keys) + len(skipped), len(json.loads(text)["keys"]))
        for key in keys:
            self.assertTrue(fits(key.algorithm, key.key))

    def test_place(self) -> None:
        """The log has neither path nor query of a URL."""
        self.assertEqual(place_of("https://id.example:8443/a?key=x"), "https://id.example:8443")


class Issuer(Resource):
    """An issuer's server: it answers with `body`, or as `status` and `held` say."""

    isLeaf = True

    def __init__(self, case: TestCase) -> None:
        super().__init__()
        self.body = b""
        self.status = 200
        self.location: str | None = None
        # Requests that are not to be answered, once there are some.
        self.held: list[Request] | None = None
        self.asked: DeferredQueue[Request] = DeferredQueue()
        self.requests = 0
        site = Site(self)
        site.noisy = False
        self._port = reactor.listenTCP(0, site, interface="127.0.0.1")
        case.addCleanup(self._port.stopListening)
        self.url = f"http://127.0.0.1:{self._port.getHost().port}/keys"

    def render_GET(self, request: Request) -> Any:
        """Answer."""
        self.requests += 1
        self.asked.put(request)
        if self.held is not None:
            self.held.append(request)
            request.write(b'{"keys":[')
            return NOT_DONE_YET
        request.setResponseCode(self.status)
        if self.location is not None:
            request.setHeader("Location", self.location)
        request.setHeader("Set-Cookie", "a=b")
        return self.body


class Case(TestCase):
    """Keys that follow a source. The clock is the test's, the network is real."""

    def setUp(self) -> None:
        """Make an issuer with two keys, of which it shows one."""
        self.old = ec.generate_private_key(ec.SECP256R1())
        self.new = ec.generate_private_key(ec.SECP256R1())
        self.clock = Clock()
        self.clock.rightNow = START
        self.counters = Counters()
        self.keys = Keys(SECRET)
        self.tokens = Tokens(self.keys, now=lambda: START)
        self.told: list[list[str]] = []
        self.logged: list[str] = []
        observer = lambda event: self.logged.append(  # noqa: E731
            event["log_format"].format(**event) if event.get("log_format") else ""
        )
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def reader(self, fetch: Any) -> KeyReader:
        """Follow a source."""
        made = KeyReader(
            self.keys,
            fetch,
            "https://id.example",
            self.counters,
            self.clock,
            every=EVERY,
            on_change=self.told.append,
        )
        self.addCleanup(made.stop)
        return made

    def good(self, private: Any, kid: str | None) -> bool:
        """Whether a token is accepted."""
        try:
            self.tokens.verify_access(token(private, "ES256", kid))
        except InvalidToken:
            return False
        return True


class UrlTests(Case):
    """Keys at a URL."""

    def setUp(self) -> None:
        """Start an issuer's server."""
        super().setUp()
        self.issuer = Issuer(self)
        self.issuer.body = key_set(jwk(self.old, "old"))
        connections = Connections(reactor, kept=1)
        self.addCleanup(connections.close)
        self.under = self.reader(fetch_url(self.issuer.url, connections.agent))

    async def again(self, seconds: float = EVERY) -> None:
        """Let time pass, and wait for the reading that is then due."""
        before = self.counters.jwks_refreshes + self.counters.jwks_failures
        for _ in range(int(seconds / SOON)):
            self.clock.advance(SOON)
        await self.settled(before)

    async def settled(self, before: int) -> None:
        """Wait until another reading has had its end."""
        while self.counters.jwks_refreshes + self.counters.jwks_failures == before:
            turn: Deferred[None] = Deferred()
            reactor.callLater(0, turn.callback, None)
            await turn

    async def test_rotation(self) -> None:
        """A key that comes is known, and one that goes is not, from the next reading on."""
        await self.under.start()
        self.assertTrue(self.good(self.old, "old"))
        self.issuer.body = key_set(jwk(self.new, "new"), jwk(self.old, "old"))
        await self.again()
        self.assertTrue(self.good(self.new, "new") and self.good(self.old, "old"))
        self.assertEqual(self.counters.jwks_keys, 2)
        self.issuer.body = key_set(jwk(self.new, "new"))
        await self.again()
        self.assertTrue(self.good(self.new, "new"))
        self.assertFalse(self.good(self.old, "old"))
        self.assertEqual((self.counters.jwks_keys, self.counters.jwks_refreshes), (1, 3))
        self.assertEqual(self.told, [["old"], ["new", "old"], ["new"]])
        # The same again is no change.
        await self.again()
        self.assertEqual((len(self.told), self.counters.jwks_refreshes), (3, 4))
        request = await self.issuer.asked.get()
        self.assertIsNone(request.getHeader("Cookie"))

    async def test_empty(self) -> None:
        """A set without keys is obeyed: the issuer has taken all back."""
        await self.under.start()
        self.issuer.body = key_set()
        await self.again()
        self.assertFalse(self.good(self.old, "old"))
        self.assertEqual((self.counters.jwks_keys, self.counters.jwks_failures), (0, 0))

    async def test_failures(self) -> None:
        """Whatever else comes, the keys that are there stay, and it is logged and counted once."""
        await self.under.start()
        for number, (status, body) in enumerate(
            (
                (500, self.issuer.body),
                (200, b"<html>"),
                (200, b""),
                (200, b" " * MAX_BYTES + self.issuer.body),
                (404, key_set()),
            ),
            1,
        ):
            self.issuer.status, self.issuer.body = status, body
            await self.again()
            self.assertTrue(self.good(self.old, "old"))
            self.assertEqual(self.counters.jwks_failures, number)
        self.assertEqual((self.counters.jwks_refreshes, self.counters.jwks_keys), (1, 1))
        complaints = [line for line in self.logged if " fails: " in line]
        self.assertEqual(len(complaints), 1)
        self.assertIn("https://id.example fails: HTTP status 500", complaints[0])
        self.issuer.status, self.issuer.body = 200, key_set(jwk(self.new, "new"))
        await self.again()
        self.assertTrue(self.good(self.new, "new"))

    async def test_redirect(self) -> None:
        """A redirect is not followed, wherever it leads."""
        other = Issuer(self)
        other.body = key_set(jwk(self.new, "new"))
        self.issuer.status, self.issuer.location = 302, other.url
        await self.under.start()
        self.assertEqual((other.requests, self.counters.jwks_failures), (0, 1))
        self.assertFalse(self.good(self.new, "new"))

    async def test_strange_certificate(self) -> None:
        """A server that shows a certificate of its own making is not believed."""
        folder = Path(make_state_dir(self))
        cert, key = make_certificate(folder)
        site = Site(self.issuer)
        site.noisy = False
        context = DefaultOpenSSLContextFactory(key, cert)
        port = reactor.listenSSL(0, site, context, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        connections = Connections(reactor, kept=1)
        self.addCleanup(connections.close)
        url = f"https://127.0.0.1:{port.getHost().port}/keys"
        await self.reader(fetch_url(url, connections.agent)).read()
        self.assertEqual((self.counters.jwks_failures, self.issuer.requests), (1, 0))
        self.assertTrue(any("certificate" in line for line in self.logged), self.logged)

    async def test_slow(self) -> None:
        """An answer that does not end in time is given up, with its connection."""
        await self.under.start()
        await self.issuer.asked.get()
        self.issuer.held = []
        before = self.counters.jwks_refreshes
        for _ in range(int(EVERY / SOON)):
            self.clock.advance(SOON)
        request = await self.issuer.asked.get()
        gone = request.notifyFinish()
        # The head of the answer, and some of its body, are on the way meanwhile.
        self.clock.advance(TIMEOUT)
        await self.settled(before)
        self.assertEqual(self.counters.jwks_failures, 1)
        self.assertTrue(self.good(self.old, "old"))
        await self.assertFailure(gone, Exception)
        self.assertTrue(any(f"no answer within {TIMEOUT:g} seconds" in x for x in self.logged))

    async def test_absent_at_first(self) -> None:
        """A server whose issuer is not there starts, and has the keys soon after they are."""
        self.issuer.status = 503
        await self.under.start()
        self.assertFalse(self.good(self.old, "old"))
        self.issuer.status = 200
        await self.again(SOON)
        self.assertTrue(self.good(self.old, "old"))

    async def test_unknown_key(self) -> None:
        """A token of an unknown key is refused, and has the keys read, once in ten seconds."""
        await self.under.start()
        self.issuer.body = key_set(jwk(self.new, "new"))
        for _ in range(50):
            self.assertFalse(self.good(self.new, "new"))
        self.assertEqual(self.issuer.requests, 1)
        self.clock.advance(SOON)
        before = self.counters.jwks_refreshes
        for _ in range(50):
            self.assertFalse(self.good(self.new, "new"))
        await self.settled(before)
        self.assertTrue(self.good(self.new, "new"))
        self.assertEqual(self.issuer.requests, 2)
        # A flood of strange kids asks no more often.
        for number in range(100):
            self.assertFalse(self.good(self.new, f"strange {number}"))
        self.assertEqual(self.issuer.requests, 2)

    async def test_stop(self) -> None:
        """Who has stopped asks no more, also where an answer is awaited."""
        await self.under.start()
        await self.issuer.asked.get()
        self.issuer.held = []
        self.under.begin()
        await self.issuer.asked.get()
        await self.under.stop()
        self.clock.advance(EVERY)
        self.assertFalse(self.good(self.new, "new"))
        self.assertEqual((self.issuer.requests, self.clock.getDelayedCalls()), (2, []))
        self.assertEqual(self.counters.jwks_failures, 0)


class FileTests(Case):
    """Keys in a file."""

    async def test_rotation(self) -> None:
        """The file is read again; one that is gone, or too large, changes nothing."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = os.path.join(folder.name, "keys.json")
        write(path, key_set(jwk(self.old, "old")))
        under = self.reader(fetch_file(path, make_workers(self)))
        await under.start()
        self.assertTrue(self.good(self.old, "old"))
        write(path, key_set(jwk(self.new, "new")))
        await under.read()
        self.assertTrue(self.good(self.new, "new"))
        write(path, b" " * (MAX_BYTES + 1))
        await under.read()
        os.remove(path)
        await under.read()
        self.assertTrue(self.good(self.new, "new"))
        self.assertEqual((self.counters.jwks_refreshes, self.counters.jwks_failures), (2, 2))
