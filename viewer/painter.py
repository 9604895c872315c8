"""One thread for each page: it draws the newest view that was asked for, small while the camera moves, then in full."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from lpm.viewer.eye import Eye, size_of
from lpm.viewer.pace import Pace

SETTLED = 0.2
"""Seconds without a new view after which the camera counts as standing still."""


@dataclass(frozen=True)
class Wish:
    """What a page wants to see."""

    eye: Eye
    longer: int = 960
    """Pixels along the longer side of a picture at rest."""
    time: float = 0.0
    """0..1, of scenes that move."""
    antialiased: bool = False
    background: float = 1.0


Draw = Callable[[Wish, int, int, int, Callable[[], bool]], "np.ndarray | None"]
"""draw(wish, width, height, strips, stop) gives [H, W, 3] uint8, or None if stop() became true on the way."""
Show = Callable[[np.ndarray, bool], None]
"""show(picture, moving) sends it."""


class Painter(threading.Thread):
    """Draws what `ask` was last told and hands it to `show`; whatever came in between is left out."""

    def __init__(self, draw: Draw, show: Show, failed: Callable[[Exception], None]) -> None:
        super().__init__(name="lpm-view-painter", daemon=True)
        self.draw, self.show, self.failed = draw, show, failed
        self.pace = Pace()
        self.drawn = 0
        """Pictures so far."""
        self._changed = threading.Condition()
        self._wish: Wish | None = None
        self._number = 0  # of the newest wish
        self._asked = 0.0  # when it came
        self._full = 0  # number of the wish last drawn in full
        self._done = False

    def ask(self, wish: Wish) -> None:
        """Wants `wish` drawn; returns at once. A picture in full that is being drawn is given up."""
        if not wish.eye.usable():
            return
        with self._changed:
            if wish == self._wish:  # viser repeats itself, and the picture is as good as it gets
                return
            self._wish, self._number, self._asked = wish, self._number + 1, time.monotonic()
            self._changed.notify()

    def change(self, **fields: object) -> None:
        """Wants what is shown now with other `fields` of its Wish."""
        with self._changed:
            wish = self._wish
        if wish is not None:
            self.ask(replace(wish, **fields))  # type: ignore[arg-type]

    @property
    def wish(self) -> Wish | None:
        """The newest one."""
        return self._wish

    @property
    def idle(self) -> bool:
        """Whether the newest wish is drawn in full."""
        return self._wish is not None and self._full == self._number

    def end(self) -> None:
        """Lets the thread end; returns at once, since viser calls from where it must not wait."""
        with self._changed:
            self._done = True
            self._changed.notify()

    def run(self) -> None:
        """The thread's work."""
        small = 0  # number of the wish last drawn small
        while True:
            with self._changed:
                while not self._done and self._number == self._full:
                    self._changed.wait()
                if not self._done and small == self._number:
                    # Drawn small already: in full once nothing new has come for a while.
                    left = self._asked + SETTLED - time.monotonic()
                    if left > 0:
                        self._changed.wait(left)
                        continue
                if self._done:
                    return
                wish, number = self._wish, self._number
            assert wish is not None
            moving = small != number
            try:
                self._paint(wish, number, moving)
            except Exception as error:  # the page must stay alive, whatever one view did
                self.failed(error)
            if moving:
                small = number
            elif self._number == number:
                self._full = number

    def _paint(self, wish: Wish, number: int, moving: bool) -> None:
        width, height = size_of(wish.eye.aspect, wish.longer)
        pixels, strips = width * height, 1
        if moving:
            width, height = size_of(wish.eye.aspect, wish.longer, self.pace.moving(pixels))
        else:
            strips = self.pace.strips(pixels, height)
        start = time.monotonic()
        # A small picture is finished, however stale: one that comes late beats none at all while the camera moves.
        picture = self.draw(wish, width, height, strips, lambda: self._done or (not moving and self._number != number))
        if picture is None:
            return
        self.show(picture, moving)
        self.drawn += 1
        if moving:
            self.pace.measured(width * height, time.monotonic() - start)
