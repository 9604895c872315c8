"""How alike a picture and its photo look to people: FLIP, and ColorVideoVDP, which sees flicker, too.

Unlike LPIPS they fetch no weights: their packages are whole. Where a package is missing its figure is left out.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

FLIP, CVVDP = "flip_evaluator", "pycvvdp"
"""The packages, as they are imported."""
DISPLAY = "standard_4k"
"""Where ColorVideoVDP shows the pictures, its default: a 30-inch 4K monitor of 200 cd/m^2 in an office (250 lux), from
.75 m, which is 75 pixels a degree."""


@functools.cache
def have(package: str) -> bool:
    """Whether FLIP or CVVDP can be used here; where it is installed and does not import, one line says so."""
    if importlib.util.find_spec(package) is None:
        return False
    try:
        importlib.import_module(package)
    except Exception as error:  # whatever a broken package raises: what was trained shall be measured all the same
        print(f"{package} is left out: it does not import ({type(error).__name__}: {error}).")
        return False
    return True


def flip(render: Tensor, photo: Tensor, mask: Tensor | None = None) -> float:
    """LDR-FLIP (Andersson 2020) of two sRGB images [H, W, 3] in 0..1: 0 where they look alike, at most 1; NaN where one
    is not finite, which the tool would not tell.

    Seen as by the tool's default: 67 pixels a degree, which is a 4K monitor .7 m wide from .7 m.

    Args:
        mask: [H, W, 1] bool, which pixels count; the others are black in both. One that lets nothing through is not
            used.
    """
    from flip_evaluator import evaluate

    if mask is not None and bool(mask.any()):
        render, photo = render * mask, photo * mask
    else:
        mask = None
    if not bool(render.isfinite().all() and photo.isfinite().all()):
        return math.nan
    reference, test = (
        np.ascontiguousarray(image.detach().float().clamp(0, 1).cpu().numpy()) for image in (photo, render)
    )
    errors = evaluate(reference, test, "LDR", applyMagma=False, computeMeanError=False)[0][..., 0]
    counted = errors if mask is None else errors[mask[..., 0].cpu().numpy()]
    return float(counted.mean(dtype=np.float64))


@functools.lru_cache(2)
def _metric(device: str) -> Any:
    import pycvvdp

    return pycvvdp.cvvdp(display_name=DISPLAY, quiet=True, device=torch.device(device))


@torch.no_grad()
def cvvdp(renders: Tensor, photos: Tensor, fps: float = 0, device: torch.device | str = "cpu") -> float:
    """ColorVideoVDP (Mantiuk 2024) in just-objectionable differences: 10 where nobody sees one; lower is worse.

    Args:
        renders: sRGB, [H, W, 3] a picture, or [T, H, W, 3] a clip; float in 0..1, or uint8.
        photos: what it should look like, of the same shape and type.
        fps: frames a second of a clip.
        device: what computes; pictures are sent there one by one.
    """
    order = "HWC" if renders.ndim == 3 else "FHWC"
    return float(_metric(str(device)).predict(renders, photos, dim_order=order, frames_per_second=fps)[0])
