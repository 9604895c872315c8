"""How photos pull at Gaussians: whether training's loss would be less with more of each, or with less."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lpm.editing.cameras import Cameras
from lpm.editing.contradicted import GREY, truth_of
from lpm.editing.draw import drawn
from lpm.editing.fitting import SSIM_LAMBDA
from lpm.editing.opened import Params
from lpm.files import Progress, quiet
from lpm.render.losses import l1_dssim
from lpm.render.rasterize import RasterizeMode
from lpm.train.load_photos import Photo


@dataclass
class Pull:
    """Of N Gaussians, over the photos that do not only measure."""

    gradient: Tensor
    """[N] of the loss by the opacity (0..1), summed over photos and their pixels; below 0: photos want more of it."""
    down: Tensor
    """[N] int64: photos that want less of it."""
    seeing: Tensor
    """[N] int64: photos that it changes."""


@dataclass
class Photos:
    """What a scene's photos are compared with."""

    params: Params
    """N Gaussians, of which some are drawn."""
    cameras: Cameras
    """On the device where the work is done."""
    photo: Callable[[int], Photo]
    """Reads the photo of a camera that does not only measure, by its number among these."""
    mode: RasterizeMode
    progress: Progress = quiet

    def pull(self, rows: Tensor) -> Pull:
        """Of all N, 0 of what is not drawn; `rows` [N] bool are."""
        device, n = self.cameras.viewmats.device, len(rows)
        shown = rows.nonzero().flatten()
        these = {name: value[shown].detach().float().to(device) for name, value in self.params.items()}
        alpha = torch.sigmoid(these["opacities"])
        gradient = torch.zeros(len(shown), device=device)
        down, seeing = (torch.zeros(len(shown), dtype=torch.int64, device=device) for _ in range(2))
        background = torch.full((3,), GREY, device=device)
        own = (~self.cameras.held_out).nonzero().flatten().tolist()
        for k in self.progress(range(len(own)), "asking photos"):
            truth, known = truth_of(self.photo(k), device)
            asked = these["opacities"].clone().requires_grad_()
            color, _ = drawn({**these, "opacities": asked}, self.cameras, own[k], background, self.mode)
            loss = l1_dssim(color * known, truth * known, SSIM_LAMBDA) * truth.shape[0] * truth.shape[1]
            by_logit = torch.autograd.grad(loss, asked)[0]
            by_alpha = (by_logit / (alpha * (1 - alpha)).clamp_min(1e-6)).reshape(-1)
            gradient += by_alpha
            down += by_alpha > 0
            seeing += by_alpha != 0
        found = Pull(torch.zeros(n), torch.zeros(n, dtype=torch.int64), torch.zeros(n, dtype=torch.int64))
        for whole, part in ((found.gradient, gradient), (found.down, down), (found.seeing, seeing)):
            whole[shown.to(whole.device)] = part.cpu()
        return found
