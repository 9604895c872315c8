"""Frames from a video: the sharpest one of each of equally long parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lpm.checks import fail, need
from lpm.prepare import hdr

WIDTH = 960
"""Sharpness is measured at most this wide: less noise, and blur of a pixel or two does not matter."""
QUALITY = 97
VIDEO = ("a video that FFmpeg decodes (H.264 in MP4, ...)", "convert it: ffmpeg -i VIDEO -crf 16 OUT.mp4")


def sharpness(gray: NDArray[np.uint8]) -> float:
    """Variance of the Laplacian of `gray` [H, W], 0..255, relative to its own variance.

    The division makes frames of a flickering or fading video comparable.
    """
    import cv2

    if gray.shape[1] > WIDTH:
        size = (WIDTH, max(round(gray.shape[0] * WIDTH / gray.shape[1]), 1))
        gray = np.asarray(cv2.resize(gray, size, interpolation=cv2.INTER_AREA), np.uint8)
    return float(cv2.Laplacian(gray, cv2.CV_64F).var() / (float(gray.var()) + 1.0))


def opened(path: Path) -> Any:
    """PyAV's container of the video. Raises LpmError."""
    need("av", "prepare")
    import av

    try:
        container = av.open(str(path))
    except (av.FFmpegError, OSError):
        fail(path, "cannot be decoded", *VIDEO)
    if not container.streams.video:
        container.close()
        fail(path, "no picture in it", *VIDEO)
    return container


def times(path: Path) -> list[int]:
    """When each frame is shown, in order, in the stream's own unit; its number, where the file tells no times.

    Nothing is decoded. Raises LpmError.
    """
    with opened(path) as container:
        found = [packet.pts for packet in container.demux(video=0) if packet.size]
    return list(range(len(found))) if None in found else sorted(found)


def broken_off(path: Path) -> str | None:
    """What is missing at the end of a video that is not all there, in words; None: nothing is.

    Nothing is decoded: the file says how many frames there should be or how long they last. Raises LpmError.
    """
    shown = times(path)
    with opened(path) as container:
        stream = container.streams.video[0]
        if stream.frames:
            there, whole, unit = float(len(shown)), float(stream.frames), "frames"
        else:
            length = stream.duration or (container.duration or 0) * 1e-6 / float(stream.time_base)
            there, whole = (float(t * stream.time_base) for t in (shown[-1] - shown[0] if shown else 0, length))
            unit = "seconds"
    if there > 0.95 * whole - (1 if unit == "seconds" else 0):  # sound may go on for longer
        return None
    return f"what comes after {there:.4g} of {whole:.4g} {unit}: the file breaks off there"


def decoded(path: Path) -> Iterator[Any]:
    """PyAV's frames of the video, in order; what cannot be decoded is left out. Raises LpmError."""
    import av

    with opened(path) as container:
        container.streams.video[0].thread_type = "AUTO"
        packets = container.demux(video=0)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, av.FFmpegError):
                return
            try:
                yield from packet.decode()
            except av.FFmpegError:
                continue


def picture(frame: Any) -> NDArray[np.uint8]:
    """PyAV's `frame` as sRGB [H, W, 3], turned upright as its file says."""
    pixels = hdr.tone_mapped(frame) if hdr.transfer(frame) else frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))


def sharpest(
    path: Path, wanted: int, folder: Path, done: Callable[[float], None] = lambda share: None
) -> list[tuple[str, float]]:
    """Writes the sharpest frame of each of `wanted` parts of the video, of equal time, into `folder`.

    Args:
        done: called after every frame with the share of the video that is done.

    Returns:
        names (frame_INDEX.jpg) and sharpness of the frames taken, in order of time.

    Raises:
        LpmError: not a video, or fewer than 3 frames in it.
    """
    shown = times(path)
    count = max(len(shown), 1)
    # To the end of the last frame, which is as long as the others are in the mean.
    length = (shown[-1] - shown[0]) * count / (count - 1) if count > 1 else 1.0
    taken: list[tuple[str, float]] = []
    best: tuple[float, int, Any] | None = None
    part = 0

    def keep() -> None:
        if best is not None:
            name = f"frame_{best[1]:06d}.jpg"
            Image.fromarray(picture(best[2])).save(folder / name, quality=QUALITY)
            taken.append((name, best[0]))

    for i, frame in enumerate(decoded(path)):
        at = i if frame.pts is None else frame.pts - shown[0]
        now = min(max(int(at / length * wanted + 1e-6), part), wanted - 1)
        if now != part:
            keep()
            best, part = None, now
        value = sharpness(frame.to_ndarray(format="gray"))
        if best is None or value > best[0]:
            best = (value, i, frame)
        done(min((i + 1) / count, 1.0))
    keep()
    if len(taken) < 3:
        fail(path, f"{len(taken)} frames in it", "a video of at least 3 frames", "check that it plays")
    return taken
