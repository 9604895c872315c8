"""Held-out cameras of a scene that moves, each a clip: its photos in order of time, and how the renders look as one."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from lpm.files import Progress, quiet
from lpm.train.model import GaussianModel
from lpm.train.perceptual import CVVDP, cvvdp, have
from lpm.train.placed import Split
from lpm.train.run_data import RunData

FPS = 30
"""Frames a second that a scene is taken to have: it tells times from 0 to 1, and not how long that is."""
SHORTEST = 4
"""Frames of a clip; of fewer nobody could tell flicker."""


@dataclass
class Clip:
    """What one held-out camera saw."""

    camera: str
    photos: list[int]
    """Indices of its held-out photos, in order of time."""
    fps: float
    """Frames a second: FPS, or less where only some moments are held out."""


def by_camera(split: Split) -> dict[str, list[int]]:
    """Indices of the photos of each camera, in order of time; none where it is not known which took them, and when."""
    times, found = split.cameras.capture_times, dict[str, list[int]]()
    if times is None or split.cams is None:
        return {}
    for i in times.argsort(stable=True).tolist():
        found.setdefault(split.cams[i], []).append(i)
    return dict(sorted(found.items()))


def in_order(data: RunData) -> list[int]:
    """Indices of the held-out photos, camera by camera over time; else as they are listed."""
    cameras = by_camera(data.scene.test)
    return [i for photos in cameras.values() for i in photos] or list(range(len(data.test)))


def clips(data: RunData) -> list[Clip]:
    """Of each camera whose held-out photos are evenly spaced in time the clip that they are."""
    cameras, moments = by_camera(data.scene.test), dict[str, set[float]]()
    times: list[float] = []
    for split in (data.scene.train, data.scene.test):
        times = [] if split.cameras.capture_times is None else split.cameras.capture_times.tolist()
        for name, photos in by_camera(split).items():
            moments.setdefault(name, set()).update(times[i] for i in photos)
    frame = min((_middle(_gaps(sorted(of))) for of in moments.values() if len(of) > 1), default=0.0)
    found = []
    for name, photos in cameras.items():
        sizes = {tuple(size) for size in data.test_cameras.sizes[photos].tolist()}
        gaps = _gaps([times[i] for i in photos])
        if len(photos) >= SHORTEST and len(sizes) == 1 and 0 < max(gaps) <= 1.5 * min(gaps):
            found.append(Clip(name, photos, round(FPS * frame / _middle(gaps), 1)))
    return found


def _gaps(times: list[float]) -> list[float]:
    return [late - early for early, late in pairwise(times)]


def _middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _bytes(image: Tensor) -> Tensor:
    return (image.nan_to_num(0.0).clamp(0, 1) * 255).round().byte().cpu()


@torch.no_grad()
def clip_rows(model: GaussianModel, data: RunData, progress: Progress = quiet) -> list[dict[str, Any]]:
    """Of each clip its `camera`, `frames`, `fps` and `cvvdp` (JOD, 10: as the photos); none without the package.

    Pixels that a mask leaves out are black in both.
    """
    found = clips(data)
    if not found or not have(CVVDP):
        return []
    rows, views = [], data.held_out(chosen=[i for clip in found for i in clip.photos])
    for clip in found:
        renders, photos = [], []
        for _ in progress(range(len(clip.photos)), f"clip of {clip.camera}"):
            _, camera, photo = next(views)
            outputs = model.draw(camera)
            mask = model.counted(photo)
            kept = 1.0 if mask is None else mask
            renders.append(_bytes(outputs["rgb"] * kept))
            photos.append(_bytes(model.truth(outputs, photo) * kept))
        jod = cvvdp(torch.stack(renders), torch.stack(photos), clip.fps, model.device)
        rows.append({"camera": clip.camera, "frames": len(clip.photos), "fps": clip.fps, "cvvdp": jod})
    return rows
