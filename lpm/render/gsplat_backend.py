"""CUDA tensors go to gsplat (Apache-2.0), whose versions 1.4 to 1.6 differ here and are made alike here."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from lpm.checks import fail
from lpm.render.rasterize import RasterizeMode, RenderMode


def rasterize_gsplat(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor | tuple[Tensor, Tensor],
    viewmats: Tensor, Ks: Tensor, width: int, height: int, *, sh_degree: int | None = None, near_plane: float = 0.01,
    far_plane: float = 1e10, eps2d: float = 0.3, radius_clip: float = 0.0, backgrounds: Tensor | None = None,
    render_mode: RenderMode = "RGB", rasterize_mode: RasterizeMode = "classic", absgrad: bool = False,
) -> tuple[Tensor, Tensor, dict[str, Any]]:  # fmt: skip
    """As `lpm.render.rasterize.rasterize`, which checks the shapes, by `gsplat.rasterization(packed=False)`.

    meta holds all that gsplat gives, with radii [C, N, 2] int32 from every version, and means2d the very tensor that
    gsplat rasterized, so that `retain_grad()` and `.absgrad` work. A pair of harmonics is concatenated. Harmonics are
    evaluated by gsplat's kernel, but before its rasterization(): that inverts viewmats with a check that the host waits
    for, and gives their last row a gradient.

    Raises LpmError for float64, and where gsplat is missing.
    """
    if means.dtype != torch.float32:
        fail("means", str(means.dtype), "torch.float32 on a CUDA device", "call .float(), or rasterize on the CPU")
    _show_toolkit()
    try:
        from gsplat import rasterization
    except ImportError as error:
        fail("gsplat", f"{error}", "gsplat 1.4 to 1.6", "pip install gsplat")
    colors = torch.cat(colors, 1) if isinstance(colors, tuple) else colors
    if sh_degree is not None:
        colors = _seen_colors(sh_degree, means, colors, viewmats)
    if render_mode in ("D", "ED"):
        backgrounds = None  # depth has no background; versions differ in what they make of one
    out, alphas, meta = rasterization(
        means=means, quats=quats, scales=scales, opacities=opacities, colors=colors, viewmats=viewmats, Ks=Ks,
        width=width, height=height, near_plane=near_plane, far_plane=far_plane, radius_clip=radius_clip, eps2d=eps2d,
        sh_degree=None, packed=False, backgrounds=backgrounds, render_mode=render_mode, absgrad=absgrad,
        rasterize_mode=rasterize_mode,
    )  # fmt: skip
    radii = meta["radii"]
    if radii.dim() == 2:  # 1.4: one radius for both axes
        radii = radii[..., None].expand(-1, -1, 2)
    meta = dict(meta, radii=radii.int(), width=width, height=height, n_cameras=len(viewmats), gaussian_ids=None)
    return out, alphas, meta


@cache
def _show_toolkit() -> None:
    """gsplat compiles its kernels at first use, and must find CUDA then."""
    from lpm.cuda.build import show_toolkit

    show_toolkit()


def _seen_colors(degree: int, means: Tensor, harmonics: Tensor, viewmats: Tensor) -> Tensor:
    """[C, N, 3] colours, at least 0, of `harmonics` [N, K, 3] of points at `means` [N, 3] as each camera sees them."""
    from gsplat import spherical_harmonics

    directions = means[None] - _centres(viewmats)[:, None]
    colors: Tensor = spherical_harmonics(degree, directions, harmonics.expand(len(viewmats), -1, -1, -1))
    return (colors + 0.5).clamp_min(0.0)


def _centres(viewmats: Tensor) -> Tensor:
    """Camera centres -R^-1 t [C, 3], world, of viewmats [C, 4, 4] of which R need not be a rotation.

    By the adjugate: no pivoting, no check, and only the first three rows are read and have gradients.
    """
    a, b, c = viewmats[:, :3, :3].unbind(1)
    ab, bc, ca = (torch.linalg.cross(p, q) for p, q in ((a, b), (b, c), (c, a)))
    x, y, z = viewmats[:, :3, 3:].unbind(1)
    centres: Tensor = -(x * bc + y * ca + z * ab) / (a * bc).sum(-1, keepdim=True)
    return centres
