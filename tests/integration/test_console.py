"""The console, used by an admin in headless Chromium."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.integration.test_nodes import NodesTestCase
from tests.support.browser import drive, no_browser
from tests.support.server import Server, wait_until

CONFIG = """
[[topic]]
pattern = "staff.>"
subscribe = ["staff"]

[[topic]]
pattern = "kept.>"
history_size = 100
presence = true
"""
NASTY = '<img src=x onerror="document.title=1">'

TOOLS = """
  const enter = async (options, name = 'admin', password = input.password) => {
    const page = await open(options);
    await page.goto(input.url);
    await page.fill('#username', name);
    await page.fill('#password', password);
    await page.press('#password', 'Enter');
    return page;
  };
  const ready = async (page) => page.waitForSelector('#nav:not([hidden])');
  const wide = (page) => page.evaluate(() => document.documentElement.scrollWidth);
  const picture = (page, name) =>
    page.screenshot({path: `${input.pictures}/${name}.png`, fullPage: true});
  const signal = (name) => require('fs').writeFileSync(name, '');
  const texts = (page, selector) =>
    page.$$eval(selector, (all) => all.map((each) => each.textContent));
  const kept = (page) =>
    page.evaluate(() => JSON.parse(sessionStorage.getItem('realtime-console')));
"""

OVERVIEW = """
  const page = await enter({viewport: {width: 1280, height: 900}});
  await ready(page);
  await page.waitForSelector('.chart >> nth=3');
  await until(async () => (await texts(page, '.chart .value'))[0] === '2');
  const titles = await texts(page, '.chart h3');
  const label = await page.getAttribute('.plot', 'aria-label');
  await page.focus('.plot >> nth=0');
  await page.keyboard.press('End');
  await until(async () => /\\d\\d:\\d\\d:\\d\\d/.test((await texts(page, '.when'))[3]));
  await page.keyboard.press('Escape');
  await until(async () => (await texts(page, '.when'))[3] === '');
  const sizes = await page.$$eval('.plot canvas', (all) => all.map((each) => each.width > 300));
  await picture(page, 'overview-wide');
  const phone = await enter({viewport: {width: 380, height: 800}, colorScheme: 'dark'});
  await ready(phone);
  await until(async () => (await texts(phone, '.chart .value'))[0] === '2');
  await picture(phone, 'overview-narrow');
  const result = {titles, label, sizes, wide: await wide(phone)};
"""

# An hour of three nodes, as the server would tell it.
HOUR = """
  const page = await open({viewport: {width: 1280, height: 900}, colorScheme: input.scheme});
  const end = Math.floor(Date.now() / 5000) * 5;
  const wave = (time, phase) => Math.sin(time / 400 + phase) + Math.sin(time / 70 + phase) / 4;
  const nodes = ['3f9a2c41', '77b0e2d8', 'c1d4a590'].map((node_id, phase) => ({
    node_id,
    samples: Array.from({length: 720}, (_, number) => {
      const time = end - 3595 + number * 5;
      const received = Math.round(400 + 200 * wave(time, phase));
      const slow = time % 1200 < 8 ? 0.2 : 0;
      return [time, Math.round(1200 + 300 * wave(time, phase)), received, received * 12,
              time % 300 < 20 ? 3 : 0, 0.002 + slow];
    }).filter((_, number) => phase !== 2 || number < 300 || number > 400),
  }));
  const told = nodes.map(({node_id}) => ({node_id, version: '1.0.0', uptime_seconds: 93784,
    connections: 1200, status: node_id[0] === 'c' ? 'Draining' : 'healthy'}));
  await page.route('**/console/samples?*', (route) =>
    route.fulfill({json: {now: end + 1, period: 5, nodes}}));
  await page.route('**/info', (route) => route.fulfill({json: {nodes: told}}));
  await page.goto(input.url);
  await page.fill('#username', 'admin');
  await page.fill('#password', input.password);
  await page.press('#password', 'Enter');
  await page.waitForSelector('#node-rows tr >> nth=2');
  const all = Number((await texts(page, '.chart .value'))[0].replace(',', ''));
  await picture(page, `hour-${input.scheme}`);
  await page.selectOption('#node', nodes[1].node_id);
  const one = Number((await texts(page, '.chart .value'))[0].replace(',', ''));
  await page.selectOption('#node', '');
  await page.setViewportSize({width: 380, height: 800});
  await until(async () => (await page.$eval('.plot canvas', (each) => each.clientWidth)) < 380);
  await picture(page, 'hour-narrow');
  const last = nodes.map(({samples}) => samples.at(-1)[1]);
  const result = {all: all - last[0] - last[1] - last[2], one: one - last[1],
                  rows: await texts(page, '#node-rows tr'), wide: await wide(page)};
"""

TOPICS = """
  const page = await enter({viewport: {width: 1280, height: 900}});
  await ready(page);
  await page.click('text=Topics');
  await page.waitForSelector('#topic-rows tr >> nth=1');
  const found = await texts(page, '#topic-rows tr');
  await page.fill('#prefix', 'kept.');
  await until(async () => (await texts(page, '#topic-rows tr')).length === 1);
  await page.click('#topic-rows a');
  await page.waitForSelector('#publications li >> nth=1');
  await page.waitForSelector('#members li');
  const members = await texts(page, '#members li');
  const publications = await texts(page, '#publications .payload');
  await picture(page, 'topics-wide');
  await page.click('#topic-publish');
  await page.fill('#payload', '{"n": 12345678901234567890}');
  await page.click('#publish-form .primary');
  await page.waitForSelector('#published >> text=Published on kept.news at offset 3');
  await page.fill('#payload', '{no json');
  await page.click('#publish-form .primary');
  await page.waitForSelector('text=This is no JSON');
  await picture(page, 'publish-wide');
  await page.goBack();
  await page.waitForSelector('#publications >> text=12345678901234567890');
  await page.setViewportSize({width: 380, height: 800});
  await picture(page, 'topics-narrow');
  const result = {found, members, publications, wide: await wide(page), title: await page.title()};
"""

USERS = """
  const page = await enter({viewport: {width: 1280, height: 900}});
  await ready(page);
  await page.click('text=Users');
  await page.waitForSelector('#connection-rows tr >> nth=2');
  await page.fill('#user', 'ALICE');
  await page.press('#user', 'Enter');
  await until(async () => (await texts(page, '#connection-rows tr')).length === 2);
  await page.waitForSelector('text=with user, subscriber');
  const line = await page.textContent('#account-line');
  await picture(page, 'users-wide');
  await page.setViewportSize({width: 380, height: 800});
  await picture(page, 'users-narrow');
  const narrow = await wide(page);
  const close = page.locator('#connection-rows button').first();
  await close.click();
  await page.waitForSelector('text=Sure?');
  await close.click();
  await page.waitForSelector('text=was closed');
  await until(async () => (await texts(page, '#connection-rows tr')).length === 1);
  await page.click('#close-all button');
  await page.click('text=Really close all?');
  await page.waitForSelector('text=ALICE has no connection.');
  const result = {line, wide: narrow};
"""

TRACE = """
  const page = await enter({viewport: {width: 1280, height: 900}});
  await ready(page);
  await page.click('text=Trace');
  await page.fill('#trace-user', 'alice');
  await page.fill('#trace-topic', 'kept.news');
  await page.click('#trace-button');
  await page.waitForSelector('#events >> text=alice has 1 connection');
  signal('traced');
  await page.waitForSelector('#events >> text=has not subscribed to this topic, so it did not');
  await page.waitForSelector('#events >> text=It went to 1 of 1 connection of alice');
  await page.waitForSelector('#events >> text=4501: an operator closed it');
  const first = await texts(page, '#events li');
  await picture(page, 'trace-wide');
  await page.setViewportSize({width: 380, height: 800});
  await picture(page, 'trace-narrow');
  const narrow = await wide(page);
  await page.click('#trace-button');
  await page.waitForSelector('text=Stopped.');
  await page.fill('#trace-topic', 'staff.room');
  await page.click('#trace-button');
  await page.waitForSelector('#events li');
  signal('staff');
  await page.waitForSelector('#events >> text=FORBIDDEN');
  const second = await texts(page, '#events li');
  const result = {first, second, wide: narrow, title: await page.title()};
"""

REFUSED = """
  const page = await enter({}, 'alice', 'correct horse battery');
  await page.waitForSelector('#notice:not(:empty)');
  const told = await page.textContent('#notice');
  await page.reload();
  await page.waitForSelector('#login:not([hidden])');
  await page.click('summary');
  await page.fill('#token', input.token);
  await page.press('#token', 'Enter');
  await until(async () => (await page.textContent('#notice')).includes('role admin'));
  await page.fill('#token', 'nonsense');
  await page.press('#token', 'Enter');
  await until(async () => (await page.textContent('#notice')).includes('invalid'));
  await picture(page, 'login');
  const result = {told, nonsense: await page.textContent('#notice'),
                  kept: await page.evaluate(() => sessionStorage.length)};
"""

EXPIRY = """
  const page = await enter({});
  await ready(page);
  await page.reload();
  await ready(page);
  const spoil = (more) => page.evaluate((more) => {
    const kept = JSON.parse(sessionStorage.getItem('realtime-console'));
    sessionStorage.setItem('realtime-console', JSON.stringify({...kept, ...more}));
  }, {token: 'spoilt', ...more});
  await spoil();
  await page.reload();
  await until(async () => (await texts(page, '.chart .value'))[0] === '0');
  const renewed = (await kept(page)).token;
  await spoil({refresh: 'spoilt, too'});
  await page.reload();
  await page.waitForSelector('#login:not([hidden])');
  const told = await page.textContent('#notice');
  const focused = await page.evaluate(() => document.activeElement.id);
  const again = await enter({});
  await ready(again);
  await again.click('#logout');
  await again.waitForSelector('#login:not([hidden])');
  const result = {renewed: renewed !== 'spoilt', told, focused,
                  kept: await again.evaluate(() => sessionStorage.length)};
"""

KEYBOARD = """
  const page = await open({viewport: {width: 1280, height: 900}});
  await page.goto(input.url);
  await page.waitForSelector('#login:not([hidden])');
  const seen = [];
  const where = () => page.evaluate(() => {
    const {outlineStyle, outlineWidth} = getComputedStyle(document.activeElement);
    return {text: (document.activeElement.textContent || document.activeElement.id).trim(),
            page: document.activeElement === document.body,
            outline: outlineStyle !== 'none' && outlineWidth !== '0px'};
  });
  const tabTo = async (test) => {
    for (let turn = 0; turn < 60; turn += 1) {
      await page.keyboard.press('Tab');
      const at = await where();
      seen.push(at);
      if (test(at)) return;
    }
    throw new Error('no way there: ' + JSON.stringify(seen.slice(-60)));
  };
  await page.keyboard.type('admin');
  await page.keyboard.press('Tab');
  await page.keyboard.type(input.password);
  await page.keyboard.press('Enter');
  await ready(page);
  await tabTo(({text}) => text === 'Users');
  await page.keyboard.press('Enter');
  await page.waitForSelector('#connection-rows tr');
  await tabTo(({text}) => text === 'Close');
  await page.keyboard.press('Enter');
  await page.keyboard.press('Escape');
  await page.keyboard.press('Enter');
  await page.waitForSelector('text=Sure?');
  await page.keyboard.press('Enter');
  await page.waitForSelector('text=was closed');
  const result = {bare: seen.filter(({page, outline}) => !page && !outline)};
"""

NODES = """
  const page = await enter({viewport: {width: 1280, height: 900}});
  await ready(page);
  await page.waitForSelector('#node-rows tr >> nth=1');
  const nodes = await texts(page, '#node-rows tr');
  await page.click('text=Trace');
  await page.fill('#trace-user', 'bob');
  await page.fill('#trace-topic', 'room.1');
  await page.click('#trace-button');
  await page.waitForSelector('#events li >> nth=1');
  await page.waitForSelector('text=Tracing on 2 nodes.');
  signal('traced');
  await page.waitForSelector('#events >> text=It went to 1 of 1 connection of bob');
  await picture(page, 'nodes');
  const result = {nodes, events: await texts(page, '#events li')};
"""


class ConsoleTests(SynchronousTestCase):
    """An admin, a browser, and clients to look at."""

    skip = no_browser()

    def setUp(self) -> None:
        """Start a server with a user who is no admin."""
        self.folder = Path(self.mktemp()).resolve()
        self.folder.mkdir()
        config = tempfile.NamedTemporaryFile("w", suffix=".toml", delete=False)  # noqa: SIM115
        self.addCleanup(Path(config.name).unlink)
        with config:
            config.write(CONFIG)
        self.server = Server("--config", config.name).start()
        self.addCleanup(self.server.stop)
        self.server.add_user("alice")

    def drive(self, script: str, **input: str) -> Any:
        """Run a script in the browser; its console may tell of refused requests only."""
        result, logs = drive(
            self.folder,
            TOOLS + script,
            url=f"http://127.0.0.1:{self.server.port}/console",
            password=self.server.admin_password,
            pictures=str(self.folder),
            **input,
        )
        self.assertEqual([line for line in logs if "Failed to load resource" not in line], [])
        return result

    def token(self) -> str:
        """An access token of alice's."""
        token: str = self.server.login("alice")["access_token"]
        return token

    @contextmanager
    def client(self, *topics: str) -> Iterator[ClientConnection]:
        """A connection of alice's that has subscribed."""
        with connect(self.server.token_url(self.token())) as socket:
            socket.recv(timeout=10)
            if topics:
                self.say(socket, "Subscribe", topics=topics)
            yield socket

    def say(self, socket: ClientConnection, type: str, **data: Any) -> Any:
        """Send a command, and wait for its answer."""
        socket.send(json.dumps({"type": type, "data": data, "id": 1}))
        while True:
            answer = json.loads(socket.recv(timeout=10))
            if answer.get("id") == 1:
                return answer

    def publish(self, topic: str, payload: Any) -> None:
        """Publish as the admin."""
        admin = self.server.login("admin", self.server.admin_password)["access_token"]
        body = {"topic": topic, "payload": payload}
        status, _, _ = self.server.request(
            "POST", "/publish", body, Authorization=f"Bearer {admin}"
        )
        self.assertEqual(status, 200)

    def test_overview(self) -> None:
        """The charts show the connections there are, by mouse and keyboard, wide and narrow."""
        with self.client("a"), self.client("a") as socket:
            self.say(socket, "Broadcast", topic="a", payload=1)
            result = self.drive(OVERVIEW)
        self.assertEqual(
            result["titles"],
            ["Connections", "Messages a second", "Errors a second", "Event-loop lag"],
        )
        self.assertIn("Connections: now 2", result["label"])
        self.assertEqual(result["sizes"], [True] * 4)
        self.assertLessEqual(result["wide"], 380)

    def test_an_hour_of_nodes(self) -> None:
        """Nodes are shown together or one by one, with the state of each."""
        for scheme in ("light", "dark"):
            result = self.drive(HOUR, scheme=scheme)
            self.assertEqual((result["all"], result["one"]), (0, 0))
            self.assertEqual(result["rows"][0], "3f9a2c41 healthy1,2001 d 2 h1.0.0")
            self.assertIn("Draining", result["rows"][2])
            self.assertLessEqual(result["wide"], 380)

    def test_topics_and_publishing(self) -> None:
        """Topics, who is present, and the history as text; what is published is in it."""
        with self.client("kept.news", "other"):
            self.publish("kept.news", NASTY)
            self.publish("kept.news", {"a": [1]})
            result = self.drive(TOPICS)
        self.assertEqual(result["found"], ["kept.news1", "other1"])
        self.assertEqual(result["members"], ["alice"])
        self.assertEqual(result["publications"], ['{"a":[1]}', json.dumps(NASTY)])
        self.assertLessEqual(result["wide"], 380)
        self.assertEqual(result["title"], "Topics · Realtime console")

    def test_users(self) -> None:
        """A user is found in any case, and their connections are closed with 4501."""
        admin = self.server.login("admin", self.server.admin_password)["access_token"]
        with (
            self.client("a") as first,
            self.client() as second,
            connect(self.server.token_url(admin)),
        ):
            result = self.drive(USERS)
            for socket in (first, second):
                with self.assertRaises(ConnectionClosed) as caught:
                    while True:
                        socket.recv(timeout=10)
                assert caught.exception.rcvd is not None
                self.assertEqual(caught.exception.rcvd.code, 4501)
        self.assertRegex(result["line"], "^alice is user_[0-9a-f]+, with user, subscriber, since")
        self.assertLessEqual(result["wide"], 380)

    def test_trace(self) -> None:
        """A trace says why a message did not arrive, then that it did, and what became of it."""

        def act() -> None:
            with self.client() as socket:
                ready.append(True)
                wait_until((self.folder / "traced").exists, seconds=60)
                self.publish("kept.news", NASTY)
                self.say(socket, "Subscribe", topics=["kept.*"])
                self.publish("kept.news", 2)
                admin = self.server.login("admin", self.server.admin_password)["access_token"]
                self.server.request(
                    "DELETE", "/users/alice/connections", Authorization=f"Bearer {admin}"
                )
                with self.assertRaises(ConnectionClosed):
                    while True:
                        socket.recv(timeout=10)
            with self.client() as socket:
                wait_until((self.folder / "staff").exists, seconds=60)
                self.say(socket, "Subscribe", topics=["staff.room"])

        ready: list[bool] = []
        acting = Thread(target=act)
        acting.start()
        self.addCleanup(acting.join)
        wait_until(lambda: ready)
        result = self.drive(TRACE)
        first = " / ".join(result["first"])
        self.assertIn("published on kept.news #1 reached nobody", first)
        self.assertIn(json.dumps(NASTY), first)
        self.assertIn("alice subscribed to kept.*", first)
        refused = " / ".join(result["second"])
        self.assertIn("The rules do not let alice subscribe: rule 1, staff.>", refused)
        self.assertIn("alice was refused: FORBIDDEN for staff.room", refused)
        self.assertLessEqual(result["wide"], 380)
        self.assertEqual(result["title"], "Trace · Realtime console")

    def test_without_the_role(self) -> None:
        """Who is no admin is told so, logged in or by token, and nothing is kept of them."""
        result = self.drive(REFUSED, token=self.token())
        self.assertEqual(
            result["told"], "alice may not use the console: that needs the role admin."
        )
        self.assertTrue(result["nonsense"])
        self.assertEqual(result["kept"], 0)

    def test_expiry(self) -> None:
        """A spoilt access token is renewed; without a good refresh token there is the login."""
        result = self.drive(EXPIRY)
        self.assertTrue(result["renewed"])
        self.assertEqual(result["told"], "Your session has ended. Log in again.")
        self.assertEqual(result["focused"], "username")
        self.assertEqual(result["kept"], 0)

    def test_keyboard(self) -> None:
        """A connection is found and closed without a mouse, and the focus is always seen."""
        with self.client():
            result = self.drive(KEYBOARD)
        self.assertEqual(result["bare"], [])


class NodesConsoleTests(NodesTestCase):
    """Two nodes on one Redis."""

    skip = no_browser()

    def test_trace_across_nodes(self) -> None:
        """The console of one node shows both, and traces what happens on the other."""
        self.start()
        folder = Path(self.mktemp()).resolve()
        folder.mkdir()

        def act() -> None:
            wait_until((folder / "traced").exists, seconds=60)
            self.rest(0, "POST", "/publish", {"topic": "room.1", "payload": "lost"})
            reader.ask("Subscribe", topics=["room.1"])
            self.rest(0, "POST", "/publish", {"topic": "room.1", "payload": "found"})

        reader = self.client(1, self.bob)
        acting = Thread(target=act)
        acting.start()
        self.addCleanup(acting.join)
        result, logs = drive(
            folder,
            TOOLS + NODES,
            url=f"http://127.0.0.1:{self.servers[0].port}/console",
            password=self.servers[0].admin_password,
            pictures=str(folder),
        )
        self.assertEqual(logs, [])
        said = " / ".join(result["events"])
        self.assertIn("bob has 1 connection on this node", said)
        self.assertIn("published on room.1 #1 was accepted", said)
        self.assertIn("It went to 1 of 1 connection of bob on this node", said)
        self.assertEqual(len(result["nodes"]), 2)
