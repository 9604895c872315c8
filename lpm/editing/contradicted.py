"""Gaussians that photos contradict: nearly every photo that sees them would be met better without.

In a model that was trained, what a Gaussian adds here it spares elsewhere: photos pull its opacity both ways. One that
does not belong there is pulled down by all that see it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lpm.editing.cameras import Cameras
from lpm.editing.draw import drawn
from lpm.editing.opened import Params
from lpm.files import Progress, quiet
from lpm.gaussians.spherical_harmonics import SH_C0
from lpm.render.rasterize import RasterizeMode
from lpm.train.load_photos import Photo

AGREE = 0.7
"""Share of the photos that see it by which it must be pulled down."""
CERTAIN = 0.95
"""Or the share of the light that it stops which must be that of photos that pull it down: close before a camera one
photo sees nearly all of it, and the corner that three others see says nothing."""
STRONG = (0.3, 0.15, 0.07, 0.035)
"""How strongly, pass by pass: fall of the squared error (0..1, three channels) for each pixel of light that it stops,
on average. The worst go first: they spoil the pictures by which what is behind and beside them is judged."""
LEAST = 0.1
"""Pixels of light from which on a photo counts as having seen a Gaussian."""
GREY = 0.5


def contradicted(
    params: Params, cameras: Cameras, photo: Callable[[int], Photo], photos: int, strong: float,
    mode: RasterizeMode, progress: Progress = quiet,
) -> Tensor:  # fmt: skip
    """[N] bool: at least `photos` photos see it, and it is against AGREE of them, or CERTAIN of what they see.

    What its removal would change is told by the gradient of the squared error with respect to its opacity, and how much
    it is seen by that of the sum of a further channel with respect to its value there.

    Args:
        cameras: on the device where the work is done.
        photo: reads the photo of a camera that does not only measure, by its number among these.
        strong: see STRONG.
    """
    device, n = cameras.viewmats.device, len(params["means"])
    moved = {name: value.detach().float().to(device) for name, value in params.items()}
    alpha = torch.sigmoid(moved["opacities"]).reshape(-1)
    seen, against = (torch.zeros(n, dtype=torch.int64, device=device) for _ in range(2))
    light, gain, wrong = (torch.zeros(n, device=device) for _ in range(3))
    background = torch.full((3,), GREY, device=device)
    own = (~cameras.held_out).nonzero().flatten().tolist()
    for k in progress(range(len(own)), "comparing with photos"):
        truth, known = truth_of(photo(k), device)
        opacity = moved["opacities"].clone().requires_grad_()
        base = moved["features_dc"].clone().requires_grad_()
        color, _ = drawn({**moved, "opacities": opacity, "features_dc": base}, cameras, own[k], background, mode)
        by_opacity, by_color = (
            torch.autograd.grad(value, at, retain_graph=True)[0]
            for value, at in (((((color - truth) * known) ** 2).sum(), opacity), ((color * known).sum(), base))
        )
        # d alpha / d logit = alpha (1 - alpha): without it, the error is less by about alpha times d error / d alpha.
        without = by_opacity.reshape(-1) / (1 - alpha).clamp_min(1e-3)
        stopped = by_color.abs().amax(1) / SH_C0
        sees = stopped >= LEAST
        seen += sees
        against += sees & (without > 0)
        light += stopped * sees
        gain += without * sees
        wrong += stopped * (sees & (without > 0))
    agreed = (against >= AGREE * seen) | (wrong >= CERTAIN * light)
    found = (seen >= photos) & agreed & (gain > strong * light)
    return found.cpu()


def truth_of(photo: Photo, device: torch.device) -> tuple[Tensor, Tensor]:
    """Colours [H, W, 3] in 0..1 of `photo`, over GREY where it is transparent, and where it counts [H, W, 1], 0..1."""
    image = (photo["image"].float() / 255).to(device)
    truth = image[..., :3]
    if image.shape[2] == 4:
        truth = truth * image[..., 3:] + GREY * (1 - image[..., 3:])
    known = torch.ones_like(truth[..., :1]) if "mask" not in photo else photo["mask"].to(truth)
    return truth, known
