"""Writer of Niantic's .spz, versions 2 to 4; what the bytes mean is told in lpm.formats.spz."""

from __future__ import annotations

import itertools
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lpm.checks import fail
from lpm.files import atomic_file
from lpm.formats import zstd
from lpm.formats.bytes import OTHERS, Numbers, to_bytes
from lpm.formats.ply_columns import REST
from lpm.formats.rows import bounded, sound_rows
from lpm.formats.spz import ANTIALIASED, COLOR_SCALE, EXTENDED, HEADER, MAGIC, TABLE
from lpm.formats.spz_extensions import SYSTEMS, coordinates, to_ply_axes
from lpm.gaussians.parameters import NAMES, rotations
from lpm.gaussians.similarity import move, multiply

LEAST_BITS = 12
"""Behind the point of a position, as Niantic's own writer has it; more for small Gaussians, fewer for wide scenes."""
FINE = 32
"""Steps of a position in the median size of the Gaussians."""
BUCKETS = (8, 16)
"""Steps of a coefficient's 256 that are kept apart, of degree 1 and beyond: Niantic's own choice, half of the size."""
GZIP_LEVEL = 4
"""Of a million with harmonics 6 makes 4 % less in twice the time, 1 makes 6 % more in 0.8 of it (docs/export.md)."""


Version = Literal[2, 3, 4]


@dataclass
class Packed:
    """A .spz before it is written."""

    body: list[bytes]
    """Its bytes, one part after the other."""
    count: int
    """Gaussians in it."""
    left_out: int
    """Rows that nobody can draw."""
    bounds: tuple[list[float], list[float]]
    """Least and largest x, y and z in it, in its axes."""


def write_spz(path: Path, params: Mapping[str, Tensor], version: Version = 3, antialiased: bool = False) -> int:
    """Writes `params` to `path`, atomically; rows that nobody can draw are left out.

    `params` are taken to be in a PLY's axes, right, down, front; the file's are right, up, back.

    Returns:
        The number of rows left out.

    Raises:
        LpmError: no row is left, the scene is too wide for 24 bits, nothing packs Zstandard (version 4), or the folder
            cannot be written.
    """
    packed = pack_spz(path, params, version, antialiased)
    with atomic_file(path) as file:
        for part in packed.body:
            file.write(part)
    return packed.left_out


def pack_spz(
    path: Path, params: Mapping[str, Tensor], version: Version, antialiased: bool, axes: str | None = None
) -> Packed:
    """What write_spz() writes, for the file `path`.

    `axes`: `params` are in these already, such as LUF; they stay as they are, and an extension says so.
    """
    params = bounded(params)
    sound = sound_rows(params).cpu()
    n = int(sound.sum())
    if n == 0:
        fail(path, f"{len(sound)} points, none of them finite and with a rotation", "at least one to write")
    get = {name: params[name].detach().float().cpu() for name in NAMES}
    if n < len(sound):
        get = {name: value[sound] for name, value in get.items()}
    if axes is None:
        get = move(get, to_ply_axes(SYSTEMS[0]).inverse())
    bits, rest = _fractional_bits(path, get), get["features_rest"].shape[1]
    streams, extensions = _streams(get, bits, version), b"" if axes is None else coordinates(axes)
    flags = (ANTIALIASED if antialiased else 0) | (EXTENDED if extensions else 0)
    head = HEADER.pack(MAGIC, version, n, REST.index(rest), bits, flags, len(streams) if version == 4 else 0)
    if version == 4:
        packed = [zstd.pack(stream) for stream in streams]
        table = b"".join(TABLE.pack(len(p), len(s)) for p, s in zip(packed, streams, strict=True))
        body = [head, struct.pack("<I12x", HEADER.size + 16 + len(extensions)), extensions, table, *packed]
    else:
        gzip = zlib.compressobj(GZIP_LEVEL, wbits=zlib.MAX_WBITS | 16)
        body = [*map(gzip.compress, (head, *streams, extensions)), gzip.flush()]
    ends = ((end * (1 << bits)).round() / (1 << bits) for end in get["means"].double().aminmax(dim=0))
    low, high = (end.tolist() for end in ends)
    return Packed(body, n, len(sound) - n, (low, high))


def _fractional_bits(path: Path, get: dict[str, Tensor]) -> int:
    """How many of a position's 24 bits lie behind the point."""
    size = float(get["scales"].double().mean(1).exp().median())
    far = float(get["means"].abs().max())
    most = 23 - math.floor(math.log2(max(far, 1e-30)) + 1)  # so that the farthest one fits
    bits = min(max(LEAST_BITS, math.ceil(math.log2(FINE / max(size, 1e-30)))), most, 23)
    if bits < 0 or 2.0**-bits > size:
        got = f"positions up to {far:.4g} for Gaussians of {size:.2g}, of which 24 bits make steps of {2.0**-bits:.2g}"
        fail(path, got, "a smaller scene", "--crop leaves out what lies far away")
    return bits


def _streams(get: dict[str, Tensor], bits: int, version: Version) -> list[bytes]:
    """The bytes of each attribute."""
    quats, scales = torch.nn.functional.normalize(get["quats"].double(), dim=1), get["scales"]
    if version == 2:
        quats, scales = _little_turned(quats, scales)
    fixed = np.round(get["means"].double().numpy() * (1 << bits)).clip(-(1 << 23), (1 << 23) - 1).astype("<i4")
    streams: list[NDArray[Any]] = [
        np.ascontiguousarray(fixed.reshape(-1, 1).view(np.uint8)[:, :3]),
        to_bytes(torch.sigmoid(get["opacities"])),
        to_bytes(get["features_dc"] * COLOR_SCALE + 0.5),
        ((scales + 10) * 16).round().clamp(0, 255).byte().numpy(),
        to_bytes((quats[:, 1:] + 1) / 2) if version == 2 else _smallest_three(quats[:, [1, 2, 3, 0]].numpy()),
    ]
    if get["features_rest"].shape[1]:
        sh = (get["features_rest"] * 128).round() + 128
        for part, bucket in zip((sh[:, :3], sh[:, 3:]), BUCKETS, strict=True):
            part.add_(bucket // 2).div_(bucket).floor_().mul_(bucket)
        streams.append(sh.clamp_(0, 255).byte().numpy())
    return [stream.tobytes() for stream in streams]


def _little_turned(quats: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
    """The same ellipsoids as of `quats` [N, 4] (wxyz, unit) and `scales` [N, 3], with axes named anew: 0.85 <= w.

    Version 2 keeps x, y, z in bytes and leaves w to be computed, which near w = 0 is wrong by up to 9 degrees. Of the
    24 ways to name an ellipsoid's axes one is turned by 63 degrees at most, and wrong by less than one.
    """
    turns = [turn for turn in itertools.product((0, 1, -1), repeat=4) if sum(map(abs, turn)) in (1, 2, 4)]
    table = torch.nn.functional.normalize(torch.tensor(turns, dtype=torch.float64), dim=1)
    w = quats.float() @ (table * torch.tensor([1.0, -1, -1, -1])).float().T  # of the products with the turns
    best = w.argmax(1)  # both signs of each turn are in the table
    axes = rotations(table).abs().argmax(1)
    return multiply(quats, table[best]), scales.gather(1, axes[best])


def _smallest_three(xyzw: Numbers) -> NDArray[np.uint32]:
    """[N] words of unit quaternions [N, 4]: which is left out, then sign and nine bits of each of the others."""
    largest = np.abs(xyzw).argmax(1)
    rows = np.arange(len(xyzw))
    xyzw = xyzw * np.where(xyzw[rows, largest] < 0, -1.0, 1.0)[:, None]
    others = xyzw[rows[:, None], OTHERS[largest]]
    words: NDArray[np.uint32] = largest.astype("<u4")
    for value in others.T:
        size = np.round(np.abs(value) * (math.sqrt(2) * 511)).clip(0, 511).astype("<u4")
        words = (words << np.uint32(10)) | np.where(value < 0, np.uint32(512), np.uint32(0)) | size
    return words
