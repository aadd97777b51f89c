"""The options: one table, four sources, and mistakes told in one line."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from realtime.errors import ConfigurationError
from realtime.option_table import OPTIONS
from realtime.options import Options
from realtime.settings import Settings, read_settings


class SettingsTests(SynchronousTestCase):
    """Flag, environment, file, default."""

    def write(self, text: str) -> str:
        """A TOML file with this text."""
        path = Path(self.mktemp())
        path.write_text(text, encoding="utf-8")
        return str(path)

    def refused(self, *names: str, **sources: Any) -> None:
        """The sources are refused in one line that has all of `names`."""
        arguments = {"flags": {}, "environ": {}} | sources
        error = self.assertRaises(ConfigurationError, read_settings, **arguments)
        for name in names:
            self.assertIn(name, str(error))
        self.assertNotIn("\n", str(error))

    def test_defaults(self) -> None:
        """Without any source the settings are the reference's."""
        settings = read_settings({}, {})
        self.assertEqual(
            (settings.host, settings.port, settings.max_connections),
            ("0.0.0.0", 8081, 10000),
        )
        self.assertEqual((settings.heartbeat_interval, settings.client_timeout), (30, 60))
        self.assertEqual(settings.max_frame_size, 65536)
        self.assertEqual((settings.origin, settings.connect_role), (("*",), ()))

    def test_table_and_settings_agree(self) -> None:
        """Every option of the table is a setting, in the same order; the rules are the last."""
        options = [option.key for option in OPTIONS]
        self.assertEqual([field.name for field in fields(Settings)], [*options, "topics"])

    def test_precedence(self) -> None:
        """A flag wins over the environment, that over the file, that over the default."""
        config = self.write("port = 1111\nmax-connections = 11\nmessage-rate = 1.5\n")
        environ = {"REALTIME_PORT": "2222", "REALTIME_MAX_CONNECTIONS": "22"}
        settings = read_settings({"port": "3333"}, environ, config)
        self.assertEqual(
            (settings.port, settings.max_connections, settings.message_rate), (3333, 22, 1.5)
        )
        self.assertEqual(settings.client_timeout, 60)

    def test_platform_variables(self) -> None:
        """PORT is understood, REALTIME_PORT wins over it, and REDIS_URL breaks nothing."""
        self.assertEqual(read_settings({}, {"PORT": "99", "REDIS_URL": "redis://x"}).port, 99)
        self.assertEqual(read_settings({}, {"PORT": "99", "REALTIME_PORT": "98"}).port, 98)

    def test_variables_of_a_service(self) -> None:
        """What Kubernetes sets beside a service called realtime is ignored, and only that."""
        links = {
            "REALTIME_SERVICE_HOST": "10.0.0.7",
            "REALTIME_SERVICE_PORT": "8081",
            "REALTIME_SERVICE_PORT_HTTP": "8081",
            "REALTIME_PORT": "tcp://10.0.0.7:8081",
            "REALTIME_PORT_8081_TCP": "tcp://10.0.0.7:8081",
            "REALTIME_PORT_8081_TCP_PROTO": "tcp",
            "REALTIME_PORT_8081_TCP_PORT": "8081",
            "REALTIME_PORT_8081_TCP_ADDR": "10.0.0.7",
            "REALTIME_REDIS_SERVICE_HOST": "10.0.0.8",
            "REALTIME_REDIS_PORT": "tcp://10.0.0.8:6379",
            "REALTIME_REDIS_PORT_6379_TCP_ADDR": "10.0.0.8",
        }
        self.assertEqual(read_settings({}, links), read_settings({}, {}))
        self.assertEqual(read_settings({}, {**links, "PORT": "5000"}).port, 5000)
        for name, value in (
            ("REALTIME_SERVICE_HOTS", "10.0.0.7"),
            ("REALTIME_PORT_8081", "x"),
            ("REALTIME_PORT_TCP", "x"),
            ("REALTIME_PORT", "http://10.0.0.7:8081"),
            ("REALTIME_REDIS_PORT", "6379"),
        ):
            self.refused(name, environ={**links, name: value})

    def test_config_from_the_environment(self) -> None:
        """REALTIME_CONFIG names the file as --config does."""
        config = self.write('origin = ["https://a.example", "https://b.example"]')
        settings = read_settings({}, {"REALTIME_CONFIG": config})
        self.assertEqual(settings.origin, ("https://a.example", "https://b.example"))

    def test_repeatable(self) -> None:
        """Repeatable options are lists as flags, comma-separated in the environment."""
        self.assertEqual(read_settings({"connect-role": ["a", "b"]}, {}).connect_role, ("a", "b"))
        settings = read_settings({}, {"REALTIME_CONNECT_ROLE": "a, b"})
        self.assertEqual(settings.connect_role, ("a", "b"))

    def test_switches(self) -> None:
        """A switch is set by its flag, and by true or false elsewhere."""
        self.assertTrue(read_settings({"rotate-refresh-tokens": 1}, {}).rotate_refresh_tokens)
        config = self.write("rotate-refresh-tokens = true")
        self.assertTrue(read_settings({}, {}, config).rotate_refresh_tokens)
        self.assertFalse(
            read_settings(
                {}, {"REALTIME_ROTATE_REFRESH_TOKENS": "no"}, config
            ).rotate_refresh_tokens
        )

    def test_mistakes_are_named(self) -> None:
        """A bad value or unknown key is refused with its source and name."""
        self.refused("--port", "'70000'", flags={"port": "70000"})
        self.refused("--port", flags={"port": "eighty"})
        self.refused("REALTIME_MESSAGE_RATE", environ={"REALTIME_MESSAGE_RATE": "nan"})
        self.refused("is it REALTIME_PORT?", environ={"REALTIME_PROT": "1"})
        self.refused("--origin", "no-scheme", flags={"origin": ["no-scheme"]})
        error = self.assertRaises(ConfigurationError, read_settings, {"origin": ["*", "x y"]}, {})
        self.assertEqual(
            str(error),
            "--origin: 'x y' is not an origin: write scheme://host[:port], or * for all",
        )
        self.refused("connect-role in", config=self.write("connect-role = [1]"))
        self.refused("--on-token-expiry", flags={"on-token-expiry": "explode"})
        self.refused("is it max-connections?", config=self.write("max-conections = 1"))
        self.refused("is it max-connections?", config=self.write("max_connections = 1"))
        self.refused("is it [[topic]]?", config=self.write('[[topics]]\npattern = "a"'))
        self.refused("port in", config=self.write("port = [1]"))
        self.refused("port in", config=self.write("port = true"))
        self.refused("--config", config=self.write("port = "))
        self.refused("--config", "/nonexistent/file", config="/nonexistent/file")
        self.refused("--client-timeout", flags={"client-timeout": "30"})
        self.refused("--jwt-public-key", flags={"jwt-algorithm": "RS256"})

    def test_webhooks_go_together(self) -> None:
        """URLs of webhooks need the secret, and --hook-url what it is to be asked about."""
        url, secret = "https://a.example/", {"webhook-secret-file": "s"}
        self.refused("--webhook-url", "--webhook-secret-file", flags={"webhook-url": url})
        self.refused("--hook-url", "--hook", flags={"hook-url": url, **secret})
        self.refused("--hook-url", "--hook", flags={"hook": ["publish"], **secret})
        self.refused("--hook-url", flags={"hook-url": url, "hook": ["connect"]})
        self.refused("--webhook-event", "'pubish'", flags={"webhook-event": ["pubish"]})
        flags = {"webhook-url": url, "hook-url": url, "hook": ["connect", "publish"], **secret}
        settings = read_settings(flags, {})
        self.assertEqual((settings.webhook_url, settings.hook), (url, ("connect", "publish")))

    def test_urls(self) -> None:
        """A webhook's URL is http or https, and what it holds is never shown."""
        secret = {"webhook-secret-file": "s"}
        for good in ("http://a:8080", "https://u:p@[::1]/x?y=z", "HTTPS://A.EXAMPLE/"):
            read_settings({"webhook-url": good, **secret}, {})
        for bad in (
            *("ftp://u:hidden@a", "//hidden", "hidden", "http://", "http://:80", "http://a:hidden"),
            *("http://a:0", "http://a/hid den", "http://a/#hidden", "http://[hidden", "http://ä"),
        ):
            error = self.assertRaises(ConfigurationError, read_settings, {"webhook-url": bad}, {})
            self.assertEqual(
                str(error),
                "--webhook-url: what is given is not a URL that begins with http:// or https://",
            )

    def test_key_urls(self) -> None:
        """Keys come by https, or by http from this machine, and the URL has no password."""
        for good in ("https://id.example/keys?a=b", "http://localhost:1/", "http://127.8.0.1/"):
            self.assertEqual(read_settings({"jwks-url": good}, {}).jwks_url, good)
        read_settings({"jwks-url": "http://[::1]:8080/keys"}, {})
        for bad in (
            *("http://id.example/keys", "http://localhost.example/", "http://10.0.0.1/", "keys"),
            *("https://u:hidden@a/", "http://0.0.0.0/", "ftp://localhost/", "http://127.1/"),
        ):
            error = self.assertRaises(ConfigurationError, read_settings, {"jwks-url": bad}, {})
            self.assertTrue(str(error).startswith("--jwks-url: "), error)

    def test_one_source_of_keys(self) -> None:
        """An issuer's keys come from one place."""
        pem = {"jwt-public-key": "a", "jwt-algorithm": "ES256"}
        for flags in (
            {"jwks-url": "https://a", "jwks-file": "b"},
            {"jwks-url": "https://a", **pem},
            {"jwks-file": "b", **pem},
        ):
            error = self.assertRaises(ConfigurationError, read_settings, flags, {})
            self.assertIn("only one of them can have the keys", str(error))

    def test_several_secrets(self) -> None:
        """White space separates secrets; each is long enough, and none is ever shown."""
        one, two = "s" * 32, "t" * 40
        settings = read_settings({}, {"REALTIME_SECRET": f" {one}\n\t{two} "})
        self.assertEqual(settings.secret, (one, two))
        self.assertNotIn(one, repr(settings))
        for bad in (f"{one} hidden", "hidden", f"{one[:-1]} {two}"):
            error = self.assertRaises(
                ConfigurationError, read_settings, {}, {"REALTIME_SECRET": bad}
            )
            self.assertIn("fewer than 32 bytes", str(error))
            self.assertNotIn("hidden", str(error))
            self.assertNotIn(two, str(error))

    @given(st.text(max_size=30), st.sampled_from(OPTIONS))
    def test_any_text(self, text: str, option: Any) -> None:
        """Whatever text an option is given, it is a setting or a one-line mistake."""
        value: Any = [text] if option.repeatable else text
        try:
            read_settings({option.name: value}, {})
        except ConfigurationError as error:
            self.assertNotIn("\n", str(error))


class RedisTests(SynchronousTestCase):
    """What concerns several nodes."""

    def test_addresses(self) -> None:
        """Addresses come from flags, from REALTIME_REDIS and from REDIS_URL, which has several."""
        for flags, environ, expected in (
            ({"redis": ["redis://a", "unix:///b"]}, {"REDIS_URL": "redis://c"}, ["a:6379", "/b"]),
            ({}, {"REDIS_URL": "redis://u:p@h:7/1"}, ["h:7"]),
            (
                {},
                {"REALTIME_REDIS": "redis+sentinel://a,b:1/s , rediss://c", "REDIS_URL": "x"},
                ["a:26379,b:1/s", "c:6379"],
            ),
        ):
            found = read_settings(flags, environ).redis
            self.assertEqual([str(address) for address in found], expected)

    def test_one_queue(self) -> None:
        """Workers have no queue of webhooks on disk: there is one in their state directory."""
        flags = {
            "workers": "2",
            "redis": ["redis://h"],
            "webhook-url": "http://h/",
            "webhook-secret-file": "f",
        }
        self.assertEqual(read_settings(flags, {}).workers, 2)
        flags["webhook-queue"] = "disk"
        error = self.assertRaises(ConfigurationError, read_settings, flags, {})
        self.assertIn("--webhook-queue disk", str(error))

    def test_mistakes(self) -> None:
        """A mistake names the option, and shows nothing of what may be secret."""
        for flags, problem in (
            ({"redis": ["http://:secret@h"]}, "--redis: what is given does not begin with"),
            ({"redis": ["redis://:secret@h"] * 2}, "--redis names one server twice"),
            ({"redis": ["redis://:secret@h/1", "redis://h/2"]}, "--redis names one server twice"),
            ({"workers": "2"}, "--workers 2 needs --redis"),
            ({"workers": "0"}, "--workers"),
            ({"metrics-port": "65535", "workers": "2"}, "--metrics-port 65535"),
            ({"redis-prefix": "a b"}, "--redis-prefix"),
        ):
            error = self.assertRaises(ConfigurationError, read_settings, flags, {})
            self.assertIn(problem, str(error))
            self.assertNotIn("secret", str(error))


class SecretTests(SynchronousTestCase):
    """The secret that signs tokens, where there is no file for it."""

    def test_secret(self) -> None:
        """It comes from the environment, is long enough, and is never shown."""
        settings = read_settings({}, {"REALTIME_SECRET": " " + "s" * 32 + "\n"})
        self.assertEqual(settings.secret, ("s" * 32,))
        for flags, environ in (
            ({}, {"REALTIME_SECRET": "s" * 31}),
            ({"secret": "s" * 32, "secret-file": "f"}, {}),
        ):
            error = self.assertRaises(ConfigurationError, read_settings, flags, environ)
            self.assertNotIn("sss", str(error))


class CommandLineTests(SynchronousTestCase):
    """`twistd realtime`."""

    def options(self, *arguments: str, **environ: str) -> Settings:
        """What a command line makes of the settings."""
        options = Options()
        options._environ = environ
        options.parseOptions(arguments)
        return options.settings

    def test_flags(self) -> None:
        """Flags, repeated ones and switches reach the settings."""
        settings = self.options(
            *("--port=0", "--max-connections", "5", "--origin=https://a.example"),
            *("--origin=https://b.example", "--rotate-refresh-tokens"),
            REALTIME_HOST="::1",
        )
        self.assertEqual((settings.port, settings.max_connections, settings.host), (0, 5, "::1"))
        self.assertEqual(settings.origin, ("https://a.example", "https://b.example"))
        self.assertTrue(settings.rotate_refresh_tokens)

    def test_mistakes_exit(self) -> None:
        """A mistake ends the process with one line and status 1."""
        for arguments in (("--prot=1",), ("--port=x",), ("--port",), ("stray",)):
            error = self.assertRaises(SystemExit, self.options, *arguments)
            self.assertIsInstance(error.code, str)
            self.assertRegex(str(error.code), r"\Arealtime: .+\Z")

    def test_the_manual_has_every_option(self) -> None:
        """--help names every option, with its meaning and default."""
        manual = " ".join(str(Options()).split())
        for option in OPTIONS:
            self.assertIn(f"--{option.name}", manual)
            self.assertIn(" ".join(option.help.split()[:3]), manual)
        self.assertIn("[default: 8081]", manual)
