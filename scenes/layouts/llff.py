"""LLFF's layout: poses_bounds.npy, with a row for each photo in images/, sorted by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lpm.checks import fail
from lpm.scenes.images import image_size
from lpm.scenes.layout import PHOTOS, Layout, photo_folder
from lpm.scenes.masks import find_masks
from lpm.scenes.ply import read_points
from lpm.scenes.scene import Floats, Scene, check_intrinsics, check_pose


def read_rows(path: Path) -> Floats:
    """The array [cameras, 17] in poses_bounds.npy. Raises LpmError.

    A row is a 3x5 matrix, camera to world with axes (down, right, backwards) and a last column height, width, focal
    length (pixels), then the nearest and farthest depth (Mildenhall and others, 2019).
    """
    try:
        rows = np.array(np.load(path, mmap_mode="r", allow_pickle=False), np.float64)  # too long a length is refused
    except Exception as error:  # numpy's reader fails in many ways
        fail(path, f"cannot be read ({error})", "an array [cameras, 17]", "copy it again from its source")
    if rows.ndim != 2 or rows.shape[1] != 17:
        fail(path, f"array {list(rows.shape)}", "[cameras, 17]", "copy it again from its source")
    return rows


def camera_of(row: Floats, size: tuple[int, int], name: str) -> tuple[Floats, Floats]:
    """Camera to world [4, 4] (OpenGL) and intrinsics [4] of a `row`, of a picture of `size`, which may be smaller than
    the row says. Raises LpmError, which calls it `name`."""
    matrix = row[:15].reshape(3, 5)
    pose = np.eye(4)
    pose[:3] = np.stack([matrix[:, 1], -matrix[:, 0], matrix[:, 2], matrix[:, 3]], 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        focal = matrix[2, 4] * size[0] / matrix[1, 4]
    intrinsics = np.array([focal, focal, size[0] / 2, size[1] / 2])
    check_intrinsics(name, intrinsics, size)
    return check_pose(name, pose), intrinsics


def read_llff(layout: Layout) -> Scene:
    """Reads poses_bounds.npy and the photos beside it. Raises LpmError on anything that cannot be used."""
    path, root = layout.source, layout.root
    rows = read_rows(path)
    folder = next((f for f in (root / "images", photo_folder(root)) if f is not None and f.is_dir()), root)
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in PHOTOS)
    if len(files) != len(rows):
        wanted = f"{len(rows)}, one for each row of {path.name}, which go by name"
        fail(folder, f"{len(files)} photos", wanted, "restore what is missing, or run lpm-prepare on the photos")
    sizes = [image_size(file) for file in files]
    cameras = [camera_of(row, size, f"{path}, {file.name}") for row, size, file in zip(rows, sizes, files, strict=True)]
    ply = root / "points3D.ply"
    return Scene(
        layout=layout,
        names=[file.relative_to(root).as_posix() for file in files],
        images=files,
        c2w=np.stack([pose for pose, _ in cameras]),
        intrinsics=np.stack([intrinsics for _, intrinsics in cameras]),
        distortion=np.zeros((len(files), 6)),
        sizes=np.array(sizes, dtype=np.int64),
        points=read_points(ply) if ply.is_file() else None,
        masks=find_masks(root, folder, [file.name for file in files]),
    )
