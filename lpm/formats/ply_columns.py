"""What the columns and comments of a PLY with Gaussians mean, beyond 3DGS's own: read from its header alone.

2DGS has two sizes, Mip-Splatting a filter, Spacetime Gaussians a motion, nerfstudio colours instead of harmonics; and
some programs say in comments how they trained, what is up, and from where positions count.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lpm.checks import fail
from lpm.formats.ply_header import Element, Header
from lpm.formats.rows import FLAT
from lpm.gaussians.far import numbers
from lpm.gaussians.spherical_harmonics import SH_C0

REST = (0, 3, 8, 15)
"""Coefficients per channel beyond the first, by SH degree."""
BEYOND = 24
"""The same of degree 4, which is read up to degree 3."""
NORMALS = ("nx", "ny", "nz")
RGB = ("red", "green", "blue")
MOTION = (
    *(f"motion_{i}" for i in range(9)), *(f"omega_{i}" for i in range(4)), "trbf_center", "trbf_scale",
)  # fmt: skip
"""Of Spacetime Gaussians (Li 2024), lite: a polynomial of three terms, turning, and when a Gaussian is there."""
MOVING = re.compile(r"motion|omega|trbf|velocity|^t$|time|durations?$|scaling_t|rot_r|rotation_r", re.IGNORECASE)
"""Columns that tell of a motion, of whatever program."""
LARGEST_OF = {"u1": 255.0, "u2": 65535.0}
NUMBER = r"([-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)"
OFFSET = re.compile(rf"offset:?\s+{NUMBER}\s+{NUMBER}\s+{NUMBER}", re.IGNORECASE)
AXIS = re.compile(rf"vertical axis:\s*(?:([-+]?)([xyz])\s*$|{NUMBER}\s+{NUMBER}\s+{NUMBER})", re.IGNORECASE)
MODE = re.compile(r"(?:splatrendermode:\s*(\w+)|antialiased\s+([01])\s*$)", re.IGNORECASE)


def property_names(rest: int) -> list[str]:
    """Names of the columns for `rest` SH coefficients per channel beyond the first (0, 3, 8 or 15)."""
    return [
        *("x", "y", "z", *NORMALS, "f_dc_0", "f_dc_1", "f_dc_2"),
        *(f"f_rest_{i}" for i in range(3 * rest)),
        *("opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
    ]


@dataclass
class Comments:
    """What the comments of a header say."""

    rasterize_mode: str | None = None
    """classic or antialiased, in Brush's or Postshot's words."""
    up: list[float] | None = None
    offset: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    """To be added to all positions."""


def comments_of(header: Header) -> Comments:
    """What the comments of `header` say that changes the picture or the place; of two that differ the last one."""
    found = Comments()
    for comment in header.comments:
        if mode := MODE.match(comment):
            said = mode[1] or mode[2]
            found.rasterize_mode = {"mip": "antialiased", "1": "antialiased", "default": "classic", "0": "classic"}.get(
                said.lower(), found.rasterize_mode
            )
        elif axis := AXIS.match(comment):
            vector = np.zeros(3)
            if axis[2]:
                # A bare y is COLMAP's axis, whose positive end is down.
                sign = {"-": -1.0, "+": 1.0}.get(axis[1], -1.0 if axis[2].lower() == "y" else 1.0)
                vector["xyz".index(axis[2].lower())] = sign
            else:
                vector[:] = [float(axis[i]) for i in (3, 4, 5)]
            if 0 < np.linalg.norm(vector) < np.inf:
                found.up = (vector / np.linalg.norm(vector)).tolist()
        elif offset := OFFSET.match(comment):
            vector = np.array([float(value) for value in offset.groups()])
            if np.isfinite(vector).all():
                found.offset = vector
    return found


def written_comments(rasterize_mode: str | None, offset: NDArray[np.float64]) -> list[str]:
    """Comments that comments_of() reads back; Brush's word for antialiased, which splat-transform knows, too."""
    mode = ["SplatRenderMode: mip"] if rasterize_mode == "antialiased" else []
    return mode + ([f"offset {numbers(offset)} (to be added to x y z)"] if offset.any() else [])


@dataclass
class Columns:
    """How the columns of one PLY become parameters."""

    rest: int
    """SH coefficients per channel beyond the first, as the file has them."""
    names: list[str]
    """property_names(rest); those that the file lacks are in `absent`."""
    absent: set[str]
    kinds: dict[str, str]
    """Column -> numpy type without byte order."""
    moves: bool
    notes: list[str]
    """What of it a person should know, one line each."""

    @property
    def more(self) -> list[str]:
        """Columns that are read beside `names`."""
        return [*(MOTION if self.moves else ()), *(name for name in ("filter_3D",) if name in self.kinds)] + (
            list(RGB) if "f_dc_0" in self.absent else []
        )

    def finish(self, params: dict[str, Tensor], column: Callable[[str], NDArray[Any]]) -> dict[str, Tensor]:
        """`params` as 3DGS's columns give them, with what the other ones say; column(name) is one of `more` [N]."""

        def tensor(*names: str) -> Tensor:
            with np.errstate(over="ignore"):
                return torch.from_numpy(np.stack([np.asarray(column(name), np.float32) for name in names], 1))

        if "scale_2" in self.absent:
            params["scales"][:, 2] = FLAT
        if "f_dc_0" in self.absent:
            color = tensor(*RGB) / LARGEST_OF.get(self.kinds["red"], 1.0)
            params["features_dc"] = (color - 0.5) / SH_C0
        if self.moves:
            params["features_dc"] = (params["features_dc"] - 0.5) / SH_C0  # they are colours, 0 to 1
            params |= {"motion": tensor(*MOTION[:9]), "omega": tensor(*MOTION[9:13]), "time_center": tensor(MOTION[13])}
            params["time_width"] = tensor(MOTION[14]).exp()
        params["features_rest"] = params["features_rest"][:, : REST[-1]].contiguous()
        return filtered(params, tensor("filter_3D")) if "filter_3D" in self.kinds else params


def filtered(params: dict[str, Tensor], size: Tensor) -> dict[str, Tensor]:
    """`params` blurred by Mip-Splatting's filter of `size` [N, 1] (world), as its pictures show them.

    Sizes become sqrt(s^2 + f^2); opacities shrink by the square root of the ratio of determinants (Yu 2024, eq. 9).
    """
    before = params["scales"].double() * 2
    after = torch.logaddexp(before, size.double().abs().log() * 2)
    shrunk = ((before - after).sum(1, keepdim=True) / 2).exp()
    opacities = torch.logit(torch.sigmoid(params["opacities"].double()) * shrunk)
    return {**params, "scales": (after / 2).float(), "opacities": opacities.float()}


def understand(header: Header, element: Element) -> Columns:
    """What the columns of `element` mean.

    Raises:
        LpmError: a column is missing, or the picture needs what is not in the file.
    """
    path, kinds = header.path, dict(element.columns)
    rest, remainder = divmod(sum(name.startswith("f_rest_") for name in kinds), 3)
    if rest not in (*REST, BEYOND) or remainder:
        fail(path, f"{3 * rest + remainder} f_rest columns", "0, 9, 24, 45 or 72 of them (SH degree 0 to 4)")
    names = property_names(rest)
    absent = {name for name in names if name not in kinds}
    if "packed_position" in kinds:
        fail(path, "a compressed PLY", "an uncompressed one", "read it with lpm.formats.read, or decompress it first")
    notes: list[str] = []
    _check_missing(path, names, absent, kinds, notes)
    if "f_t_0" in kinds:
        fail(path, "Spacetime Gaussians of the full model, whose colours come from a network beside the file",
             "those of its lite model", "train that one, or export it to .splatv with its own program")  # fmt: skip
    moves = set(MOTION) <= kinds.keys()
    if moves:
        notes.append("it moves: Spacetime Gaussians, lite; f_dc are taken for colours")
    if rest == BEYOND:
        notes.append("its harmonics have degree 4: read are those up to degree 3")
    if "filter_3D" in kinds:
        notes.append("Mip-Splatting's filter_3D is applied: sizes and opacities are those of its pictures")
    found = Columns(rest, names, absent, kinds, moves, notes)
    others = [name for name in kinds if name not in {*names, *found.more, *NORMALS}]
    unread = [name for name in others if MOVING.search(name)]
    if unread:
        notes.append(f"columns that tell of a motion are not read, everything stands still: {_listed(unread)}")
    others = [name for name in others if name not in unread]
    if others:
        notes.append(f"columns passed over: {_listed(others)}")
    return found


def _check_missing(path: Path, names: list[str], absent: set[str], kinds: dict[str, str], notes: list[str]) -> None:
    """Raises LpmError for a column that has no stand-in; notes those that have."""
    stand_in = set(NORMALS)
    if "scale_2" in absent and not absent & {"scale_0", "scale_1", "opacity", "rot_0"}:
        stand_in.add("scale_2")
        notes.append("it has two sizes a Gaussian (2DGS): they are flat")
    if {"f_dc_0", "f_dc_1", "f_dc_2"} <= absent and set(RGB) <= kinds.keys() and "opacity" in kinds:
        stand_in |= {"f_dc_0", "f_dc_1", "f_dc_2"}
        notes.append("its colours are red green blue, without harmonics")
    missing = [name for name in names if name in absent - stand_in]
    if missing:
        remedy = "export it again" if "opacity" in kinds and "rot_0" in kinds else "is it a point cloud?"
        fail(path, f"no column {missing[0]}", "a Gaussian Splatting PLY", remedy)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
