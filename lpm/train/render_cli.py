"""The command `lpm-render`: films and pictures of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional, arg

from lpm.checks import one_line_errors


def render(
    run: Annotated[Positional[Path], arg(metavar="RUN")],
    out: Path,
    path: str = "interpolate",
    seconds: float = 5.0,
    size: int | None = None,
    scene: Path | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> None:
    """Draw a run along a path of the camera, into a film or a folder of pictures.

    Args:
        run: a run's folder, its config.toml, or one of its checkpoints.
        out: the film (.mp4 where ffmpeg is, else .webm), or a new folder for PNGs.
        path: orbit (a circle around the scene), spiral (rising and sinking), interpolate (through the training photos),
            dataset (the held-out photos themselves), or a JSON file of keyframes as lpm-view and nerfstudio write it.
        seconds: length of the film; 30 pictures each.
        size: pixels along the longer side. By default that of the photos as they were trained on.
        scene: where the scene is now, if it was moved.
        device: what draws; auto takes a CUDA GPU where there is one.
    """
    from lpm.files import bar
    from lpm.train.opened_run import open_run
    from lpm.train.pictures import write_path

    count = write_path(open_run(run, device, scene, progress=bar), path, out, seconds, size, bar)
    print(f"{out}: {count} pictures")


def main() -> None:
    """Entry point of `lpm-render`."""
    one_line_errors(lambda: tyro.cli(render, prog="lpm-render"))
