"""What photos miss of the Gaussians that were taken, measured: the loss with them in place, less that without.

The slope of the loss at a trace of each, or at all of it, tells little of what it brings as a whole: of 116 of which
photos missed 71, such slopes named four. So they are drawn, a part of them at a time, and the difference that they make
is shared out among those that are seen there, or near enough to change the loss's windows.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lpm.editing.contradicted import GREY, truth_of
from lpm.editing.draw import drawn
from lpm.editing.fitting import SSIM_LAMBDA
from lpm.editing.pulled import Photos
from lpm.render.losses import ssim_map, window_means
from lpm.render.rasterize import rasterize

PARTS = 4
"""So many at a time draw what is asked for, dealt out at random: beside few others each is judged by its own."""
TIMES = 6
"""What has come back changes what else is missed: two or three times mostly bring all of it."""
LEAST = 1e-3
"""Weight in a pixel (0..1) below which nothing of it is shared out."""


def missed(photos: Photos, gone: Tensor, asked: Tensor) -> Tensor:
    """[N] bool: those of `asked` [N] bool, all `gone` [N] bool, with which training's loss is less than without.

    They are asked anew, TIMES at most, until none is missed: what has come back changes what else is.
    """
    generator, back = torch.Generator().manual_seed(0), torch.zeros_like(gone)
    for _ in range(TIMES):
        more = _wanted(photos, gone & ~back, asked & ~back, generator)
        back |= more
        if not bool(more.any()):
            break
    return back


def _wanted(photos: Photos, gone: Tensor, asked: Tensor, generator: torch.Generator) -> Tensor:
    """[N] bool of `asked`. Round by round the worse half goes, and all that do harm once they are the smaller part:
    true floaters spoil the pictures in which the others are judged. What stays in the end is wanted, every one.
    """
    left = asked.clone()
    while bool(left.any()):
        change = _change(photos, gone, left, torch.randint(PARTS, (len(left),), generator=generator))
        stays = left & (change < change[left].median().clamp_min(0.0))
        if bool((stays == left).all()):
            break
        left = stays
    return left


def _change(photos: Photos, gone: Tensor, asked: Tensor, part: Tensor) -> Tensor:
    """[N] what the loss, summed over photos and pixels, changes by with each of `asked`; `part` [N] draws it."""
    cameras, device = photos.cameras, photos.cameras.viewmats.device
    these = {name: value.detach().float().to(device) for name, value in photos.params.items()}
    shown = [~gone | asked & (part == k) for k in range(-1, PARTS)]  # the first one: none of them
    logits = [torch.where(rows[:, None].to(device), these["opacities"], -math.inf) for rows in shown]
    background, new = torch.full((3,), GREY, device=device), asked.to(device).float()[:, None]
    found = torch.zeros(len(gone), device=device)
    own = (~cameras.held_out).nonzero().flatten().tolist()
    for k in photos.progress(range(len(own)), "asking photos what they miss"):
        truth, known = truth_of(photos.photo(k), device)
        maps = []
        for logit in logits:
            with torch.no_grad():
                color, _ = drawn({**these, "opacities": logit}, cameras, own[k], background, photos.mode)
            maps.append(_loss_maps(color * known, truth * known))
        for logit, (l1, dssim) in zip(logits[1:], maps[1:], strict=True):
            value = new.clone().requires_grad_()
            weight = _weight({**these, "opacities": logit}, value, photos, own[k])
            if weight.requires_grad:  # else nothing is seen
                seen = weight.detach()
                shares = _share(l1 - maps[0][0], seen) + _blurred(_share(dssim - maps[0][1], _blurred(seen)))
                found += (torch.autograd.grad((weight * shares).sum(), value)[0] * new)[:, 0]
    return found.cpu()


def _weight(these: dict[str, Tensor], value: Tensor, photos: Photos, v: int) -> Tensor:
    """[H, W] of `value` [N, 1], blended as camera `v` sees it."""
    cameras = photos.cameras
    width, height = cameras.sizes[v].tolist()
    image, _, _ = rasterize(
        these["means"], these["quats"], these["scales"], these["opacities"].reshape(-1), value,
        cameras.viewmats[v, None], cameras.Ks[v, None], width, height, rasterize_mode=photos.mode,
        log_scales=True, logit_opacities=True,
    )  # fmt: skip
    weight: Tensor = image[0, ..., 0]
    return weight


def _share(change: Tensor, weight: Tensor) -> Tensor:
    return torch.where(weight > LEAST, change / weight.clamp_min(LEAST), 0.0)


def _loss_maps(render: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Training's loss pixel by pixel, its two parts [H, W] (lpm.render.losses; here the window meets zeros beside)."""
    dssim = 1 - ssim_map(render, truth, pad=True).mean(0)
    return (1 - SSIM_LAMBDA) * (render - truth).abs().mean(2), SSIM_LAMBDA * dssim


def _blurred(image: Tensor) -> Tensor:
    """[H, W] under the loss's window."""
    return window_means(image[None], pad=True)[0]
