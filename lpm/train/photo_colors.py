"""What a camera did to a photo's colours: learnt while training, and matched when quality is measured."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lpm.multiview.views import GRAY

UNCLIPPED = 0.5 / 255
"""Values nearer to 0 or 1 may have been cut off."""
ROUNDS = 5


class BilateralGrids(nn.Module):
    """For each of V photos a grid of affine colour transforms over place and brightness.

    "Bilateral Guided Radiance Field Processing", Wang et al. 2024. `grids` [V, 12, W, Y, X]: the rows of a [3, 4] each.
    """

    rgb2gray_weight: Tensor

    def __init__(self, count: int, shape: tuple[int, int, int]) -> None:
        """`shape`: cells across the picture, down, and along brightness."""
        super().__init__()
        x, y, w = shape
        identity = torch.eye(4)[:3].flatten()
        self.grids = nn.Parameter(identity[None, :, None, None, None].repeat(count, 1, w, y, x))
        self.register_buffer("rgb2gray_weight", torch.tensor([GRAY]))

    def forward(self, rgb: Tensor, index: int) -> Tensor:
        """[H, W, 3] `rgb` [H, W, 3] (0..1) with the colours of photo `index`."""
        height, width = rgb.shape[:2]
        y, x = torch.meshgrid(
            torch.linspace(0, 1.0, height, device=rgb.device), torch.linspace(0, 1.0, width, device=rgb.device),
            indexing="ij",
        )  # fmt: skip
        brightness = (rgb @ self.rgb2gray_weight.T) * 2.0 - 1.0
        at = torch.cat([(torch.stack([x, y], -1) - 0.5) * 2, brightness], -1)[None, None]
        cells = F.grid_sample(
            self.grids[index : index + 1], at, mode="bilinear", align_corners=True, padding_mode="border"
        )
        affine = cells[0, :, 0].permute(1, 2, 0).reshape(height, width, 3, 4)
        return (affine[..., :3] @ rgb[..., None]).squeeze(-1) + affine[..., 3]

    def roughness(self) -> Tensor:
        """[] total variation: the mean squared difference between neighbouring cells, summed over the three axes."""
        return torch.stack([self.grids.diff(dim=axis).square().mean() for axis in (2, 3, 4)]).sum()


def color_matched(image: Tensor, reference: Tensor) -> Tensor:
    """`image` [H, W, 3] (0..1) after the quadratic colour transform that brings it nearest to `reference` [H, W, 3].

    Least squares over the pixels that are not cut off in either, again after each round (Mildenhall 2022, RawNeRF).
    """
    a, b = image.reshape(-1, 3), reference.reshape(-1, 3)

    def inside(values: Tensor) -> Tensor:
        return (values >= UNCLIPPED) & (values <= 1 - UNCLIPPED)

    first = inside(a)
    for _ in range(ROUNDS):
        terms = torch.cat([*(a[:, c : c + 1] * a[:, c:] for c in range(3)), a, torch.ones_like(a[:, :1])], -1)
        columns = []
        for c in range(3):
            kept = (first[:, c] & inside(a[:, c]) & inside(b[:, c])).to(a)
            columns.append(torch.linalg.lstsq(terms * kept[:, None], (b[:, c] * kept)[:, None]).solution[:, 0])
        a = (terms @ torch.stack(columns, -1)).clip(0, 1)
    return a.reshape(image.shape)
