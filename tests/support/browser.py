"""Headless Chromium, driven by Playwright from a script of the test's own."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from tests.support.reference import chromium, no_node, node_modules
from tests.support.server import environment

_PRELUDE = """
const { chromium } = require('playwright-core');
const input = JSON.parse(process.argv[2]);
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
(async () => {
  const browser = await chromium.launch({
    executablePath: input.chromium,
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
           '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  });
  const logs = [];
  const frames = [];
  const open = async (options = {}) => {
    const page = await (await browser.newContext(options)).newPage();
    page.setDefaultTimeout(60000);
    page.on('console', (message) => logs.push(message.text()));
    page.on('websocket', (socket) => {
      socket.on('framereceived', ({payload}) => frames.push(String(payload)));
    });
    page.on('pageerror', (error) => logs.push('uncaught: ' + error));
    return page;
  };
  const until = async (test) => {
    for (const end = Date.now() + 60000; !(await test());) {
      if (Date.now() > end) throw new Error('waited in vain for ' + test + '; ' + logs.join('; '));
      await wait(20);
    }
  };
"""
_EPILOGUE = """
  await browser.close();
  console.log('RESULT' + JSON.stringify({result, logs}));
})().catch((error) => { console.error(error); process.exit(1); });
"""


def no_browser() -> str | None:
    """Why no browser can be driven, or None."""
    if chromium() is None:
        return "there is no Chromium"
    return no_node("playwright-core")


def drive(folder: Path, script: str, **input: Any) -> tuple[Any, list[str]]:
    """Run a script that sets `result`; answer it and what the pages' consoles said.

    The script has `open(options)` for a page of its own context, `until(test)`, `wait(ms)`,
    `input`, and in `frames` and `logs` what WebSockets received and consoles said.
    """
    (folder / "drive.js").write_text(f"{_PRELUDE}{script}{_EPILOGUE}", encoding="utf-8")
    done = subprocess.run(
        ["node", "drive.js", json.dumps(input | {"chromium": chromium()})],
        cwd=folder,
        env=environment(NODE_PATH=node_modules()),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = re.findall(r"^RESULT(.*)$", done.stdout, flags=re.M)
    outcome = json.loads(line)
    return outcome["result"], outcome["logs"]
