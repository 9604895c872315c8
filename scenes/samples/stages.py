"""Where the movers of a drawn clip move: what stands still around them, and the cameras. Metres, z up.

What moves stays within y = -.8 to .9, which is kept free; the cameras stand at y < 0 and look at the origin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lpm.scenes.samples.palettes import FACADES, THINGS, WALLS, palette
from lpm.scenes.samples.places import any_of, country, thing, tree
from lpm.scenes.samples.textures import Atlas, Rng
from lpm.scenes.samples.trace import Solid, World
from lpm.scenes.samples.worlds import Triple, block, look_at
from lpm.scenes.scene import Floats

WIDEST = 140.0
"""Degrees from the first camera to the last, at the most."""


@dataclass(frozen=True)
class Arc:
    """Cameras that stand still in an arc, some of them held out."""

    step: float
    """Degrees between neighbours."""
    distance: float
    """Metres from the middle of the scene."""
    height: float
    focal: float
    """As a share of the image's width."""
    trained: int
    """Cameras to train on."""
    held_out: tuple[int, ...]
    """Places in the arc of those that are held out, beside `trained`: between others, never at an end."""

    def poses(self, rng: Rng) -> Floats:
        """[trained + held out, 4, 4] camera to world."""
        count = self.trained + len(self.held_out)
        angles = np.radians(self.step * (np.arange(count) - (count - 1) / 2 + rng.uniform(-0.15, 0.15, count)) - 90)
        away = self.distance * rng.uniform(0.93, 1.07, count)
        eyes = np.stack([away * np.cos(angles), away * np.sin(angles), self.height + rng.uniform(-0.3, 0.3, count)], 1)
        aims = np.array([0.0, 0.0, 0.85]) + rng.uniform(-0.08, 0.08, (count, 3))
        return np.stack([look_at(eye, aim) for eye, aim in zip(eyes, aims, strict=True)])


def draw_arc(rng: Rng, trained: int | None = None) -> Arc:
    """3 to 12 cameras (or as many as `trained`) near or far apart, and one held out, of six or more two."""
    drawn = int(rng.integers(3, 13))
    trained = drawn if trained is None else trained
    held = 1 if trained < 6 else 2
    total = trained + held
    step = min(float(4 * (30 / 4) ** rng.random()), WIDEST / (total - 1))
    # Never two side by side, so that each stands between two that are trained on.
    first = int(rng.integers(1, total - 1 - 2 * (held - 1)))
    places = (first,) if held == 1 else (first, int(rng.integers(first + 2, total - 1)))
    distance, height, focal = (float(rng.uniform(*span)) for span in ((2.7, 4.0), (0.9, 1.8), (0.75, 1.05)))
    return Arc(step, distance, height, focal, trained, places)


def draw_stage(rng: Rng, seed: int, distance: float, detail: float) -> World:
    """A hall or a place in the country, with things that stand beside and behind what moves.

    Args:
        distance: of the cameras; walls are beyond them. detail: strength of the grain over every texture.
    """
    near, back = 1.25 * distance + 0.5, float(rng.uniform(2.0, 3.5))
    if rng.random() < 0.6:
        high = float(rng.uniform(2.8, 3.6))
        solids = [
            Solid("floor", "floor", (-near, -near, 0), (near, back, 0), 0, 3.9),
            Solid("ceiling", "wall0", (-near, -near, high), (near, back, high), 0, 5.3),
            *(Solid("wall", any_of(rng, WALLS), (x, -near, 0), (x, back, high), 0, 4.3) for x in (-near, near)),
            *(Solid("wall", any_of(rng, WALLS), (-near, y, 0), (near, y, high), 0, 4.9) for y in (-near, back)),
        ]
        light: Triple = (float(rng.uniform(-1, 1)), -0.6 * near, high - 0.1)
        for x in rng.uniform(-2.2, 1.4, 2):
            solids.append(Solid("poster", "poster", (x, back - 0.01, 1.0), (x + 0.9, back - 0.01, 1.9), 0, 1.02))
    else:
        solids, light = country(rng, "ground", 13.0), (-14.0, -22.0, 32.0)
        for x in (-6.0, -1.5, 3.0):
            if rng.random() < 0.7:
                low: Triple = (x, back + float(rng.uniform(1, 5)), 0.0)
                solids.append(block("house", any_of(rng, FACADES), low, (4.2, 3, float(rng.uniform(2.5, 5))), 5.3))
        solids += tree(rng, (float(rng.uniform(-2.5, 2.5)), back + 0.2))
    for x in np.linspace(-2.4, 2.4, 6) + rng.uniform(-0.3, 0.3, 6):
        y, size = float(rng.uniform(1.35, back - 0.3)), float(rng.uniform(0.3, 0.55))
        if rng.random() < 0.5:
            tall = float(rng.uniform(0.4, 1.0))
            solids.append(block("stand", any_of(rng, THINGS), (x - 0.27, y - 0.25, 0), (0.54, 0.5, tall), 0.9))
            solids += thing(rng, (float(x), y), tall, 0.8 * size)
        else:
            solids += thing(rng, (float(x), y), 0.0, size)
    return World(solids, Atlas(palette(rng), seed), light, detail=detail)
