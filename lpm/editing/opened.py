"""What every edit begins and ends with: a source that is read once OUT can be written, and OUT with its picture."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lpm.checks import fail
from lpm.editing.cameras import Cameras, in_four_photos
from lpm.editing.cli import Common
from lpm.editing.regions import Rows
from lpm.files import bar
from lpm.formats.cli import Options
from lpm.formats.export import Chosen, finish, placement, up_direction
from lpm.formats.moving import moves
from lpm.formats.picture import beside, four_pictures, save_picture
from lpm.formats.placement import USUAL_UP
from lpm.formats.read import Loaded, load
from lpm.formats.write import check_writable, write
from lpm.gaussians.far import Floats
from lpm.render.rasterize import RasterizeMode

Params = dict[str, Tensor]
PICTURE = 320
"""Pixels of each side of a view."""


def opened(source: Path, out: Path, common: Common) -> Loaded:
    """`source`, once it is known that `out` can be written."""
    check_writable(out)
    for path in (out, picture_path(out)) if common.picture else (out,):
        if path.exists() and not common.overwrite:
            fail(path, "there already", "a new name", "--overwrite replaces it")
    loaded = load(source, bar)
    for note in loaded.notes:
        print(f"{loaded.path.name}: {note}", file=sys.stderr)
    if moves(loaded.params):
        fail(source, "a model that moves", "one that stands still", "lpm-export ply --time 0.5 writes one time of it")
    return loaded


def places(loaded: Loaded) -> Floats:
    """Positions [N, 3] in the frame of the file."""
    xyz: Floats = loaded.params["means"].detach().double().numpy() + loaded.offset
    return xyz


def taken(params: Params, gone: Rows) -> str:
    """What a person is told of the rows `gone` [N] bool."""
    alpha = torch.sigmoid(params["opacities"].detach().reshape(-1))
    share = float(alpha[torch.from_numpy(gone)].sum() / alpha.sum().clamp_min(1e-12))
    return f"{int(gone.sum()):,} of {len(gone):,} Gaussians ({share:.1%} of all opacity) taken"


def up_of(loaded: Loaded) -> Floats:
    """[3] the up direction in the frame of `loaded`, as far as it is told."""
    return np.array(up_direction(loaded, loaded.frame) or loaded.up or USUAL_UP, np.float64)


def written(
    out: Path, before: Loaded, after: Loaded, params: Params, offset: Floats, common: Common,
    seen: Params | None = None, cameras: Cameras | None = None,
) -> None:  # fmt: skip
    """Writes `params` and the picture, in four photos of `cameras` if it is given, else from four sides.

    `seen`: what the sides of both pictures are placed by, else each its own.
    """
    if before.sky is not None:
        print("The model's sky is left out; lpm-export writes it.", file=sys.stderr)
    chosen = Chosen(params, after.frame, 0, offset)
    dropped = write(out, params, placement(after, chosen), bar)
    finish(out, after, chosen, dropped, Options(), program="lpm-edit")
    if common.picture:
        rows = []
        for each, loaded in ((before.params, before), (params, after)):
            up = torch.tensor(up_of(loaded), dtype=torch.float32)
            if cameras is not None:
                rows.append(beside(each, *in_four_photos(cameras, PICTURE), PICTURE, mode_of(loaded)))
            else:
                rows.append(four_pictures(each, each if seen is None else seen, up, PICTURE, mode_of(loaded)))
        save_picture(picture_path(out), torch.cat(rows))
        print(f"{picture_path(out)}: before above, after below")


def mode_of(loaded: Loaded) -> RasterizeMode:
    """How `loaded` is to be drawn."""
    return "antialiased" if loaded.rasterize_mode == "antialiased" else "classic"


def chosen_device(device: str) -> str:
    """cpu or cuda, of auto, cpu or cuda. Raises LpmError where there is no GPU to take."""
    if device == "cuda" and not torch.cuda.is_available():
        fail("--device", "cuda", "a CUDA GPU that torch sees", "--device cpu")
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def picture_path(out: Path) -> Path:
    """Where the picture of before and after goes."""
    return out.with_name(out.name + ".edit.jpg")
