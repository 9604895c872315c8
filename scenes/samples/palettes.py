"""Materials drawn from a seed: colours, walls with windows, and sets of textures for places that nobody laid out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from lpm.scenes.samples.textures import RGB, Pixels, Rng, bricks, darker, hazy, landscape, mix, noise, stained, tiles
from lpm.scenes.samples.worlds import COMMON

THINGS = ("crate", "crate2", "wood", "poster", "marble", "rust", "mosaic", "plain0", "plain1", "plain2")
"""Textures for things that stand around or move."""
WALLS = ("wall0", "wall1", "wall2", "brick")
"""Textures for walls indoors."""
FACADES = ("facade0", "facade1", "facade2", "brick")
"""Textures for walls outdoors."""


def tint(rng: Rng, low: float, high: float) -> RGB:
    """A colour of little saturation, about `low` to `high` (0..1) bright."""
    red, green, blue = (float(c) for c in rng.uniform(low, high) * rng.uniform(0.85, 1.1, 3))
    return red, green, blue


def vivid(rng: Rng) -> RGB:
    """A colour of any saturation, neither black nor white."""
    red, green, blue = (float(c) for c in rng.uniform(0.12, 0.88, 3))
    return red, green, blue


def facade(wall: RGB, frame: RGB, floors: int, columns: int) -> Callable[[Rng], Pixels]:
    """A wall of plaster with `floors` x `columns` windows a repeat, no two alike."""
    return partial(_facade, wall, frame, floors, columns)


def _facade(wall: RGB, frame: RGB, floors: int, columns: int, rng: Rng) -> Pixels:
    image = stained(wall, darker(wall, 0.72))(rng)
    size = len(image)
    for row in range(floors):
        for column in range(columns):
            h, w = (rng.uniform(*span) for span in ((0.5, 0.68), (0.4, 0.6)))
            top, left = int((row + 0.5 - h / 2) * size / floors), int((column + 0.5 - w / 2) * size / columns)
            tall, wide = int(h * size / floors), int(w * size / columns)
            part, rim = image[top : top + tall, left : left + wide], max(3, wide // 12)
            part[:] = frame
            glass = part[rim:-rim, rim:-rim]
            glass[:] = mix((0.1, 0.12, 0.15), (0.5, 0.58, 0.66), noise(rng, size)[: glass.shape[0], : glass.shape[1]])
            glass[:, (wide - 2 * rim) // 2 - rim // 2 : (wide - 2 * rim) // 2 + rim // 2 + 1] = frame
            glass[glass.shape[0] // 3 :: glass.shape[0] // 3] *= 0.4
    return image


def palette(rng: Rng) -> dict[str, Callable[[Rng], Pixels]]:
    """Makers of the textures COMMON, THINGS, WALLS and FACADES name, of a floor, ground, grass, hedge and a sky.

    A wall is patterned, stained or nearly plain: photos of the last kind match badly.
    """

    def surface(low: float, high: float) -> Callable[[Rng], Pixels]:
        base, kind = tint(rng, low, high), rng.integers(3)
        others = [tint(rng, low, high) for _ in range(3)]
        return (stained(base, others[0]), stained(base, darker(base, 0.9)), tiles([base, *others], 16, 0.05))[kind]

    return {
        **COMMON,
        **{f"wall{i}": surface(0.32, 0.68) for i in range(3)},
        **{f"plain{i}": stained(base, darker(base, 0.8)) for i, base in enumerate(vivid(rng) for _ in "abc")},
        **{f"facade{i}": facade(tint(rng, 0.45, 0.8), tint(rng, 0.3, 0.85), int(rng.integers(2, 4)),
                                int(rng.integers(3, 6))) for i in range(3)},
        "brick": bricks(tint(rng, 0.45, 0.65), 27),
        "floor": bricks(tint(rng, 0.35, 0.65), 15) if rng.random() < 0.5 else surface(0.4, 0.75),
        "ground": surface(0.4, 0.7),
        "grass": stained((0.36, 0.5, 0.2), (0.58, 0.54, 0.3)),
        "hedge": stained((0.16, 0.34, 0.14), (0.42, 0.55, 0.26)),
        "sky": landscape if rng.random() < 0.5 else hazy,
    }  # fmt: skip
