"""A film of Gaussians without a page: what moves plays, what stands still is passed along its photos."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lpm.checks import fail
from lpm.files import Progress, quiet
from lpm.viewer.page import camera_path
from lpm.viewer.page.camera import Camera, size_of
from lpm.viewer.page.render_thread import RenderRequest
from lpm.viewer.page.scene import Shown
from lpm.viewer.page.video import ending, write_video

STATIONS = 12
"""Photos that the camera passes in a scene that stands still."""


def film(
    shown: Shown, cameras: list[Camera], out: Path, longer: int = 960, seconds: float = 5.0, antialiased: bool = False,
    progress: Progress = quiet,
) -> int:  # fmt: skip
    """Writes the film `out` and returns its number of pictures.

    A scene that moves plays once, seen from the first of `cameras`; else the camera passes STATIONS of them, in order.

    Args:
        cameras: at least one.
        longer: pixels along the longer side. seconds: how long the film is.

    Raises:
        LpmError: a name that does not end as films do here, a length that cannot be, or it cannot be written.
    """
    if out.suffix != ending():
        fail(out, f"ends with {out.suffix or 'nothing'}", ending(), "films are .mp4 where ffmpeg is on PATH")
    if not 0.1 <= seconds <= 3600:
        fail("--seconds", str(seconds), "0.1 to 3600")
    count = max(2, round(seconds * camera_path.FPS))
    chosen = cameras[:1]
    if shown.steps == 1 and len(cameras) > 1:
        chosen = [cameras[i] for i in np.linspace(0, len(cameras) - 1, min(STATIONS, len(cameras))).round().astype(int)]
    path = camera_path.sample(chosen, np.linspace(0, len(chosen) - 1, count)) if len(chosen) > 1 else chosen * count
    request = RenderRequest(path[0], longer, antialiased=antialiased)
    width, height = (side - side % 2 for side in size_of(request.camera.aspect, longer))

    def pictures() -> Iterator[NDArray[np.uint8]]:
        for i in progress(range(count), "filming"):
            camera = replace(path[i], aspect=request.camera.aspect)
            picture = shown.draw(replace(request, camera=camera, time=i / (count - 1)), width, height)
            assert picture is not None
            yield picture

    return write_video(out, pictures(), (width, height), camera_path.FPS)
