"""Reading and writing coloured points as PLY."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from plyfile import PlyData, PlyElement, PlyParseError

from lpm.checks import fail
from lpm.scenes.scene import Floats, Points

COLORS = (
    ("red", "green", "blue"), ("diffuse_red", "diffuse_green", "diffuse_blue"), ("r", "g", "b"),
    ("f_dc_0", "f_dc_1", "f_dc_2"),
)  # fmt: skip
SH_CONSTANT = 0.28209479177387814
"""The first of the spherical harmonics, 1 / (2 sqrt(pi))."""
FAR = 16
"""Times its own size that points lie from the origin: float32 then knows steps of a millionth of that size."""


def read_points(path: Path) -> Points:
    """Points of the PLY at `path`: x y z, and red green blue where present (else grey), whatever their types.

    Raises:
        LpmError: no such file, or not a PLY of points.
    """
    remedy = "export the points again, or remove ply_file_path from transforms.json to start from random points"
    if not path.is_file():
        fail(path, "no such file", "the points that transforms.json names in ply_file_path", remedy)
    try:
        _check_counts(path)
        elements = PlyData.read(str(path)).elements
        vertex = next(e for e in elements if {"x", "y", "z"} <= {p.name.lower() for p in e.properties})
        columns = {p.name.lower(): np.asarray(vertex[p.name]) for p in vertex.properties}
        xyz = np.stack([columns[axis].astype(np.float64) for axis in "xyz"], axis=1)
        rgb = _colors(columns, len(xyz))
    except (PlyParseError, LookupError, TypeError, ArithmeticError, ValueError, OSError, StopIteration) as error:
        reason = (str(error) or "no vertices x y z").splitlines()[0]
        fail(path, f"cannot be read ({reason})", "a PLY file with vertices x y z", remedy)
    return Points(xyz, rgb, path)


def _colors(columns: dict[str, NDArray[Any]], count: int) -> NDArray[np.uint8]:
    """[count, 3] colours from a PLY's `columns`; grey where there are none.

    Whole numbers are 0..255 or, where any is larger, 0..65535. Others are 0..1, 0..255 where any is above 1, or
    0..65535. Gaussians have the constant of their spherical harmonics.
    """
    for names in COLORS:
        if not all(name in columns for name in names):
            continue
        given = np.stack([columns[name] for name in names], axis=1)
        if given.dtype == np.int8:  # PLY's char; those above 127 are negative
            given = given.view(np.uint8)
        color = np.nan_to_num(given.astype(np.float64), posinf=0, neginf=0)
        top = color.max(initial=0)
        if names[0] == "f_dc_0":
            color = 255 * (0.5 + SH_CONSTANT * color)
        elif top > 255.5:
            color = color * (255 / 65535)
        elif given.dtype.kind == "f" and top <= 1:
            color = color * 255
        return np.asarray((color + 0.5).clip(0, 255).astype(np.uint8))
    return np.full((count, 3), 128, np.uint8)


def vertices(path: Path) -> int | None:
    """How many points the PLY at `path` says that it has, from its header alone; None where it says none."""
    with path.open("rb") as file:
        found = re.search(rb"element\s+vertex\s+(\d+)", file.read(1 << 16))
    return int(found[1]) if found else None


def _check_counts(path: Path) -> None:
    """Raises ValueError if the header tells of more rows than the file has bytes: room would be made for them."""
    size = path.stat().st_size
    with path.open("rb") as file:
        for line in file.read(min(size, 1 << 16)).split(b"end_header")[0].splitlines():
            words = line.split()
            if words[:1] == [b"element"] and words[-1].isdigit() and int(words[-1]) > size:
                raise ValueError(f"{words[-1].decode()} rows in a file of {size} bytes")


def write_points(path: Path, xyz: Floats, rgb: NDArray[np.uint8]) -> None:
    """Writes `xyz` [N, 3] and `rgb` [N, 3] (0..255) as a binary PLY; positions are float32 where that is enough.

    Far from the origin, as in a national grid, they are doubles: float32 would set them on a lattice.
    """
    wide = len(xyz) > 0 and np.abs(xyz).max() > FAR * np.ptp(xyz, axis=0).max()
    fields = [(c, "<f8" if wide else "<f4") for c in "xyz"] + [(c, "u1") for c in ("red", "green", "blue")]
    rows = np.empty(len(xyz), dtype=fields)
    for i, axis in enumerate("xyz"):
        rows[axis] = xyz[:, i]
    for i, channel in enumerate(("red", "green", "blue")):
        rows[channel] = rgb[:, i]
    PlyData([PlyElement.describe(rows, "vertex")], byte_order="<").write(str(path))
