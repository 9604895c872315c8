"""The scene that is trained on, where photos are by fisheyes and the like: pinhole views cut out of each photo.

The views of a photo stand on a rig: COLMAP's rigs and frames say that they were taken at once, and lpm.scenes holds
them out together.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lpm.prepare.panorama import fixed
from lpm.prepare.sfm import load_pycolmap
from lpm.scenes.cut_up import made, named, seen_by
from lpm.scenes.cuts import Cut, cuts
from lpm.scenes.images import load_image
from lpm.scenes.layouts.colmap import SUPPORTED
from lpm.scenes.lenses import Lens


def lenses(model: Any) -> dict[int, Lens]:
    """The lens of each camera of pycolmap's reconstruction `model`, by its id."""
    return {
        key: Lens(camera.model.name, tuple(float(value) for value in camera.params), (camera.width, camera.height))
        for key, camera in model.cameras.items()
    }


def needed(model: Any, fov: float | None) -> bool:
    """Whether photos of `model` have to be cut here: its lens is none that COLMAP's undistortion does well."""
    if any(rig.num_sensors() > 1 for rig in model.rigs.values()):
        return True
    return fov is not None or any(lens.model not in SUPPORTED or lens.folds() for lens in lenses(model).values())


def write(
    work: Path, own_masks: bool, fov: float | None, new: Path, quality: int, done: Callable[[int], None]
) -> list[str]:
    """Writes new/images, new/sparse/0 (PINHOLE, with points and tracks) and, where there are any, new/masks.

    Args:
        work: has images/, masks/ where there are any, and model/.
        own_masks: whether masks are the user's. fov: degrees across of one view; None: see lpm.scenes.cuts.
        quality: of JPEGs.
        done: called with the number of photos that are cut so far.

    Returns:
        what was made of the photos of each lens, in words.

    Raises:
        LpmError: a lens sees nothing along its axis.
    """
    pycolmap = load_pycolmap()
    model = pycolmap.Reconstruction(work / "model")
    known = fixed(model.cameras, model.rigs)
    by_camera = {key: cuts(lens, None if key in known else fov, f"camera {key}") for key, lens in lenses(model).items()}
    masked = own_masks or any(not cut.whole for found in by_camera.values() for cut in found)
    scene = pycolmap.Reconstruction()
    ids = rigs(pycolmap, model, scene, by_camera)
    tracks: dict[int, Any] = {key: pycolmap.Track() for key in model.points3D}
    posed = sorted((image for image in model.images.values() if image.has_pose), key=lambda image: image.name)
    views: dict[int, list[Any]] = {frame: [] for frame in sorted({image.frame_id for image in posed})}
    key = 0
    for count, image in enumerate(posed, 1):
        found = by_camera[image.camera_id]
        for cut, camera in zip(found, ids[image.camera_id], strict=True):
            key += 1
            pixels, points = observations(model.cameras[image.camera_id], image, cut)
            view = pycolmap.Image(name=named(image.name, cut), keypoints=pixels, camera_id=camera, image_id=key)
            view.frame_id = image.frame_id
            for place, point in enumerate(points):
                tracks[point].add_element(key, place)
            views[image.frame_id].append(view)
        save(work, image.name, found, own_masks, masked, new, quality)
        done(count)
    for number, taken in views.items():
        frame = pycolmap.Frame()
        frame.frame_id, frame.rig_id = number, model.frames[number].rig_id
        for view in taken:
            frame.add_data_id(view.data_id)
        frame.rig_from_world = model.frames[number].rig_from_world
        scene.add_frame(frame)
        for view in taken:
            scene.add_image(view)
        scene.register_frame(number)
    for point_id, point in model.points3D.items():
        if tracks[point_id].length() >= 2:
            scene.add_point3D(point.xyz, tracks[point_id], point.color)
    scene.update_point_3d_errors()
    folder = new / "sparse" / "0"
    folder.mkdir(parents=True)
    scene.write(folder)
    told = [f"{seen_by(lens)} to {made(by_camera[key])}" for key, lens in lenses(model).items() if key not in known]
    return told + ["360 degree photos to faces of a cube, before poses were found"] * bool(known)


def rigs(pycolmap: Any, model: Any, scene: Any, by_camera: dict[int, list[Cut]]) -> dict[int, list[int]]:
    """Adds a PINHOLE camera for each view to `scene`, on the rigs of `model`; the ids of the views' cameras by camera.

    The first view of every lens is the one in front, in the axes of the lens: what a rig turns about stays.
    """
    ids: dict[int, list[int]] = {}
    count = 0
    for number, old in model.rigs.items():
        rig = pycolmap.Rig()
        rig.rig_id = number
        others = list(old.non_ref_sensors.items())
        for sensor, pose in [(old.ref_sensor_id, pycolmap.Rigid3d()), *others]:
            ids[sensor.id] = []
            for cut in by_camera[sensor.id]:
                count += 1
                ids[sensor.id].append(count)
                camera = pycolmap.Camera(
                    model="PINHOLE", width=cut.size[0], height=cut.size[1], params=cut.intrinsics, camera_id=count
                )
                scene.add_camera(camera)
                if rig.num_sensors() == 0:
                    rig.add_ref_sensor(camera.sensor_id)
                else:
                    turned = pycolmap.Rigid3d(pycolmap.Rotation3d(cut.turn.T), np.zeros(3))
                    rig.add_sensor(camera.sensor_id, turned * pose)
        scene.add_rig(rig)
    return ids


def observations(camera: Any, image: Any, cut: Cut) -> tuple[Any, list[int]]:
    """Where `cut` shows the points that pycolmap's `image` by `camera` sees: pixels [K, 2], and the points' ids."""
    seen = [point for point in image.points2D if point.has_point3D()]
    if not seen:
        return np.zeros((0, 2)), []
    rays = camera.cam_ray_from_img(np.array([point.xy for point in seen]))
    local = np.asarray(rays, np.float64).reshape(-1, 3) @ cut.turn
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = local[:, :2] / local[:, 2:] * cut.intrinsics[:2] + cut.intrinsics[2:]
        inside = (local[:, 2] > 1e-6) & ((pixels >= 0) & (pixels < cut.size)).all(1)
    return pixels[inside], [seen[i].point3D_id for i in np.flatnonzero(inside)]


def save(work: Path, name: str, found: list[Cut], own_masks: bool, masked: bool, new: Path, quality: int) -> None:
    """The views `found` of the photo `name`, and their masks; a photo that is its own view is copied."""
    if len(found) == 1 and found[0].lens.model in ("PINHOLE", "SIMPLE_PINHOLE") and found[0].size == found[0].lens.size:
        for folder, file in (("images", name), ("masks", f"{name}.png")):
            target = new / folder / file
            target.parent.mkdir(parents=True, exist_ok=True)
            if folder == "images" or own_masks:
                shutil.copyfile(work / folder / file, target)
            elif masked:
                Image.new("L", found[0].size, 255).save(target)
        return
    photo = load_image(work / "images" / name)
    mask = load_image(work / "masks" / f"{name}.png")[..., 0] if own_masks else None
    for cut in found:
        view, there = cut.take(photo, mask)
        target = new / "images" / named(name, cut)
        target.parent.mkdir(parents=True, exist_ok=True)
        told: dict[str, Any] = (
            {"quality": quality, "subsampling": 0} if target.suffix == ".jpg" else {"compress_level": 3}
        )
        Image.fromarray(view).save(target, **told)
        if masked:
            path = new / "masks" / f"{named(name, cut)}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.where(there, 255, 0).astype("u1")).save(path)
