"""The page of `lpm-train` in headless Chromium, with the viser that is installed: connects, shows, asks, comes back."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from browser import Browser
from PIL import Image

from lpm.scenes.read import read_scene
from lpm.scenes.samples.make import make
from lpm.train.page import RunPage
from lpm.train.run_settings import RunSettings
from lpm.train.trainer import Trainer

pytestmark = [pytest.mark.viewer, pytest.mark.timeout(900)]

BUTTON = "[...document.querySelectorAll('button')].find(e => e.innerText === 'Pause training')"
PAUSE = BUTTON + ".getBoundingClientRect().top"


def test_the_page_of_a_run(tmp_path):
    scene = make("room", tmp_path / "room", 12, (160, 120), 0)
    settings = RunSettings(scene=scene, steps=100_000, max_points=6000, measure_every=100, device="cpu")
    settings.viewer.port = 0
    trainer = Trainer(settings, tmp_path / "run")
    trainer.setup(read_scene(scene))
    run_page = RunPage(trainer)
    stop = threading.Event()
    trainer.on_step.append(lambda step: stop.is_set() and (_ for _ in ()).throw(KeyboardInterrupt))

    def train():
        with contextlib.suppress(KeyboardInterrupt):
            trainer.train()

    thread = threading.Thread(target=train)
    thread.start()
    try:
        with Browser() as browser:
            address = f"http://127.0.0.1:{run_page.view.port}"
            page = browser.open(address, 1200, 800)
            page.until("document.body.innerText.includes('Pause training')", seconds=60)
            place = page.evaluate(PAUSE)
            page.until("document.body.innerText.includes('Held-out PSNR')", seconds=120)
            assert page.evaluate(PAUSE) == place, "what is told of the run moves the button from under the pointer"
            for _ in range(20):
                page.wait(2)
                picture = page.shoot()
                if picture[100:700, 100:700].astype(float).std() > 10:
                    break  # the room is in it
            Image.fromarray(np.ascontiguousarray(picture)).save(tmp_path / "page.png")
            print("picture:", tmp_path / "page.png")
            assert picture[100:700, 100:700].astype(float).std() > 10, "a blank page"
            page.click("Pause training")
            for _ in range(100):
                if trainer.paused.is_set():
                    break
                time.sleep(0.1)
            assert trainer.paused.is_set()
            page.click("Go on")
            page.wait(1)
            assert not trainer.paused.is_set()
            page.close()
            again = browser.open(address, 1200, 800)  # a page that was closed and opened again
            again.until("document.body.innerText.includes('Pause training')", seconds=60)
            assert again.errors() == []
    finally:
        stop.set()
        trainer.paused.clear()
        thread.join(60)
        run_page.stop()
    assert Path(trainer.folder / "config.toml").is_file()
