"""A scene in the frame of training: which photos are trained on, their cameras, and the points to start from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lpm.checks import fail
from lpm.gaussians.far import HALF_STEP
from lpm.scenes.cuts import Cut
from lpm.scenes.scene import Floats, Scene, camera_extent
from lpm.scenes.split import hold_out
from lpm.train.cameras import Cameras
from lpm.train.frame import frame
from lpm.train.scene_settings import SceneSettings

ALPHA_COLORS = {"white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0)}

LATTICE = 1e-4
"""Rounding of places that is allowed, times the cameras' distance from their mean."""


@dataclass
class Split:
    """The photos that are trained on, or those that are held out: files, and their cameras at full size."""

    names: list[str]
    images: list[Path]
    cameras: Cameras
    masks: list[Path] | None = None
    depths: list[Path] | None = None
    cams: list[str] | None = None
    """Which camera took each photo, of a scene that moves."""
    cuts: list[Cut | None] | None = None
    """How views are cut out of photos by lenses that are no pinholes (Scene.cuts)."""

    def __len__(self) -> int:
        return len(self.names)


@dataclass
class PlacedScene:
    """A scene as training sees it: train = scale * (transform @ file), file being the scene's own frame."""

    train: Split
    test: Split
    xyz: Tensor | None
    """[N, 3] starting points, frame of training; None: the scene has none, or they are not wanted."""
    rgb: Tensor | None
    """[N, 3] uint8, their colours."""
    extent: float
    """1.1 x the largest distance of a training camera from their mean, frame of training."""
    transform: Floats
    """[3, 4]"""
    scale: float
    depth_unit: float
    """What one unit of the depth files is in the frame of training."""
    alpha_color: tuple[float, float, float] | None
    """What photos with an alpha channel stand on; None: their alpha is kept."""


def random_rows(count: int, most: int | None) -> NDArray[np.int64]:
    """Indices of at most `most` of `count` points, ascending, the same every time."""
    if most is None or count <= most:
        return np.arange(count)
    if most <= 0:
        fail("max_points", str(most), "a positive number or None", "leave it out to keep all points")
    return np.sort(np.random.default_rng(0).choice(count, most, replace=False))


def place(scene: Scene, settings: SceneSettings, eval_interval: int) -> PlacedScene:
    """Turns, centres and scales `scene`, and holds every `eval_interval`-th photo out (0: none).

    Raises:
        LpmError: the scene cannot be trained on; one line with the file, what is wrong and what to do.
    """
    train, test = hold_out(scene, eval_interval)
    centres = scene.c2w[train, :3, 3]
    spread = np.linalg.norm(centres - centres.mean(0), axis=1).max()
    if spread <= 1e-9 * max(float(np.abs(centres).max()), 1e-3):
        fail(
            scene.layout.source,
            f"the {len(train)} training cameras are all in one place",
            "cameras at different places (depth comes from parallax)",
            "use photos taken while moving, or run the pose estimation again",
        )
    if not (np.isfinite(settings.scale_factor) and settings.scale_factor > 0):
        fail("scale_factor", str(settings.scale_factor), "a positive number", "leave it at 1")
    turned = frame(scene.c2w, scene.orientation_override or settings.orientation_method, settings.center_method)
    poses = turned @ scene.c2w
    largest = float(np.abs(poses[:, :, 3]).max())
    if largest * HALF_STEP > LATTICE * spread:
        got = (
            f"{settings.center_method}, and the cameras are {largest:.3g} from the origin, {spread:.3g} from each other"
        )
        fail("center_method", got, "places that float32 can tell apart", "leave it at poses")
    scale = (1.0 / largest if settings.auto_scale_poses else 1.0) * settings.scale_factor
    poses[:, :, 3] *= scale
    xyz, rgb = None, None
    if scene.points is not None and settings.load_3D_points:
        keep = random_rows(len(scene.points.xyz), settings.max_points)
        # The points stand in the same frame as the poses, so they move just like them.
        xyz = torch.from_numpy((scene.points.xyz[keep] @ turned[:, :3].T + turned[:, 3]) * scale).float()
        rgb = torch.from_numpy(scene.points.rgb[keep])
    # out = scale * applied_scale * (world @ original), "original" being the frame before any tool's own transform.
    world = turned.copy()
    world[:, 3] /= scene.applied_scale
    return PlacedScene(
        _split(scene, poses, train),
        _split(scene, poses, test),
        xyz,
        rgb,
        camera_extent(poses[train, :, 3]),
        world @ np.vstack([scene.applied_transform, [0.0, 0.0, 0.0, 1.0]]),
        float(scale * scene.applied_scale),
        settings.depth_unit_scale_factor * float(scale * scene.applied_scale),
        ALPHA_COLORS[settings.alpha_color] if scene.alpha_color and settings.alpha_color else None,
    )


def _split(scene: Scene, poses: Floats, chosen: NDArray[np.int64]) -> Split:
    def files(paths: list[Path] | None) -> list[Path] | None:
        return None if paths is None else [paths[i] for i in chosen]

    def column(values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values[chosen]))

    cameras = Cameras(
        column(poses).float(),
        column(scene.intrinsics).float(),
        column(scene.sizes),
        column(scene.distortion).float(),
        None if scene.capture_times is None else column(scene.capture_times).float(),
    )
    return Split(
        [scene.names[i] for i in chosen],
        [scene.images[i] for i in chosen],
        cameras,
        files(scene.masks),
        files(scene.depths),
        None if scene.cams is None else [scene.cams[i] for i in chosen],
        None if scene.cuts is None else [scene.cuts[i] for i in chosen],
    )
