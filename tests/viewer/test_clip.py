"""The controls of a moving scene: the strip, play and pause, without a browser."""

from __future__ import annotations

import time
from types import SimpleNamespace

import torch

from lpm.viewer.training.playback import Clip, strip


def test_the_strip_has_a_bar_for_each_time():
    times = torch.tensor([0.0, 0.5, 1.0, 0.0, 0.5, 1.0])
    assert strip({0: 0.1, 3: 0.3, 1: 0.9, 4: 0.9, 2: 0.1, 5: 0.1}, times) == "▂█▁"
    assert strip({1: 0.2}, times) == " ▁ "
    assert strip({}, times) == "   "


class Gui:
    """As much of viser's as the controls use."""

    def __init__(self):
        self.handles = {}

    def add_folder(self, _):
        import contextlib

        return contextlib.nullcontext()

    def add_button(self, label):
        self.handles["button"] = SimpleNamespace(label=label, on_click=lambda f: self.handles.update(click=f))
        return self.handles["button"]

    def add_slider(self, label, min, max, step, initial_value, hint):
        return SimpleNamespace(value=initial_value)

    def add_markdown(self, text):
        return SimpleNamespace(content=text)


def until(what, seconds=5.0):
    end = time.monotonic() + seconds
    while not what() and time.monotonic() < end:
        time.sleep(0.02)
    return what()


def test_it_plays_and_pauses_and_ends():
    server = SimpleNamespace(gui=Gui(), get_clients=lambda: {0: None})
    control = SimpleNamespace(time=0.95)
    clip = Clip(server, control, lambda: {0: 0.1, 1: 0.2}, torch.tensor([0.0, 1.0]))
    clip.seconds.value = 1.0
    assert until(lambda: "▁█" in clip.words.content)
    assert control.time == 0.95
    server.gui.handles["click"](None)
    assert clip.button.label == "Pause"
    assert until(lambda: control.time < 0.5)  # and from the end it goes on at the beginning
    server.gui.handles["click"](None)
    assert clip.button.label == "Play"
    time.sleep(0.3)
    stays = control.time
    time.sleep(0.4)
    assert control.time == stays
    clip.stop()
    assert not clip._thread.is_alive()
