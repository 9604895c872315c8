"""A small model is trained to look like a full one, from cameras alone: renders of the full one are its photos.

After Gaussians were merged, each is a good guess for itself and not yet what all together should be: what two showed
beside each other is one blob now, and sums of opacities differ where many overlap. Steps with training's loss and Adam
move all parameters to where the pictures are as before. Photos are not needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lpm.checks import fail
from lpm.editing.cameras import Cameras
from lpm.editing.draw import drawn
from lpm.editing.fitting import FALL, SSIM_LAMBDA, fit
from lpm.editing.kept import Kept, Pair
from lpm.files import Progress, quiet
from lpm.gaussians.parameters import NAMES
from lpm.render.losses import l1_dssim
from lpm.render.rasterize import RasterizeMode
from lpm.train.optimizers import LENGTHS, STILL, Rate, with_rates

Params = dict[str, Tensor]
RATES = with_rates(
    STILL,
    {"means": 3.2e-4, "features_dc": 5e-3, "features_rest": 2.5e-3 / 8, "scales": 1e-2, "quats": 3e-3},
)
"""Training's, twice as high and more: steps are few, and what they go to does not contradict itself as photos do."""


@dataclass
class Refitted:
    """A re-fitted model, and how like the full one it was and is."""

    params: Params
    """lpm.gaussians' parameters, on the CPU."""
    before: float
    """PSNR in dB against the full model, mean over the cameras that only measure (all, where there are none)."""
    after: float


@dataclass
class _Pictures:
    """What the full model shows at each camera: colours over black [H, W, 3], alpha [H, W, 1]; kept on the device."""

    full: Params
    cameras: Cameras
    mode: RasterizeMode
    kept: Kept = field(default_factory=Kept)

    def over(self, v: int, background: Tensor) -> Tensor:
        """[H, W, 3], 0..1, camera `v` over `background` [3]."""
        color, alpha = self.kept.of(v, lambda: self._over_black(v, torch.zeros_like(background)))
        return (color + (1 - alpha) * background).clamp(0, 1)

    @torch.no_grad()
    def _over_black(self, v: int, black: Tensor) -> Pair:
        return drawn(self.full, self.cameras, v, black, self.mode)


def refit(
    small: Mapping[str, Tensor], full: Mapping[str, Tensor], cameras: Cameras, steps: int, mode: RasterizeMode,
    seed: int = 0, progress: Progress = quiet,
) -> Refitted:  # fmt: skip
    """`small` after `steps` steps of Adam towards what `full` shows (both lpm.gaussians, finite).

    The same seed gives the same bits on a CPU.

    Args:
        cameras: on the device where the work is done.
        mode: how both are drawn.

    Raises:
        LpmError: the number of steps is below 0, or no camera shows anything of `full`.
    """
    if steps < 0:
        fail("--refit-steps", str(steps), "0 or more")
    device = cameras.viewmats.device
    pictures = _Pictures({name: full[name].detach().float().to(device) for name in NAMES}, cameras, mode)
    learnt = {name: torch.nn.Parameter(small[name].detach().float().to(device, copy=True)) for name in NAMES}
    measuring = cameras.held_out if bool(cameras.held_out.any()) else torch.ones_like(cameras.held_out)
    before = _psnr(learnt, pictures, measuring)
    own = (~cameras.held_out).nonzero().flatten().tolist()
    rates = {name: _rate(name, cameras.extent if name in LENGTHS else 1.0) for name in NAMES}
    seen = False

    def loss_of(k: int, background: Tensor) -> Tensor:
        nonlocal seen
        color, alpha = drawn(learnt, cameras, own[k], background, mode)
        seen = seen or bool(alpha.detach().amax() > 0)
        return l1_dssim(color, pictures.over(own[k], background), SSIM_LAMBDA)

    fit(learnt, rates, len(own), steps, loss_of, seed, progress, "re-fitting")
    if steps and not seen:
        fail("--scene", f"{cameras.whose} see nothing of the Gaussians", "cameras that look at them",
             "is it the scene that they were trained on?")  # fmt: skip
    after = _psnr(learnt, pictures, measuring) if steps else before
    return Refitted({name: value.detach().cpu() for name, value in learnt.items()}, before, after)


def _rate(name: str, by: float) -> Rate:
    """Training's rate of a group of parameters, times `by`, which falls."""
    rate = RATES[name]
    return Rate(rate.first * by, (FALL * rate.first if rate.last is None else rate.last) * by)


@torch.no_grad()
def _psnr(params: Mapping[str, Tensor], pictures: _Pictures, among: Tensor) -> float:
    """dB against the full model over grey, mean over the cameras `among` [V] bool."""
    background = torch.full((3,), 0.5, device=pictures.cameras.viewmats.device)
    values = []
    for v in among.nonzero().flatten().tolist():
        color = drawn(params, pictures.cameras, v, background, pictures.mode)[0].clamp(0, 1)
        error = float((color - pictures.over(v, background)).square().mean())
        values.append(-10 * math.log10(max(error, 1e-10)))
    return math.fsum(values) / len(values)
