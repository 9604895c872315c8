"""A film of pictures: .mp4 (H.264) by ffmpeg where it is on PATH, else .webm (VP8) by OpenCV."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lpm.checks import fail
from lpm.files import atomic_path


def ending() -> str:
    """What a film's name ends with on this machine: .mp4 or .webm."""
    return ".mp4" if shutil.which("ffmpeg") else ".webm"


def write_video(out: Path, pictures: Iterable[NDArray[np.uint8]], size: tuple[int, int], fps: float) -> int:
    """Writes `pictures`, [H, W, 3] uint8 each, to `out`; the file appears when it is whole.

    Args:
        out: a name with ending().
        pictures: taken one by one. If they raise, nothing is left behind.
        size: width and height, both even, as video codecs want them.
        fps: pictures a second.

    Returns:
        How many there were.

    Raises:
        LpmError: it cannot be written.
    """
    width, height = size
    if width % 2 or height % 2:
        fail("size", f"{width}x{height}", "an even width and height")
    with atomic_path(out) as path:
        write = _by_ffmpeg if out.suffix == ".mp4" else _by_opencv
        count = write(path, pictures, width, height, fps)
        if not path.is_file() or path.stat().st_size == 0:
            fail(out, "nothing was written", "a film of at least one picture")
    return count


def _by_ffmpeg(path: Path, pictures: Iterable[NDArray[np.uint8]], width: int, height: int, fps: float) -> int:
    command = [
        "ffmpeg", "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}",
        "-r", f"{fps}", "-i", "-", "-an", "-c:v", "libx264", "-crf", "18", "-pix_fmt", "yuv420p",
        "-movflags", "+faststart", str(path),
    ]  # fmt: skip
    count = 0
    # To a file, not a pipe that nobody empties while pictures are written.
    with (path.parent / "said").open("w+b") as said, contextlib.ExitStack() as stack:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said)
        stack.callback(process.kill)
        assert process.stdin is not None
        try:
            for picture in pictures:
                process.stdin.write(np.ascontiguousarray(picture).tobytes())
                count += 1
            process.stdin.close()
        except BrokenPipeError:  # it ended; its last line says why
            pass
        if process.wait(600):
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
            fail("ffmpeg", f"ended with {(lines or ['no word'])[-1][:200]}", "an ffmpeg with libx264")
    return count


def _by_opencv(path: Path, pictures: Iterable[NDArray[np.uint8]], width: int, height: int, fps: float) -> int:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"VP80"), fps, (width, height))
    if not writer.isOpened():
        fail(path.name, "OpenCV cannot write films here", "ffmpeg on PATH, or an OpenCV with libvpx")
    count = 0
    try:
        for picture in pictures:
            writer.write(np.ascontiguousarray(picture[..., ::-1]))
            count += 1
    finally:
        writer.release()
    return count
