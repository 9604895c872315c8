"""How wide a point may be for its distance to the cameras: what no photo shows must not veil a view between them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lpm.multiview.views import centres_of, nearest_centre


def widest_scales(means: Tensor, centres: Tensor, share: float) -> Tensor:
    """[N, 1] log of the largest standard deviation (world) that each of `means` [N, 3] may have along any axis.

    It is `share` times the distance to the nearest of the camera `centres` [V, 3], or times the radius of the cameras
    around their mean, whichever is longer. How large a point is drawn is a first-order guess at its centre (EWA
    splatting). Of a point that is wide for its distance and stands beside a camera, not before it, the guess covers the
    whole picture, at a depth along the camera's axis that may be next to nothing: it is a veil before all else. Far
    from all cameras, beyond what they see from different sides, nothing in the photos holds a point's width along the
    line of sight. Near them the photos do: a floor beside a camera may be as wide as it is seen to be.
    """
    if len(centres) == 0:
        return torch.full_like(means[:, :1], torch.inf)
    radius = (centres - centres.mean(0)).norm(dim=1).amax()
    return (share * torch.maximum(nearest_centre(means, centres), radius)).clamp_min(1e-9).log()[:, None]


def hold(params: Any, state: dict[str, Any], viewmats: Tensor, share: float, anew: bool) -> None:
    """Holds the scales of `params` at widest_scales(), kept in `state["widest"]` [N, 1].

    Args:
        viewmats: [V, 4, 4], of the training cameras. anew: distances are measured again, whatever the state has.
    """
    if anew or state.get("widest") is None:
        state["widest"] = widest_scales(params["means"].detach(), centres_of(viewmats), share)
    params["scales"].data.copy_(torch.minimum(params["scales"].data, state["widest"]))
