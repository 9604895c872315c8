"""What glTF and USD files of ours say about their place beside the Gaussians: up, an offset, how they were trained.

Both formats know what is up: +y in glTF, +y or +z in USD. Our Gaussians are written as they are, and the node above
them turns their up direction there: the numbers come back to the bit, and a viewer shows the scene upright. What a
node cannot say is a small JSON under the name KEY, which other programs pass over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lpm.checks import fail
from lpm.gaussians.far import Floats
from lpm.gaussians.parameters import NAMES
from lpm.gaussians.similarity import Similarity, move_far

KEY = "lpm_splat"
USUAL_UP = [0.0, -1.0, 0.0]
"""Of files whose up direction nobody tells: they come from COLMAP's axes, right, down, front."""
TO_PLY_AXES = np.diag([1.0, -1.0, -1.0])
"""From right, up, back (glTF's axes, and USD's with y up) to right, down, front."""
STRETCH = 1e-3
"""How much longer one axis may become than another; what is left of float32 matrices."""


@dataclass
class Placement:
    """Beside the Gaussians of a file."""

    up: list[float] | None = None
    """The scene's up direction [3] in the frame of the Gaussians."""
    rasterize_mode: str | None = None
    """classic or antialiased, as trained."""
    offset: Floats = field(default_factory=lambda: np.zeros(3))
    """[3] to be added to the positions (lpm.gaussians.far)."""

    def turn(self, axis: str = "y") -> NDArray[np.float64]:
        """The proper rotation [3, 3] that brings `up` to +y or +z, by the shorter way."""
        up = np.array(self.up or USUAL_UP, np.float64)
        up, to = up / np.linalg.norm(up), np.eye(3)["xyz".index(axis)]
        v, c = np.cross(up, to), float(up @ to)
        if c < -1 + 1e-12:  # half a turn, and x stays where it is, as from COLMAP's axes to glTF's
            return np.diag([1.0, -1.0, -1.0])
        cross = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
        turned: NDArray[np.float64] = np.eye(3) + cross + cross @ cross / (1 + c)
        return turned

    def as_json(self) -> dict[str, Any]:
        """To be written under KEY; placement_of() undoes it."""
        said: dict[str, Any] = {"up": [float(v) for v in self.up or USUAL_UP]}
        if self.rasterize_mode is not None:
            said["rasterize_mode"] = self.rasterize_mode
        if self.offset.any():
            said["offset"] = self.offset.tolist()
        return said


def placement_of(said: Any) -> Placement | None:
    """What a file says under KEY; None where it says nothing, or nothing that can be."""
    if not isinstance(said, dict):
        return None
    try:
        up = np.array([float(v) for v in said["up"]])
        offset = np.array([float(v) for v in said.get("offset", (0, 0, 0))])
        mode = said.get("rasterize_mode")
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    length = float(np.linalg.norm(up)) if up.shape == (3,) else 0.0
    if not 1e-6 < length < np.inf or offset.shape != (3,) or not np.abs(offset).max() < 1e300:
        return None
    if mode not in ("classic", "antialiased", None):
        return None
    return Placement((up / length).tolist(), mode, offset)


def similarity_of(path: Path, name: str, matrix: Floats) -> Similarity:
    """`matrix` [4, 4], of what `name` is in the file, as a similarity: others make of Gaussians what they are not.

    Raises:
        LpmError: it stretches, or is not finite.
    """
    with np.errstate(all="ignore"):
        finite = np.isfinite(matrix).all() and np.isfinite(matrix[:3, :3] @ matrix[:3, :3].T).all()
    sizes = np.zeros(3)
    if finite:
        u, sizes, v = np.linalg.svd(matrix[:3, :3])
    if not 1e-30 < sizes.min() <= sizes.max() < min(1e30, sizes.min() * (1 + STRETCH)):
        remedy = "apply its transform in the program that the file is from"
        fail(path, f"{name} stretches what is below it, or makes nothing of it", "one scale for all axes", remedy)
    return Similarity(u @ v, matrix[:3, 3].copy(), float(sizes.mean()))


def joined(
    parts: Sequence[tuple[dict[str, Tensor], Similarity]], axes: NDArray[np.float64], ours: Placement | None, turn: str
) -> tuple[dict[str, Tensor], Placement]:
    """What a file's scene holds as one set of Gaussians, and where it is.

    Where no program has moved what we wrote, it is given as it was written. Else each part's transform is applied, and
    the scene turned from the file's axes to right, down, front, as in a PLY of the same scene.

    Args:
        parts: parameters (lpm.gaussians), and from their axes to the scene's; at least one.
        axes: [3, 3] from the scene's axes to those of a PLY.
        ours: what the file says under KEY.
        turn: the scene's up axis, y or z.
    """
    if ours is not None and len(parts) == 1:
        params, by = parts[0]
        if np.abs(by.rotation - ours.turn(turn)).max() < 1e-5 and not by.translation.any() and abs(by.scale - 1) < 1e-5:
            return params, ours
    offset, moved = None, []
    for params, by in parts:
        params, offset = move_far(params, by.then(Similarity(axes, np.zeros(3), 1.0)), offset)
        moved.append(params)
    return together(moved), Placement(offset=np.zeros(3) if offset is None else offset)


def together(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Parameters (lpm.gaussians) of several as those of one; harmonics that some lack are 0."""
    most = max(params["features_rest"].shape[1] for params in parts)

    def rows(params: dict[str, Tensor], name: str) -> Tensor:
        value = params[name]
        return torch.nn.functional.pad(value, (0, 0, 0, most - value.shape[1])) if name == "features_rest" else value

    return {name: torch.cat([rows(params, name) for params in parts]) for name in NAMES}
