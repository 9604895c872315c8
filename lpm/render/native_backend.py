"""Autograd around the CPU kernels: two fused Functions, (projection + harmonics) and (binning + blending).

`lpm.render.rasterize` is the way in; arguments are checked there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lpm.checks import check_finite, fail
from lpm.cuda.native import NativeLibrary
from lpm.render.rasterize import RasterizeMode, RenderMode

TILE = 16
"""Side of the rasterizer's tiles, pixels; include/tiles.h has the same."""


def rasterize_native(
    library: NativeLibrary, means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor,
    colors: Tensor | tuple[Tensor, Tensor], viewmats: Tensor, Ks: Tensor, width: int, height: int, *,
    sh_degree: int | None, near_plane: float, far_plane: float, eps2d: float, radius_clip: float,
    backgrounds: Tensor | None, render_mode: RenderMode, rasterize_mode: RasterizeMode, absgrad: bool,
    log_scales: bool, logit_opacities: bool,
) -> tuple[Tensor, Tensor, dict[str, Any]]:  # fmt: skip
    """`lpm.render.rasterize.rasterize` by the CPU kernels."""
    n, cameras = len(means), len(viewmats)
    antialiased = rasterize_mode == "antialiased"
    draws_color = render_mode not in ("D", "ED")
    harmonics = colors if isinstance(colors, tuple) else (colors, None)
    sh0, shN = harmonics if sh_degree is not None and draws_color else (None, None)
    given = None if isinstance(colors, tuple) else colors
    tensors = (means, quats, scales, opacities, sh0, shN, viewmats, Ks, backgrounds, given)
    keeps = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    # apply() has no types in torch.
    radii, means2d, depths, conics, splat_opacities, sh_colors = _Project.apply(  # type: ignore[no-untyped-call]
        means, quats, scales, opacities, sh0, shN, viewmats, Ks, (width, height),
        (near_plane, far_plane, eps2d, radius_clip), antialiased, sh_degree, log_scales, logit_opacities, library,
    )  # fmt: skip
    if splat_opacities is None:  # for one camera a view, whose gradient need not be summed up
        splat_opacities = opacities[None] if cameras == 1 else opacities.expand(cameras, n)
    values = None
    if draws_color:
        values = sh_colors if sh_degree is not None else colors
    out, alphas = _Raster.apply(  # type: ignore[no-untyped-call]
        means2d, conics, values, splat_opacities, depths, radii, backgrounds if draws_color else None,
        (width, height), render_mode, absgrad, keeps, library,
    )  # fmt: skip
    meta = dict(
        radii=radii, means2d=means2d, depths=depths, conics=conics, opacities=splat_opacities, width=width,
        height=height, n_cameras=cameras, gaussian_ids=None,
    )  # fmt: skip
    return out, alphas, meta


def rasterize_strips(
    library: NativeLibrary, means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor,
    colors: tuple[Tensor, Tensor], viewmats: Tensor, Ks: Tensor, width: int, height: int, *, rows: int,
    sh_degree: int, backgrounds: Tensor | None = None, rasterize_mode: RasterizeMode = "classic",
    near_plane: float = 0.01, far_plane: float = 1e10, eps2d: float = 0.3,
) -> Iterator[Tensor]:  # fmt: skip
    """The colours of `rasterize_native`, [C, R, W, 3] at a time from the top, without gradients.

    Whoever draws for somebody who may turn away meanwhile can stop in between. R is `rows` rounded up to whole tiles,
    less in the last strip; together the strips are the very picture, since it is projected once and as a whole.
    """
    means, quats, scales, opacities = (t.detach() for t in (means, quats, scales, opacities))
    sh0, shN = (t.detach() for t in colors)
    antialiased = rasterize_mode == "antialiased"
    with torch.no_grad():
        radii, means2d, depths, conics, splat_opacities, values = _Project.apply(  # type: ignore[no-untyped-call]
            means, quats, scales, opacities, sh0, shN, viewmats, Ks, (width, height),
            (near_plane, far_plane, eps2d, 0.0), antialiased, sh_degree, False, False, library,
        )  # fmt: skip
        if not antialiased:
            splat_opacities = opacities.expand(len(viewmats), len(means))
        rows = -(-rows // TILE) * TILE
        for top in range(0, height, rows):
            moved = means2d - means2d.new_tensor([0.0, top])
            size = (width, min(rows, height - top))
            yield _Raster.apply(  # type: ignore[no-untyped-call]
                moved, conics, values, splat_opacities, depths, radii, backgrounds, size, "RGB", False, False, library
            )[0]


def _ready(tensor: Any) -> Any:
    """A contiguous tensor without its history, or None for None."""
    return None if tensor is None else tensor.detach().contiguous()


def _sh_arguments(sh0: Tensor | None, shN: Tensor | None, degree: int | None) -> list[Tensor | int | None]:
    """Degree, pointers, and strides of one array [N, K, 3] or of the two that it can be given in."""
    if sh0 is None:
        return [-1, None, 0, None, 0, 0]
    if shN is not None:
        rest = shN.shape[1]
        return [degree, sh0, 3, shN, 3 * rest, rest]
    rest = sh0.shape[1] - 1
    return [degree, sh0, 3 * (rest + 1), sh0.data_ptr() + 3 * sh0.element_size(), 3 * (rest + 1), rest]


class _Project(torch.autograd.Function):
    """Projection and harmonics, fused; with `log_scales` the scales' exponential, with `logit_opacities` the sigmoid.

    Without that and `antialiased` there are no opacities of splats: they are those of the points.
    """

    @staticmethod
    def forward(
        ctx: Any, means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, sh0: Tensor | None,
        shN: Tensor | None, viewmats: Tensor, Ks: Tensor, size: tuple[int, int],
        cull: tuple[float, float, float, float], antialiased: bool, degree: int | None, log_scales: bool,
        logit_opacities: bool, library: NativeLibrary,
    ) -> tuple[Tensor | None, ...]:  # fmt: skip
        scales = scales.exp() if log_scales else scales
        opacities = opacities.sigmoid() if logit_opacities else opacities
        inputs = tuple(map(_ready, (means, quats, scales, opacities, viewmats, Ks)))
        sh0, shN = _ready(sh0), _ready(shN)
        n, cameras = len(means), len(viewmats)
        radii = means.new_empty(cameras, n, 2, dtype=torch.int32)
        means2d, depths, conics = (means.new_empty(cameras, n, *k) for k in ([2], [], [3]))
        splat_opacities = means.new_empty(cameras, n) if antialiased else None
        colors = None if sh0 is None else means.new_empty(cameras, n, 3)
        bad = library.call(
            "project_forward", means.dtype, n, cameras, *inputs, *size, *cull, int(antialiased),
            *_sh_arguments(sh0, shN, degree), radii, means2d, depths, conics, splat_opacities, colors,
        )  # fmt: skip
        if bad:
            _name_bad_row(means, quats, scales, opacities, sh0, shN)
        ctx.save_for_backward(*inputs, sh0, shN, radii, colors)
        if logit_opacities and not antialiased:
            splat_opacities = opacities.expand(cameras, n)
        ctx.options = (size, cull, antialiased, degree, log_scales, logit_opacities, library)
        ctx.mark_non_differentiable(radii)
        ctx.set_materialize_grads(False)
        return radii, means2d, depths, conics, splat_opacities, colors

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, _: None, grad_means2d: Tensor | None, grad_depths: Tensor | None, grad_conics: Tensor | None,
        grad_splat_opacities: Tensor | None, grad_colors: Tensor | None,
    ) -> tuple[Tensor | None, ...]:  # fmt: skip
        means, quats, scales, opacities, viewmats, Ks, sh0, shN, radii, colors = ctx.saved_tensors
        size, cull, antialiased, degree, log_scales, logit_opacities, library = ctx.options
        n, cameras = len(means), len(viewmats)
        if grad_means2d is None:
            grad_means2d = means.new_zeros(cameras, n, 2)
        if grad_conics is None:
            grad_conics = means.new_zeros(cameras, n, 3)
        if colors is not None and grad_colors is None:
            grad_colors = means.new_zeros(cameras, n, 3)
        given = (grad_means2d, grad_depths, grad_conics, grad_splat_opacities, grad_colors)
        grads = tuple(map(_ready, given))
        out = [torch.empty_like(t) for t in (means, quats, scales)]
        out_opacities = torch.empty_like(opacities) if antialiased or logit_opacities else None
        out_sh0, out_shN = (None if t is None else torch.empty_like(t) for t in (sh0, shN))
        out_viewmats = torch.empty_like(viewmats) if ctx.needs_input_grad[6] else None
        grad_sh = _sh_arguments(out_sh0, out_shN, degree)
        library.call(
            "project_backward", means.dtype, n, cameras, means, quats, scales, opacities, viewmats, Ks, *size,
            cull[2], int(antialiased), *_sh_arguments(sh0, shN, degree), radii, colors, *grads, int(log_scales),
            int(logit_opacities), *out, out_opacities, grad_sh[1], grad_sh[3], out_viewmats,
        )  # fmt: skip
        return (*out, out_opacities, out_sh0, out_shN, out_viewmats, *[None] * 8)


def _name_bad_row(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, sh0: Tensor | None, shN: Tensor | None
) -> None:
    """Raises LpmError for the first tensor with a NaN or infinity. Called only when the kernel met one."""
    names: dict[str, Tensor | None] = dict(means=means, quats=quats, scales=scales, opacities=opacities)
    names.update({"colors": sh0} if shN is None else {"colors[0]": sh0, "colors[1]": shN})
    for name, tensor in names.items():
        if tensor is not None:
            check_finite(name, tensor.detach())
    fail("colors", "harmonics whose sum is not finite", "finite colours")


class _Raster(torch.autograd.Function):
    """Binning and blending, fused. `colors` [N, D], [C, N, D] or None (depth only)."""

    @staticmethod
    def forward(
        ctx: Any, means2d: Tensor, conics: Tensor, colors: Tensor | None, opacities: Tensor, depths: Tensor,
        radii: Tensor, backgrounds: Tensor | None, size: tuple[int, int], mode: RenderMode, absgrad: bool,
        keeps: bool, library: NativeLibrary,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        cameras, n = depths.shape
        dtype = means2d.dtype
        packed_inputs = tuple(map(_ready, (means2d, conics, opacities)))
        depth_values = _ready(depths)
        values = means2d.new_empty(n, 0) if colors is None else _ready(colors)
        channels = values.shape[-1]
        camera_stride = values[0].numel() if values.dim() == 3 else 0
        background = _ready(backgrounds)
        depth_mode = 0 if mode == "RGB" else 2 if mode.endswith("ED") else 1
        width, height = size
        tiles = cameras * -(-width // TILE) * -(-height // TILE)

        packed = means2d.new_empty(cameras * n, 8)
        splat_begin = torch.empty(cameras * n + 1, dtype=torch.int64)
        tile_begin = torch.empty(tiles + 1, dtype=torch.int64)
        pairs = library.call(
            "bin_count", dtype, n, cameras, *packed_inputs, radii, values, camera_stride, channels, *size,
            packed, splat_begin, tile_begin,
        )  # fmt: skip
        if pairs < 0:
            check_finite("colors", values if values.dim() == 2 else values.flatten(0, 1))
        if pairs >= 2**31:
            fail("means", f"{pairs} pairs of splat and tile", "fewer than 2^31", "draw fewer cameras or smaller splats")
        pair_splat = torch.empty(pairs, dtype=torch.int32)
        pair_rows = torch.empty(pairs, dtype=torch.int16)
        pair_slot = torch.empty(pairs, dtype=torch.int32) if keeps else None
        library.call(
            "bin_fill", dtype, n, cameras, depth_values, packed, splat_begin, tile_begin, *size, pair_splat, pair_rows,
            pair_slot,
        )  # fmt: skip
        out = means2d.new_empty(cameras, height, width, channels + (depth_mode > 0))
        alphas = means2d.new_empty(cameras, height, width, 1)
        visited = torch.empty(tiles, dtype=torch.int32) if keeps else None
        library.call(
            "raster_forward", dtype, n, cameras, *size, packed, values, camera_stride, channels, depth_values,
            depth_mode, tile_begin, pair_splat, pair_rows, background, out, alphas, visited,
        )  # fmt: skip
        if keeps:
            lists = (splat_begin, tile_begin, pair_splat, pair_rows, pair_slot, visited)
            ctx.save_for_backward(means2d, values, packed, depth_values, *lists, out, alphas)
        ctx.options = (size, depth_mode, absgrad, camera_stride, library)
        ctx.set_materialize_grads(False)  # a step has none for alphas: zeros that would be written and read
        return out, alphas

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor | None, grad_alphas: Tensor | None) -> tuple[Tensor | None, ...]:
        means2d, values, packed, depths, *lists, out, alphas = ctx.saved_tensors
        splat_begin, tile_begin, pair_splat, pair_rows, pair_slot, visited = lists
        size, depth_mode, absgrad, camera_stride, library = ctx.options
        cameras, n = depths.shape
        dtype, channels = means2d.dtype, values.shape[-1]
        grad_out = torch.zeros_like(out) if grad_out is None else grad_out.contiguous()
        grad_alphas = _ready(grad_alphas)
        grad_values = torch.empty_like(values)
        grad_colors = grad_values if channels else None
        grad_backgrounds = None
        if ctx.needs_input_grad[6]:
            grad_backgrounds = ((1 - alphas) * grad_out[..., :channels]).sum((1, 2))
        if not absgrad and not any(ctx.needs_input_grad[i] for i in (0, 1, 3, 4)):
            slots = means2d.new_empty(len(pair_splat), library.colors_slot_size(channels, dtype))
            library.call(
                "raster_colors_backward", dtype, n, cameras, *size, packed, values, camera_stride, channels,
                tile_begin, pair_splat, pair_rows, splat_begin, pair_slot, visited, grad_out, out.shape[-1], slots,
                grad_values,
            )  # fmt: skip
            return (None, None, grad_colors, None, None, None, grad_backgrounds, *[None] * 5)
        slots = means2d.new_empty(len(pair_splat), library.slot_size(out.shape[-1], absgrad, dtype))
        grad_means2d, grad_conics, grad_opacities = (means2d.new_empty(cameras, n, *k) for k in ([2], [3], []))
        grad_depths = torch.empty_like(depths) if depth_mode else None
        absolute = torch.empty_like(grad_means2d) if absgrad else None
        library.call(
            "raster_backward", dtype, n, cameras, *size, packed, values, camera_stride, channels, depths,
            depth_mode, tile_begin, pair_splat, pair_rows, splat_begin, pair_slot, out, alphas, visited, grad_out,
            grad_alphas, slots, grad_means2d, grad_conics, grad_opacities, grad_depths, absolute, grad_values,
        )  # fmt: skip
        if absgrad:
            means2d.absgrad = absolute
        grads = (grad_means2d, grad_conics, grad_colors, grad_opacities, grad_depths, None, grad_backgrounds)
        return (*grads, *[None] * 5)
