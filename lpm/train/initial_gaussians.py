"""The Gaussians that a run begins with, as its options ask: of the scene's points, random ones, or of a file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import ParameterDict

from lpm.gaussians import parameters
from lpm.gaussians.similarity import Similarity
from lpm.train.gaussians_from_file import start_from
from lpm.train.model_settings import ModelSettings


def from_file(
    config: ModelSettings, world_to_train: Similarity | None, cap: int | None, say: Callable[[str], Any]
) -> tuple[ParameterDict, Tensor | None]:
    """Those of `init_from`, and its sky [K, 3] (lpm.render.sky) if it has one; `say`s how many, and what is left out.

    Raises LpmError if the file cannot be used.
    """
    assert config.init_from is not None
    params, sky = start_from(config.init_from, config.sh_degree, config.init_frame, world_to_train, say)
    n = len(params["means"])
    say(f"Starts from {n:,} Gaussians of {config.init_from}.")
    if cap is not None and n > cap:
        say(f"That is more than max_points ({cap:,}): none are added, and some strategies remove down to it.")
    if sky is not None and config.sky == "none":
        say("It has a sky, which is left out: --pipeline.model.sky sphere takes it over.")
    return params, sky


def from_scene(
    config: ModelSettings, points: tuple[Tensor, Tensor] | None, extent: float, cap: int | None
) -> ParameterDict:
    """Those of the scene's points [N, 3] (world) and colours [N, 3] (0..255; or [0, 3]), or random ones within `extent`
    (world). Half of `cap` at the most: room to grow."""
    if points is None or config.random_init:
        n = min(config.num_random, max(1, (cap or 2**62) // 2))
        xyz, rgb = (torch.rand(n, 3) - 0.5) * config.random_scale * extent, torch.zeros(0, 3)
    else:
        xyz, rgb = points
        if cap:
            kept = parameters.random_subset(xyz, max(cap // 2, 1))
            xyz, rgb = xyz[kept], rgb[kept] if len(rgb) else rgb
    return parameters.from_points(
        xyz, rgb if len(rgb) else None, config.sh_degree, config.init_opacity, config.init_scale
    )
