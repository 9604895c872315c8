"""Our pages in headless Chromium, for tests marked `viewer`: `from browser import Browser` beside this file.

    with Browser() as browser:
        page = browser.open("http://127.0.0.1:7007")
        page.until("document.querySelector('canvas')")
        page.drag((200, 200), (300, 200))
        picture = page.shoot()          # [H, W, 3] uint8, RGB
        page.click("Play")              # by its text
        assert page.errors() == []

`Browser()` skips the test, with the reason, where Node, puppeteer-core or Chromium is missing. puppeteer-core is
installed once into lpm.formats.splat_transform.node_folder(), and only when LPM_BROWSER=1 or `pytest -m viewer` asks
for this group by name: other test runs never use the network.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from lpm.formats.splat_transform import node_folder

PUPPETEER = "24.43.1"
# What the page of viser 0.2.7 says by itself: a splat geometry without points, Google Analytics without a network.
VISERS_OWN = ("Computed radius is NaN", "googletagmanager.com", "net::ERR_NAME_NOT_RESOLVED")
# Viser 1 says over the picture that Chromium draws without a GPU.
NO_NOTICE = """new MutationObserver(() => {
  for (const note of document.querySelectorAll('.mantine-Notification-root'))
    if (note.innerText.includes('Software WebGL')) note.querySelector('button').click();
}).observe(document.documentElement, {childList: true, subtree: true})"""
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def asked_for() -> bool:
    """Whether this group of tests was named: `-m viewer` on pytest's command line, or LPM_BROWSER=1."""
    marks = [after for before, after in zip(sys.argv, sys.argv[1:], strict=False) if before == "-m"]
    named = any("viewer" in mark and "not viewer" not in mark for mark in marks)
    return named or os.environ.get("LPM_BROWSER") == "1"


def requirements() -> tuple[str, Path]:
    """Chromium, and the folder with puppeteer-core; skips, saying what is missing."""
    if shutil.which("node") is None:
        pytest.skip("no Node on this machine")
    chromium = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if chromium is None:
        pytest.skip("no Chromium on this machine (apt-get install chromium)")
    folder = node_folder()
    if (folder / "node_modules" / "puppeteer-core" / "package.json").is_file():
        return chromium, folder
    if not asked_for():
        pytest.skip(f"puppeteer-core is not in {folder}: `pytest -m viewer` installs it")
    if shutil.which("npm") is None:
        pytest.skip("no npm on this machine")
    folder.mkdir(parents=True, exist_ok=True)
    command = ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--ignore-scripts"]
    done = subprocess.run([*command, f"puppeteer-core@{PUPPETEER}"], capture_output=True, text=True, timeout=600)
    if done.returncode:
        pytest.skip(f"npm install failed: {(done.stderr.strip().splitlines() or ['?'])[-1][:200]}")
    return chromium, folder


class Browser:
    """One Chromium; pages share it, so that two of them are two clients."""

    def __init__(self, seconds: float = 300.0) -> None:
        """`seconds`: after this long Chromium is ended, and whatever waits for it fails."""
        chromium, packages = requirements()
        self.folder = Path(tempfile.mkdtemp(prefix="lpm-browser-"))
        self.downloads = self.folder / "downloads"
        self.downloads.mkdir()
        script = Path(__file__).with_name("page.mjs")
        self._node = subprocess.Popen(
            ["node", str(script), chromium, str(packages), str(self.downloads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._timer = threading.Timer(seconds, self._node.kill)
        self._timer.daemon = True
        self._timer.start()
        self._pages = 0
        self._answer()

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self, url: str, width: int = 640, height: int = 480) -> Page:
        """A new page on `url`, `width` x `height` pixels; returns when it has loaded."""
        self._pages += 1
        page = Page(self, str(self._pages))
        page.say("open", url=url, width=width, height=height)
        page.evaluate(NO_NOTICE)
        return page

    def close(self) -> None:
        """Ends Chromium and removes what it downloaded."""
        self._timer.cancel()
        if self._node.poll() is None and self._node.stdin is not None:
            self._node.stdin.close()
            try:
                self._node.wait(20)
            except subprocess.TimeoutExpired:
                self._node.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def downloaded(self, ending: str, seconds: float = 30.0) -> Path:
        """The newest file with this ending that a page downloaded; waits for it to be whole."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = [path for path in self.downloads.iterdir() if path.suffix == ending]
            if found and not list(self.downloads.glob("*.crdownload")):
                return max(found, key=lambda path: path.stat().st_mtime)
            time.sleep(0.1)
        raise AssertionError(f"no {ending} was downloaded; there: {[p.name for p in self.downloads.iterdir()]}")

    def say(self, do: str, **more: Any) -> Any:
        """One order to page.mjs, and its answer; raises AssertionError if it failed."""
        assert self._node.stdin is not None
        self._node.stdin.write(json.dumps({"do": do, **more}) + "\n")
        self._node.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._node.stdout is not None
        line = self._node.stdout.readline()
        assert line, "Chromium ended"
        answer = json.loads(line)
        assert answer["ok"], answer.get("error")
        return answer.get("value")


class Page:
    """One page of a Browser."""

    def __init__(self, browser: Browser, name: str) -> None:
        self.browser, self.name = browser, name

    def say(self, do: str, **more: Any) -> Any:
        """See Browser.say."""
        return self.browser.say(do, page=self.name, **more)

    def wait(self, seconds: float) -> None:
        """Waits while the page goes on."""
        self.say("wait", seconds=seconds)

    def until(self, script: str, seconds: float = 30.0) -> None:
        """Waits until the JavaScript expression `script` is true in the page."""
        self.say("until", script=script, seconds=seconds)

    def evaluate(self, script: str) -> Any:
        """The value of the JavaScript expression `script` in the page."""
        return self.say("evaluate", script=script)

    def text(self) -> str:
        """All text that is shown."""
        return self.evaluate("document.body.innerText")

    def click(self, text: str) -> None:
        """Clicks the button, tab or label that reads `text`; waits for it."""
        self.say("click", text=text)

    def upload(self, text: str, file: Path) -> None:
        """Clicks the upload button that reads `text` and gives it `file`."""
        self.say("upload", text=text, file=str(file))

    def drag(
        self,
        start: tuple[float, float],
        end: tuple[float, float],
        seconds: float = 0.5,
        steps: int = 10,
        button: str = "left",
    ) -> None:
        """Drags the mouse from `start` to `end` (pixels from the upper left)."""
        self.say("drag", start=start, end=end, seconds=seconds, steps=steps, button=button)

    def shoot(self, keep: Path | None = None) -> np.ndarray:
        """What the page looks like: [H, W, 3] uint8, RGB; also written to `keep`, a .png, if given."""
        out = keep or self.browser.folder / "shot.png"
        self.say("shoot", out=str(out))
        return cv2.imread(str(out))[..., ::-1].copy()

    def still(self, seconds: float = 20.0, same: int = 3) -> np.ndarray:
        """As `shoot`, once the page has not changed for `same` pictures in a row, or after `seconds`."""
        end, last, count = time.monotonic() + seconds, self.shoot(), 1
        while time.monotonic() < end and count < same:
            self.wait(0.2)
            now = self.shoot()
            count = count + 1 if np.array_equal(now, last) else 1
            last = now
        return last

    def front(self) -> None:
        """Brings the page before the others; Chromium draws no page that is behind."""
        self.say("front")

    def errors(self) -> list[str]:
        """Errors on the console, uncaught ones, and requests that failed, so far, without VISERS_OWN."""
        return [error for error in self.say("errors") if not any(known in error for known in VISERS_OWN)]

    def close(self) -> None:
        """Closes the page, as somebody closes a tab."""
        self.say("close")
