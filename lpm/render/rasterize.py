"""Rasterize: one signature; the native CPU kernels, their torch twin, or gsplat on CUDA do the work."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from lpm.checks import check_finite, check_shape, fail
from lpm.cuda.native import native

RenderMode = Literal["RGB", "D", "ED", "RGB+D", "RGB+ED"]
RasterizeMode = Literal["classic", "antialiased"]
MAX_CHANNELS = 16
MAX_SH_DEGREE = 3


def rasterize(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor | tuple[Tensor, Tensor],
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    *,
    sh_degree: int | None = None,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    eps2d: float = 0.3,
    radius_clip: float = 0.0,
    backgrounds: Tensor | None = None,
    render_mode: RenderMode = "RGB",
    rasterize_mode: RasterizeMode = "classic",
    absgrad: bool = False,
    log_scales: bool = False,
    logit_opacities: bool = False,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Draws N Gaussians into C pinhole cameras, differentiably; the semantics are those of gsplat 1.5.

    Args:
        means: [N, 3], world.
        quats: [N, 4], wxyz, of any length above 0.
        scales: [N, 3], standard deviations in world units (not their logarithms).
        opacities: [N], in 0..1 (not logits).
        colors: with `sh_degree`, spherical harmonics [N, K, 3] or, which saves a copy of all of them, the pair
            ([N, 1, 3], [N, K-1, 3]), K >= (sh_degree + 1)^2; else values to blend, [N, D] or per camera [C, N, D].
        viewmats: [C, 4, 4], world to camera (OpenCV axes); the last row is taken as 0 0 0 1.
        Ks: [C, 3, 3], pixels. Not differentiable.
        width, height: pixels.
        sh_degree: 0 to 3; None: `colors` are values.
        near_plane, far_plane: range of depths drawn, world units.
        eps2d: added to the variances on the screen, pixels^2.
        radius_clip: splats with both radii (pixels) at or below this are not drawn.
        backgrounds: [C, D] (3 for harmonics), shows where alpha is below 1; depth has none.
        render_mode: D: accumulated depth; ED: expected depth, that is D / alpha; always the last channel.
        rasterize_mode: `antialiased` dims what the low-pass filter of eps2d enlarged (Mip-Splatting, eq. 9).
        absgrad: the backward pass also sets `meta["means2d"].absgrad`, the sum over pixels of |d loss / d mean|
            (AbsGS), of the shape of means2d.
        log_scales: `scales` are the logarithms, as they are trained.
        logit_opacities: `opacities` are the logits, as they are trained.

    Returns:
        colors [C, H, W, X], alphas [C, H, W, 1], and meta: radii [C, N, 2] int32 (pixels, 0: not drawn), means2d
        [C, N, 2] (pixels; call `retain_grad()` on it for its gradient), depths [C, N], conics [C, N, 3], opacities
        [C, N] (compensated ones under `antialiased`), width, height, n_cameras, gaussian_ids None.

    All inputs but Ks have gradients. The same bits come out for any number of CPU threads.

    Raises:
        LpmError: wrong shapes, types, devices or options; on the CPU also a NaN or infinity in a point (the row is
            named). On CUDA values are not looked at, since that would make the host wait for the device.

    Source: Kerbl 2023 (3DGS), Zwicker 2001 (EWA splatting).
    """
    arguments = (means, quats, scales, opacities, colors, viewmats, Ks, width, height)
    options: dict[str, Any] = dict(
        sh_degree=sh_degree, near_plane=near_plane, far_plane=far_plane, eps2d=eps2d, radius_clip=radius_clip,
        backgrounds=backgrounds, render_mode=render_mode, rasterize_mode=rasterize_mode, absgrad=absgrad,
    )  # fmt: skip
    _check(*arguments, **options)
    if means.device.type == "cuda":
        from lpm.render.gsplat_backend import rasterize_gsplat

        return rasterize_gsplat(*_activated(arguments, log_scales, logit_opacities), **options)
    if means.device.type != "cpu":
        fail("means", f"device {means.device}", "cpu or cuda")
    for name, tensor in (("viewmats", viewmats), ("Ks", Ks), ("backgrounds", backgrounds)):
        if tensor is not None:
            check_finite(name, tensor.detach())
    library = native()
    if library is None:
        from lpm.render.torch_backend import rasterize_torch

        return rasterize_torch(*_activated(arguments, log_scales, logit_opacities), **options)

    from lpm.render.native_backend import rasterize_native

    return rasterize_native(library, *arguments, **options, log_scales=log_scales, logit_opacities=logit_opacities)


def _activated(arguments: tuple[Any, ...], log_scales: bool, logit_opacities: bool) -> tuple[Any, ...]:
    scales, opacities = arguments[2:4]
    scales = scales.exp() if log_scales else scales
    return (*arguments[:2], scales, opacities.sigmoid() if logit_opacities else opacities, *arguments[4:])


def _check(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor | tuple[Tensor, Tensor],
    viewmats: Tensor, Ks: Tensor, width: int, height: int, *, sh_degree: int | None, near_plane: float,
    far_plane: float, eps2d: float, radius_clip: float, backgrounds: Tensor | None, render_mode: RenderMode,
    rasterize_mode: RasterizeMode, absgrad: bool,
) -> None:  # fmt: skip
    """Everything that can be checked without reading the points."""
    n, cameras = len(means), len(viewmats)
    check_shape("means", means, [None, 3])
    check_shape("quats", quats, [n, 4])
    check_shape("scales", scales, [n, 3])
    check_shape("opacities", opacities, [n])
    check_shape("viewmats", viewmats, [None, 4, 4])
    check_shape("Ks", Ks, [cameras, 3, 3])
    named = dict(means=means, quats=quats, scales=scales, opacities=opacities, viewmats=viewmats, Ks=Ks)
    parts = {"colors[0]": colors[0], "colors[1]": colors[1]} if isinstance(colors, tuple) else {"colors": colors}
    named.update(parts)
    if backgrounds is not None:
        named["backgrounds"] = backgrounds
    for name, tensor in named.items():
        if tensor.dtype not in (torch.float32, torch.float64):
            fail(name, str(tensor.dtype), "torch.float32 or torch.float64")
        if tensor.dtype != means.dtype:
            fail(name, str(tensor.dtype), f"{means.dtype} as means", "convert one of them")
        if tensor.device != means.device:
            fail(name, f"device {tensor.device}", f"{means.device} as means", "move one of them")
    if cameras < 1:
        fail("viewmats", "no camera", "at least one")
    if cameras * n >= 2**31:
        fail("means", f"{n} points in {cameras} cameras", "fewer than 2^31 splats", "draw fewer cameras at once")
    for name, size in (("width", width), ("height", height)):
        if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= 2**15:
            fail(name, repr(size), "an int from 1 to 32768")
    if render_mode not in ("RGB", "D", "ED", "RGB+D", "RGB+ED"):
        fail("render_mode", repr(render_mode), "RGB, D, ED, RGB+D or RGB+ED")
    if rasterize_mode not in ("classic", "antialiased"):
        fail("rasterize_mode", repr(rasterize_mode), "classic or antialiased")
    if not near_plane > 0:
        fail("near_plane", repr(near_plane), "a number above 0")

    if sh_degree is not None:
        if sh_degree not in range(MAX_SH_DEGREE + 1):
            fail("sh_degree", repr(sh_degree), "None, 0, 1, 2 or 3")
        bases = (sh_degree + 1) ** 2
        if isinstance(colors, tuple):
            check_shape("colors[0]", colors[0], [n, 1, 3])
            check_shape("colors[1]", colors[1], [n, None, 3])
            given = 1 + colors[1].shape[1]
        else:
            check_shape("colors", colors, [n, None, 3])
            given = colors.shape[1]
        if given < bases:
            fail("colors", f"{given} harmonics", f"at least {bases} for sh_degree={sh_degree}")
        own = 3
    else:
        if isinstance(colors, tuple):
            fail("colors", "a pair without sh_degree", "[N, D], [C, N, D], or sh_degree for harmonics")
        check_shape("colors", colors, [n, None] if colors.dim() == 2 else [cameras, n, None])
        own = colors.shape[-1]
    channels = own + 1 if render_mode in ("RGB+D", "RGB+ED") else own
    if render_mode not in ("D", "ED") and not 1 <= channels <= MAX_CHANNELS:
        fail("colors", f"{channels} channels, depth included", f"1 to {MAX_CHANNELS}", "blend them in several calls")
    if backgrounds is not None:
        check_shape("backgrounds", backgrounds, [cameras, own])
