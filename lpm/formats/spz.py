"""Reader of Niantic's .spz: about 20 bytes a Gaussian, each attribute in a stream of its own.

Header: u32 magic 0x5053474e, u32 version, u32 count, u8 SH degree, u8 fractional bits, u8 flags (1: trained
antialiased, 2: extensions follow). Versions 1 to 3: all of it in one gzip stream, 16 bytes of header. Version 4: 32
bytes of header in the open, with u8 number of streams and u32 offset of a table (u64 packed, u64 unpacked bytes each),
streams in Zstandard. Attributes in order: positions (three 24-bit fixed-point numbers; version 1: half floats), alphas
(u8), colours (three u8), sizes (three u8, logarithms), rotations (versions 1 and 2: x y z as bytes; later: two bits for
which of x y z w is left out, then three of a sign and 9 bits), harmonics (a byte each, coefficient by coefficient,
r g b inside).
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lpm.checks import LpmError, fail
from lpm.formats import zstd
from lpm.formats.bounds import check_expansion, check_file, check_rows, check_some
from lpm.formats.bytes import Numbers, logit, sh0_params, smallest_three
from lpm.formats.ply_columns import BEYOND, REST
from lpm.formats.spz_extensions import SYSTEMS, read_extensions, to_ply_axes
from lpm.gaussians.similarity import move

MAGIC = 0x5053474E
COLOR_SCALE = 0.15  # of a zeroth coefficient, to a byte's 0..1
ANTIALIASED, EXTENDED = 1, 2
LONGEST_EXTENSIONS = 1 << 20  # bytes; the known ones have a few
HEADER = struct.Struct("<IIIBBBB")
TABLE = struct.Struct("<QQ")


@dataclass
class SpzHeader:
    """What the first 16 bytes say."""

    version: int
    count: int
    rest: int
    """SH coefficients per channel beyond the first."""
    fractional_bits: int
    flags: int
    streams: int
    """Number of streams (version 4)."""
    coordinates: str | None = None
    """Where x, y and z point in the file, if it says so (lpm.formats.spz_extensions)."""
    notes: list[str] = field(default_factory=list)
    """What of it a person should know, one line each."""

    @property
    def antialiased(self) -> bool:
        """How it was trained."""
        return bool(self.flags & ANTIALIASED)

    def sizes(self) -> list[int]:
        """Unpacked bytes of each attribute."""
        position, rotation = 6 if self.version == 1 else 9, 3 if self.version <= 2 else 4
        return [self.count * each for each in (position, 1, 3, 3, rotation, 3 * self.rest)]

    def extend(self, path: Path, data: bytes) -> None:
        """Takes in the extensions in `data`."""
        if self.flags & EXTENDED:
            self.coordinates, notes = read_extensions(path, data)
            self.notes += notes


def read_spz(path: Path) -> tuple[dict[str, Tensor], SpzHeader]:
    """Reads Gaussians from a .spz of version 1, 2, 3 or 4.

    The file's axes are right, up, back unless an extension says others; they are turned to right, down, front, as in a
    PLY of the same scene. Of SH degree 4 the bands up to 3 are read.

    Returns:
        Parameters as in lpm.gaussians, float32, and what the header says.

    Raises:
        LpmError: no such file, not a .spz, an unknown version, more than SH degree 4, or its size is not what it says.
    """
    check_file(path, "a .spz file")
    params, header = unpack_spz(path, path.read_bytes())
    return move(params, to_ply_axes(header.coordinates or SYSTEMS[0])), header


def unpack_spz(path: Path, data: bytes) -> tuple[dict[str, Tensor], SpzHeader]:
    """What read_spz() reads, of the bytes `data` from `path`, and in the axes that they are in."""
    try:
        header, parts = _gzip_parts(path, data) if data[:2] == b"\x1f\x8b" else _zstd_parts(path, data)
    except (zlib.error, ValueError) as error:
        if isinstance(error, LpmError):
            raise
        raise LpmError(f"{path}: cannot be unpacked ({error}); wanted a whole .spz file; copy it again") from error
    position, alpha, color, scale, rotation, harmonics = parts
    n, rest = header.count, header.rest
    if header.version == 1:
        means = position.view("<f2").reshape(n, 3).astype(np.float64)
    else:
        fixed = np.zeros((n * 3, 4), np.uint8)
        fixed[:, 1:] = position.reshape(-1, 3)  # in the upper three bytes, so that the sign comes right
        means = (fixed.view("<i4") >> 8).reshape(n, 3) / float(1 << header.fractional_bits)
    params = sh0_params(
        means=means,
        scales=scale.reshape(n, 3) / 16.0 - 10.0,
        quats=_rotations(rotation, header.version),
        features_dc=(color.reshape(n, 3) / 255.0 - 0.5) / COLOR_SCALE,
        opacities=logit(alpha / 255.0),
        features_rest=(harmonics.reshape(n, rest, 3)[:, : REST[-1]] - 128.0) / 128.0,
    )
    return params, header


def _header(path: Path, raw: bytes) -> SpzHeader:
    if len(raw) < HEADER.size:
        fail(path, f"{len(raw)} bytes of header", f"a .spz file, {HEADER.size} or more")
    magic, version, count, degree, bits, flags, streams = HEADER.unpack(raw[: HEADER.size])
    if magic != MAGIC:
        fail(path, f"magic {magic:#x}", f"{MAGIC:#x}, a .spz file")
    if version not in (1, 2, 3, 4):
        fail(path, f".spz version {version}", "1, 2, 3 or 4", "export it again with a newer or older program")
    if degree > 4:
        fail(path, f"SH degree {degree}", "0 to 4")
    if bits > 24:
        fail(path, f"{bits} fractional bits", "at most 24")
    check_some(path, count)
    notes = ["its harmonics have degree 4: read are those up to degree 3"] if degree == 4 else []
    if flags & ~(ANTIALIASED | EXTENDED):
        notes.append(f"flags {flags & ~(ANTIALIASED | EXTENDED):#04x} are not known, and passed over")
    return SpzHeader(version, count, (*REST, BEYOND)[degree], bits, flags, streams, notes=notes)


def _gzip_parts(path: Path, data: bytes) -> tuple[SpzHeader, list[NDArray[np.uint8]]]:
    stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
    header = _header(path, stream.decompress(data, HEADER.size))
    if header.version == 4:
        fail(path, "version 4 in a gzip stream", "version 1, 2 or 3 there")
    total = sum(header.sizes())
    check_expansion(path, total, len(data))
    body = stream.decompress(stream.unconsumed_tail, total)
    check_rows(path, total, 1, len(body))
    header.extend(path, stream.decompress(stream.unconsumed_tail, LONGEST_EXTENSIONS))
    ends = np.cumsum(header.sizes())
    return header, np.split(np.frombuffer(body, np.uint8), ends[:-1])


def _zstd_parts(path: Path, data: bytes) -> tuple[SpzHeader, list[NDArray[np.uint8]]]:
    header, size = _header(path, data), len(data)
    if header.version != 4 or size < 32:
        fail(path, f"version {header.version} without gzip", "version 4 there, or a gzip stream")
    sizes = header.sizes()
    wanted = 5 + (header.rest > 0)
    table = struct.unpack_from("<I", data, 16)[0]
    if header.streams < wanted or table < 32:
        fail(path, f"{header.streams} streams, table at byte {table}", f"{wanted} streams behind 32 bytes of header")
    check_rows(path, header.streams, TABLE.size, size - table)
    header.extend(path, data[32:table])
    parts, start = [], table + header.streams * TABLE.size
    for i in range(wanted):
        packed, unpacked = TABLE.unpack_from(data, table + i * TABLE.size)
        if unpacked != sizes[i]:
            fail(path, f"stream {i} of {unpacked:,} bytes", f"{sizes[i]:,} for {header.count:,} Gaussians")
        check_rows(path, packed, 1, size - start)
        check_expansion(path, unpacked, packed)
        parts.append(np.frombuffer(zstd.unpack(data[start : start + packed], unpacked), np.uint8))
        start += packed
    return header, parts + [np.zeros(0, np.uint8)] * (6 - wanted)


def _rotations(raw: NDArray[np.uint8], version: int) -> Numbers:
    """[N, 4] wxyz."""
    if version <= 2:
        xyz = raw.reshape(-1, 3) / 127.5 - 1.0
        w = np.sqrt(np.maximum(0, 1 - (xyz**2).sum(1, keepdims=True)))
        return np.concatenate([w, xyz], 1)
    words = raw.copy().view("<u4")
    three = np.empty((len(words), 3), np.float64)
    for i, shift in enumerate((20, 10, 0)):
        field = (words >> np.uint32(shift)) & np.uint32(1023)
        size = (field & np.uint32(511)) / 511.0 * np.sqrt(0.5)
        three[:, i] = np.where(field & np.uint32(512), -size, size)
    xyzw = smallest_three(three, (words >> np.uint32(30)).astype(np.int64))
    return xyzw[:, [3, 0, 1, 2]]
