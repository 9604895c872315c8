"""What a run says to whichever strategy it has: when points are edited, and how many there may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class Schedule:
    """When points are edited, in training steps, and how many there may be."""

    steps: int
    """Steps of the whole run."""
    start: int
    """First step that may edit."""
    stop: int
    """From this step on nothing is edited."""
    every: int
    """Steps between edits."""
    reset_every: int
    """Steps between resets of all opacities; more than `steps` for none (adc and absgrad)."""
    pause_after_reset: int
    """Steps without edits after a reset."""
    max_points: int | None
    """Cap on the number of points; None for no cap."""


@dataclass
class Common:
    """What a run says to whichever strategy it has; scales are relative to the scene's extent."""

    schedule: Schedule
    prune_opacity: float = 0.005
    """Points of lower opacity (0..1) are removed."""
    grad_threshold: float | None = None
    """Gradient of means2d (in units of half the image) above which a point is cloned or split; None: the published."""
    split_scale: float = 0.01
    """Smaller points are cloned, larger ones split."""
    prune_scale: float = 0.1
    """Larger points are removed after the first reset of opacities."""
    revised_opacity: bool = False
    """The halves of a split point share its opacity (Rota Bulo 2024)."""
    rasterize_mode: str = "classic"
    """As the model is drawn: classic or antialiased."""
    opacity_reg: float = 0.01
    scale_reg: float = 0.01
    """Weights in the loss of the mean opacity and of the mean scale (mcmc)."""
    densify: bool = True
    insert: bool = True
    reset: bool = True
    prune: bool = True
    """Parts of a strategy that can be left out."""

    def parts(self) -> dict[str, Any]:
        """The four switches, by name."""
        return {name: bool(getattr(self, name)) for name in ("densify", "insert", "reset", "prune")}
