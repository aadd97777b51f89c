"""The reference's browser client and React hook, unmodified, in Chromium."""

from __future__ import annotations

import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.browser import drive, no_browser
from tests.support.reference import code, no_node, no_reference, node_modules
from tests.support.server import Server, environment

PLAIN = """
  const page = await open();
  await page.addScriptTag({content: input.client + '\\nwindow.RealtimeClient = RealtimeClient;'});
  const result = await page.evaluate(async ([url, alice, bob]) => {
    const make = async (token) => {
      const client = new RealtimeClient(url, token);
      client.seen = {};
      client.waiting = {};
      for (const type of ['Status', 'Broadcast', 'DirectMessage', 'Pong', 'Error']) {
        client.on(type, (data) => { (client.seen[type] ||= []).push(data); });
      }
      await client.connect();
      return client;
    };
    const until = async (test) => {
      for (const end = Date.now() + 60000; !test();) {
        if (Date.now() > end) throw new Error('waited in vain for ' + test);
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
    };
    const one = await make(alice);
    const two = await make(bob);
    one.send({type: 'Subscribe', data: {topics: ['chat.general']}});
    await until(() => (one.seen.Status || []).length === 2);
    two.send({type: 'Broadcast', data: {topic: 'chat.general', payload: {text: 'Grüße'}}});
    await until(() => one.seen.Broadcast);
    one.send({type: 'DirectMessage', data: {target_user: 'bob', payload: 1}});
    await until(() => two.seen.DirectMessage);
    // Longer than the server waits for a sign of life, which only the browser's pongs give.
    await new Promise((resolve) => setTimeout(resolve, 7000));
    one.send({type: 'Ping', data: {timestamp: 3}});
    await until(() => one.seen.Pong);
    const open = [one, two].every((client) => client.ws.readyState === WebSocket.OPEN);
    one.maxReconnectAttempts = two.maxReconnectAttempts = 0;
    one.disconnect();
    two.disconnect();
    const nobody = new RealtimeClient(url, 'no.such.token');
    nobody.maxReconnectAttempts = 0;
    const refused = await nobody.connect().then(() => 'taken', (error) => error.type);
    return [one.seen, two.seen, open, refused];
  }, [input.url, input.alice, input.bob]);
"""

# The hook and the component name no export but useRealtime, and the component names its server:
# the page's WebSocket leads that one address to the server under test.
HARNESS = """
import { createRoot } from 'react-dom/client';
declare const window: any;
const Native = window.WebSocket;
window.WebSocket = class extends Native {
  constructor(url: string) {
    super(url.replace('ws://localhost:8081/ws', window.testUrl)
             .replace('your-jwt-token', window.testToken));
  }
};
function Harness() {
  window.hook = useRealtime({ url: window.testUrl, token: window.otherToken });
  return <p id="harness">{window.hook.connected ? 'up' : 'down'}</p>;
}
window.start = () => {
  createRoot(document.getElementById('chat')!).render(<ChatComponent />);
  createRoot(document.getElementById('other')!).render(<Harness />);
};
"""

REACT = """
  const page = await open();
  await page.setContent('<div id="chat"></div><div id="other"></div>');
  await page.evaluate((values) => Object.assign(window, values),
    {testUrl: input.url, testToken: input.alice, otherToken: input.bob});
  await page.addScriptTag({path: input.bundle});
  await page.evaluate(() => window.start());
  await until(async () => / Connected/.test(await page.textContent('#chat')));
  await page.waitForSelector('#harness:has-text("up")');
  await until(() => frames.some((frame) => frame.includes('"subscribed"')));
  await page.evaluate(() => {
    window.direct = [];
    window.hook.on('DirectMessage', (data) => window.direct.push(data));
    window.hook.broadcast('chat.general', {message: 'from the hook'});
    window.hook.sendDirectMessage('bob', {self: true});
  });
  await until(() => page.evaluate(() => window.direct.length > 0));
  await until(() => logs.some((line) => line.includes('chat.general')));
  // What the component hears, the other hook hears too once it has subscribed.
  await page.evaluate(() => {
    window.broadcasts = [];
    window.hook.on('Broadcast', (data) => window.broadcasts.push(data));
    window.hook.subscribe(['chat.general']);
    window.hook.broadcast('chat.general', {message: 'to both'});
  });
  await until(() => page.evaluate(() => window.broadcasts.length > 0));
  const result = await page.evaluate(() => [window.direct, window.broadcasts]);
  await page.evaluate(() => window.hook.disconnect());
  await page.waitForSelector('#harness:has-text("down")');
"""


class BrowserTests(SynchronousTestCase):
    """The examples in a page."""

    skip = no_reference() or no_browser()

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).resolve()
        self.folder.mkdir()
        self.server = Server("--heartbeat-interval=2", "--client-timeout=6").start()
        self.addCleanup(self.server.stop)
        self.server.add_user("alice")
        self.server.add_user("bob")
        self.alice = self.server.login("alice")
        self.bob = self.server.login("bob")

    def test_basic_client(self) -> None:
        """The browser client does all it can, stays while idle, and is refused without a token."""
        (one, two, still_open, refused), logs = drive(
            self.folder,
            PLAIN,
            client=code("javascript", "Basic WebSocket Client"),
            url=self.server.ws_url,
            alice=self.alice["access_token"],
            bob=self.bob["access_token"],
        )
        self.assertEqual(
            [status["status"] for status in one["Status"]], ["connected", "subscribed"]
        )
        (publication,) = one["Broadcast"]
        self.assertEqual(publication["payload"], {"text": "Grüße"})
        self.assertEqual(publication["from_user"], self.bob["user"]["id"])
        expected = [{"from_user": self.alice["user"]["id"], "payload": 1}]
        self.assertEqual(two["DirectMessage"], expected)
        self.assertEqual(one["Pong"][0]["timestamp"], 3)
        self.assertNotIn("Error", one)
        self.assertEqual((still_open, refused), (True, "error"))
        self.assertEqual(len(two["Status"]), 1)  # never connected again
        self.assertFalse([line for line in logs if line.startswith("uncaught")])

    def test_react_hook(self) -> None:
        """The hook and its ChatComponent compile, connect, subscribe and get messages."""
        problem = no_node("react", "react-dom", "esbuild")
        if problem:
            self.skipTest(problem)
        source = "\n".join(
            (
                code("typescript", "React Hook Example"),
                code("javascript", "Basic WebSocket Client"),
                HARNESS,
            )
        )
        (self.folder / "page.tsx").write_text(source, encoding="utf-8")
        bundle = self.folder / "page.js"
        done = subprocess.run(
            [
                *(f"{node_modules()}/.bin/esbuild", "page.tsx", "--bundle", "--jsx=automatic"),
                *(f"--outfile={bundle}", '--define:process.env.NODE_ENV="production"'),
            ],
            cwd=self.folder,
            env=environment(NODE_PATH=node_modules()),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        (direct, broadcasts), logs = drive(
            self.folder,
            REACT,
            bundle=str(bundle),
            url=self.server.ws_url,
            alice=self.alice["access_token"],
            bob=self.bob["access_token"],
        )
        self.assertEqual(direct, [{"from_user": self.bob["user"]["id"], "payload": {"self": True}}])
        self.assertEqual([each["payload"] for each in broadcasts], [{"message": "to both"}])
        self.assertFalse([line for line in logs if line.startswith("uncaught")])
