"""A picture of Gaussians seen from four sides, for a look at what a file holds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from lpm.checks import fail
from lpm.files import atomic_file
from lpm.formats.read import Loaded
from lpm.formats.rows import sound_rows
from lpm.multiview.views import look_at
from lpm.render.rasterize import RasterizeMode, rasterize

FIELD = math.radians(45)


def draw(
    params: Mapping[str, Tensor],
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    background: float = 1.0,
    rasterize_mode: RasterizeMode = "classic",
) -> Tensor:
    """Pictures [C, H, W, 3], 0..1, of `params` (lpm.gaussians) in cameras [C, 4, 4], [C, 3, 3]."""
    degree = math.isqrt(params["features_rest"].shape[1] + 1) - 1
    with torch.no_grad():
        colors, _, _ = rasterize(
            params["means"],
            torch.nn.functional.normalize(params["quats"], dim=1),
            params["scales"].exp(),
            torch.sigmoid(params["opacities"]).reshape(-1),
            (params["features_dc"][:, None], params["features_rest"]),
            viewmats,
            Ks,
            width,
            height,
            sh_degree=degree,
            backgrounds=torch.full((len(viewmats), 3), float(background)),
            rasterize_mode=rasterize_mode,
        )
    return colors.clamp(0, 1)


def four_sides(params: Mapping[str, Tensor], up: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Cameras [4, 4, 4] and [4, 3, 3] around the middle 98 % of the centres, a little above them."""
    ordered = params["means"].sort(dim=0).values
    edge = len(ordered) // 100
    low, high = ordered[edge], ordered[-1 - edge]
    centre = (low + high) / 2
    radius = max(float((high - low).norm()) / 2, float(params["scales"].exp().median()) * 3, 1e-6)
    up = torch.nn.functional.normalize(up, dim=0)
    first = torch.linalg.cross(up, torch.eye(3)[int(up.abs().argmin())])
    first = torch.nn.functional.normalize(first, dim=0)
    second = torch.linalg.cross(up, first)
    distance = radius / math.sin(FIELD / 2)
    sides = [first, second, -first, -second]
    cameras = [look_at(centre + distance * (0.97 * side + 0.25 * up), centre, up) for side in sides]
    focal = size / 2 / math.tan(FIELD / 2)
    K = torch.tensor([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1.0]])
    return torch.stack(cameras), K.expand(4, 3, 3).contiguous()


def render_picture(out: Path, loaded: Loaded, width: int = 640) -> None:
    """Draws `loaded` from four sides into one picture, atomically.

    Raises:
        LpmError: the name is not one of a picture, nothing finite is there to draw, or it cannot be written.
    """
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        fail(out, f"ending {out.suffix!r}", ".png or .jpg")
    if not 16 <= width <= 8192:
        fail("--size", str(width), "16 to 8192 pixels")
    if not bool(sound_rows(loaded.params).any()):
        fail(loaded.path, "nothing finite to draw", "finite Gaussians")
    # Files of other programs come from COLMAP's axes, where up is about -y.
    up = torch.tensor([0.0, 0.0, 1.0] if loaded.frame == "train" else loaded.up or [0.0, -1.0, 0.0])
    mode: RasterizeMode = "antialiased" if loaded.rasterize_mode == "antialiased" else "classic"
    one, two, three, four = four_pictures(loaded.params, loaded.params, up, width // 2, mode).chunk(4, 1)
    save_picture(out, torch.cat([torch.cat([one, two], 1), torch.cat([three, four], 1)]))


def four_pictures(
    params: Mapping[str, Tensor], seen: Mapping[str, Tensor], up: Tensor, side: int, mode: RasterizeMode = "classic"
) -> Tensor:
    """[side, 4 side, 3] `params` from four sides of `seen`, beside each other; without rows that are not finite."""
    seen = {name: value[sound_rows(seen)] for name, value in seen.items()}
    return beside(params, *four_sides(seen, up, side), side, mode)


def beside(
    params: Mapping[str, Tensor], viewmats: Tensor, Ks: Tensor, side: int, mode: RasterizeMode = "classic"
) -> Tensor:
    """[side, C side, 3] the finite rows of `params` in cameras [C, 4, 4], [C, 3, 3], beside each other."""
    params = {name: value.detach()[sound_rows(params)] for name, value in params.items()}
    return torch.cat(list(draw(params, viewmats, Ks, side, side, rasterize_mode=mode)), 1)


def save_picture(out: Path, picture: Tensor) -> None:
    """Writes `picture` [H, W, 3], 0..1, atomically, as its name's ending says.

    Raises:
        LpmError: OpenCV cannot write such a file, or it cannot be written.
    """
    bgr = np.ascontiguousarray((picture * 255).round().byte().numpy()[..., ::-1])
    good, data = cv2.imencode(out.suffix.lower(), bgr)
    if not good:
        fail(out, "OpenCV cannot write it", ".png or .jpg")
    with atomic_file(out) as file:
        file.write(data.tobytes())
