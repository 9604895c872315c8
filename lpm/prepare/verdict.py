"""Whether a model looks right, by what is known of it from elsewhere. A model can hold every photo and be wrong."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lpm.prepare.figures import Floats

ENOUGH = 0.8
"""Share of the images that hang together by matches that should have a pose."""
OFF = 0.15
"""A focal length that differs by more from view graph calibration or EXIF is doubted."""
SAME = 0.05
"""Two mappers that differ by less have found the same focal length."""
ERROR = 1.5
"""Pixels, of the image features are sought in: a larger mean reprojection error is doubted."""
FAR_GAP, FAR_AWAY = 10.0, 3.0


@dataclass(frozen=True)
class Expected:
    """What is known before there is a model."""

    together: int
    """Images of the largest group that hangs together by verified matches."""
    calibrated: dict[int, float]
    """Focal length of each camera by view graph calibration, pixels; those it found none for are left out."""
    exif: dict[int, float]
    """The same by EXIF."""
    feature_size: int
    """Pixels on the longer side at which features were sought, at most."""


@dataclass(frozen=True)
class Judgement:
    """What a model was found to be."""

    images: int
    """With a pose."""
    together: int
    """See Expected."""
    focal: float
    """Pixels, of the camera that took most of the images."""
    calibrated: float | None
    exif: float | None
    """What is expected of that camera's focal length, pixels; None where it is not known."""
    off: float
    """Largest relative difference of `focal` from the two."""
    far: list[str]
    """Images whose cameras are far from all others."""
    error: float
    """Mean reprojection error, pixels."""
    faults: dict[str, str] = field(default_factory=dict)
    """Why the model is doubted, by kind (images, focal, cameras, error); empty where it is not."""
    agreed: bool = False
    """Whether another mapper found the same focal length."""

    def beats(self, other: Judgement) -> bool:
        """Whether this is clearly the better model of the same photos.

        Decided by the first that differs: fewer faults; more images (5 % of them); where the focal lengths are not
        the same, the one nearer to the expected one; a reprojection error that is smaller by a tenth.
        """
        if len(self.faults) != len(other.faults):
            return len(self.faults) < len(other.faults)
        if abs(self.images - other.images) > 0.05 * max(self.together, 1):
            return self.images > other.images
        if abs(self.off - other.off) > SAME:
            return self.off < other.off
        return self.error < 0.9 * other.error

    def line(self) -> str:
        """All of it, in one line."""
        by = f"view graph calibration {length(self.calibrated)}, EXIF {length(self.exif)}"
        agreed = "; both mappers agree" * self.agreed
        far = f"far from all others: {', '.join(self.far[:3])}" if self.far else "no camera far from all others"
        more = f" and {len(self.far) - 3} more" * (len(self.far) > 3)
        end = "doubtful: " + "; ".join(self.faults.values()) if self.faults else "nothing speaks against it"
        return (
            f"{self.images} of {self.together} images that hang together; focal length {self.focal:.0f} px ({by}"
            f"{agreed}); {far}{more}; reprojection error {self.error:.2f} px: {end}"
        )


def length(pixels: float | None) -> str:
    """In words."""
    return "none" if pixels is None else f"{pixels:.0f}"


def far_from_all(centres: Floats) -> NDArray[np.intp]:
    """Which of the cameras at `centres` [V, 3] are far from all others, as indices.

    Both must hold: the nearest other camera is `FAR_GAP` times as far as is usual, and the middle of all cameras
    `FAR_AWAY` times. A video that rests for most of its frames makes both tiny, and is a false alarm.
    """
    if len(centres) < 5:
        return np.zeros(0, np.intp)
    between = np.linalg.norm(centres[:, None] - centres[None], axis=2)
    np.fill_diagonal(between, np.inf)
    gap = between.min(1)
    away = np.linalg.norm(centres - np.median(centres, 0), axis=1)
    return np.flatnonzero((gap > FAR_GAP * np.median(gap)) & (away > FAR_AWAY * np.median(away)))


def judge(model: Any, expected: Expected) -> Judgement:
    """Of pycolmap's reconstruction `model`, which has at least one image with a pose."""
    posed = sorted((image for image in model.images.values() if image.has_pose), key=lambda image: image.name)
    ids = [image.camera_id for image in posed]
    main = max(sorted(set(ids)), key=ids.count)
    camera = model.cameras[main]
    focal, references = float(camera.mean_focal_length()), (expected.calibrated.get(main), expected.exif.get(main))
    off = max((abs(focal / value - 1) for value in references if value), default=0.0)
    centres = np.array([image.projection_center() for image in posed])
    far = [posed[i].name for i in far_from_all(centres)]
    error = float(model.compute_mean_reprojection_error())
    faults = {}
    if len(posed) < ENOUGH * expected.together:
        faults["images"] = f"only {len(posed)} of {expected.together} images that hang together have a pose"
    if off > OFF:
        faults["focal"] = f"the focal length differs by {100 * off:.0f} % from what was expected"
    if far:  # of fox's photos two strays of 50 were the only sign that a model was wrong by up to 39 degrees
        faults["cameras"] = f"{len(far)} cameras are far from all others"
    if error > ERROR * max(1.0, max(camera.width, camera.height) / expected.feature_size):
        faults["error"] = f"the reprojection error of {error:.2f} px is high"
    return Judgement(len(posed), expected.together, focal, *references, off, far, error, faults)


def compared(one: Judgement, other: Judgement) -> tuple[Judgement, Judgement]:
    """Both models of the same photos, judged again with the knowledge of the other one.

    View graph calibration is at a loss where all cameras look at one point. Two methods that start from different
    focal lengths and end at the same one outweigh it; they do not outweigh EXIF.
    """
    if abs(one.focal / other.focal - 1) > SAME:
        return one, other

    def again(judged: Judgement) -> Judgement:
        sure = judged.exif is None or abs(judged.focal / judged.exif - 1) <= OFF
        faults = {kind: text for kind, text in judged.faults.items() if not (sure and kind == "focal")}
        return replace(judged, faults=faults, agreed=True)

    return again(one), again(other)
