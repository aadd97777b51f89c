"""The distribution: what the wheel carries, and what README and Procfile promise."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from email import message_from_string
from email.message import Message
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

from twisted.trial.unittest import SynchronousTestCase

import realtime
from realtime.options import Options
from realtime.settings import read_settings
from tests.support.identity import make_state_dir
from tests.support.server import environment

ROOT = Path(__file__).parent.parent
SOURCES = ("setup.py", "pyproject.toml", "README.rst", "LICENSE", "realtime", "twisted")
BUILD = "from setuptools.build_meta import build_wheel; print(build_wheel('.'))"
# Distributions whose modules have another name.
MODULES = {"pyjwt": "jwt", "pyyaml": "yaml", "argon2-cffi": "argon2", "zope.interface": "zope"}
# What comes with twisted[tls].
WITH_TWISTED = {"OpenSSL"}


@cache
def wheel() -> bytes:
    """The wheel, built by setuptools from a copy of the sources, without any network."""
    with TemporaryDirectory(prefix="realtime-wheel-") as name:
        directory = Path(name)
        for source in map(ROOT.joinpath, SOURCES):
            if source.is_dir():
                junk = shutil.ignore_patterns("__pycache__", "dropin.cache")
                shutil.copytree(source, directory / source.name, ignore=junk)
            else:
                shutil.copy2(source, directory)
        done = subprocess.run(
            [sys.executable, "-c", BUILD],
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode:
            raise AssertionError(f"no wheel: {done.stdout}{done.stderr}")
        return (directory / done.stdout.split()[-1]).read_bytes()


def imported(*paths: Path) -> set[str]:
    """The top-level modules, neither ours nor the standard library's, that files import."""

    def everything() -> Iterator[str]:
        for path in paths:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    yield from (alias.name for alias in node.names)
                elif isinstance(node, ast.ImportFrom):
                    yield node.module or ""

    found = {name.partition(".")[0] for name in everything()}
    return found - sys.stdlib_module_names - {"realtime", "tests"}


class WheelTests(SynchronousTestCase):
    """What `pip install` puts on a machine."""

    def setUp(self) -> None:
        """Unpack the wheel, as an installation does."""
        self.site = Path(make_state_dir(self))
        packed = self.site / "packed.whl"
        packed.write_bytes(wheel())
        with ZipFile(packed) as archive:
            self.names = set(archive.namelist())
            archive.extractall(self.site)
        packed.unlink()

    def metadata(self) -> Message:
        """The wheel's metadata."""
        (name,) = (name for name in self.names if name.endswith(".dist-info/METADATA"))
        return message_from_string((self.site / name).read_text(encoding="utf-8"))

    def requirements(self) -> dict[str, list[str]]:
        """The modules that may be imported, by extra ("" for none)."""
        found: dict[str, list[str]] = {}
        for requirement in self.metadata().get_all("Requires-Dist", []):
            name = re.split(r"[^\w.-]", requirement)[0].lower()
            extra = re.search(r"extra == ['\"](\w+)", requirement)
            modules = found.setdefault(extra[1] if extra else "", [])
            modules.append(MODULES.get(name, name.replace("-", "_")))
        return found

    def python(self, code: str) -> str:
        """Run code where only the unpacked wheel is found; answer what it prints."""
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=make_state_dir(self),
            env=environment() | {"PYTHONPATH": str(self.site)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout.strip()

    def test_content(self) -> None:
        """The wheel has all of the package, with its data, and the plugin; nothing else."""
        expected = {
            str(path.relative_to(ROOT))
            for path in (ROOT / "realtime").rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        content = {name for name in self.names if ".dist-info/" not in name}
        self.assertEqual(content, expected | {"twisted/plugins/realtime_plugin.py"})
        self.assertIn("realtime/static/page.html", content)
        self.assertIn("realtime/py.typed", content)

    def test_metadata(self) -> None:
        """Name, version, Python, licence and description are those of the project."""
        metadata = self.metadata()
        self.assertEqual(metadata["Name"], "realtime-server")
        self.assertEqual(metadata["Version"], realtime.__version__)
        self.assertEqual(metadata["Requires-Python"], ">=3.11")
        self.assertEqual(metadata["License"] or metadata["License-Expression"], "MIT")
        self.assertTrue(any(name.endswith("/LICENSE") for name in self.names))
        description = metadata.get_payload()
        self.assertIn("The first five minutes", str(description))

    def test_imports_are_required(self) -> None:
        """What the package imports is required, what the tests import too or by their extra."""
        required = self.requirements()
        server = set(required[""]) | WITH_TWISTED
        self.assertLessEqual(imported(*(ROOT / "realtime").glob("*.py")), server)
        client = imported(*(ROOT / "realtime" / "client").glob("*.py"))
        self.assertLessEqual(client, set(required["client"]))
        tests = imported(*(ROOT / "tests").rglob("*.py")) - {"bench"}
        tests -= {"atheris"}  # of the extra `fuzz`, and only where there is one
        self.assertLessEqual(tests, server | set(required["test"]) | {"setuptools"})

    def test_requirements_have_ranges(self) -> None:
        """Every requirement says from which version on it is known to work."""
        for requirement in self.metadata().get_all("Requires-Dist", []):
            self.assertRegex(requirement, r">=\d")

    def test_plugin_is_found(self) -> None:
        """Where the wheel is installed, twistd knows the command, and the modules are its own."""
        code = (
            "from twisted.application.service import IServiceMaker\n"
            "from twisted.plugin import getPlugins\n"
            "makers = [m for m in getPlugins(IServiceMaker) if m.tapname == 'realtime']\n"
            "print(makers[0].options.__module__)\n"
            "import realtime; print(realtime.__file__)"
        )
        module, file = self.python(code).split()
        self.assertEqual(module, "realtime.options")
        self.assertEqual(Path(file), self.site / "realtime" / "__init__.py")

    def test_installed_modules_import(self) -> None:
        """Every installed module can be imported, and the page finds its files."""
        modules = sorted(path.stem for path in (ROOT / "realtime").glob("*.py"))
        modules.remove("__main__")
        code = "".join(f"import realtime.{name}\n" for name in modules if name != "__init__")
        code += "import realtime.client\n"
        self.assertEqual(self.python(f"{code}print('all')"), "all")


class ReadmeTests(SynchronousTestCase):
    """README, Procfile and CI say what works."""

    readme = (ROOT / "README.rst").read_text(encoding="utf-8")

    def blocks(self, language: str) -> list[str]:
        """The README's examples in a language."""
        pattern = rf"^\.\. code-block:: {language}\n\n((?:   .*\n|\n)+)"
        found = re.findall(pattern, self.readme, re.MULTILINE)
        return [re.sub("^   ", "", block, flags=re.MULTILINE) for block in found]

    def test_first_two_commands(self) -> None:
        """The first two commands install and run the server, and install and run the tests."""
        self.assertEqual(
            [block.strip() for block in self.blocks("sh")[:2]],
            [
                "pip install . && twistd -n realtime",
                "pip install '.[test]' && python -m twisted.trial -j 4 tests",
            ],
        )

    def test_examples_are_sound(self) -> None:
        """The Python example compiles, the configuration is one, and flags named are options."""
        for block in self.blocks("python"):
            compile(block, "README.rst", "exec")
        for number, block in enumerate(self.blocks("toml")):
            path = Path(make_state_dir(self), f"{number}.toml")
            path.write_text(block, encoding="utf-8")
            read_settings({}, {}, str(path))
            self.assertTrue(tomllib.loads(block))
        manual = str(Options())
        for flag in set(re.findall(r"``(--[a-z-]+)", self.readme)):
            self.assertIn(flag, manual)

    def test_links_exist(self) -> None:
        """Every file that the README links to is there."""
        for target in re.findall(r"<([\w./-]+)>`_", self.readme):
            self.assertTrue((ROOT / target).exists(), target)

    def test_procfile(self) -> None:
        """The Procfile runs the server in the foreground, without a pid file, on $PORT."""
        name, _, command = (ROOT / "Procfile").read_text().partition(":")
        words = shlex.split(command)
        self.assertEqual((name, words[0]), ("web", "twistd"))
        after = words.index("realtime")
        self.assertLessEqual({"--nodaemon", "--pidfile="}, set(words[:after]))
        options = Options()
        options._environ = {"PORT": "5000"}
        options.parseOptions([word.replace("$PORT", "5000") for word in words[after + 1 :]])
        self.assertEqual(options.settings.port, 5000)

    def test_ci_can_run(self) -> None:
        """.ci/run is an executable shell script without syntax errors."""
        path = ROOT / ".ci" / "run"
        self.assertTrue(os.stat(path).st_mode & stat.S_IXUSR)
        done = subprocess.run(["bash", "-n", path], capture_output=True, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, b""))

    def test_changelog_has_this_version(self) -> None:
        """The newest entry of the change log is this version."""
        text = (ROOT / "CHANGELOG.rst").read_text(encoding="utf-8")
        (newest, *_) = re.findall(r"^(\d+\.\d+\.\d+)", text, re.MULTILINE)
        self.assertEqual(newest, realtime.__version__)
