"""COLMAP's layout: photos in images/, a sparse model with their cameras (lpm.scenes.layouts.colmap_tables), masks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from lpm.checks import fail
from lpm.scenes.images import fitting, misfit
from lpm.scenes.layout import PHOTOS, Layout, folder_called, photo_folder
from lpm.scenes.layouts.colmap_tables import (
    BROKEN,
    Camera,
    guarded,
    read_cameras,
    read_frames,
    read_images,
    read_model_points,
    table,
)
from lpm.scenes.lenses import NAMES, Lens
from lpm.scenes.masks import find_masks
from lpm.scenes.photo_files import find_photos, kept_lists, own_name
from lpm.scenes.scene import Floats, Scene, check_intrinsics, check_pose, rotation
from lpm.scenes.texts import read_text

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
    if not found:
        fail(images_path, "no images in the model", "at least two posed images", "run the reconstruction again")
    pictures = picture_folder(root)
    notes: list[str] = []
    named = [view.name for view in found.values()]
    twice = next((name for name, count in Counter(named).items() if count > 1), None)
    if twice is not None:
        fail(images_path, f"{twice} stands in it twice", "each image once", BROKEN)
    files = find_photos(layout, named, pictures.relative_to(root).as_posix(), notes=notes)
    keys = sorted((key for key in found if found[key].name in files), key=lambda key: found[key].name)
    views = [found[key] for key in keys]
    frames_path = table(folder, "frames")
    frames = {} if frames_path is None else guarded(read_frames, frames_path)
    shots = [frames.get(key, -key) for key in keys]
    images, poses, intrinsics, distortion, lenses = [], [], [], [], []
    values = {}
    for view in views:
        if view.camera not in cameras:
            fail(images_path, f"{view.name} has camera {view.camera}", f"one that {cameras_path.name} holds", BROKEN)
        camera = cameras[view.camera]
        image = fitting(files[view.name], (camera.width, camera.height))
        if image is None:
            fail(
                files[view.name],
                misfit(files[view.name], (camera.width, camera.height)),
                f"{camera.width}x{camera.height} as {cameras_path.name} says of its camera",
                "use the images that COLMAP was run on, not scaled ones",
            )
        if view.camera not in values:
            values[view.camera] = camera_values(cameras_path, view.camera, camera)
        pinhole, bends, lens = values[view.camera]
        if not 1e-9 < float(np.linalg.norm(view.qvec)) < np.inf:
            got = f"{view.name} has the quaternion {view.qvec.tolist()}"
            fail(images_path, got, "one that is a rotation", BROKEN)
        w2c = np.eye(4)
        with np.errstate(invalid="ignore", divide="ignore"):
            w2c[:3, :3] = rotation(view.qvec)
        w2c[:3, 3] = view.tvec
        c2w = np.linalg.inv(check_pose(f"{images_path}, {view.name}", w2c))
        c2w[:3, 1:3] *= -1  # OpenCV's camera axes to OpenGL's
        c2w[:3] = Z_UP @ c2w
        images.append(image)
        poses.append(c2w)
        intrinsics.append(pinhole)
        distortion.append(bends)
        lenses.append(lens)
    names = [own_name(view.name, files[view.name], pictures) for view in views]
    masks = find_masks(root, pictures, names)
    points = read_model_points(folder, notes)
    there = {path for path in pictures.rglob("*") if path.suffix.lower() in PHOTOS}.difference(masks or [])
    spare = len(there.difference(files.values()))
    if spare and pictures != root:
        notes.append(f"{spare} of {len(there)} images have no pose in {images_path.name} and are left out")
    return Scene(
        layout=layout,
        names=names,
        images=images,
        c2w=np.stack(poses),
        intrinsics=np.stack(intrinsics),
        distortion=np.stack(distortion),
        sizes=np.array([(cameras[v.camera].width, cameras[v.camera].height) for v in views], dtype=np.int64),
        points=points.moved(Z_UP) if points is not None else None,
        masks=masks,
        lenses=lenses,
        shots=shots if len(set(shots)) < len(shots) else None,
        applied_transform=Z_UP.copy(),
        lists=kept_lists(split_lists(root), named, files, pictures, notes),
        notes=notes,
    )


def picture_folder(root: Path) -> Path:
    """The folder of the photos: images/, in any case, else `root` itself if it has some. Raises LpmError."""
    folder = folder_called(root, ("images",))
    if folder is None and photo_folder(root) == root:
        return root
    if folder is None:
        wanted = "the images that COLMAP was run on"
        fail(root / "images", "no such folder", wanted, "name the folder of photos `images`")
    return folder


def split_lists(root: Path) -> dict[str, list[str]]:
    """nerfstudio's train_list.txt, test_list.txt and validation_list.txt (one image name a line), where present."""
    lists = {}
    for split, file in (("train", "train_list.txt"), ("val", "validation_list.txt"), ("test", "test_list.txt")):
        if (root / file).is_file():
            names = [line.strip() for line in read_text(root / file).splitlines()]
            lists[split] = [name for name in names if name]
    return lists
