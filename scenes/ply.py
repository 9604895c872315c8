"""Reading and writing coloured points as PLY."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from plyfile import PlyData, PlyElement, PlyParseError

from lpm.checks import fail
from lpm.scenes.scene import Floats, Points

FAR = 16
"""Times its own size that points lie from the origin: float32 then knows steps of a millionth of that size."""


def read_points(path: Path) -> Points:
    """Points of the PLY at `path`: x y z, and red green blue where present (else grey).

    Raises:
        LpmError: no such file, or not a PLY of points.
    """
    remedy = "export the points again, or remove ply_file_path from transforms.json to start from random points"
    if not path.is_file():
        fail(path, "no such file", "the points that transforms.json names in ply_file_path", remedy)
    try:
        _check_counts(path)
        vertex = PlyData.read(str(path))["vertex"]
        xyz = np.stack([np.asarray(vertex[axis], dtype=np.float64) for axis in "xyz"], axis=1)
    except (PlyParseError, LookupError, TypeError, ArithmeticError, ValueError, OSError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        fail(path, f"cannot be read ({reason})", "a PLY file with vertices x y z", remedy)
    names = {prop.name for prop in vertex.properties}
    rgb = np.full((len(xyz), 3), 128, np.uint8)
    for prefix in ("", "diffuse_"):
        if {prefix + "red", prefix + "green", prefix + "blue"} <= names:
            color = np.stack([np.asarray(vertex[prefix + c]) for c in ("red", "green", "blue")], axis=1)
            if color.dtype.kind == "f":  # some tools write colours as 0..1
                color = np.clip(np.nan_to_num(color) * 255 + 0.5, 0, 255)
            elif color.dtype == np.uint16:
                color = color // 257
            rgb = color.astype(np.uint8)
            break
    return Points(xyz, rgb, path)


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
