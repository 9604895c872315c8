"""The viewer of a run that trains, in headless Chromium: what a person sees, and that looking changes nothing."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import Browser, Page

from lpm.records import read
from lpm.runs import checkpoint
from lpm.scenes.samples import make
from lpm.viewer.replay import recording

pytestmark = pytest.mark.viewer
SHOTS = os.environ.get("LPM_SCREENSHOTS")
"""Folder for the screenshots of the documentation; unset: they are looked at and forgotten."""
SCENE = (0, 110, 960, 640)
"""x0, y0, x1, y1 of the page that the scene fills, of 1280 x 800."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "room"
    make.make("room", folder, views=12)
    return folder


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Training:
    """ns-train in a process of its own."""

    def __init__(self, scene: Path, out: Path, steps: int, port: int | None) -> None:
        self.log = out.parent / f"{out.name}.log"
        options = {
            "data": scene, "output-dir": out, "timestamp": 0, "max-num-iterations": steps, "steps-per-eval-image": 100,
            "viewer.quit-on-train-completion": True, "machine.device-type": "cpu",
            "pipeline.datamanager.camera-res-scale-factor": 0.5, "pipeline.model.warmup-length": 50,
            "pipeline.model.refine-every": 50, "vis": "viewer" if port else "tensorboard",
        } | ({"viewer.websocket-port": port} if port else {})  # fmt: skip
        told = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        command = [str(Path(sys.executable).with_name("ns-train")), "lpm-splat", *told]
        self.out, self.port = out, port
        with self.log.open("w") as log:
            # A shell's background job ignores Ctrl-C, and so would its children.
            heed = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, preexec_fn=heed)

    @property
    def folder(self) -> Path:
        return next(self.out.glob("*/lpm-splat/0"))

    def events(self) -> int:
        files = list(self.out.glob("*/lpm-splat/0/edits.jsonl"))
        return len(read(files[0])) if files else 0

    def until(self, condition, seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.log.read_text()[-2000:]
            assert time.monotonic() < end, self.log.read_text()[-2000:]
            time.sleep(0.1)

    def listening(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def end(self) -> int:
        return self.process.wait(600)


@pytest.fixture
def training(scene, tmp_path):
    """A run that is long enough to be looked at; ended with the test."""
    run = Training(scene, tmp_path / "out", 20_000, free_port())
    yield run
    if run.process.poll() is None:
        run.process.kill()
        run.process.wait()


def get(port: int, path: str) -> str:
    """What a server says to GET `path`, which no client library has put in order."""
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        connection.settimeout(3)
        said = b""
        with contextlib.suppress(TimeoutError):
            while more := connection.recv(65536):
                said += more
    return said.decode(errors="replace")


def keep(name: str) -> Path | None:
    return Path(SHOTS) / name if SHOTS else None


def part(picture: np.ndarray) -> np.ndarray:
    x0, y0, x1, y1 = SCENE
    return picture[y0:y1, x0:x1].astype(int)


def something(picture: np.ndarray) -> bool:
    """Whether the scene is not of one colour."""
    return bool(part(picture).std() > 10)


def until_drawn(page: Page, condition: Callable[[np.ndarray], bool] = something, seconds: float = 30) -> np.ndarray:
    """Waits for a picture of which `condition` holds, and returns it."""
    end = time.monotonic() + seconds
    while not condition(picture := page.shoot()):
        assert time.monotonic() < end, f"no such picture in {seconds} s"
        page.wait(0.5)
    return picture


def near(picture: np.ndarray, color: tuple[int, int, int], within: int = 60) -> int:
    """Pixels of the scene that are nearly `color`."""
    return int((np.abs(part(picture) - color).max(-1) < within).sum())


def test_a_person_looks_at_a_run(training):
    """Connect, see the picture change, open every panel, ask for something, leave and come back, be two; then stop."""
    training.until(training.listening)
    with Browser(600) as browser:
        page = browser.open(f"http://127.0.0.1:{training.port}", 1280, 800)
        page.until("document.body.innerText.includes('Pause Training')")
        training.until(lambda: training.events() >= 1)
        first = until_drawn(page)
        training.until(lambda: training.events() >= 6)
        # It has trained on. A picture is due when training has had TRAIN_SHARE of the time since the last one.
        until_drawn(page, lambda picture: np.abs(part(picture) - part(first)).mean() > 1)
        page.shoot(keep("viewer_zones.png"))

        text = page.text()
        assert re.search(r"Step: [1-9]", text)
        assert re.search(r"\d+ zones in the last event", text)
        assert all(kind in text for kind in ("false-front", "missing", "under-resolved", "no-evidence"))

        page.click("Error")
        page.until("/view\\s+error/.test(document.body.innerText)")
        page.click("Colour cameras by error")
        page.click("Look from there")
        page.wait(4)
        page.shoot(keep("viewer_error.png"))

        page.click("Points")
        page.click("Show edits")
        page.wait(4)
        dots = page.shoot(keep("viewer_points.png"))
        assert near(dots, (30, 190, 70)) > 20  # green: points that were added
        page.click("Show plots")
        page.until("document.querySelectorAll('.js-plotly-plot .trace').length > 2", 60)
        page.shoot(keep("viewer_plots.png"))
        page.click("Apply")
        page.until("document.body.innerText.includes('Counts from the next event on.')")

        for path in ("/../../../../../../../../etc/passwd", "/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd"):
            assert "root:" not in get(training.port, path)
        assert "<html" in get(training.port, "/")

        page.click("Time")
        page.until("document.body.innerText.includes('stands still')")

        page.click("Pause Training")
        page.wait(3)
        paused = training.events()
        page.wait(4)
        assert training.events() == paused
        page.click("Resume Training")
        training.until(lambda: training.events() > paused)

        other = browser.open(f"http://127.0.0.1:{training.port}", 900, 700)  # two at once
        other.until("document.body.innerText.includes('Pause Training')")
        until_drawn(other)
        assert page.errors() == other.errors() == []
        other.close()
        page.close()
        before = training.events()
        training.until(lambda: training.events() > before)  # it goes on without anybody
        back = browser.open(f"http://127.0.0.1:{training.port}", 1280, 800)
        back.until("document.body.innerText.includes('Pause Training')")
        back.front()
        until_drawn(back)
        assert back.errors() == []
        training.process.send_signal(signal.SIGINT)
        training.process.wait(30)
        assert not training.listening()  # the port is free
    snapshots = recording.read(training.folder / recording.FOLDER)
    assert len(snapshots) >= 6
    assert any(snapshot.means is not None for snapshot in snapshots)
    assert any(snapshot.psnr is not None for snapshot in snapshots)


@pytest.mark.parametrize("name", ["error", "zones", "age"])
def test_pictures_of_the_dropdown(training, name):
    """Each can be chosen, and looks unlike rgb and not empty."""
    training.until(training.listening)
    with Browser(300) as browser:
        page = browser.open(f"http://127.0.0.1:{training.port}", 1280, 800)
        training.until(lambda: training.events() >= 4)
        page.wait(3)
        rgb = page.shoot()
        page.evaluate("[...document.querySelectorAll('input')].find(e => e.value === 'rgb').click()")
        page.wait(1)
        page.click(name)
        page.wait(5)
        picture = page.shoot(keep(f"viewer_output_{name}.png"))
        assert np.abs(part(picture) - part(rgb)).mean() > 3
        assert part(picture).std() > 4
        assert page.errors() == []


def parameters(training: Training) -> dict[str, torch.Tensor]:
    newest = max(training.folder.glob("nerfstudio_models/*.ckpt"))
    saved = checkpoint.load(newest)["pipeline"]
    return {name: value for name, value in saved.items() if "gauss_params" in name}


@pytest.mark.parametrize(
    ("steps", "visits"), [(400, 4), pytest.param(3000, 50, marks=pytest.mark.slow)], ids=["short", "long"]
)
def test_looking_changes_nothing(scene, tmp_path, steps, visits):
    """Clients that come, look at our pictures, and go: the same parameters to the bit as without any."""
    alone = Training(scene, tmp_path / "alone", steps, None)
    assert alone.end() == 0, alone.log.read_text()[-2000:]
    watched = Training(scene, tmp_path / "watched", steps, free_port())
    watched.until(watched.listening)
    came = 0
    with Browser(900) as browser:
        while came < visits and watched.process.poll() is None:
            page = browser.open(f"http://127.0.0.1:{watched.port}", 640, 480)
            page.wait(0.5)
            page.drag((200, 200), (260, 220), seconds=0.2)
            came += 1
            page.close()
        assert watched.end() == 0, watched.log.read_text()[-2000:]
    assert came == visits
    ours, theirs = parameters(alone), parameters(watched)
    assert ours.keys() == theirs.keys()
    assert len(ours) == 6
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name
