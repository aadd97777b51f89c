"""The React hooks of the JavaScript client, in Chromium, under StrictMode."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support.browser import drive, no_browser
from tests.support.driver import Driver
from tests.support.js_client import built, no_build, tarball
from tests.support.reference import code, no_node, no_reference, node_modules
from tests.support.server import ROOT, Server, environment, free_port, run, wait_until

CONFIG = """
presence-grace = 0

[[topic]]
pattern = "staff.>"
subscribe = ["user"]

[[topic]]
pattern = "kept.>"
history_size = 100
durable = true
presence = true
join_leave = true
"""

# Sockets are counted, and one address and token led to the server under test.
PRELUDE = """
import { StrictMode, useEffect, useState } from 'react';
import { createRoot } from 'react-dom/client';
import { RealtimeProvider, useRealtime, useRealtimeClient, useTopic } from 'realtime-client/react';
declare const window: any;
const Native = window.WebSocket;
window.sockets = [];
window.WebSocket = class extends Native {
  constructor(url: string, protocols: string[]) {
    super(url.replace('ws://localhost:8081/ws', window.testUrl),
          protocols.map((each) => each.replace('your-jwt-token', window.testToken)));
    window.sockets.push(this);
  }
};
window.open = () => window.sockets.filter(({ readyState }: any) => readyState < 2).length;
const root = (id: string) => createRoot(document.getElementById(id)!);
"""

REFERENCE = """
function Harness() {
  window.hook = useRealtime({ url: window.testUrl, token: window.otherToken });
  return <p id="harness">{window.hook.connected ? 'up' : 'down'}</p>;
}
window.start = () => {
  root('chat').render(<StrictMode><ChatComponent /></StrictMode>);
  root('other').render(<StrictMode><Harness /></StrictMode>);
};
"""

CHAT = """
  const page = await load({});
  await page.evaluate(() => window.start());
  await until(async () => / Connected/.test(await page.textContent('#chat')));
  await page.waitForSelector('#harness:has-text("up")');
  await until(() => frames.some((frame) => frame.includes('"subscribed"')));
  const hook = async (name, ...rest) =>
    page.evaluate(([name, rest]) => window.hook[name](...rest), [name, rest]);
  const delivered = await hook('sendDirectMessage', 'alice', {direct: true});
  await hook('broadcast', 'chat.general', {message: 'from the hook'});
  await until(() => logs.some((line) => line.startsWith('New message')));
  // A handler takes the place of the one before, and hears of its own topics only.
  await page.evaluate(() => {
    window.heard = [];
    window.hook.on('Broadcast', () => window.heard.push('replaced'));
    window.hook.on('Broadcast', ({payload}) => window.heard.push(payload));
  });
  await hook('broadcast', 'chat.general', 'before');
  await hook('subscribe', ['chat.general']);
  await hook('broadcast', 'chat.general', 'after');
  await until(() => page.evaluate(() => window.heard.length > 0));
  await page.evaluate(() => window.hook.off('Broadcast'));
  await hook('broadcast', 'chat.general', 'not heard');
  const result = await page.evaluate(() => ({heard: window.heard, sockets: window.sockets.length}));
  result.delivered = delivered;
  await hook('disconnect');
  await page.waitForSelector('#harness:has-text("down")');
  result.open = await page.evaluate(() => window.open());
  await hook('connect');
  await page.waitForSelector('#harness:has-text("up")');
  result.again = await page.evaluate(() => window.sockets.length);
"""

ROOM = """
function Room({ topic }: any) {
  const { messages, presence, publish, connected, subscribed, error } =
    useTopic(topic, window.topicOptions);
  window.publish = publish;
  window.client = useRealtimeClient();
  return (
    <div>
      <p id="state">{topic} {connected ? 'up' : 'down'} {subscribed ? 'subscribed' : ''}
        {' '}{presence?.users ?? '?'} users {error?.code}</p>
      <ol>{messages.map(({ payload }, place) => <li key={place}>{payload}</li>)}</ol>
    </div>
  );
}
function Second({ token }: any) {
  const { connected, on, subscribe } = useRealtime({ url: window.testUrl, token });
  useEffect(() => on('Broadcast', ({ payload }) => window.heard.push(payload)), [on]);
  useEffect(() => void subscribe(['kept.second']), [subscribe]);
  return <p id="second">{connected ? 'up' : 'down'}</p>;
}
function App() {
  const [props, setProps] = useState(window.props);
  window.heard ??= [];
  window.change = (more: any) => setProps((before: any) => ({ ...before, ...more }));
  const { token, topic, room = true, second, all = true } = props;
  return all && (
    <RealtimeProvider url={window.testUrl} token={token}>
      {room && <Room topic={topic} />}
      {second && <Second token={token} />}
    </RealtimeProvider>
  );
}
window.start = () => root('chat').render(<StrictMode><App /></StrictMode>);
"""

LOAD = """
  const load = async (values) => {
    const page = await open();
    await page.setContent('<div id="chat"></div><div id="other"></div>');
    const all = {testUrl: input.url, testToken: input.alice, otherToken: input.bob, ...values};
    await page.evaluate((all) => Object.assign(window, all), all);
    await page.addScriptTag({path: input.bundle});
    return page;
  };
  const enter = async (token, topic, topicOptions = {}) => {
    const page = await load({topicOptions, props: {token, topic}});
    await page.evaluate(() => window.start());
    return page;
  };
  const shows = (page, text) => page.waitForSelector(`#state:has-text("${text}")`);
  const items = (page) => page.$$eval('li', (all) => all.map((each) => each.textContent));
  const say = (page, text) => page.evaluate((text) => window.publish(text).then(() => {}), text);
  const change = (page, more) => page.evaluate((more) => window.change(more), more);
  const sockets = (page) => page.evaluate(() => [window.sockets.length, window.open()]);
"""

TABS = """
  const alice = await enter(input.alice, 'kept.tabs', {limit: 3});
  await shows(alice, 'kept.tabs up subscribed 1 users');
  const bob = await enter(input.bob, 'kept.tabs', {limit: 3, history: 10});
  await shows(alice, '2 users');
  await say(alice, 'one');
  await say(bob, 'two');
  for (const page of [alice, bob]) await until(async () => (await items(page)).length === 2);
  const result = {both: [await items(alice), await items(bob)]};
  await say(alice, 'three');
  await say(alice, 'four');
  await until(async () => (await items(bob)).includes('four'));
  result.bounded = await items(bob);
  // Who comes later begins with what the history has.
  const late = await enter(input.bob, 'kept.tabs', {history: 3});
  await until(async () => (await items(late)).length === 3);
  result.late = await items(late);
  await late.close();
  await bob.close();
  await shows(alice, '1 users');
  await change(alice, {topic: 'kept.other'});
  await shows(alice, 'kept.other up subscribed 1 users');
  result.other = await items(alice);
  await say(alice, 'five');
  await until(async () => (await items(alice)).length === 1);
  await change(alice, {topic: '$server'});
  await shows(alice, 'FORBIDDEN');
  result.sockets = await sockets(alice);
"""

MOUNTS = """
  const page = await enter(input.alice, 'kept.mounts');
  await shows(page, 'up subscribed');
  const result = {strict: await sockets(page)};
  await change(page, {second: true});
  await page.waitForSelector('#second:has-text("up")');
  result.shared = await sockets(page);
  // Of what the two are subscribed to each hears its own.
  await say(page, 'first');
  await change(page, {topic: 'kept.second'});
  await shows(page, 'kept.second up subscribed');
  await say(page, 'second');
  await until(() => page.evaluate(() => window.heard.length > 0));
  await change(page, {room: false});
  await page.waitForSelector('#state', {state: 'detached'});
  await wait(100);
  result.kept = await page.evaluate(() => window.open());
  // Another token is another connection, with the handlers and topics of before.
  await change(page, {token: input.bob});
  await until(async () => {
    const [made, open] = await sockets(page);
    return made === 2 && open === 1;
  });
  await page.waitForSelector('#second:has-text("up")');
  await change(page, {room: true});
  await shows(page, 'kept.second up subscribed');
  await say(page, 'third');
  await until(() => page.evaluate(() => window.heard.length > 1));
  result.heard = await page.evaluate(() => window.heard);
  await change(page, {all: false});
  await until(async () => (await page.evaluate(() => window.open())) === 0);
  // Gone before it is connected.
  await change(page, {all: true});
  await change(page, {all: false});
  await until(async () => (await page.evaluate(() => window.open())) === 0);
  await wait(300);
  result.end = await page.evaluate(() => window.open());
  await change(page, {all: true});
  await shows(page, 'up subscribed');
"""

TAKEN = """
  const page = await enter(input.alice, 'staff.room');
  await shows(page, 'staff.room up subscribed');
  await page.evaluate(async (token) => {
    await window.client.send({type: 'Authenticate', data: {token}});
  }, input.guest);
  await shows(page, 'FORBIDDEN');
  const result = await page.textContent('#state');
"""

RESTART = """
  const page = await enter(input.alice, 'kept.restart', {history: 10});
  await shows(page, 'up subscribed');
  await say(page, 'one');
  await until(async () => (await items(page)).length === 1);
  require('fs').writeFileSync('restart', '');
  await shows(page, 'down');
  await shows(page, 'up subscribed');
  await until(async () => (await items(page)).length > 1);
  await say(page, 'three');
  await until(async () => (await items(page)).includes('three'));
  const result = await items(page);
"""


class ReactTests(SynchronousTestCase):
    """`realtime-client/react`."""

    skip = no_browser() or no_build() or no_node("react-dom", "ws")

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).resolve()
        self.folder.mkdir()
        self.state = tempfile.mkdtemp(prefix="realtime-test-")
        self.addCleanup(shutil.rmtree, self.state)
        self.config = self.folder / "config.toml"
        self.config.write_text(CONFIG, encoding="utf-8")
        self.port = free_port()
        self.server = self.serve(self.port)
        self.addCleanup(lambda: self.server.stop())
        self.server.add_user("alice")
        self.server.add_user("bob")
        self.tokens = {name: self.server.login(name)["access_token"] for name in ("alice", "bob")}

    def serve(self, port: int) -> Server:
        """Start the server on a port."""
        return Server("--config", str(self.config), state=self.state, port=port).start()

    def drive(self, source: str, script: str) -> tuple[Any, list[str]]:
        """Bundle a page with the development build of React, then run a script on it."""
        modules = self.folder / "node_modules"
        modules.mkdir()
        (modules / "realtime-client").symlink_to(tarball().parent)
        (self.folder / "page.tsx").write_text(PRELUDE + source, encoding="utf-8")
        bundle = self.folder / "page.js"
        done = subprocess.run(
            [
                *(f"{node_modules()}/.bin/esbuild", "page.tsx", "--bundle", "--jsx=automatic"),
                *(f"--outfile={bundle}", '--define:process.env.NODE_ENV="development"'),
            ],
            cwd=self.folder,
            env=environment(NODE_PATH=node_modules()),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        result, logs = drive(
            self.folder,
            LOAD + script,
            bundle=str(bundle),
            url=self.server.ws_url,
            **self.tokens,
        )
        self.assertFalse([line for line in logs if "uncaught" in line or "Warning" in line])
        return result, logs

    def test_component_of_the_reference(self) -> None:
        """The reference's ChatComponent works as it stands, with only its import added."""
        if problem := no_reference():
            self.skipTest(problem)
        _, found, component = code("typescript", "React Hook Example").partition(
            "function ChatComponent"
        )
        result, logs = self.drive(found + component + REFERENCE, CHAT)
        # The component logs all it hears, once though it was mounted twice.
        self.assertEqual(len([line for line in logs if "New message" in line]), 4)
        self.assertEqual(result["heard"], ["after"])
        self.assertEqual(result["delivered"], 1)
        self.assertEqual((result["sockets"], result["open"], result["again"]), (2, 1, 3))

    def test_two_tabs(self) -> None:
        """Two tabs chat by useTopic, see who is there, and keep as much as they are told."""
        result, _ = self.drive(ROOM, TABS)
        self.assertEqual(result["both"], [["one", "two"]] * 2)
        self.assertEqual(result["bounded"], ["two", "three", "four"])
        self.assertEqual(result["late"], ["two", "three", "four"])
        self.assertEqual(result["other"], [])
        self.assertEqual(result["sockets"], [1, 1])

    def test_mounts(self) -> None:
        """Whatever is mounted and unmounted, there is one socket where one is needed, else none."""
        result, _ = self.drive(ROOM, MOUNTS)
        self.assertEqual(result["strict"], [1, 1])
        self.assertEqual(result["shared"], [1, 1])
        self.assertEqual(result["kept"], 1)
        self.assertEqual(result["heard"], ["second", "third"])
        self.assertEqual(result["end"], 0)

    def test_taken_away(self) -> None:
        """A topic that a new token does not permit is shown as not subscribed to, and why."""
        token = ("-m", "realtime", "--state", self.state, "token", "--user=alice", "--role=guest")
        self.tokens["guest"] = run(*token).stdout.strip()
        result, _ = self.drive(ROOM, TAKEN)
        self.assertNotIn("subscribed", result)

    def test_restart(self) -> None:
        """After a restart of the server what was published meanwhile is there, once."""

        def restart() -> None:
            wait_until((self.folder / "restart").exists, seconds=60)
            self.server.stop()
            # Where the page cannot see it, yet.
            self.server = self.serve(free_port())
            command = ["node", str(ROOT / "tests" / "clients" / "driver.mjs")]
            environ = {"REALTIME_CLIENT": str(built()), "NODE_PATH": node_modules()}
            other = Driver(self, command, environ)
            other.ask("new", url=self.server.ws_url, token=self.tokens["bob"])
            other.ask("connect")
            other.ask("broadcast", topic="kept.restart", payload="two")
            other.stop()
            self.server.stop()
            self.server = self.serve(self.port)

        with ThreadPoolExecutor(1) as pool:
            restarted = pool.submit(restart)
            result, _ = self.drive(ROOM, RESTART)
            restarted.result()
        self.assertEqual(result, ["one", "two", "three"])
