"""Extensions of a .spz: records of u32 type, u32 length and so many bytes; behind the data, or (version 4) before it.

Source: nianticlabs/spz, extensions/README.md and the list of coordinate systems in its splat-types.h (MIT).
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from lpm.checks import fail
from lpm.gaussians.similarity import Similarity

COORDINATES = 0xADBE0003
HARMLESS = {0xADBE0002}
"""A camera's limits, which say nothing about the picture."""
SYSTEMS = (
    "RUB", "LDB", "RDB", "LUB", "RUB", "LDF", "RDF", "LUF", "RUF", "LBD", "RBD", "LBU", "RBU", "LFD", "RFD", "LFU",
    "RFU",
)  # fmt: skip
"""Where x, y and z point, by number; 0 stands for the format's own, right up back."""
DIRECTIONS = {"R": (1, 0, 0), "L": (-1, 0, 0), "D": (0, 1, 0), "U": (0, -1, 0), "F": (0, 0, 1), "B": (0, 0, -1)}
"""In the axes of a PLY: right, down, front."""


def to_ply_axes(system: str) -> Similarity:
    """From the axes of `system`, such as RUB, to right, down, front; half of the systems are mirrored."""
    return Similarity(np.array([DIRECTIONS[letter] for letter in system], np.float64).T, np.zeros(3), 1.0)


def coordinates(system: str) -> bytes:
    """The record that says that x, y and z point as in `system`, such as LUF."""
    return struct.pack("<III", COORDINATES, 4, SYSTEMS.index(system))


def read_extensions(path: Path, data: bytes) -> tuple[str | None, list[str]]:
    """The coordinate system that the records in `data` name, if any, and a line for each that is passed over.

    Raises:
        LpmError: a coordinate system that nobody knows.
    """
    system, notes, at = None, list[str](), 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<II", data, at)
        payload, at = data[at + 8 : at + 8 + size], at + 8 + size
        if len(payload) < size:
            notes.append(f"extension {kind:#010x} is cut off, and passed over")
        elif kind == COORDINATES and size >= 4:
            number = struct.unpack_from("<I", payload)[0]
            if number >= len(SYSTEMS):
                fail(path, f"coordinate system {number}", f"0 to {len(SYSTEMS) - 1}", "export it again without one")
            system = SYSTEMS[number]
        elif kind not in HARMLESS:
            notes.append(f"extension {kind:#010x} is not known, and passed over")
    return system, notes
