"""The reference's Node.js client, unmodified, against a real server."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support.process import spawn
from tests.support.reference import code, no_node, no_reference, node_modules
from tests.support.server import Server

DRIVER = """
const Client = require('./reference_client.js');
const [url, aliceToken, bobToken] = process.argv.slice(2);
const once = (client, type, test = () => true) => new Promise((resolve) => {
  const listener = (data) => { if (test(data)) { client.off(type, listener); resolve(data); } };
  client.on(type, listener);
});
const is = (status) => (data) => data.status === status;
(async () => {
  const alice = new Client(url, aliceToken, {heartbeatInterval: 200});
  const bob = new Client(url, bobToken);
  const emitted = [];
  const emit = alice.emit;
  alice.emit = function (name, ...rest) {
    emitted.push(name);
    return emit.call(this, name, ...rest);
  };
  const welcome = once(alice, 'Status', is('connected'));
  await alice.connect();
  await bob.connect();
  const seen = {welcome: await welcome};
  let next = once(alice, 'Status', is('subscribed'));
  alice.subscribe(['notifications', 'updates']);
  seen.subscribed = await next;
  next = once(alice, 'Broadcast');
  bob.broadcast('notifications', {title: 'Hello', exact: 1.10});
  seen.broadcast = await next;
  next = once(bob, 'DirectMessage');
  alice.sendDirectMessage('bob', null);
  seen.direct = await next;
  next = once(alice, 'pong');
  const applicationPong = once(alice, 'Pong');
  await next;
  seen.pong = await applicationPong;
  const closed = once(alice, 'disconnected');
  alice.options.maxReconnectAttempts = bob.options.maxReconnectAttempts = 0;
  alice.disconnect();
  seen.closed = (await closed).code;
  bob.disconnect();
  seen.emitted = [...new Set(emitted)];
  console.log('SEEN' + JSON.stringify(seen));
  setTimeout(() => process.exit(0), 200);
})().catch((error) => { console.error(error); process.exit(1); });
"""

# The example's usage, which names a server and a token, with `ws` led to ours.
USAGE = """
const WebSocket = require('ws');
const [url, aliceToken, bobToken] = process.argv.slice(2);
require.cache[require.resolve('ws')].exports = class extends WebSocket {
  constructor(address, ...rest) {
    super(address.replace('ws://localhost:8081/ws', url).replace('your-jwt-token', aliceToken),
          ...rest);
  }
};
const Client = require('./reference_client.js');
const bob = new Client(url, bobToken);
const log = console.log;
const seen = [];
console.log = (...words) => {
  seen.push(words);
  const [, broadcast, , direct] = words;
  if (broadcast?.topic) bob.sendDirectMessage('alice', 'Well received');
  if (direct) {
    log('SEEN' + JSON.stringify(seen));
    process.exit(0);
  }
};
bob.connect().then(Client.main);
"""

# It subscribes whenever it is connected, as the example's usage does.
RETURN = """
const Client = require('./reference_client.js');
const [url, token] = process.argv.slice(2);
const client = new Client(url, token);
const seen = {closed: [], welcomes: []};
client.on('connected', () => client.subscribe(['updates']));
client.on('error', () => {});
client.on('disconnected', ({code}) => seen.closed.push(code));
client.on('Status', (data) => {
  if (data.status === 'connected') seen.welcomes.push(data.session_id);
  if (data.status === 'subscribed') client.broadcast('updates', seen.welcomes.length);
});
client.on('Broadcast', ({payload}) => {
  if (payload === 1) return console.log('READY');
  console.log('SEEN' + JSON.stringify(seen));
  process.exit(0);
});
client.connect();
"""


def seen(output: str) -> Any:
    """What a driver tells at its end."""
    (line,) = re.findall(r"^SEEN(.*)$", output, flags=re.M)
    return json.loads(line)


class NodeClientTests(SynchronousTestCase):
    """The example's class, and its usage."""

    skip = no_reference() or no_node("ws")

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        source = code("javascript", "Node.js Client Example")
        (self.folder / "reference_client.js").write_text(
            f"{source}\nmodule.exports.main = main;\n", encoding="utf-8"
        )
        state = tempfile.mkdtemp(prefix="realtime-test-")
        self.addCleanup(shutil.rmtree, state)
        self.server = Server(state=state).start()
        self.addCleanup(lambda: self.server.stop())
        self.server.add_user("alice")
        self.server.add_user("bob")
        self.alice = self.server.login("alice")
        self.bob = self.server.login("bob")

    def drive(self, driver: str) -> subprocess.Popen[str]:
        """Start a driver beside the example."""
        (self.folder / "driver.js").write_text(driver, encoding="utf-8")
        tokens = (self.alice["access_token"], self.bob["access_token"])
        return spawn(
            self,
            ["node", "driver.js", self.server.ws_url, *tokens],
            cwd=self.folder,
            NODE_PATH=node_modules(),
        )

    def finish(self, process: subprocess.Popen[str]) -> Any:
        """Wait for a driver's end; answer what it has seen."""
        output, complaints = process.communicate()
        self.assertEqual(process.returncode, 0, output + complaints)
        return seen(output)

    def test_unmodified(self) -> None:
        """It connects, subscribes, broadcasts, messages directly, pings and leaves."""
        seen = self.finish(self.drive(DRIVER))
        self.assertEqual(seen["welcome"]["user_id"], self.alice["user"]["id"])
        self.assertEqual(
            [topic["topic"] for topic in seen["subscribed"]["topics"]],
            ["notifications", "updates"],
        )
        self.assertEqual(seen["broadcast"]["payload"], {"title": "Hello", "exact": 1.1})
        self.assertEqual(seen["direct"], {"from_user": self.alice["user"]["id"], "payload": None})
        self.assertIn("server_time", seen["pong"])
        self.assertEqual(seen["closed"], 1000)
        self.assertNotIn("error", seen["emitted"])

    def test_usage(self) -> None:
        """The usage hears its own broadcast, and a direct message with its sender's id."""
        (_, broadcast), (_, sender, _, payload) = self.finish(self.drive(USAGE))[-2:]
        self.assertEqual(broadcast["topic"], "notifications")
        self.assertEqual(broadcast["from_user"], self.alice["user"]["id"])
        self.assertEqual((sender, payload), (self.bob["user"]["id"], "Well received"))

    def test_comes_back_after_a_restart(self) -> None:
        """A restarted server closes with 1012; the client comes back with the same token."""
        process = self.drive(RETURN)
        assert process.stdout is not None
        for line in process.stdout:
            if line == "READY\n":
                break
        port = self.server.port
        self.server.stop()
        self.server = Server(state=self.server.state, port=port).start()
        seen = self.finish(process)
        # While there is no server, a refused connection is told as 1006.
        self.assertEqual(seen["closed"][0], 1012)
        self.assertLessEqual(set(seen["closed"][1:]), {1006})
        self.assertEqual(seen["welcomes"], [self.alice["session_id"]] * 2)
