"""Patches of one photo as other photos would see them at a given depth and tilt, and how alike they look."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lpm.cuda.device import device_kernels
from lpm.cuda.native import native
from lpm.multiview.views import Views

BLOCK = 2**18
"""Samples (patch pixels x depths x pairs) the torch twin works on at once on a CPU, about 40 bytes each."""
BLOCK_CUDA = 2**22
UNSEEN = -2.0
"""Score of a depth at which no neighbour sees the whole patch."""


def reference(views: Views, view: Tensor, pixels: Tensor, patch: int) -> tuple[Tensor, Tensor]:
    """Gray patches [P, patch^2], NaN where they leave the image or touch a masked pixel, and their contrast [P]."""
    offsets = _offsets(patch, pixels)
    out = pixels.new_full((len(pixels), patch * patch), torch.nan)
    size = views.sizes[view]
    half = patch // 2
    inside = ((pixels >= half + 0.5) & (pixels <= size - half - 0.5)).all(1)
    grid = (pixels[:, None] + offsets) * 2 / size[:, None] - 1
    for v, rows in groups(torch.where(inside, view, -1), len(views)):
        image = views.gray(v)[None, None].expand(len(rows), 1, -1, -1)
        out[rows] = F.grid_sample(image, grid[rows, None], padding_mode="border", align_corners=False)[:, 0, 0]
    mean = out.mean(1, keepdim=True)
    centred = out - mean
    deviation = centred.square().mean(1).sqrt()
    return centred / (deviation[:, None] * patch), deviation / (mean[:, 0] + 0.1)


def _offsets(patch: int, like: Tensor) -> Tensor:
    """[patch^2, 2] offsets (x, y) of a patch's pixels from its centre."""
    side = torch.arange(patch, device=like.device, dtype=like.dtype) - patch // 2
    y, x = torch.meshgrid(side, side, indexing="ij")
    return torch.stack([x, y], -1).reshape(-1, 2)


def groups(key: Tensor, most: int) -> list[tuple[int, Tensor]]:
    """Rows of each value from 0 to `most` - 1 that is in `key` [N], ascending in both; -1 in it is none. One wait."""
    counts = torch.zeros(most + 1, dtype=torch.int64, device=key.device)
    sizes = counts.index_add_(0, key + 1, torch.ones_like(key)).tolist()
    parts = key.argsort(stable=True).split(sizes)
    return [(v - 1, rows) for v, rows in enumerate(parts) if v > 0 and len(rows)]


class Warp:
    """Patches as the neighbours would see them: pixel = (a + b w) / its last row, w the inverse depth."""

    def __init__(self, views: Views, view: Tensor, pixels: Tensor, neighbours: Tensor, ref: Tensor, patch: int) -> None:
        self.views, self.ref, self.patch = views, ref, patch
        self.p, self.k = neighbours.shape
        self.neighbour = neighbours
        other = neighbours.clamp_min(0)
        viewmats, Ks = views.viewmats.double(), views.Ks.double()
        here, there = viewmats[view][:, None], viewmats[other]
        rotation = there[..., :3, :3] @ here[..., :3, :3].transpose(-1, -2)
        shift = there[..., :3, 3:] - rotation @ here[..., :3, 3:]
        # Pixels become the -1..1 of grid_sample at once.
        to_grid = torch.eye(3, dtype=torch.float64, device=view.device).repeat(len(views), 1, 1)
        to_grid[:, :2, :2] *= 2 / views.sizes.double()[:, :, None]
        to_grid[:, :2, 2] = -1
        out = (to_grid @ Ks)[other]
        matrix = out @ rotation @ torch.linalg.inv_ex(Ks)[0][view][:, None]
        self.offsets = _offsets(patch, pixels)
        x, y = (pixels[:, None] + self.offsets).double()[:, None, :, None].unbind(-1)
        by_x, by_y, constant = matrix[:, :, None].unbind(-1)
        self.a = (by_x * x + by_y * y + constant).float()  # [P, k, patch^2, 3]
        self.b = (out @ shift)[..., 0].float()  # [P, k, 3]
        self.focal = Ks[view, 0, 0].float()
        # Half a pixel inside, so that no sample is made up from beyond the border.
        self.limit = (1 - 1 / views.sizes)[other]

    def visible(self, w_near: Tensor, w_far: Tensor) -> tuple[Tensor, Tensor]:
        """The part [R], [R] of inverse depths `w_near` to `w_far` [R] at which some neighbour may see the centre.

        Inside an image means four inequalities that are linear in w: z + x >= 0, z - x >= 0, and so for y.
        """
        a, b = self.a[:, :, self.patch * self.patch // 2], self.b
        low, high = w_far[:, None].expand(self.p, self.k), w_near[:, None].expand(self.p, self.k)
        for c in (0, 1):
            for sign in (1.0, -1.0):
                level, slope = a[..., 2] + sign * a[..., c], b[..., 2] + sign * b[..., c]
                root = -level / slope
                low = torch.where(slope > 0, torch.maximum(low, root), low)
                high = torch.where(slope < 0, torch.minimum(high, root), high)
                high = torch.where((slope == 0) & (level < 0), -1.0, high)
        seen = (self.neighbour >= 0) & (low < high)
        high = torch.where(seen, high, -torch.inf).amax(1)
        low = torch.where(seen, low, torch.inf).amin(1)
        some = seen.any(1)
        return torch.where(some, high, w_near), torch.where(some, low, w_far)

    def steps(self, w_near: Tensor, w_far: Tensor) -> Tensor:
        """[P] depths needed so that adjacent ones are at most a pixel apart in every neighbour."""
        centre = self.a[:, :, self.patch * self.patch // 2]
        half = self.views.sizes[self.neighbour.clamp_min(0)] / 2
        ends = []
        for w in (w_near, w_far):
            q = centre + self.b * w[:, None, None]
            # A patch behind or beside the neighbour need not be followed to infinity.
            place = q[..., :2] / q[..., 2:].clamp_min(1e-6)
            ends.append(place.clamp(-1.5, 1.5) * half)
        moved = (ends[0] - ends[1]).square().sum(-1).sqrt()
        return torch.where(self.neighbour >= 0, moved, 0.0).amax(1).ceil() + 1

    def zncc(self, rows: Tensor, w: Tensor, slope: Tensor | None = None) -> Tensor:
        """Correlations [R, k, H] of patches `rows` [R] at inverse depths `w` [R, H]; UNSEEN where not all is visible.

        `slope` [R, H, 2] is the relative change of inverse depth per pixel in x and y.
        """
        r, h = w.shape
        rows, w, slope = rows.contiguous(), w.contiguous(), None if slope is None else slope.contiguous()
        out = w.new_full((r * self.k, h), UNSEEN)
        kernels = native() if w.device.type == "cpu" else device_kernels(w.device)
        for v, pairs in groups(self.neighbour[rows].reshape(-1), len(self.views)):
            image = self.views.gray(v).to(w.dtype)
            if min(image.shape) < 2:
                continue  # nothing to interpolate between
            if kernels is None:
                self._zncc_torch(image, pairs, rows, w, slope, out)
            else:
                kernels.call(
                    "zncc", w.dtype, len(pairs), pairs, rows, self.k, h, self.patch, image, *image.shape, self.a,
                    self.b, self.ref, w, slope, out,
                )  # fmt: skip
        return out.reshape(r, self.k, h)

    def _zncc_torch(
        self, image: Tensor, pairs: Tensor, rows: Tensor, w: Tensor, slope: Tensor | None, out: Tensor
    ) -> None:
        """The torch twin of the native kernel: `pairs` (row * k + neighbour) of one image, into `out` [R * k, H]."""
        block = max(1, (BLOCK_CUDA if w.is_cuda else BLOCK) // (w.shape[1] * self.patch * self.patch))
        for part in pairs.split(block):
            i, j = torch.div(part, self.k, rounding_mode="floor"), part % self.k
            depth = w[i][:, :, None]
            if slope is not None:
                tilt = slope[i][:, :, None, :] * self.offsets
                depth = depth * (1 + tilt.sum(-1))
            out[part] = self._compare(image[None, None], rows[i], j, depth)

    def _compare(self, image: Tensor, row: Tensor, j: Tensor, w: Tensor) -> Tensor:
        a, b = self.a[row, j][:, None], self.b[row, j][:, None, None]  # [q, 1, n, 3], [q, 1, 1, 3]
        x, y, z = (a[..., c] + b[..., c] * w for c in range(3))  # [q, h, n]
        scale = z.clamp_min(1e-6).reciprocal()
        grid = x.new_empty(*x.shape, 2)
        torch.mul(x, scale, out=grid[..., 0])
        torch.mul(y, scale, out=grid[..., 1])
        s = F.grid_sample(image.expand(len(row), 1, -1, -1), grid, padding_mode="border", align_corners=False)[:, 0]
        side = self.patch
        at, depth = (t.unflatten(2, (side, side))[:, :, :: side - 1, :: side - 1] for t in (grid, z))
        limit = self.limit[row, j][:, None, None, None]
        seen = (at.abs() <= limit).flatten(2).all(-1) & (depth > 1e-6).flatten(2).all(-1)
        n = side * side
        mean = s.sum(-1) / n
        variance = (s * s).sum(-1) / n - mean * mean
        # The reference is centred and of length 1.
        score = (s * self.ref[row][:, None]).sum(-1) / (variance.clamp_min(1e-7).sqrt() * side)
        return torch.where(seen & torch.isfinite(score), score, UNSEEN)
