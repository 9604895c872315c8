"""The layout of Nerfies, HyperNeRF and DyCheck: dataset.json, metadata.json, scene.json, camera/ID.json, rgb/Nx/."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from lpm.checks import fail
from lpm.scenes.images import image_size
from lpm.scenes.layout import Layout
from lpm.scenes.scene import Floats, Points, Scene, check_intrinsics, check_pose
from lpm.scenes.texts import read_text


def read_json(path: Path) -> dict[str, Any]:
    """The object in `path`; raises LpmError if there is none."""
    try:
        value = json.loads(read_text(path))
    except OSError as error:
        fail(path, f"cannot be read ({error.strerror})", "a JSON object", "restore the file")
    except ValueError as error:
        fail(path, f"not JSON ({error})", "a JSON object", "restore the file")
    if not isinstance(value, dict):
        fail(path, type(value).__name__, "a JSON object", "restore the file")
    return value


def images_folder(root: Path) -> tuple[Path, int]:
    """The folder rgb/Nx with the largest images, and N."""
    folders = {int(p.name[:-1]): p for p in (root / "rgb").glob("*x") if p.is_dir() and p.name[:-1].isdigit()}
    if not folders:
        fail(root / "rgb", "no folder of images", "rgb/1x or rgb/2x, ...", "restore the images")
    return folders[min(folders)], min(folders)


def read_camera(path: Path, image: Path, shrink: int, scale: float, centre: Floats) -> tuple[Floats, ...]:
    """c2w [4, 4] (OpenGL), intrinsics [4], distortion [6] and size [2] of a camera/ID.json, of an image that is
    `shrink` times smaller."""
    camera = read_json(path)
    try:
        orientation = np.array(camera["orientation"], dtype=np.float64)  # rows: the camera's axes (OpenCV) in the world
        position = (np.array(camera["position"], dtype=np.float64) - centre) * scale
        focal, aspect = float(camera["focal_length"]), float(camera.get("pixel_aspect_ratio", 1.0))
        middle = np.array(camera["principal_point"], dtype=np.float64)
        radial, tangential = camera.get("radial_distortion", [0, 0, 0]), camera.get("tangential_distortion", [0, 0])
        distortion = np.array([*radial[:3], 0.0, *tangential[:2]], dtype=np.float64)
    except (KeyError, TypeError, ValueError) as error:
        fail(
            path,
            f"{type(error).__name__}: {error}",
            "orientation, position, focal_length, principal_point",
            "restore it",
        )
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = orientation.T * [1.0, -1.0, -1.0], position
    size = image_size(image)
    lens = np.array([focal, focal * aspect, *middle]) / shrink
    check_intrinsics(str(path), lens, size)
    return check_pose(str(path), pose), lens, distortion, np.array(size, dtype=np.float64)


def _split(root: Path, lists: dict[str, Any], name: str) -> list[str]:
    """The ids of a split: DyCheck's splits/NAME.json, else those of dataset.json."""
    path = root / "splits" / f"{name}.json"
    return list(map(str, read_json(path).get("frame_names", []) if path.is_file() else lists.get(f"{name}_ids") or []))


def read_nerfies(layout: Layout) -> Scene:
    """Reads the layout; its train and val lists are the split. Raises LpmError on anything that cannot be used.

    Times are warp_id over its largest value; cameras are named by camera_id. DyCheck's held-out images, of cameras that
    were never trained on, are those of splits/val.json.
    """
    root = layout.root
    lists = read_json(layout.source)
    metadata, scene = read_json(root / "metadata.json"), read_json(root / "scene.json")
    folder, shrink = images_folder(root)
    scale, centre = float(scene.get("scale", 1.0)), np.array(scene.get("center", [0.0, 0.0, 0.0]), dtype=np.float64)
    train, test = (_split(root, lists, name) for name in ("train", "val"))
    ids = sorted({*train, *test} or map(str, lists.get("ids", [])))
    if not ids:
        fail(layout.source, "no ids", "train_ids and val_ids", "restore the file")
    unknown = [i for i in ids if i not in metadata]
    if unknown:
        fail(
            root / "metadata.json", f"no entry for {unknown[0]}", "one for every id of dataset.json", "restore the file"
        )
    warp = np.array([float(metadata[i].get("warp_id", metadata[i].get("time_id", 0))) for i in ids])
    images = [layout.file(f"{i}.png", str(folder.relative_to(root))) for i in ids]
    rows = [
        read_camera(layout.file(f"{i}.json", "camera"), image, shrink, scale, centre)
        for i, image in zip(ids, images, strict=True)
    ]
    poses, lenses, distortions, sizes = (np.stack(column) for column in zip(*rows, strict=True))
    points = root / "points.npy"
    found = None
    if points.is_file():
        xyz = (np.array(np.load(points, mmap_mode="r", allow_pickle=False), np.float64) - centre) * scale
        found = Points(xyz, np.full(xyz.shape, 128, np.uint8), points)
    chosen = {"train": [f"{i}.png" for i in train], "val": [f"{i}.png" for i in test]}
    return Scene(
        layout=layout, names=[f"{i}.png" for i in ids], images=images, c2w=poses,
        intrinsics=lenses, distortion=distortions, sizes=sizes.astype(np.int64), points=found,
        capture_times=warp / max(1.0, warp.max()), cams=[str(metadata[i].get("camera_id", 0)) for i in ids],
        lists={split: names for split, names in chosen.items() if names},
    )  # fmt: skip
