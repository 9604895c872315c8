"""Gaussians as engines have them (glTF, USD): sizes and opacities linear, rotations of length 1 as x y z w."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lpm.checks import fail
from lpm.formats.bytes import sh0_params
from lpm.formats.rows import bounded, sound_rows
from lpm.gaussians.parameters import NAMES

Singles = NDArray[np.float32]
LARGEST_LOG = 88.0
"""Its exponential is a float32."""


@dataclass
class Linear:
    """N Gaussians."""

    means: Singles
    """[N, 3]"""
    scales: Singles
    """[N, 3] standard deviations, in the unit of `means`."""
    xyzw: Singles
    """[N, 4] unit quaternions."""
    opacities: Singles
    """[N] 0..1"""
    features_dc: Singles
    """[N, 3] 3DGS's zeroth coefficient of each colour."""
    features_rest: Singles
    """[N, K, 3] the others."""


def to_linear(path: Path, params: Mapping[str, Tensor]) -> tuple[Linear, int]:
    """`params` (lpm.gaussians) for the file `path`, and how many rows were left out since nobody can draw them.

    Raises:
        LpmError: no row is left.
    """
    params = bounded(params)
    sound = sound_rows(params).cpu()
    n, kept = len(sound), int(sound.sum())
    if kept == 0:
        fail(path, f"{n} points, none of them finite and with a rotation", "at least one to write")
    get = {name: params[name].detach().float().cpu() for name in NAMES}
    if kept < n:
        get = {name: value[sound] for name, value in get.items()}
    linear = Linear(
        means=get["means"].numpy(),
        scales=get["scales"].clamp(max=LARGEST_LOG).exp().numpy(),
        xyzw=torch.nn.functional.normalize(get["quats"].double(), dim=1)[:, [1, 2, 3, 0]].float().numpy(),
        opacities=torch.sigmoid(get["opacities"]).reshape(-1).numpy(),
        features_dc=get["features_dc"].numpy(),
        features_rest=get["features_rest"].numpy(),
    )
    return linear, n - kept


def from_linear(found: Linear) -> dict[str, Tensor]:
    """Parameters of lpm.gaussians; opacities of 0 and 1, and sizes of 0, become the ends of our range."""
    alpha = found.opacities.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        params = sh0_params(
            means=found.means,
            scales=np.log(found.scales),
            quats=found.xyzw[:, [3, 0, 1, 2]],
            features_dc=found.features_dc,
            opacities=np.log(alpha / (1 - alpha)),
            features_rest=found.features_rest,
        )
    return bounded(params)
