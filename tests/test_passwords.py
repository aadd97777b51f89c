"""Tests of realtime.passwords."""

from twisted.trial.unittest import SynchronousTestCase

from realtime.passwords import Hasher, check_password, is_possible
from tests.support.identity import quick_hasher


class HasherTests(SynchronousTestCase):
    """Hashes."""

    def setUp(self) -> None:
        self.hasher = quick_hasher()

    def test_verify(self) -> None:
        """The right password verifies, another does not."""
        made = self.hasher.hash("correct horse")
        self.assertTrue(made.startswith("$argon2id$"))
        self.assertTrue(self.hasher.verify(made, "correct horse"))
        self.assertFalse(self.hasher.verify(made, "correct horsf"))
        self.assertFalse(self.hasher.verify(made, ""))

    def test_salted(self) -> None:
        """Two hashes of one password differ."""
        self.assertNotEqual(self.hasher.hash("correct horse"), self.hasher.hash("correct horse"))

    def test_composition(self) -> None:
        """A password typed with composed or combining accents is the same password."""
        made = self.hasher.hash("cafe\u0301 noir")
        self.assertTrue(self.hasher.verify(made, "caf\u00e9 noir"))

    def test_broken_hash(self) -> None:
        """What is no hash verifies nothing and wants replacing."""
        for broken in ("", "x", "$argon2id$v=19$m=8", "é"):
            self.assertFalse(self.hasher.verify(broken, "correct horse"))
            self.assertTrue(self.hasher.needs_rehash(broken))

    def test_parameters_change(self) -> None:
        """A hash made with other parameters still verifies, and wants replacing."""
        made = self.hasher.hash("correct horse")
        stronger = quick_hasher(time_cost=2)
        self.assertFalse(self.hasher.needs_rehash(made))
        self.assertTrue(stronger.needs_rehash(made))
        self.assertTrue(stronger.verify(made, "correct horse"))

    def test_default_strength(self) -> None:
        """The default is RFC 9106's second recommended option."""
        self.assertIn("$m=65536,t=3,p=4$", Hasher().hash("correct horse"))


class CheckTests(SynchronousTestCase):
    """Which passwords are taken."""

    def test_new_passwords(self) -> None:
        """A new password has 8 characters to 1024 bytes."""
        for fit in ("12345678", "x" * 1024, "pass word"):
            self.assertIsNone(check_password(fit))
        for unfit in ("", "1234567", "x" * 1025, "é" * 513, "\ud800" * 8):
            self.assertIsNotNone(check_password(unfit))

    def test_possible(self) -> None:
        """Only what could have been accepted is worth hashing."""
        self.assertTrue(is_possible(""))
        self.assertTrue(is_possible("x" * 1024))
        for impossible in ("x" * 1025, "é" * 1000, "\udfff"):
            self.assertFalse(is_possible(impossible))
