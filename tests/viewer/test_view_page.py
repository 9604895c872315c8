"""lpm-view in headless Chromium (`pytest -m viewer`)."""

import json
import socket
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from balls import balls
from browser import Browser

from lpm.formats.read import Loaded
from lpm.formats.splatv import TIME_SHAPES
from lpm.viewer.page.photos import Photo
from lpm.viewer.page.server import View

pytestmark = pytest.mark.viewer
CANVAS = "document.querySelector('canvas')"
UP = torch.tensor([0.0, 0.0, 1.0])
WIDE, HIGH = 900, 600


@pytest.fixture
def browser():
    with Browser() as opened:
        yield opened


@pytest.fixture
def page_of(tmp_path):
    """page_of(params, ...): a started View, stopped afterwards."""
    views = []

    def start(params=None, **more):
        views.append(View(balls() if params is None else params, port=0, up=UP, out=tmp_path, **more).start())
        return views[-1]

    yield start
    for view in views:
        view.stop()


def opened(browser, view, size=(WIDE, HIGH)):
    page = browser.open(f"http://127.0.0.1:{view.port}", *size)
    page.until(CANVAS)
    page.until("document.body.innerText.includes('Gaussians')")
    until(lambda: view.pages and all(at_rest(view_page) for view_page in view.pages.values()))
    page.wait(0.5)
    return page


def at_rest(view_page):
    """Whether the newest view is drawn in full, and the page has nothing more to say."""
    drawn, idle = view_page.render_thread.drawn, view_page.render_thread.idle
    time.sleep(0.5)
    return idle and view_page.render_thread.idle and drawn == view_page.render_thread.drawn


def until(done, seconds=30.0):
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.05)


def likeness(page, view, view_page):
    """PSNR of the page's canvas against our own picture of where it looks, dB, and the canvas [H, W, 3]."""
    left, top, width, height = page.evaluate(
        "[...document.querySelectorAll('canvas')].map(c => c.getBoundingClientRect())"
        ".map(r => [r.x, r.y, r.width, r.height].map(Math.round)).sort((a, b) => a[2] - b[2])[0]"
    )  # the smallest: viser lays another one over the whole page
    ours = view.shown.draw(view_page.request(), width, height).astype(float)
    theirs = page.still()[top : top + height, left : left + width].astype(float)
    mse = np.square((ours - theirs) / 255).mean()
    return -10 * np.log10(mse + 1e-12), theirs


def centre_of(picture, channel):
    """Where (x) the pixels are that have one colour alone, and how many there are."""
    others = [c for c in range(3) if c != channel]
    found = (picture[..., channel] > 150) & (picture[..., others].max(-1) < 90)
    return float(np.nonzero(found)[1].mean()) if found.any() else float("nan"), int(found.sum())


def test_the_page_shows_what_we_draw_and_follows_the_mouse(browser, page_of):
    view = page_of()
    page = opened(browser, view)
    [view_page] = view.pages.values()
    view_page.go(*view.frame_camera(WIDE / HIGH))
    until(lambda: at_rest(view_page))
    psnr, first = likeness(page, view, view_page)
    print(f"{psnr:.1f} dB")
    assert psnr > 30
    (red, many), (green, too) = centre_of(first, 0), centre_of(first, 1)
    assert min(many, too) > 200
    assert red + 50 < green
    drawn = view_page.render_thread.drawn
    page.drag((200, 300), (330, 260), seconds=1.0, steps=25)
    moving = view_page.render_thread.drawn - drawn
    until(lambda: at_rest(view_page))
    psnr, second = likeness(page, view, view_page)
    print(f"{psnr:.1f} dB after the drag, {moving} pictures during it")
    assert psnr > 30
    assert np.abs(second - first).mean() > 3
    assert moving >= 4
    assert page.errors() == []


def test_two_clients_look_where_they_want(browser, page_of):
    view = page_of()
    first = opened(browser, view)
    second = opened(browser, view)
    assert len(view.pages) == 2
    one, two = (view.pages[key] for key in sorted(view.pages))
    before = one.request()
    second.front()
    second.drag((200, 300), (400, 300))
    until(lambda: at_rest(two))
    assert two.request().camera != before.camera
    assert one.request() == before
    assert likeness(second, view, two)[0] > 30
    assert likeness(first, view, one)[0] > 30
    second.close()
    until(lambda: len(view.pages) == 1)
    until(lambda: not two.render_thread.is_alive())
    first.front()
    first.drag((200, 300), (300, 350))  # and the other goes on
    until(lambda: at_rest(one))
    assert one.request() != before
    assert likeness(first, view, one)[0] > 30
    assert first.errors() == []


def test_clients_that_come_and_go_lock_nothing_up(browser, page_of):
    view = page_of()
    for _ in range(6):
        page = browser.open(f"http://127.0.0.1:{view.port}", 400, 300)
        page.wait(0.3)
        page.close()  # some before they have said where they look from
    page = opened_anew(browser, view)
    [view_page] = view.pages.values()
    assert likeness(page, view, view_page)[0] > 30


def opened_anew(browser, view):
    until(lambda: not view.pages)
    return opened(browser, view)


def test_reconnecting_works_and_keeps_the_path(browser, page_of):
    view = page_of()
    for count in range(3):
        page = opened(browser, view)
        [view_page] = view.pages.values()
        assert f"{count} keyframe" in page.text()
        page.click("Add keyframe")
        page.until(f"document.body.innerText.includes('{count + 1} keyframe')")
        assert likeness(page, view, view_page)[0] > 30
        assert page.errors() == []
        page.close()
        until(lambda: not view.pages)
    assert len(view.path) == 3


def test_a_page_that_outlives_the_server_finds_it_again(browser, page_of):
    view = page_of()
    page = opened(browser, view)
    view.stop()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", view.port), 2)
    with View(balls(), port=view.port, up=UP) as again:
        until(lambda: len(again.pages) == 1)
        [view_page] = again.pages.values()
        until(lambda: at_rest(view_page) and likeness(page, again, view_page)[0] > 30)


def test_paths_screenshots_and_videos(browser, page_of, tmp_path):
    view = page_of(longer=320)
    page = opened(browser, view)
    [view_page] = view.pages.values()
    page.click("Video")  # of nothing
    page.until("document.body.innerText.includes('Nothing to film')")
    page.click("Screenshot")
    shot = browser.downloaded(".png")
    assert shot.stat().st_size > 1000
    page.click("Add keyframe")
    page.drag((200, 300), (330, 300))
    until(lambda: at_rest(view_page))
    page.click("Add keyframe")
    page.until("document.body.innerText.includes('2 keyframes')")
    view_page.seconds.value = 1.0
    view_page.go(*view.frame_camera(1.5))
    page.click("Play path")
    until(view_page.playing.is_set)
    until(lambda: not view_page.playing.is_set() and at_rest(view_page))
    assert np.allclose(view_page.camera().c2w, view.path[-1].c2w, atol=1e-3)
    page.click("Save path")
    saved = browser.downloaded(".json")
    assert len(json.loads(saved.read_text())["keyframes"]) == 2
    page.click("Clear path")
    page.until("document.body.innerText.includes('0 keyframes')")
    page.upload("Load path", saved)
    page.until("document.body.innerText.includes('2 keyframes')")
    page.click("Video")
    until(lambda: not view_page.filming.is_set() and list(tmp_path.glob("scene_*")), 60)
    [film] = [path for path in tmp_path.iterdir() if path.name.startswith("scene_")]
    assert browser.downloaded(film.suffix).read_bytes() == film.read_bytes()
    assert page.errors() == []


def test_photos_can_be_gone_to(browser, page_of):
    start, _ = View(balls(), up=UP).frame_camera(1.5)
    photos = []
    for i in range(4):
        x, y, z = start.position
        camera = type(start)((x + 0.8 * i, y, z + 0.2), start.wxyz, 0.8, 1.5)
        photos.append(Photo(f"photo{i}.jpg", camera, np.full((40, 60, 3), 60 * i, np.uint8)))
    view = page_of(photos=photos)
    page = opened(browser, view)
    [view_page] = view.pages.values()
    assert np.allclose(view_page.camera().position, photos[0].camera.position, atol=1e-3)
    page.click("Next photo")
    page.click("Next photo")
    page.until("document.body.innerText.includes('photo1.jpg (2 of 4)')")
    until(lambda: at_rest(view_page))
    assert np.allclose(view_page.camera().c2w, photos[1].camera.c2w, atol=1e-3)
    assert view_page.camera().fov == pytest.approx(0.8, abs=1e-4)
    page.click("Show photos")
    page.wait(1)
    assert not any(handle.visible for handle in view_page.frustums)
    assert likeness(page, view, view_page)[0] > 30
    assert page.errors() == []


def test_a_moving_scene_plays(browser, page_of):
    params = balls()
    n = len(params["means"])
    params.update({name: torch.zeros(n, size) for name, size in TIME_SHAPES.items()})
    params["motion"][:, 2], params["time_width"][:] = 1.5, 1e4
    view = page_of(Loaded(params, Path("moving.splatv"), "splatv"))
    page = opened(browser, view)
    [view_page] = view.pages.values()
    _, before = likeness(page, view, view_page)
    page.click("Play time")
    until(lambda: view_page.time.value == 1.0)
    until(lambda: at_rest(view_page))
    psnr, after = likeness(page, view, view_page)
    assert psnr > 30
    assert np.abs(after - before).mean() > 3
    assert page.errors() == []
