"""The tables of COLMAP's sparse model (cameras, images, points3D as .bin or .txt), read without COLMAP.

Format: https://colmap.github.io/format.html. Poses there are world to camera with OpenCV axes (x right, y down,
z forward), quaternions wxyz.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from lpm.checks import LpmError, fail
from lpm.scenes.lenses import MODELS, NAMES
from lpm.scenes.ply import read_points as read_ply
from lpm.scenes.ply import vertices
from lpm.scenes.scene import Floats, Points
from lpm.scenes.texts import decoded, lines

T = TypeVar("T")
PLYS = ("points3d", "points", "sparse_pc")
FEATURE = np.dtype([("at", "<f8", 2), ("point", "<i8")])
BROKEN = "export the model again (colmap model_converter), or restore the file"


@dataclass
class Camera:
    """One row of `cameras`: model name, size in pixels, the model's parameters."""

    model: str
    width: int
    height: int
    params: Floats


@dataclass
class View:
    """One row of `images`: world to camera as quaternion wxyz and translation, its camera's id, its file's name."""

    qvec: Floats
    tvec: Floats
    camera: int
    name: str
    pixels: Floats | None = None
    """[M, 2] where its features are, if that was asked for."""
    points: NDArray[np.int64] | None = None
    """[M] the points' ids that they belong to; -1: none."""


def table(folder: Path, name: str) -> Path | None:
    """`name`.bin or `name`.txt in `folder`, or None. Binary first, as it is what COLMAP writes by itself."""
    return next((p for p in (folder / f"{name}.bin", folder / f"{name}.txt") if p.is_file()), None)


def text_rows(path: Path) -> Iterator[str]:
    """The lines of a text table without comments; empty lines stay, since an image without features has one."""
    return (line for line in lines(path) if not line.lstrip().startswith("#"))


def read_cameras(path: Path) -> dict[int, Camera]:
    """Cameras by id from cameras.bin or cameras.txt."""
    cameras: dict[int, Camera] = {}
    if path.suffix == ".txt":
        for line in text_rows(path):
            if parts := line.split():
                values = np.array([float(v) for v in parts[4:]])
                cameras[int(parts[0])] = Camera(parts[1], int(parts[2]), int(parts[3]), values)
        return cameras
    data = path.read_bytes()
    (count,), at = struct.unpack_from("<Q", data), 8
    for _ in range(count):
        key, model, width, height = struct.unpack_from("<iiQQ", data, at)
        if model not in MODELS:
            fail(path, f"camera model {model}", f"a model that COLMAP defines (0 to {max(MODELS)})", BROKEN)
        name = MODELS[model][0]
        n = len(NAMES[name])
        cameras[key] = Camera(name, width, height, np.array(struct.unpack_from(f"<{n}d", data, at + 24)))
        at += 24 + 8 * n
    return cameras


def read_images(path: Path, tracks: bool = False) -> dict[int, View]:
    """Views by id from images.bin or images.txt, with the observed features if `tracks`."""
    if path.suffix == ".txt":
        return read_images_text(path, tracks)
    views: dict[int, View] = {}
    data = path.read_bytes()
    (count,), at = struct.unpack_from("<Q", data), 8
    for _ in range(count):
        key, *values, camera = struct.unpack_from("<i7di", data, at)
        end = data.index(b"\0", at + 64)
        views[key] = View(np.array(values[:4]), np.array(values[4:]), camera, decoded(data[at + 64 : end]))
        (features,) = struct.unpack_from("<Q", data, end + 1)
        at = end + 9 + 24 * features
        if at > len(data):
            raise struct.error("ends in the middle of an image")
        if tracks:
            found = np.frombuffer(data, FEATURE, features, end + 9)
            views[key].pixels, views[key].points = found["at"], found["point"]
    return views


def read_images_text(path: Path, tracks: bool = False) -> dict[int, View]:
    """Views by id from images.txt. Each should have a line of features after its own, which some programs leave out."""
    views: dict[int, View] = {}
    view: View | None = None  # whose line of features may come
    for row in text_rows(path):
        words = row.split(maxsplit=9)
        if not words or (view is not None and _are_features(row)):
            if tracks and words and view is not None:
                found = np.array(row.split(), np.float64).reshape(-1, 3)
                view.pixels, view.points = found[:, :2], found[:, 2].astype(np.int64)
            view = None
            continue
        try:
            pose = np.array([float(v) for v in words[1:8]])
            view = views[int(words[0])] = View(pose[:4], pose[4:], int(words[8]), words[9].strip())
        except (ValueError, IndexError):
            wanted = "ID, quaternion, translation, camera and name of an image, or x, y and point of its features"
            fail(path, f"a line that is neither: {row[:60]!r}", wanted, BROKEN)
    return views


def _are_features(row: str) -> bool:
    """Whether a line of images.txt has features: numbers in threes. The name of an image is none."""
    words = row.split()
    try:
        return len(words) % 3 == 0 and all(float(word) == float(word) for word in words[:12])
    except ValueError:
        return False


def read_frames(path: Path) -> dict[int, int]:
    """The frame that each image belongs to, by ids, from frames.bin or frames.txt (COLMAP 3.12 and later)."""
    frames: dict[int, int] = {}
    if path.suffix == ".txt":
        for line in text_rows(path):
            if parts := line.split():
                frames |= {int(image): int(parts[0]) for image in parts[12::3]}
        return frames
    data = path.read_bytes()
    (count,), at = struct.unpack_from("<Q", data), 8
    for _ in range(count):
        key, _, *_, images = struct.unpack_from("<2I7dI", data, at)
        at += struct.calcsize("<2I7dI")
        for _ in range(images):
            frames[struct.unpack_from("<iIQ", data, at)[2]] = key
            at += struct.calcsize("<iIQ")
    return frames


def read_points(path: Path) -> Points:
    """Positions and colours from points3D.bin or points3D.txt; errors and tracks are passed over."""
    if path.suffix == ".txt":
        rows = [line.split(maxsplit=7)[:7] for line in text_rows(path) if line.strip()]
        if any(len(row) < 7 for row in rows):
            raise ValueError(f"{min(map(len, rows))} words in a line")
        values = np.array(rows, dtype=np.float64).reshape(-1, 7)
        rgb = values[:, 4:].clip(0, 255).astype(np.uint8)
        return Points(values[:, 1:4], rgb, path, values[:, 0].astype(np.int64))
    data = path.read_bytes()
    (count,), at = struct.unpack_from("<Q", data), 8
    if count * 51 > len(data):
        raise struct.error(f"{count} points announced, but the file is too short")
    xyz, rgb, ids = np.empty((count, 3)), np.empty((count, 3), np.uint8), np.empty(count, np.uint64)
    row = struct.Struct("<Q3d3BdQ")
    for i in range(count):
        ids[i], x, y, z, r, g, b, _, length = row.unpack_from(data, at)
        xyz[i], rgb[i] = (x, y, z), (r, g, b)
        at += row.size + 8 * length
    if at > len(data):
        raise struct.error("ends in the middle of a track")
    return Points(xyz, rgb, path, ids.astype(np.int64))


def read_model_points(folder: Path, notes: list[str] | None = None) -> Points | None:
    """COLMAP's points in its own frame, or None where the model has none. Raises LpmError for a broken file.

    Others keep them as points3D.ply beside the model, or nothing but that.

    Args:
        notes: of two files that differ, the other is named in it.
    """
    path = table(folder, "points3D")
    found = None if path is None else guarded(read_points, path)
    ply = next((p for p in sorted(folder.glob("*.ply")) if p.stem.casefold() in PLYS), None)
    if ply is None or (found is not None and len(found.xyz) and notes is None):
        return found
    if found is None or not len(found.xyz):
        return read_ply(ply)
    count = vertices(ply)
    if notes is not None and count not in (None, len(found.xyz)):
        notes.append(f"{found.source} is read; {ply.name} beside it has {count} points, not {len(found.xyz)}")
    return found


def guarded(read: Callable[[Path], T], path: Path) -> T:
    """`read(path)`, with a broken file said as an LpmError that names it."""
    try:
        return read(path)
    except LpmError:
        raise
    except (struct.error, IndexError, ValueError, OverflowError, MemoryError, OSError) as error:
        fail(path, f"cannot be read ({error})", f"COLMAP's {path.stem} table", BROKEN)
