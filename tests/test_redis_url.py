"""Addresses of Redis."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from realtime.redis_url import RedisAddress, read_redis_url


class ReadRedisUrlTests(SynchronousTestCase):
    """`read_redis_url`."""

    def test_addresses(self) -> None:
        """Every form that is documented says where Redis is and what it is told."""
        for text, expected in (
            ("redis://h", RedisAddress((("h", 6379),))),
            ("redis://", RedisAddress((("localhost", 6379),))),
            ("redis://h:1/5", RedisAddress((("h", 1),), db=5)),
            ("redis://[::1]:7/", RedisAddress((("::1", 7),))),
            ("redis://:p%40ss@h", RedisAddress((("h", 6379),), password="p@ss")),
            (
                "rediss://u:p@h:2/1",
                RedisAddress((("h", 2),), db=1, username="u", password="p", tls=True),
            ),
            (
                "rediss://h?ssl_cert_reqs=none&db=3",
                RedisAddress((("h", 6379),), db=3, tls=True, verify=False),
            ),
            (
                "rediss://h?ssl_ca_certs=/a.pem",
                RedisAddress((("h", 6379),), tls=True, authorities="/a.pem"),
            ),
            ("unix:///run/redis.sock?db=2", RedisAddress(path="/run/redis.sock", db=2)),
            (
                "redis+sentinel://:p@a,b:7/main/4",
                RedisAddress((("a", 26379), ("b", 7)), service="main", db=4, password="p"),
            ),
        ):
            self.assertEqual(read_redis_url(text), expected, text)

    def test_mistakes(self) -> None:
        """What is wrong is said, without what may be secret."""
        for text, problem in (
            ("http://h", "begin"),
            ("secret", "begin"),
            ("redis://secret@h:x", "port"),
            ("redis://:secret@h:99999", "port"),
            ("redis://:secret@a,b", "several hosts"),
            ("redis://:secret@h/x", "no number"),
            ("redis://:secret@h/1/2", "longer"),
            ("redis://:secret@h?secret=1", "parameters"),
            ("rediss://:secret@h?ssl_cert_reqs=optional", "ssl_cert_reqs"),
            ("redis+sentinel://:secret@h", "service"),
            ("unix://:secret@h/x", "unix:///"),
        ):
            with self.assertRaises(ValueError) as caught:
                read_redis_url(text)
            self.assertIn(problem, str(caught.exception))
            self.assertNotIn("secret", str(caught.exception))

    def test_shown_without_secrets(self) -> None:
        """An address as text or as a repr has no password."""
        for text, shown in (
            ("redis://u:secret@h/1", "h:6379"),
            ("rediss://:secret@[::1]:3", "[::1]:3"),
            ("redis+sentinel://:secret@a,b/main", "a:26379,b:26379/main"),
            ("unix:///a?db=1", "/a"),
        ):
            address = read_redis_url(text)
            self.assertEqual(str(address), shown)
            self.assertNotIn("secret", repr(address))
