"""Where a scene moves, and quality there and elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

METRICS = ("psnr_dynamic", "psnr_static", "ssim_dynamic", "ssim_static")
"""Of views of a scene that moves: where it does, and elsewhere."""
MOVED = 0.06
"""Mean difference of colour (0..1) from a camera's median photo that counts as motion."""
MARGIN = 3
"""Pixels around it that count, too: shadows, blur, and the edge itself."""


def background(images: Sequence[Tensor]) -> Tensor:
    """[H, W, 3] the median over the photos [H, W, 3] uint8 of a camera that stands still: the scene without movers."""
    return torch.stack(list(images)).median(0).values


def moving_mask(image: Tensor, still: Tensor) -> Tensor:
    """[H, W] bool: `image` differs from the camera's `background` [H, W, 3], both uint8, or nearly does."""
    moved = (image.float() - still.float()).abs().mean(-1) > MOVED * 255
    grown = torch.nn.functional.max_pool2d(moved[None, None].float(), 2 * MARGIN + 1, 1, MARGIN)
    return grown[0, 0] > 0


def mask_file(image: Path) -> Path:
    """Where lpm.scenes.samples.moving writes the mask of `image`: dynamic/ in place of images/."""
    return Path(*("dynamic" if part == "images" else part for part in image.parts)).with_suffix(".png")


def read_mask(path: Path, size: tuple[int, int]) -> Tensor:
    """[H, W] bool, scaled to `size` (height, width): any change within a pixel counts."""
    mask = torch.from_numpy(np.array(Image.open(path)) > 0)
    return torch.nn.functional.adaptive_max_pool2d(mask[None, None].float(), size)[0, 0] > 0


def psnr(render: Tensor, truth: Tensor, mask: Tensor) -> float | None:
    """PSNR (dB) of the pixels in `mask` [H, W]; None where there are none."""
    if not bool(mask.any()):
        return None
    error = (render - truth)[mask].square().mean()
    return float(-10 * torch.log10(error.clamp_min(1e-10)))


def ssim(render: Tensor, truth: Tensor, mask: Tensor) -> float | None:
    """SSIM of images [H, W, 3] around the pixels in `mask` [H, W]; None where there are none."""
    if not bool(mask.any()):
        return None
    a, b = (image.permute(2, 0, 1)[None] for image in (render, truth))
    _, everywhere = structural_similarity_index_measure(a, b, data_range=1.0, return_full_image=True)
    return float(everywhere[0].mean(0)[mask].mean())
