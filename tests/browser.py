"""A headless Chromium without network, driven over a pipe by its own protocol (CDP): no driver, port or package.

It notes what a page prints to the console and what it asks for, so that a test can see that there was nothing.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-extensions", "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND", "--remote-debugging-pipe",
)  # fmt: skip
MISSING = "no Chromium on this machine: `make browser` installs one, or name it with CHROMIUM=/path/to/chrome"
PATIENCE = 60.0  # seconds for an answer; a page takes well below one


class BrowserError(Exception):
    """There is no browser, or it does not answer."""


def find_browser() -> str:
    """Path of a Chromium.

    Raises:
        BrowserError: There is none.
    """
    found = next(filter(None, map(shutil.which, [os.environ.get("CHROMIUM", ""), *NAMES])), None)
    if not found:
        raise BrowserError(MISSING)
    return found


@dataclass
class Page:
    """An open page.

    Args:
        messages: What it printed to the console, exceptions and refusals included.
        requests: What it asked for, itself and pictures inside it excepted.
    """

    browser: Browser
    session: str
    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.browser.call(
            "Runtime.evaluate", self.session, expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise BrowserError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def screenshot(self, path: Path, height: int | None = None) -> None:
        """The whole page, or its upper part, as PNG."""
        size = self.browser.call("Page.getLayoutMetrics", self.session)["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": height or size["height"], "scale": 1}
        answer = self.browser.call("Page.captureScreenshot", self.session, clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))


class Browser:
    """A running Chromium; a context manager."""

    def __init__(self) -> None:
        self.profile = tempfile.mkdtemp(prefix="chromium-")
        ours, theirs = os.pipe(), os.pipe()
        link = f'exec "$@" 3<&{ours[0]} 4>&{theirs[1]}'  # the protocol's two ends are fixed: it reads 3 and writes 4
        command = ["bash", "-c", link, "bash", find_browser(), *FLAGS, f"--user-data-dir={self.profile}", "about:blank"]
        self.process = subprocess.Popen(
            command, pass_fds=(ours[0], theirs[1]), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(ours[0])
        os.close(theirs[1])
        self.to, self.back = ours[1], theirs[0]
        self.pending, self.number = b"", 0
        self.pages: dict[str, Page] = {}
        self.loaded: set[str] = set()

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.to)
        os.close(self.back)
        shutil.rmtree(self.profile, ignore_errors=True)

    def open(self, path: Path, width: int = 1200, height: int = 900, dark: bool = False, media: str = "screen") -> Page:
        """Load a file in a window of this size and wait for all of it."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self.pages[session] = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable", session)
        self.call(
            "Network.emulateNetworkConditions",
            session,
            offline=True,
            latency=0,
            downloadThroughput=0,
            uploadThroughput=0,
        )
        self.call(
            "Emulation.setDeviceMetricsOverride", session, width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", session, media=media, features=[scheme])
        self.loaded.discard(session)
        self.call("Page.navigate", session, url=path.resolve().as_uri())
        deadline = time.monotonic() + PATIENCE
        while session not in self.loaded:
            self._note(self._read(deadline))
        page.run(
            "document.fonts.ready.then(() => Promise.all([...document.images].map(i => i.decode().catch(() => 0))))"
        )
        return page

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Ask, and wait for the answer; what happens in between is noted."""
        self.number += 1
        question: dict[str, Any] = {"id": self.number, "method": method, "params": parameters}
        if session is not None:
            question["sessionId"] = session
        try:
            os.write(self.to, json.dumps(question).encode() + b"\0")
        except BrokenPipeError:
            raise BrowserError(f"{method}: the browser has ended") from None
        deadline = time.monotonic() + PATIENCE
        while True:
            message = self._read(deadline)
            if message.get("id") == self.number:
                if "error" in message:
                    raise BrowserError(f"{method}: {message['error']}")
                return message["result"]
            self._note(message)

    def _read(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self.pending:
            ready, _, _ = select.select([self.back], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(self.back, 1 << 20) if ready else b""
            if not chunk:
                raise BrowserError(f"the browser {'has ended' if ready else f'says nothing for {PATIENCE:g} s'}")
            self.pending += chunk
        raw, _, self.pending = self.pending.partition(b"\0")
        return json.loads(raw)

    def _note(self, message: dict[str, Any]) -> None:
        page, what = self.pages.get(message.get("sessionId", "")), message.get("params", {})
        if page is None:
            return
        match message.get("method"):
            case "Page.loadEventFired":
                self.loaded.add(page.session)
            case "Log.entryAdded":
                page.messages.append(f"{what['entry']['level']}: {what['entry']['text']}")
            case "Runtime.consoleAPICalled":
                page.messages.append(f"{what['type']}: {[a.get('value') for a in what['args']]}")
            case "Runtime.exceptionThrown":
                page.messages.append(f"exception: {what['exceptionDetails'].get('text')}")
            case "Network.requestWillBeSent":
                url = what["request"]["url"]
                if what["type"] != "Document" and not url.startswith("data:"):
                    page.requests.append(url)
