"""What a person asks of a strategy while it trains: taken up at the next event, from any thread."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from lpm.checks import fail
from lpm.multiview.views import project

SETTINGS: dict[str, tuple[type, float, float]] = {
    "max_points": (int, 1, 2**31),
    "error_floor": (float, 0.0, 1.0),
    "prune_opacity": (float, 0.0, 1.0),
    "recycle": (float, 0.0, 1.0),
}
"""Fields of LpmStrategy that may be changed in a run: type, least and most."""


@dataclass(frozen=True)
class Region:
    """A piece of space as a training view sees it: that of a zone (lpm.records.ZoneRecord)."""

    view: int
    box: tuple[int, int, int, int]
    """x0, y0, x1, y1, pixels."""
    interval: tuple[float, float]
    """Nearest and farthest z-depth, world."""

    def contains(self, means: Tensor, viewmat: Tensor, K: Tensor) -> Tensor:
        """Mask [N] of the points `means` [N, 3] inside, for the view's camera [4, 4], [3, 3]."""
        pixels, z = project(means, viewmat, K)
        x, y = pixels.unbind(-1)
        x0, y0, x1, y1 = self.box
        inside = (z >= self.interval[0]) & (z <= self.interval[1])
        return inside & (x >= x0) & (x < x1) & (y >= y0) & (y < y1)


class Requests:
    """What was asked and not taken up yet, and the regions that are frozen."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._settings: dict[str, Any] = {}
        self._forced: list[Region] = []
        self._frozen: list[Region] = []

    def set(self, name: str, value: float) -> None:
        """Asks for another value of a field of SETTINGS. Raises LpmError for one that makes no sense."""
        if name not in SETTINGS:
            fail("setting", repr(name), f"one of {', '.join(SETTINGS)}")
        kind, least, most = SETTINGS[name]
        if not least <= value <= most:
            fail(name, str(value), f"{least:g} to {most:g}")
        with self._lock:
            self._settings[name] = kind(value)

    def freeze(self, region: Region) -> None:
        """From the next event on no point in `region` is touched, and none is added there."""
        with self._lock:
            if region not in self._frozen:
                self._frozen.append(region)

    def thaw(self, region: Region) -> None:
        """Takes back freeze()."""
        with self._lock:
            self._frozen = [other for other in self._frozen if other != region]

    def force(self, region: Region) -> None:
        """At the next event points in `region` are split before all others."""
        with self._lock:
            self._forced.append(region)

    def waiting(self) -> int:
        """How many settings and forced regions wait for the next event."""
        with self._lock:
            return len(self._settings) + len(self._forced)

    def frozen(self) -> list[Region]:
        """The regions that are frozen now."""
        with self._lock:
            return list(self._frozen)

    def take(self) -> tuple[dict[str, Any], list[Region], list[Region]]:
        """Settings and forced regions, which are then forgotten, and frozen ones, which stay."""
        with self._lock:
            taken = self._settings, self._forced, list(self._frozen)
            self._settings, self._forced = {}, []
            return taken

    def state(self) -> list[dict[str, Any]]:
        """The frozen regions, for a checkpoint."""
        return [asdict(region) for region in self.frozen()]

    def load(self, state: list[dict[str, Any]]) -> None:
        """Puts back what state() gave."""
        regions = [Region(s["view"], tuple(s["box"]), tuple(s["interval"])) for s in state]
        with self._lock:
            self._frozen = regions


def inside_any(regions: list[Region], means: Tensor, viewmats: Tensor, Ks: Tensor) -> Tensor:
    """Mask [N] of the points inside of one of `regions`, whose views have cameras [V, 4, 4] and [V, 3, 3]."""
    mask = torch.zeros(len(means), dtype=torch.bool, device=means.device)
    for region in regions:
        if region.view < len(viewmats):
            mask |= region.contains(means, viewmats[region.view], Ks[region.view])
    return mask
