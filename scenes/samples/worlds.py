"""The sample scenes: their geometry, their camera paths, and what is planted in them. Metres, z up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lpm.scenes.samples.drawn import Drawn
from lpm.scenes.samples.textures import Atlas, bricks, crate, grain, landscape, print_sheet, stained, tiles, wood
from lpm.scenes.samples.trace import Pane, Solid, World
from lpm.scenes.scene import Floats

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Sample:
    """A sample scene before it is rendered."""

    name: str
    world: Callable[[int], World]
    """Builds the geometry; the seed draws the textures."""
    cameras: Callable[[int, np.random.Generator], Floats]
    """[views, 4, 4] camera to world, OpenGL."""
    focal: float
    """Focal length as a share of the image's width."""
    hole: tuple[Triple, Triple]
    """Lower and upper corner of the box that gets no points."""
    floaters: tuple[Triple, float, int, str]
    """The false points: their centre, spread (standard deviation), number, and the surface they float in front of."""
    exposed: tuple[float, ...] = ()
    """Gains of the views that get another exposure; none if empty."""
    drawn: Drawn | None = None
    """What a seed drew beside the place, of a scene that a seed drew."""


def look_at(eye: Floats, target: Floats) -> Floats:
    """[4, 4] camera to world (OpenGL) of a camera at `eye` [3] that looks at `target` [3], upright."""
    back = (eye - target) / np.linalg.norm(eye - target)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(back, right), back], axis=1)
    pose[:3, 3] = eye
    return pose


def rails(x: float, low: float, high: float, top: float, bars: int) -> list[Solid]:
    """A railing along y at `x`: thin upright bars between two thin horizontal ones."""
    thin = 0.011
    parts = [
        Solid("rail", "metal", (x - thin, low, z - thin), (x + thin, high, z + thin), 0, 0.5, "rails")
        for z in (0.12, top)
    ]
    for y in np.linspace(low, high, bars):
        parts.append(Solid("bar", "metal", (x - thin, y - thin, 0.0), (x + thin, y + thin, top), 0, 0.5, "rails"))
    return parts


def block(name: str, texture: str, low: Triple, size: Triple, repeat: float, region: str = "") -> Solid:
    """A box by its lower corner and size."""
    high = (low[0] + size[0], low[1] + size[1], low[2] + size[2])
    return Solid(name, texture, low, high, 0.0, repeat, region)


def table(low: Triple, size: Triple, texture: str) -> list[Solid]:
    """A table: a board on four legs, in the box from `low` of `size`."""
    (x, y, z), (w, d, h) = low, size
    leg = 0.06
    parts = [block("table", texture, (x, y, z + h - 0.05), (w, d, 0.05), 1.3)]
    for dx in (0.03, w - leg - 0.03):
        for dy in (0.03, d - leg - 0.03):
            parts.append(block("leg", texture, (x + dx, y + dy, z), (leg, leg, h - 0.05), 0.7))
    return parts


COMMON = {
    "grain": grain,
    "metal": stained((0.16, 0.17, 0.2), (0.62, 0.6, 0.55)),
    "crate": crate((0.72, 0.52, 0.3)),
    "crate2": crate((0.35, 0.5, 0.62)),
    "wood": wood((0.66, 0.44, 0.25), (0.34, 0.2, 0.1)),
    "poster": print_sheet((0.92, 0.88, 0.76), (0.12, 0.12, 0.2)),
    "marble": stained((0.88, 0.86, 0.82), (0.38, 0.4, 0.48)),
    "rust": stained((0.75, 0.36, 0.16), (0.28, 0.32, 0.36)),
    "mosaic": tiles(
        [(0.8, 0.3, 0.2), (0.2, 0.45, 0.7), (0.9, 0.75, 0.3), (0.25, 0.55, 0.35), (0.9, 0.88, 0.8)], 12, 0.1
    ),
    "sky": landscape,
}


def room(seed: int) -> World:
    """A furnished room with a window onto a far landscape, a railing, and a glass screen with things behind it."""
    makers = {
        **COMMON,
        "plaster": stained((0.78, 0.73, 0.64), (0.55, 0.46, 0.4)),
        "paper": tiles([(0.42, 0.55, 0.5), (0.55, 0.62, 0.48), (0.36, 0.46, 0.5), (0.62, 0.6, 0.5)], 16, 0.06),
        "brick": bricks((0.66, 0.38, 0.28), 27),
        "floor": bricks((0.62, 0.46, 0.32), 15),
        "ceiling": stained((0.86, 0.85, 0.82), (0.66, 0.66, 0.68)),
        "poster2": print_sheet((0.3, 0.42, 0.6), (0.95, 0.9, 0.7), 12),
        "cloth": stained((0.75, 0.25, 0.25), (0.35, 0.1, 0.2)),
        "grass": stained((0.38, 0.5, 0.22), (0.6, 0.55, 0.35)),
    }
    x, y, h = 3.0, 2.5, 2.6
    left, right, sill, lintel = -0.35, 1.35, 0.95, 2.05  # the window
    thick = 0.18
    solids = [
        Solid("floor", "floor", (-x, -y, 0), (x, y, 0), 0, 4.1),
        Solid("ceiling", "ceiling", (-x, -y, h), (x, y, h), 0, 5.3),
        Solid("wall", "plaster", (-x, -y, 0), (-x, y, h), 0, 5.1),
        Solid("wall", "paper", (-x, -y, 0), (x, -y, h), 0, 4.7),
        Solid("wall", "plaster", (-x, y, 0), (x, y, h), 0, 5.9),
        Solid("wall", "brick", (x, -y, 0), (x + thick, left, h), 0, 3.7),
        Solid("wall", "brick", (x, right, 0), (x + thick, y, h), 0, 3.7),
        Solid("wall", "brick", (x, left, 0), (x + thick, right, sill), 0, 3.7),
        Solid("wall", "brick", (x, left, lintel), (x + thick, right, h), 0, 3.7),
        Solid("poster", "poster", (x - 0.01, -1.45, 1.1), (x - 0.01, -0.55, 2.1), 0, 1.02),
        Solid("poster2", "poster2", (0.5, y - 0.01, 0.9), (1.9, y - 0.01, 2.0), 0, 1.42),
        *table((0.75, -1.75, 0.0), (0.95, 1.0, 0.74), "wood"),
        block("box", "mosaic", (0.9, -1.5, 0.74), (0.28, 0.26, 0.3), 0.9),
        Solid("ball", "rust", (1.4, -1.1, 0.74 + 0.17), None, 0.17, 0.5, "", False, 0.25),
        block("cabinet", "crate", (2.3, -2.5, 0.0), (0.7, 0.75, 1.35), 1.4),
        Solid("vase", "marble", (2.6, -2.1, 1.35 + 0.19), None, 0.19, 0.5),
        block("crate", "crate2", (2.0, 1.3, 0.0), (0.75, 0.75, 0.7), 0.76),
        block("crate", "crate", (2.15, 1.45, 0.7), (0.45, 0.45, 0.42), 0.46),
        block("stool", "cloth", (1.75, -0.25, 0.0), (0.5, 0.5, 0.55), 0.7),
        Solid("globe", "mosaic", (2.0, 0.0, 0.55 + 0.24), None, 0.24, 0.5),
        *rails(1.15, 0.85, 2.25, 0.95, 9),
        Solid("lawn", "grass", (x + thick, -60, -0.9), (60, 60, -0.9), 0, 9.7, "background"),
        block("house", "brick", (14, -3.5, -0.9), (5, 4, 2.9), 7.3, "background"),
        block("house", "paper", (21, 3.5, -0.9), (5, 6, 3.6), 9.1, "background"),
        block("shed", "crate2", (9, 1.6, -0.9), (1.8, 1.8, 2.2), 2.4, "background"),
        Solid("sky", "sky", (0, 0, 0), None, 60.0, 1.0, "background", True),
    ]  # fmt: skip
    pane = Pane((1.35, -0.6, 0.35), (1.35, 0.6, 1.75))
    return World(solids, Atlas(makers, seed), light=(-0.3, 0.2, 2.5), pane=pane)


def room_cameras(views: int, rng: np.random.Generator) -> Floats:
    """A walk along a figure of eight in the rear half of the room, looking at its front half."""
    s = 2 * np.pi * (np.arange(views) + rng.uniform(-0.2, 0.2, views)) / views
    eye = np.stack([-1.5 + 0.75 * np.cos(s), 1.55 * np.sin(s), 1.4 + 0.4 * np.sin(2 * s + 0.6)], axis=1)
    target = np.stack([1.9 + 0 * s, 0.75 * np.sin(s + 1.1), 1.0 + 0.25 * np.cos(3 * s)], axis=1)
    return np.stack([look_at(a, b) for a, b in zip(eye, target, strict=True)])


def garden(seed: int) -> World:
    """A laid table on a terrace, seen from all around, with houses and hills far behind."""
    makers = {
        **COMMON,
        "terrace": tiles([(0.7, 0.6, 0.5), (0.58, 0.56, 0.55), (0.76, 0.68, 0.56), (0.5, 0.46, 0.44)], 16, 0.06),
        "grass": stained((0.36, 0.5, 0.2), (0.58, 0.54, 0.3)),
        "brick": bricks((0.68, 0.42, 0.32), 27),
        "hedge": stained((0.16, 0.34, 0.14), (0.42, 0.55, 0.26)),
        "plaster": stained((0.84, 0.78, 0.66), (0.6, 0.5, 0.42)),
        "cloth": tiles([(0.85, 0.82, 0.78), (0.7, 0.25, 0.25), (0.85, 0.82, 0.78), (0.25, 0.35, 0.6)], 16, 0.02),
    }
    solids = [
        Solid("grass", "grass", (-60, -60, -0.02), (60, 60, -0.02), 0, 8.3),
        Solid("terrace", "terrace", (-3.2, -3.2, 0), (3.2, 3.2, 0), 0, 5.1),
        *table((-0.9, -0.6, 0.0), (1.8, 1.2, 0.72), "wood"),
        Solid("cloth", "cloth", (-0.62, -0.605, 0.725), (0.62, 0.605, 0.725), 0, 1.27),
        block("box", "crate", (-0.72, -0.35, 0.73), (0.34, 0.3, 0.3), 0.42),
        block("book", "poster", (0.3, -0.42, 0.73), (0.36, 0.26, 0.07), 0.37),
        block("book", "crate2", (0.34, -0.38, 0.80), (0.3, 0.22, 0.06), 0.31),
        Solid("globe", "mosaic", (0.05, 0.12, 0.73 + 0.2), None, 0.2, 0.5),
        Solid("ball", "rust", (0.55, 0.25, 0.73 + 0.13), None, 0.13, 0.5, "", False, 0.25),
        Solid("bowl", "marble", (-0.35, 0.3, 0.73 + 0.15), None, 0.15, 0.5),
        *rails(1.5, -1.0, 1.0, 0.85, 11),
        block("planter", "brick", (-1.9, -0.9, 0.0), (0.45, 1.8, 0.45), 1.9),
        Solid("bush", "hedge", (-1.68, -0.45, 0.62), None, 0.3, 0.5),
        Solid("bush", "hedge", (-1.68, 0.4, 0.58), None, 0.26, 0.5),
        block("bench", "crate2", (-0.7, 1.55, 0.0), (1.4, 0.4, 0.45), 1.43),
        block("hedge", "hedge", (-7, 6.0, 0), (13, 0.8, 1.5), 4.3, "background"),
        block("wall", "brick", (6.5, -6, 0), (0.3, 11, 1.6), 5.3, "background"),
        block("house", "plaster", (-14, -5, 0), (5, 8, 4.5), 8.1, "background"),
        block("house", "brick", (-4, -17, 0), (8, 5, 5), 9.3, "background"),
        block("shed", "crate", (7, -10, 0), (2.5, 2.5, 2.4), 2.9, "background"),
        block("tower", "paper", (13, 9, 0), (4, 4, 9), 6.7, "background"),
        Solid("sky", "sky", (0, 0, 0), None, 80.0, 1.0, "background", True),
    ]  # fmt: skip
    makers["paper"] = tiles([(0.62, 0.56, 0.5), (0.5, 0.5, 0.52), (0.72, 0.66, 0.56)], 16, 0.08)
    return World(solids, Atlas(makers, seed), light=(-14.0, -20.0, 32.0))


def garden_cameras(views: int, rng: np.random.Generator) -> Floats:
    """Two and a half rounds at changing heights, looking at the table."""
    i = np.arange(views) + rng.uniform(-0.2, 0.2, views)
    s, radius = 2 * np.pi * 2.5 * i / views, 2.75 + 0.2 * np.cos(1.7 * i)
    eye = np.stack([radius * np.cos(s), radius * np.sin(s), 1.55 - 0.55 * np.cos(2 * np.pi * i / views * 1.5)], axis=1)
    target = np.stack([0.2 * np.sin(2.3 * i), 0.2 * np.cos(1.9 * i), 0.72 + 0.1 * np.sin(i)], axis=1)
    return np.stack([look_at(a, b) for a, b in zip(eye, target, strict=True)])


STREET = 24.0
"""Length of the street, metres."""


def street(seed: int) -> World:
    """Houses on both sides of a street, each other than its neighbours: no photo shows more than a part of it."""
    walls = {
        "brick": bricks((0.68, 0.42, 0.32), 27),
        "plaster": stained((0.84, 0.78, 0.66), (0.6, 0.5, 0.42)),
        "paper": tiles([(0.42, 0.55, 0.5), (0.55, 0.62, 0.48), (0.36, 0.46, 0.5), (0.62, 0.6, 0.5)], 16, 0.06),
        "brick2": bricks((0.5, 0.5, 0.56), 21),
    }
    makers = {
        **COMMON,
        **walls,
        "road": stained((0.42, 0.42, 0.44), (0.6, 0.58, 0.52)),
        "pavement": tiles([(0.7, 0.6, 0.5), (0.58, 0.56, 0.55), (0.76, 0.68, 0.56), (0.5, 0.46, 0.44)], 16, 0.06),
    }
    half, rng = STREET / 2, np.random.default_rng([seed, 3])
    solids = [
        Solid("road", "road", (-half - 6, -3, 0), (half + 6, 3, 0), 0, 6.1),
        Solid("sky", "sky", (0, 0, 0), None, 80.0, 1.0, "background", True),
    ]
    for side in (-1, 1):
        low = 2.0 if side > 0 else -3.6
        solids.append(Solid("pavement", "pavement", (-half, low, 0.02), (half, low + 1.6, 0.02), 0, 3.1))
        for i, x in enumerate(np.arange(-half, half, 3.0)):
            texture, tall = list(walls)[(i + (side > 0)) % 4], float(rng.uniform(2.6, 4.2))
            y = 3.6 if side > 0 else -5.1
            solids.append(block("house", texture, (float(x), y, 0.0), (2.9, 1.5, tall), float(rng.uniform(3, 5))))
            thing, at = ["crate", "crate2", "mosaic", "rust"][(i + side) % 4], float(rng.uniform(0.3, 2.0))
            near = 2.6 if side > 0 else -3.3
            solids.append(
                block("box", thing, (float(x) + at, near, 0.02), (0.6, 0.6, float(rng.uniform(0.4, 1.0))), 0.7)
            )
            front = 3.59 if side > 0 else -3.59
            sheet = (float(x) + 0.7, front, 0.8), (float(x) + 2.1, front, 1.9)
            solids.append(Solid("poster", "poster" if i % 2 else "marble", *sheet, 0, float(rng.uniform(1.0, 1.6))))
    return World(solids, Atlas(makers, seed), light=(-9.0, 1.0, 30.0))


def street_cameras(views: int, rng: np.random.Generator) -> Floats:
    """Down the street and back, looking ahead and to the side that is farther away."""
    i = np.arange(views) + rng.uniform(-0.2, 0.2, views)
    s = 2 * np.pi * i / views
    x, side = 0.46 * STREET * np.cos(s), np.where(np.sin(s) > 0, 1.0, -1.0)
    eye = np.stack([x, -1.2 * side, 1.5 + 0.2 * np.sin(3 * i)], axis=1)
    target = np.stack([x + 0.8 * np.cos(2.1 * i), 3.6 * side, 1.1 + 0.2 * np.cos(1.3 * i)], axis=1)
    return np.stack([look_at(a, b) for a, b in zip(eye, target, strict=True)])


SAMPLES = {
    sample.name: sample
    for sample in (
        Sample(
            "room",
            room,
            room_cameras,
            focal=0.82,
            hole=((1.95, -2.52, -0.02), (3.02, -1.55, 1.62)),
            floaters=((1.55, -1.0, 1.55), 0.09, 90, "poster"),
            exposed=(0.72, 1.22),
        ),
        Sample(
            "garden",
            garden,
            garden_cameras,
            focal=0.9,
            hole=((-0.17, -0.1, 0.715), (0.72, 0.42, 1.2)),
            floaters=((0.0, -1.25, 0.95), 0.08, 90, "table"),
        ),
        Sample(
            "street",
            street,
            street_cameras,
            focal=0.7,
            hole=((-2.0, 2.5, 0.0), (-0.8, 3.3, 1.2)),
            floaters=((7.6, 1.6, 1.3), 0.08, 90, "house"),
        ),
    )
}
