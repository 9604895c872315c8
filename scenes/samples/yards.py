"""Yards drawn from a seed: buildings all around under an open sky, few photos, few points where it is far.

For runs that nobody tuned on: each seed is another place. What is hard about a yard is true of many outdoor scenes:
photos overlap little, much of them is sky that no SfM point holds, and the held-out views look through air that few
training photos look through. Metres, z up.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from lpm.scenes.samples.palettes import facade, tint
from lpm.scenes.samples.textures import Atlas, Rng, bricks, hazy, landscape, stained, tiles
from lpm.scenes.samples.trace import Solid, World
from lpm.scenes.samples.worlds import COMMON, Sample, Triple, block, look_at, table
from lpm.scenes.scene import Floats

DRAWN = 7
"""Stream of the generator that draws the place; textures, camera jitter and points have their own."""
NOWHERE = ((0.0, 0.0, -9.0), (0.0, 0.0, -9.0))
"""A hole without extent, under the ground."""


def yard(seed: int) -> World:
    """Wings of buildings with gaps between them, a tower or two, trees, things on the ground, a far background."""
    rng = np.random.default_rng([seed, DRAWN])
    half_x, half_y = rng.uniform(10, 16), rng.uniform(8, 13)

    makers = {
        **COMMON,
        **{f"facade{i}": facade(tint(rng, 0.5, 0.8), tint(rng, 0.3, 0.85), int(rng.integers(2, 4)),
                                int(rng.integers(3, 6))) for i in range(4)},
        "brick": bricks(tint(rng, 0.45, 0.65), 27),
        "roof": bricks((0.55, 0.3, 0.22), 36),
        "ground": tiles([tint(rng, 0.4, 0.7) for _ in range(4)], 16, 0.06) if rng.random() < 0.5
        else stained(tint(rng, 0.5, 0.65), tint(rng, 0.35, 0.5)),
        "grass": stained((0.36, 0.5, 0.2), (0.58, 0.54, 0.3)),
        "hedge": stained((0.16, 0.34, 0.14), (0.42, 0.55, 0.26)),
        "sky": landscape if rng.random() < 0.5 else hazy,
    }  # fmt: skip
    solids = [
        Solid("field", "grass", (-150, -150, -0.3), (150, 150, -0.3), 0, 9.1, "background"),
        Solid("ground", "ground", (-half_x - 6, -half_y - 6, 0), (half_x + 6, half_y + 6, 0), 0, 5.3),
        Solid("sky", "sky", (0, 0, 0), None, 220.0, 1.0, "background", True),
    ]
    walls = ["facade0", "facade1", "facade2", "facade3", "brick"]
    for side in range(4):
        along, out = (half_x, half_y) if side < 2 else (half_y, half_x)
        at = -along + rng.uniform(-2, 0)
        while at < along:
            long, deep, tall = rng.uniform(5, 13), rng.uniform(3, 6), rng.uniform(3.5, 9.5)
            texture, repeat = str(rng.choice(walls)), float(rng.uniform(4.5, 8))
            back = rng.uniform(0, 1.5)
            for name, use, (z, h), inset in (("wing", texture, (0.0, tall), 0.0), ("roof", "roof", (tall, 1.2), 0.7)):
                corner, (wide, thick) = _place(side, at + inset, out + back + inset, z, long - 2 * inset, deep - inset)
                solids.append(block(name, use, corner, (wide, thick, h), repeat))
            at += long + (rng.uniform(0.8, 4) if rng.random() < 0.5 else 0.0)
    for _ in range(int(rng.integers(1, 3))):
        x, y, wide, tall = rng.uniform(-1, 1) * half_x, half_y + 7, rng.uniform(3, 5), rng.uniform(12, 19)
        y = y if rng.random() < 0.5 else -y - wide
        solids.append(block("tower", "brick", (x, y, 0), (wide, wide, tall), 5.7))
    for _ in range(int(rng.integers(8, 14))):
        x, y = _spot(rng, half_x, half_y)
        thing, wide = str(rng.choice(["crate", "crate2", "mosaic", "rust", "marble"])), float(rng.uniform(0.6, 2.2))
        solids.append(block("thing", thing, (x, y, 0), (wide, float(rng.uniform(0.6, 2)), wide * 0.7), 1.1 * wide))
    for _ in range(int(rng.integers(2, 5))):
        x, y = _spot(rng, half_x, half_y)
        tall, round_ = rng.uniform(1.6, 3), float(rng.uniform(0.8, 1.6))
        solids.append(block("trunk", "wood", (x - 0.14, y - 0.14, 0), (0.28, 0.28, tall + round_), 0.9))
        solids.append(Solid("crown", "hedge", (x, y, tall + round_), None, round_, 0.34))
    x, y = _spot(rng, half_x, half_y)
    solids += table((x, y, 0.0), (1.8, 1.2, 0.8), "wood")
    for _ in range(int(rng.integers(5, 9))):
        turn, far = rng.uniform(0, 2 * np.pi), rng.uniform(35, 90)
        low: Triple = (far * np.cos(turn), far * np.sin(turn), -0.3)
        size = (float(rng.uniform(6, 14)), float(rng.uniform(6, 14)), float(rng.uniform(8, 26)))
        solids.append(block("house", str(rng.choice(walls)), low, size, 7.9, "background"))
    return World(solids, Atlas(makers, seed), light=(-60.0, -90.0, 140.0))


def _place(side: int, at: float, out: float, z: float, long: float, deep: float) -> tuple[Triple, tuple[float, float]]:
    """Lower corner, and width and depth, of a box `at` m along the yard's `side`, its face `out` from the middle."""
    if side < 2:
        return (at, out if side == 0 else -out - deep, z), (long, deep)
    return (out if side == 2 else -out - deep, at, z), (deep, long)


def _spot(rng: Rng, half_x: float, half_y: float) -> tuple[float, float]:
    """A place on the ground that no camera walks over: at the walls, or in the middle."""
    turn = rng.uniform(0, 2 * np.pi)
    radius = rng.uniform(0, 0.2) if rng.random() < 0.3 else rng.uniform(0.78, 0.95)
    return float(radius * half_x * np.cos(turn)), float(radius * half_y * np.sin(turn))


def yard_cameras(seed: int, views: int, rng: Rng) -> Floats:
    """A walk around the middle of the yard, looking across it or outward, at the walls and what is above them."""
    drawn = np.random.default_rng([seed, DRAWN])
    half_x, half_y = drawn.uniform(10, 16), drawn.uniform(8, 13)
    outward = drawn.random() < 0.5
    s = 2 * np.pi * (np.arange(views) + rng.uniform(-0.3, 0.3, views)) / views
    share = 0.5 + 0.1 * np.sin(2.3 * s + drawn.uniform(0, 6)) + rng.uniform(-0.04, 0.04, views)
    eye = np.stack([share * half_x * np.cos(s), share * half_y * np.sin(s), 1.6 + rng.uniform(-0.15, 0.25, views)], 1)
    turn = s + (0.0 if outward else np.pi) + rng.uniform(-0.3, 0.3, views)
    target = np.stack([half_x * np.cos(turn), half_y * np.sin(turn), 3.4 + rng.uniform(-0.6, 0.8, views)], 1)
    return np.stack([look_at(a, b) for a, b in zip(eye, target, strict=True)])


def random_yard(seed: int) -> Sample:
    """The yard that `seed` draws."""
    return Sample(
        "yard",
        yard,
        partial(yard_cameras, seed),
        focal=0.85,
        hole=NOWHERE,
        floaters=((0.0, 0.0, 1.0), 0.1, 0, "ground"),
    )
