"""Rasterize: one signature for all devices. The CPU path lives here; CUDA tensors go to gsplat."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from lpm.checks import check_finite, check_shape, fail
from lpm.cuda.native import NativeLibrary, native

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

    Returns:
        colors [C, H, W, X], alphas [C, H, W, 1], and meta: radii [C, N, 2] int32 (pixels, 0: not drawn), means2d
        [C, N, 2] (pixels; call `retain_grad()` on it for its gradient), depths [C, N], conics [C, N, 3], opacities
        [C, N] (compensated ones under `antialiased`), width, height, n_cameras, gaussian_ids None.

    All inputs but Ks have gradients. The same bits come out for any number of CPU threads.

    Raises:
        LpmError: wrong shapes, types, devices or options; a NaN or infinity in a point (the row is named).

    Source: Kerbl 2023 (3DGS), Zwicker 2001 (EWA splatting).
    """
    pair = isinstance(colors, tuple)
    arguments = (means, quats, scales, opacities, colors, viewmats, Ks, width, height)
    options: dict[str, Any] = dict(
        sh_degree=sh_degree, near_plane=near_plane, far_plane=far_plane, eps2d=eps2d, radius_clip=radius_clip,
        backgrounds=backgrounds, render_mode=render_mode, rasterize_mode=rasterize_mode, absgrad=absgrad,
    )  # fmt: skip
    _check(*arguments, **options)
    if means.device.type == "cuda":
        from lpm.rasterize_gsplat import rasterize_gsplat

        return rasterize_gsplat(*arguments, **options)
    if means.device.type != "cpu":
        fail("means", f"device {means.device}", "cpu or cuda")
    library = native()
    if library is None:
        from lpm.rasterize_torch import rasterize_torch

        return rasterize_torch(*arguments, **options)

    n, cameras = len(means), len(viewmats)
    antialiased = rasterize_mode == "antialiased"
    draws_color = render_mode not in ("D", "ED")
    sh0, shN = (colors if pair else (colors, None)) if sh_degree is not None and draws_color else (None, None)
    tensors = (means, quats, scales, opacities, sh0, shN, viewmats, Ks, backgrounds, None if pair else colors)
    keeps = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    radii, means2d, depths, conics, splat_opacities, sh_colors = _Project.apply(
        means, quats, scales, opacities, sh0, shN, viewmats, Ks.detach(), width, height,
        (near_plane, far_plane, eps2d, radius_clip), antialiased, sh_degree, library,
    )  # fmt: skip
    if not antialiased:
        splat_opacities = opacities.expand(cameras, n)
    values = None
    if draws_color:
        values = sh_colors if sh_degree is not None else colors
    out, alphas = _Raster.apply(
        means2d, conics, values, splat_opacities, depths, radii, backgrounds if draws_color else None, width, height,
        render_mode, absgrad, keeps, library,
    )  # fmt: skip
    meta = dict(
        radii=radii, means2d=means2d, depths=depths, conics=conics, opacities=splat_opacities, width=width,
        height=height, n_cameras=cameras, gaussian_ids=None,
    )  # fmt: skip
    return out, alphas, meta


def _check(
    means, quats, scales, opacities, colors, viewmats, Ks, width, height, *, sh_degree, near_plane, far_plane, eps2d,
    radius_clip, backgrounds, render_mode, rasterize_mode, absgrad,
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
    if cameras * n >= 2**31 or cameras * n * max(16, means.dim()) >= 2**40:
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
        channels = 3
    else:
        if isinstance(colors, tuple):
            fail("colors", "a pair without sh_degree", "[N, D], [C, N, D], or sh_degree for harmonics")
        check_shape("colors", colors, [n, None] if colors.dim() == 2 else [cameras, n, None])
        channels = colors.shape[-1]
    if render_mode in ("RGB+D", "RGB+ED"):
        channels += 1
    if render_mode not in ("D", "ED") and not 1 <= channels <= MAX_CHANNELS:
        fail("colors", f"{channels} channels, depth included", f"1 to {MAX_CHANNELS}", "blend them in several calls")
    if backgrounds is not None:
        check_shape("backgrounds", backgrounds, [cameras, 3 if sh_degree is not None else colors.shape[-1]])


def _ready(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().contiguous()


def _sh_arguments(sh0: Tensor | None, shN: Tensor | None, degree: int | None) -> list:
    """Degree, pointers, and strides of one array [N, K, 3] or of the two that it can be given in."""
    if sh0 is None:
        return [-1, None, 0, None, 0, 0]
    if shN is not None:
        rest = shN.shape[1]
        return [degree, sh0, 3, shN, 3 * rest, rest]
    rest = sh0.shape[1] - 1
    return [degree, sh0, 3 * (rest + 1), sh0.data_ptr() + 3 * sh0.element_size(), 3 * (rest + 1), rest]


class _Project(torch.autograd.Function):
    """Projection and harmonics, fused."""

    @staticmethod
    def forward(
        ctx, means, quats, scales, opacities, sh0, shN, viewmats, Ks, width, height, cull, antialiased, degree, library
    ):
        inputs = tuple(map(_ready, (means, quats, scales, opacities, viewmats, Ks)))
        sh0, shN = _ready(sh0), _ready(shN)
        n, cameras = len(means), len(viewmats)
        radii = means.new_empty(cameras, n, 2, dtype=torch.int32)
        means2d, depths, conics = (means.new_empty(cameras, n, *k) for k in ([2], [], [3]))
        splat_opacities = means.new_empty(cameras, n) if antialiased else None
        colors = None if sh0 is None else means.new_empty(cameras, n, 3)
        bad = library.call(
            "project_forward", means.dtype, n, cameras, *inputs, width, height, *cull, int(antialiased),
            *_sh_arguments(sh0, shN, degree), radii, means2d, depths, conics, splat_opacities, colors,
        )  # fmt: skip
        if bad:
            _name_bad_row(means, quats, scales, opacities, sh0, shN)
        ctx.save_for_backward(*inputs, sh0, shN, radii, colors)
        ctx.options = (width, height, cull, antialiased, degree, library)
        ctx.mark_non_differentiable(radii)
        ctx.set_materialize_grads(False)
        return radii, means2d, depths, conics, splat_opacities, colors

    @staticmethod
    def backward(ctx, _, grad_means2d, grad_depths, grad_conics, grad_splat_opacities, grad_colors):
        means, quats, scales, opacities, viewmats, Ks, sh0, shN, radii, colors = ctx.saved_tensors
        width, height, cull, antialiased, degree, library = ctx.options
        n, cameras = len(means), len(viewmats)
        if grad_means2d is None:
            grad_means2d = means.new_zeros(cameras, n, 2)
        if grad_conics is None:
            grad_conics = means.new_zeros(cameras, n, 3)
        if colors is not None and grad_colors is None:
            grad_colors = means.new_zeros(cameras, n, 3)
        given = map(_ready, (grad_means2d, grad_depths, grad_conics, grad_splat_opacities, grad_colors))
        out = [torch.empty_like(t) for t in (means, quats, scales)]
        out_opacities = torch.empty_like(opacities) if antialiased else None
        out_sh0, out_shN = (None if t is None else torch.empty_like(t) for t in (sh0, shN))
        out_viewmats = torch.empty_like(viewmats) if ctx.needs_input_grad[6] else None
        grad_sh = _sh_arguments(out_sh0, out_shN, degree)
        kept = list(given)
        library.call(
            "project_backward", means.dtype, n, cameras, means, quats, scales, opacities, viewmats, Ks, width, height,
            cull[2], int(antialiased), *_sh_arguments(sh0, shN, degree), radii, colors, *kept, *out, out_opacities,
            grad_sh[1], grad_sh[3], out_viewmats,
        )  # fmt: skip
        return (*out, out_opacities, out_sh0, out_shN, out_viewmats, *[None] * 7)


def _name_bad_row(means, quats, scales, opacities, sh0, shN) -> None:
    """Raises LpmError for the first tensor with a NaN or infinity. Called only when the kernel met one."""
    names = dict(means=means, quats=quats, scales=scales, opacities=opacities)
    names.update({"colors": sh0} if shN is None else {"colors[0]": sh0, "colors[1]": shN})
    for name, tensor in names.items():
        if tensor is not None:
            check_finite(name, tensor.detach())
    fail("colors", "harmonics whose sum is not finite", "finite colours")


class _Raster(torch.autograd.Function):
    """Binning and blending, fused. `colors` [N, D], [C, N, D] or None (depth only)."""

    @staticmethod
    def forward(
        ctx, means2d, conics, colors, opacities, depths, radii, backgrounds, width, height, mode, absgrad, keeps, library
    ):
        cameras, n = depths.shape
        dtype = means2d.dtype
        packed_inputs = tuple(map(_ready, (means2d, conics, opacities)))
        depth_values = _ready(depths)
        values = means2d.new_empty(n, 0) if colors is None else _ready(colors)
        channels = values.shape[-1]
        camera_stride = values[0].numel() if values.dim() == 3 else 0
        background = _ready(backgrounds)
        drawn_depths = depth_values if mode != "RGB" else None
        tiles = cameras * -(-width // 16) * -(-height // 16)

        packed = means2d.new_empty(cameras * n, 8)
        splat_begin = torch.empty(cameras * n + 1, dtype=torch.int64)
        tile_begin = torch.empty(tiles + 1, dtype=torch.int64)
        pairs = library.call(
            "bin_count", dtype, n, cameras, *packed_inputs, radii, values, camera_stride, channels, width, height,
            packed, splat_begin, tile_begin,
        )  # fmt: skip
        if pairs < 0:
            check_finite("colors", values if values.dim() == 2 else values.flatten(0, 1))
        if pairs >= 2**31:
            fail("means", f"{pairs} pairs of splat and tile", "fewer than 2^31", "draw fewer cameras or smaller splats")
        pair_splat = torch.empty(pairs, dtype=torch.int32)
        pair_slot = torch.empty(pairs, dtype=torch.int32) if keeps else None
        library.call(
            "bin_fill", dtype, n, cameras, depth_values, packed, splat_begin, tile_begin, width, height, pair_splat,
            pair_slot,
        )  # fmt: skip
        out = means2d.new_empty(cameras, height, width, channels + (drawn_depths is not None))
        alphas = means2d.new_empty(cameras, height, width, 1)
        visited = torch.empty(tiles, dtype=torch.int32) if keeps else None
        library.call(
            "raster_forward", dtype, n, cameras, width, height, packed, values, camera_stride, channels, drawn_depths,
            int(mode.endswith("ED")), tile_begin, pair_splat, background, out, alphas, visited,
        )  # fmt: skip
        if keeps:
            ctx.save_for_backward(
                means2d, values, packed, depth_values, splat_begin, tile_begin, pair_splat, pair_slot, visited, out, alphas
            )
        ctx.options = (width, height, mode, absgrad, camera_stride, library)
        return out, alphas

    @staticmethod
    def backward(ctx, grad_out, grad_alphas):
        saved = ctx.saved_tensors
        means2d, values, packed, depths, splat_begin, tile_begin, pair_splat, pair_slot, visited, out, alphas = saved
        width, height, mode, absgrad, camera_stride, library = ctx.options
        cameras, n = depths.shape
        dtype, channels = means2d.dtype, values.shape[-1]
        grad_out, grad_alphas = grad_out.contiguous(), grad_alphas.contiguous()
        drawn_depths = depths if mode != "RGB" else None
        slots = means2d.new_empty(len(pair_splat), library.slot_size(out.shape[-1], absgrad, dtype))
        grad_means2d, grad_conics, grad_opacities = (means2d.new_empty(cameras, n, *k) for k in ([2], [3], []))
        grad_depths = torch.empty_like(depths) if drawn_depths is not None else None
        grad_values = torch.empty_like(values)
        absolute = torch.empty_like(grad_means2d) if absgrad else None
        library.call(
            "raster_backward", dtype, n, cameras, width, height, packed, values, camera_stride, channels, drawn_depths,
            int(mode.endswith("ED")), tile_begin, pair_splat, splat_begin, pair_slot, out, alphas, visited, grad_out,
            grad_alphas, slots, grad_means2d, grad_conics, grad_opacities, grad_depths, absolute, grad_values,
        )  # fmt: skip
        if absgrad:
            means2d.absgrad = absolute
        grad_backgrounds = None
        if ctx.needs_input_grad[6]:
            grad_backgrounds = ((1 - alphas) * grad_out[..., :channels]).sum((1, 2))
        grad_colors = grad_values if channels else None
        return (grad_means2d, grad_conics, grad_colors, grad_opacities, grad_depths, None, grad_backgrounds, *[None] * 6)
