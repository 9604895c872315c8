"""Reader of PlayCanvas' compressed PLY, which SuperSplat writes: 16 bytes a Gaussian, in chunks of 256.

Element `chunk`: the least and the most of x y z, of the logarithms of the sizes, and (in later files) of r g b.
Element `vertex`, four words each, first component in the highest bits: packed_position and packed_scale 11-10-11 bits
between the chunk's bounds; packed_rotation two bits for which of w x y z is left out, then three of 10 bits over
+-1/sqrt(2); packed_color r g b a, 8 bits each. Optional element `sh`: a byte a coefficient, -4 to 4, all of red first.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lpm.checks import fail
from lpm.formats.bounds import check_some
from lpm.formats.bytes import Numbers, logit, sh0_params, smallest_three
from lpm.formats.ply_columns import BEYOND, REST
from lpm.formats.ply_header import Element, Header, read_header
from lpm.gaussians.spherical_harmonics import SH_C0

CHUNK_SIZE = 256
WORDS = ("packed_position", "packed_rotation", "packed_scale", "packed_color")


def is_compressed(header: Header) -> bool:
    """Whether a PLY is of this kind."""
    vertex = header.element("vertex")
    return vertex is not None and WORDS[0] in {name for name, _ in vertex.columns}


def read_compressed_ply(path: Path) -> dict[str, Tensor]:
    """Reads Gaussians from a compressed PLY.

    Returns:
        Parameters as in lpm.gaussians, float32.

    Raises:
        LpmError: no such file, not a compressed PLY, a column is missing, or its parts do not fit each other.
    """
    header = read_header(path)
    bounds = _table(header, "chunk", [f"{end}_{axis}" for end in ("min", "max") for axis in "xyz"])
    words = _table(header, "vertex", list(WORDS))
    n = len(words)
    check_some(path, n)
    if len(bounds) * CHUNK_SIZE < n:
        fail(path, f"{len(bounds):,} chunks for {n:,} Gaussians", "a chunk for each 256")
    names = bounds.dtype.names or ()
    if any(not np.isfinite(np.asarray(bounds[name], np.float64)).all() for name in names):
        fail(path, "a chunk with bounds that are not finite", "finite numbers", "export the file again")
    chunk = np.arange(n) // CHUNK_SIZE

    def between(values: Numbers, prefix: str, axes: str) -> NDArray[np.float32]:
        for name in (f"{end}_{prefix}{axis}" for end in ("min", "max") for axis in axes):
            if name not in names:
                fail(path, f"no column {name} in its chunks", "a compressed PLY")
        low, high = (
            np.stack([bounds[f"{end}_{prefix}{axis}"] for axis in axes], 1).astype(np.float32) for end in ("min", "max")
        )
        spread: NDArray[np.float32] = low[chunk] + values * (high - low)[chunk]
        return spread

    color = _unpack(words["packed_color"], (8, 8, 8, 8))
    rgb = between(color[:, :3], "", "rgb") if "min_r" in names else color[:, :3]
    rotation = words["packed_rotation"]
    three = (_unpack(rotation & np.uint32(0x3FFFFFFF), (10, 10, 10)) - 0.5) * np.sqrt(2.0)
    return sh0_params(
        means=between(_unpack(words["packed_position"], (11, 10, 11)), "", "xyz"),
        scales=between(_unpack(words["packed_scale"], (11, 10, 11)), "scale_", "xyz"),
        quats=smallest_three(three, (rotation >> np.uint32(30)).astype(np.int64)),
        features_dc=(rgb - 0.5) / SH_C0,
        opacities=logit(color[:, 3]),
        features_rest=_harmonics(header, n),
    )


def _harmonics(header: Header, n: int) -> NDArray[np.float32] | None:
    """features_rest [N, K-1, 3] of the element `sh`, where the file has one."""
    element = header.element("sh")
    if element is None or element.count == 0:
        return None
    rest, remainder = divmod(len(element.columns), 3)
    if rest not in (*REST, BEYOND) or remainder or element.count != n:
        fail(
            header.path,
            f"{element.count:,} rows of {len(element.columns)} SH coefficients for {n:,} Gaussians",
            "9, 24, 45 or 72 coefficients for each",
        )
    table = _table(header, "sh", [f"f_rest_{i}" for i in range(3 * rest)])
    values = np.stack([table[f"f_rest_{i}"] for i in range(3 * rest)], 1).astype(np.float32)
    # The bytes 0 and 255 stand for the ends themselves, the others for the middles of 256 steps.
    unit = np.where(values <= 0, 0, np.where(values >= 255, 1, (values + 0.5) / 256))
    return ((unit - 0.5) * 8).reshape(n, 3, rest).transpose(0, 2, 1)[:, : REST[-1]]


def _table(header: Header, name: str, columns: list[str]) -> NDArray[np.void]:
    """Structured rows of an element that must have `columns`."""
    element: Element | None = header.element(name)
    if element is None:
        fail(header.path, f"no element {name}", "a compressed PLY")
    kinds = dict(element.columns)
    missing = [column for column in columns if column not in kinds]
    if missing:
        fail(header.path, f"no column {missing[0]} in {name}", "a compressed PLY")
    if name == "vertex" and any(kinds[column] != "u4" for column in columns):
        fail(header.path, "packed columns that are not 32-bit words", "a compressed PLY")
    rows = header.map(element) if element.count else np.zeros(0, header.dtype(element))
    if rows is None:
        fail(header.path, "a compressed PLY in text or with lists", "a binary one, as SuperSplat writes it")
    return rows


def _unpack(words: NDArray[np.uint32], bits: tuple[int, ...]) -> NDArray[np.float32]:
    """[N, len(bits)] values 0..1 of `words` [N]; the last has the lowest bits."""
    out, rest = np.empty((len(words), len(bits)), np.float32), np.asarray(words).astype(np.uint32)
    for i in reversed(range(len(bits))):
        mask = (1 << bits[i]) - 1
        out[:, i] = (rest & np.uint32(mask)) / mask
        rest = rest >> np.uint32(bits[i])
    return out
