"""The replay in headless Chromium (`pytest -m viewer`): the one HTML file, and the page of the command."""

import re
import subprocess
import sys

import numpy as np
import pytest
from browser import Browser
from runs import KINDS, make_run

from lpm.viewer.boxes import EDIT_COLORS, ZONE_COLORS
from lpm.viewer.replay.data import load
from lpm.viewer.replay.html import write_html

pytestmark = pytest.mark.viewer
WIDE, HIGH = 1280, 800
EVENT = "document.getElementById('event')"


@pytest.fixture
def browser():
    with Browser() as opened:
        yield opened


def near(picture, color, most=30):
    """How many pixels of `picture` [H, W, 3] have `color`."""
    return int((np.abs(picture.astype(int) - color).max(-1) < most).sum())


def scene_of_file(picture):
    """The middle of the scene, without legend and curves."""
    return picture[130:760, 190:740]


def kinds_in(picture, least=150):
    """The kinds of zones whose colour is in `picture`."""
    return [kind for kind, color in ZONE_COLORS.items() if near(picture, color) >= least]


@pytest.fixture
def opened(browser, tmp_path):
    """The HTML file of a run with four events, each with one zone of another kind, opened from disk."""
    write_html(tmp_path / "replay.html", load(make_run(tmp_path / "run", points=40)))
    page = browser.open((tmp_path / "replay.html").as_uri(), width=WIDE, height=HIGH)
    page.until("window.ready")
    return page


def test_the_file_shows_each_event_in_the_colour_of_its_zone(opened):
    for i, kind in enumerate(KINDS):
        opened.evaluate(f"{EVENT}.value = {i}, {EVENT}.dispatchEvent(new Event('input'))")
        picture = scene_of_file(opened.still())
        assert kinds_in(picture) == [kind]
        assert near(picture, EDIT_COLORS["added"], 40) > 60
        assert f"step {100 * (i + 1)}:" in opened.text()
        line = opened.evaluate("document.getElementById('plots').layout.shapes[0].x0")
        assert line == 100 * (i + 1)
    assert opened.errors() == []


def test_the_file_moves_by_its_slider_and_by_itself(opened):
    first = opened.still()
    left, top, width, height = opened.evaluate(f"(r => [r.x, r.y, r.width, r.height])({EVENT}.getBoundingClientRect())")
    opened.drag((left + 8, top + height / 2), (left + width / 3 + 4, top + height / 2))
    opened.until(f"{EVENT}.value === '1'")
    second = opened.still()
    assert np.abs(scene_of_file(first).astype(float) - scene_of_file(second)).mean() > 1
    opened.click("Play")
    opened.until("document.getElementById('play').textContent === 'Pause'")
    opened.until(f"{EVENT}.value === '3'")
    opened.until("document.getElementById('play').textContent === 'Play'")
    assert kinds_in(scene_of_file(opened.still())) == ["no-evidence"]
    assert opened.errors() == []


def test_the_file_shows_edits_of_more_events(opened):
    def added():
        return opened.evaluate("document.getElementById('scene').data.find(t => t.name === 'added').x.length")

    opened.evaluate(f"{EVENT}.value = 3, {EVENT}.dispatchEvent(new Event('input'))")
    assert added() == 40
    opened.evaluate("(e => (e.value = 3, e.dispatchEvent(new Event('input'))))(document.getElementById('last'))")
    assert added() == 120
    assert "3 events" in opened.text()


def test_names_beside_the_scene_switch(opened):
    opened.evaluate(f"{EVENT}.value = 1, {EVENT}.dispatchEvent(new Event('input'))")
    names = opened.evaluate("[...document.querySelectorAll('#scene .legendtext')].map(e => e.textContent)")
    assert names == [*(f"zone: {kind}" for kind in ZONE_COLORS), "added", "removed", "reset", "all points"]
    assert kinds_in(scene_of_file(opened.still())) == ["missing"]
    opened.evaluate("Plotly.restyle('scene', {visible: 'legendonly'}, [1]).then(() => true)")
    assert kinds_in(scene_of_file(opened.still())) == []
    opened.evaluate(f"{EVENT}.value = 0, {EVENT}.dispatchEvent(new Event('input'))")
    opened.evaluate(f"{EVENT}.value = 1, {EVENT}.dispatchEvent(new Event('input'))")
    assert kinds_in(scene_of_file(opened.still())) == []  # stays hidden
    assert opened.errors() == []


@pytest.fixture
def served(tmp_path):
    """The address of `lpm-replay RUN`, run as people do."""
    run = make_run(tmp_path / "run", points=40)
    start = "from lpm.viewer.replay.cli import main; main()"
    command = [sys.executable, "-u", "-c", start, str(run), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    said = process.stdout.readline()
    yield re.search(r"http://\S+", said)[0]
    process.terminate()
    process.wait(20)


def hue(picture, kind):
    """How many pixels have the hue of a kind of zone; viser's boxes are lit."""
    pixels = picture.reshape(-1, 3).astype(float) / 255
    pixels = pixels[np.ptp(pixels, axis=1) > 0.25]
    wanted = np.array(ZONE_COLORS[kind]) / 255
    wanted = (wanted - wanted.min()) / np.ptp(wanted)
    theirs = (pixels - pixels.min(1, keepdims=True)) / np.ptp(pixels, axis=1)[:, None]
    return int((np.abs(theirs - wanted).max(1) < 0.15).sum())


def test_the_page_shows_events_and_plays(browser, served):
    page = browser.open(served, width=WIDE, height=HIGH)
    page.until("document.body.innerText.includes('event 1 of 4, step 100')")
    page.until("document.querySelectorAll('.js-plotly-plot').length > 0")
    for name in ("Added (green)", "Removed (pale red)", "Reset (amber)"):
        page.click(name)  # their check boxes: nothing but zones is to be seen
    first = page.still()[:, :850]
    assert hue(first, "false-front") > 300
    assert hue(first, "missing") < 20
    box = "(r => [r.x, r.y, r.width, r.height])(document.querySelector('[role=slider]').getBoundingClientRect())"
    left, top, width, height = page.evaluate(box)
    track = page.evaluate("document.querySelector('[role=slider]').parentElement.getBoundingClientRect().width")
    here = (left + width / 2, top + height / 2)
    page.drag(here, (here[0] + track / 3, here[1]))
    page.until("document.body.innerText.includes('event 2 of 4, step 200')")
    second = page.still()[:, :850]
    assert hue(second, "missing") > 300
    assert hue(second, "false-front") < 20
    page.click("Missing (blue)")
    assert hue(page.still()[:, :850], "missing") < 20
    page.click("Play")
    page.until("document.body.innerText.includes('Pause')")
    page.until("document.body.innerText.includes('event 4 of 4, step 400')")
    page.until("!document.body.innerText.includes('Pause')")
    assert page.errors() == []
