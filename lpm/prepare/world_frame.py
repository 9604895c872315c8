"""Which way is up in a model, how long a metre is, and where on earth it stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lpm.checks import fail
from lpm.prepare.figures import Floats
from lpm.prepare.sfm import load_pycolmap
from lpm.prepare.work import fresh

MAPPED = "mapped"
"""In the work folder: the model as the mapper left it."""
LEAST_PLACED = 4
"""Photos with GPS below which it is not used."""
NEAR = 10.0
"""Metres from where GPS says that a photo was taken: it counts for the fit."""
CLEAR = 0.15
"""GPS is used where it is off by less than this share of how far the photos are spread, in the median."""
TURNED = 0.02
"""Second moment of the directions to the right, across the main one, from which cameras looked various ways."""


def stand_up(
    work: Path, places: dict[str, tuple[float, float, float]], distance: tuple[str, str, float] | None
) -> dict[str, Any]:
    """Turns the model in work/mapped so that z is up, into work/model; in metres and x to the east where that is known.

    Args:
        places: latitude, longitude, altitude of photos by name.
        distance: two photos, and how many metres apart they were taken.

    Returns:
        said (what was found, in a line), and, where a metre is known, georeference: see docs/prepare.md.

    Raises:
        LpmError: `distance` names photos that have no pose.
    """
    pycolmap = load_pycolmap()
    model = pycolmap.Reconstruction(work / MAPPED)
    posed = {image.name: image.cam_from_world() for image in model.images.values() if image.has_pose}
    axes = np.array([pose.rotation.matrix() for pose in posed.values()])
    centres = dict(zip(posed, np.array([pose.inverse().translation for pose in posed.values()]), strict=True))
    points = np.array([point.xyz for point in model.points3D.values()]).reshape(-1, 3)
    turn = level(axes, np.array(list(centres.values())), points)
    found: dict[str, Any] = {"said": "levelled by the cameras: z is up"}
    scale, move = 1.0, np.zeros(3)
    known = sorted(places.keys() & centres.keys())
    if len(known) >= LEAST_PLACED:
        origin = np.mean([places[name] for name in known], axis=0)
        there = np.array(pycolmap.GPSTransform().ellipsoid_to_enu(np.array([places[n] for n in known]), *origin))
        fitted = to_places(np.array([centres[name] for name in known]) @ turn.T, there)
        if isinstance(fitted, str):
            found["said"] += f"; GPS of {len(known)} photos is not used: {fitted}"
        else:
            around, scale, move, off = fitted
            turn = around @ turn
            found["georeference"] = {
                "frame": "x east, y north, z up",
                "unit": "metre",
                "origin": dict(zip(("latitude", "longitude", "altitude"), origin.tolist(), strict=True)),
                "gps": {"photos": len(known), "median_off": round(off, 3)},
            }
            found["said"] = f"in metres, x to the east, by GPS of {len(known)} photos, off by {off:.2f} m in the median"
    if distance is not None:
        one, two, metres = distance
        for name in (one, two):
            if name not in centres:
                fail("--distance", f"{name} has no pose", "two photos that have one", f"such as {sorted(centres)[0]}")
        apart = scale * float(np.linalg.norm(centres[one] - centres[two]))
        if apart == 0:
            fail("--distance", f"{one} and {two} were taken at one place", "two photos taken apart", "name others")
        scale, move = scale * metres / apart, move * metres / apart
        found["georeference"] = {"frame": "z up", "unit": "metre"} | found.get("georeference", {})
        found["said"] += f"; in metres by {one} and {two}"
    model.transform(pycolmap.Sim3d(scale, pycolmap.Rotation3d(turn), move))
    model.write(fresh(work / "model"))
    return found


def level(axes: Floats, centres: Floats, points: Floats) -> Floats:
    """[3, 3] the turn after which z is up.

    Photos are held upright or across, rarely at an angle: the directions to the right of all of them lie in a plane,
    and what stands on it is up. Where all look the same way it is what is up in the photos, on average.

    Args:
        axes: [V, 3, 3] world to camera, OpenCV's axes. centres: [V, 3] places. points: [P, 3].
    """
    right, above = axes[:, 0], -axes[:, 1].mean(0)
    moments, directions = np.linalg.eigh(right.T @ right / len(right))
    up = directions[:, 0] if moments[1] > TURNED else above - directions[:, 2] * (above @ directions[:, 2])
    # Cameras that look straight down have no common up in their photos, but stand above what they see.
    sign = up @ above / np.linalg.norm(up)
    if abs(sign) < 0.1 and len(points):
        sign = up @ (centres.mean(0) - np.median(points, axis=0))
    z = up * (1 if sign >= 0 else -1) / np.linalg.norm(up)
    x = axes[0, 0] - z * (axes[0, 0] @ z)
    if np.linalg.norm(x) < 0.1:
        x = axes[0, 2] - z * (axes[0, 2] @ z)
    x /= np.linalg.norm(x)
    return np.array([x, np.cross(z, x), z])


def to_places(centres: Floats, there: Floats) -> tuple[Floats, float, Floats, float] | str:
    """What brings levelled `centres` [K, 3] to `there` [K, 3], in metres, or why nothing does.

    A turn about z [3, 3], a scale, a move [3]; and how far off they are then, in the median.

    Altitudes by GPS are several times worse than the rest: they say how high the model lies, but not how it is tilted.
    """
    spread = float(np.median(np.linalg.norm(there[:, :2] - np.median(there[:, :2], axis=0), axis=1)))
    fit, _ = cv2.estimateAffinePartial2D(
        centres[:, :2].astype(np.float64), there[:, :2].astype(np.float64), ransacReprojThreshold=NEAR
    )
    scale = 0.0 if fit is None else float(np.hypot(fit[0, 0], fit[1, 0]))
    if scale == 0 or spread == 0:
        return "it says the same of all"
    around = np.eye(3)
    around[:2, :2] = np.asarray(fit)[:, :2] / scale
    move = np.array([*np.asarray(fit)[:, 2], np.median(there[:, 2] - scale * centres[:, 2])])
    off = float(np.median(np.linalg.norm((scale * centres @ around.T + move - there)[:, :2], axis=1)))
    if off > CLEAR * spread:
        return f"it is off by {off:.1f} m where they are {spread:.1f} m apart"
    return around, scale, move, off
