"""Tests of realtime.audit."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.test.requesthelper import DummyRequest

from realtime.addresses import Proxies
from realtime.audit import (
    ACTOR_BURST,
    ALL_BURST,
    MAX_FIELD,
    NETWORK_BURST,
    TELL_SECONDS,
    Audit,
    AuditFile,
)
from realtime.errors import (
    ConfigurationError,
    Forbidden,
    InvalidCredentials,
    InvalidToken,
    RateLimited,
)
from realtime.metrics import Counters
from realtime.model import Identity
from tests.support.identity import PASSWORD, START, make_identity, make_state_dir
from tests.support.server import run

# In a process of its own, whose files are not to grow for a while.
_NO_ROOM = """
import sys
from resource import RLIMIT_FSIZE, getrlimit, setrlimit
from realtime.audit import AuditFile
from realtime.metrics import Counters

counters = Counters()
file = AuditFile(sys.argv[1], counters)
soft, hard = getrlimit(RLIMIT_FSIZE)
setrlimit(RLIMIT_FSIZE, (12, hard))
file.write(b'{"a":2}\\n')
file.write(b'{"a":3}\\n')
setrlimit(RLIMIT_FSIZE, (soft, hard))
print(counters.audit_failures)
file.write(b'{"a":4}\\n')
print(counters.audit_failures)
"""


class Case(SynchronousTestCase):
    """An audit log in a file."""

    def setUp(self) -> None:
        """Open it."""
        self.path = Path(make_state_dir(self)) / "audit.log"
        self.counters = Counters()
        self.file = AuditFile(str(self.path), self.counters)
        self.clock = Clock()
        self.clock.rightNow = START
        self.audit = Audit(self.file, self.clock, Proxies(["10.0.0.0/8", "unix"]))
        self.addCleanup(self.audit.close)

    def lines(self) -> list[dict[str, Any]]:
        """What is in the file."""
        return [json.loads(line) for line in self.path.read_text().splitlines()]


class FileTests(Case):
    """The file."""

    def test_mode_and_order(self) -> None:
        """It is for its owner only; lines follow those there are."""
        self.file.write(b"1\n")
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
        other = AuditFile(str(self.path), self.counters)
        self.addCleanup(other.close)
        other.write(b"2\n")
        self.file.write(b"3\n")
        self.assertEqual(self.path.read_bytes(), b"1\n2\n3\n")

    def test_moved_away(self) -> None:
        """After it was moved away lines go on there, until it is opened again."""
        self.file.write(b"1\n")
        moved = self.path.rename(self.path.with_name("audit.log.1"))
        self.file.write(b"2\n")
        self.file.reopen()
        self.file.write(b"3\n")
        self.assertEqual((moved.read_bytes(), self.path.read_bytes()), (b"1\n2\n", b"3\n"))
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            self.file.reopen()
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    def test_cannot_reopen(self) -> None:
        """Where it cannot be opened again, lines go on where they went."""
        moved = self.path.rename(self.path.with_name("audit.log.1"))
        self.path.mkdir()
        self.assertRaises(ConfigurationError, self.file.reopen)
        self.file.write(b"1\n")
        self.assertEqual(moved.read_bytes(), b"1\n")

    def test_no_file(self) -> None:
        """What is no file, or cannot be made, is told in one line."""
        folder = self.path.parent
        os.mkfifo(folder / "pipe")
        for path in (folder, folder / "pipe", folder / "no" / "such", Path("/dev/null")):
            error = self.assertRaises(ConfigurationError, AuditFile, str(path), self.counters)
            self.assertTrue(str(error).startswith(f"--audit-log {path}: "), error)
            self.assertNotIn("\n", str(error))

    def test_no_room(self) -> None:
        """Lines for which there is no room are lost and counted; the next ones are whole."""
        self.file.write(b'{"a":1}\n')
        done = run("-c", _NO_ROOM, str(self.path))
        self.assertEqual((done.stdout, done.stderr), ("2\n2\n", ""))
        self.assertEqual(self.path.read_bytes(), b'{"a":1}\n{"a"\n{"a":4}\n')

    def test_closed(self) -> None:
        """What comes after the end is dropped."""
        self.file.close()
        self.file.close()
        self.file.write(b"1\n")
        self.assertEqual(self.path.read_bytes(), b"")


class LineTests(Case):
    """What is written."""

    def test_fields(self) -> None:
        """A line has time, event and outcome, and the fields that there are."""
        self.clock.advance(0.25)
        self.audit.note("login", user="u", session=None, connections=2)
        self.assertEqual(
            self.lines(),
            [
                {
                    "time": "2023-11-14T22:13:20.250Z",
                    "event": "login",
                    "outcome": "ok",
                    "user": "u",
                    "connections": 2,
                }
            ],
        )

    def test_refusal(self) -> None:
        """A refusal has its code and sentence, and is written once, however many see it."""
        error = InvalidToken("The token's key is not known.")
        error.actor = "user_1"
        for event in ("connect", "request"):
            self.audit.refused(event, error, address="192.0.2.1")
        (line,) = self.lines()
        del line["time"]
        self.assertEqual(
            line,
            {
                "event": "connect",
                "outcome": "refused",
                "actor": "user_1",
                "address": "192.0.2.1",
                "reason": "INVALID_TOKEN",
                "detail": "The token's key is not known.",
            },
        )

    @given(st.text(st.characters(), max_size=600))
    def test_any_text(self, text: str) -> None:
        """Whatever somebody calls themselves is one line of JSON, and not a long one."""
        os.truncate(self.path, 0)
        self.audit.note("login", username=text)
        (line,) = self.path.read_bytes().removesuffix(b"\n").split(b"\n")
        self.assertLess(len(line), 4096)
        shown = json.loads(line)["username"]
        self.assertEqual(len(shown), min(len(text), MAX_FIELD))
        self.assertTrue(shown.isprintable())

    def test_long_texts(self) -> None:
        """Of a long text its beginning is written."""
        self.audit.note("login", username="n" * 5000)
        self.assertEqual(self.lines()[0]["username"], "n" * MAX_FIELD)

    def test_address(self) -> None:
        """It is the peer's, or the client's where a trusted proxy names it."""
        address = self.audit.address
        proxy, stranger = (IPv4Address("TCP", host, 1) for host in ("10.0.0.1", "192.0.2.1"))
        self.assertEqual(address(stranger, ["198.51.100.1"]), "192.0.2.1")
        self.assertEqual(address(proxy, ["198.51.100.1"]), "198.51.100.1")
        self.assertEqual(address(UNIXAddress(None), ["198.51.100.1"]), "198.51.100.1")
        self.assertEqual(address(UNIXAddress(None), []), "")

    def test_off(self) -> None:
        """Without a file nothing happens."""
        audit = Audit()
        audit.note("login")
        audit.refused("login", InvalidCredentials())
        audit.reopen()
        audit.close()


class FloodTests(Case):
    """Very many lines."""

    def refuse(self, address: str) -> None:
        """Refuse somebody."""
        self.audit.refused("connect", InvalidToken(), address=address)

    def test_network(self) -> None:
        """Of one network few refusals are written, and then how many were not."""
        for number in range(1000):
            self.refuse(f"2001:db8::{number:x}")
        self.refuse("192.0.2.1")
        self.assertEqual(len(self.lines()), NETWORK_BURST + 1)
        self.clock.advance(TELL_SECONDS)
        told = self.lines()[-1]
        self.assertEqual((told["event"], told["counts"]), ("omitted", {"connect": 990}))
        # In time some are written again.
        self.refuse("2001:db8::1")
        self.assertEqual(self.lines()[-1]["event"], "connect")
        self.clock.advance(2 * TELL_SECONDS)
        self.assertEqual((len(self.lines()), self.clock.getDelayedCalls()), (13, []))

    def test_events(self) -> None:
        """Many refusals of one kind hide none of another."""
        for _ in range(1000):
            self.refuse("192.0.2.1")
        self.audit.refused("login", InvalidCredentials(), address="192.0.2.1")
        self.assertEqual(self.lines()[-1]["event"], "login")

    def test_many_networks(self) -> None:
        """Of all networks together the refusals written are bounded as well."""
        for number in range(5000):
            self.refuse(f"10.{number // 250}.{number % 250}.1")
        self.assertEqual(len(self.lines()), ALL_BURST)

    def test_what_succeeds_is_not_left_out(self) -> None:
        """A flood of refusals hides nothing that succeeds."""
        for number in range(1000):
            self.refuse("192.0.2.1")
            if number % 100 == 0:
                self.audit.note("login", user=f"user_{number}")
        logins = [line for line in self.lines() if line["event"] == "login"]
        self.assertEqual(len(logins), 10)

    def test_end(self) -> None:
        """What was left out is told at the end, too."""
        for _ in range(12):
            self.refuse("192.0.2.1")
        self.audit.close()
        self.assertEqual(self.lines()[-1]["counts"], {"connect": 2})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_acts(self) -> None:
        """A program that publishes as others without end gets so many lines."""
        request = DummyRequest([])
        request.client = IPv4Address("TCP", "192.0.2.1", 1)
        for name in ("key:one", "key:two"):
            identity = Identity(name, None, frozenset(), None, 0)
            for _ in range(ACTOR_BURST * 2):
                self.audit.act(request, identity, "publish")
        self.assertEqual(len(self.lines()), 2 * ACTOR_BURST)
        self.assertEqual(
            {(line["actor"], line["address"]) for line in self.lines()},
            {("key:one", "192.0.2.1"), ("key:two", "192.0.2.1")},
        )


class AuthTests(TestCase):
    """What logging in, renewing and ending write."""

    async def test_sessions(self) -> None:
        """Each has its line, and no line has a password or a token."""
        path = Path(make_state_dir(self)) / "audit.log"
        clock = Clock()
        clock.rightNow = START
        audit = Audit(AuditFile(str(path), Counters()), clock)
        self.addCleanup(audit.close)
        kit = await make_identity(self, clock=clock, audit=audit)
        alice = await kit.accounts.create("alice", PASSWORD)
        where = "192.0.2.1"
        login = await kit.auth.login("Alice", PASSWORD, where)
        await kit.auth.refresh(login.refresh_token, where)
        other = await kit.auth.login("alice", PASSWORD, where)
        mallory = kit.tokens.verify_access(kit.tokens.issue_access(alice, "sess_x"))
        stranger = kit.auth.authenticate(
            kit.tokens.issue_access(await kit.accounts.create("bob", PASSWORD), None)
        )
        for token in (login.access_token, "rubbish"):
            with self.assertRaises(InvalidToken):
                await kit.auth.refresh(token, where)
        with self.assertRaises(Forbidden) as caught:
            await kit.auth.end_session(stranger, login.session_id, where)
        self.assertEqual(caught.exception.actor, stranger.user_id)
        await kit.auth.end_session(mallory, login.session_id, where)
        with self.assertRaises(InvalidToken):
            await kit.auth.refresh(login.refresh_token, where)
        for name in ("alice", "nobody", "nobody", "nobody"):
            with self.assertRaises(InvalidCredentials):
                await kit.auth.login(name, "wrong horse", where)
        with self.assertRaises(RateLimited):
            await kit.auth.login("nobody", "wrong horse", where)
        text = path.read_text()
        found = []
        for line in map(json.loads, text.splitlines()):
            self.assertEqual(line.pop("address"), where)
            del line["time"]
            line.pop("detail", None)
            found.append(line)
        ok = {"outcome": "ok", "user": alice.user_id}
        ours = ok | {"session": login.session_id}
        self.assertEqual(
            found[:4],
            [
                {"event": "login", **ours, "username": "alice"},
                {"event": "refresh", **ours},
                {"event": "login", **ok, "username": "alice", "session": other.session_id},
                {"event": "refresh", "outcome": "refused", "reason": "INVALID_TOKEN"},
            ],
        )
        bad = {"outcome": "refused", "reason": "INVALID_TOKEN"}
        wrong = {"event": "login", "outcome": "refused", "reason": "INVALID_CREDENTIALS"}
        self.assertEqual(
            found[4:],
            [
                {"event": "refresh", **bad},
                {"event": "session_end", **ours, "actor": alice.user_id},
                {"event": "refresh", **ours, **bad},
                {**wrong, "username": "alice"},
                *[{**wrong, "username": "nobody"}] * 3,
                {**wrong, "username": "nobody", "reason": "RATE_LIMITED"},
            ],
        )
        secrets = [PASSWORD, "wrong horse", login.access_token, login.refresh_token]
        for secret in [*secrets, other.access_token, other.refresh_token]:
            self.assertNotIn(secret, text)
            self.assertNotIn(secret.rpartition(".")[2], text)
