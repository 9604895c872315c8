"""Places that a generator lays out: indoors, a facade, an object to walk around, thin structures. Metres, z up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from lpm.scenes.samples.palettes import FACADES, THINGS, WALLS
from lpm.scenes.samples.textures import Rng
from lpm.scenes.samples.trace import Pane, Solid
from lpm.scenes.samples.worlds import Triple, block, look_at, table
from lpm.scenes.scene import Floats

Cameras = Callable[[int, Rng], Floats]
"""views, a generator for the jitter -> [views, 4, 4] camera to world."""
FAR = 90.0
"""Radius of the sky."""


@dataclass
class Place:
    """What is there, and how one walks through it."""

    solids: list[Solid]
    light: Triple
    cameras: Cameras
    focal: float
    """As a share of the image's width."""
    pane: Pane | None = None


def any_of(rng: Rng, names: tuple[str, ...]) -> str:
    """One of `names`."""
    return names[int(rng.integers(len(names)))]


def around(
    middle: Triple, radius: float, low: float, high: float, rounds: float, views: int, rng: Rng, across: float = 1.0
) -> Floats:
    """`rounds` at changing heights from `low` to `high`, looking about at the `middle`; `across` -1: away from it."""
    i = np.arange(views) + rng.uniform(-0.25, 0.25, views)
    s, r = 2 * np.pi * rounds * i / views, radius * (1 + 0.08 * np.cos(1.7 * i))
    height = (low + high) / 2 - (high - low) / 2 * np.cos(2 * np.pi * 1.5 * i / views)
    eye = np.array(middle) * (1, 1, 0) + np.stack([r * np.cos(s), r * np.sin(s), height], 1)
    wander = 0.1 * radius * np.stack([np.sin(2.3 * i), np.cos(1.9 * i), 0.4 * np.sin(i)], 1)
    target = np.array(middle) + wander
    if across < 0:
        target = eye * (2, 2, 0) + wander + (0, 0, middle[2])
    return np.stack([look_at(a, b) for a, b in zip(eye, target, strict=True)])


def before(width: float, away: float, height: float, views: int, rng: Rng) -> Floats:
    """Along a wall at y = 0 and back, from `away` before it, at two heights, looking at it aslant."""
    i = np.arange(views) + rng.uniform(-0.25, 0.25, views)
    s = 2 * np.pi * i / views
    x, back = 0.5 * width * np.cos(s), np.sin(s) > 0
    eye = np.stack([x, -away * (1 + 0.2 * np.sin(1.3 * i)), np.where(back, 1.6, 2.6) + 0.2 * np.sin(3 * i)], 1)
    target = np.stack([0.75 * x + 0.8 * np.cos(2.1 * i), 0 * x, 0.42 * height + 0.5 * np.cos(1.7 * i)], 1)
    return np.stack([look_at(a, b) for a, b in zip(eye, target, strict=True)])


def thing(rng: Rng, at: tuple[float, float], z: float, size: float) -> list[Solid]:
    """A ball, a box or two on top of each other, about `size` large, standing at `at` on the height `z`."""
    texture, shine = any_of(rng, THINGS), float(rng.choice([0.0, 0.0, 0.3]))
    kind, (x, y) = rng.integers(3), at
    if kind == 0:
        return [Solid("ball", texture, (x, y, z + size / 2), None, size / 2, 0.5, "", False, shine)]
    w, d, h = (size * float(v) for v in rng.uniform(0.5, 1.0, 3))
    box = Solid(
        "box", texture, (x - w / 2, y - d / 2, z), (x + w / 2, y + d / 2, z + h), 0, 1.1 * size, "", False, shine
    )
    return [box] if kind == 1 else [box, *thing(rng, at, z + h, 0.6 * min(w, d))]


def country(rng: Rng, ground: str, low: float = 12.0) -> list[Solid]:
    """Ground, a sky, houses and trees from `low` metres on, all around."""
    solids = [
        Solid("field", "grass", (-80, -80, -0.02), (80, 80, -0.02), 0, 8.3, "background"),
        Solid("ground", ground, (-low * 0.7, -low * 0.7, 0), (low * 0.7, low * 0.7, 0), 0, 4.9),
        Solid("sky", "sky", (0, 0, 0), None, FAR, 1.0, "background", True),
    ]
    for turn in np.arange(9) * 2 * np.pi / 9 + rng.uniform(0, 0.5, 9):
        far, (w, d, h) = rng.uniform(low + 3, 2.8 * low), (float(v) for v in rng.uniform(3, 9, 3))
        at = (float(far * np.cos(turn)) - w / 2, float(far * np.sin(turn)) - d / 2, 0.0)
        if rng.random() < 0.7:
            solids.append(block("house", any_of(rng, FACADES), at, (w, d, h), 6.7, "background"))
        else:
            solids += tree(rng, (at[0], at[1]), "background")
    return solids


def tree(rng: Rng, at: tuple[float, float], region: str = "") -> list[Solid]:
    """A trunk and a round crown."""
    (x, y), tall, radius = at, float(rng.uniform(1.6, 3)), float(rng.uniform(0.6, 1.3))
    trunk = block("trunk", "wood", (x - 0.12, y - 0.12, 0), (0.24, 0.24, tall + radius), 0.9, region)
    return [trunk, Solid("crown", "hedge", (x, y, tall + radius), None, radius, 0.34, region)]


def indoor(rng: Rng, glass: bool = False) -> Place:
    """A furnished room with a window; with `glass`, a screen before one end of it, and all views look through."""
    a, b, h = (float(rng.uniform(*span)) for span in ((2.7, 4.2), (2.3, 3.5), (2.4, 3.2)))
    left = float(rng.uniform(-0.6 * b, 0.0))
    right, sill, lintel, thick = left + float(rng.uniform(0.8, 1.6)), 0.9, h - 0.45, 0.18
    walls = [any_of(rng, WALLS) for _ in range(4)]
    solids = [
        Solid("floor", "floor", (-a, -b, 0), (a, b, 0), 0, 3.9),
        Solid("ceiling", "wall0", (-a, -b, h), (a, b, h), 0, 5.3),
        Solid("wall", walls[0], (-a, -b, 0), (-a, b, h), 0, 4.1),
        Solid("wall", walls[1], (-a, -b, 0), (a, -b, h), 0, 4.7),
        Solid("wall", walls[2], (-a, b, 0), (a, b, h), 0, 5.1),
        *(Solid("wall", walls[3], (a, low, z), (a + thick, high, top), 0, 3.7)
          for low, high, z, top in ((-b, left, 0, h), (right, b, 0, h), (left, right, 0, sill),
                                    (left, right, lintel, h))),
        Solid("lawn", "grass", (a + thick, -60, -0.9), (60, 60, -0.9), 0, 9.7, "background"),
        Solid("sky", "sky", (0, 0, 0), None, 70.0, 1.0, "background", True),
    ]  # fmt: skip
    for y in (-4.0, 3.0):
        low: Triple = (float(rng.uniform(9, 20)), y, -0.9)
        solids.append(block("house", any_of(rng, FACADES), low, (5, 5, float(rng.uniform(2.5, 5))), 7.3, "background"))
    for side in (-1, 1):  # along the two long walls
        x = -a + float(rng.uniform(0.1, 0.6))
        while x < a - 1.0:
            w, d, tall = (float(rng.uniform(*span)) for span in ((0.5, 1.1), (0.35, 0.6), (0.45, 1.5)))
            y = side * (b - d / 2 - 0.02)
            if tall < 0.75 and rng.random() < 0.5:
                solids += table((x, y - d / 2, 0.0), (w, d, tall), "wood")
            else:
                solids.append(block("cabinet", any_of(rng, THINGS), (x, y - d / 2, 0.0), (w, d, tall), 0.9))
            if tall < 1.3:
                solids += thing(rng, (x + w / 2, y), tall, float(rng.uniform(0.2, 0.9 * d)))
            x += w + float(rng.uniform(0.1, 1.2))
        at = float(rng.uniform(-a + 0.2, a - 1.4))
        edge = side * (b - 0.01)
        solids.append(Solid("poster", "poster", (at, edge, 1.2), (at + 1.0, edge, h - 0.35), 0, 1.02))
    for y in rng.uniform(-0.6 * b, 0.6 * b, 2):
        solids += thing(rng, (a - 0.6, float(y)), 0.0, float(rng.uniform(0.5, 0.9)))
    light: Triple = (float(rng.uniform(-1, 1)), float(rng.uniform(-0.5, 0.5)), h - 0.1)
    if glass:
        x, half = float(rng.uniform(0.35, 0.5)) * a, float(rng.uniform(0.5, 0.75)) * b
        pane = Pane((x, -half, 0.15), (x, half, 2.1), mirror=float(rng.uniform(0.06, 0.25)))
        return Place(solids, light, partial(_facing, a, b), 0.85, pane)
    return Place(solids, light, partial(_walk, a, b, float(rng.choice([-1.0, 1.0]))), float(rng.uniform(0.7, 0.85)))


def _facing(a: float, b: float, views: int, rng: Rng) -> Floats:
    """A figure of eight in the rear of a room of 2a x 2b, looking at its front."""
    s = 2 * np.pi * (np.arange(views) + rng.uniform(-0.2, 0.2, views)) / views
    eye = np.stack([-0.35 * a + 0.3 * a * np.cos(s), 0.55 * b * np.sin(s), 1.4 + 0.35 * np.sin(2 * s + 0.6)], 1)
    target = np.stack([0.8 * a + 0 * s, 0.45 * b * np.sin(s + 1.1), 1.0 + 0.2 * np.cos(3 * s)], 1)
    return np.stack([look_at(x, y) for x, y in zip(eye, target, strict=True)])


def _walk(a: float, b: float, across: float, views: int, rng: Rng) -> Floats:
    """Around the middle of a room of 2a x 2b, looking across it or outward."""
    return around((0.0, 0.0, 1.05), 0.42 * min(a, b), 1.2, 1.75, 1.0, views, rng, across)


def facade_place(rng: Rng) -> Place:
    """A house's front with pilasters, balconies and an awning; lamps, trees and benches before it."""
    width, height = float(rng.uniform(9, 16)), float(rng.uniform(5.5, 9))
    main = any_of(rng, FACADES)
    solids = [*country(rng, "ground", 18.0), block("front", main, (-width / 2, 0, 0), (width, 3, height), 5.9)]
    solids.append(block("cornice", "wall1", (-width / 2 - 0.2, -0.4, height), (width + 0.4, 3.4, 0.3), 2.1))
    for x in np.linspace(-width / 2, width / 2 - 0.4, int(rng.integers(3, 6))):
        solids.append(block("pilaster", "wall0", (float(x), -0.22, 0), (0.4, 0.22, height), 1.9))
    for side in (-1.0, 1.0):
        wide, tall = float(rng.uniform(4, 7)), float(rng.uniform(0.6, 1.1)) * height
        low: Triple = (width / 2 + 0.01 if side > 0 else -width / 2 - wide - 0.01, float(rng.uniform(-0.6, 1.5)), 0.0)
        solids.append(block("neighbour", any_of(rng, FACADES), low, (wide, 3, tall), 5.1))
    for x in rng.uniform(-0.42 * width, 0.42 * width - 1.6, 3):
        z = float(rng.choice([2.7, 4.4]))
        solids.append(block("balcony", "marble", (float(x), -0.9, z), (1.6, 0.9, 0.12), 1.3))
        for bar in np.linspace(float(x), float(x) + 1.57, 12):
            solids.append(block("bar", "metal", (float(bar), -0.9, z + 0.12), (0.03, 0.03, 0.8), 0.5, "rails"))
        solids.append(block("rail", "metal", (float(x), -0.9, z + 0.92), (1.6, 0.04, 0.04), 0.5, "rails"))
    for x in rng.uniform(-0.45 * width, 0.45 * width, int(rng.integers(3, 7))):
        at = (float(x), float(rng.uniform(-2.6, -1.2)))
        kind = rng.integers(3)
        if kind == 0:
            solids += tree(rng, at)
        elif kind == 1:
            post = block("post", "metal", (*at, 0.0), (0.07, 0.07, 3.2), 0.6, "rails")
            solids += [post, Solid("lamp", "marble", (at[0], at[1], 3.3), None, 0.2, 0.5)]
        else:
            solids += thing(rng, at, 0.0, float(rng.uniform(0.5, 1.2)))
    cameras = partial(before, 0.85 * width, float(rng.uniform(5, 7.5)), height)
    return Place(solids, (-30.0, -45.0, 50.0), cameras, float(rng.uniform(0.7, 0.9)))
