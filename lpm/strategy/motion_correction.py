"""Steps of the optimizer in time, corrected by what they do to where a point is seen, which Adam does not know."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lpm.gaussians.motion import recentred

LONG = 0.25
"""A temporal standard deviation, in clips: what lives shorter needs longer steps of its motion."""
LONGEST = 10.0
"""Steps of the motion are lengthened by this factor at most."""


def before(params: Any) -> dict[str, Tensor]:
    """What `correct` needs to know of `params` (lpm.gaussians.motion) before a step."""
    return {name: params[name].detach().clone() for name in ("times", "motion")}


@torch.no_grad()
def correct(params: Any, old: dict[str, Tensor]) -> None:
    """Corrects in place the step that led from `old` = before(params) to `params`.

    Motion is world per clip: a step of it moves a point that lives for a few frames by next to nothing while it is
    there. Steps are lengthened by LONG / life to the power of the coefficient. And a point whose centre in time has
    moved stays on its path: a fast one would be thrown off it.
    """
    longer = (LONG / params["durations"].exp()).clamp(1, LONGEST)
    powers = longer.expand(-1, params["motion"].shape[1]).cumprod(1)
    motion = torch.lerp(old["motion"], params["motion"], powers[:, :, None])
    moved = recentred({**params, "motion": motion}, params["times"] - old["times"])
    for name in moved.keys() - {"times"}:  # those are where the optimizer put them
        params[name].copy_(moved[name])
