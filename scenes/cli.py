"""The command `lpm-scene`: make sample scenes, list them, say what a scene folder holds, and check it."""

from __future__ import annotations

import importlib
import re
import time
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console
from rich.progress import Progress

from lpm.checks import fail, one_line_errors


def parse_size(text: str) -> tuple[int, int]:
    """ "320x240" -> (320, 240). Raises LpmError for anything else."""
    match = re.fullmatch(r"(\d+)[x×](\d+)", text.strip().lower())
    if match is None:
        fail("size", repr(text), "WIDTHxHEIGHT in pixels, such as 320x240")
    return int(match[1]), int(match[2])


def make(
    name: tyro.conf.Positional[str],
    out: tyro.conf.Positional[Path],
    /,
    views: int | None = None,
    cams: int | None = None,
    frames: int = 20,
    size: str | None = None,
    seed: int = 0,
    lens: Literal["pinhole", "fisheye", "360"] = "pinhole",
    overwrite: bool = False,
) -> None:
    """Make a sample scene: images, poses, points, depth, and truth.json.

    Args:
        name: which one; see `lpm-scene list`.
        out: the folder to make.
        views: number of images, of a scene that does not move; by default 40, of `random` 16 to 48 by the seed.
        cams: number of cameras, of one that moves; by default 6, of `random-moving` 3 to 12 by the seed, and one or two
            more that are held out.
        frames: number of time steps, of one that moves.
        size: width and height of the images in pixels; by default 320x240, of 360 degree photos 640x320.
        seed: draws the textures, the cameras' places and the points' noise; of `yard`, `random` and `random-moving`
            all there is.
        lens: what the photos of a scene that does not move are taken with; fisheye: 180 degrees from corner to corner.
        overwrite: replace the folder if it is a sample scene.
    """
    from lpm.scenes.samples.make import make as make_sample  # torch takes seconds to import
    from lpm.scenes.samples.moving import CAMS, CLIPS, make_clip
    from lpm.scenes.samples.random_moving import make_random_clip

    moves = name in CLIPS or name == "random-moving"
    if moves and lens != "pinhole":
        fail("--lens", lens, "pinhole, for a scene that moves")
    total = None if name.startswith("random") else (cams or CAMS) * frames if moves else views or 40
    pixels, start = parse_size(size or ("640x320" if lens == "360" else "320x240")), time.perf_counter()
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"rendering {name}", total=total)
        advance = lambda: progress.advance(task)  # noqa: E731
        if name == "random-moving":
            folder = make_random_clip(out, cams, frames, pixels, seed, overwrite, advance)
        elif name in CLIPS:
            folder = make_clip(name, out, CAMS if cams is None else cams, frames, pixels, seed, overwrite, advance)
        else:
            folder = make_sample(name, out, views, pixels, seed, overwrite, advance, lens)
        count = int(progress.tasks[task].completed)
    print(f"{folder}: {count} views of {pixels[0]}x{pixels[1]} in {time.perf_counter() - start:.0f} s")
    print(f"next: lpm-train {folder}")


def list_() -> None:
    """List the sample scenes."""
    from lpm.scenes.samples.names import BY_SEED, CLIPS, SAMPLES

    for name, text in (SAMPLES | CLIPS | BY_SEED).items():
        print(f"{name:13} {text}")


def info(
    data: tyro.conf.Positional[Path],
    /,
    eval_interval: int = 8,
    sheet: Path | None = None,
    outside_files: bool = False,
    lens_fov: float | None = None,
) -> None:
    """Say what a scene folder holds: layout, images, points, extent, hold-out.

    Args:
        data: the scene's folder, or its transforms.json.
        eval_interval: every n-th image is held out.
        sheet: write a contact sheet of the images to this file (.jpg or .png).
        outside_files: the scene may name files outside of its folder.
        lens_fov: degrees across of views of photos by fisheyes; by default all that is seen, in several views if need.
    """
    import numpy as np

    from lpm.scenes.read import read_scene
    from lpm.scenes.scene import camera_extent
    from lpm.scenes.split import hold_out

    scene = read_scene(data, outside_files, lens_fov)
    train, test = hold_out(scene, eval_interval)
    sizes = sorted({f"{w}x{h}" for w, h in scene.sizes.tolist()})
    photos = len(set(scene.images))
    views = f" of {photos} photos" if photos < len(scene) else ""
    rims = any(cut is not None and not cut.whole for cut in scene.cuts or [])
    bent = "with lens distortion" if np.any(scene.distortion) else "without lens distortion"
    more: dict[str, str] = {}
    if scene.capture_times is not None and scene.cams is not None:
        more["moves"] = f"{len(np.unique(scene.capture_times))} time steps, {len(set(scene.cams))} cameras"
    if scene.depths is not None:
        more["depths"] = "yes"
    start = "its depths" if scene.depths else "what the photos show" if scene.capture_times is None else "random ones"
    rows = {
        "layout": f"{scene.layout.kind} ({scene.layout.source})",
        "images": f"{len(scene)}{views}, {', '.join(sizes[:4])}{' and more' * (len(sizes) > 4)}, {bent}",
        "masks": ("yes" if scene.masks else "none") + "; and where a lens sees nothing of a view" * rims,
        "focal": f"{scene.intrinsics[:, 0].min():.1f} to {scene.intrinsics[:, 0].max():.1f} px",
        "points": f"{len(scene.points.xyz)} ({scene.points.source})"
        if scene.points
        else f"none: training starts from {start}",
        **more,
        "extent": f"{camera_extent(scene.c2w[train, :3, 3]):.4g} (the scene's own unit)",
        "hold-out": f"{len(train)} to train on, {len(test)} to test on (first: {scene.names[test[0]]})",
    }
    for key, value in rows.items():
        print(f"{key:9} {value}")
    for note in scene.notes:
        print(f"note      {note}")
    if sheet is not None:
        from lpm.scenes.sheet import contact_sheet

        contact_sheet(list(dict.fromkeys(scene.images)), sheet)
        print(f"sheet     {sheet}")


def main() -> None:
    """Entry point of `lpm-scene`."""
    # What checks scenes stands on them, and on more; a room does not import those that come after it, so it is named.
    check = importlib.import_module("lpm.plausibility.cli").check
    commands: dict[str, Any] = {"make": make, "list": list_, "info": info, "check": check}
    one_line_errors(lambda: tyro.extras.subcommand_cli_from_dict(commands, description=__doc__))
