"""What a seed draws of a still scene beside its place: faults of its photos, its points, and the side to hold out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lpm.scenes.samples.faults import drift, nudged
from lpm.scenes.scene import Floats


@dataclass(frozen=True)
class Drawn:
    """Numbers that a seed drew; truth.json tells them under these names."""

    kind: str
    """What the scene is of."""
    points: int
    """Points that it starts from, at the most."""
    drift: float
    """The exposure goes up by this share and down again; 0: it stays."""
    pose_noise: float
    """The poses in transforms.json are off by up to so many pixels."""
    detail: float
    """Strength of the fine grain over every texture."""
    side: float
    """The sector's direction, in degrees from x towards y."""
    sector_share: float
    """The share of the views in it."""

    def sector(self, poses: Floats) -> NDArray[np.bool_]:
        """[V] the views of `poses` [V, 4, 4] from one side: those whose places lie farthest to it."""
        far = poses[:, 0, 3] * np.cos(np.radians(self.side)) + poses[:, 1, 3] * np.sin(np.radians(self.side))
        inside = np.zeros(len(poses), bool)
        inside[np.argsort(-far, kind="stable")[: max(1, round(self.sector_share * len(poses)))]] = True
        return inside

    def held_out(self, poses: Floats) -> NDArray[np.bool_]:
        """[V] the views that either hold-out measures; nothing is wrong with these, or it would count as error."""
        every_8th: NDArray[np.bool_] = np.arange(len(poses)) % 8 == 0
        return np.logical_or(self.sector(poses), every_8th)

    def gains(self, poses: Floats) -> Floats:
        """[V] exposure gains."""
        return np.where(self.held_out(poses), 1.0, drift(self.drift, len(poses)))

    def told_poses(self, poses: Floats, intrinsics: Floats, rng: np.random.Generator) -> Floats:
        """[V, 4, 4] what transforms.json says of the `poses`."""
        pixels = self.pose_noise * rng.uniform(0.5, 1.0, len(poses))
        off = nudged(poses, intrinsics, pixels, rng)
        return np.where(self.held_out(poses)[:, None, None], poses, off)

    def facts(self, files: list[str], poses: Floats) -> dict[str, Any]:
        """What truth.json says of it; `poses` are the true ones of `files`."""
        return {
            "drawn": asdict(self),
            "poses": {file: pose.tolist() for file, pose in zip(files, poses, strict=True)},
            "poses_say": "true camera to world; those in transforms.json are off by pose_noise, but of held-out views",
            "sector": [file for file, held in zip(files, self.sector(poses), strict=True) if held],
        }
