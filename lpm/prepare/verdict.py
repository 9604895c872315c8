"""Whether a model looks right, by what is known of it from elsewhere. A model can hold every photo and be wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lpm.prepare.agreement import Agreement

ENOUGH = 0.8
"""Share of the images that hang together by matches that should have a pose."""
FIT = 0.91
"""Share of the verified matches between its images that a model should explain. Right models of photos and of rendered
scenes explain .93 and more; rings that were folded, since things look the same from several sides, .69 to .90."""
PLACED = 0.25
"""Share of the features in them that should have a point."""
TURNING = 0.9
"""Share of them that cameras which only turn should not explain."""
FEW = 0.05
"""Share of the images that may not fit without the model being called wrong."""
MORE = 0.02
"""One model explains more of them than another if its share is larger by this."""
OFF = 0.15
"""A focal length that differs by more from EXIF is doubted."""
ERROR = 1.5
"""Pixels, of the image features are sought in: a larger mean reprojection error is doubted."""


@dataclass(frozen=True)
class Expected:
    """What is known before there is a model."""

    together: int
    """Images of the largest group that hangs together by verified matches."""
    exif: dict[int, float]
    """Focal length of each camera by EXIF, pixels."""
    feature_size: int
    """Pixels on the longer side at which features were sought, at most."""


@dataclass(frozen=True)
class Judgement:
    """What a model was found to be."""

    images: int
    """With a pose."""
    places: int
    """They were taken from; less than `images` where several are faces of one 360 degree photo."""
    together: int
    """See Expected."""
    focal: float
    """Pixels, of the camera that took most of the images."""
    exif: float | None
    """The same by EXIF; None where it is not known."""
    explained: float
    """Share of all verified matches; see agreement.Agreement."""
    fit: float
    """Share of those between the images with a pose; see there."""
    placed: float
    """Share of the features in those that have a point; see there."""
    turning: float
    """Share of the matches that cameras which only turn explain; see there."""
    misfits: list[str]
    """Images that do not fit the others, worst first; see there."""
    error: float
    """Mean reprojection error of the matches that the model keeps, pixels."""
    faults: dict[str, str] = field(default_factory=dict)
    """Why the model is doubted, by kind (see judge); empty where it is not."""

    @property
    def wrong(self) -> bool:
        """Whether it is too doubtful to be used unasked; too few images or a high error alone are not that."""
        strays = len(self.misfits) > FEW * self.places
        return strays or not self.faults.keys().isdisjoint(("matches", "points", "turning", "focal"))

    def beats(self, other: Judgement) -> bool:
        """Whether this is clearly the better model of the same photos.

        Decided by the first that differs: the share of matches explained (by MORE), fewer faults, a reprojection error
        that is smaller by a tenth.
        """
        if abs(self.explained - other.explained) > MORE:
            return self.explained > other.explained
        if len(self.faults) != len(other.faults):
            return len(self.faults) < len(other.faults)
        return self.error < 0.9 * other.error

    def line(self) -> str:
        """All of it, in one line."""
        exif = "" if self.exif is None else f" (EXIF {self.exif:.0f})"
        end = "doubtful: " + "; ".join(self.faults.values()) if self.faults else "nothing speaks against it"
        return (
            f"{self.images} of {self.together} images that hang together; {100 * self.fit:.0f} % of the verified "
            f"matches between them fit; focal length {self.focal:.0f} px{exif}; reprojection error "
            f"{self.error:.2f} px: {end}"
        )


def judge(model: Any, expected: Expected, agreement: Agreement) -> Judgement:
    """Of pycolmap's reconstruction `model`, which has at least one image with a pose."""
    ids = [image.camera_id for image in model.images.values() if image.has_pose]
    main = max(sorted(set(ids)), key=ids.count)
    camera = model.cameras[main]
    focal, exif = float(camera.mean_focal_length()), expected.exif.get(main)
    error = float(model.compute_mean_reprojection_error())
    faults = {}
    if len(ids) < ENOUGH * expected.together:
        faults["images"] = f"only {len(ids)} of {expected.together} images that hang together have a pose"
    if agreement.fit < FIT:
        faults["matches"] = f"only {100 * agreement.fit:.0f} % of the verified matches between them fit"
    if agreement.placed < PLACED:
        faults["points"] = f"only {100 * agreement.placed:.0f} % of the matched features have a depth"
    if agreement.turning > TURNING:
        faults["turning"] = (
            f"{100 * agreement.turning:.0f} % of the matches say that the camera only turned on the spot"
        )
    if agreement.misfits:
        names = ", ".join(agreement.misfits[:3])
        more = f" and {len(agreement.misfits) - 3} more" * (len(agreement.misfits) > 3)
        faults["misfits"] = f"{names}{more} do not fit the images they overlap with"
    if exif is not None and abs(focal / exif - 1) > OFF:
        faults["focal"] = f"the focal length of {focal:.0f} px is not that of EXIF, {exif:.0f}"
    if error > ERROR * max(1.0, max(camera.width, camera.height) / expected.feature_size):
        faults["error"] = f"the reprojection error of {error:.2f} px is high"
    return Judgement(
        len(ids),
        len({image.frame_id for image in model.images.values() if image.has_pose}),
        expected.together,
        focal,
        exif,
        *(agreement.share, agreement.fit, agreement.placed, agreement.turning, agreement.misfits),
        error,
        faults,
    )
