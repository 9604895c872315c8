"""A small ray tracer for the sample scenes: boxes and spheres, one light, one glass pane; vectorised over rays.

Rays are unnormalised with a unit step along the camera's axis, so the ray parameter *is* the z-depth.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lpm.scenes.lenses import Lens
from lpm.scenes.samples.textures import Atlas
from lpm.scenes.scene import Floats

FAR = 1e9
BLOCK = 96  # pixels a side that are traced at once: small enough for the cache, and for most solids to be outside


@dataclass
class Solid:
    """An axis-aligned box (a rectangle, if one side is zero) or a sphere; world units."""

    name: str
    texture: str
    low: tuple[float, float, float]
    """Lower corner of the box; centre of the sphere."""
    high: tuple[float, float, float] | None = None
    """Upper corner of the box; None for a sphere."""
    radius: float = 0.0
    repeat: float = 1.0
    """World units per repeat of the texture on a box; on a sphere, the texture goes around 1/repeat times."""
    region: str = ""
    """A name shared by the parts of one thing, such as "rails"."""
    glow: bool = False
    """Shown unlit, as a background is; also seen from inside, if it is a sphere."""
    shine: float = 0.0
    """Strength of a view-dependent highlight, 0..1."""

    def distance(self, points: Floats) -> Floats:
        """[N] distance of `points` [N, 3] to the surface."""
        if self.high is None:
            away: Floats = np.abs(np.linalg.norm(points - np.array(self.low), axis=1) - self.radius)
            return away
        low, high = np.array(self.low), np.array(self.high)
        outside = np.maximum(np.maximum(low - points, points - high), 0.0)
        inside = np.minimum(points - low, high - points).min(1)
        return np.where((outside > 0).any(1), np.linalg.norm(outside, axis=1), np.maximum(inside, 0.0))


@dataclass
class Pane:
    """An upright rectangle of glass: lets most light through, mirrors the rest."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    mirror: float = 0.18
    tint: tuple[float, float, float] = (0.86, 0.93, 0.9)


@dataclass
class World:
    """Everything that rays can meet."""

    solids: list[Solid]
    atlas: Atlas
    light: tuple[float, float, float]
    """Where the light is."""
    ambient: float = 0.6
    """The share of light that shadow does not take."""
    pane: Pane | None = None
    exposure: float = 1.25
    """Brightness of what is lit."""
    detail: float = 0.3
    """Strength of the fine grain over every texture."""
    low: Tensor = field(init=False)
    high: Tensor = field(init=False)

    def __post_init__(self) -> None:
        reach = [s.radius for s in self.solids]
        self.box_low = np.array([s.low for s in self.solids]) - np.array(reach)[:, None]
        self.box_high = np.array([s.high or s.low for s in self.solids]) + np.array(reach)[:, None]
        self.low = torch.tensor([s.low for s in self.solids])
        self.high = torch.tensor([s.high or s.low for s in self.solids])
        self.radius = torch.tensor([s.radius for s in self.solids])
        self.repeat = torch.tensor([s.repeat for s in self.solids])
        self.glow = torch.tensor([s.glow for s in self.solids])
        self.shine = torch.tensor([s.shine for s in self.solids])
        self.texture = torch.tensor([self.atlas.index(s.texture) for s in self.solids])

    def near_box(self, low: Floats, high: Floats) -> list[int]:
        """The solids whose bounding boxes touch the box from `low` to `high`."""
        found: list[int] = np.flatnonzero(((self.box_low <= high) & (self.box_high >= low)).all(1)).tolist()
        return found

    def in_frustum(self, c2w: Floats, left: float, right: float, bottom: float, top: float) -> list[int]:
        """The solids that may be seen from `c2w` within these slopes (x/depth and y/depth, camera axes of OpenGL)."""
        steps = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1]), -1).reshape(8, 1, 3)
        corners = self.box_low + steps * (self.box_high - self.box_low)
        x, y, back = np.moveaxis((corners - c2w[:3, 3]) @ c2w[:3, :3], -1, 0)
        # A box is outside if all its corners are outside of one side of the pyramid.
        sides = [x < -left * back, x > -right * back, y < -bottom * back, y > -top * back, back > 0]
        found: list[int] = np.flatnonzero(~np.any([side.all(0) for side in sides], axis=0)).tolist()
        return found

    def distance(self, points: Floats) -> Floats:
        """[N] distance of `points` [N, 3] to the nearest surface."""
        nearest: Floats = np.min([solid.distance(points) for solid in self.solids], axis=0)
        return nearest


Vec = tuple[Tensor, Tensor, Tensor]


def dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def slabs(low: Sequence[float], high: Sequence[float], origin: Vec, inverse: Vec) -> tuple[Tensor, Tensor]:
    """Where rays enter and leave an axis-aligned box, as ray parameters [R]; entering > leaving is a miss."""
    enter, leave = None, None
    for axis in range(3):
        a = (low[axis] - origin[axis]) * inverse[axis]
        b = (high[axis] - origin[axis]) * inverse[axis]
        near, far = torch.minimum(a, b), torch.maximum(a, b)
        enter = near if enter is None else torch.maximum(enter, near)
        leave = far if leave is None else torch.minimum(leave, far)
    assert enter is not None
    assert leave is not None
    return enter, leave


def cast(
    world: World, origin: Vec, direction: Vec, among: list[int] | None = None, start: float = 1e-3
) -> tuple[Tensor, Tensor]:
    """First hit of rays with the solids `among` (None: all): parameter [R], FAR if none, and the solid's number [R]."""
    inverse = tuple(1.0 / torch.where(d.abs() < 1e-9, torch.full_like(d, 1e-9), d) for d in direction)
    best = torch.full_like(direction[0], FAR)
    number = torch.zeros_like(best, dtype=torch.int64)
    square = dot(direction, direction)
    for i in range(len(world.solids)) if among is None else among:
        solid = world.solids[i]
        if solid.high is not None:
            at, leave = slabs(solid.low, solid.high, origin, inverse)  # type: ignore[arg-type]
            hit = (at <= leave) & (at > start) & (at < best)
        else:
            offset = tuple(o - c for o, c in zip(origin, solid.low, strict=True))
            half = dot(offset, direction)
            root = half * half - square * (dot(offset, offset) - solid.radius**2)
            step = root.clamp(0).sqrt()
            at = (-half + (step if solid.glow else -step)) / square
            hit = (root > 0) & (at > start) & (at < best)
        best = torch.where(hit, at, best)
        number = torch.where(hit, i, number)
    return best, number


def shade(world: World, origin: Vec, direction: Vec, at: Tensor, number: Tensor, pixel: float) -> Tensor:
    """[R, 3] colours in 0..1 of the solids `number` met at parameter `at`; `pixel` is a ray's width at parameter 1."""
    o, d = torch.stack([x.expand_as(at) for x in origin], 1), torch.stack(direction, 1)
    point = o + at[:, None] * d
    low, high, radius = world.low[number], world.high[number], world.radius[number]
    sphere = radius > 0

    # The face of a box is the axis along which its slab was entered last; of a rectangle, that is its normal.
    steps = torch.where(d.abs() < 1e-9, torch.full_like(d, 1e-9), d)
    enter = torch.minimum((low - o) / steps, (high - o) / steps)
    face = enter.argmax(1)
    normal = torch.nn.functional.one_hot(face, 3).float()
    round_normal = (point - low) / radius.clamp(1e-9)[:, None]
    normal = torch.where(sphere[:, None], round_normal, normal)
    length = d.norm(dim=1)
    cosine = (normal * d).sum(1) / length
    normal = torch.where((cosine > 0)[:, None], -normal, normal)

    rows = torch.arange(len(at))
    first = torch.tensor([1, 0, 0])[face]
    second = torch.tensor([2, 2, 1])[face]
    turn = (face * 0.37 + number * 0.61) * (low != high).all(1)  # every face its own part of the texture
    u = (point[rows, first] - low[rows, first]) / world.repeat[number] + turn
    v = (point[rows, second] - low[rows, second]) / world.repeat[number] + turn
    around = torch.atan2(round_normal[:, 1], round_normal[:, 0]) / (2 * torch.pi) / world.repeat[number]
    above = torch.asin(round_normal[:, 2].clamp(-1, 1)) / torch.pi + 0.5
    u, v = torch.where(sphere, around, u), torch.where(sphere, above, v)
    unit = torch.where(sphere, torch.pi * radius, world.repeat[number])
    footprint = pixel * at * length / cosine.abs().clamp(0.25) / unit
    color = world.atlas.lookup(world.texture[number], u, v, footprint)
    grain = torch.full_like(number, world.atlas.index("grain"))
    fine = world.atlas.lookup(grain, u * 5.3, v * 5.3, footprint * 5.3)
    color = color * (1 + world.detail * (2 * fine - 1) * (~world.glow[number])[:, None])

    to_light = torch.tensor(world.light) - point
    lifted = point + 2e-3 * normal
    ends = torch.cat([lifted[at < FAR], torch.tensor([world.light])]).double().numpy()
    between = [i for i in world.near_box(ends.min(0), ends.max(0)) if not world.solids[i].glow]
    blocked, _ = cast(world, lifted.unbind(1), to_light.unbind(1), between, 1e-4)  # type: ignore[arg-type]
    lit = (blocked > 1.0).float()
    toward = torch.nn.functional.normalize(to_light, dim=1)
    diffuse = (normal * toward).sum(1).clamp(0) * lit
    light = world.ambient + (1 - world.ambient) * diffuse
    light = torch.where(world.glow[number], torch.ones_like(light), world.exposure * light)
    mirrored = d / length[:, None] - 2 * ((d * normal).sum(1) / length)[:, None] * normal
    highlight = world.shine[number] * (mirrored * toward).sum(1).clamp(0) ** 40 * lit
    shaded: Tensor = color * light[:, None] + highlight[:, None]
    return shaded


def seen(world: World, origin: Vec, direction: Vec, pixel: float, among: list[int]) -> Tensor:
    """[R, 3] colours along rays that can meet the solids `among`, through and mirrored in the pane."""
    at, number = cast(world, origin, direction, among)
    color = shade(world, origin, direction, at, number, pixel)
    if world.pane is None:
        return color
    glass = pane_hits(world, origin, direction, at).nonzero().flatten()
    if len(glass) == 0:
        return color
    axis = int(np.argmin(np.array(world.pane.high) - np.array(world.pane.low)))
    part: Vec = tuple(x[glass] for x in direction)  # type: ignore[assignment]
    reach = (world.pane.low[axis] - origin[axis]) / part[axis]
    start: Vec = tuple(o + reach * d for o, d in zip(origin, part, strict=True))  # type: ignore[assignment]
    back: Vec = tuple(-x if i == axis else x for i, x in enumerate(part))  # type: ignore[assignment]
    there, what = cast(world, start, back)
    mirrored = shade(world, start, back, there, what, 2 * pixel)
    share = world.pane.mirror
    color[glass] = (1 - share) * color[glass] * torch.tensor(world.pane.tint) + share * mirrored
    return color


def pane_hits(world: World, origin: Vec, direction: Vec, at: Tensor) -> Tensor:
    """[R] whether rays pass the pane before the solid that they meet at parameter `at`."""
    if world.pane is None:
        return torch.zeros_like(at, dtype=torch.bool)
    inverse: Vec = tuple(1.0 / torch.where(d.abs() < 1e-9, torch.full_like(d, 1e-9), d) for d in direction)  # type: ignore[assignment]
    enter, leave = slabs(world.pane.low, world.pane.high, origin, inverse)
    return (enter <= leave) & (enter > 1e-3) & (enter < at)


@dataclass
class Shot:
    """What one camera sees."""

    rgb: NDArray[np.float32]
    """[H, W, 3] float32, 0..1, 2x2 supersampled."""
    depth: NDArray[np.float32]
    """[H, W] float32 z-depth of the first solid at pixel centres, world units (through a lens that is no pinhole: its
    distance); glass is looked through."""
    solid: NDArray[np.int64]
    """[H, W] int64 the solid's number at pixel centres."""
    glass: NDArray[np.bool_]
    """[H, W] bool whether the pane is looked through."""


def shoot(world: World, c2w: Floats, camera: Floats | Lens, width: int, height: int) -> Shot:
    """Renders from `c2w` [4, 4] (OpenGL) with fx, fy, cx, cy in pixels, or a lens (depths are distances then)."""
    lens = camera if isinstance(camera, Lens) else None
    fx, fy, cx, cy = (float(x) for x in ((*camera.focal(), 0, 0) if isinstance(camera, Lens) else camera))
    turn = torch.from_numpy(c2w[:3, :3]).float()
    origin: Vec = tuple(torch.tensor(float(x)) for x in c2w[:3, 3])  # type: ignore[assignment]

    def rays(rows: Tensor, columns: Tensor) -> Vec:
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        if lens is not None:
            straight = lens.rays(torch.stack([x, y], -1).reshape(-1, 2).numpy()) * (1, -1, -1)
            return (torch.from_numpy(straight).float() @ turn.T).unbind(1)  # type: ignore[return-value]
        local = torch.stack([(x - cx) / fx, -(y - cy) / fy, -torch.ones_like(x)], -1).reshape(-1, 3)
        return (local @ turn.T).unbind(1)  # type: ignore[return-value]

    color, depth = np.empty((height, width, 3), np.float32), np.empty((height, width), np.float32)
    solid, glass = np.empty((height, width), np.int64), np.empty((height, width), bool)
    quarter = torch.tensor([0.25, 0.75])
    for top, left in itertools.product(range(0, height, BLOCK), range(0, width, BLOCK)):
        bottom, right = min(top + BLOCK, height), min(left + BLOCK, width)
        block = np.s_[top:bottom, left:right]
        rows, columns = torch.arange(top, bottom).float(), torch.arange(left, right).float()
        among = list(range(len(world.solids)))
        if lens is None:
            among = world.in_frustum(c2w, (left - cx) / fx, (right - cx) / fx, (cy - bottom) / fy, (cy - top) / fy)
        fine = rays((rows[:, None] + quarter).flatten(), (columns[:, None] + quarter).flatten())
        shades = seen(world, origin, fine, 0.5 / fx, among)
        color[block] = shades.reshape(len(rows), 2, len(columns), 2, 3).mean((1, 3)).numpy()
        middle = rays(rows + 0.5, columns + 0.5)
        at, number = cast(world, origin, middle, among)
        through = pane_hits(world, origin, middle, at)
        for whole, part in ((depth, at), (solid, number), (glass, through)):
            whole[block] = part.reshape(len(rows), len(columns)).numpy()
    return Shot(color, depth, solid, glass)
