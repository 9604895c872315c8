"""Neural 3D Video's layout: a video per camera, and LLFF's poses_bounds.npy for all of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lpm.checks import fail
from lpm.scenes import video
from lpm.scenes.layout import Layout
from lpm.scenes.layouts.llff import camera_of, read_rows
from lpm.scenes.ply import read_points
from lpm.scenes.scene import Scene

MOST_BYTES = 6 * 2**30
"""Of all frames together, uint8: what is kept in memory."""


def clips(root: Path) -> list[Path]:
    """The videos of `root`, sorted by name, one per camera."""
    return sorted(path for path in root.iterdir() if path.suffix.lower() in video.SUFFIXES)


def read_multiview_video(layout: Layout) -> Scene:
    """Reads poses_bounds.npy and the videos beside it.

    Where the clips are longer than fits into memory, the first frames are taken. Raises LpmError on anything that
    cannot be used.
    """
    path, root = layout.source, layout.root
    rows = read_rows(path)
    files = clips(root)
    if len(rows) != len(files):
        fail(
            path, f"array {list(rows.shape)} for {len(files)} videos", f"[{len(files)}, 17], a row for each video",
            "add the missing videos, or remove the rows of cameras that are not there",
        )  # fmt: skip
    sizes = [video.clip_size(file) for file in files]
    notes = []
    count = min(size[2] for size in sizes)
    if count != max(size[2] for size in sizes):
        shortest = files[[size[2] for size in sizes].index(count)].name
        notes.append(
            f"{root}: the clips are not equally long; the first {count} frames are taken ({shortest} ends there)"
        )
    fits = MOST_BYTES // sum(3 * width * height for width, height, _ in sizes)
    if count > fits:
        notes.append(f"{root}: the first {fits} of {count} frames are taken, which is what fits into 6 GiB")
        count = fits
    if count < 2:
        fail(root, f"{count} frame(s) for each camera", "at least two", "scale the videos down")
    names, images, poses, intrinsics, all_sizes, cams, capture_times = [], [], [], [], [], [], []
    for file, row, (width, height, _) in zip(files, rows, sizes, strict=True):
        pose, lens = camera_of(row, (width, height), f"{path}, {file.name}")
        video.announce(file, count - 1)
        for i in range(count):
            names.append(f"{file.name}/{i:06d}")
            images.append(video.frame_path(file, i))
            poses.append(pose)
            intrinsics.append(lens)
            all_sizes.append((width, height))
            cams.append(file.stem)
            capture_times.append(i / (count - 1))
    ply = root / "points3D.ply"
    return Scene(
        layout=layout, names=names, images=images, c2w=np.stack(poses), intrinsics=np.stack(intrinsics),
        distortion=np.zeros((len(names), 6)), sizes=np.array(all_sizes, dtype=np.int64),
        capture_times=np.array(capture_times),
        cams=cams, points=read_points(ply) if ply.is_file() else None, notes=notes,
    )  # fmt: skip
