"""Spherical harmonics: colours from coefficients, coefficients from colours, and coefficients after a rotation."""

from __future__ import annotations

import functools

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

SH_C0 = 0.28209479177387814


def rgb_to_sh0(rgb: Tensor) -> Tensor:
    """Colours in 0..1 -> zeroth SH coefficients, any shape."""
    return (rgb - 0.5) / SH_C0


def sh0_to_rgb(sh0: Tensor) -> Tensor:
    """Zeroth SH coefficients -> colours, 0..1 where they can be shown, any shape."""
    return sh0 * SH_C0 + 0.5


def sh_colors(degree: int, direction: Tensor, sh: Tensor) -> Tensor:
    """Colours [N, 3], at least 0, of harmonics [N, K, 3] seen along `direction` [N, 3] of any length (Sloan 2013)."""
    x, y, z = F.normalize(direction, dim=-1).unbind(-1)
    basis = [torch.full_like(x, 0.28209479177387814)]
    if degree >= 1:
        basis += [-0.48860251190291992 * y, 0.48860251190291992 * z, -0.48860251190291992 * x]
    zz, cos2, sin2 = z * z, x * x - y * y, 2 * x * y
    if degree >= 2:
        basis += [
            0.54627421529603959 * sin2, -1.0925484305920792 * y * z, 0.94617469575756008 * zz - 0.31539156525252005,
            -1.0925484305920792 * x * z, 0.54627421529603959 * cos2,
        ]  # fmt: skip
    if degree >= 3:
        ring = 0.4570457994644658 - 2.2852289973223288 * zz
        basis += [
            -0.59004358992664352 * (x * sin2 + y * cos2), 1.4453057213202769 * z * sin2, ring * y,
            z * (1.8658816629505769 * zz - 1.1195289977703462), ring * x, 1.4453057213202769 * z * cos2,
            -0.59004358992664352 * (x * cos2 - y * sin2),
        ]  # fmt: skip
    return ((torch.stack(basis, -1)[..., None] * sh[:, : len(basis)]).sum(1) + 0.5).clamp_min(0)


def rotate_harmonics(features_rest: Tensor, rotation: NDArray[np.float64]) -> Tensor:
    """SH coefficients [N, K-1, 3] of bands 1 and up such that the colour seen along R d is what it was along d."""
    out, start = features_rest.clone(), 0
    for band in (1, 2, 3):
        part = slice(start, start + 2 * band + 1)
        if part.stop > features_rest.shape[1]:
            break
        matrix = torch.from_numpy(band_rotation(band, rotation)).to(features_rest.dtype)
        out[:, part] = torch.einsum("ij,njc->nic", matrix, features_rest[:, part])
        start = part.stop
    return out


def band_rotation(band: int, rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """The matrix M [2l+1, 2l+1] with Y(R d) @ M = Y(d) for all directions d, Y the harmonics of band l.

    A rotation maps each band onto itself, so M exists; it is solved for from directions spread over the sphere, with
    the very basis that renders.
    """
    directions = _directions()
    matrix: NDArray[np.float64] = np.linalg.lstsq(
        _basis(band, directions @ rotation.T), _basis(band, directions), rcond=None
    )[0]
    return matrix


@functools.cache
def _directions() -> NDArray[np.float64]:
    """[64, 3] unit vectors, spread evenly (a Fibonacci spiral)."""
    i = np.arange(64) + 0.5
    z, turn = 1 - 2 * i / 64, np.pi * (1 + 5**0.5) * i
    radius = np.sqrt(1 - z * z)
    return np.stack([radius * np.cos(turn), radius * np.sin(turn), z], 1)


def _basis(band: int, directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """[P, 2l+1] values of the harmonics of one band."""
    columns = []
    for k in range(band * band, (band + 1) ** 2):
        sh = torch.zeros(1, (band + 1) ** 2, 3, dtype=torch.float64)
        sh[:, k, 0] = 0.1  # small, so that the clamp at 0 of a colour never acts
        colors = sh_colors(band, torch.from_numpy(directions), sh.expand(len(directions), -1, -1))
        columns.append((colors[:, 0].numpy() - 0.5) / 0.1)
    return np.stack(columns, 1)
