"""The photometric loss of 3DGS: (1 - lambda) L1 + lambda D-SSIM (Kerbl 2023, eq. 7)."""

from __future__ import annotations

from pytorch_msssim import ssim
from torch import Tensor


def l1_dssim(render: Tensor, truth: Tensor, ssim_lambda: float) -> Tensor:
    """Scalar loss of `render` against `truth`, both [H, W, 3] in 0..1.

    SSIM: 11x11 Gaussian window of sigma 1.5, without padding (Wang 2004). Not differentiable in `truth`.
    """
    l1 = (render - truth).abs().mean()
    if ssim_lambda == 0:
        return l1
    window = min(11, *(n - 1 + n % 2 for n in render.shape[:2]))  # tiny images still get an (odd) window
    a, b = (image.permute(2, 0, 1)[None] for image in (render, truth))
    dssim = 1 - ssim(a, b, data_range=1.0, win_size=window)
    return (1 - ssim_lambda) * l1 + ssim_lambda * dssim
