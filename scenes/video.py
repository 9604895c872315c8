"""Frames of video files as if they were images: `clip.mp4/000012` is the thirteenth frame of clip.mp4."""

from __future__ import annotations

import functools
import threading
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lpm.checks import fail

SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm")
REMEDY = "copy the video again from its source, or encode it as H.264"


def frame_path(clip: Path, index: int) -> Path:
    """The path that stands for frame `index` (from 0) of `clip`."""
    return clip / f"{index:06d}"


def is_frame(path: Path) -> bool:
    """Whether `path` stands for a frame of a video that is there."""
    return path.parent.suffix.lower() in SUFFIXES and path.parent.is_file()


@functools.lru_cache(maxsize=4096)
def clip_size(clip: Path) -> tuple[int, int, int]:
    """(width, height, number of frames) of a video. Raises LpmError if it cannot be read."""
    capture = cv2.VideoCapture(str(clip))
    try:
        wanted = (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_COUNT)
        width, height, count = (int(capture.get(name)) for name in wanted)
    finally:
        capture.release()
    if min(width, height, count) <= 0:
        fail(clip, "not a video that can be decoded", "a video", REMEDY)
    return width, height, count


class _Decoder:
    """Decodes a clip from its start when a frame is first asked for, and keeps what was not asked for yet.

    Jumping to a frame is slow and, with many encoders, lands beside it. Whoever reads a clip's frames once, in any
    order and from any threads, has each decoded once; a clip's frames are in memory only until they are taken.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._frames: dict[Path, dict[int, NDArray[np.uint8]]] = {}
        self._last: dict[Path, int] = {}

    def announce(self, clip: Path, last: int) -> None:
        """No frame after `last` will be asked for."""
        self._last[clip] = max(last, self._last.get(clip, 0))

    def frame(self, clip: Path, index: int) -> NDArray[np.uint8]:
        """[H, W, 3] RGB."""
        with self._lock:
            frames = self._frames.setdefault(clip, {})
            if index not in frames:
                frames |= self._decode(clip, max(index, self._last.get(clip, index)))
            if index not in frames:
                fail(clip, f"frame {index} cannot be decoded", f"{clip_size(clip)[2]} frames as it says", REMEDY)
            result = frames.pop(index)
            if not frames:
                del self._frames[clip]
            return result

    def _decode(self, clip: Path, last: int) -> dict[int, NDArray[np.uint8]]:
        capture = cv2.VideoCapture(str(clip))
        found = {}
        try:
            for index in range(last + 1):
                there, image = capture.read()
                if not there:
                    break
                found[index] = np.ascontiguousarray(image[..., ::-1])
        finally:
            capture.release()
        return found


_decoder = _Decoder()
announce = _decoder.announce


def load_frame(path: Path) -> NDArray[np.uint8]:
    """Pixels [H, W, 3], RGB, 0..255, of the frame that `path` stands for. Raises LpmError if it cannot be decoded."""
    return _decoder.frame(path.parent, int(path.name))
