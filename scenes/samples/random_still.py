"""Still scenes drawn from a seed, for figures that nobody tuned on: even seeds for development, odd ones for reports.

The kind goes by turns, so that any six even seeds in a row, and any six odd ones, have one of each; all else is drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from lpm.scenes.samples.drawn import Drawn
from lpm.scenes.samples.palettes import palette
from lpm.scenes.samples.places import Place, facade_place, indoor
from lpm.scenes.samples.still_lifes import object_place, thin_place
from lpm.scenes.samples.textures import Atlas, Rng
from lpm.scenes.samples.trace import World
from lpm.scenes.samples.worlds import Sample
from lpm.scenes.samples.yards import NOWHERE, random_yard

KINDS: dict[str, Callable[[Rng], Place]] = {
    "indoor": indoor,
    "object": object_place,
    "facade": facade_place,
    "thin": thin_place,
    "glass": partial(indoor, glass=True),
}
"""What a scene can be of, beside "outdoor", which is a yard (lpm.scenes.samples.yards)."""
ORDER = ("indoor", "outdoor", "object", "facade", "thin", "glass")
PLACE, FAULTS, VIEWS, PALETTE = 21, 22, 23, 24
"""Streams of the generators, so that a new draw of one does not move the others."""


def random_views(seed: int) -> int:
    """How many views the scene of `seed` has, where nobody says: 16 to 48."""
    return int(np.random.default_rng([seed, VIEWS]).integers(16, 49))


def draw(seed: int) -> Drawn:
    """What `seed` draws beside the place."""
    rng = np.random.default_rng([seed, FAULTS])
    return Drawn(
        kind=ORDER[seed // 2 % len(ORDER)],
        points=round(float(600 * (20_000 / 600) ** rng.random())),
        drift=float(rng.uniform(0.05, 0.3) * rng.choice([-1, 1])) if rng.random() < 0.4 else 0.0,
        pose_noise=float(rng.uniform(0, 1)) if rng.random() < 0.6 else 0.0,
        detail=float(rng.uniform(0.05, 0.4)),
        side=float(rng.uniform(-180, 180)),
        sector_share=float(rng.uniform(0.15, 0.25)),
    )


def random_still(seed: int) -> Sample:
    """The still scene that `seed` draws."""
    drawn = draw(seed)
    if drawn.kind == "outdoor":
        there = random_yard(seed)
        return Sample("random", there.world, there.cameras, there.focal, NOWHERE, there.floaters, (), drawn)
    place = KINDS[drawn.kind](np.random.default_rng([seed, PLACE]))

    def world(of: int) -> World:
        atlas = Atlas(palette(np.random.default_rng([of, PALETTE])), of)
        return World(place.solids, atlas, place.light, pane=place.pane, detail=drawn.detail)

    return Sample("random", world, place.cameras, place.focal, NOWHERE, ((0.0, 0.0, 1.0), 0.1, 0, "ground"), (), drawn)
