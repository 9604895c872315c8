"""When the photos of a moving scene were taken."""

from __future__ import annotations

import torch
from torch import Tensor


class CaptureTimes:
    """The capture times of the training photos, on the device and for the host."""

    def __init__(self, times: Tensor) -> None:
        """`times` [V]: when each photo was taken, 0..1, on the device."""
        self.by_view = times
        """[V], on the device."""
        self.clock = times.cpu()
        """[V], the same for the host, which asks often, and would wait each time."""
        self.moments = times.unique()
        """[T], the different ones, in order."""
        self.same = [(self.clock == t).nonzero().flatten().tolist() for t in self.clock]
        """Of each view, all views of its time."""

    @property
    def frame(self) -> float:
        """Time from one frame to the next, as a share of the clip."""
        return 1.0 / max(1, len(self.moments) - 1)

    def moment(self, view: int) -> int:
        """Which of the moments a view was taken at."""
        return int(torch.searchsorted(self.clock.unique(), self.clock[view]))
