"""The command lpm-view: looks at a file of Gaussians or at a run in the browser."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional, arg

from lpm.checks import fail, one_line_errors
from lpm.viewer.page.axes import Axis


def view(
    source: Annotated[Positional[Path], arg(metavar="FILE|RUN")],
    host: str = "127.0.0.1",
    port: int = 7009,
    size: int = 960,
    up: Axis | None = None,
    photos: bool = True,
    out: Path = Path(),
    device: Literal["auto", "cpu", "cuda"] = "auto",
    film: Path | None = None,
    seconds: float = 5.0,
) -> None:
    """Look at Gaussians in the browser: drag to turn, right button to shift, wheel to come nearer.

    They are drawn here, with all of their view-dependent colour, and sent to the page as pictures: small ones while
    the camera moves, in full when it rests. Camera paths, screenshots, videos and a run's photos are in the page.

    Args:
        source: A run's folder, its config.yml, a checkpoint, or a .ply, .compressed.ply, .splat, .splatv, .spz or
            .sog file, or a folder of numbered PLYs.
        host: Address to listen on; 0.0.0.0 lets others on the network look, too.
        port: Port to listen on; 0 takes any that is free.
        size: Pixels along the longer side of a picture at rest.
        up: The scene's up direction, where the file does not say it and the guess is wrong.
        photos: Show the photos of a run, where they are still found.
        out: Folder for videos.
        device: What draws; auto takes a CUDA GPU where there is one.
        film: Write a film to this file (.mp4 where ffmpeg is, else .webm) and open no page: what moves plays once, what
            stands still is passed along the run's photos.
        seconds: Length of that film.
    """
    import torch

    from lpm.files import bar
    from lpm.formats.read import load
    from lpm.runs.folder import run_folder
    from lpm.viewer.page.film import film as write_film
    from lpm.viewer.page.photos import Photo, read_photos
    from lpm.viewer.page.server import View, axis

    loaded = load(source, bar)
    for told in loaded.notes:
        print(f"{loaded.path.name}: {told}")
    if device == "cuda" and not torch.cuda.is_available():
        fail("--device", "cuda, and PyTorch sees no CUDA GPU", "a CUDA GPU", "leave --device out")
    if not 0 <= port <= 65535:
        fail("--port", str(port), "0 to 65535")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    found: list[Photo] = []
    note = ""
    if photos and loaded.kind == "checkpoint":
        found, note = read_photos(run_folder(loaded.path), loaded.world_to_train, bar)
    page = View(
        loaded, host, port, up=None if up is None else axis(up), photos=found, photo_note=note, longer=size, out=out,
        device=device,
    )  # fmt: skip
    if film is not None:
        cameras = [photo.camera for photo in found] or [page.frame_camera(4 / 3)[0]]
        count = write_film(page.shown, cameras, film, size, seconds, page.antialiased, bar)
        print(f"{film}: {count} pictures")
        return
    with page, contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()


def main() -> None:
    """The command lpm-view."""
    one_line_errors(lambda: tyro.cli(view, prog="lpm-view"))
