"""Things that move, drawn from a generator: rigid ones, chains that bend, figures with limbs that swing. Metres, z up.

Each is made of spheres and boxes that move without turning, so where any point of its surface is at another time is
known exactly, and so is the optical flow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lpm.scenes.samples.palettes import THINGS
from lpm.scenes.samples.places import any_of
from lpm.scenes.samples.textures import Rng
from lpm.scenes.samples.trace import Solid
from lpm.scenes.scene import Floats

KINDS = ("ball", "box", "stack", "worm", "reed", "figure")
"""worm: a chain that bends as it goes; reed: one whose foot stands still; figure: swings its arms and legs."""
PATHS = ("line", "hop", "circle", "pause")
"""line: there and back at one speed; hop: the same, bouncing; pause: begins and ends at rest."""
SLIM = {"figure": 0.5, "worm": 0.65}
"""Half the depth (along y) of those that are less deep than their size, as a share of it: they may be larger."""
LINKS = 7
"""Spheres of a worm or reed; a limb of a figure has four."""


@dataclass(frozen=True)
class Path:
    """Where the middle of a mover is at each time (0..1)."""

    kind: str
    start: tuple[float, float, float]
    heading: tuple[float, float, float]
    """Unit vector."""
    reach: float
    """Length of its line before it turns back, or radius of its circle."""
    metres: float
    """How far it goes, without its hops."""

    def at(self, t: float) -> Floats:
        """[3] the place at time `t`."""
        gone = self.metres * (t * t * (3 - 2 * t) if self.kind == "pause" else t)
        start, heading = np.array(self.start), np.array(self.heading)
        if self.kind == "circle":
            turn = gone / self.reach
            place: Floats = start + self.reach * (np.sin(turn) * heading + np.array([0.0, 0.0, 1 - np.cos(turn)]))
            return place
        along = self.reach - abs(gone % (2 * self.reach) - self.reach)  # there and back
        hop = 0.35 * abs(np.sin(np.pi * gone / 0.5)) if self.kind == "hop" else 0.0
        place = start + along * heading + np.array([0.0, 0.0, hop])
        return place


@dataclass(frozen=True)
class Mover:
    """One thing that moves."""

    name: str
    kind: str
    textures: tuple[str, str]
    size: float
    """About half of its extent."""
    path: Path
    swings: float
    """How often it bends or swings in the clip."""
    amplitude: float
    """How far: radians of a limb; of a chain, its length's share."""
    there: tuple[float, float]
    """The first and the last time at which it is there."""

    def is_there(self, t: float) -> bool:
        """Whether it is in the scene at time `t`."""
        return self.there[0] <= t <= self.there[1]

    def solids(self, t: float) -> list[Solid]:
        """Its parts at time `t`, always as many in the same order, wherever it is_there."""
        middle, turn = self.path.at(t), 2 * np.pi * self.swings * t
        parts = {"ball": self._ball, "box": self._box, "stack": self._stack, "worm": self._worm, "reed": self._reed,
                 "figure": self._figure}[self.kind]  # fmt: skip
        return parts(middle, float(turn))

    def _sphere(self, centre: Floats, radius: float, which: int = 0) -> Solid:
        x, y, z = (float(v) for v in centre)
        return Solid(self.name, self.textures[which], (x, y, z), None, radius * self.size, 0.5)

    def _block(self, centre: Floats, half: tuple[float, float, float], which: int = 0) -> Solid:
        low = tuple(float(c - self.size * h) for c, h in zip(centre, half, strict=True))
        high = tuple(float(c + self.size * h) for c, h in zip(centre, half, strict=True))
        return Solid(self.name, self.textures[which], low, high, 0.0, 1.7 * self.size)  # type: ignore[arg-type]

    def _ball(self, middle: Floats, turn: float) -> list[Solid]:
        return [self._sphere(middle, 1.0)]

    def _box(self, middle: Floats, turn: float) -> list[Solid]:
        return [self._block(middle, (0.9, 0.7, 0.8))]

    def _stack(self, middle: Floats, turn: float) -> list[Solid]:
        up = np.array([0.0, 0.0, self.size])
        return [self._block(middle - 0.45 * up, (0.8, 0.7, 0.45)), self._sphere(middle + 0.45 * up, 0.5, 1)]

    def _worm(self, middle: Floats, turn: float) -> list[Solid]:
        along = np.arange(LINKS) - (LINKS - 1) / 2
        wave = self.amplitude * self.size * np.sin(turn + 0.6 * along)
        return [
            self._sphere(middle + np.array([0.34 * self.size * a, 0.3 * w, w]), 0.34, i % 2)
            for i, (a, w) in enumerate(zip(along, wave, strict=True))
        ]

    def _reed(self, middle: Floats, turn: float) -> list[Solid]:
        foot, lean = np.array(self.path.start) * (1, 1, 0), self.amplitude * np.sin(turn)
        step, place, found = 0.42 * self.size, foot + np.array([0.0, 0.0, 0.33 * self.size]), []
        for i in range(LINKS):
            found.append(self._sphere(place, 0.34 - 0.02 * i, i % 2))
            bend = lean * (i + 1) / LINKS
            place = place + step * np.array([np.sin(bend), 0.3 * np.sin(bend), np.cos(bend)])
        return found

    def _figure(self, middle: Floats, turn: float) -> list[Solid]:
        s, swing = self.size, self.amplitude * np.sin(turn)
        found = [self._sphere(middle + np.array([0, 0, 0.95 * s]), 0.24, 1)]
        found += [self._sphere(middle + np.array([0, 0, z * s]), 0.3) for z in (0.45, 0.2, 0.0)]
        for joint, side, which, sign in ((0.55, 0.36, 1, 1.0), (-0.1, 0.16, 0, -1.0)):
            for y in (-side, side):
                angle = sign * swing * np.sign(y)
                place = middle + np.array([0.0, y * s, joint * s])
                for i in range(4):
                    found.append(self._sphere(place, 0.13, which))
                    bend = angle + 0.5 * (1 - np.cos(turn)) * self.amplitude * (i > 1) * sign  # elbows and knees
                    place = place + 0.22 * s * np.array([np.sin(bend), 0.0, -np.cos(bend)])
        return found


def draw_movers(rng: Rng, count: int, size: float, wide: float) -> list[Mover]:
    """`count` movers of about `size`, one behind the other, so that none goes through another.

    Args:
        wide: half the width of what they move in; it is from y = -.8 to .9 and from the ground to 1.7 m high.
    """
    lane, found = 1.7 / count, []
    for i, place in enumerate(rng.permutation(count)):
        kind = KINDS[int(rng.integers(len(KINDS)))]
        own = min(float(size * rng.uniform(0.75, 1.25)), 0.45 * lane) / SLIM.get(kind, 1.0)
        own, amplitude = min(own, 0.8), float(rng.uniform(0.4, 0.9))
        metres = float(0.3 * (3.0 / 0.3) ** rng.random())  # within a clip
        shape = PATHS[int(rng.integers(len(PATHS)))] if kind not in ("worm", "figure") else "line"
        reach = min(metres, float(rng.uniform(0.6, 1.0)) * 2 * wide)
        if shape == "circle":
            reach = float(rng.uniform(0.2, 0.4))
        if kind == "reed":
            metres = 0.0
        flip = float(rng.choice([-1.0, 1.0]))
        climb = 0.0 if kind == "figure" or shape == "circle" else float(rng.uniform(-0.25, 0.25))
        heading = np.array([flip, 0.2 * float(rng.uniform(-1, 1)) * lane, climb])
        heading /= np.linalg.norm(heading)
        # The middle of its way is near the middle of the scene, and no part of it is below the ground.
        x = -flip * reach / 2 * (shape != "circle") + float(rng.uniform(-0.3, 0.3)) * wide
        sole = {"figure": 0.95, "worm": 0.34 + amplitude}.get(kind, 1.0) * own
        z = sole + (0.0 if kind == "figure" else float(rng.uniform(0.1, 0.8)) + max(0.0, -climb * reach))
        first, last = float(rng.uniform(0.05, 0.4)), float(rng.uniform(0.6, 0.95))
        found.append(
            Mover(
                name=f"mover{i}",
                kind=kind,
                textures=(any_of(rng, THINGS), any_of(rng, THINGS)),
                size=own,
                path=Path(shape, (x, -0.8 + lane * (float(place) + 0.5), z), tuple(heading.tolist()), reach, metres),
                swings=float(rng.uniform(0.7, 2.5)),
                amplitude=amplitude,
                there=(first, last) if rng.random() < 0.25 else (0.0, 1.0),
            )
        )
    return found
