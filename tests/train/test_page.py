"""The page of a run that trains: what it draws, what it says, and that training neither waits for it nor notices."""

import threading
import urllib.request

import numpy as np
import pytest
import torch
from faces import core_trainer
from plugin.test_resume import BUSY

from lpm.train.page import LiveShown, RunPage
from lpm.viewer.page.camera import camera_at
from lpm.viewer.page.render_thread import RenderRequest, RenderThread


def trainer(tmp_path, tiny, name="run", **options):
    made = core_trainer(tmp_path / name, 40, None, tiny, None, False, **BUSY | options)
    made.settings.viewer.port = 0
    return made


def request(run, **more):
    c2w = run.data.train_cameras.c2w[0].double().numpy() * np.array([1.0, -1.0, -1.0, 1.0])
    return RenderRequest(camera_at(c2w, 0.8, 4 / 3), 32, **more)


def test_training_is_the_same_to_the_bit(tmp_path, tiny):
    """With a page, and somebody who looks at every kind of picture after every step."""
    alone, watched = trainer(tmp_path, tiny, "alone"), None
    alone.train()
    watched = trainer(tmp_path, tiny, "watched")
    page = RunPage(watched)
    assert page.shown.outputs == ("rgb", "depth", "error", "zones", "age")
    pictures = {}

    def look(step):
        for name in page.shown.outputs:
            pictures[name] = page.shown.draw(request(watched, output=name), 32, 24)

    watched.on_step.append(look)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{page.view.port}", timeout=10) as answer:
            assert answer.status == 200
        watched.train()
        assert "Step 40 of 40" in page.about()
        assert len(page.panels.replay.events) > 3
    finally:
        page.stop()
    for name, value in alone.model.gauss_params.items():
        assert torch.equal(value, watched.model.gauss_params[name]), name
    for name, picture in pictures.items():
        assert picture.shape == (24, 32, 3), name
        assert picture.std() > 0, name  # something is in it
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{page.view.port}", timeout=2)


def test_a_strategy_without_error_maps_has_a_page_too(tmp_path, tiny):
    run = trainer(tmp_path, tiny, strategy="mcmc")
    page = RunPage(run)
    try:
        assert page.shown.outputs == ("rgb", "depth")
        assert page.panels is None
        run.train()
    finally:
        page.stop()


def test_the_picture_is_the_models(tmp_path, tiny):
    run = trainer(tmp_path, tiny)
    shown = LiveShown(run, None)
    camera = run.data.camera(run.data.train_cameras, 0, None)
    with torch.no_grad():
        wanted = run.model.eval().draw(camera)["rgb"]
    width, height = run.data.train_cameras.sizes[0].tolist()
    c2w = run.data.train_cameras.c2w[0].double().numpy() * np.array([1.0, -1.0, -1.0, 1.0])
    fov = 2 * np.arctan(height / 2 / float(run.data.train_cameras.intrinsics[0, 1]))
    seen = shown.draw(RenderRequest(camera_at(c2w, fov, width / height)), width, height)
    assert np.abs(seen.astype(float) / 255 - wanted.numpy()).mean() < 0.02  # the principal point is a pixel off
    done = threading.Event()
    thread = threading.Thread(target=lambda: (shown.draw(request(run), 32, 24), done.set()))
    with run.lock:  # a step is being made: the picture waits for it
        thread.start()
        assert not done.wait(0.3)
    assert done.wait(10)
    thread.join()


def test_paused_training_goes_on(tmp_path, tiny):
    run = trainer(tmp_path, tiny)
    run.paused.set()
    thread = threading.Thread(target=run.train)
    thread.start()
    thread.join(0.5)
    assert run.done == 0
    run.paused.clear()
    thread.join(60)
    assert run.done == 40


def test_a_view_at_rest_is_drawn_again():
    drawn, shown = [], threading.Semaphore(0)

    def draw(wanted, width, height, strips, stop):
        drawn.append((width, height))
        return np.zeros((height, width, 3), np.uint8)

    thread = RenderThread(draw, lambda picture, moving: shown.release(), lambda error: None)
    thread.start()
    try:
        thread.again()  # nothing was asked for yet
        thread.ask(RenderRequest(camera_at(np.eye(4)), 64))
        for _ in range(2):  # small while it moves, then in full
            assert shown.acquire(timeout=5)
        for _ in range(200):
            if thread.idle:
                break
            threading.Event().wait(0.01)
        thread.again()
        assert shown.acquire(timeout=5)
        assert drawn[-1] == (64, 48)
    finally:
        thread.end()
        thread.join(5)
