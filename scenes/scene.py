"""What every layout is read into, moving or not: cameras, image files, points, times; in the frame of its own files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from lpm.checks import fail
from lpm.scenes.layout import Layout

if TYPE_CHECKING:
    from lpm.scenes.cuts import Cut
    from lpm.scenes.lenses import Lens

Floats = NDArray[np.float64]
IDENTITY: Floats = np.eye(4)[:3]
SKEW = 1.02
"""One axis of a camera may be so many times as long as another: files of three digits."""
ROUNDED = 1e-4
"""Lengths of axes that differ from 1 by no more are rounded, not scaled."""


@dataclass
class Points:
    """Starting points, as SfM found them."""

    xyz: Floats
    """[N, 3], the scene's frame and unit."""
    rgb: NDArray[np.uint8]
    """[N, 3], 0..255."""
    source: Path
    """The file they came from, for messages."""
    ids: NDArray[np.int64] | None = None
    """[N] COLMAP's numbers of them, by which its images name them."""

    def moved(self, transform: Floats) -> Points:
        """The same points after `transform` [3, 4]."""
        return Points(self.xyz @ transform[:, :3].T + transform[:, 3], self.rgb, self.source, self.ids)


@dataclass
class Scene:
    """A scene of V images, sorted by name; one that moves has `capture_times`. Nothing is decoded: sizes are known."""

    layout: Layout
    names: list[str]
    """V image paths as the files call them, relative to the layout's image folder."""
    images: list[Path]
    c2w: Floats
    """[V, 4, 4] camera to world, OpenGL axes (x right, y up, z back)."""
    intrinsics: Floats
    """[V, 4] fx, fy, cx, cy in pixels; the centre of the first pixel is at (0.5, 0.5)."""
    distortion: Floats
    """[V, 6] k1, k2, k3, k4, p1, p2 (OpenCV's formula; nerfstudio's order)."""
    sizes: NDArray[np.int64]
    """[V, 2] width, height in pixels."""
    points: Points | None = None
    masks: list[Path] | None = None
    depths: list[Path] | None = None
    """V files of z-depth (lpm.multiview.depth_prior), where the scene has them."""
    capture_times: Floats | None = None
    """[V] 0 at the first frame, 1 at the last, of a scene that moves."""
    cams: list[str] | None = None
    """V names of the cameras that took the images; where capture_times are, these are."""
    lenses: list[Lens | None] | None = None
    """V lenses as a reader finds them, where they are more than `distortion` tells; read_scene makes `cuts` of them."""
    cuts: list[Cut | None] | None = None
    """V how a view is cut out of its photo (lpm.scenes.cuts): poses, intrinsics and sizes are the view's, images, masks
    and depths those of the photo; None: the photo is the view. Views of one photo stand side by side."""
    shots: list[int] | None = None
    """V numbers, the same for views that were taken at once (cut out of one photo, or by the cameras of a rig), which
    are held out together."""
    applied_transform: Floats = field(default_factory=IDENTITY.copy)
    """[3, 4] what a tool already did to the original frame: here = applied_scale * applied_transform @ original."""
    applied_scale: float = 1.0
    lists: dict[str, list[str]] = field(default_factory=dict)
    """Explicit splits by name, where the scene has them: "train", "val", "test" -> image names."""
    orientation_override: str | None = None
    alpha_color: str | None = None
    """The background that images with an alpha channel are meant to stand on, if the layout says so."""
    notes: list[str] = field(default_factory=list)
    """One-line remarks about choices that were made while reading."""

    def __len__(self) -> int:
        return len(self.names)


def rotation(qvec: Floats) -> Floats:
    """[..., 3, 3] rotation matrices of wxyz quaternions [..., 4] of any length but zero."""
    xyzw = np.roll(np.asarray(qvec, np.float64), -1, axis=-1)
    matrices: Floats = Rotation.from_quat(xyzw.reshape(-1, 4)).as_matrix().reshape(*xyzw.shape[:-1], 3, 3)
    return matrices


def check_pose(name: str | Path, matrix: object) -> Floats:
    """`matrix` as [4, 4] float64 (a 3x4 gets its last row), of a camera, whose scale means nothing and is taken away.

    Raises:
        LpmError: not 3x4 or 4x4, not finite, or no rotation times a scale; `name` says whose pose it is.
    """
    pose = check_matrix(name, matrix)
    axes, remedy = pose[:3, :3], "run the pose estimation again, or export the poses in right-handed axes"
    if np.linalg.det(axes) < 0:
        got = "a mirrored pose (its axes are left-handed: determinant < 0)"
        fail(name, got, "right-handed camera axes: x right, y up, z back", remedy)
    left, scales, right = np.linalg.svd(axes)
    if scales[0] > SKEW * scales[2]:
        got = f"a sheared pose (one axis is {scales[0] / scales[2]:.3g} times as long as another)"
        fail(name, got, "axes at right angles, all of one length", remedy)
    if np.abs(scales - 1).max() > ROUNDED:
        pose[:3, :3] = left @ right
    return pose


def check_matrix(name: str | Path, matrix: object) -> Floats:
    """`matrix` as [4, 4] float64 (a 3x4 gets its last row).

    Raises:
        LpmError: not 3x4 or 4x4, not finite, or singular; `name` says what it is of.
    """
    wanted, remedy = "a finite 4x4 camera-to-world matrix", "remove this frame or run the pose estimation again"
    try:
        pose = np.array(matrix, dtype=np.float64)
    except (TypeError, ValueError):
        fail(name, "a transform_matrix that is not numbers in rows", wanted, remedy)
    if pose.shape == (3, 4):
        pose = np.vstack([pose, [0.0, 0.0, 0.0, 1.0]])
    if pose.shape != (4, 4):
        fail(name, f"a transform_matrix of shape {list(pose.shape)}", wanted, remedy)
    if not np.isfinite(pose).all():
        fail(name, "a non-finite pose (NaN or infinity in transform_matrix)", wanted, remedy)
    largest = float(np.abs(pose[:3, :3]).max())
    if largest == 0 or abs(np.linalg.det(pose[:3, :3] / largest)) < 1e-8:
        fail(name, "a pose without orientation (singular rotation)", wanted, remedy)
    return pose


def check_intrinsics(name: str | Path, intrinsics: Floats, size: tuple[int, int]) -> None:
    """Raises LpmError naming `name` unless `intrinsics` [4] are finite, focal lengths and `size` positive."""
    remedy = "correct the camera's entry or run the pose estimation again"
    if min(size) <= 0:
        fail(name, f"size {size[0]}x{size[1]}", "a width and height of at least one pixel", remedy)
    if not np.isfinite(intrinsics).all():
        fail(name, f"intrinsics {intrinsics.tolist()}", "finite fx, fy, cx, cy", remedy)
    if intrinsics[:2].min() <= 0:
        fail(name, f"focal length {intrinsics[0]:g}, {intrinsics[1]:g} px", "positive focal lengths", remedy)


def camera_extent(centres: Floats) -> float:
    """1.1 x the largest distance of camera `centres` [V, 3] from their mean (3DGS's `cameras_extent`), their unit."""
    return 1.1 * float(np.linalg.norm(centres - centres.mean(0), axis=1).max())
