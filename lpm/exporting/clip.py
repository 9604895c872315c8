"""lpm-export clip: a folder that plays what moves in a browser, streamed: what stands still once, the rest by time.

    OUT/index.html        the player: three.js and Spark, from a CDN
    OUT/clip.json         what it plays (CLIP_KEYS)
    OUT/still.spz         points that stand still and stay, and the sky
    OUT/moving/0000.spz   the others as they are at the first time, and so on

The player has the next files fetched while it shows one, and waits where they are late. Any server of files will do.
"""

from __future__ import annotations

import html
import json
import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from lpm.checks import LpmError, fail
from lpm.editing.cameras import Cameras
from lpm.editing.simplifying import cameras_for
from lpm.exporting.cli import Playing
from lpm.files import bar, check_new_folder, staging_folder
from lpm.formats.cli import Options
from lpm.formats.export import check_offset, choose, finish, prepare, up_direction
from lpm.formats.moving import at_time, moves, moving_rows
from lpm.formats.read import Loaded
from lpm.formats.spz_write import write_spz

Params = dict[str, Tensor]
CLIP_KEYS = ("frames_per_second", "still", "moving", "up", "position", "target", "fov", "antialiased")
"""Of clip.json. `still` and each of `moving`: a file, or null where nothing is there; up, position and target: [3] in
the frame of the points; fov: vertical, degrees."""
PLAYER = Path(__file__).with_name("clip.html")


def to_clip(run: Path, out: Path, common: Options, how: Playing) -> None:
    """Writes the folder `out`, which appears when all of it is there. Raises LpmError."""
    if common.time is not None or common.part != "all":
        fail("--time, --part", "given", "neither: a clip has all of both", "export a ply or spz of one time or part")
    if how.steps < 2:
        fail("--steps", str(how.steps), "2 or more")
    if not (math.isfinite(how.fps) and how.fps > 0):
        fail("--fps", str(how.fps), "a number above 0")
    check_new_folder(out)
    loaded, first = prepare(run, replace(common, time=0.0))
    if not moves(loaded.params):
        fail(run, "nothing that moves in it", "a model that moves", "export html of one that stands still")
    check_offset(first, common)
    moving = moving_rows(loaded.params)
    antialiased, dropped = loaded.rasterize_mode == "antialiased", 0

    def write(name: str, part: Literal["still", "moving"], time: float) -> str | None:
        """`name`, a file of the folder; None where nothing of the part is there to write."""
        nonlocal dropped
        rows = moving if part == "moving" else ~moving
        there = at_time({key: value[rows] for key, value in loaded.params.items()}, time)
        try:
            chosen = choose(loaded, there, replace(common, part=part)).params
        except LpmError:  # nothing is left: prepare() has seen that the options are right
            return None
        dropped = max(dropped, write_spz(unfinished / name, chosen, antialiased=antialiased))
        return name

    with staging_folder(out) as unfinished:
        (unfinished / "moving").mkdir()
        still = write("still.spz", "still", 0.0)
        if still is None and first.dome:
            fail(run, "a sky, and no point that stands still", "one to show it with", "--no-sky leaves it out")
        steps = bar(range(how.steps), "writing")
        files = [write(f"moving/{i:04d}.spz", "moving", i / (how.steps - 1)) for i in steps]
        placed = replace(loaded, params=first.params, frame=first.frame, offset=first.offset)
        told = {"frames_per_second": how.fps, "still": still, "moving": files, "antialiased": antialiased}
        told |= first_view(placed, first.params, how.scene)
        (unfinished / "clip.json").write_text(json.dumps(told, indent=1) + "\n")
        (unfinished / "index.html").write_text(PLAYER.read_text().replace("{title}", html.escape(out.name)))
        os.replace(unfinished, out)
    finish(out, loaded, first, dropped, common)
    print(f"to see it: python3 -m http.server --directory {out}, then http://localhost:8000")


def first_view(loaded: Loaded, params: Mapping[str, Tensor], scene: Path | None) -> dict[str, Any]:
    """Where the player looks from at first: the first camera of the scene, at the middle of what it sees."""
    cameras = cameras_for(loaded, params, scene, "cpu")
    viewmat, focal = cameras.viewmats[0], float(cameras.Ks[0, 1, 1])
    position = -viewmat[:3, :3].T @ viewmat[:3, 3]
    distance = _median_depth(params["means"], cameras)
    up = up_direction(loaded, loaded.frame)
    return {
        "up": (-viewmat[1, :3]).tolist() if up is None else up,
        "position": position.tolist(),
        "target": (position + distance * viewmat[2, :3]).tolist(),
        "fov": math.degrees(2 * math.atan(0.5 * float(cameras.sizes[0, 1]) / focal)),
    }


def _median_depth(means: Tensor, cameras: Cameras) -> float:
    """Of the points in the middle of the first camera's picture; 1 where there are none."""
    seen = means.float() @ cameras.viewmats[0, :3, :3].T + cameras.viewmats[0, :3, 3]
    ahead = seen[seen[:, 2] > 0]
    half = cameras.sizes[0] / 4 / cameras.Ks[0].diagonal()[:2]
    middle = ahead[(ahead[:, :2].abs() < half * ahead[:, 2:]).all(1), 2]
    return float(middle.median()) if len(middle) else 1.0
