"""transforms.json: nerfstudio's (and instant-ngp's) layout, and Blender's synthetic one with a file per split."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from lpm.checks import fail
from lpm.scenes.images import image_size
from lpm.scenes.layout import Layout
from lpm.scenes.layouts.colmap import read_model_points
from lpm.scenes.lenses import Lens
from lpm.scenes.ply import read_points
from lpm.scenes.scene import Floats, Points, Scene, check_intrinsics, check_pose

PERSPECTIVE = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "PERSPECTIVE")
OTHERS = ("OPENCV_FISHEYE", "EQUIRECTANGULAR")
DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
# What ns-process-data did to COLMAP's frame before it began to write applied_transform (nerfstudio <= 0.3).
LEGACY_TRANSFORM = np.array([[0.0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0]])
SUFFIXES = (".png", ".jpg", ".jpeg", ".JPG")


def read_json(path: Path) -> dict[str, Any]:
    """The object in the file at `path`; raises LpmError if it holds no JSON object with a list of frames."""
    remedy = "write the file again (ns-process-data), or restore it"
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        fail(path, f"not JSON ({error})", "a JSON object with frames", remedy)
    except OSError as error:
        fail(path, f"cannot be read ({error.strerror})", "a JSON object with frames", remedy)
    if not isinstance(meta, dict) or not isinstance(meta.get("frames"), list):
        fail(path, "no list of frames", "a JSON object with frames, each with file_path and transform_matrix", remedy)
    if not meta["frames"]:
        fail(path, "no images (frames is empty)", "at least two frames", remedy)
    return meta


def number(path: Path, name: str, values: dict[str, Any], key: str) -> float:
    """`values[key]` as a float; raises LpmError naming the frame `name` and the file otherwise."""
    try:
        return float(values[key])
    except KeyError:
        fail(path, f"no {key} for {name}", f"{key} in the frame or at the top of the file", "add it")
    except (TypeError, ValueError):
        fail(path, f"{key} = {values[key]!r} for {name}", "a number", "correct it")


def frame_file(layout: Layout, name: str) -> Path:
    """The image file that a frame calls `name`; Blender's and instant-ngp's lack the suffix."""
    path = layout.file(name)
    if not path.is_file() and path.suffix.lower() not in SUFFIXES:
        for suffix in SUFFIXES:
            if path.with_name(path.name + suffix).is_file():
                return path.with_name(path.name + suffix)
        return path.with_name(path.name + ".png")
    return path


def frame_camera(
    path: Path, name: str, image: Path, values: dict[str, Any]
) -> tuple[Floats, Floats, tuple[int, int], Lens | None]:
    """Intrinsics [4], distortion [6], (width, height) and, where they do not tell all, the lens, from a frame's
    `values` (the file's, then its own)."""
    model = values.get("camera_model", "PERSPECTIVE")
    if values.get("is_fisheye"):  # instant-ngp's; nerfstudio reads it, too
        model = "OPENCV_FISHEYE"
    if model not in (*PERSPECTIVE, *OTHERS):
        fail(
            path,
            f"camera_model {model}",
            ", ".join((*PERSPECTIVE[:-1], *OTHERS)),
            "undistort the images first (colmap image_undistorter) and process them again",
        )
    width, height = image_size(image)
    if "w" in values and "h" in values:
        wanted = int(number(path, name, values, "w")), int(number(path, name, values, "h"))
        if min(wanted) <= 0:
            fail(path, f"w = {wanted[0]}, h = {wanted[1]} for {name}", "a positive width and height", "correct them")
        if (width, height) != wanted:
            fail(
                image,
                f"image of {width}x{height}",
                f"{wanted[0]}x{wanted[1]} as {path.name} says (images of different sizes need their own w, h, fl_x)",
                "use the images that the poses were made from, or give this frame its own intrinsics",
            )
    if model == "EQUIRECTANGULAR":
        lens = Lens(model, (float(width), float(height)), (width, height))
        return np.array([*lens.focal(), width / 2, height / 2]), np.zeros(6), (width, height), lens
    if "fl_x" in values:
        fx = number(path, name, values, "fl_x")
    elif model == "OPENCV_FISHEYE":
        fail(path, f"no fl_x for {name}", "a focal length of the fisheye", "add fl_x, in pixels")
    else:  # Blender and instant-ngp: the field of view stands for the focal length
        if "camera_angle_x" not in values:
            fail(path, f"neither fl_x nor camera_angle_x for {name}", "a focal length", "add fl_x, in pixels")
        angle = number(path, name, values, "camera_angle_x")
        if not 0 < angle < math.pi:
            fail(path, f"camera_angle_x = {angle:g} for {name}", "an angle in radians between 0 and pi", "correct it")
        fx = 0.5 * width / math.tan(0.5 * angle)
    fy = number(path, name, values, "fl_y") if "fl_y" in values else fx
    cx = number(path, name, values, "cx") if "cx" in values else width / 2
    cy = number(path, name, values, "cy") if "cy" in values else height / 2
    intrinsics = np.array([fx, fy, cx, cy])
    check_intrinsics(f"{path}, {name}", intrinsics, (width, height))
    given = values.get("distortion_params")
    if given is not None:
        distortion = np.array(given, dtype=np.float64).reshape(-1)
        if distortion.shape != (6,):
            fail(path, f"{distortion.size} distortion_params for {name}", "six: k1 k2 k3 k4 p1 p2", "correct them")
    else:
        distortion = np.array([number(path, name, values, k) if k in values else 0.0 for k in DISTORTION])
    if model == "OPENCV_FISHEYE" and np.isfinite(distortion).all():
        lens = Lens(model, (fx, fy, cx, cy, *distortion[:4].tolist()), (width, height))
        return intrinsics, np.zeros(6), (width, height), lens
    if not np.isfinite(distortion).all() or distortion[3] != 0:
        remedy = "undistort the images first (colmap image_undistorter)"
        fail(path, f"distortion {distortion.tolist()} for {name}", "finite k1 k2 k3 p1 p2, and no k4", remedy)
    if not distortion.any():
        return intrinsics, distortion, (width, height), None
    k1, k2, k3, _, p1, p2 = distortion.tolist()
    lens = Lens("FULL_OPENCV", (fx, fy, cx, cy, k1, k2, p1, p2, k3, 0.0, 0.0, 0.0), (width, height))
    return intrinsics, distortion, (width, height), lens if lens.folds() else None


def frame_time(path: Path, name: str, frame: dict[str, Any]) -> tuple[float, str] | None:
    """A frame's time (0..1) and the name of its camera; None where the frame has no time.

    A camera without a name is called as the folder of its images, or, where all are in one, as the image: then no two
    images are by the same camera.
    """
    if "time" not in frame:
        return None
    time = number(path, name, frame, "time")
    if not 0 <= time <= 1:
        remedy = "divide by the last frame's, so that the first is 0 and the last is 1"
        fail(path, f"time = {time:g} for {name}", "a time between 0 and 1", remedy)
    return time, str(frame.get("cam", name))


def read_frames(path: Path, layout: Layout, meta: dict[str, Any]) -> dict[str, Any]:
    """The cameras of `meta` (read from `path`), as the keyword arguments of Scene, sorted by name."""
    general = {key: value for key, value in meta.items() if key != "frames"}
    rows = []
    for i, frame in enumerate(meta["frames"]):
        if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
            fail(path, f"no file_path in frame {i}", "a file_path in each frame", "add it or remove the frame")
        name = frame["file_path"]
        if "transform_matrix" not in frame:
            fail(path, f"no transform_matrix for {name}", "a 4x4 matrix in each frame", "add it or remove the frame")
        pose = check_pose(f"{path}, {name}", frame["transform_matrix"])
        image = frame_file(layout, name)
        camera = frame_camera(path, name, image, {**general, **frame})
        more = frame.get("mask_path"), frame.get("depth_file_path"), frame_time(path, name, frame)
        rows.append((name, image, pose, *camera, *more))
    rows.sort(key=lambda row: row[0])
    names, images, poses, intrinsics, distortion, sizes, lenses, mask_names, depth_names, moments = zip(
        *rows, strict=True
    )
    twice = next((a for a, b in pairwise(names) if a == b), None)
    if twice is not None:
        fail(path, f"{twice} stands in two frames", "each image once", "remove one of the frames")
    beside: dict[str, list[Path] | None] = {"mask_path": None, "depth_file_path": None}
    for key, files in (("mask_path", mask_names), ("depth_file_path", depth_names)):
        if any(files):
            if not all(files):
                lacking = names[[bool(file) for file in files].index(False)]
                fail(path, f"no {key} for {lacking}", f"{key} in every frame or in none", "add it")
            beside[key] = [layout.file(file) for file in files]
    timed = [moment is not None for moment in moments]
    if any(timed) and not all(timed):
        fail(path, f"no time for {names[timed.index(False)]}", "a time for every frame or for none", "add it")
    return {
        "capture_times": np.array([moment[0] for moment in moments]) if all(timed) else None,
        "cams": [moment[1] for moment in moments] if all(timed) else None,
        "names": list(names),
        "images": list(images),
        "c2w": np.stack(poses),
        "intrinsics": np.stack(intrinsics),
        "distortion": np.stack(distortion),
        "sizes": np.array(sizes, dtype=np.int64),
        "lenses": list(lenses),
        "masks": beside["mask_path"],
        "depths": beside["depth_file_path"],
    }


def read_transforms(layout: Layout) -> Scene:
    """Reads nerfstudio's transforms.json. Raises LpmError on anything that cannot be used."""
    path, root = layout.source, layout.root
    meta = read_json(path)
    notes: list[str] = []
    applied = meta.get("applied_transform")
    model = root / "colmap" / "sparse" / "0"
    if applied is None and model.is_dir():
        applied = LEGACY_TRANSFORM
    transform = check_pose(f"{path}, applied_transform", applied if applied is not None else np.eye(4))[:3]
    points: Points | None = None
    if meta.get("ply_file_path"):
        points = read_points(layout.file(meta["ply_file_path"]))
    elif any((model / f"points3D.{end}").is_file() for end in ("bin", "txt")):
        # Written by an old ns-process-data, without a PLY: COLMAP's own points, brought into this file's frame.
        found = read_model_points(model)
        points = found.moved(transform) if found is not None else None
    return Scene(
        layout=layout,
        points=points,
        applied_transform=transform,
        applied_scale=float(meta.get("applied_scale", 1.0)),
        lists={s: list(meta[f"{s}_filenames"]) for s in ("train", "val", "test") if meta.get(f"{s}_filenames")},
        orientation_override=meta.get("orientation_override"),
        notes=notes,
        **read_frames(path, layout, meta),
    )


def read_blender(layout: Layout) -> Scene:
    """Reads Blender's synthetic layout; transforms_train.json and transforms_test.json (else _val) are the split.

    Raises LpmError on anything that cannot be used.
    """
    root = layout.root
    tests = [root / f"transforms_{split}.json" for split in ("test", "val")]
    test_file = next((path for path in tests if path.is_file()), None)
    if test_file is None:
        fail(root, "no transforms_test.json beside transforms_train.json", "Blender's test split", "restore the file")
    parts = {"train": read_frames(layout.source, layout, read_json(layout.source))}
    parts["test"] = read_frames(test_file, layout, read_json(test_file))
    train, test = parts["train"], parts["test"]
    joined: dict[str, Any] = {"names": train["names"] + test["names"], "images": train["images"] + test["images"]}
    joined["lenses"] = train["lenses"] + test["lenses"]
    for key in ("c2w", "intrinsics", "distortion", "sizes"):
        joined[key] = np.concatenate([train[key], test[key]])
    if (train["capture_times"] is None) != (test["capture_times"] is None):
        fail(test_file, "times in only one of train and test", "times in both, or in none", "add them")
    if train["capture_times"] is not None:  # D-NeRF
        joined |= {
            "capture_times": np.concatenate([train["capture_times"], test["capture_times"]]),
            "cams": train["cams"] + test["cams"],
        }
    plys = [root / name for name in ("points3d.ply", "points3D.ply", "sparse_pc.ply")]
    ply = next((path for path in plys if path.is_file()), None)
    return Scene(
        layout=layout,
        points=read_points(ply) if ply else None,
        lists={split: part["names"] for split, part in parts.items()},
        alpha_color="white",
        **joined,
    )
