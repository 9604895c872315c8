"""Which Gaussians go into a file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lpm.checks import fail
from lpm.gaussians.far import Floats


def select(
    params: Mapping[str, Tensor],
    crop: Sequence[float] | None = None,
    min_opacity: float = 0.0,
    offset: Floats | None = None,
) -> dict[str, Tensor]:
    """The Gaussians whose centre lies in the box and whose opacity is high enough.

    Args:
        crop: x y z of the lowest corner, then of the highest, in the frame that `params` are in.
        min_opacity: 0 to 1, after the sigmoid.
        offset: [3] to be added to the means (lpm.gaussians.far) for positions in the frame of `crop`.

    Raises:
        LpmError: a box with no inside, an opacity out of range, or nothing is left.
    """
    keep = torch.ones(len(params["means"]), dtype=torch.bool)
    if crop is not None:
        if len(crop) != 6 or any(math.isnan(value) for value in crop) or any(crop[i] >= crop[i + 3] for i in range(3)):
            fail("--crop", " ".join(map(str, crop)), "x y z of the lowest corner, then of the highest")
        means = params["means"].detach().cpu()
        if offset is not None and offset.any():
            means, crop = means.double(), [value - float(offset[i % 3]) for i, value in enumerate(crop)]
        low, high = torch.tensor(crop[:3], dtype=means.dtype), torch.tensor(crop[3:], dtype=means.dtype)
        keep &= ((means >= low) & (means <= high)).all(1)
    if not 0 <= min_opacity <= 1:
        fail("--min-opacity", str(min_opacity), "a number from 0 to 1")
    if min_opacity > 0:
        keep &= torch.sigmoid(params["opacities"].detach().cpu()).reshape(-1) >= min_opacity
    if not bool(keep.any()):
        fail(
            "--crop and --min-opacity",
            f"none of {len(keep):,} Gaussians left",
            "at least one",
            "lpm-inspect shows bounds and opacities; the box is in the frame of --frame",
        )
    return dict(params) if bool(keep.all()) else {name: value[keep] for name, value in params.items()}
