"""The torch twin of the CPU rasterizer: same signature, same semantics, no compiler needed, about 50 times slower.

Projection and harmonics are plain autograd. Blending goes tile by tile and, within a tile, over runs of splats, so that
memory stays bounded; its backward pass is written out, since `absgrad` needs gradients per pixel.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from lpm.checks import check_finite
from lpm.gaussians.spherical_harmonics import sh_colors
from lpm.render.rasterize import RasterizeMode, RenderMode

TILE = 16  # pixels
RUN = 512  # splats blended at once: a run takes RUN * TILE^2 numbers
MIN_ALPHA, MAX_ALPHA, MIN_TRANSMITTANCE, MAX_EXTENT = 1 / 255, 0.999, 1e-4, 3.33


def rasterize_torch(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor | tuple[Tensor, Tensor],
    viewmats: Tensor, Ks: Tensor, width: int, height: int, *, sh_degree: int | None = None, near_plane: float = 0.01,
    far_plane: float = 1e10, eps2d: float = 0.3, radius_clip: float = 0.0, backgrounds: Tensor | None = None,
    render_mode: RenderMode = "RGB", rasterize_mode: RasterizeMode = "classic", absgrad: bool = False,
) -> tuple[Tensor, Tensor, dict[str, Any]]:  # fmt: skip
    """As `lpm.render.rasterize`, which checks the shapes. Raises LpmError for a NaN or infinity, naming the row."""
    for name, tensor in dict(means=means, quats=quats, scales=scales, opacities=opacities).items():
        check_finite(name, tensor.detach())
    if isinstance(colors, tuple):
        colors = torch.cat(colors, 1)
    for per_camera in [colors] if sh_degree is not None or colors.dim() == 2 else colors:
        check_finite("colors", per_camera.detach())
    n = len(means)
    antialiased = rasterize_mode == "antialiased"
    limits = (near_plane, far_plane, eps2d, radius_clip)
    splats: dict[str, list[Tensor]] = dict(means2d=[], conics=[], depths=[], opacities=[], radii=[], values=[])
    for camera, (viewmat, K) in enumerate(zip(viewmats, Ks, strict=True)):
        with torch.no_grad():
            everything = project(means, quats, scales, opacities, viewmat, K, width, height, eps2d, antialiased)
            radii = visible_radii(everything, width, height, *limits)
        # Only what is visible is projected with autograd: times a cotangent of 0, an overflow elsewhere would be NaN.
        rows = (radii > 0).all(-1).nonzero().flatten()
        drawn = project(
            means[rows], quats[rows], scales[rows], opacities[rows], viewmat, K, width, height, eps2d, antialiased
        )
        for name in ("means2d", "conics", "depths", "opacities"):
            full = drawn[name].new_zeros(n, *drawn[name].shape[1:])
            splats[name].append(full.index_copy(0, rows, drawn[name]))
        if not antialiased:
            splats["opacities"][-1] = opacities
        splats["radii"].append(radii)
        if render_mode.startswith("RGB"):
            if sh_degree is None:
                value = colors if colors.dim() == 2 else colors[camera]
            else:
                center = -torch.linalg.inv(viewmat[:3, :3]) @ viewmat[:3, 3]
                seen = sh_colors(sh_degree, means[rows] - center, colors[rows])
                value = seen.new_zeros(n, 3).index_copy(0, rows, seen)
            splats["values"].append(value)
    stacked = {name: torch.stack(tensors) for name, tensors in splats.items() if tensors}
    means2d, depths = stacked["means2d"], stacked["depths"]
    values = [stacked["values"]] if "values" in stacked else []
    if "D" in render_mode:
        values.append(depths[..., None])
    out, alphas = _Blend.apply(  # type: ignore[no-untyped-call]  # of torch
        means2d, stacked["conics"], torch.cat(values, -1), stacked["opacities"], depths, stacked["radii"],
        width, height, absgrad,
    )  # fmt: skip
    if backgrounds is not None and render_mode.startswith("RGB"):
        background = F.pad(backgrounds, (0, out.shape[-1] - backgrounds.shape[-1]))
        out = out + (1 - alphas) * background[:, None, None, :]
    if render_mode.endswith("ED"):
        out = torch.cat([out[..., :-1], out[..., -1:] / alphas.clamp_min(1e-10)], -1)
    meta = dict(
        radii=stacked["radii"], means2d=means2d, depths=depths, conics=stacked["conics"],
        opacities=stacked["opacities"], width=width, height=height, n_cameras=len(viewmats), gaussian_ids=None,
    )  # fmt: skip
    return out, alphas, meta


def project(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, viewmat: Tensor, K: Tensor,
    width: int, height: int, eps2d: float, antialiased: bool,
) -> dict[str, Tensor]:  # fmt: skip
    """Screen mean [N, 2], conic [N, 3], depth, opacity [N], variances [N, 2] and their determinant [N] in one camera.

    Source: Zwicker 2001, eq. 31; Kerbl 2023, eq. 5; Mip-Splatting, eq. 9.
    """
    R, t = viewmat[:3, :3], viewmat[:3, 3]
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    x, y, z = (means @ R.T + t).unbind(-1)
    margin_x, margin_y = 0.15 * width / fx, 0.15 * height / fy
    slope_x = (x / z).clamp(-cx / fx - margin_x, (width - cx) / fx + margin_x)
    slope_y = (y / z).clamp(-cy / fy - margin_y, (height - cy) / fy + margin_y)
    row_u = (fx / z)[:, None] * (R[0] - slope_x[:, None] * R[2])
    row_v = (fy / z)[:, None] * (R[1] - slope_y[:, None] * R[2])
    w, i, j, k = F.normalize(quats, dim=-1).unbind(-1)
    rotation = torch.stack(
        [
            1 - 2 * (j * j + k * k), 2 * (i * j - w * k), 2 * (i * k + w * j),
            2 * (i * j + w * k), 1 - 2 * (i * i + k * k), 2 * (j * k - w * i),
            2 * (i * k - w * j), 2 * (j * k + w * i), 1 - 2 * (i * i + j * j),
        ],
        -1,
    ).view(-1, 3, 3)  # fmt: skip
    axes = rotation * scales[:, None, :]
    u, v = (row_u[:, :, None] * axes).sum(1), (row_v[:, :, None] * axes).sum(1)
    var_x, cov, var_y = (u * u).sum(-1), (u * v).sum(-1), (v * v).sum(-1)
    det_before = var_x * var_y - cov * cov
    var_x, var_y = var_x + eps2d, var_y + eps2d
    det = var_x * var_y - cov * cov
    if antialiased:
        # The square root has no slope at 0, and such a splat is not visible anyway.
        opacities = opacities * (det_before / det).clamp_min(1e-12).sqrt()
    return dict(
        means2d=torch.stack([fx * x / z + cx, fy * y / z + cy], -1),
        conics=torch.stack([var_y, -cov, var_x], -1) / det[:, None],
        depths=z,
        opacities=opacities,
        variances=torch.stack([var_x, var_y], -1),
        det=det,
    )


def visible_radii(
    splats: dict[str, Tensor], width: int, height: int, near_plane: float, far_plane: float, eps2d: float, clip: float
) -> Tensor:
    """Half boxes [N, 2] int32 in pixels; 0 for what is not drawn."""
    z, opacity, mean = splats["depths"], splats["opacities"], splats["means2d"]
    extent = (2 * torch.log((opacity * 255).clamp_min(1))).sqrt().clamp_max(MAX_EXTENT)
    radii = (extent[:, None] * splats["variances"].sqrt()).ceil().clamp_max(2**30)
    size = mean.new_tensor([width, height])
    visible = (z >= near_plane) & (z <= far_plane) & (opacity >= MIN_ALPHA) & (radii > clip).any(-1)
    visible &= (splats["det"] > 0) & torch.isfinite(splats["det"]) & torch.isfinite(splats["conics"]).all(-1)
    visible &= (mean + radii > 0).all(-1) & (mean - radii < size).all(-1)
    return torch.where(visible[:, None], radii, 0).int()


def tile_lists(means2d: Tensor, depths: Tensor, radii: Tensor, width: int, height: int) -> list[Tensor]:
    """For each tile, row by row, the splats [N] whose box touches it, front to back."""
    columns, rows = -(-width // TILE), -(-height // TILE)
    order = torch.argsort(depths, stable=True)
    order = order[(radii[order] > 0).all(-1)]
    size = torch.tensor([columns, rows])
    first = ((means2d - radii)[order] / TILE).floor().clamp_min(0).long()
    last = ((means2d + radii)[order] / TILE).floor().long()
    last = torch.minimum(last, size - 1)
    span = (last - first + 1).clamp_min(0)
    pairs = span.prod(-1)
    splat = torch.repeat_interleave(torch.arange(len(order)), pairs)
    within = torch.arange(len(splat)) - torch.repeat_interleave(pairs.cumsum(0) - pairs, pairs)
    tile = (first[splat, 1] + within // span[splat, 0]) * columns + first[splat, 0] + within % span[splat, 0]
    tile, by_tile = torch.sort(tile, stable=True)
    counts = torch.bincount(tile, minlength=columns * rows)
    return list(order[splat[by_tile]].split(counts.tolist()))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Thousands of small operations: starting threads for each takes longer than the operation itself."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _tile_pixels(tile: int, width: int, height: int, like: Tensor) -> tuple[slice, slice, Tensor, Tensor]:
    columns = -(-width // TILE)
    x0, y0 = tile % columns * TILE, tile // columns * TILE
    x1, y1 = min(x0 + TILE, width), min(y0 + TILE, height)
    y, x = torch.meshgrid(torch.arange(y0, y1), torch.arange(x0, x1), indexing="ij")
    return slice(y0, y1), slice(x0, x1), x.flatten().to(like) + 0.5, y.flatten().to(like) + 0.5


def _alphas(mean: Tensor, conic: Tensor, opacity: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    """dx, dy, alpha before the clamp, and alpha as drawn; all [splats, pixels]."""
    dx, dy = mean[:, :1] - x, mean[:, 1:] - y
    a, b, c = (conic[:, q, None] for q in range(3))
    sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
    raw = opacity[:, None] * torch.exp(-sigma)
    alpha = raw.clamp_max(MAX_ALPHA)
    return dx, dy, raw, torch.where((sigma >= 0) & (alpha >= MIN_ALPHA), alpha, 0.0)


class _Blend(torch.autograd.Function):
    """Blends values [C, N, X] front to back (Kerbl 2023, eq. 3) into [C, H, W, X] and alphas [C, H, W, 1]."""

    @staticmethod
    @_one_thread()
    def forward(
        ctx: Any, means2d: Tensor, conics: Tensor, values: Tensor, opacities: Tensor, depths: Tensor, radii: Tensor,
        width: int, height: int, absgrad: bool,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        cameras = len(means2d)
        out = values.new_zeros(cameras, height, width, values.shape[-1])
        rest = values.new_ones(cameras, height, width)
        lists = [tile_lists(means2d[c], depths[c], radii[c], width, height) for c in range(cameras)]
        for c in range(cameras):
            for tile, splats in enumerate(lists[c]):
                if not len(splats):
                    continue
                rows, columns, x, y = _tile_pixels(tile, width, height, values)
                transmittance, color = torch.ones_like(x), values.new_zeros(len(x), values.shape[-1])
                live = torch.ones_like(x, dtype=torch.bool)
                for run in splats.split(RUN):
                    alpha = _alphas(means2d[c, run], conics[c, run], opacities[c, run], x, y)[3]
                    after = transmittance * torch.cumprod(1 - alpha, 0)
                    drawn = (after > MIN_TRANSMITTANCE) & live
                    before = torch.cat([transmittance[None], after[:-1]])
                    color += torch.where(drawn, alpha * before, 0.0).T @ values[c, run]
                    transmittance = torch.minimum(transmittance, torch.where(drawn, after, 1.0).amin(0))
                    live = drawn[-1]
                    if not live.any():
                        break
                shape = (rows.stop - rows.start, columns.stop - columns.start)
                out[c, rows, columns] = color.view(*shape, -1)
                rest[c, rows, columns] = transmittance.view(shape)
        alphas = (1 - rest)[..., None]
        ctx.save_for_backward(means2d, conics, values, opacities, out, alphas)
        ctx.lists, ctx.options = lists, (width, height, absgrad)
        return out, alphas

    @staticmethod
    @once_differentiable
    @_one_thread()
    def backward(ctx: Any, grad_out: Tensor, grad_alphas: Tensor) -> tuple[Tensor | None, ...]:
        means2d, conics, values, opacities, out, alphas = ctx.saved_tensors
        width, height, absgrad = ctx.options
        grads = [torch.zeros_like(t) for t in (means2d, conics, values, opacities)]
        absolute = torch.zeros_like(means2d)
        total = (grad_out * out).sum(-1) - ((1 - alphas) * grad_alphas)[..., 0]
        for c, lists in enumerate(ctx.lists):
            grad_mean, grad_conic, grad_value, grad_opacity = (g[c] for g in grads)
            for tile, splats in enumerate(lists):
                if not len(splats):
                    continue
                rows, columns, x, y = _tile_pixels(tile, width, height, values)
                grad_pixel = grad_out[c, rows, columns].reshape(len(x), -1)
                behind = total[c, rows, columns].reshape(-1)
                transmittance, live = torch.ones_like(x), torch.ones_like(x, dtype=torch.bool)
                for run in splats.split(RUN):
                    conic, opacity = conics[c, run], opacities[c, run]
                    dx, dy, raw, alpha = _alphas(means2d[c, run], conic, opacity, x, y)
                    after = transmittance * torch.cumprod(1 - alpha, 0)
                    drawn = (after > MIN_TRANSMITTANCE) & live
                    before = torch.cat([transmittance[None], after[:-1]])
                    weight = torch.where(drawn, alpha * before, 0.0)
                    along = values[c, run] @ grad_pixel.T
                    left = behind - torch.cumsum(weight * along, 0)  # what lies behind each splat
                    grad_alpha = before * along - left / (1 - alpha)
                    passes = drawn & (raw <= MAX_ALPHA)
                    s = torch.where(passes, -alpha * grad_alpha, 0.0)  # d loss / d sigma
                    a, b, k = (conic[:, q, None] for q in range(3))
                    gx, gy = s * (a * dx + b * dy), s * (b * dx + k * dy)
                    grad_mean[run] += torch.stack([gx.sum(1), gy.sum(1)], -1)
                    absolute[c, run] += torch.stack([gx.abs().sum(1), gy.abs().sum(1)], -1)
                    half = torch.stack([(s * dx * dx).sum(1) / 2, (s * dx * dy).sum(1), (s * dy * dy).sum(1) / 2], -1)
                    grad_conic[run] += half
                    grad_value[run] += weight @ grad_pixel
                    grad_opacity[run] -= s.sum(1) / opacity
                    behind, live, transmittance = left[-1], drawn[-1], after[-1]
                    if not live.any():
                        break
        if absgrad:
            means2d.absgrad = absolute
        return (*grads, *[None] * 5)
