"""What photos miss of the Gaussians that were taken, measured: the loss with them in place, less that without.

The slope of the loss at a trace of each, or at all of it, tells little of what it brings as a whole: of 116 of which
photos missed 71, such slopes named four. So they are drawn, and the difference that a part of them makes is shared out
among those of it that are seen there, or near enough to change the loss's windows.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lpm.editing.contradicted import GREY, truth_of
from lpm.editing.pulled import Photos
from lpm.editing.refit import SSIM_LAMBDA, drawn
from lpm.render.losses import C1, C2, SIGMA, WINDOW
from lpm.render.rasterize import rasterize

PARTS = 4
"""What is asked for is dealt out at random to so many parts, of which one at a time is left out."""
TIMES = 3
"""So often are those asked that were not wanted, each time the better half of them."""
LEAST = 1e-3
"""Weight in a pixel (0..1) below which nothing of it is shared out."""


def missed(photos: Photos, gone: Tensor, asked: Tensor, seed: int = 0) -> Tensor:
    """[N] bool: those of `asked` [N] bool, all `gone` [N] bool, without which training's loss would be more.

    Those that did least harm are asked again, without the others, which are true floaters more likely.
    """
    generator, back = torch.Generator().manual_seed(seed), torch.zeros_like(gone)
    for _ in range(TIMES):
        wanted, harm = _wanted(photos, gone & ~back, asked, generator)
        back, asked = back | wanted, asked & ~wanted
        if not bool(asked.any()):
            break
        asked = asked & (harm <= harm[asked].median())
    return back


def _wanted(photos: Photos, gone: Tensor, asked: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """[N] bool of `asked`, and [N] the harm that each did when it was last seen.

    All are put back, and then round by round the worse half of those that do harm is taken again: what true floaters
    hide is judged once they are away, and what is of use only together is seen together.
    """
    left, harm = asked.clone(), torch.zeros(len(asked))
    while bool(left.any()):
        change = _change(photos, ~gone, left, torch.randint(PARTS, (len(left),), generator=generator))
        harm[left] = change[left]
        harmful = left & (change > 0)
        if not bool(harmful.any()):
            return left & (change < 0), harm
        left &= ~(harmful & (change >= change[harmful].median()))
    return left, harm


def _change(photos: Photos, rows: Tensor, asked: Tensor, part: Tensor) -> Tensor:
    """[N] what the loss, summed over photos and pixels, changes by with each of `asked`, beside `rows` and all of them.

    `part` [N] of them is left out at a time, and the difference shared out among it.
    """
    cameras, device = photos.cameras, photos.cameras.viewmats.device
    these = {name: value.detach().float().to(device) for name, value in photos.params.items()}
    shown = [rows | asked & (part != k) for k in range(-1, PARTS)]  # the first one: all
    logits = [torch.where(some[:, None].to(device), these["opacities"], -math.inf) for some in shown]
    background, value = torch.full((3,), GREY, device=device), F.one_hot(part, PARTS) * asked[:, None]
    value = value.float().to(device).requires_grad_()
    found = torch.zeros_like(value)
    own = (~cameras.held_out).nonzero().flatten().tolist()
    for k in photos.progress(range(len(own)), "asking photos what they miss"):
        truth, known = truth_of(photos.photo(k), device)
        maps = []
        for logit in logits:
            with torch.no_grad():
                color, _ = drawn({**these, "opacities": logit}, cameras, own[k], background, photos.mode)
            maps.append(torch.stack(_loss_maps(color * known, truth * known)))
        change = maps[0] - torch.stack(maps[1:])  # [PARTS, 2, H, W]
        weight = _weights({**these, "opacities": logits[0]}, value, photos, own[k])
        if weight.requires_grad:
            windows = _blurred(_share(change[:, 1], _blurred(weight.detach())))
            shares = _share(change[:, 0], weight.detach()) + windows
            found += torch.autograd.grad((weight * shares).sum(), value)[0]
    return (found * value.detach()).sum(1).cpu()


def _weights(these: dict[str, Tensor], values: Tensor, photos: Photos, v: int) -> Tensor:
    """[X, H, W] of `values` [N, X], blended as camera `v` sees them."""
    cameras = photos.cameras
    width, height = cameras.sizes[v].tolist()
    image, _, _ = rasterize(
        these["means"], these["quats"], these["scales"], torch.sigmoid(these["opacities"]).reshape(-1), values,
        cameras.viewmats[v, None], cameras.Ks[v, None], width, height, rasterize_mode=photos.mode, log_scales=True,
    )  # fmt: skip
    weights: Tensor = image[0].permute(2, 0, 1)
    return weights


def _share(change: Tensor, weight: Tensor) -> Tensor:
    return torch.where(weight > LEAST, change / weight.clamp_min(LEAST), 0.0)


def _loss_maps(render: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Training's loss pixel by pixel, its two parts [H, W] (lpm.render.losses; here the window meets zeros beside)."""
    x, y = render.permute(2, 0, 1), truth.permute(2, 0, 1)
    a, b, aa, bb, ab = _blurred(torch.cat([x, y, x * x, y * y, x * y])).split(len(x))
    luminance = (2 * a * b + C1) / (a * a + b * b + C1)
    contrast = (2 * (ab - a * b) + C2) / (aa - a * a + bb - b * b + C2)
    return (1 - SSIM_LAMBDA) * (x - y).abs().mean(0), SSIM_LAMBDA * (1 - (luminance * contrast).mean(0))


def _blurred(image: Tensor) -> Tensor:
    """[..., H, W] under the loss's window."""
    offset = torch.arange(WINDOW, device=image.device) - WINDOW // 2
    taps = torch.exp(-(offset**2) / (2 * SIGMA**2)).to(image)
    taps = taps / taps.sum()
    flat = image.reshape(1, -1, *image.shape[-2:])  # channels, not a batch: 25 times faster on a CPU
    for shape in ((WINDOW, 1), (1, WINDOW)):
        weight = taps.reshape(shape).expand(flat.shape[1], 1, *shape)
        flat = F.conv2d(flat, weight, padding=(shape[0] // 2, shape[1] // 2), groups=flat.shape[1])
    return flat.reshape(image.shape)
