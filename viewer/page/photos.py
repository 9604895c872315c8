"""A run's photos and the cameras they were taken with, in the frame it was trained in, if they are still there."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from lpm.checks import LpmError
from lpm.files import Progress, quiet
from lpm.gaussians.similarity import Similarity
from lpm.runs.folder import CONFIGS
from lpm.scenes.images import turned_file
from lpm.scenes.read import read_scene
from lpm.scenes.scene import Scene
from lpm.viewer.page.camera import Camera, camera_at

# nerfstudio's file is YAML with Python objects of nerfstudio in it, which reading as YAML would import.
DATA = re.compile(r"^( *)data: (?:&\w+ )?!!python/object/apply:pathlib\.\w*Path\n((?:\1- .*\n)+)", re.MULTILINE)
SCENE = re.compile(r'^scene = "(.*)"$', re.MULTILINE)
THUMBNAIL = 160
"""Most pixels along a side of a photo in the page."""
MOST = 80
"""Most photos that are shown; evenly spaced ones of a longer list."""


@dataclass
class Photo:
    """A photo and where it was taken."""

    name: str
    camera: Camera
    """In the training frame."""
    thumbnail: NDArray[np.uint8]
    """[h, w, 3] uint8."""


def _named(run: Path) -> Iterator[Path]:
    """The folders that the config files of the run in `run` call its scene."""
    for name in CONFIGS:
        if (run / name).is_file():
            text = (run / name).read_text(errors="replace")
            for line in SCENE.finditer(text):
                yield Path(line[1])
            for found in DATA.finditer(text):
                yield Path(*(line.strip()[2:].strip().strip("'\"") for line in found[2].splitlines()))


def data_folder(run: Path) -> Path | None:
    """The scene that the run in `run` was trained on, as its config file says; None if it says none or it is gone.

    A relative path is tried from here, and from the folders above the run, where it may have been started.
    """
    for path in _named(run):
        if path.is_absolute():
            places = [path]
        else:
            places = [path, *(above / path for above in run.absolute().parents)]
        for place in places:
            if place.exists() and place.resolve() != Path.cwd():
                return place
    return None


def in_training_frame(scene: Scene, world_to_train: Similarity) -> NDArray[np.float64]:
    """[V, 4, 4] camera to world of `scene`, in the training frame, with OpenCV axes."""
    poses = scene.c2w.copy()
    # What a tool did to the scene's frame is in nerfstudio's transform already: here = applied_scale * applied @ world.
    applied = scene.applied_transform
    back = np.linalg.inv(applied[:, :3])
    poses[:, :3, 3] = (poses[:, :3, 3] / scene.applied_scale - applied[:, 3]) @ back.T
    poses[:, :3, :3] = back @ poses[:, :3, :3]
    poses[:, :3, 3] = world_to_train.scale * poses[:, :3, 3] @ world_to_train.rotation.T + world_to_train.translation
    poses[:, :3, :3] = world_to_train.rotation @ poses[:, :3, :3]
    poses[:, :3, 1:3] *= -1
    return poses


def _thumbnail(path: Path) -> NDArray[np.uint8]:
    file = turned_file(path)
    with Image.open(file) as image:
        image.draft("RGB", (THUMBNAIL, THUMBNAIL))  # a JPEG is decoded small at once
        small = (image if file == path else ImageOps.exif_transpose(image)).convert("RGB")
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        return np.array(small)


def read_photos(run: Path, world_to_train: Similarity | None, progress: Progress = quiet) -> tuple[list[Photo], str]:
    """The photos of the run in `run`, at most MOST of them, and one line on why there are none or fewer."""
    folder = data_folder(run)
    if folder is None:
        return [], "The run's photos are not found: its config file names no folder that is there."
    if world_to_train is None:
        return [], "The run's photos are not shown: no dataparser_transforms.json says how it lies to them."
    try:
        scene = read_scene(folder)
    except (LpmError, OSError) as error:
        return [], f"The run's photos are not shown: {error}"
    poses = in_training_frame(scene, world_to_train)
    chosen = np.unique(np.linspace(0, len(scene) - 1, min(len(scene), MOST)).round().astype(int))
    out, broken = [], 0
    for i in progress(range(len(chosen)), "reading photos"):
        k = int(chosen[i])
        (width, height), focal = scene.sizes[k].tolist(), float(scene.intrinsics[k, 1])
        try:
            small = _thumbnail(scene.images[k])
            cut = None if scene.cuts is None else scene.cuts[k]
            if cut is not None:
                shown = cut.centred(THUMBNAIL)
                small = shown.take(small)[0]
                poses[k, :3, :3] = poses[k, :3, :3] @ cut.turn.T @ shown.turn
                (width, height), focal = shown.size, float(shown.intrinsics[1])
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            broken += 1
            continue
        # Mirrored poses are no rotations; such a scene could not have been trained on.
        if np.linalg.det(poses[k, :3, :3]) > 0:
            camera = camera_at(poses[k], 2 * math.atan(height / 2 / focal), width / height)
            out.append(Photo(scene.names[k], camera, small))
    note = f"{len(out)} of {len(scene)} photos are shown." if len(out) < len(scene) else ""
    if broken:
        note += f" {broken} cannot be read."
    return out, note.strip()
