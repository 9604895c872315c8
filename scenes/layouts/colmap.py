"""COLMAP's sparse model (cameras, images, points3D as .bin or .txt), read without COLMAP.

Format: https://colmap.github.io/format.html. Poses there are world to camera with OpenCV axes (x right, y down,
z forward), quaternions wxyz. Tracks are skipped for now; `read_images` and `read_points` are where they stand.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from lpm.checks import LpmError, fail
from lpm.scenes.images import image_size
from lpm.scenes.layout import Layout
from lpm.scenes.lenses import MODELS, NAMES, Lens
from lpm.scenes.scene import Floats, Points, Scene, check_intrinsics, check_pose, rotation

T = TypeVar("T")
# Model whose distortion OpenCV takes away -> where fx, fy, cx, cy and k1, k2, p1, p2 stand among its parameters.
SUPPORTED: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "SIMPLE_PINHOLE": ((0, 0, 1, 2), ()),
    "PINHOLE": ((0, 1, 2, 3), ()),
    "SIMPLE_RADIAL": ((0, 0, 1, 2), (3,)),
    "RADIAL": ((0, 0, 1, 2), (3, 4)),
    "OPENCV": ((0, 1, 2, 3), (4, 5, 6, 7)),
}
# COLMAP guesses gravity along +y; nerfstudio has z up: (x, y, z) -> (x, z, -y), as its own COLMAP parser does.
Z_UP: Floats = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0]])
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


def table(folder: Path, name: str) -> Path | None:
    """`name`.bin or `name`.txt in `folder`, or None. Binary first, as it is what COLMAP writes by itself."""
    return next((p for p in (folder / f"{name}.bin", folder / f"{name}.txt") if p.is_file()), None)


def text_rows(path: Path) -> list[str]:
    """The lines of a text table without comments; empty lines stay, since an image without features has one."""
    return [line.rstrip("\r\n") for line in path.open(encoding="utf-8") if not line.startswith("#")]


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


def read_images(path: Path) -> dict[int, View]:
    """Views by id from images.bin or images.txt; the observed features after each are passed over."""
    views: dict[int, View] = {}
    if path.suffix == ".txt":
        rows = text_rows(path)
        while rows and not rows[-1].strip() and len(rows) % 2:
            rows.pop()
        for line in rows[::2]:
            parts = line.split(maxsplit=9)
            pose = np.array([float(v) for v in parts[1:8]])
            views[int(parts[0])] = View(pose[:4], pose[4:], int(parts[8]), parts[9])
        return views
    data = path.read_bytes()
    (count,), at = struct.unpack_from("<Q", data), 8
    for _ in range(count):
        key, *values, camera = struct.unpack_from("<i7di", data, at)
        end = data.index(b"\0", at + 64)
        views[key] = View(np.array(values[:4]), np.array(values[4:]), camera, data[at + 64 : end].decode("utf-8"))
        (features,) = struct.unpack_from("<Q", data, end + 1)
        at = end + 9 + 24 * features
        if at > len(data):
            raise struct.error("ends in the middle of an image")
    return views


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
        rows = [line.split(maxsplit=7)[1:7] for line in text_rows(path) if line.strip()]
        values = np.array(rows, dtype=np.float64).reshape(-1, 6)
        return Points(values[:, :3], values[:, 3:].astype(np.uint8), path)
    data = path.read_bytes()
    (count,), at = struct.unpack_from("<Q", data), 8
    if count * 51 > len(data):
        raise struct.error(f"{count} points announced, but the file is too short")
    xyz, rgb = np.empty((count, 3)), np.empty((count, 3), np.uint8)
    row = struct.Struct("<Q3d3BdQ")
    for i in range(count):
        _, x, y, z, r, g, b, _, length = row.unpack_from(data, at)
        xyz[i], rgb[i] = (x, y, z), (r, g, b)
        at += row.size + 8 * length
    if at > len(data):
        raise struct.error("ends in the middle of a track")
    return Points(xyz, rgb, path)


def read_model_points(folder: Path) -> Points | None:
    """COLMAP's points in its own frame, or None where the model has none. Raises LpmError for a broken file."""
    path = table(folder, "points3D")
    if path is None:
        return None
    return guarded(read_points, path)


def guarded(read: Callable[[Path], T], path: Path) -> T:
    """`read(path)`, with a broken file said as an LpmError that names it."""
    try:
        return read(path)
    except LpmError:
        raise
    except (struct.error, IndexError, ValueError) as error:
        fail(path, f"cannot be read ({error})", f"COLMAP's {path.stem} table", BROKEN)


def camera_values(path: Path, key: int, camera: Camera) -> tuple[Floats, Floats, Lens | None]:
    """Intrinsics [4], distortion [6] and, where they do not tell all, the lens of `camera`; raises LpmError."""
    name = f"{path}, camera {key}"
    if camera.model not in NAMES:
        fail(name, f"camera model {camera.model}", "one of " + ", ".join(NAMES), BROKEN)
    if len(camera.params) < len(NAMES[camera.model]):
        fail(name, f"{len(camera.params)} parameters", f"those of {camera.model}", BROKEN)
    if not np.isfinite(camera.params).all():
        fail(name, f"parameters {camera.params.tolist()}", "finite numbers", BROKEN)
    size = (camera.width, camera.height)
    lens = Lens(camera.model, tuple(camera.params[: len(NAMES[camera.model])].tolist()), size)
    if camera.model == "EQUIRECTANGULAR":
        check_intrinsics(name, np.array([*lens.params, *lens.params]), size)
        return np.array([*lens.focal(), size[0] / 2, size[1] / 2]), np.zeros(6), lens
    at, bends = SUPPORTED.get(camera.model, ((0, 0, 1, 2) if NAMES[camera.model][0] == "f" else (0, 1, 2, 3), ()))
    intrinsics = camera.params[list(at)]
    check_intrinsics(name, intrinsics, size)
    distortion = np.zeros(6)
    for place, value in zip((0, 1, 4, 5), camera.params[list(bends)], strict=False):
        distortion[place] = value
    return intrinsics, distortion, None if camera.model in SUPPORTED and not (bends and lens.folds()) else lens


def find_mask(folder: Path, name: str) -> Path | None:
    """The mask of image `name`: COLMAP's own a.jpg.png, or a.png as nerfstudio has it, or the same name."""
    if Path(name).is_absolute():  # of a scene that may name files outside of its folder
        return None
    path = folder / name
    return next((p for p in (path.with_name(path.name + ".png"), path.with_suffix(".png"), path) if p.is_file()), None)


def read_colmap(layout: Layout) -> Scene:
    """Reads a COLMAP scene: `images/`, the model, and `masks/` where present. Raises LpmError on what cannot be used.

    The scene's frame is COLMAP's turned z up; `applied_transform` says so, and leads back.
    """
    root, folder = layout.root, layout.source
    cameras_path, images_path = table(folder, "cameras"), table(folder, "images")
    if cameras_path is None or images_path is None:
        fail(folder, "no cameras or no images table", "cameras.bin and images.bin (or .txt)", BROKEN)
    cameras = guarded(read_cameras, cameras_path)
    found = guarded(read_images, images_path)
    keys = sorted(found, key=lambda key: found[key].name)
    views = [found[key] for key in keys]
    frames_path = table(folder, "frames")
    frames = {} if frames_path is None else guarded(read_frames, frames_path)
    shots = [frames.get(key, -key) for key in keys]
    if not views:
        fail(images_path, "no images in the model", "at least two posed images", "run the reconstruction again")
    pictures = root / "images"
    if not pictures.is_dir():
        fail(pictures, "no such folder", "the images that COLMAP was run on", "name the folder of photos `images`")
    poses, intrinsics, distortion, sizes, masks, lenses = [], [], [], [], [], []
    values = {}
    for view in views:
        if view.camera not in cameras:
            fail(images_path, f"{view.name} has camera {view.camera}", f"one that {cameras_path.name} holds", BROKEN)
        camera = cameras[view.camera]
        size = image_size(layout.file(view.name, "images"))
        if size != (camera.width, camera.height):
            fail(
                pictures / view.name,
                f"image of {size[0]}x{size[1]}",
                f"{camera.width}x{camera.height} as {cameras_path.name} says of its camera",
                "use the images that COLMAP was run on, not scaled ones",
            )
        if view.camera not in values:
            values[view.camera] = camera_values(cameras_path, view.camera, camera)
        pinhole, bends, lens = values[view.camera]
        w2c = np.eye(4)
        with np.errstate(invalid="ignore", divide="ignore"):
            w2c[:3, :3] = rotation(view.qvec)
        w2c[:3, 3] = view.tvec
        c2w = np.linalg.inv(check_pose(f"{images_path}, {view.name}", w2c))
        c2w[:3, 1:3] *= -1  # OpenCV's camera axes to OpenGL's
        c2w[:3] = Z_UP @ c2w
        poses.append(c2w)
        intrinsics.append(pinhole)
        distortion.append(bends)
        sizes.append(size)
        lenses.append(lens)
        masks.append(find_mask(root / "masks", view.name))
    notes = []
    if any(masks) and not all(masks):
        lacking = views[[mask is not None for mask in masks].index(False)].name
        fail(root / "masks", f"no mask for {lacking}", "a mask for every image or for none", "add it or remove masks/")
    points = read_model_points(folder)
    files = sum(1 for p in pictures.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if files > len(views):
        notes.append(f"{files - len(views)} of {files} images have no pose in {images_path.name} and are left out")
    return Scene(
        layout=layout,
        names=[view.name for view in views],
        images=[pictures / view.name for view in views],
        c2w=np.stack(poses),
        intrinsics=np.stack(intrinsics),
        distortion=np.stack(distortion),
        sizes=np.array(sizes, dtype=np.int64),
        points=points.moved(Z_UP) if points is not None else None,
        masks=[mask for mask in masks if mask is not None] if all(masks) else None,
        lenses=lenses,
        shots=shots if len(set(shots)) < len(shots) else None,
        applied_transform=Z_UP.copy(),
        lists=split_lists(root),
        notes=notes,
    )


def split_lists(root: Path) -> dict[str, list[str]]:
    """nerfstudio's train_list.txt, test_list.txt and validation_list.txt (one image name a line), where present."""
    lists = {}
    for split, file in (("train", "train_list.txt"), ("val", "validation_list.txt"), ("test", "test_list.txt")):
        if (root / file).is_file():
            names = [line.strip() for line in (root / file).read_text(encoding="utf-8").splitlines()]
            lists[split] = [name for name in names if name]
    return lists
