"""Opacities of what stays after an edit, fitted to the photos: what was taken had a part in how the rest shows them."""

from __future__ import annotations

import torch
from torch import Tensor

from lpm.editing.contradicted import GREY, truth_of
from lpm.editing.pulled import Photos
from lpm.editing.refit import FALL, SSIM_LAMBDA, drawn
from lpm.render.losses import l1_dssim
from lpm.train.adam import Adam
from lpm.train.optimizers import EPS, Rate, share_of_rate
from lpm.train.photos import PhotoOrder

RATE = Rate(1.5e-2, FALL * 1.5e-2)
"""A third of training's, falling: these steps end what training left in motion, and begin nothing new."""


def settled(photos: Photos, steps: int) -> Tensor:
    """[N, 1] opacities (logit) of `photos.params` after `steps` steps with training's loss; all else stays.

    A Gaussian keeps its place, shape and colour, so that no floater comes back. Held-out photos are not looked at.
    The same bits at every call on a CPU.
    """
    cameras, device = photos.cameras, photos.cameras.viewmats.device
    these = {name: value.detach().float().to(device) for name, value in photos.params.items()}
    opacities = torch.nn.Parameter(these["opacities"].clone())
    optimizer = Adam([opacities], lr=RATE.first, eps=EPS)
    background = torch.full((3,), GREY, device=device)
    own = (~cameras.held_out).nonzero().flatten().tolist()
    order = PhotoOrder(len(own), 0)
    for step in photos.progress(range(steps), "fitting opacities to photos"):
        k = order.next()
        truth, known = truth_of(photos.photo(k), device)
        color, _ = drawn({**these, "opacities": opacities}, cameras, own[k], background, photos.mode)
        loss = l1_dssim(color * known, truth * known, SSIM_LAMBDA)
        if loss.requires_grad and bool(torch.isfinite(loss)):  # else nothing of it is seen here
            loss.backward()
            optimizer.param_groups[0]["lr"] = RATE.first * share_of_rate(RATE, steps, step)
            optimizer.step()
            optimizer.zero_grad()
    return opacities.detach().cpu()
