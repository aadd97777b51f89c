"""Tests of realtime.console and realtime.rest_console: the page's files, and its data."""

from __future__ import annotations

import json
import re
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from realtime.admission import Admission
from realtime.api_keys import ApiKeys
from realtime.backends import Backends
from realtime.database import Database
from realtime.errors import Unavailable
from realtime.nodes import Nodes
from realtime.origins import Origins
from realtime.rest_console import Console
from realtime.samples import PERIOD, Samples
from realtime.tracing import Tracing
from tests.support.backend import JSON, BackendTestCase
from tests.support.http import InMemory, OnSocket, make_api
from tests.support.identity import IdentityKit, make_clock, make_identity, make_state_dir
from tests.support.peers import World
from tests.support.reference import no_node, node_modules
from tests.support.server import environment

ROOT = Path(__file__).parent.parent
BUILT = ("uplot.js", "uplot.css", "uplot.LICENSE.txt")
ID = "trace-0123456789abcdef"


class PageTests(TestCase):
    """The page at `/console`."""

    def setUp(self) -> None:
        """Ask in memory."""
        self.ask = InMemory(self, make_api(self).resource)
        self.html = self.ask("GET", "/console").body.decode()
        folder = files("realtime").joinpath("static", "console")
        self.sources = {
            file.name: file.read_text(encoding="utf-8")
            for file in folder.iterdir()
            if file.is_file()
        }

    def test_files(self) -> None:
        """Everything that is packaged is served as what it is, and kept with its ETag."""
        types = {"js": "text/javascript", "css": "text/css", "txt": "text/plain"}
        for name in self.sources:
            path = "/console" if name == "index.html" else f"/static/console/{name}"
            answer = self.ask("GET", path)
            self.assertEqual(answer.status, 200, path)
            wanted = types.get(name.rpartition(".")[2], "text/html")
            self.assertEqual(answer.header("Content-Type"), f"{wanted}; charset=utf-8")
            etag = answer.header("ETag") or ""
            self.assertEqual(self.ask("GET", path, {"If-None-Match": etag}).status, 304)

    def test_policy(self) -> None:
        """The Content-Security-Policy is the strict one of the page at `/`."""
        policy = self.ask("GET", "/console").header("Content-Security-Policy")
        self.assertEqual(policy, self.ask("GET", "/").header("Content-Security-Policy"))
        self.assertNotIn("unsafe", policy or "unsafe")

    def test_nothing_inline_and_nothing_foreign(self) -> None:
        """There is no inline script or style, and all that is referred to is served here."""
        self.assertNotRegex(self.html, r"(?i)<style|\sstyle=|\son\w+=|javascript:")
        self.assertEqual(re.findall(r"<script[^>]*>(.*?)</script>", self.html), [""])
        for link in re.findall(r'(?:href|src)="([^"#]+)"', self.html):
            self.assertEqual(self.ask("GET", link).status, 200, link)
        for name, text in self.sources.items():
            if name.endswith(".js"):
                for module in re.findall(r'from "\./([^"]+)"', text):
                    self.assertIn(module, self.sources)

    def test_text_only(self) -> None:
        """What others sent gets into the page as text, and tokens into no URL."""
        for name, text in self.sources.items():
            for way in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval("):
                self.assertNotIn(way, text, name)
            self.assertNotIn("token=", text)

    def test_ids(self) -> None:
        """Each element that a module looks for is in the page, once; all controls have labels."""
        for name, text in self.sources.items():
            if name.endswith(".js"):
                for id in set(re.findall(r'\$\("([\w-]+)"\)', text)):
                    self.assertEqual(self.html.count(f'id="{id}"'), 1, f"{name}: {id}")
        outside = re.sub(r"<label.*?</label>", "", self.html, flags=re.DOTALL)
        self.assertNotRegex(outside, "<(input|select|textarea)")

    def test_built(self) -> None:
        """What is built of npm packages is what the build makes of them now."""
        if problem := no_node("esbuild", "uplot"):
            self.skipTest(problem)
        out = make_state_dir(self)
        subprocess.run(
            ["node", "build.mjs", out],
            cwd=ROOT / "console",
            env=environment(NODE_PATH=node_modules()),
            check=True,
            timeout=60,
        )
        for name in BUILT:
            self.assertEqual(Path(out, name).read_text(encoding="utf-8"), self.sources[name], name)


class DataTestCase(BackendTestCase):
    """A world, and the API with the console's routes."""

    def make(self, **options: Any) -> None:
        """Make the world, and the API with the console's routes."""
        database = Database(f"{make_state_dir(self)}/unused.sqlite3", reactor)
        self.build(IdentityKit(self, database, make_clock()), **options)

    def build(self, kit: IdentityKit, **options: Any) -> None:
        """Make both on an identity part."""
        self.world = World(**options)
        self.clock = kit.clock
        self.samples = Samples(self.world.counters)
        admission = Admission(self.world.node, self.world.policy, Origins(["*"]))
        tracing = Tracing(self.world.node, admission, kit.auth.authenticate)
        self.nodes = Nodes(self.world.node)
        self.api = make_api(
            self,
            self.world.node,
            auth=kit.auth,
            backends=Backends(kit.auth, ApiKeys(kit.database, kit.clock.seconds)),
            nodes=self.nodes,
            console=Console(self.samples, tracing),
        )
        self._ask = InMemory(self, self.api.resource)

    def admin(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of a good answer to an admin."""
        answer = self.ask(method, path, body, roles=("admin",))
        self.assertEqual(answer.status, 200, answer.body)
        return answer.json()

    def trace(self, **body: Any) -> dict[str, Any]:
        """Read a trace on the only node."""
        (node,) = self.admin("POST", "/console/trace", {"id": ID, **body})["nodes"]
        found: dict[str, Any] = node
        return found


class DataTests(DataTestCase):
    """The routes of the page, asked by admins and by others."""

    def test_for_admins_only(self) -> None:
        """Other roles are refused with 403, that of backends too, and no token with 401."""
        self.make()
        routes = (
            ("GET", "/console/samples", None),
            ("GET", "/console/users/u", None),
            ("POST", "/console/trace", {"id": ID, "user": "u"}),
            ("DELETE", f"/console/trace/{ID}", None),
        )
        for method, path, body in routes:
            for roles in ((), ("user",), ("service",)):
                answer = self.ask(method, path, body, roles=roles)
                self.assert_error(answer, 403, "FORBIDDEN")
                self.assertIn("admin", answer.error()["message"])
            self.assertEqual(self._ask(method, path).status, 401)
            unknown = self._ask(method, path, {"Authorization": "Bearer rk_unknown"})
            self.assertEqual(unknown.status, 401)
        self.assertEqual(self.ask("GET", "/topics", roles=("admin",)).status, 200)

    def test_samples(self) -> None:
        """The samples of each node, all or those that follow a second."""
        self.make()
        self.assertEqual(self.admin("GET", "/console/samples")["nodes"][0]["samples"], [])
        start = 1_790_000_000
        for second in range(3 * PERIOD + 1):
            self.samples.beat(start + second, second)
        answer = self.admin("GET", "/console/samples")
        self.assertEqual((answer["period"], answer["now"]), (PERIOD, self.world.node.now()))
        (node,) = answer["nodes"]
        self.assertEqual(node["node_id"], self.world.node.node_id)
        self.assertEqual(
            [sample[0] for sample in node["samples"]],
            [start + PERIOD, start + 2 * PERIOD, start + 3 * PERIOD],
        )
        (node,) = self.admin("GET", f"/console/samples?after={start + 2 * PERIOD}")["nodes"]
        self.assertEqual([sample[0] for sample in node["samples"]], [start + 3 * PERIOD])
        self.assert_error(
            self.ask("GET", "/console/samples?after=x", roles=("admin",)),
            *(400, "INVALID_REQUEST"),
            field="after",
        )

    def test_trace(self) -> None:
        """A trace begins with its first reading, goes on where that ended, and is ended."""
        self.make()
        first = self.trace(topic="a")
        self.assertEqual([event["what"] for event in first["events"]], ["now"])
        self.ok("POST", "/publish", {"topic": "a", "payload": "x"})
        after = {first["node_id"]: first["last"]}
        second = self.trace(topic="a", after=after)
        self.assertEqual([event["what"] for event in second["events"]], ["published"])
        self.assertEqual(second["events"][0]["delivered"], 0)
        path = f"/console/trace/{ID}"
        self.assertEqual(self.ask("DELETE", path, roles=("admin",)).status, 204)
        self.assert_error(self.ask("DELETE", path, roles=("admin",)), 404, "NOT_FOUND")
        self.assertEqual(self.trace(topic="a", after=after)["ended"], "over")

    def test_what_can_be_traced(self) -> None:
        """A trace needs an id and a proper user or topic; the answer names what is wrong."""
        self.make()
        for body, field in (
            ({"id": ID}, "user"),
            ({"id": "short", "topic": "a"}, "id"),
            ({"id": ID, "topic": "a b"}, "topic"),
            ({"id": ID, "topic": ""}, "topic"),
            ({"id": ID, "user": "a\nb"}, "user"),
            ({"id": ID, "user": "é" * 200}, "user"),
            ({"id": ID, "topic": "a", "after": {"n": -1}}, "after[...]"),
        ):
            answer = self.ask("POST", "/console/trace", body, roles=("admin",))
            self.assert_error(answer, 400, "INVALID_REQUEST", field=field)

    def test_without_the_other_nodes(self) -> None:
        """While the nodes cannot be asked, this one answers for itself."""

        class Gone:
            async def ask(self, question: str, *args: Any) -> list[Any]:
                raise Unavailable()

        self.make()
        self.nodes._cluster = Gone()  # type: ignore[assignment]
        (node,) = self.admin("GET", "/console/samples")["nodes"]
        self.assertEqual(node["node_id"], self.world.node.node_id)

    def test_questions_of_other_nodes(self) -> None:
        """What other nodes ask is answered as the page is."""
        self.make()

        def answer(question: str, *args: Any) -> Any:
            return self.successResultOf(
                Deferred.fromCoroutine(self.nodes.answer(question, list(args)))
            )

        self.assertEqual(answer("samples", 0)["samples"], [])
        self.assertEqual(answer("trace", ID, [], "a", {})["last"], 1)
        self.assertEqual([answer("end_trace", ID) for _ in range(2)], [True, False])


class AccountTests(DataTestCase):
    """Accounts, which are in a database."""

    async def test_user(self) -> None:
        """An account is found by id or, in any case, username, and a trace by one knows both."""
        kit = await make_identity(self)
        self.build(kit)
        user = await kit.accounts.create("Ann", "correct horse", ["staff"])
        ask = OnSocket(self, self.api.resource)
        headers = JSON | {"Authorization": f"Bearer {self.token('admin')}"}
        for name in (user.user_id, "Ann", "ANN"):
            answer = await ask("GET", f"/console/users/{name}", headers)
            account = answer.json()
            self.assertEqual(account["id"], user.user_id)
            self.assertEqual((account["username"], account["roles"]), ("Ann", ["staff"]))
            self.assertFalse(account["disabled"])
        for name in ("nobody", "%0A"):
            answer = await ask("GET", f"/console/users/{name}", headers)
            self.assertEqual((answer.status, answer.error()["code"]), (404, "NOT_FOUND"))
        body: dict[str, Any] = {"id": ID, "user": "ann"}
        await ask("POST", "/console/trace", headers, json.dumps(body).encode())
        self.world.node.direct(user.user_id, b"1", "u2", 0.0)
        body["after"] = {self.world.node.node_id: 1}
        answer = await ask("POST", "/console/trace", headers, json.dumps(body).encode())
        (event,) = answer.json()["nodes"][0]["events"]
        self.assertEqual((event["what"], event["to"]), ("direct", user.user_id))
