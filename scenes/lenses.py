"""Where a lens draws what it sees: COLMAP's camera models, and equirectangular photos, as equations.

Source: the models' definitions in COLMAP's documentation (https://colmap.github.io/cameras.html and the comments of
src/colmap/sensor/models.h). Axes are OpenCV's: x right, y down, z forward; the corner of the image is (0, 0).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Pair = tuple[Floats, Floats]

# COLMAP's number of a model -> its name and the names of its parameters.
MODELS = {
    0: ("SIMPLE_PINHOLE", "f cx cy"),
    1: ("PINHOLE", "fx fy cx cy"),
    2: ("SIMPLE_RADIAL", "f cx cy k1"),
    3: ("RADIAL", "f cx cy k1 k2"),
    4: ("OPENCV", "fx fy cx cy k1 k2 p1 p2"),
    5: ("OPENCV_FISHEYE", "fx fy cx cy k1 k2 k3 k4"),
    6: ("FULL_OPENCV", "fx fy cx cy k1 k2 p1 p2 k3 k4 k5 k6"),
    7: ("FOV", "fx fy cx cy omega"),
    8: ("SIMPLE_RADIAL_FISHEYE", "f cx cy k1"),
    9: ("RADIAL_FISHEYE", "f cx cy k1 k2"),
    10: ("THIN_PRISM_FISHEYE", "fx fy cx cy k1 k2 p1 p2 k3 k4 sx1 sy1"),
    11: ("RAD_TAN_THIN_PRISM_FISHEYE", "fx fy cx cy k0 k1 k2 k3 k4 k5 p0 p1 s0 s1 s2 s3"),
    12: ("SIMPLE_DIVISION", "f cx cy k1"),
    13: ("DIVISION", "fx fy cx cy k1"),
    14: ("SIMPLE_FISHEYE", "f cx cy"),
    15: ("FISHEYE", "fx fy cx cy"),
    16: ("EUCM", "fx fy cx cy alpha beta"),
    17: ("EQUIRECTANGULAR", "w h"),
}
NAMES = {name: told.split() for name, told in MODELS.values()}
"""Model -> the names of its parameters."""
CIRCLE = 95.0
"""Degrees; the corners of a picture without a black rim are at 90 or little more, by a lens of 180 across."""
STEPS, TURNS = 1800, 64
"""How finely it is looked where a lens stops to be one: angles from the axis, directions around it."""


def polynomial(square: Floats, *factors: float) -> Floats:
    """factors[0] square + factors[1] square^2 + ..., by Horner's rule."""
    total = np.zeros_like(square)
    for factor in reversed(factors):
        total = (total + factor) * square
    return total


def tangential(u: Floats, v: Floats, p1: float, p2: float) -> Pair:
    """What a lens that is not centred adds."""
    square = u * u + v * v
    return 2 * p1 * u * v + p2 * (square + 2 * u * u), 2 * p2 * u * v + p1 * (square + 2 * v * v)


def brown(u: Floats, v: Floats, k1: float = 0, k2: float = 0, p1: float = 0, p2: float = 0, *more: float) -> Pair:
    """SIMPLE_RADIAL, RADIAL, OPENCV and (with k3..k6 in `more`) FULL_OPENCV; u, v are x / z, y / z."""
    square = u * u + v * v
    radial = 1 + polynomial(square, k1, k2, *more[:1])
    if more:
        radial = radial / (1 + polynomial(square, *more[1:]))
    du, dv = tangential(u, v, p1, p2)
    return u * radial + du, v * radial + dv


def field_of_view(u: Floats, v: Floats, omega: float) -> Pair:
    """FOV, of Devernay and Faugeras (2001)."""
    radius = np.hypot(u, v)
    if abs(omega) < 1e-4:  # its limit, where the formula is 0 / 0
        factor = 1 + omega * omega * (radius * radius / 3 - 1 / 12)
    else:
        wide = 2 * math.tan(omega / 2)
        safe = np.maximum(radius, 1e-9)
        factor = np.where(radius < 1e-6, wide / omega, np.arctan(safe * wide) / (safe * omega))
    return u * factor, v * factor


def fisheye(u: Floats, v: Floats, *k: float) -> Pair:
    """The fisheyes without more; u, v have the length of the angle from the axis (Kannala and Brandt, 2006)."""
    factor = 1 + polynomial(u * u + v * v, *k)
    return u * factor, v * factor


def thin_prism(u: Floats, v: Floats, k1: float, k2: float, p1: float, p2: float, *more: float) -> Pair:
    """THIN_PRISM_FISHEYE; u, v as of `fisheye`, `more` is k3, k4, sx1, sy1."""
    square = u * u + v * v
    radial = 1 + polynomial(square, k1, k2, *more[:2])
    du, dv = tangential(u, v, p1, p2)
    return u * radial + du + more[2] * square, v * radial + dv + more[3] * square


def rad_tan_thin_prism(u: Floats, v: Floats, *values: float) -> Pair:
    """RAD_TAN_THIN_PRISM_FISHEYE (Project Aria's); u, v as of `fisheye`, `values` are k0..k5, p0, p1, s0..s3."""
    u, v = fisheye(u, v, *values[:6])
    du, dv = tangential(u, v, values[7], values[6])
    square, s = u * u + v * v, values[8:]
    return u + du + polynomial(square, s[0], s[1]), v + dv + polynomial(square, s[2], s[3])


Curve = Callable[..., Pair]
FLAT: dict[str, Curve] = {
    "SIMPLE_PINHOLE": brown, "PINHOLE": brown, "SIMPLE_RADIAL": brown, "RADIAL": brown, "OPENCV": brown,
    "FULL_OPENCV": brown, "FOV": field_of_view,
}  # fmt: skip
"""Models of x / z, y / z: of what is in front of the camera."""
ROUND: dict[str, Curve] = {
    "OPENCV_FISHEYE": fisheye, "SIMPLE_RADIAL_FISHEYE": fisheye, "RADIAL_FISHEYE": fisheye, "SIMPLE_FISHEYE": fisheye,
    "FISHEYE": fisheye, "THIN_PRISM_FISHEYE": thin_prism, "RAD_TAN_THIN_PRISM_FISHEYE": rad_tan_thin_prism,
}  # fmt: skip
"""Models of the angle from the axis, which may be more than 90 degrees."""


@dataclass(frozen=True)
class Lens:
    """A camera that is no pinhole: COLMAP's name of its model, that model's parameters, (width, height) in pixels."""

    model: str
    params: tuple[float, ...]
    size: tuple[int, int]

    def draws(self, rays: Floats) -> Floats:
        """Pixels [..., 2] where the model draws `rays` [..., 3] of any length; NaN where it says nothing.

        Beyond `limit` its numbers say nothing either; see `sees`.
        """
        x, y, z = np.moveaxis(np.asarray(rays, np.float64), -1, 0)
        if self.model == "EQUIRECTANGULAR":
            width, height = self.params
            turn, rise = np.arctan2(x, z), np.arctan2(y, np.hypot(x, z))
            return np.stack([(turn / (2 * math.pi) + 0.5) * width, (rise / math.pi + 0.5) * height], -1)
        simple = NAMES[self.model][0] == "f"
        fx, fy, cx, cy = self.params[0:1] * simple + self.params[: 4 - simple]
        curve = self.params[4 - simple :]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            if self.model in ROUND:
                across = np.hypot(x, y)
                scale = np.where(across > 0, np.arctan2(across, z) / np.where(across > 0, across, 1), 0)
                u, v = ROUND[self.model](x * scale, y * scale, *curve)
            else:
                depth, square = z, x * x + y * y
                if self.model == "EUCM":  # Khomutenko and others (2016)
                    depth = curve[0] * np.sqrt(curve[1] * square + z * z) + (1 - curve[0]) * z
                elif "DIVISION" in self.model:  # Fitzgibbon (2001): x / z = u / (1 + k1 (u^2 + v^2))
                    depth = (z + np.sqrt(z * z - 4 * curve[0] * square)) / 2
                depth = np.where(depth > 1e-9, depth, np.nan)
                u, v = x / depth, y / depth
                if self.model in FLAT:
                    u, v = FLAT[self.model](u, v, *curve)
            return np.stack([fx * u + cx, fy * v + cy], -1)

    @cached_property
    def limit(self) -> float:
        """The angle from the axis, radians, up to which what is farther out is drawn farther out.

        A polynomial that was fitted to a picture turns back somewhere; beyond, one pixel stands for two directions.
        And where the corners of the image would be more than `CIRCLE` from the axis, the lens throws a circle onto it
        that is black around: what is then farther than the edges' middles is not used.
        """
        if self.model == "EQUIRECTANGULAR":
            return math.pi
        angle = np.linspace(0, math.pi, STEPS + 1)[:-1, None]
        turn = np.arange(TURNS) * (2 * math.pi / TURNS)
        rays = np.stack([np.sin(angle) * np.cos(turn), np.sin(angle) * np.sin(turn), np.cos(angle) + 0 * turn], -1)
        drawn = self.draws(rays)
        away = np.linalg.norm(drawn - drawn[0], axis=-1)
        with np.errstate(invalid="ignore"):
            grows = (np.diff(away, axis=0) > 0).all(1)
            inside = ((drawn >= 0) & (drawn <= self.size)).all(-1)
        last = len(grows) if grows.all() else int(grows.argmin())
        inside[last + 1 :] = False
        reach = np.where(inside.all(0), last, inside.argmin(0) - 1)  # in each direction
        if angle[reach.max(), 0] > math.radians(CIRCLE):
            last = min(last, int(0.99 * reach[:: TURNS // 4].max()))  # the rim itself is half black
        return float(angle[last, 0])

    def sees(self, rays: Floats) -> tuple[Floats, NDArray[np.bool_]]:
        """`draws(rays)` [..., 2], and whether that is in the image and within `limit` [...]."""
        pixels, rays = self.draws(rays), np.asarray(rays, np.float64)
        angle = np.arctan2(np.hypot(rays[..., 0], rays[..., 1]), rays[..., 2])
        with np.errstate(invalid="ignore"):
            there = ((pixels >= 0) & (pixels <= self.size)).all(-1) & (angle <= self.limit)
        return pixels, there

    def folds(self) -> bool:
        """Whether a model of FLAT turns back within the image: its outer pixels are then of no direction."""
        away = np.linspace(0, 4 * math.hypot(*self.size) / self.params[0], 400)[:, None]
        turn = np.arange(16) * (math.pi / 8)
        drawn = self.draws(np.stack([away * np.cos(turn), away * np.sin(turn), 1 + 0 * away * turn], -1))
        with np.errstate(invalid="ignore"):
            back = np.diff(np.linalg.norm(drawn - drawn[0], axis=-1), axis=0) <= 0
            first = drawn[back.argmax(0), np.arange(16)]
            return bool((back.any(0) & ((first >= 0) & (first <= self.size)).all(-1)).any())

    def rays(self, pixels: Floats) -> Floats:
        """Directions [..., 3], of length 1, of `pixels` [..., 2], by a lens that bends alike all around.

        For the samples: EQUIRECTANGULAR and the fisheyes without thin prisms, up to `limit`.
        """
        x, y = np.moveaxis(np.asarray(pixels, np.float64), -1, 0)
        if self.model == "EQUIRECTANGULAR":
            turn, rise = (x / self.params[0] - 0.5) * 2 * math.pi, (y / self.params[1] - 0.5) * math.pi
            return np.stack([np.sin(turn) * np.cos(rise), np.sin(rise), np.cos(turn) * np.cos(rise)], -1)
        assert ROUND[self.model] is fisheye
        simple = NAMES[self.model][0] == "f"
        fx, fy, cx, cy = self.params[0:1] * simple + self.params[: 4 - simple]
        u, v = (x - cx) / fx, (y - cy) / fy
        radius = np.hypot(u, v)
        angle = np.linspace(0, self.limit, 20_001)
        drawn = fisheye(angle, np.zeros_like(angle), *self.params[4 - simple :])[0]
        found = np.interp(radius, drawn, angle)
        across = np.where(radius > 0, np.sin(found) / np.where(radius > 0, radius, 1), 1)
        return np.stack([u * across, v * across, np.cos(found)], -1)

    def focal(self) -> tuple[float, float]:
        """Pixels across and down for a radian at the axis."""
        rays = np.array([[1e-4, 0, 1], [-1e-4, 0, 1], [0, 1e-4, 1], [0, -1e-4, 1]])
        x, y = (self.draws(rays)[[0, 2]] - self.draws(rays)[[1, 3]]).diagonal() / 2e-4
        return float(x), float(y)

    def scaled(self, scale: float) -> Lens:
        """The lens of a picture of `scale` times the size (rounded down, as training does)."""
        params = tuple(
            value * scale if name in ("f", "fx", "fy", "cx", "cy", "w", "h") else value
            for name, value in zip(NAMES[self.model], self.params, strict=True)
        )
        return Lens(self.model, params, (int(self.size[0] * scale), int(self.size[1] * scale)))
