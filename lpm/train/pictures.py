"""Pictures and films of a run: held-out photos beside their renders, and what a camera sees along a path."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lpm.checks import LpmError, fail
from lpm.files import Progress, quiet
from lpm.train.cameras import Camera, Cameras
from lpm.train.clips import FPS, clips, in_order
from lpm.train.frame import looked_at_by_all
from lpm.train.opened_run import OpenedRun
from lpm.viewer.page import camera_path
from lpm.viewer.page.camera import Camera as PageCamera
from lpm.viewer.page.camera import camera_at, matrices, size_of
from lpm.viewer.page.video import ending, write_video

PATHS = ("orbit", "spiral", "interpolate", "dataset")
STATIONS = 12
"""Photos that an interpolated path passes."""
SURROUNDED = math.radians(100)
"""Widest angle without a camera, seen from the middle, of a scene with cameras all around."""
WORST = 0.25
"""Mean absolute difference of the colours (0..1) that a comparison shows as the worst."""
STILLS = 2
"""Held-out photos a second in the comparison of a scene that stands still."""


def as_bytes(image: Tensor) -> NDArray[Any]:
    """[H, W, 3] uint8 of `image` [H, W, 3] in 0..1."""
    return (image.nan_to_num(0.0).clamp(0, 1) * 255).round().byte().cpu().numpy()


def write_png(path: Path, picture: NDArray[Any]) -> None:
    """Writes `picture` [H, W, 3] uint8. Raises LpmError where it cannot."""
    good, data = cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))
    try:
        if not good:
            raise OSError(0, "no PNG could be made")
        path.write_bytes(data.tobytes())
    except OSError as error:
        raise LpmError(f"{path}: cannot be written ({error.strerror}); wanted a folder with room") from error


def made(folder: Path) -> Path:
    """`folder`, made where it is not there. Raises LpmError where it cannot be, or is not empty."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            fail(folder, "not empty", "a new or empty folder", "name another")
    except OSError as error:
        raise LpmError(f"{folder}: cannot be made ({error.strerror}); wanted a folder for pictures") from error
    return folder


@torch.no_grad()
def write_pairs(run: OpenedRun, folder: Path, progress: Progress = quiet) -> None:
    """Writes each held-out photo (left) beside its render as a PNG into `folder`. Raises LpmError."""
    folder, views = made(folder), run.data.held_out()
    for i in progress(range(len(run.data.test)), "writing"):
        name, camera, photo = next(views)
        outputs = run.model.draw(camera)
        pair = torch.cat([run.model.truth(outputs, photo), outputs["rgb"]], 1)
        write_png(folder / f"{i:04d}_{Path(name).stem}.png", as_bytes(pair))


def check_film(out: Path) -> None:
    """Raises LpmError if a film of the name `out` cannot be written here."""
    if out.suffix != ending():
        got = f"ends with {out.suffix}" if out.suffix else "has no ending"
        fail(out, got, f"{ending()} for a film", "films need ffmpeg for .mp4")


def shown_errors(render: Tensor, photo: Tensor) -> Tensor:
    """[H, W, 3] the mean absolute difference of the colours of two images [H, W, 3] in 0..1, from black (none) to light
    yellow (WORST and more)."""
    errors = as_bytes((render - photo).abs().mean(2) / WORST)
    return torch.from_numpy(cv2.applyColorMap(errors, cv2.COLORMAP_INFERNO)[..., ::-1] / 255.0)


@torch.no_grad()
def compared(run: OpenedRun, size: tuple[int, int], progress: Progress = quiet) -> Iterator[NDArray[Any]]:
    """Each held-out photo, its render and its errors side by side, [H, W, 3] uint8 of `size` (width, height).

    Of a scene that moves camera by camera over time. What a mask leaves out has no error.
    """
    views, (width, height) = run.data.held_out(chosen=in_order(run.data)), size
    for _ in progress(range(len(run.data.test)), "filming"):
        _, camera, photo = next(views)
        outputs = run.model.draw(camera)
        truth, render, mask = run.model.truth(outputs, photo), outputs["rgb"], run.model.counted(photo)
        kept = 1.0 if mask is None else mask
        errors = shown_errors(render * kept, truth * kept)
        picture = np.zeros((height, width, 3), np.uint8)
        for i, panel in enumerate((truth, render, errors)):
            pixels, left = as_bytes(panel)[:height, : width // 3], i * (width // 3)
            picture[: len(pixels), left : left + pixels.shape[1]] = pixels
        yield picture


def write_comparison(run: OpenedRun, out: Path, progress: Progress = quiet) -> int:
    """Writes `compared` as a film, as fast as the scene moves or with STILLS pictures a second; how many there are.

    Raises:
        LpmError: it cannot be written.
    """
    check_film(out)
    width, height = run.data.test_cameras.sizes.amax(0).tolist()
    size = 3 * (width - width % 2), height - height % 2  # as codecs want them
    usual = STILLS if run.data.test_cameras.capture_times is None else FPS
    fps = next((clip.fps for clip in clips(run.data)), usual)
    return write_video(out, compared(run, size, progress), size, fps)


def page_cameras(cameras: Cameras) -> list[PageCamera]:
    """`cameras` as lpm.viewer has them, in the frame of training."""
    found = []
    for c2w, (width, height), (_, fy, _, _) in zip(
        cameras.c2w.double().numpy(), cameras.sizes.tolist(), cameras.intrinsics.tolist(), strict=True
    ):
        found.append(camera_at(c2w * np.array([1.0, -1.0, -1.0, 1.0]), 2 * math.atan(height / 2 / fy), width / height))
    return found


def looking(place: NDArray[Any], at: NDArray[Any], like: PageCamera) -> PageCamera:
    """A camera at `place` [3] that looks at `at` [3], z up, with the picture of `like`."""
    ahead = (at - place) / np.linalg.norm(at - place)
    right = np.cross(ahead, [0.0, 0.0, 1.0])
    right = right / max(np.linalg.norm(right), 1e-9)
    c2w = np.column_stack([right, np.cross(ahead, right), ahead, place])
    return camera_at(c2w, like.fov, like.aspect)


def around(cameras: Cameras, like: PageCamera, count: int, spiral: bool) -> list[PageCamera]:
    """`count` cameras around what all of `cameras` look at, at their median distance and height, with `like`'s picture.

    A full turn where they stand all around; else there and back along the arc on which they stand, since what is seen
    from elsewhere no photo shows. A spiral rises and comes nearer, then sinks and goes away, once.
    """
    centre = looked_at_by_all(cameras.c2w, cameras.c2w[:, :, 3].mean(0)).double().numpy()
    places = cameras.c2w[:, :, 3].double().numpy()
    away = (places - centre)[:, :2]
    radius = float(np.median(np.linalg.norm(away, axis=1)))
    height, spread = float(np.median(places[:, 2])), float(places[:, 2].std())
    angles = np.sort(np.arctan2(away[:, 1], away[:, 0]))
    gaps = np.diff(np.append(angles, angles[0] + 2 * math.pi))
    widest = int(gaps.argmax())
    first, arc = angles[(widest + 1) % len(angles)], 2 * math.pi - float(gaps[widest])
    found = []
    for t in np.linspace(0, 1, count, endpoint=False):
        share = t if gaps[widest] < SURROUNDED else 0.5 - 0.5 * math.cos(2 * math.pi * t)
        angle = first + share * (2 * math.pi if gaps[widest] < SURROUNDED else arc)
        swing = math.sin(2 * math.pi * t) if spiral else 0.0
        by = radius * (1 - 0.25 * swing)
        offset = np.array([by * math.cos(angle), by * math.sin(angle)])
        found.append(looking(np.array([*(centre[:2] + offset), height + swing * spread]), centre, like))
    return found


def path_of(run: OpenedRun, path: str, count: int) -> list[PageCamera]:
    """`count` cameras along `path`.

    orbit, spiral: see around(). interpolate: through the training photos. dataset: the held-out photos themselves,
    whatever `count`. Else a JSON file of keyframes as lpm-view and nerfstudio write it.

    Raises:
        LpmError: no such path or file.
    """
    photos = page_cameras(run.data.train_cameras)
    if path == "dataset":
        return page_cameras(run.data.test_cameras)
    if path == "interpolate":
        stations = np.linspace(0, len(photos) - 1, min(STATIONS, len(photos))).round().astype(int)
        keyframes = [photos[i] for i in stations]
        return camera_path.sample(keyframes, np.linspace(0, len(keyframes) - 1, count))
    if path in ("orbit", "spiral"):
        return around(run.data.train_cameras, photos[0], count, path == "spiral")
    file = Path(path)
    if not file.is_file():
        fail("--path", path, f"one of {', '.join(PATHS)}, or a JSON file of keyframes")
    keyframes, _ = camera_path.from_json(file.read_bytes(), file)
    return camera_path.sample(keyframes, np.linspace(0, len(keyframes) - 1, count))


@torch.no_grad()
def drawn(
    run: OpenedRun, cameras: list[PageCamera], size: tuple[int, int], progress: Progress
) -> Iterator[NDArray[Any]]:
    """What `cameras` see, [H, W, 3] uint8 of `size` (width, height); time goes from 0 to 1 over them."""
    width, height = size
    for i in progress(range(len(cameras)), "drawing"):
        camera = replace(cameras[i], aspect=width / height)
        viewmat, K = (matrix.to(run.model.device) for matrix in matrices(camera, width, height))
        time = i / max(1, len(cameras) - 1)
        yield as_bytes(run.model.draw(Camera(K, viewmat, height, width, time=time))["rgb"])


def write_path(
    run: OpenedRun, path: str, out: Path, seconds: float, longer: int | None = None, progress: Progress = quiet
) -> int:
    """Draws `path` (see path_of) into `out`, a film or a folder of PNGs; the number of pictures.

    Args:
        seconds: length of the film.
        longer: pixels along the longer side; None: that of the photos.

    Raises:
        LpmError: it cannot be drawn or written.
    """
    if not 0.1 <= seconds <= 3600:
        fail("--seconds", str(seconds), "0.1 to 3600")
    if out.suffix and out.suffix != ending():
        fail(out, f"ends with {out.suffix}", f"{ending()} for a film, or a folder's name", "films need ffmpeg for .mp4")
    cameras = path_of(run, path, max(2, round(seconds * camera_path.FPS)))
    longer = longer or int(run.data.train_cameras.sizes[0].max())
    width, height = (side - side % 2 for side in size_of(cameras[0].aspect, longer))
    pictures = drawn(run, cameras, (width, height), progress)
    if out.suffix:
        return write_video(out, pictures, (width, height), camera_path.FPS)
    folder = made(out)
    for i, picture in enumerate(pictures):
        write_png(folder / f"{i:05d}.png", picture)
    return len(cameras)
