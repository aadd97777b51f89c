"""`python -m realtime`."""

from __future__ import annotations

import io
import os
import re
import sqlite3
import stat
import subprocess
import sys
import time
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from realtime.commands import main
from realtime.errors import InvalidToken
from realtime.names import DEFAULT_ROLES
from realtime.passwords import Hasher
from realtime.signing_keys import FORMER_KEYS, SIGNING_KEY, load_secret
from realtime.stores import DATABASE
from realtime.token_keys import Keys, kid_of
from realtime.tokens import Tokens
from tests.support.identity import make_state_dir
from tests.support.server import environment, run


class CommandTests(SynchronousTestCase):
    """Commands, in this process."""

    def setUp(self) -> None:
        """Make a state directory, and nothing in the environment that would name another."""
        self.state = make_state_dir(self)
        self.patch(os, "environ", environment())

    def command(self, *arguments: str, input: str = "") -> tuple[int, str, str]:
        """Run a command; answer its status, output and complaints."""
        output, complaints = io.StringIO(), io.StringIO()
        self.patch(sys, "stdin", io.StringIO(input))
        self.patch(sys, "stdout", output)
        self.patch(sys, "stderr", complaints)
        try:
            status = main(["--state", self.state, *arguments])
        finally:
            sys.stdin, sys.stdout, sys.stderr = sys.__stdin__, sys.__stdout__, sys.__stderr__
        return status, output.getvalue(), complaints.getvalue()

    def done(self, *arguments: str, input: str = "") -> str:
        """Run a command that succeeds; answer its output."""
        status, output, complaints = self.command(*arguments, input=input)
        self.assertEqual((status, complaints), (0, ""))
        return output

    def refused(self, *arguments: str, input: str = "") -> str:
        """Run a command that fails: one line, status 1, no output; answer the line."""
        status, output, complaints = self.command(*arguments, input=input)
        self.assertEqual((status, output), (1, ""))
        self.assertRegex(complaints, r"\Arealtime: [^\n]+\n\Z")
        return complaints

    def add(self, name: str = "alice", *roles: str) -> str:
        """Add a user; answer the id."""
        flags = [f"--role={role}" for role in roles]
        status, output, _ = self.command("user", "add", name, *flags, input="correct horse\n")
        self.assertEqual(status, 0)
        return output.split()[0]

    # -- users -------------------------------------------------------------------------------

    def test_add_and_list(self) -> None:
        """An added user is listed with id, name and roles; roles default to those of the house."""
        alice, bob = self.add("alice"), self.add("bob@example.com", "chat", "admin")
        lines = [line.split("  ") for line in self.done("user", "list").splitlines()]
        self.assertEqual([line[0] for line in lines], [alice, bob])
        self.assertEqual(lines[0][1:3], ["alice", ",".join(DEFAULT_ROLES)])
        self.assertEqual(lines[1][1:3], ["bob@example.com", "chat,admin"])
        self.assertTrue(all(re.fullmatch(r"\d{4}-\d\d-\d\d", line[3]) for line in lines))

    def test_first_user(self) -> None:
        """Who adds a user before the server can make an admin is told so, once."""
        add = ("user", "add")
        output, complaints = self.command(*add, "alice", input="correct horse\n")[1:]
        self.assertIn("alice", output)
        self.assertRegex(complaints, r"\Arealtime: [^\n]* --role admin\n\Z")
        self.done(*add, "bob", input="correct horse\n")
        self.state = make_state_dir(self)
        self.done(*add, "root", "--role=admin", input="correct horse\n")

    def test_damaged_database(self) -> None:
        """A damaged database is one line that names it, whichever command meets it."""
        self.add()
        for statement in ("UPDATE users SET roles = 'x'", "DROP TABLE sessions"):
            with closing(sqlite3.connect(Path(self.state, DATABASE))) as database:
                database.execute(statement)
                database.commit()
            for command in (("list",), ("roles", "alice"), ("remove", "alice")):
                self.assertIn(f"{DATABASE}: damaged: ", self.refused("user", *command))

    def test_files_are_closed_to_others(self) -> None:
        """The database that the first user makes is the owner's only."""
        self.add()
        self.assertEqual(stat.S_IMODE(os.stat(Path(self.state, DATABASE)).st_mode), 0o600)

    def test_password_is_the_first_line(self) -> None:
        """The password is the first line of standard input, without its end."""
        self.add("bob")
        self.done("user", "add", "alice", input=" spaces count \r\nnot this\n")
        self.assertTrue(Hasher().verify(self.hash_of("alice"), " spaces count "))

    def hash_of(self, name: str) -> str:
        """The stored hash of a user's password."""
        with closing(sqlite3.connect(Path(self.state, DATABASE))) as connection:
            query = "SELECT password_hash FROM users WHERE username = ?"
            (found,) = connection.execute(query, (name,)).fetchone()
        return str(found)

    def test_passwd(self) -> None:
        """A new password takes the place of the old one, and the name's case does not matter."""
        self.add()
        self.done("user", "passwd", "ALICE", input="another horse\n")
        self.assertTrue(Hasher().verify(self.hash_of("alice"), "another horse"))
        self.assertIn("8 characters", self.refused("user", "passwd", "alice", input="short\n"))

    def test_roles(self) -> None:
        """Roles are shown, or replaced by those given."""
        self.add("alice", "a")
        self.assertEqual(self.done("user", "roles", "alice"), "a\n")
        self.assertEqual(self.done("user", "roles", "alice", "--role=b", "--role=c"), "b,c\n")
        self.assertEqual(self.done("user", "roles", "alice"), "b,c\n")

    def test_disable_and_enable(self) -> None:
        """A disabled user is listed as such, and gets no token until enabled."""
        self.add()
        self.done("user", "disable", "alice")
        self.assertIn("disabled", self.done("user", "list"))
        self.assertIn("'alice' is disabled", self.refused("token", "--user=alice"))
        self.done("user", "enable", "alice")
        self.assertNotIn("disabled", self.done("user", "list"))
        self.done("token", "--user=alice")

    def test_remove(self) -> None:
        """A removed user is gone, and the name is free."""
        first = self.add()
        self.done("user", "remove", "alice")
        self.assertEqual(self.done("user", "list"), "")
        self.assertNotEqual(self.add(), first)

    def test_mistakes(self) -> None:
        """What cannot be done is said in one line that names it."""
        self.add()
        for verb in ("passwd", "roles", "disable", "enable", "remove"):
            complaint = self.refused("user", verb, "nobody", input="correct horse\n")
            self.assertIn("no user 'nobody'", complaint)
        again = self.refused("user", "add", "Alice", input="correct horse\n")
        self.assertIn("username is taken", again)
        self.assertIn("8 characters", self.refused("user", "add", "bob"))
        self.assertIn("role", self.refused("user", "add", "b", "--role=a b", input="x" * 9))
        self.assertIn("username", self.refused("user", "add", "b\n", input="correct horse\n"))
        self.assertIn("no user '\\udcff'", self.refused("user", "remove", "\udcff"))

    def test_no_password_in_complaints(self) -> None:
        """A refused password is not repeated."""
        self.assertNotIn("hunter2", self.refused("user", "add", "alice", input="hunter2\n"))

    # -- tokens ------------------------------------------------------------------------------

    def tokens(self, **options: Any) -> Tokens:
        """What verifies the tokens of this state directory."""
        secret = load_secret(str(Path(self.state, SIGNING_KEY)))
        return Tokens(Keys(secret), now=time.time, **options)

    def test_keys(self) -> None:
        """A key is printed once, listed by its name, and removed."""
        self.add()
        key = self.done("key", "add", "billing").strip()
        self.assertRegex(key, r"\Ark_[\w-]{43}\Z")
        self.assertNotEqual(self.done("key", "add", "audit").strip(), key)
        listed = self.done("key", "list").partition("signing key")[0]
        self.assertEqual([line.split()[0] for line in listed.splitlines()], ["audit", "billing"])
        self.assertNotIn(key, listed)
        self.assertIn("'billing'", self.refused("key", "add", "billing"))
        self.assertIn("key's name", self.refused("key", "add", "a b"))
        self.assertEqual(self.done("key", "remove", "billing"), "")
        self.assertIn("'billing'", self.refused("key", "remove", "billing"))

    def signing_keys(self) -> dict[str, str]:
        """What is listed of each signing key, by its kid."""
        lines = self.done("key", "list").splitlines()
        return dict(re.fullmatch(r"signing key (\S+)  (.+)", line).groups() for line in lines)  # type: ignore[union-attr]

    def test_rotation(self) -> None:
        """A new signing key is told by its kid; the former one is listed until it ends."""
        self.add()
        token = self.done("token", "--user=alice").strip()
        (old,) = self.signing_keys()
        self.assertEqual(self.signing_keys(), {old: "signs"})
        new = self.done("key", "rotate").strip()
        listed = self.signing_keys()
        self.assertEqual((list(listed), listed[new]), ([new, old], "signs"))
        until = re.fullmatch(r"accepted until (\S+Z)", listed[old])
        assert until is not None
        days = (datetime.fromisoformat(until[1]).timestamp() - time.time()) / 86400
        self.assertTrue(30 < days < 30.1, days)
        secrets = Path(self.state, SIGNING_KEY).read_text().split()
        secrets += re.findall(r'"secret":"([^"]+)"', Path(self.state, FORMER_KEYS).read_text())
        self.assertEqual(len(secrets), 2)
        for secret in secrets:
            self.assertNotIn(secret, self.done("key", "list"))
        self.assertEqual(self.done("key", "drop", old), "")
        self.assertEqual(self.signing_keys(), {new: "signs"})
        self.assertIn(old, self.refused("key", "drop", old))
        self.assertIn("make another first", self.refused("key", "drop", new))
        self.assertRaises(InvalidToken, self.tokens().verify_access, token)

    def test_rotation_elsewhere(self) -> None:
        """Keys that are given to the server are rotated where they are."""
        self.add()
        one, two = "s" * 32, "t" * 32
        os.environ["REALTIME_SECRET"] = f"{one} {two}"
        self.assertEqual(
            self.signing_keys(), {kid_of(one.encode()): "signs", kid_of(two.encode()): "accepted"}
        )
        for command in (("rotate",), ("drop", kid_of(two.encode()))):
            self.assertIn("those of --secret:", self.refused("key", *command))
        del os.environ["REALTIME_SECRET"]
        path = Path(self.state, "given.key")
        path.write_text(f"{one}\n{two}\n")
        path.chmod(0o600)
        os.environ["REALTIME_SECRET_FILE"] = str(path)
        self.assertEqual(list(self.signing_keys().values()), ["signs", "accepted"])
        self.assertIn("those of --secret-file:", self.refused("key", "rotate"))
        self.assertFalse(Path(self.state, SIGNING_KEY).exists())

    def test_token(self) -> None:
        """A token is the user's, with their roles, for an hour, and nothing else is printed."""
        user_id = self.add()
        output = self.done("token", "--user=alice")
        identity = self.tokens().verify_access(output.removesuffix("\n"))
        self.assertEqual((identity.user_id, identity.username), (user_id, "alice"))
        self.assertEqual(identity.roles, frozenset(DEFAULT_ROLES))
        self.assertEqual(identity.session_id, None)
        self.assertApproximates(identity.expires_at, time.time() + 3600, 30)

    def test_token_options(self) -> None:
        """--role replaces the user's roles in the token, --ttl is its life in seconds."""
        self.add()
        output = self.done("token", "--user=alice", "--role=a", "--role=b", "--ttl=900")
        identity = self.tokens().verify_access(output.strip())
        self.assertEqual(identity.roles, {"a", "b"})
        self.assertApproximates(identity.expires_at, time.time() + 900, 30)
        self.assertEqual(self.done("user", "roles", "alice"), ",".join(DEFAULT_ROLES) + "\n")

    def test_token_follows_the_server(self) -> None:
        """Environment and --config say how tokens are made, as they do for the server."""
        self.add()
        config = Path(self.state, "realtime.toml")
        config.write_text('issuer = "house"\n')
        os.environ["REALTIME_ACCESS_TOKEN_TTL"] = "60"
        token = self.done("--config", str(config), "token", "--user=alice").strip()
        identity = self.tokens(issuer="house").verify_access(token)
        self.assertApproximates(identity.expires_at, time.time() + 60, 30)

    def test_token_mistakes(self) -> None:
        """No token for unknown users, endless lives and roles that are none."""
        self.assertIn("no database", self.refused("token", "--user=alice"))
        self.add()
        self.assertIn("no user 'bob'", self.refused("token", "--user=bob"))
        for ttl in ("0", "-1", "nan", "inf", "1e99"):
            self.assertIn("A token lives", self.refused("token", "--user=alice", f"--ttl={ttl}"))
        self.assertIn("'a b'", self.refused("token", "--user=alice", "--role=a b"))

    # -- the state directory -----------------------------------------------------------------

    def test_state_directory(self) -> None:
        """Only `user add` makes a state directory; it can be named in the environment, too."""
        self.state = os.path.join(self.state, "new")
        self.assertIn("there is no database yet", self.refused("user", "list"))
        self.assertFalse(os.path.exists(self.state))
        os.environ["REALTIME_STATE"] = self.state
        self.patch(sys, "stdin", io.StringIO("correct horse\n"))
        self.patch(sys, "stdout", io.StringIO())
        self.patch(sys, "stderr", io.StringIO())
        self.assertEqual(main(["user", "add", "alice"]), 0)
        self.assertEqual(stat.S_IMODE(os.stat(self.state).st_mode), 0o700)

    def test_state_after_command(self) -> None:
        """The state directory and the file may be named before the command or after it."""
        other = make_state_dir(self)
        self.add()
        self.assertIn(f"--state {other}: ", self.refused("user", "list", f"--state={other}"))
        self.assertIn(f"--state {other}: ", self.refused("user", f"--state={other}", "list"))
        self.assertIn("no.toml", self.refused("token", "--user=alice", "--config=no.toml"))

    def test_unusable_state(self) -> None:
        """A state that is no directory, or a database that is none, is named."""
        path = Path(self.state, DATABASE)
        path.write_bytes(b"no database at all")
        self.assertIn(str(path), self.refused("user", "list"))
        self.assertEqual(path.read_bytes(), b"no database at all")
        self.state = str(path)
        self.assertIn(f"--state {path}", self.refused("user", "add", "alice"))

    def test_bad_environment(self) -> None:
        """A bad option in the environment is named as the server names it."""
        os.environ["REALTIME_PORT"] = "http"
        self.assertIn("REALTIME_PORT", self.refused("user", "list"))


class ProcessTests(SynchronousTestCase):
    """Commands as an operator gives them."""

    def setUp(self) -> None:
        """Make a state directory with a user."""
        self.state = make_state_dir(self)
        added = self.realtime("user", "add", "alice", input="correct horse\n")
        self.assertEqual(added.returncode, 0)

    def realtime(self, *arguments: str, input: str = "") -> subprocess.CompletedProcess[str]:
        """Run `python -m realtime`."""
        return run("-m", "realtime", "--state", self.state, *arguments, input=input)

    def test_status_and_streams(self) -> None:
        """Results go to standard output with status 0, mistakes to standard error with 1."""
        listed = self.realtime("user", "list")
        self.assertEqual((listed.returncode, listed.stderr), (0, ""))
        self.assertIn("  alice  ", listed.stdout)
        failed = self.realtime("token", "--user=nobody")
        path = Path(self.state, DATABASE)
        self.assertEqual((failed.returncode, failed.stdout), (1, ""))
        self.assertEqual(failed.stderr, f"realtime: there is no user 'nobody' in {path}\n")

    def test_help_and_usage(self) -> None:
        """--help explains each command; without a command there is a usage message, status 2."""
        manual = self.realtime("user", "--help").stdout
        for verb in ("add", "passwd", "roles", "disable", "enable", "remove", "list"):
            self.assertRegex(manual, rf"\n +{verb} +\w")
        version = self.realtime("--version")
        self.assertEqual((version.returncode, version.stdout.split()[0]), (0, "realtime-server"))
        missing = self.realtime()
        self.assertEqual((missing.returncode, missing.stdout), (2, ""))
        self.assertNotIn("Traceback", missing.stderr)

    def test_undecodable_password(self) -> None:
        """A password that is no text is refused without a traceback."""
        done = subprocess.run(
            [sys.executable, "-m", "realtime", "--state", self.state, "user", "passwd", "alice"],
            input=b"\xff\xfe\xfd\xfc\xff\xfe\xfd\xfc\n",
            env=environment(PYTHONIOENCODING="utf-8:strict"),
            capture_output=True,
            timeout=60,
            check=False,
        )
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, rb"\Arealtime: [^\n]+\n\Z")

    def test_reader_leaves(self) -> None:
        """A reader that has enough, as `head` has, is no mistake to speak of."""
        reading, writing = os.pipe()
        os.close(reading)
        with os.fdopen(writing, "wb") as output:
            done = subprocess.run(
                [sys.executable, "-m", "realtime", "--state", self.state, "user", "list"],
                stdout=output,
                stderr=subprocess.PIPE,
                env=environment(),
                timeout=60,
                check=False,
            )
        self.assertEqual((done.returncode, done.stderr), (1, b""))
