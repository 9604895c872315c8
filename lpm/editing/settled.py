"""Opacities of what stays after an edit, fitted to the photos: what was taken had a part in how the rest shows them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from lpm.editing.cameras import run_settings, settings_file
from lpm.editing.contradicted import GREY, truth_of
from lpm.editing.draw import drawn
from lpm.editing.fitting import FALL, SSIM_LAMBDA, fit
from lpm.editing.pulled import Photos
from lpm.formats.read import Loaded
from lpm.render.losses import l1_dssim
from lpm.train.optimizers import Rate

RATE = Rate(1.5e-2, FALL * 1.5e-2)
"""A third of training's, falling: these steps end what training left in motion, and begin nothing new."""


def settled(photos: Photos, steps: int) -> tuple[Tensor, float, float]:
    """[N, 1] opacities (logit) of `photos.params` after `steps` steps with training's loss, and that loss over all
    photos before and after. Where it did not fall, opacities are as they were.

    A Gaussian keeps its place, shape and colour, so that no floater comes back. Held-out photos are not looked at.
    The same bits at every call on a CPU.
    """
    cameras, device = photos.cameras, photos.cameras.viewmats.device
    these = {name: value.detach().float().to(device) for name, value in photos.params.items()}
    opacities = torch.nn.Parameter(these["opacities"].clone())
    grey = torch.full((3,), GREY, device=device)
    own = (~cameras.held_out).nonzero().flatten().tolist()

    def loss_of(k: int, background: Tensor | None = None) -> Tensor:
        photo = photos.photo(k)
        truth, known = truth_of(photo, device)
        over = grey if background is None or photo["image"].shape[2] == 4 else background
        color, _ = drawn({**these, "opacities": opacities}, cameras, own[k], over, photos.mode)
        return l1_dssim(color * known, truth * known, SSIM_LAMBDA)

    def mean_loss() -> float:
        with torch.no_grad():
            return float(torch.stack([loss_of(k) for k in range(len(own))]).nanmean())

    before = mean_loss()
    rates = {"opacities": RATE}
    fit({"opacities": opacities}, rates, len(own), steps, loss_of, 0, photos.progress, "fitting opacities to photos")
    after = mean_loss()
    if not after < before:
        return these["opacities"].cpu(), before, before
    return opacities.detach().cpu(), before, after


def why_not(scene: Path, loaded: Loaded) -> str | None:
    """Why opacities cannot be fitted to the photos of `scene` as they were trained on; None: they can be.

    Photos of another size than in training, over another background, from poses or with colours that a run has refined,
    would pull all opacities somewhere else.
    """
    settings = run_settings(scene)
    model = settings.model
    reasons = {
        "how it was trained is not known (--scene RUN tells it)": not settings_file(scene).is_file(),
        "its sky is not drawn here": loaded.sky is not None,
        f"it was trained over {model.background_color}": model.background_color != "random",
        "its run has refined the poses": model.camera_optimizer.mode != "off",
        "its run has fitted the photos' colours": model.use_bilateral_grid,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)
