"""Where each training view is wrong: residuals pooled into tiles, remembered as a moving average with its age.

The residual is made from the render and the photo that the training step has anyway; nothing is rendered for this.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lpm.cuda.native import native
from lpm.render.losses import C1, C2, TileRequest

TILE = 16
"""Side, in pixels, of the tiles in which zones are made; a patch of the plane sweep must fit well inside."""
MAP_TILE = TILE // 2
"""Side, in pixels, of the tiles in which errors are remembered."""
FINE_TILE = TILE // 4
"""The same where errors stand for those of single pixels: a sixteenth of the memory of the photos in float32."""


def exposure_gain(render: Tensor, truth: Tensor) -> Tensor:
    """Gain [C] of each channel that brings `render` closest to `truth` (least squares), within a factor of two.

    Both [C, H, W], finite. A photo that is merely darker than its neighbours is no error of geometry.
    """
    cross = (render * truth).sum((1, 2))
    return (cross / render.square().sum((1, 2)).clamp_min(1e-12)).clamp(0.5, 2.0)


def pool(residual: Tensor, tile: int = TILE, mask: Tensor | None = None) -> Tensor:
    """Mean of `residual` [H, W] or [C, H, W] over tiles: [..., ceil(H / tile), ceil(W / tile)].

    Tiles at the edge average what they have. `mask` [H, W]: only pixels in it count; a tile without any is 0.
    """
    height, width = residual.shape[-2:]
    plain = residual.reshape(-1, height, width)
    edge = (0, -width % tile, 0, -height % tile)
    if mask is None and not any(edge):
        return F.avg_pool2d(plain, tile).reshape(*residual.shape[:-2], height // tile, width // tile)
    weight = torch.ones_like(plain[:1]) if mask is None else mask.to(plain.dtype)[None]
    both = F.avg_pool2d(F.pad(torch.cat([plain * weight, weight]), edge), tile)
    pooled = both[:-1] / both[-1:].clamp_min(1e-6)
    return pooled.reshape(*residual.shape[:-2], *pooled.shape[-2:])


def tile_errors(
    render: Tensor, truth: Tensor, tile: int = TILE, mask: Tensor | None = None, dssim: float = 0.2, stride: int = 1
) -> Tensor:
    """(1 - dssim) L1 + dssim (1 - SSIM) / 2 of each tile, after the view's exposure is taken out.

    The terms are those of the training loss. SSIM is taken over the tile as one window, on the mean of the channels, as
    in Wang 2002's block-wise index: it needs only the moments that pooling gives. Pixels that are not finite in either
    image are left out.

    On the CPU one native kernel does this; elsewhere, and without a compiler, its torch twin does. No gradients.

    Args:
        render, truth: [H, W, 3], 0..1.
        tile: pixels, a multiple of `stride`.
        mask: [H, W], only pixels in it count; a tile without any is 0.
        stride: of every so many pixels, down and across, one is looked at.
    """
    kernels = native() if render.device.type == "cpu" else None
    if kernels is None:
        return tile_errors_torch(render, truth, tile, mask, dssim, stride)
    height, width, _ = render.shape
    render, truth = render.detach().contiguous(), truth.to(render.dtype).contiguous()
    mask = None if mask is None else (mask != 0).contiguous()
    out = render.new_empty(-(-height // tile), -(-width // tile))
    kernels.call(
        "tile_errors", render.dtype, height, width, stride, tile // stride, render, truth, mask, dssim, out
    )  # fmt: skip
    return out


def tile_errors_torch(
    render: Tensor, truth: Tensor, tile: int = TILE, mask: Tensor | None = None, dssim: float = 0.2, stride: int = 1
) -> Tensor:
    """The torch twin of the native kernel; see tile_errors."""
    thin, tile = slice(None, None, stride), tile // stride
    # Planes of channels: sums over a last dimension of three are slow, and this is done at every step.
    render, truth = (image.detach()[thin, thin].permute(2, 0, 1).contiguous() for image in (render, truth))
    mask = None if mask is None else mask[thin, thin] != 0
    finite = (torch.isfinite(render) & torch.isfinite(truth)).all(0)  # broken pixels are no evidence
    mask = finite if mask is None else finite & mask
    render, truth = (torch.where(mask, image, 0.0) for image in (render, truth))
    render = render * exposure_gain(render, truth)[:, None, None]
    l1 = (render - truth).abs_()
    l1 = (l1[0] + l1[1] + l1[2]) / 3
    x, y = ((image[0] + image[1] + image[2]) / 3 for image in (render, truth))
    l1, x, y, xx, yy, xy = pool(torch.stack([l1, x, y, x * x, y * y, x * y]), tile, mask)
    ssim = (2 * x * y + C1) * (2 * (xy - x * y) + C2) / ((x * x + y * y + C1) * (xx - x * x + yy - y * y + C2))
    # The SSIM of equal images is 1 but for rounding.
    errors: Tensor = (1 - dssim) * l1 + dssim * (0.5 - 0.5 * ssim).clamp_min(0)
    return errors


def full_tile(rows: int, height: int, tile: int) -> int:
    """Side, in pixels of an image of `height`, of the tiles of a map with `rows` of them.

    A map with fewer tiles than that makes was made at a half, a quarter, ... of the resolution (coarse to fine).
    """
    return tile * max(1, round(height / (tile * rows)))


def spread(error: Tensor, size: tuple[int, int], tile: int) -> Tensor:
    """Each pixel's error [H, W] of an image of `size` (width, height), from a map of tiles of `tile` pixels."""
    width, height = size
    tile = full_tile(error.shape[0], height, tile)
    row, column = (
        (torch.arange(n, device=error.device) // tile).clamp(max=m - 1)
        for n, m in zip((height, width), error.shape, strict=True)
    )
    return error[row[:, None], column]


def coarse(error: Tensor, size: tuple[int, int], tile: int, own: int) -> Tensor:
    """A map of tiles of `own` pixels as means over tiles of `tile` pixels, of an image of `size` (width, height).

    What pool(spread()) gives, without an image of pixels in between.
    """
    width, height = size
    own = full_tile(error.shape[0], height, own)
    down, across = (
        shares(pixels, tiles, own, tile, error.device, error.dtype)
        for pixels, tiles in zip((height, width), error.shape, strict=True)
    )
    return down @ error @ across.T


@lru_cache(maxsize=64)
def shares(pixels: int, tiles: int, own: int, tile: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """[ceil(pixels / tile), tiles]: which share of a tile of `tile` pixels is in each of `tiles` tiles of `own` pixels.

    Along one side of an image of so many pixels. The last of the tiles has what is beyond it, too.
    """
    pixel = torch.arange(pixels, device=device)
    count = torch.zeros(-(-pixels // tile), tiles, dtype=dtype, device=device)
    at = pixel // tile, (pixel // own).clamp(max=tiles - 1)
    count.index_put_(at, torch.ones_like(pixel, dtype=dtype), accumulate=True)
    return count / count.sum(1, keepdim=True)


class ErrorMaps:
    """Pooled residuals E[v] of all training views, as an exponential moving average.

    Attributes:
        maps: view -> [rows, columns] on the device.
        seen: view -> step of the last update.
    """

    def __init__(self, tile: int = TILE, keep: float = 0.7, stride: int = 2, dssim: float = 0.2) -> None:
        self.tile = tile
        self.stride = stride
        """Every this many pixels one is looked at: a tile's mean needs no more, and this is done at every step."""
        self.keep = keep
        """Share of the old value in an update; a view is seen once in an epoch, so this spans about three."""
        self.dssim = dssim
        self.maps: dict[int, Tensor] = {}
        self.seen: dict[int, int] = {}

    def request(self, view: int, size: tuple[int, int], mask: Tensor | None = None) -> TileRequest:
        """What lets the loss of `view` at `size` (height, width) make its next map; mask [H, W], [H, W, 1] or None."""
        old = self.maps.get(view)
        if old is not None and old.shape != tuple(-(-n // self.tile) for n in size):
            old = None
        seen = None if mask is None else mask.reshape(mask.shape[:2]) != 0
        return TileRequest(self.tile, self.stride, self.dssim, self.keep, seen, old)

    @torch.no_grad()
    def update(
        self, view: int, step: int, render: Tensor, truth: Tensor, mask: Tensor | None = None,
        made: Tensor | None = None,
    ) -> None:  # fmt: skip
        """Takes in one training step: `render` and `truth` [H, W, 3] in 0..1, mask [H, W], [H, W, 1] or None.

        Args:
            made: the view's next map [rows, columns], where the loss made it as request() asks; then this is all.
        """
        self.seen[view] = step
        if made is not None:
            self.maps[view] = made
            return
        seen = None if mask is None else mask.to(render.device).reshape(mask.shape[:2])
        pooled = tile_errors(render, truth, self.tile, seen, self.dssim, self.stride)
        old = self.maps.get(view)  # of another shape at another resolution (coarse to fine), and then of no use
        if old is not None and old.shape == pooled.shape:
            pooled = torch.lerp(pooled, old, self.keep)
        self.maps[view] = pooled

    def since(self, step: int) -> tuple[dict[int, int], dict[int, Tensor]]:
        """When views were seen after `step`, and their maps (on the CPU), for another process."""
        new = {view: when for view, when in self.seen.items() if when > step}
        return new, {view: self.maps[view].cpu() for view in new}

    def take(self, seen: dict[int, int], maps: dict[int, Tensor]) -> None:
        """Takes over what since() of another process gave, where it is not older."""
        for view, when in seen.items():
            if when >= self.seen.get(view, -1):
                device = next(iter(self.maps.values())).device
                self.seen[view], self.maps[view] = when, maps[view].to(device)

    def age(self, view: int, step: int) -> int | None:
        """Steps since `view` was seen; None if it never was."""
        return step - self.seen[view] if view in self.seen else None

    def mean(self, view: int) -> float:
        """Mean error of a view; 0 for one that was not seen yet."""
        return self.means([view])[0] if view in self.maps else 0.0

    def means(self, views: list[int]) -> list[float]:
        """Mean error of each of `views`, which were seen; one wait for all."""
        # Row by row: a sum of everything would depend on the number of threads.
        return torch.stack([self.maps[view].mean(-1).mean() for view in views]).tolist() if views else []

    def worst(self) -> float:
        """The largest error of any tile of any view; 0 if none was seen yet."""
        return float(torch.stack([m.max() for m in self.maps.values()]).max()) if self.maps else 0.0

    def bad_threshold(self, share: float, floor: float) -> float:
        """Error above which a tile is bad: at least `floor`, and `share` of all the scene's tiles are above it."""
        if not self.maps:
            return float("inf")
        everything = torch.cat([m.flatten() for m in self.maps.values()])
        rank = max(1, round(share * len(everything)))
        return max(floor, float(everything.topk(rank).values[-1]))

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"maps": dict(self.maps), "seen": dict(self.seen)}

    def load(self, state: dict[str, Any], device: torch.device | str) -> None:
        """Puts back what state() gave."""
        self.maps = {int(view): value.to(device) for view, value in state["maps"].items()}
        self.seen = {int(view): int(step) for view, step in state["seen"].items()}


def pixel_errors() -> ErrorMaps:
    """Maps for those who want the error of single pixels: L1 as the step that saw a view last left it."""
    return ErrorMaps(tile=FINE_TILE, keep=0.0, stride=1, dssim=0.0)
