"""One thread for each page: it draws the newest view that was asked for, small while the camera moves, then in full."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lpm.viewer.page.camera import Camera, size_of
from lpm.viewer.page.frame_budget import FrameBudget

SETTLED = 0.2
"""Seconds without a new view after which the camera counts as standing still."""


@dataclass(frozen=True)
class RenderRequest:
    """What a page wants to see."""

    camera: Camera
    longer: int = 960
    """Pixels along the longer side of a picture at rest."""
    time: float = 0.0
    """0..1, of scenes that move."""
    antialiased: bool = False
    background: float = 1.0
    output: str = "rgb"
    """What is to be seen, of `outputs` of what is shown."""


Draw = Callable[[RenderRequest, int, int, int, Callable[[], bool]], "NDArray[np.uint8] | None"]
"""draw(request, width, height, strips, stop) gives [H, W, 3] uint8, or None if stop() became true on the way."""
Show = Callable[[NDArray[np.uint8], bool], None]
"""show(picture, moving) sends it."""


class RenderThread(threading.Thread):
    """Draws what `ask` was last told and hands it to `show`; whatever came in between is left out."""

    def __init__(self, draw: Draw, show: Show, failed: Callable[[Exception], None]) -> None:
        super().__init__(name="lpm-view-render_thread", daemon=True)
        self.draw, self.show, self.failed = draw, show, failed
        self.budget = FrameBudget()
        self.drawn = 0
        """Pictures so far."""
        self._changed = threading.Condition()
        self._request: RenderRequest | None = None
        self._number = 0  # of the newest request
        self._asked = 0.0  # when it came
        self._full = 0  # number of the request last drawn in full
        self._small = 0  # number of the request last drawn small
        self._done = False

    def ask(self, request: RenderRequest) -> None:
        """Wants `request` drawn; returns at once. A picture in full that is being drawn is given up."""
        if not request.camera.usable():
            return
        with self._changed:
            if request == self._request:  # viser repeats itself, and the picture is as good as it gets
                return
            self._request, self._number, self._asked = request, self._number + 1, time.monotonic()
            self._changed.notify()

    def change(self, **fields: object) -> None:
        """Wants what is shown now with other `fields` of its RenderRequest."""
        with self._changed:
            request = self._request
        if request is not None:
            self.ask(replace(request, **fields))  # type: ignore[arg-type]

    def again(self) -> None:
        """Wants what is shown at rest drawn again, in full: it may have changed. While the camera moves, nothing."""
        with self._changed:
            if self._request is not None and self._full == self._number:
                self._number += 1
                self._small, self._asked = self._number, 0.0
                self._changed.notify()

    @property
    def request(self) -> RenderRequest | None:
        """The newest one."""
        return self._request

    @property
    def idle(self) -> bool:
        """Whether the newest request is drawn in full."""
        return self._request is not None and self._full == self._number

    def end(self) -> None:
        """Lets the thread end; returns at once, since viser calls from where it must not wait."""
        with self._changed:
            self._done = True
            self._changed.notify()

    def run(self) -> None:
        """The thread's work."""
        while True:
            with self._changed:
                while not self._done and self._number == self._full:
                    self._changed.wait()
                if not self._done and self._small == self._number:
                    # Drawn small already: in full once nothing new has come for a while.
                    left = self._asked + SETTLED - time.monotonic()
                    if left > 0:
                        self._changed.wait(left)
                        continue
                if self._done:
                    return
                request, number = self._request, self._number
            assert request is not None
            moving = self._small != number
            try:
                self._paint(request, number, moving)
            except Exception as error:  # the page must stay alive, whatever one view did
                self.failed(error)
            if moving:
                self._small = number
            elif self._number == number:
                self._full = number

    def _paint(self, request: RenderRequest, number: int, moving: bool) -> None:
        width, height = size_of(request.camera.aspect, request.longer)
        pixels, strips = width * height, 1
        if moving:
            width, height = size_of(request.camera.aspect, request.longer, self.budget.moving(pixels))
        else:
            strips = self.budget.strips(pixels, height)
        start = time.monotonic()
        # A small picture is finished, however stale: one that comes late beats none at all while the camera moves.
        picture = self.draw(
            request, width, height, strips, lambda: self._done or (not moving and self._number != number)
        )
        if picture is None:
            return
        self.show(picture, moving)
        self.drawn += 1
        if moving:
            self.budget.measured(width * height, time.monotonic() - start)
