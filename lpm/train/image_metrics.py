"""How near a picture is to a photo: PSNR, SSIM, LPIPS."""

from __future__ import annotations

import math
import socket
from pathlib import Path

import torch
from torch import Tensor


class Lpips:
    """LPIPS (Zhang 2018, AlexNet) if its weights are at hand or can be fetched; else NaN, with one line said once.

    Not a Module, so that its weights enter neither the checkpoints nor the parameters.
    """

    def __init__(self, seconds_to_connect: float = 3.0) -> None:
        self.seconds_to_connect = seconds_to_connect
        self._metric: torch.nn.Module | None = None
        self._asked = False

    def __call__(self, render: Tensor, truth: Tensor) -> float:
        """LPIPS of two images [1, 3, H, W] in 0..1; NaN where it cannot be computed."""
        if not self._asked:
            self._asked = True
            self._metric = self._load()
        if self._metric is None:
            return math.nan
        with torch.no_grad():
            return float(self._metric.to(render.device)(render.clamp(0, 1), truth.clamp(0, 1)))

    def _load(self) -> torch.nn.Module | None:
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(self.seconds_to_connect)
        try:
            from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

            with torch.random.fork_rng():  # it is built with random weights first; training must not notice
                return LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True)
        except Exception as error:  # a network, a certificate, a cache folder, a package: anything may be missing here
            folder = Path(torch.hub.get_dir()) / "checkpoints"
            print(f"LPIPS is left out: no AlexNet weights in {folder}, nor a download ({type(error).__name__}).")
            return None
        finally:
            socket.setdefaulttimeout(before)


def image_metrics(render: Tensor, truth: Tensor, lpips: Lpips | None, mask: Tensor | None = None) -> dict[str, float]:
    """PSNR (dB), SSIM and, where `lpips` has its weights, LPIPS of two images [H, W, 3] in 0..1.

    Args:
        mask: [H, W, 1] bool, which pixels count (PSNR, SSIM); the others are black in both (SSIM, LPIPS).
    """
    # Here: it brings matplotlib and half of scipy, for which a help text would wait a second.
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

    if mask is not None and not bool(mask.all()) and bool(mask.any()):
        return _masked(render * mask, truth * mask, lpips, mask)
    a, b = (image.permute(2, 0, 1)[None] for image in (render, truth))
    metrics = {
        "psnr": float(peak_signal_noise_ratio(a, b, data_range=1.0)),
        "ssim": float(structural_similarity_index_measure(a, b, data_range=1.0)),  # type: ignore[arg-type]
    }
    value = lpips(a, b) if lpips is not None else math.nan
    return metrics if math.isnan(value) else metrics | {"lpips": value}


def _masked(render: Tensor, truth: Tensor, lpips: Lpips | None, mask: Tensor) -> dict[str, float]:
    """Of images that are black where `mask` is false; see image_metrics."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    count = mask.sum() * render.shape[2]
    error = (render - truth).square().sum() / count
    a, b = (image.permute(2, 0, 1)[None] for image in (render, truth))
    found = structural_similarity_index_measure(a, b, data_range=1.0, return_full_image=True)
    alike = (found[1][0].permute(1, 2, 0) * mask).sum() / count
    metrics = {"psnr": float(-10 * torch.log10(error.clamp_min(1e-10))), "ssim": float(alike)}
    value = lpips(a, b) if lpips is not None else math.nan
    return metrics if math.isnan(value) else metrics | {"lpips": value}
