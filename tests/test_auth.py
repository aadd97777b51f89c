"""Tests of realtime.auth."""

import contextlib
import os
import threading
from typing import Any

import jwt
from argon2 import extract_parameters
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import TestCase

from realtime.accounts import Accounts
from realtime.auth import Auth, LoginLimits
from realtime.database import Database, Workers
from realtime.errors import (
    Forbidden,
    InvalidCredentials,
    InvalidToken,
    NotFound,
    RateLimited,
    TokenExpired,
    Unavailable,
)
from realtime.passwords import Hasher
from realtime.sessions_sqlite import Sessions
from tests.support.identity import (
    PASSWORD,
    SECRET,
    START,
    IdentityKit,
    make_clock,
    make_identity,
    make_state_dir,
    make_tokens,
    make_workers,
    quick_hasher,
)

ADDRESS = "192.0.2.1"


class Work:
    """The identity part, whose every costly step is noted in `done`."""

    def __init__(self, database: Database, workers: Workers, clock: Clock, done: list[str]) -> None:
        self.done = done

        class CountingHasher(Hasher):
            """Notes each hash by its parameters, whether it makes or checks one."""

            def hash(self, password: str) -> str:
                made = super().hash(password)
                done.append(f"argon2 {extract_parameters(made)}")
                return made

            def verify(self, password_hash: str, password: str) -> bool:
                done.append(f"argon2 {extract_parameters(password_hash)}")
                return super().verify(password_hash, password)

        class CountingLimits(LoginLimits):
            """Notes each look at the limits."""

            async def take(self, user: str, network: str, now: float) -> float:
                done.append("limits")
                return await super().take(user, network, now)

        tokens = make_tokens(clock.seconds)
        self.hasher = CountingHasher(time_cost=1, memory_cost=8, parallelism=1)
        self.accounts = Accounts(database, self.hasher, workers, clock.seconds)
        sessions = Sessions(database, clock, session_ttl=tokens.refresh_ttl)
        self.auth = Auth(
            tokens,
            self.accounts,
            sessions,
            clock,
            lambda kind, id: None,
            login_limits=CountingLimits(rate=1, burst=100),
        )


async def counted(case: TestCase) -> Work:
    """Make an identity part that notes what it does, over a file and threads that do, too."""
    done: list[str] = []

    class CountingDatabase(Database):
        """Notes each transaction."""

        async def read(self, *args: Any, **kwargs: Any) -> Any:
            done.append("read")
            return await super().read(*args, **kwargs)

        async def run(self, *args: Any, **kwargs: Any) -> Any:
            done.append("write")
            return await super().run(*args, **kwargs)

    class CountingWorkers(Workers):
        """Notes each piece of work for the threads."""

        def run(self, *args: Any, **kwargs: Any) -> Any:
            done.append("worker")
            return super().run(*args, **kwargs)

    database = CountingDatabase(os.path.join(make_state_dir(case), "realtime.sqlite3"), reactor)
    await database.open()
    case.addCleanup(database.close)
    workers = CountingWorkers(reactor, threads=1, max_pending=8, name="test")
    case.addCleanup(workers.stop)
    return Work(database, workers, make_clock(), done)


class Case(TestCase):
    """The identity part with a user, alice."""

    options: dict[str, Any] = {}

    async def setUp(self) -> None:
        self.kit = await make_identity(self, **self.options)
        self.auth, self.clock = self.kit.auth, self.kit.clock
        self.alice = await self.kit.accounts.create("alice", PASSWORD)

    async def login(self, username: str = "alice", password: str = PASSWORD) -> Any:
        """Log in."""
        return await self.auth.login(username, password, ADDRESS)

    def refused(self, token: str) -> None:
        """Check that an access token is INVALID_TOKEN."""
        error = self.assertRaises(InvalidToken, self.auth.authenticate, token)
        self.assertEqual(error.code, "INVALID_TOKEN")


class LoginTests(Case):
    """Logging in."""

    async def test_login(self) -> None:
        """A login gives tokens of one new session, and the user."""
        login = await self.login("ALICE")
        self.assertEqual((login.user, login.expires_in), (self.alice, 3600))
        identity = self.auth.authenticate(login.access_token)
        self.assertEqual((identity.user_id, identity.username), (self.alice.user_id, "alice"))
        self.assertEqual(identity.session_id, login.session_id)
        self.assertNotEqual((await self.login()).session_id, login.session_id)

    async def test_wrong_credentials(self) -> None:
        """Wrong password, unknown, disabled and impossible users get the same answer."""
        bob = await self.kit.accounts.create("bob", PASSWORD)
        await self.kit.accounts.set_disabled(bob.user_id, True)
        answers = set()
        odd = [("alice", "wrong horse"), ("nobody", PASSWORD), ("bob", PASSWORD), ("", "")]
        for username, password in [*odd, ("\x00\ud800", PASSWORD), ("a" * 9999, "x" * 9999)]:
            with self.assertRaises(InvalidCredentials) as caught:
                await self.login(username, password)
            error = caught.exception
            answers.add((error.message, str(error.details), str(error.headers), error.status))
        self.assertEqual(len(answers), 1)

    async def test_equal_work(self) -> None:
        """A wrong password, an unknown and a disabled user cost the same: each step is counted."""
        work = await counted(self)
        bob = await work.accounts.create("bob", PASSWORD)
        await work.accounts.create("alice.b", PASSWORD)
        await work.accounts.set_disabled(bob.user_id, True)
        costs = {}
        for username, password in (
            ("alice.b", "wrong horse"),
            ("ALICE.B", "wrong horse"),
            ("nobody", PASSWORD),
            ("bob", PASSWORD),
            ("bob", "wrong horse"),
            ("n" * 200, PASSWORD),
        ):
            work.done.clear()
            with self.assertRaises(InvalidCredentials):
                await work.auth.login(username, password, ADDRESS)
            costs[username, password] = list(work.done)
        (parameters,) = {step for step in costs["nobody", PASSWORD] if step.startswith("argon2")}
        for cost in costs.values():
            self.assertEqual(cost, ["limits", "read", "worker", parameters], costs)
        # That a difference would be seen: who gets in has more to do.
        work.done.clear()
        await work.auth.login("alice.b", PASSWORD, ADDRESS)
        self.assertGreater(len(work.done), 4)

    async def guess(self, username: str, address: str | None) -> None:
        """Make an attempt that is heard, and fails."""
        with self.assertRaises(InvalidCredentials):
            await self.auth.login(username, "wrong horse", address)

    async def test_limit_by_user_and_address(self) -> None:
        """After 3 attempts on a user, in any case, from an address there is a wait."""
        for _ in range(3):
            await self.guess("Alice", "192.0.2.1")
        with self.assertRaises(RateLimited) as caught:
            await self.login("aLICE", PASSWORD)
        self.assertEqual(caught.exception.headers["Retry-After"], "60")
        self.assertEqual(caught.exception.status, 429)
        self.clock.advance(60)
        await self.login()

    async def test_guessing_locks_nobody_out(self) -> None:
        """However often one address tries a user's name, from another the user gets in."""
        for n in range(100):
            with contextlib.suppress(RateLimited, InvalidCredentials):
                await self.auth.login("alice", f"guess number {n}", "192.0.2.66")
        await self.login()

    async def test_limit_by_user(self) -> None:
        """After 60 attempts on a user from anywhere there is a wait, 20 times as short."""
        for n in range(60):
            await self.guess("alice", f"192.0.2.{n}")
        with self.assertRaises(RateLimited) as caught:
            await self.auth.login("alice", PASSWORD, "198.51.100.1")
        self.assertEqual(caught.exception.headers["Retry-After"], "3")

    async def test_limit_by_address(self) -> None:
        """After 30 attempts from an address there is a wait, for whichever users."""
        for n in range(30):
            await self.guess(f"user{n}", "192.0.2.1")
        with self.assertRaises(RateLimited):
            await self.login()
        await self.auth.login("alice", PASSWORD, "192.0.2.2")

    async def test_ipv6_network(self) -> None:
        """An IPv6 network of 64 bits counts as one address."""
        for n in range(30):
            await self.guess(f"user{n}", f"2001:db8::{n:x}:1")
        with self.assertRaises(RateLimited):
            await self.auth.login("alice", PASSWORD, "2001:db8::ffff:1")
        for address in (
            "2001:db8:0:1::1",
            "::ffff:192.0.2.7",
            "fe80::1%eth0",
            "not an address",
            None,
        ):
            await self.auth.login("alice", PASSWORD, address)

    async def test_success_forgives(self) -> None:
        """A success makes the user's former failures count no more."""
        for _ in range(4):
            for _ in range(2):
                with self.assertRaises(InvalidCredentials):
                    await self.auth.login("alice", "wrong horse", None)
            await self.auth.login("alice", PASSWORD, None)

    async def test_concurrent(self) -> None:
        """Logins at one time begin sessions of their own."""
        calls = [self.auth.login("alice", PASSWORD, None) for _ in range(3)]
        logins = await gatherResults([Deferred.fromCoroutine(call) for call in calls])
        self.assertEqual(len({login.session_id for login in logins}), 3)

    async def test_password_changed_meanwhile(self) -> None:
        """A login whose password is changed while it is being checked does not succeed."""
        gate = threading.Event()
        held = [self.kit.workers.run(gate.wait) for _ in range(2)]
        checking = Deferred.fromCoroutine(self.login())
        await self.kit.database.read(lambda c: None)
        await self.kit.database.read(lambda c: None)
        self.clock.advance(1)
        other = Accounts(self.kit.database, quick_hasher(), make_workers(self), self.clock.seconds)
        await other.set_password(self.alice.user_id, "battery staple")
        self.clock.advance(1)
        gate.set()
        await gatherResults(held)
        with self.assertRaises(InvalidCredentials):
            await checking

    async def test_database_gone(self) -> None:
        """Without the database logging in is unavailable, and tokens still authenticate."""
        login = await self.login()
        await self.kit.database.close()
        with self.assertRaises(Unavailable):
            await self.login()
        with self.assertRaises(Unavailable):
            await self.auth.refresh(login.refresh_token)
        self.auth.authenticate(login.access_token)

    async def test_secrets_stay_secret(self) -> None:
        """No password, hash or token shows in a representation or in the log."""
        logged: list[str] = []
        observer = lambda event: logged.append(repr(event))  # noqa: E731
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        login = await self.login()
        renewal = await self.auth.refresh(login.refresh_token)
        with self.assertRaises(InvalidCredentials) as caught:
            await self.login("alice", "wrong horse")
        shown = repr(login) + repr(renewal) + repr(caught.exception) + "".join(logged)
        secrets = [PASSWORD, "wrong horse", "$argon2", login.access_token, login.refresh_token]
        for secret in [*secrets, renewal.access_token]:
            self.assertNotIn(secret, shown)


class RefreshTests(Case):
    """Renewing."""

    async def test_refresh(self) -> None:
        """A refresh token gives further access tokens of its session, again and again."""
        login = await self.login()
        for _ in range(3):
            self.clock.advance(3600)
            renewal = await self.auth.refresh(login.refresh_token)
            self.assertEqual((renewal.expires_in, renewal.refresh_token), (3600, None))
            identity = self.auth.authenticate(renewal.access_token)
            self.assertEqual(identity.session_id, login.session_id)

    async def test_former_access_token_stays(self) -> None:
        """An access token is good to its end, also after a refresh."""
        login = await self.login()
        await self.auth.refresh(login.refresh_token)
        self.auth.authenticate(login.access_token)

    async def test_present_roles(self) -> None:
        """A renewed access token has the roles that the user has by now."""
        login = await self.login()
        await self.kit.accounts.set_roles(self.alice.user_id, ["admin"])
        renewal = await self.auth.refresh(login.refresh_token)
        self.assertEqual(self.auth.authenticate(renewal.access_token).roles, {"admin"})

    async def test_wrong_tokens(self) -> None:
        """Access tokens, rubbish, strange users' and expired tokens do not refresh."""
        login = await self.login()
        claims = jwt.decode(login.refresh_token, SECRET, ["HS256"], {"verify_exp": False})
        strange = jwt.encode({**claims, "sub": "user_x"}, SECRET)
        for token in (login.access_token, "", "x", strange):
            with self.assertRaises(InvalidToken) as caught:
                await self.auth.refresh(token)
            self.assertEqual(caught.exception.code, "INVALID_TOKEN")
        self.clock.advance(30 * 86400 + 10)
        with self.assertRaises(TokenExpired):
            await self.auth.refresh(login.refresh_token)

    async def test_survives_restart(self) -> None:
        """A session begun before a restart is renewed after it; one that ended is not."""
        kept, ended = await self.login(), await self.login()
        await self.kit.sessions.end(ended.session_id)
        again = await make_identity(self, self.kit.database.path, self.clock)
        await again.auth.refresh(kept.refresh_token)
        again.auth.authenticate(kept.access_token)
        with self.assertRaises(InvalidToken):
            await again.auth.refresh(ended.refresh_token)
        self.assertRaises(InvalidToken, again.auth.authenticate, ended.access_token)


class RotationTests(Case):
    """Renewing with rotation."""

    options = {"rotate_refresh_tokens": True}

    async def test_rotation(self) -> None:
        """Each refresh token is good once; the chain may outlive the first token."""
        login = await self.login()
        token = login.refresh_token
        for _ in range(3):
            self.clock.advance(20 * 86400)
            renewal = await self.auth.refresh(token)
            assert renewal.refresh_token is not None
            token = renewal.refresh_token

    async def test_reuse(self) -> None:
        """A refresh token used twice ends the session, for thief and owner alike."""
        login = await self.login()
        renewal = await self.auth.refresh(login.refresh_token)
        with self.assertRaises(InvalidToken):
            await self.auth.refresh(login.refresh_token)
        with self.assertRaises(InvalidToken):
            await self.auth.refresh(renewal.refresh_token or "")
        self.refused(renewal.access_token)
        self.assertEqual(self.kit.revoked, [("session", login.session_id)])


class RevocationTests(Case):
    """Ending sessions and users."""

    async def test_own_session(self) -> None:
        """Ending one's own session refuses its tokens, and those of no other session."""
        login, other = await self.login(), await self.login()
        await self.auth.end_session(self.auth.authenticate(login.access_token), login.session_id)
        self.refused(login.access_token)
        with self.assertRaises(InvalidToken):
            await self.auth.refresh(login.refresh_token)
        self.auth.authenticate(other.access_token)
        self.assertEqual(self.kit.revoked, [("session", login.session_id)])

    async def test_every_spelling(self) -> None:
        """Every token of an ended session is refused, however it is spelled."""
        login = await self.login()
        renewal = await self.auth.refresh(login.refresh_token)
        await self.auth.end_session(self.auth.authenticate(login.access_token), login.session_id)
        self.refused(renewal.access_token)
        for padding in ("=", "=="):
            self.refused(login.access_token + padding)

    async def test_own_other_session(self) -> None:
        """A user may end another session of theirs."""
        login, other = await self.login(), await self.login()
        await self.auth.end_session(self.auth.authenticate(login.access_token), other.session_id)
        self.refused(other.access_token)
        self.auth.authenticate(login.access_token)

    async def test_others_session(self) -> None:
        """Only an admin may end another user's session."""
        await self.kit.accounts.create("bob", PASSWORD)
        await self.kit.accounts.create("root", PASSWORD, ["admin"])
        login, bob, root = [await self.login(name) for name in ("alice", "bob", "root")]
        with self.assertRaises(Forbidden):
            await self.auth.end_session(self.auth.authenticate(bob.access_token), login.session_id)
        self.auth.authenticate(login.access_token)
        await self.auth.end_session(self.auth.authenticate(root.access_token), login.session_id)
        self.refused(login.access_token)

    async def test_no_session(self) -> None:
        """A session that is not there is NotFound, for whoever asks and whatever the id."""
        identity = self.auth.authenticate((await self.login()).access_token)
        for session_id in ("", "x", "\x00", "\ud800", "sess_" + "0" * 32, "a" * 9999):
            with self.assertRaises(NotFound):
                await self.auth.end_session(identity, session_id)

    async def test_session_of_another_issuer(self) -> None:
        """The bearer of a session that is not stored here can end it, too."""
        token = jwt.encode({"sub": "ext", "sid": "ext-1", "exp": int(START) + 600}, SECRET)
        await self.auth.end_session(self.auth.authenticate(token), "ext-1")
        self.refused(token)
        self.assertEqual(self.kit.revoked, [("session", "ext-1")])

    async def check_all_end(self, kit: IdentityKit, login: Any, loose: str) -> None:
        """Check that a user's tokens, with and without a session, are refused by now."""
        await kit.sessions.poll()
        self.refused(login.access_token)
        self.refused(loose)
        with self.assertRaises(InvalidToken):
            await self.auth.refresh(login.refresh_token)
        self.assertIn(("user", self.alice.user_id), self.kit.revoked)
        self.assertIn(("session", login.session_id), self.kit.revoked)

    async def test_password_change(self) -> None:
        """A new password ends what was issued before it; the new one begins anew."""
        login = await self.login()
        loose = self.kit.tokens.issue_access(self.alice, None)
        await self.kit.accounts.set_password(self.alice.user_id, "battery staple")
        await self.check_all_end(self.kit, login, loose)
        self.clock.advance(0.001)
        self.auth.authenticate((await self.login("alice", "battery staple")).access_token)
        self.auth.authenticate(self.kit.tokens.issue_access(self.alice, None))

    async def test_disable(self) -> None:
        """A disabled user's tokens are refused, even those issued later by mistake."""
        login = await self.login()
        loose = self.kit.tokens.issue_access(self.alice, None)
        await self.kit.accounts.set_disabled(self.alice.user_id, True)
        await self.check_all_end(self.kit, login, loose)
        self.clock.advance(60)
        self.refused(self.kit.tokens.issue_access(self.alice, None))

    async def test_remove(self) -> None:
        """A removed user's tokens are refused."""
        login = await self.login()
        loose = self.kit.tokens.issue_access(self.alice, None)
        await self.kit.accounts.remove(self.alice.user_id)
        await self.check_all_end(self.kit, login, loose)

    async def test_kinds(self) -> None:
        """A refresh token does not authenticate."""
        self.refused((await self.login()).refresh_token)

    async def test_expired(self) -> None:
        """An expired access token is TOKEN_EXPIRED."""
        login = await self.login()
        self.clock.advance(3610)
        self.assertRaises(TokenExpired, self.auth.authenticate, login.access_token)
