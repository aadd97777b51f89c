"""Tests of realtime.credentials: keys that change while a server runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
from twisted.internet import reactor
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import TestCase

from realtime.credentials import POLL_SECONDS, Credentials
from realtime.errors import ConfigurationError, InvalidToken
from realtime.metrics import Counters
from realtime.settings import read_settings
from realtime.signing_keys import FORMER_KEYS, OVERLAP, SIGNING_KEY, drop_key, rotate_key
from realtime.token_keys import kid_of
from tests.support.identity import ALICE, START, make_state_dir

LIFE = 30 * 86400.0


class Threads(Clock):
    """A clock whose threads come back to the real reactor."""

    def callFromThread(self, function: Callable[..., object], *args: Any) -> None:
        """Call something in the real reactor."""
        reactor.callFromThread(function, *args)


class Case(TestCase):
    """Credentials of a state directory, on a clock."""

    def setUp(self) -> None:
        """Make a directory."""
        self.state = Path(make_state_dir(self))
        self.clock = Threads()
        self.clock.rightNow = START

    async def begin(
        self, on_dropped: Callable[[str], object] = lambda kid: None, **flags: str
    ) -> Credentials:
        """Read and watch keys; ended after the test."""
        settings = read_settings({name.replace("_", "-"): v for name, v in flags.items()}, {})
        made = Credentials(settings, self.state, Counters(), self.clock, None, on_dropped)
        await made.start()
        self.addCleanup(made.stop)
        return made

    async def poll(self, made: Credentials, seconds: float = POLL_SECONDS) -> None:
        """Let time pass, with the looks at the files that are then due."""
        for _ in range(int(seconds / POLL_SECONDS)):
            self.clock.advance(POLL_SECONDS)
            # The files are read in a thread of one: what it is asked now, it does after that.
            await made._workers.run(lambda: None)

    def kid(self, made: Credentials) -> str:
        """The key of a new token."""
        token = made.tokens.issue_access(ALICE, None)
        kid: str = jwt.get_unverified_header(token)["kid"]
        return kid


class StateTests(Case):
    """Keys of the state directory."""

    async def test_rotation(self) -> None:
        """A new key verifies at once and signs when all know it; no token stops counting."""
        one, two = await self.begin(), await self.begin()
        old = self.kid(one)
        tokens = [one.tokens.issue_access(ALICE, "s"), one.tokens.issue_refresh(ALICE, "s")]
        new = rotate_key(self.state, self.clock.seconds(), LIFE)
        ahead = jwt.encode(
            {"sub": "user_1", "exp": START + 60}, (self.state / SIGNING_KEY).read_text().strip()
        )
        self.assertRaises(InvalidToken, one.tokens.verify_access, ahead)
        # The two look at different times, and whichever issues a token, the other takes it.
        signed = set()
        for turn in range(12):
            await self.poll(one if turn % 2 else two)
            for issuer in (one, two):
                signed.add(self.kid(issuer))
                for judge in (one, two):
                    judge.tokens.verify_access(issuer.tokens.issue_access(ALICE, "s"))
                    judge.tokens.verify_access(tokens[0])
                    judge.tokens.verify_refresh(tokens[1])
        self.assertEqual(signed, {old, new})
        self.assertEqual((self.kid(one), self.kid(two)), (new, new))
        one.tokens.verify_access(ahead)

    async def test_end(self) -> None:
        """The former key ends with the tokens that it may have signed."""
        made = await self.begin(refresh_token_ttl="600", access_token_ttl="600")
        token = made.tokens.issue_refresh(ALICE, "s")
        rotate_key(self.state, self.clock.seconds(), 600)
        await self.poll(made, OVERLAP + 600)
        self.assertEqual(len(made.tokens.keys.kids), 2)
        self.clock.advance(3600)
        await self.poll(made)
        self.assertEqual(len(made.tokens.keys.kids), 1)
        self.assertRaises(InvalidToken, made.tokens.verify_refresh, token)

    async def test_drop(self) -> None:
        """Tokens of a key that was dropped are refused within two seconds, and it is told."""
        dropped: list[str] = []
        made = await self.begin(dropped.append)
        token, old = made.tokens.issue_access(ALICE, None), self.kid(made)
        rotate_key(self.state, self.clock.seconds(), LIFE)
        await self.poll(made)
        made.tokens.verify_access(token)
        self.assertEqual(dropped, [])
        drop_key(self.state, old, self.clock.seconds())
        await self.poll(made)
        self.assertRaises(InvalidToken, made.tokens.verify_access, token)
        self.assertEqual(dropped, [old])

    async def test_restart(self) -> None:
        """A server that starts later knows the former keys, too."""
        token = (await self.begin()).tokens.issue_refresh(ALICE, "s")
        for _ in range(3):
            rotate_key(self.state, self.clock.seconds(), LIFE)
            self.clock.advance(OVERLAP)
        (await self.begin()).tokens.verify_refresh(token)

    async def test_damage(self) -> None:
        """Files that cannot be read are logged, and the keys that were read stay."""
        made = await self.begin()
        token = made.tokens.issue_access(ALICE, None)
        logged: list[str] = []
        observer = lambda event: logged.append(str(event.get("problem")))  # noqa: E731
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        (self.state / FORMER_KEYS).write_text("{")
        (self.state / FORMER_KEYS).chmod(0o600)
        await self.poll(made, 10)
        made.tokens.verify_access(token)
        self.assertEqual(logged, [f"former signing keys {self.state / FORMER_KEYS}: damaged"])
        self.assertRaises(ConfigurationError, made.read_again)
        made.tokens.verify_access(token)

    async def test_reload(self) -> None:
        """Who reloads need not wait."""
        made = await self.begin()
        new = rotate_key(self.state, self.clock.seconds(), LIFE)
        take = made.read_again()
        self.assertNotIn(new, made.tokens.keys.kids)
        take()
        self.assertIn(new, made.tokens.keys.kids)


class GivenTests(Case):
    """Keys that are given by option."""

    def write(self, *secrets: str) -> str:
        """A file with some secrets."""
        path = self.state / "given"
        path.write_text("".join(f"{secret}\n" for secret in secrets))
        path.chmod(0o600)
        return str(path)

    async def test_file(self) -> None:
        """A file of secrets is read again when the server is told so, and not before."""
        one, two = "s" * 32, "t" * 32
        path = self.write(one)
        made = await self.begin(secret_file=path)
        token = made.tokens.issue_refresh(ALICE, "s")
        self.write(one, two)
        await self.poll(made)
        self.assertEqual(made.tokens.keys.kids, [kid_of(one.encode())])
        made.read_again()()
        self.write(two, one)
        made.read_again()()
        self.assertEqual(self.kid(made), kid_of(two.encode()))
        made.tokens.verify_refresh(token)
        self.write(two)
        made.read_again()()
        self.assertRaises(InvalidToken, made.tokens.verify_refresh, token)
        self.write("short")
        self.assertRaises(ConfigurationError, made.read_again)
        self.assertEqual(self.kid(made), kid_of(two.encode()))

    async def test_text(self) -> None:
        """Of several secrets in the environment the first signs and all verify."""
        one, two = "s" * 32, "t" * 32
        before = (await self.begin(secret=one)).tokens.issue_refresh(ALICE, "s")
        made = await self.begin(secret=f"{two} {one}")
        self.assertEqual(self.kid(made), kid_of(two.encode()))
        made.tokens.verify_refresh(before)

    async def test_bad_key_files(self) -> None:
        """Files of an issuer's keys that cannot be used are told when the server starts."""
        path = self.state / "keys.json"
        for flags in (
            {"jwks_file": str(path)},
            {"jwt_public_key": str(path), "jwt_algorithm": "ES256"},
        ):
            path.unlink(missing_ok=True)
            with self.assertRaises(ConfigurationError) as caught:
                await self.begin(**flags)
            self.assertIn("No such file", str(caught.exception))
            path.write_text("{}")
            with self.assertRaises(ConfigurationError):
                await self.begin(**flags)
