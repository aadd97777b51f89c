"""The JavaScript client as a package: what is in it, its size, its types, and that it works."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.js_client import SOURCES, built, install, no_build, tarball
from tests.support.reference import no_node, node_modules
from tests.support.server import Server, environment

# Bytes of the minified and compressed core.
MAX_SIZE = 6000

# What a program does with it, by either kind of module.
USE = """
(async () => {
  const [url, token] = process.argv.slice(2);
  const client = new RealtimeClient(url, { token, WebSocket: globalThis.WebSocket ?? WebSocket });
  const heard = new Promise((resolve) => client.on('Broadcast', (data) => resolve(data.payload)));
  const { username } = await client.connect();
  await client.subscribe('chat.general');
  await client.broadcast('chat.general', { text: 'Grüße' });
  const refused = await client.history('chat.general').catch((error) => error);
  client.disconnect();
  console.log(JSON.stringify([
    username, await heard, refused instanceof RealtimeError && refused.code,
    typeof useTopic, typeof useRealtime, client.connected,
  ]));
})();
"""
MODULE = (
    """
import { RealtimeClient, RealtimeError } from 'realtime-client';
import { useRealtime, useTopic } from 'realtime-client/react';
import WebSocket from 'ws';
"""
    + USE
)
COMMON = (
    """
const { RealtimeClient, RealtimeError } = require('realtime-client');
const { useRealtime, useTopic } = require('realtime-client/react');
const WebSocket = require('ws');
"""
    + USE
)

TYPED = """
import { RealtimeClient, RealtimeError, type Options, type Position } from 'realtime-client';

const options: Options = { getToken: async () => null, transport: 'auto', maxQueue: 10 };
const client = new RealtimeClient('ws://localhost/ws', options);
const off: () => void = client.on('Broadcast', (data, message) => {
  const topic: string = data.topic;
  const time: number | undefined = message.timestamp;
  console.log(topic, time);
});
client.on('disconnected', ({ code, willReconnect }: { code: number; willReconnect: boolean }) => {
  console.log(code, willReconnect);
});
client.on('whatever.else', (data) => console.log(data));
client.off('Broadcast');
off();

async function use(): Promise<number> {
  const { user_id } = await client.connect();
  const [status] = await client.subscribe(['chat.general', 'orders.>'], ({ payload }) => payload);
  const page = await client.history<{ text: string }>('chat.general', { limit: 3 });
  const text: string | undefined = page.publications[0]?.payload.text;
  const since: Position = { offset: page.offset, epoch: page.epoch };
  await client.publish(user_id, { text, since, status }, { echo: false });
  await client.send({ type: 'Ping' });
  const error = new RealtimeError('TIMEOUT', 'No answer');
  console.log(error.code, error.details);
  return (await client.presence('chat.general')).users + (await client.ping());
}
void use();

// @ts-expect-error: a topic is text
client.broadcast(1, {});
// @ts-expect-error: there is no such transport
new RealtimeClient('ws://localhost/ws', { transport: 'pigeon' });
"""
TYPED_REACT = """
import { createElement, type ReactElement } from 'react';
import { RealtimeProvider, useRealtime, useRealtimeClient, useTopic } from 'realtime-client/react';

export function Chat({ topic }: { topic: string }): ReactElement {
  const { messages, presence, publish, error } = useTopic<{ text: string }>(topic, { limit: 5 });
  const client = useRealtimeClient();
  const texts: string[] = messages.map(({ payload }) => payload.text);
  const send = () => void publish({ text: client?.url ?? '' });
  // @ts-expect-error: the payload has a type
  const wrong = () => void publish('text');
  return createElement('p', { onClick: presence ? send : wrong }, texts, error?.message);
}

export function App(): ReactElement {
  const { connected, connecting, error, connect, disconnect, subscribe, broadcast, on, off,
          sendDirectMessage } = useRealtime({ url: 'ws://localhost/ws', token: 'token' });
  on('Broadcast', (data) => console.log(data));
  off('Broadcast');
  void connect().then(disconnect);
  void subscribe(['chat.general']);
  void broadcast('chat.general', {});
  void sendDirectMessage('bob', {}).then((delivered: number) => delivered);
  const state: [boolean, boolean, Error | null] = [connected, connecting, error];
  return createElement(RealtimeProvider, { url: '', getToken: () => null }, state.join());
}
"""
TSCONFIG = {
    "compilerOptions": {
        "strict": True,
        "noEmit": True,
        "target": "es2022",
        "lib": ["es2022", "dom"],
        "types": [],
        # The package's own declarations are checked as well.
        "skipLibCheck": False,
    },
    "files": ["core.ts", "react.ts", "core.cts", "react.cts"],
}


class JavaScriptClientTests(SynchronousTestCase):
    """`clients/js`, built, packed and installed in a project elsewhere."""

    skip = no_build() or no_node("ws")

    def make_project(self, *others: str) -> Path:
        """A project outside the checkout that has the package, and others."""
        temporary = tempfile.TemporaryDirectory(prefix="realtime-project-")
        self.addCleanup(temporary.cleanup)
        folder = Path(temporary.name)
        install(folder, *others)
        return folder

    def run_in(self, folder: Path, *command: str, client: str = "") -> str:
        """Run a program to its successful end; answer what it said."""
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment(REALTIME_CLIENT=client),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def test_size(self) -> None:
        """The core is less than 6 kB on the wire."""
        size = len(gzip.compress(built().read_bytes(), 9))
        sys.stdout.write(f"\nrealtime-client: {size} bytes gzipped ")
        self.assertLess(size, MAX_SIZE)

    def test_contents(self) -> None:
        """The package has what is needed to use it, and depends on nothing."""
        with tarfile.open(tarball()) as archive:
            names = {name.removeprefix("package/") for name in archive.getnames()}
        entries = {
            f"dist/{entry}.{kind}"
            for entry in ("index", "react")
            for kind in ("js", "cjs", "d.ts", "d.cts")
        }
        self.assertLessEqual({"package.json", "README.md", "LICENSE", *entries}, names)
        self.assertFalse([name for name in names if "node_modules" in name or "src/" in name])
        package = json.loads((tarball().parent / "package.json").read_text(encoding="utf-8"))
        self.assertNotIn("dependencies", package)
        self.assertEqual(package["sideEffects"], False)
        self.assertIn(b"./index.js", built("react.js").read_bytes())

    def test_versions(self) -> None:
        """It is built with the very versions that the tests install."""
        here = json.loads((tarball().parent / "package.json").read_text(encoding="utf-8"))
        tests = Path(__file__).parent / "integration" / "package.json"
        known = json.loads(tests.read_text(encoding="utf-8"))["dependencies"]
        wanted = here["devDependencies"]
        self.assertEqual(wanted, {name: known.get(name) for name in wanted})

    def test_behaviour(self) -> None:
        """Its own tests pass: what happens at the same time, or too late, on a server in memory."""
        client = str(built())
        self.run_in(SOURCES, "node", "--test", "--test-timeout=30000", "test/", client=client)

    def test_readme(self) -> None:
        """The programs of its README are programs, and the first one works."""
        text = (SOURCES / "README.md").read_text(encoding="utf-8")
        blocks = re.findall(r"^```(jsx?)\n(.*?)^```", text, flags=re.M | re.S)
        self.assertGreaterEqual(len(blocks), 4)
        folder = self.make_project("react", "ws")
        server = Server().start()
        self.addCleanup(server.stop)
        token = server.login("admin", server.admin_password)["access_token"]
        for number, (kind, block) in enumerate(blocks):
            (folder / f"{number}.{kind}").write_text(block, encoding="utf-8")
            self.run_in(
                folder,
                *(f"{node_modules()}/.bin/esbuild", f"{number}.{kind}", "--bundle"),
                *("--format=esm", "--platform=node", f"--outfile={number}.mjs"),
            )
        # Node.js before 22 has no WebSocket of its own.
        program = f"""
            import WebSocket from 'ws';
            globalThis.WebSocket ??= WebSocket;
            const token = {token!r};
            {blocks[0][1].replace("ws://localhost:8081/ws", server.ws_url)}
            client.disconnect();
        """
        (folder / "first.mjs").write_text(program, encoding="utf-8")
        said = self.run_in(folder, "node", "first.mjs")
        self.assertIn("chat.general", said)
        self.assertIn("Hello", said)

    def test_used(self) -> None:
        """Installed from the tarball it works as an ES module and as CommonJS."""
        folder = self.make_project("react", "ws")
        server = Server().start()
        self.addCleanup(server.stop)
        token = server.login("admin", server.admin_password)["access_token"]
        for name, source in (("use.mjs", MODULE), ("use.cjs", COMMON)):
            (folder / name).write_text(source, encoding="utf-8")
            self.assertEqual(
                json.loads(self.run_in(folder, "node", name, server.ws_url, token)),
                ["admin", {"text": "Grüße"}, "NOT_FOUND", "function", "function", False],
            )

    def test_types(self) -> None:
        """A strict TypeScript project can use both entries, by every kind of resolution."""
        folder = self.make_project("react", "@types", "csstype")
        for name, source in (("core", TYPED), ("react", TYPED_REACT)):
            (folder / f"{name}.ts").write_text(source, encoding="utf-8")
            (folder / f"{name}.cts").write_text(source, encoding="utf-8")
        (folder / "tsconfig.json").write_text(json.dumps(TSCONFIG), encoding="utf-8")
        for module, resolution in (("nodenext", "nodenext"), ("esnext", "bundler")):
            self.run_in(
                folder,
                *(f"{node_modules()}/.bin/tsc", "--project", "tsconfig.json"),
                *("--module", module, "--moduleResolution", resolution),
            )
