"""What a reconstruction is worth, in numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

GRID = 8
"""Cells a side of the grid by which coverage of an image is counted."""
FEW = 0.7
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """An image that has a pose."""

    name: str
    features: int
    """Features that are seen in other images, too, and have a 3D point."""
    error: float
    """Their mean reprojection error, pixels."""
    coverage: float
    """Share of the cells of an 8 x 8 grid over the image that have such a feature."""


@dataclass(frozen=True)
class Figures:
    """Of a whole reconstruction; [V] views, [N] points, in COLMAP's world frame."""

    views: list[View]
    missing: list[str]
    """Images without a pose."""
    points: int
    error: float
    """Mean reprojection error, pixels."""
    track: float
    """Mean track length: images that see a point."""
    models: list[int]
    """Images of each separate model, largest first; only the first is used."""
    cameras: list[str]
    centres: Floats
    """[V, 3] where the cameras are."""
    rotations: Floats
    """[V, 3, 3] world to camera, OpenCV axes."""
    xyz: Floats
    """[N, 3] points."""
    rgb: NDArray[np.uint8]
    """[N, 3] their colours."""
    doubts: list[str] = field(default_factory=list)
    """Why the model may be wrong (verdict.Judgement.faults); empty where nothing speaks against it."""

    @property
    def total(self) -> int:
        """Images that were tried."""
        return len(self.views) + len(self.missing)

    def numbers(self) -> dict[str, Any]:
        """What goes into report.json."""
        return {
            "images": self.total,
            "registered": len(self.views),
            "missing": self.missing,
            "points": self.points,
            "reprojection_error_px": round(self.error, 4),
            "track_length": round(self.track, 3),
            "models": self.models,
            "doubts": self.doubts,
            "cameras": self.cameras,
            "views": [asdict(view) for view in self.views],
        }


def measure(model: Any, names: list[str], models: list[int], doubts: list[str]) -> Figures:
    """Of pycolmap's reconstruction `model`, made from images `names`; `models` and `doubts` as in Figures."""
    model.update_point_3d_errors()
    points = {key: point.xyz for key, point in model.points3D.items()}
    posed = sorted((image for image in model.images.values() if image.has_pose), key=lambda image: image.name)
    views, centres, rotations = [], [], []
    for image in posed:
        camera, world = model.cameras[image.camera_id], image.cam_from_world()
        seen = [point for point in image.points2D if point.has_point3D()]
        pixels = np.array([point.xy for point in seen]).reshape(-1, 2)
        xyz = np.array([points[point.point3D_id] for point in seen]).reshape(-1, 3)
        there = xyz @ world.rotation.matrix().T + world.translation
        errors = np.linalg.norm(camera.img_from_cam(there) - pixels, axis=1) if len(seen) else np.zeros(1)
        cells = np.clip(pixels / (camera.width, camera.height) * GRID, 0, GRID - 1).astype(int)
        coverage = len({tuple(cell) for cell in cells.tolist()}) / GRID**2
        views.append(View(image.name, len(seen), round(float(errors.mean()), 4), round(coverage, 4)))
        centres.append(image.projection_center())
        rotations.append(world.rotation.matrix())
    has = {image.name for image in posed}
    return Figures(
        views=views,
        missing=[name for name in names if name not in has],
        points=len(points),
        error=float(model.compute_mean_reprojection_error()),
        track=float(model.compute_mean_track_length()),
        models=models,
        cameras=[
            f"{camera.model.name} {camera.width}x{camera.height}: "
            + ", ".join(f"{value:.6g}" for value in camera.params)
            for camera in model.cameras.values()
        ],
        centres=np.array(centres).reshape(-1, 3),
        rotations=np.array(rotations).reshape(-1, 3, 3),
        xyz=np.array(list(points.values())).reshape(-1, 3),
        rgb=np.array([point.color for point in model.points3D.values()], np.uint8).reshape(-1, 3),
        doubts=doubts,
    )


def advice(figures: Figures, settings: dict[str, Any]) -> list[str]:
    """What to do about what is not good, most useful first; empty if all is well.

    Args:
        settings: camera_model, matching, masks (bool).
    """
    said = []
    if figures.doubts:
        said.append(
            f"This model may be wrong ({'; '.join(figures.doubts)}): look at the cameras in the picture. Photos "
            "between those that are far apart, and --matching exhaustive, help most; where things look the same from "
            "several sides, something unlike beside each."
        )
    if len(figures.views) < FEW * figures.total:
        said.append(
            f"Only {len(figures.views)} of {figures.total} images got a pose. Take more photos between those that are "
            "far apart, so that neighbours overlap by two thirds, walking sideways rather than turning on the spot."
        )
        said.append("Leave out photos that are blurred, or take them again with more light.")
        if settings["matching"] != "exhaustive":
            said.append("Compare every pair of images: --matching exhaustive.")
        if settings["camera_model"] in ("auto", "SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL"):
            said.append(
                "A wide lens needs more distortion parameters: --camera-model OPENCV; a fisheye OPENCV_FISHEYE."
            )
        if not settings["masks"]:
            said.append("Mask what moves, mirrors, or is carried along with the camera: --masks.")
    if len(figures.models) > 1:
        sizes = ", ".join(str(count) for count in figures.models)
        said.append(
            f"The images fell into {len(figures.models)} groups that do not connect ({sizes} images); only the largest "
            "is used. Photos that show both places at once would join them."
        )
    if figures.error > 1.5:
        said.append(
            f"The reprojection error of {figures.error:.2f} px is high: the camera model may not fit "
            "(--camera-model OPENCV; --cameras each if the zoom changed), or things moved."
        )
    if figures.track < 3:
        said.append(f"A point is seen in only {figures.track:.1f} images on average: more overlap helps.")
    return said
