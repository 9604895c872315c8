"""The .splat of antimatter15's viewer: 32 bytes a Gaussian, without header and without view-dependent colour.

float32 x y z; float32 standard deviations x y z (linear); bytes r g b a; bytes of the quaternion wxyz as q * 128 + 128.
Viewers show the file while it loads, so the Gaussians that cover most come first.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lpm.checks import fail
from lpm.files import Progress, atomic_file, quiet
from lpm.formats.bounds import check_file, check_some
from lpm.formats.bytes import logit, rgba, sh0_params
from lpm.formats.ply import CHUNK
from lpm.formats.rows import bounded, sound_rows
from lpm.gaussians.spherical_harmonics import SH_C0

ROW = np.dtype([("means", "<f4", 3), ("scales", "<f4", 3), ("rgba", "u1", 4), ("quats", "u1", 4)])


def importance(params: Mapping[str, Tensor]) -> Tensor:
    """[N] the logarithm of opacity x volume."""
    log_opacity = torch.nn.functional.logsigmoid(params["opacities"].detach().float().cpu()).reshape(-1)
    return log_opacity + params["scales"].detach().float().cpu().sum(1)


def write_splat(path: Path, params: Mapping[str, Tensor], progress: Progress = quiet) -> int:
    """Writes `params` to `path`, atomically, without the harmonics beyond the first. Rows that are not
    finite or have no rotation are left out.

    Returns:
        The number of rows left out.

    Raises:
        LpmError: no row is left, or the folder cannot be written.
    """
    params = bounded(params)
    finite = sound_rows(params).cpu()
    order = torch.argsort(importance(params), descending=True, stable=True)
    order = order[finite[order]]
    if len(order) == 0:
        fail(path, f"{len(finite)} points, none of them finite and with a rotation", "at least one to write")
    get = {name: value.detach().float().cpu() for name, value in params.items()}
    with atomic_file(path) as file:
        for start in progress(range(0, len(order), CHUNK), "writing"):
            i = order[start : start + CHUNK]
            rows = np.empty(len(i), ROW)
            rows["means"], rows["scales"] = get["means"][i].numpy(), get["scales"][i].exp().numpy()
            rows["rgba"] = rgba(get["features_dc"][i], get["opacities"][i])
            quats = torch.nn.functional.normalize(get["quats"][i], dim=1)
            rows["quats"] = (quats * 128 + 128).round().clamp(0, 255).byte().numpy()
            file.write(rows.tobytes())
    return len(finite) - len(order)


def looks_like_splat(path: Path) -> bool:
    """Whether rows from all over the file are Gaussians: finite, sizes not negative, quaternions of length 1 or 0."""
    size = path.stat().st_size
    if size == 0 or size % ROW.itemsize:
        return False
    rows: NDArray[np.void] = np.memmap(path, ROW, "r")
    rows = rows[:: max(1, len(rows) // 1000)]
    length = np.linalg.norm((rows["quats"].astype(np.float64) - 128) / 128, axis=1)
    # Of length 0: rows that some program wrote for what was removed.
    turned = (np.abs(length - 1) < 0.1) | (length == 0)
    usual = np.isfinite(rows["means"]).all(1) & (rows["scales"] >= 0).all(1) & turned
    return bool(usual.mean() > 0.9)


def read_splat(path: Path) -> dict[str, Tensor]:
    """Reads a .splat; view-dependent colour is not in it, so features_rest is [N, 0, 3].

    Raises:
        LpmError: no such file, not a whole number of rows, or the rows cannot be Gaussians.
    """
    size = check_file(path, "a .splat file")
    if size % ROW.itemsize:
        fail(path, f"{size:,} bytes", "a .splat file, a multiple of 32 bytes", "it is cut off or something else")
    if not looks_like_splat(path):
        fail(path, "rows that are no Gaussians", "a .splat file", "look at what the file is")
    rows = np.memmap(path, ROW, "r")
    check_some(path, len(rows))
    colors = rows["rgba"].astype(np.float32) / 255
    tiny = np.finfo(np.float32).tiny  # a flat Gaussian has a size of 0, which has no logarithm
    with np.errstate(invalid="ignore"):  # what is not finite stays so, and is counted by whoever asks
        scales = np.log(np.maximum(rows["scales"], tiny))
    return sh0_params(
        means=rows["means"],
        scales=scales,
        quats=(rows["quats"].astype(np.float32) - 128) / 128,
        features_dc=(colors[:, :3] - 0.5) / SH_C0,
        opacities=logit(colors[:, 3]),
    )
