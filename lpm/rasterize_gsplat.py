"""CUDA tensors go to gsplat (Apache-2.0), whose versions 1.4 to 1.6 differ here and are made alike here."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lpm.checks import fail


def rasterize_gsplat(
    means, quats, scales, opacities, colors, viewmats, Ks, width, height, *, sh_degree=None, near_plane=0.01,
    far_plane=1e10, eps2d=0.3, radius_clip=0.0, backgrounds=None, render_mode="RGB", rasterize_mode="classic",
    absgrad=False,
) -> tuple[Tensor, Tensor, dict[str, Any]]:  # fmt: skip
    """As `lpm.rasterize.rasterize`, which checks the shapes, by `gsplat.rasterization(packed=False)`.

    meta holds all that gsplat gives, with radii [C, N, 2] int32 from every version, and means2d the very tensor that
    gsplat rasterized, so that `retain_grad()` and `.absgrad` work. A pair of harmonics is concatenated.

    Raises LpmError for float64, and where gsplat is missing.
    """
    if means.dtype != torch.float32:
        fail("means", str(means.dtype), "torch.float32 on a CUDA device", "call .float(), or rasterize on the CPU")
    try:
        from gsplat import rasterization
    except ImportError as error:
        fail("gsplat", f"{error}", "gsplat 1.4 to 1.6", "pip install gsplat")
    colors = torch.cat(colors, 1) if isinstance(colors, tuple) else colors
    if render_mode in ("D", "ED"):
        backgrounds = None  # depth has no background; versions differ in what they make of one
    out, alphas, meta = rasterization(
        means=means, quats=quats, scales=scales, opacities=opacities, colors=colors, viewmats=viewmats, Ks=Ks,
        width=width, height=height, near_plane=near_plane, far_plane=far_plane, radius_clip=radius_clip, eps2d=eps2d,
        sh_degree=sh_degree, packed=False, backgrounds=backgrounds, render_mode=render_mode, absgrad=absgrad,
        rasterize_mode=rasterize_mode,
    )  # fmt: skip
    radii = meta["radii"]
    if radii.dim() == 2:  # 1.4: one radius for both axes
        radii = radii[..., None].expand(-1, -1, 2)
    meta = dict(meta, radii=radii.int(), width=width, height=height, n_cameras=len(viewmats), gaussian_ids=None)
    return out, alphas, meta
