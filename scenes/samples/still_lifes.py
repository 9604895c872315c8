"""Places to walk around: an object on a table, thin structures. Metres, z up."""

from __future__ import annotations

from functools import partial

import numpy as np

from lpm.scenes.samples.palettes import THINGS, WALLS
from lpm.scenes.samples.places import Place, any_of, around, country, thing
from lpm.scenes.samples.textures import Rng
from lpm.scenes.samples.trace import Solid
from lpm.scenes.samples.worlds import block, rails, table


def object_place(rng: Rng) -> Place:
    """Things on a table, in a bare room or under the sky."""
    w, d, h = (float(rng.uniform(*span)) for span in ((0.9, 1.5), (0.7, 1.1), (0.6, 0.8)))
    radius = float(rng.uniform(1.5, 2.3))
    if rng.random() < 0.5:
        solids, light = country(rng, "ground"), (-14.0, -20.0, 32.0)
    else:
        far, high = radius + float(rng.uniform(0.7, 2.0)), 2.8
        solids = [
            Solid("floor", "floor", (-far, -far, 0), (far, far, 0), 0, 3.9),
            Solid("ceiling", "wall0", (-far, -far, high), (far, far, high), 0, 5.3),
            *(Solid("wall", any_of(rng, WALLS), (x, -far, 0), (x, far, high), 0, 4.3) for x in (-far, far)),
            *(Solid("wall", any_of(rng, WALLS), (-far, y, 0), (far, y, high), 0, 4.9) for y in (-far, far)),
        ]
        for side in (-1, 1):
            for x in rng.uniform(-0.8 * far, 0.8 * far, 2):
                solids += thing(rng, (float(x), side * (far - 0.3)), 0.0, float(rng.uniform(0.4, 0.6)))
        light = (0.4, -0.7, high - 0.1)
    solids += table((-w / 2, -d / 2, 0.0), (w, d, h), any_of(rng, ("wood", "marble", "plain0")))
    for turn in np.arange(5) * 2 * np.pi / 5 + rng.uniform(0, 0.6, 5):
        at = (float(0.33 * w * np.cos(turn)), float(0.33 * d * np.sin(turn)))
        solids += thing(rng, at, h, float(rng.uniform(0.12, 0.3)))
    solids += thing(rng, (0.0, 0.0), h, float(rng.uniform(0.2, 0.36)))
    cameras = partial(around, (0.0, 0.0, h), radius, h + 0.2, h + 1.0, float(rng.uniform(1.5, 2.5)))
    return Place(solids, light, cameras, float(rng.uniform(0.85, 1.1)))


def thin_place(rng: Rng) -> Place:
    """Fences, a lattice mast, a trellis and wires under the sky: things thinner than a pixel from afar."""
    solids = country(rng, "ground")
    solids += rails(float(rng.uniform(1.0, 1.5)), -1.1, 1.1, float(rng.uniform(0.7, 1.0)), int(rng.integers(8, 14)))
    solids += rails(-float(rng.uniform(1.0, 1.5)), -0.8, 0.9, float(rng.uniform(0.7, 1.0)), int(rng.integers(6, 12)))
    side, tall, thin = float(rng.uniform(0.25, 0.4)), float(rng.uniform(1.8, 2.6)), float(rng.uniform(0.012, 0.03))
    for x in (-side, side):
        for y in (-side, side):
            solids.append(block("mast", "rust", (x, y, 0), (thin, thin, tall), 0.5, "rails"))
        for z in np.linspace(0.3, tall, 6):
            solids.append(block("strut", "rust", (x, -side, float(z)), (thin, 2 * side, thin), 0.5, "rails"))
            solids.append(block("strut", "rust", (-side, x, float(z)), (2 * side, thin, thin), 0.5, "rails"))
    solids += thing(rng, (0.0, 0.0), 0.0, 0.42)  # within the mast: seen between its struts
    y = float(rng.uniform(0.9, 1.3))
    for x in np.linspace(-0.8, 0.8, 9):
        solids.append(block("trellis", "wood", (float(x), y, 0), (0.025, 0.025, 1.6), 0.5, "rails"))
    for z in np.linspace(0.2, 1.6, 7):
        solids.append(block("trellis", "wood", (-0.8, y, float(z)), (1.62, 0.02, 0.025), 0.5, "rails"))
    for z in rng.uniform(1.3, 2.0, 2):
        solids.append(block("wire", "metal", (-1.5, -0.9, float(z)), (3.0, 0.012, 0.012), 0.5, "rails"))
    solids += [block("post", "wood", (x, -0.93, 0), (0.06, 0.06, 2.1), 0.8) for x in (-1.5, 1.45)]
    for x in rng.uniform(-0.7, 0.7, 3):
        solids.append(block("pot", any_of(rng, THINGS), (float(x), y + 0.25, 0), (0.3, 0.3, 0.4), 0.5))
    cameras = partial(around, (0.0, 0.0, 0.85), float(rng.uniform(2.6, 3.3)), 0.9, 1.9, float(rng.uniform(1.0, 2.0)))
    return Place(solids, (-14.0, -20.0, 32.0), cameras, float(rng.uniform(0.8, 1.0)))
