"""How large a picture may be while the camera moves, from how long the last ones took."""

from __future__ import annotations

import math

TARGET = 0.07
"""Seconds that drawing and packing one picture may take: 10 a second, with time left for the way to the page."""
LEAST = 1 / 64
"""Share of a full picture's pixels below which nothing can be made out any more: an eighth of each side."""


class FrameBudget:
    """Keeps the time of a picture near TARGET. Knows nothing at first and starts small."""

    def __init__(self, target: float = TARGET) -> None:
        self.target = target
        self._seconds: float | None = None
        self._pixels = 0.0

    def measured(self, pixels: int, seconds: float) -> None:
        """A picture of so many `pixels` took so long, wall time."""
        self._pixels, self._seconds = float(pixels), max(seconds, 1e-4)

    def moving(self, full: int) -> float:
        """The pixels that the next picture may have while moving; `full` is the number of a picture at rest."""
        least = LEAST * full
        if self._seconds is None:
            return 4 * least
        # Part of the time does not depend on the pixels, so this falls short of the target and nears it from there;
        # by at most 3 times at once, since a single slow picture says little on a busy machine.
        factor = min(3.0, max(1 / 3, self.target / self._seconds))
        return min(float(full), max(least, self._pixels * factor))

    def strips(self, full: int, height: int) -> int:
        """Into how many strips a full picture is cut, so that one takes about TARGET and can be the last one."""
        if self._seconds is None or not self._pixels:
            return 4
        expected = self._seconds * full / self._pixels
        return max(1, min(math.ceil(expected / self.target), math.ceil(height / 16)))
