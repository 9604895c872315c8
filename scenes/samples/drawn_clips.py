"""What a seed draws of a clip: its cameras, its movers, its faults, and when each photo is taken."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lpm.scenes.samples.movers import Mover, draw_movers
from lpm.scenes.samples.stages import Arc, draw_arc
from lpm.scenes.scene import Floats
from lpm.scenes.split import TIME_FIRST, TIME_INTERVAL

ARC, MOVERS, FAULTS = 32, 33, 34
"""Streams of the generators, so that a new draw of one does not move the others."""


@dataclass(frozen=True)
class Faults:
    """What is wrong with the photos that are trained on."""

    noise: float
    """Standard deviation of the sensor's noise at white, of 1."""
    shutter: float
    """Photos are taken up to so much before or after their time, of the time between two frames."""
    calibration: float
    """The poses in transforms.json are off by up to so many pixels."""
    detail: float
    """Strength of the fine grain over every texture."""


@dataclass(frozen=True)
class Clip:
    """A drawn clip before it is rendered."""

    arc: Arc
    poses: Floats
    """[C, 4, 4] the true ones."""
    movers: list[Mover]
    share: float
    """Asked share of a photo that its movers cover; what they do cover depends on where they are."""
    faults: Faults
    times: Floats
    """[F] as told, 0..1."""
    moments: Floats
    """[C, F] when the photos are taken."""

    def held_times(self) -> list[int]:
        """The time steps that are held out."""
        return list(range(TIME_FIRST, len(self.times), TIME_INTERVAL))

    def trained_on(self, cam: int, step: int) -> bool:
        """Whether the photo of camera `cam` at time step `step` is trained on."""
        return cam not in self.arc.held_out and step not in self.held_times()


def draw_clip(seed: int, cams: int | None, frames: int, size: tuple[int, int]) -> Clip:
    """The clip that `seed` draws, for photos of `size`; `cams` to train on, None: 3 to 12."""
    arc = draw_arc(np.random.default_rng([seed, ARC]), cams)
    rng = np.random.default_rng([seed, FAULTS])
    faults = Faults(*(float(rng.uniform(*span)) for span in ((0, 0.02), (0, 0.1), (0, 2), (0.05, 0.4))))
    poses = arc.poses(rng)
    late = faults.shutter * rng.uniform(-1, 1, (len(poses), frames)) / (frames - 1)
    rng = np.random.default_rng([seed, MOVERS])
    count, share = int(rng.integers(1, 5)), float(0.01 * (0.2 / 0.01) ** rng.random())
    pixels = share * size[0] * size[1] / (count * np.pi)  # a mover covers about pi times its size squared
    mover = float(np.clip(arc.distance / (arc.focal * size[0]) * np.sqrt(pixels), 0.09, 0.55))
    times = np.arange(frames) / (frames - 1)
    clip = Clip(arc, poses, draw_movers(rng, count, mover, 1.0), share, faults, times, late)
    trained = np.array([[clip.trained_on(c, i) for i in range(frames)] for c in range(len(poses))])
    return replace(clip, moments=np.clip(times + late * trained, 0, 1))
