"""The page at `/`: two browsers chat."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.browser import drive, no_browser
from tests.support.server import Server

CHAT = """
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
  const desk = await enter('admin', input.admin, 1280);
  const phone = await enter('alice', input.alice, 380);
  const say = async (page, text) => {
    await page.fill('#text', text);
    await page.press('#text', 'Enter');
  };
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


class PageTests(SynchronousTestCase):
    """The newcomer's proof that the server works."""

    skip = no_browser()

    def test_two_browsers_chat(self) -> None:
        """Two people log in, chat on a topic and directly, and one logs out."""
        folder = Path(self.mktemp()).resolve()
        folder.mkdir()
        server = Server().start()
        self.addCleanup(server.stop)
        server.add_user("alice")
        result, logs = drive(
            folder,
            CHAT,
            url=f"http://localhost:{server.port}/",
            admin=server.admin_password,
            alice="correct horse battery",
            pictures=str(folder),
        )
        self.assertLessEqual(result["wide"], 380)
        self.assertIn("password", result["notice"].lower())
        # The one thing a console may tell is the refused login.
        self.assertEqual([line for line in logs if "401" not in line], [])
        for name in ("desk.png", "phone.png"):
            self.assertGreater((folder / name).stat().st_size, 5000)
