"""Makes docs/images/replay.jpg: `python tests/viewer/picture_of_replay.py RUN [OUT]`; RUN: a run's folder, on fox."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from browser import Browser
from PIL import Image

from lpm.viewer.replay.data import load
from lpm.viewer.replay.html import write_html

OUT = Path(__file__).resolve().parents[2] / "docs" / "images" / "replay.jpg"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, Browser() as browser:
        file = Path(folder) / "replay.html"
        write_html(file, load(Path(sys.argv[1])))
        page = browser.open(file.as_uri(), 1300, 800)
        page.until("window.ready")
        page.evaluate("(e => (e.value = 3, e.dispatchEvent(new Event('input'))))(document.getElementById('event'))")
        page.wait(3)
        Image.fromarray(page.still()).save(Path(sys.argv[2]) if len(sys.argv) > 2 else OUT, quality=85)
        print(page.errors())


if __name__ == "__main__":
    main()
