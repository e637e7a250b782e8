"""Headless Chromium, driven over its own protocol: what a person would see and click.

The rule of this file: it waits for what is on the page, never for a time.
"""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
import json
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
from PIL import Image

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SIZE = (1440, 900)
PATIENCE = 180.0
"""Seconds: a page of MLflow's takes many of them on a busy machine."""
SMALLEST = """
(text, exact) => {
  const shows = e => exact ? e.innerText?.trim() === text : e.innerText?.includes(text);
  const size = e => 1000 * e.innerText.length + e.querySelectorAll("*").length;
  return [...document.querySelectorAll("a,button,label,span,div,td,th,p,code")]
    .filter(e => e.getClientRects().length && shows(e))
    .sort((a, b) => size(a) - size(b))[0];
}
"""
"""JavaScript: the smallest element that shows a text."""


class Browser:
    """A page in a headless Chromium of its own; a context manager.

    Args:
        flags: more of Chromium's.
    """

    def __init__(self, *flags: str) -> None:
        self._flags = flags
        self._folder = tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True)
        self._loop = asyncio.new_event_loop()
        self._numbers = itertools.count(1)

    def __enter__(self) -> Browser:
        self._process = subprocess.Popen(
            [
                str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu",
                "--disable-dev-shm-usage", "--remote-debugging-port=0",
                f"--window-size={SIZE[0]},{SIZE[1]}", f"--user-data-dir={self._folder.name}",
                *self._flags,
            ],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )  # fmt: skip
        self._loop.run_until_complete(self._attach(self._address()))
        for domain in ("Page", "Runtime"):
            self._call(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run_until_complete(self._session.close())
        self._process.terminate()
        self._process.wait(30)
        self._loop.close()
        self._folder.cleanup()

    def _address(self) -> str:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if found := re.search(r"ws://([^/]+)/", line):
                return found[1]
        raise AssertionError("Chromium ended before it listened")

    async def _attach(self, address: str) -> None:
        self._session = aiohttp.ClientSession()
        async with self._session.put(f"http://{address}/json/new?about:blank") as answer:
            page = await answer.json(content_type=None)
        where = page["webSocketDebuggerUrl"]
        self._socket = await self._session.ws_connect(where, max_msg_size=0)

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        return self._loop.run_until_complete(self._answer(next(self._numbers), method, params))

    async def _answer(self, number: int, method: str, params: dict[str, Any]) -> dict[str, Any]:
        await self._socket.send_json({"id": number, "method": method, "params": params})
        while True:
            said = json.loads((await self._socket.receive(PATIENCE)).data)
            if said.get("id") == number:
                assert "error" not in said, said
                return said["result"]

    def open(self, url: str) -> None:
        """Go to an address, as if it had been typed."""
        self._call("Page.navigate", url="about:blank")
        self._call("Page.navigate", url=url)

    def look(self, script: str) -> Any:
        """The value of an expression of JavaScript; None where it fails."""
        found = self._call("Runtime.evaluate", expression=script, returnByValue=True)
        return None if "exceptionDetails" in found else found["result"].get("value")

    @property
    def text(self) -> str:
        """All that the page shows."""
        return self.look("document.body.innerText") or ""

    @property
    def url(self) -> str:
        return self.look("location.href") or ""

    def wait(self, *texts: str) -> str:
        """Wait until the page shows all of some texts; what it shows then."""
        return self.until(lambda: all(text in self.text for text in texts), texts) and self.text

    def until(self, holds: Any, what: Any = "") -> bool:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < deadline, f"no {what} on {self.url}:\n{self.text}"
            time.sleep(0.3)
        return True

    def click(self, text: str, *, exact: bool = False) -> None:
        """Click the smallest element that shows a text, once there is one; a link that opens in
        another tab opens in this one."""
        find = f"({SMALLEST})({json.dumps(text)}, {json.dumps(exact)})"
        self.until(lambda: self.look(f"Boolean({find})"), f"{text!r} to click")
        here = "e.closest('a')?.removeAttribute('target')"
        self.look(f"(e => {{ {here}; e.click(); }})({find})")

    def choose(self, field: str, file: Path) -> None:
        """Choose a file in the field that a CSS selector finds."""
        root = self._call("DOM.getDocument")["root"]["nodeId"]
        node = self._call("DOM.querySelector", nodeId=root, selector=field)["nodeId"]
        self._call("DOM.setFileInputFiles", files=[str(file)], nodeId=node)

    def select_all(self) -> None:
        """Tick the box that selects all rows of a table."""
        box = "document.querySelector('[data-test-id=select-all], .ag-header-select-all input')"
        self.until(lambda: self.look(f"Boolean({box})"), "a box that selects all rows")
        self.look(f"{box}.click()")

    def without_assistant(self) -> None:
        """Close the panel of MLflow's assistant, where it is open."""
        close = "[data-component-id*=assistant][data-component-id*=close]"
        self.look(f"document.querySelector('{close}')?.click()")

    def picture(self, file: Path, height: int = SIZE[1]) -> None:
        """What the page shows, as a PNG of few colours; the upper part of it."""
        data = self._call("Page.captureScreenshot", format="png")["data"]
        image = Image.open(io.BytesIO(base64.b64decode(data)))
        image = image.crop((0, 0, image.width, min(height, image.height)))
        image.quantize(64).save(file, optimize=True)
