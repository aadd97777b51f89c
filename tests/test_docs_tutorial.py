"""docs/tutorial.rst, step by step, with two browsers."""

from __future__ import annotations

import sys
from threading import Thread
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support.browser import drive, no_browser
from tests.support.player import Player
from tests.support.server import wait_until

# Opens the page for a user, and looks at it.
PRELUDE = """
const visit = async (name, password) => {
  const page = await open();
  await page.goto(input.page);
  await page.fill('[name=username]', name);
  await page.fill('[name=password]', password);
  await page.click('#login button');
  await page.waitForSelector('#say:not([hidden])');
  return page;
};
const alice = () => visit('alice', 'correct horse');
const bob = () => visit('bob', 'battery staple');
const say = async (page, text) => {
  await page.fill('[name=text]', text);
  await page.click('#say button');
};
const lines = (page) => page.locator('#messages li').allTextContents();
const shows = async (page, text) => until(async () => (await lines(page)).join('|') === text);
const here = (page) => page.textContent('#here');
const subscribed = (count) => until(() =>
  frames.filter((frame) => frame.includes('"subscribed"')).length === count);
const touch = (name) => require('fs').writeFileSync(name, '');
const exists = (name) => require('fs').existsSync(name);
"""


class TutorialTests(SynchronousTestCase):
    """Who follows the tutorial has a chat."""

    skip = no_browser()

    def test_tutorial(self) -> None:
        """Each step works, and does what the text says."""
        checks = {
            "talk": self.check_talk,
            "history": self.check_history,
            "presence": self.check_presence,
            "program": self.check_program,
        }
        self.player = Player(self, "docs/tutorial.rst", checks, accounts=False)
        self.assertGreater(self.player.play(), 12)

    def drive(self, script: str) -> Any:
        """Run a script in browsers; answer its result. Nothing may have gone wrong in the pages."""
        page = f"http://localhost:{self.player.web_port}/chat.html"
        key = self.player.shell("echo $KEY").strip()
        result, logs = drive(
            self.player.folder, f"{PRELUDE}{script}", page=page, key=key, python=sys.executable
        )
        # Of a server that is away, and of an icon that is not there, browsers complain themselves.
        usual = ("ERR_CONNECTION", "404 (File not found)")
        self.assertEqual([each for each in logs if not any(word in each for word in usual)], [])
        return result

    def check_talk(self) -> None:
        """Alice and Bob hear each other; a wrong password is told."""
        result = self.drive(
            """
            const [one, two] = [await alice(), await bob()];
            await subscribed(2);
            await say(one, 'Hello');
            await shows(two, 'alice: Hello');
            await say(two, 'Oh, hello');
            await shows(one, 'alice: Hello|bob: Oh, hello');
            const result = frames.length;
            """
        )
        self.assertGreaterEqual(result, 8)

    def check_history(self) -> None:
        """Who comes later sees what was said; after a restart of the server pages are back."""
        restart = Thread(target=self.restart_once)
        restart.start()
        self.drive(
            """
            const one = await alice();
            await shows(one, 'alice: Hello|bob: Oh, hello');
            await subscribed(1);
            await say(one, 'Again');
            await shows(one, 'alice: Hello|bob: Oh, hello|alice: Again');
            touch('before');
            await until(() => exists('after'));
            await shows(one, '');
            await subscribed(3);  // once in vain, and then anew
            await say(one, 'Back');
            await shows(one, 'alice: Back');
            const result = null;
            """
        )
        restart.join(60)

    def restart_once(self) -> None:
        """Restart the server when the browser is ready for it."""
        folder = self.player.root / "chat"
        wait_until(lambda: (folder / "before").exists(), 60)
        self.player.restart()
        (folder / "after").touch()

    def check_presence(self) -> None:
        """Pages show who is there, and who has left."""
        self.drive(
            """
            const one = await alice();
            await until(async () => await here(one) === 'Here: alice');
            const two = await bob();
            await until(async () => await here(one) === 'Here: alice, bob');
            await until(async () => await here(two) === 'Here: alice, bob');
            await two.close();
            await until(async () => await here(one) === 'Here: alice');
            const result = null;
            """
        )

    def check_program(self) -> None:
        """What the program has said is there for who comes later, and comes live."""
        self.drive(
            """
            const one = await alice();
            await shows(one, 'alice: Back|weather: It will rain.');
            await subscribed(1);
            const env = {...process.env, KEY: input.key};
            require('child_process').execFileSync(input.python, ['weather.py'], {env});
            await shows(one, 'alice: Back|weather: It will rain.|weather: It will rain.');
            const result = null;
            """
        )
