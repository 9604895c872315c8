"""Frames from a video: the sharpest one of each of equally long parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lpm.checks import fail

WIDTH = 960
"""Sharpness is measured at most this wide: less noise, and blur of a pixel or two does not matter."""
QUALITY = 97


def sharpness(image: NDArray[np.uint8]) -> float:
    """Variance of the Laplacian of `image` [H, W, 3], BGR 0..255, relative to that of its grey values.

    The division makes frames of a flickering or fading video comparable.
    """
    import cv2

    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    if gray.shape[1] > WIDTH:
        size = (WIDTH, max(round(gray.shape[0] * WIDTH / gray.shape[1]), 1))
        gray = cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
    return float(cv2.Laplacian(gray, cv2.CV_64F).var() / (float(gray.var()) + 1.0))


def decoded(path: Path) -> Iterator[NDArray[np.uint8]]:
    """Every frame of the video [H, W, 3], BGR, turned upright as its file says. Raises LpmError."""
    import cv2

    video = cv2.VideoCapture(str(path))
    try:
        if not video.isOpened():
            fail(path, "cannot be decoded", "a video that OpenCV reads (H.264 in MP4, ...)", "convert it with ffmpeg")
        video.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)  # its default, on which nothing here should hang
        while True:
            ok, image = video.read()
            if not ok:
                return
            yield np.asarray(image, dtype=np.uint8)
    finally:
        video.release()


def count(path: Path) -> int:
    """Number of frames: as the file says, or counted where it does not say."""
    import cv2

    video = cv2.VideoCapture(str(path))
    said = int(video.get(cv2.CAP_PROP_FRAME_COUNT)) if video.isOpened() else 0
    video.release()
    return said if said > 0 else sum(1 for _ in decoded(path))


def sharpest(
    path: Path, wanted: int, folder: Path, done: Callable[[float], None] = lambda share: None
) -> list[tuple[str, float]]:
    """Writes the sharpest frame of each of `wanted` equal parts of the video into `folder` as frame_INDEX.jpg.

    Args:
        done: called after every frame with the share of the video that is done.

    Returns:
        names and sharpness of the frames taken, in order of time.

    Raises:
        LpmError: not a video, or fewer than 3 frames in it.
    """
    import cv2

    total = count(path)
    taken: list[tuple[str, float]] = []
    best: tuple[float, int, NDArray[np.uint8]] | None = None
    part = 0

    def keep() -> None:
        if best is not None:
            name = f"frame_{best[1]:06d}.jpg"
            cv2.imwrite(str(folder / name), best[2], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
            taken.append((name, best[0]))

    for i, image in enumerate(decoded(path)):
        # Files may say less frames than they have: the last part takes the rest.
        now = min(i * wanted // max(total, 1), wanted - 1)
        if now != part:
            keep()
            best, part = None, now
        value = sharpness(image)
        if best is None or value > best[0]:
            best = (value, i, image)
        done(min((i + 1) / max(total, 1), 1.0))
    keep()
    if len(taken) < 3:
        fail(path, f"{len(taken)} frames in it", "a video of at least 3 frames", "check that it plays")
    return taken
