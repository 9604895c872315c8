"""What photos miss of the Gaussians that were taken, measured: the loss with them in place, less that without.

The slope of the loss at a trace of each, or at all of it, tells little of what it brings as a whole: of 116 of which
photos missed 71, such slopes named four. So they are drawn, a part of them at a time, and the difference that they make
is shared out among those that are seen there, or near enough to change the loss's windows.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from lpm.editing.contradicted import GREY, truth_of
from lpm.editing.draw import drawn
from lpm.editing.fitting import SSIM_LAMBDA
from lpm.editing.kept import Kept, Pair
from lpm.editing.pulled import Photos
from lpm.render.losses import ssim_map, window_means
from lpm.render.rasterize import rasterize

PARTS = 4
"""So many at a time draw what is asked for, dealt out at random: beside few others each is judged by its own."""
TIMES = 6
"""What has come back changes what else is missed: two or three times mostly bring all of it."""
AGAIN = 4
"""Those that are asked again are one in so many of all, those that do least harm."""
FEW = 100
"""So many are asked again whatever they do: they cost few rounds."""
NEARLY = 0.95
"""Once of those that are left so many are wanted, no further round asks them: it would turn out one or two."""
LEAST = 1e-3
"""Weight in a pixel (0..1) below which nothing of it is shared out."""


def missed(photos: Photos, gone: Tensor, asked: Tensor) -> Tensor:
    """[N] bool: those of `asked` [N] bool, all `gone` [N] bool, with which training's loss is less than without.

    They are asked anew, TIMES at most, until none is missed: what has come back changes what else is. Of those that are
    not missed at first, the ones that did least harm are.
    """
    generator, back = torch.Generator().manual_seed(0), torch.zeros_like(gone)
    again = max(FEW, int(asked.sum()) // AGAIN)
    for _ in range(TIMES):
        more, asked = _wanted(photos, gone & ~back, asked & ~back, again, generator)
        back |= more
        if not bool(more.any()):
            break
    return back


def _wanted(
    photos: Photos, gone: Tensor, asked: Tensor, again: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """[N] bool of `asked` those that are wanted, and [N] bool those that were among the last `again`, or as few.

    Round by round the worse half goes, and all that do harm once they are the smaller part: true floaters spoil the
    pictures in which the others are judged. What stays in the end is wanted, every one or nearly.
    """
    left, near, without = asked.clone(), asked, Kept()
    while bool(left.any()):
        change = _change(photos, gone, left, torch.randint(PARTS, (len(left),), generator=generator), without)
        stays = left & (change < change[left].median().clamp_min(0.0))
        done = int(stays.sum()) >= NEARLY * int(left.sum())
        left = stays
        if int(near.sum()) > again:
            near = left
        if done:
            break
    return left, near


def _change(photos: Photos, gone: Tensor, asked: Tensor, part: Tensor, without: Kept) -> Tensor:
    """[N] what the loss, summed over photos and pixels, changes by with each of `asked`; `part` [N] draws it.

    `without`: the loss with none of them, for all rounds the same.
    """
    cameras, device = photos.cameras, photos.cameras.viewmats.device
    these = {name: value.detach().float().to(device) for name, value in photos.params.items()}
    new, found = asked.to(device).float()[:, None], torch.zeros(len(gone), device=device)
    own = (~cameras.held_out).nonzero().flatten().tolist()

    def with_rows(rows: Tensor) -> dict[str, Tensor]:
        return {**these, "opacities": torch.where(rows[:, None].to(device), these["opacities"], -math.inf)}

    none, parts = with_rows(~gone), [with_rows(~gone | asked & (part == k)) for k in range(PARTS)]
    for k in photos.progress(range(len(own)), "asking photos what they miss"):
        seen_here = photos, own[k], *truth_of(photos.photo(k), device)
        l1_before, dssim_before = without.of(k, partial(_loss_maps_of, none, *seen_here))
        for params in parts:
            value = new.clone().requires_grad_()
            weight = _weight(params, value, photos, own[k])
            seen = weight.detach()
            if not weight.requires_grad or not bool((seen > LEAST).any()):
                continue
            l1, dssim = _loss_maps_of(params, *seen_here)
            shares = _share(l1 - l1_before, seen) + _blurred(_share(dssim - dssim_before, _blurred(seen)))
            found += (torch.autograd.grad((weight * shares).sum(), value)[0] * new)[:, 0]
    return found.cpu()


@torch.no_grad()
def _loss_maps_of(these: dict[str, Tensor], photos: Photos, v: int, truth: Tensor, known: Tensor) -> Pair:
    """_loss_maps of what camera `v` shows against its photo, of what contradicted.truth_of gave."""
    background = truth.new_full((3,), GREY)
    color, _ = drawn(these, photos.cameras, v, background, photos.mode)
    return _loss_maps(color * known, truth * known)


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


def _loss_maps(render: Tensor, truth: Tensor) -> Pair:
    """Training's loss pixel by pixel, its two parts [H, W] (lpm.render.losses; here the window meets zeros beside)."""
    dssim = 1 - ssim_map(render, truth, pad=True).mean(0)
    return (1 - SSIM_LAMBDA) * (render - truth).abs().mean(2), SSIM_LAMBDA * dssim


def _blurred(image: Tensor) -> Tensor:
    """[H, W] under the loss's window."""
    return window_means(image[None], pad=True)[0]
