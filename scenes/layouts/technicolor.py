"""The layout of Technicolor's light-field videos: cameras_parameters.txt, and images NAME_FRAME_CAMERA.png."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from lpm.checks import fail
from lpm.scenes.images import image_size
from lpm.scenes.layout import Layout
from lpm.scenes.scene import Floats, Scene, check_intrinsics, check_pose
from lpm.scenes.texts import read_text

NAME = re.compile(r".*_(\d+)_(\d+)\.(png|jpg|jpeg)$", re.IGNORECASE)
FULL = (2048, 1088)
"""Width and height of the images that the file speaks of; smaller ones are these, scaled."""


def read_rows(path: Path) -> Floats:
    """[cameras, 12]: focal length, cx, cy (pixels), aspect, skew, quaternion wxyz and translation, world to camera
    (OpenCV). The first line names the columns. Raises LpmError."""
    rows = []
    for number, line in enumerate(read_text(path).splitlines()[1:], 2):
        words = line.split()
        if not words:
            continue
        try:
            rows.append([float(word) for word in words])
        except ValueError:
            fail(path, f"line {number} holds a word", "twelve numbers", "restore the file")
        if len(words) != 12:
            fail(path, f"{len(words)} numbers in line {number}", "twelve", "restore the file")
    if not rows:
        fail(path, "no cameras", "a line for every camera", "restore the file")
    return np.array(rows)


def read_technicolor(layout: Layout) -> Scene:
    """Reads the layout; images lie in images/ or beside the file. Raises LpmError on anything that cannot be used."""
    path, root = layout.source, layout.root
    rows = read_rows(path)
    folder = root / "images" if (root / "images").is_dir() else root
    found = {(int(m[1]), int(m[2])): file for file in sorted(folder.iterdir()) if (m := NAME.match(file.name))}
    frames, cams = sorted({frame for frame, _ in found}), sorted({cam for _, cam in found})
    if len(cams) != len(rows):
        fail(folder, f"images of {len(cams)} cameras", f"of {len(rows)}, as {path.name} has", "restore what is missing")
    if len(frames) < 2:
        fail(folder, f"{len(frames)} frames", "at least two", "restore what is missing")
    images, poses, lenses, sizes, capture_times, names = [], [], [], [], [], []
    for row, cam in zip(rows, cams, strict=True):
        rotation = Rotation.from_quat(row[[6, 7, 8, 5]]).as_matrix()
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = rotation.T * [1.0, -1.0, -1.0], -rotation.T @ row[9:]
        pose = check_pose(f"{path}, camera {cam}", pose)
        for i, frame in enumerate(frames):
            file = found.get((frame, cam))
            if file is None:
                fail(
                    folder, f"no image of camera {cam} at frame {frame}", "one of every camera at every frame", "add it"
                )
            width, height = image_size(file)
            scale = np.array([width / FULL[0], height / FULL[1]])
            lens = np.array([row[0], row[0] * row[3], row[1], row[2]]) * np.tile(scale, 2)
            check_intrinsics(f"{path}, camera {cam}", lens, (width, height))
            images.append(file)
            names.append(str(file.relative_to(root)))
            poses.append(pose)
            lenses.append(lens)
            sizes.append((width, height))
            capture_times.append(i / (len(frames) - 1))
    return Scene(
        layout=layout, names=names, images=images, c2w=np.stack(poses), intrinsics=np.stack(lenses),
        distortion=np.zeros((len(names), 6)), sizes=np.array(sizes, dtype=np.int64),
        capture_times=np.array(capture_times),
        cams=[f"{cam:02d}" for cam in cams for _ in frames],
    )  # fmt: skip
