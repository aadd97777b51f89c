"""Tests of realtime.signing_keys."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from realtime.errors import ConfigurationError, Conflict, NotFound
from realtime.signing_keys import (
    FORMER_KEYS,
    MAX_FORMER,
    OVERLAP,
    SIGNING_KEY,
    Former,
    drop_key,
    list_keys,
    load_keys,
    load_or_create_secret,
    load_secret,
    load_secrets,
    rotate_key,
)
from realtime.token_keys import kid_of
from tests.support.identity import START, make_state_dir

LIFE = 3600.0


class SecretFileTests(SynchronousTestCase):
    """The signing key's file."""

    def setUp(self) -> None:
        self.path = os.path.join(make_state_dir(self), "signing.key")

    def test_made_once(self) -> None:
        """The secret is made when there is none, for its owner only, and then stays."""
        secret = load_or_create_secret(self.path)
        self.assertGreaterEqual(len(secret), 32)
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o600)
        self.assertEqual(load_or_create_secret(self.path), secret)
        self.assertEqual(load_secret(self.path), secret)

    def write(self, content: bytes, mode: int = 0o600) -> None:
        with open(self.path, "wb") as file:
            file.write(content)
        os.chmod(self.path, mode)

    def test_white_space(self) -> None:
        """White space around a secret, as editors leave it, does not count."""
        self.write(b"k" * 32 + b"\r\n")
        self.assertEqual(load_secret(self.path), b"k" * 32)

    def test_mode(self) -> None:
        """A group may read the secret; nobody else may, and only the owner may write."""
        self.write(b"k" * 32, 0o640)
        load_secret(self.path)
        for mode in (0o644, 0o660, 0o602):
            self.write(b"k" * 32, mode)
            error = self.assertRaises(ConfigurationError, load_secret, self.path)
            self.assertIn(self.path, str(error))

    def test_bad_files(self) -> None:
        """A missing, short or endless secret and a folder are one-line errors with the path."""
        error = self.assertRaises(ConfigurationError, load_secret, self.path)
        self.assertEqual(str(error), f"signing key {self.path}: No such file or directory")
        error = self.assertRaises(ConfigurationError, load_secret, self.path, "--secret-file")
        self.assertEqual(str(error), f"--secret-file {self.path}: No such file or directory")
        for content in (b"", b"short", b" " * 64, b"k" * 70000):
            self.write(content)
            error = self.assertRaises(ConfigurationError, load_or_create_secret, self.path)
            self.assertIn(self.path, str(error))
            self.assertNotIn("\n", str(error))
        folder = os.path.dirname(self.path)
        for load in (load_secret, load_or_create_secret):
            self.assertRaises(ConfigurationError, load, folder)
        self.assertRaises(ConfigurationError, load_or_create_secret, f"{folder}/no/such/file")

    def test_several(self) -> None:
        """A text has a secret a line; what is no text is one."""
        self.write(b"k" * 32 + b"\n\n  " + b"l" * 40 + b"\r\n")
        self.assertEqual(load_secrets(self.path, "--secret-file"), (b"k" * 32, b"l" * 40))
        self.write(b"a secret of 32 characters or more\n")
        self.assertEqual(
            load_secrets(self.path, "--secret-file"), (b"a secret of 32 characters or more",)
        )
        binary = b"\xff\n" * 30
        self.write(binary)
        self.assertEqual(load_secrets(self.path, "--secret-file"), (binary.strip(),))
        self.write(b"k" * 32 + b"\nshort\n")
        error = self.assertRaises(ConfigurationError, load_secrets, self.path, "--secret-file")
        self.assertIn("a line holds 5 bytes", str(error))


class RotationTests(SynchronousTestCase):
    """Secrets of a state directory that follow each other."""

    def setUp(self) -> None:
        self.state = Path(make_state_dir(self))
        self.now = START

    def keys(self) -> tuple[bytes, ...]:
        """The secrets at present."""
        return load_keys(self.state, self.now)

    def rotate(self) -> str:
        """Make a secret, in place of the present one."""
        return rotate_key(self.state, self.now, LIFE)

    def test_alone(self) -> None:
        """At first there is one, which is made."""
        (secret,) = self.keys()
        self.assertEqual(self.keys(), (secret,))
        self.assertEqual([path.name for path in self.state.iterdir()], [SIGNING_KEY])

    def test_overlap(self) -> None:
        """The former secret signs until all know the new one, and then verifies."""
        (old,) = self.keys()
        kid = self.rotate()
        self.assertEqual(self.keys()[0], old)
        new = self.keys()[1]
        self.assertEqual(kid_of(new), kid)
        self.assertEqual(load_secret(str(self.state / SIGNING_KEY)), new)
        self.now += OVERLAP
        self.assertEqual(self.keys(), (new, old))

    def test_end(self) -> None:
        """It is accepted for as long as tokens live, and an hour; then it is forgotten."""
        (old,) = self.keys()
        self.rotate()
        self.now += OVERLAP + LIFE + 3599
        self.assertEqual(self.keys()[1:], (old,))
        self.now += 1
        self.assertEqual(len(self.keys()), 1)
        # The next one takes it from the file.
        self.rotate()
        self.assertNotIn(old.decode(), (self.state / FORMER_KEYS).read_text())

    def test_twice(self) -> None:
        """Of two former secrets that still sign the older one does, whom all know."""
        (first,) = self.keys()
        self.rotate()
        self.now += 3
        self.rotate()
        self.assertEqual(len(self.keys()), 3)
        self.assertEqual(self.keys()[0], first)
        self.now = START + OVERLAP
        third, second, oldest = list_keys(self.state, self.now)
        self.assertEqual((kid_of(self.keys()[0]), oldest), (second, kid_of(first)))
        self.now += 3
        self.assertEqual(kid_of(self.keys()[0]), third)

    def test_bound(self) -> None:
        """There are never many: who rotates without end is refused, and loses nothing."""
        for _ in range(MAX_FORMER):
            self.rotate()
        before = self.keys()
        self.assertRaises(Conflict, self.rotate)
        self.assertEqual(self.keys(), before)
        self.now += OVERLAP + LIFE + 3600
        self.rotate()

    def test_drop(self) -> None:
        """A former secret can be refused at once; the newest cannot."""
        (old,) = self.keys()
        kid = self.rotate()
        drop_key(self.state, kid_of(old), self.now)
        self.assertEqual([kid_of(key) for key in self.keys()], [kid])
        self.assertRaises(NotFound, drop_key, self.state, kid_of(old), self.now)
        self.assertRaises(Conflict, drop_key, self.state, kid, self.now)
        for odd in ("", "../secret.key", "é"):
            self.assertRaises(NotFound, drop_key, self.state, odd, self.now)

    def test_list(self) -> None:
        """Each is told by its kid, and until when it counts."""
        (old,) = self.keys()
        kid = self.rotate()
        self.now += OVERLAP
        until = START + OVERLAP + LIFE + 3600
        listed = list_keys(self.state, self.now)
        self.assertEqual(list(listed.items()), [(kid, None), (kid_of(old), until)])
        self.assertNotIn(old.decode(), repr(Former(old.decode(), 0, 0)))

    def test_interrupted(self) -> None:
        """A rotation that broke off after its first file has changed nothing."""
        (old,) = self.keys()
        self.rotate()
        (self.state / SIGNING_KEY).write_bytes(old)
        self.assertEqual(self.keys(), (old,))
        self.now += OVERLAP
        self.assertEqual(self.keys(), (old,))
        self.rotate()
        self.assertEqual(len(self.keys()), 2)

    def test_files(self) -> None:
        """Both files are for their owner only, and nothing else is left."""
        self.keys()
        self.rotate()
        self.assertEqual({path.name for path in self.state.iterdir()}, {SIGNING_KEY, FORMER_KEYS})
        for path in self.state.iterdir():
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)

    def test_damage(self) -> None:
        """A damaged file is told in one line that has nothing of it."""
        self.keys()
        self.rotate()
        path = self.state / FORMER_KEYS
        for content in ("", "{", "[5]", '[{"secret":"short","signs_until":0,"until":9e9}]'):
            path.write_text(content)
            error = self.assertRaises(ConfigurationError, self.keys)
            self.assertEqual(str(error), f"former signing keys {path}: damaged")
        path.chmod(0o644)
        self.assertIn("others can read", str(self.assertRaises(ConfigurationError, self.keys)))

    def test_no_text(self) -> None:
        """A secret that is no text, which this server has not made, cannot be kept."""
        path = self.state / SIGNING_KEY
        path.write_bytes(b"\xff" * 40)
        path.chmod(0o600)
        self.assertRaises(ConfigurationError, self.rotate)
        self.assertEqual(path.read_bytes(), b"\xff" * 40)
