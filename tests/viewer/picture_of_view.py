"""Makes docs/images/lpm_view.jpg: `python tests/viewer/picture_of_view.py RUN [OUT]`; RUN: a run's folder, on fox."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from browser import Browser
from PIL import Image

from lpm.formats.read import load
from lpm.runs.folder import run_folder
from lpm.viewer.page.photos import read_photos
from lpm.viewer.page.server import View

OUT = Path(__file__).resolve().parents[2] / "docs" / "images" / "lpm_view.jpg"


def main() -> None:
    loaded = load(Path(sys.argv[1]))
    photos, note = read_photos(run_folder(loaded.path), loaded.world_to_train)
    with View(loaded, port=0, photos=photos, photo_note=note) as view, Browser() as browser:
        page = browser.open(f"http://127.0.0.1:{view.port}", 1200, 800)
        page.until("document.body.innerText.includes('Gaussians')")
        page.wait(3)
        [view_page] = view.pages.values()
        for i in (0, 6, 12):
            view_page.jump(i)
            page.wait(1)
            page.click("Add keyframe")
        view_page.jump(0)
        page.drag((300, 400), (312, 388), seconds=0.5)
        time.sleep(2)
        Image.fromarray(np.ascontiguousarray(page.still())).save(
            Path(sys.argv[2]) if len(sys.argv) > 2 else OUT, quality=85
        )
        print(page.errors())


if __name__ == "__main__":
    main()
