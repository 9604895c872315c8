"""transforms.json: nerfstudio's (and instant-ngp's) layout, and Blender's synthetic one with a file per split."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from lpm.checks import fail
from lpm.scenes.images import fitting, image_size, misfit
from lpm.scenes.layout import Layout, folder_called
from lpm.scenes.layouts.colmap_tables import PLYS, read_model_points
from lpm.scenes.lenses import Lens
from lpm.scenes.masks import FOLDERS
from lpm.scenes.photo_files import find_photos, kept_lists, own_name
from lpm.scenes.ply import read_points
from lpm.scenes.scene import Floats, Points, Scene, check_intrinsics, check_matrix, check_pose
from lpm.scenes.texts import read_text

PERSPECTIVE = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "PERSPECTIVE")
OTHERS = ("OPENCV_FISHEYE", "EQUIRECTANGULAR")
DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
# What ns-process-data did to COLMAP's frame before it began to write applied_transform (nerfstudio <= 0.3).
LEGACY_TRANSFORM = np.array([[0.0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0]])
SPLITS = ("train", "val", "test")


def read_json(path: Path) -> dict[str, Any]:
    """The object in the file at `path`; raises LpmError if it holds no JSON object with a list of frames."""
    remedy = "write the file again (ns-process-data), or restore it"
    try:
        meta = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
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
    if key not in values:
        fail(path, f"no {key} for {name}", f"{key} in the frame or at the top of the file", "add it")
    try:
        value = float(values[key])
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value) or isinstance(values[key], bool):
        fail(path, f"{key} = {str(values[key])[:40]!r} for {name}", "a number", "correct it")
    return value


def camera_model(path: Path, name: str, values: dict[str, Any]) -> str:
    """The camera model that a frame's `values` name, by nerfstudio's camera_model or instant-ngp's is_fisheye.

    Raises:
        LpmError: it is none that is read, or the two contradict each other.
    """
    given, flag = values.get("camera_model"), values.get("is_fisheye")
    model = "PERSPECTIVE" if given is None else str(given).upper()
    if isinstance(flag, str):
        flag = {"true": True, "false": False}.get(flag.lower(), flag)
    if flag not in (None, True, False):
        fail(path, f"is_fisheye = {str(flag)[:40]!r} for {name}", "true or false", "correct it")
    if flag and given is not None and model in PERSPECTIVE:
        wanted = "one of both: camera_model OPENCV_FISHEYE is a fisheye, is_fisheye false a perspective camera"
        fail(path, f"camera_model {given}, and is_fisheye true, for {name}", wanted, "remove what is wrong")
    if flag and model in PERSPECTIVE:
        model = "OPENCV_FISHEYE"
    if model not in (*PERSPECTIVE, *OTHERS):
        remedy = "undistort the images first (colmap image_undistorter) and process them again"
        fail(path, f"camera_model {given}", ", ".join((*PERSPECTIVE[:-1], *OTHERS)), remedy)
    return model


def frame_camera(
    path: Path, name: str, image: Path, values: dict[str, Any]
) -> tuple[Path, Floats, Floats, tuple[int, int], Lens | None]:
    """The image as it fits (lpm.scenes.images.fitting), intrinsics [4], distortion [6], (width, height) and, where they
    do not tell all, the lens, from a frame's `values` (the file's, then its own)."""
    model = camera_model(path, name, values)
    width, height = image_size(image)
    if "w" in values and "h" in values:
        wanted = int(number(path, name, values, "w")), int(number(path, name, values, "h"))
        if min(wanted) <= 0:
            fail(path, f"w = {wanted[0]}, h = {wanted[1]} for {name}", "a positive width and height", "correct them")
        fits = fitting(image, wanted)
        if fits is None:
            fail(
                image,
                misfit(image, wanted),
                f"{wanted[0]}x{wanted[1]} as {path.name} says (images of different sizes need their own w, h, fl_x)",
                "use the images that the poses were made from, or give this frame its own intrinsics",
            )
        image, (width, height) = fits, wanted
    if model == "EQUIRECTANGULAR":
        lens = Lens(model, (float(width), float(height)), (width, height))
        return image, np.array([*lens.focal(), width / 2, height / 2]), np.zeros(6), (width, height), lens
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
        try:
            distortion = np.array(given, dtype=np.float64).reshape(-1)
        except (TypeError, ValueError):
            distortion = np.empty(0)
        if distortion.shape != (6,):
            got = f"distortion_params = {str(given)[:60]} for {name}"
            fail(path, got, "six numbers: k1 k2 k3 k4 p1 p2", "correct them")
    else:
        distortion = np.array([number(path, name, values, k) if k in values else 0.0 for k in DISTORTION])
    if model == "OPENCV_FISHEYE" and np.isfinite(distortion).all():
        lens = Lens(model, (fx, fy, cx, cy, *distortion[:4].tolist()), (width, height))
        return image, intrinsics, np.zeros(6), (width, height), lens
    if not np.isfinite(distortion).all() or distortion[3] != 0:
        good = "finite k1 k2 k3 p1 p2, and no k4, of a perspective camera"
        remedy = "say camera_model OPENCV_FISHEYE of a fisheye; else undistort first (colmap image_undistorter)"
        fail(path, f"distortion {distortion.tolist()} for {name}", good, remedy)
    if not distortion.any():
        return image, intrinsics, distortion, (width, height), None
    k1, k2, k3, _, p1, p2 = distortion.tolist()
    lens = Lens("FULL_OPENCV", (fx, fy, cx, cy, k1, k2, p1, p2, k3, 0.0, 0.0, 0.0), (width, height))
    return image, intrinsics, distortion, (width, height), lens if lens.folds() else None


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


def read_frames(
    path: Path, layout: Layout, meta: dict[str, Any], notes: list[str], may_lack: bool = False
) -> dict[str, Any]:
    """The cameras of `meta` (read from `path`) whose photos are there, as the keyword arguments of Scene, sorted by
    name, with the lists of `meta`.

    Args:
        notes: what was done is added to it. may_lack: all photos may be missing; there are no arguments then.
    """
    general = {key: value for key, value in meta.items() if key != "frames"}
    for i, frame in enumerate(meta["frames"]):
        if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
            fail(path, f"no file_path in frame {i}", "a file_path in each frame", "add it or remove the frame")
    named = [frame["file_path"] for frame in meta["frames"]]
    files = find_photos(layout, named, notes=notes, may_lack=may_lack)
    if not files:
        return {}
    rows = []
    for frame in meta["frames"]:
        name = frame["file_path"]
        if name not in files:
            continue
        if "transform_matrix" not in frame:
            fail(path, f"no transform_matrix for {name}", "a 4x4 matrix in each frame", "add it or remove the frame")
        pose = check_pose(f"{path}, {name}", frame["transform_matrix"])
        image, *camera = frame_camera(path, name, files[name], {**general, **frame})
        more = frame.get("mask_path"), frame.get("depth_file_path"), frame_time(path, name, frame)
        rows.append((own_name(name, files[name], layout.root), image, pose, *camera, *more))
    rows.sort(key=lambda row: row[0])
    names, images, poses, intrinsics, distortion, sizes, lenses, mask_names, depth_names, moments = zip(
        *rows, strict=True
    )
    twice = next((image for image, count in Counter(images).items() if count > 1), None)
    if twice is not None:
        name = names[images.index(twice)]
        fail(path, f"{name} stands in two frames", "each image once", "remove one of the frames")
    beside: dict[str, list[Path] | None] = {"mask_path": None, "depth_file_path": None}
    for key, given in (("mask_path", mask_names), ("depth_file_path", depth_names)):
        if any(given):
            if not all(given):
                lacking = names[[bool(file) for file in given].index(False)]
                fail(path, f"no {key} for {lacking}", f"{key} in every frame or in none", "add it")
            beside[key] = [layout.file(file) for file in given]
    timed = [moment is not None for moment in moments]
    if any(timed) and not all(timed):
        fail(path, f"no time for {names[timed.index(False)]}", "a time for every frame or for none", "add it")
    lists = {split: listed for split in SPLITS if (listed := split_list(path, meta, split))}
    return {
        "lists": kept_lists(lists, named, files, layout.root, notes),
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
    transform = check_matrix(f"{path}, applied_transform", applied if applied is not None else np.eye(4))[:3]
    scale = number(path, "the scene", {"applied_scale": 1.0, **meta}, "applied_scale")
    if scale <= 0:
        fail(path, f"applied_scale = {scale:g}", "a positive number", "correct it")
    override = meta.get("orientation_override")
    if override not in (None, "pca", "up", "vertical", "none"):
        fail(path, f"orientation_override = {str(override)[:40]!r}", "pca, up, vertical or none", "remove it")
    arguments = read_frames(path, layout, meta, notes)
    points: Points | None = None
    if meta.get("ply_file_path"):
        points = read_points(layout.file(meta["ply_file_path"]))
    elif any((model / f"points3D.{end}").is_file() for end in ("bin", "txt")):
        # Written by an old ns-process-data, without a PLY: COLMAP's own points, brought into this file's frame.
        found = read_model_points(model)
        points = found.moved(transform) if found is not None else None
    elif ply := next((p for p in sorted(root.glob("*.ply")) if p.stem.casefold() in PLYS), None):
        notes.append(f"{ply} is not read: {path.name} does not name it in ply_file_path")
    masks = folder_called(root, FOLDERS)
    if arguments["masks"] is None and masks is not None and any(masks.iterdir()):
        notes.append(f"{masks} is not used: no frame of {path.name} names a mask_path")
    return Scene(
        layout=layout,
        points=points,
        applied_transform=transform,
        applied_scale=scale,
        orientation_override=override,
        notes=notes,
        **arguments,
    )


def split_list(path: Path, meta: dict[str, Any], split: str) -> list[str]:
    """The names in the list of `meta` (read from `path`) for `split`. Raises LpmError."""
    names = meta.get(f"{split}_filenames") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        fail(path, f"{split}_filenames is no list of names", "a list of file_path", "correct or remove it")
    return list(names)


def read_blender(layout: Layout) -> Scene:
    """Reads Blender's synthetic layout; transforms_train.json and transforms_test.json (else _val) are the split.

    Where the test photos were not rendered, or there is no such file, photos to train on are held out as of any scene.
    Raises LpmError on anything that cannot be used.
    """
    root = layout.root
    notes: list[str] = []
    parts = {"train": read_frames(layout.source, layout, read_json(layout.source), notes)}
    why = "there is no transforms_test.json"
    for path in (root / f"transforms_{split}.json" for split in ("test", "val")):
        if path.is_file() and "test" not in parts:
            told: list[str] = []
            meta = read_json(path)
            test = read_frames(path, layout, meta, told, may_lack=True)
            if test:
                parts["test"] = test
                notes += told
            else:
                why = f"the {len(meta['frames'])} photos of {path.name} are not there"
    if "test" not in parts:
        notes.append(f"{why}: photos of {layout.source.name} are held out")
    first = parts["train"]
    joined: dict[str, Any] = {
        key: [v for part in parts.values() for v in part[key]] for key in ("names", "images", "lenses")
    }
    for key in ("c2w", "intrinsics", "distortion", "sizes"):
        joined[key] = np.concatenate([part[key] for part in parts.values()])
    if len({part["capture_times"] is None for part in parts.values()}) > 1:
        fail(root, "times in only one of train and test", "times in both, or in none", "add them")
    if first["capture_times"] is not None:  # D-NeRF
        joined["capture_times"] = np.concatenate([part["capture_times"] for part in parts.values()])
        joined["cams"] = [cam for part in parts.values() for cam in part["cams"]]
    plys = [root / name for name in ("points3d.ply", "points3D.ply", "sparse_pc.ply")]
    ply = next((path for path in plys if path.is_file()), None)
    return Scene(
        layout=layout,
        points=read_points(ply) if ply else None,
        lists={split: part["names"] for split, part in parts.items()} if "test" in parts else {},
        alpha_color="white",
        notes=notes,
        **joined,
    )
