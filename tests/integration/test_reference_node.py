"""The reference's Node.js client, unmodified, against a real server."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.reference import code, no_node, no_reference, node_modules
from tests.support.server import Server, environment

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
  bob.broadcast('notifications', {title: 'Hello from Node.js', exact: 12345678901234567890});
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


class NodeClientTests(SynchronousTestCase):
    """The example's class."""

    skip = no_reference() or no_node("ws")

    def test_unmodified(self) -> None:
        """It connects, subscribes, broadcasts, messages directly, pings and leaves."""
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "reference_client.js").write_text(code("javascript", "Node.js Client Example"))
        (folder / "driver.js").write_text(DRIVER)
        server = Server().start()
        self.addCleanup(server.stop)
        server.add_user("alice")
        server.add_user("bob")
        alice = server.login("alice")
        bob = server.login("bob")
        done = subprocess.run(
            ["node", "driver.js", server.ws_url, alice["access_token"], bob["access_token"]],
            cwd=folder,
            env=environment(NODE_PATH=node_modules()),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        (line,) = re.findall(r"^SEEN(.*)$", done.stdout, flags=re.M)
        seen = json.loads(line)
        self.assertEqual(seen["welcome"]["user_id"], alice["user"]["id"])
        self.assertEqual(
            [topic["topic"] for topic in seen["subscribed"]["topics"]],
            ["notifications", "updates"],
        )
        self.assertEqual(seen["broadcast"]["payload"]["title"], "Hello from Node.js")
        self.assertEqual(seen["direct"], {"from_user": alice["user"]["id"], "payload": None})
        self.assertIn("server_time", seen["pong"])
        self.assertEqual(seen["closed"], 1000)
        self.assertNotIn("error", seen["emitted"])
