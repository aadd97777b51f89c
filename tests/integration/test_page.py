"""The page at `/`: two browsers chat."""

from __future__ import annotations

import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support.browser import drive, no_browser
from tests.support.server import Server, wait_until

ENTER = """
  const enter = async (name, password, width) => {
    const page = await open({viewport: {width, height: 800}});
    await page.goto(input.url);
    await page.fill('#username', name);
    await page.fill('#password', password);
    await page.press('#password', 'Enter');
    await page.waitForSelector('#chat:not([hidden])');
    await page.waitForSelector('text=Subscribed to chat.general');
    return page;
  };
  const say = async (page, text) => {
    await page.fill('#text', text);
    await page.press('#text', 'Enter');
  };
"""

CHAT = """
  const desk = await enter('admin', input.admin, 1280);
  const phone = await enter('alice', input.alice, 380);
  await say(desk, 'Hello, <b>phone</b>');
  await phone.waitForSelector('text=Hello, <b>phone</b>');
  await say(phone, 'Hello, desk');
  await desk.waitForSelector('text=Hello, desk');
  await desk.waitForSelector('text=2 connections');
  await desk.selectOption('#kind', 'user');
  await desk.fill('#target', 'alice');
  await say(desk, 'between us');
  await phone.waitForSelector('#messages >> text=between us');
  await desk.screenshot({path: input.pictures + '/desk.png'});
  await phone.screenshot({path: input.pictures + '/phone.png'});
  const wide = await phone.evaluate(() => document.documentElement.scrollWidth);
  await phone.click('#logout');
  await phone.waitForSelector('#login:not([hidden])');
  await desk.waitForSelector('text=1 connection ');
  const wrong = await open();
  await wrong.goto(input.url);
  await wrong.fill('#username', 'alice');
  await wrong.fill('#password', 'not this one');
  await wrong.press('#password', 'Enter');
  await wrong.waitForSelector('#notice:not([hidden])');
  const result = {wide, notice: await wrong.textContent('#notice')};
"""

RESTART = """
  const desk = await enter('admin', input.admin, 1280);
  require('fs').writeFileSync('restart', '');
  await desk.waitForSelector('text=Connecting again');
  const notice = await desk.textContent('#notice');
  await desk.waitForSelector('text=Connected as admin');
  await until(() => frames.filter((frame) => frame.includes('"subscribed"')).length === 2);
  await say(desk, 'Back again');
  await desk.waitForSelector('#messages >> text=Back again');
  const result = {notice, after: await desk.isHidden('#notice')};
"""


class PageTests(SynchronousTestCase):
    """The newcomer's proof that the server works."""

    skip = no_browser()

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).resolve()
        self.folder.mkdir()
        state = tempfile.mkdtemp(prefix="realtime-test-")
        self.addCleanup(shutil.rmtree, state)
        self.server = Server(state=state).start()
        self.addCleanup(lambda: self.server.stop())
        self.admin = self.server.admin_password

    def drive(self, script: str, **input: str) -> tuple[Any, list[str]]:
        """Run a script that can `enter` and `say`."""
        url = f"http://localhost:{self.server.port}/"
        return drive(self.folder, ENTER + script, url=url, admin=self.admin, **input)

    def test_two_browsers_chat(self) -> None:
        """Two people log in, chat on a topic and directly, and one logs out."""
        self.server.add_user("alice")
        result, logs = self.drive(CHAT, alice="correct horse battery", pictures=str(self.folder))
        self.assertLessEqual(result["wide"], 380)
        self.assertIn("password", result["notice"].lower())
        # The one thing a console may tell is the refused login.
        self.assertEqual([line for line in logs if "401" not in line], [])
        for name in ("desk.png", "phone.png"):
            self.assertGreater((self.folder / name).stat().st_size, 5000)

    def test_comes_back_after_a_restart(self) -> None:
        """The page tells of a restart, comes back by itself and takes up its topics."""

        def restart() -> None:
            wait_until((self.folder / "restart").exists, seconds=60)
            state, port = self.server.state, self.server.port
            self.server.stop()
            self.server = Server(state=state, port=port).start()

        with ThreadPoolExecutor(1) as pool:
            restarted = pool.submit(restart)
            result, _ = self.drive(RESTART)
            restarted.result()
        self.assertIn("restarting", result["notice"])
        self.assertTrue(result["after"])
