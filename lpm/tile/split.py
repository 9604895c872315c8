"""Writes the tiles of a scene as scenes of their own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lpm.checks import fail
from lpm.scenes.cut_up import shown_of
from lpm.scenes.images import turned_file
from lpm.scenes.ply import write_points
from lpm.scenes.read import read_scene
from lpm.scenes.scene import Scene
from lpm.scenes.split import hold_out
from lpm.tile.cells import Cells, cameras_of, lay_out

VERSION = 1
INTERVAL = 8
"""Every 8th image of the whole scene is held out of every tile, unless the scene has lists of its own."""
PLAN = "tiles.json"


def split(data: Path, out: Path, tiles: int, overlap: float, least: float) -> dict[str, Any]:
    """Writes `tiles` scenes into the new folder `out`, whole or not at all; photos are linked where the disk allows it.

    Args:
        overlap: by how much of its own size a tile is larger when images are chosen for it. least: see cameras_of.

    Returns:
        What tiles.json holds.

    Raises:
        LpmError: `out` is there, the scene cannot be read, moves, or has too few points or images for so many tiles.
    """
    if tiles < 2:
        fail("--tiles", str(tiles), "2 or more")
    if not 0 <= overlap <= 1 or not 0 < least <= 1:
        fail("--overlap and --least", f"{overlap} and {least}", "shares from 0 to 1, and --least above 0")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        fail(out, "is there already", "a new folder")
    scene = read_scene(data)
    if scene.capture_times is not None:
        fail(data, "a scene that moves", "a static one", "train it whole with lpm-splat-4d")
    cells = lay_out(scene, tiles)
    images, points = cameras_of(scene, cells, overlap, least)
    used = set(np.concatenate(images).tolist())
    held_out = {scene.names[v] for v in hold_out(scene, INTERVAL)[1]}
    plan = {
        "version": VERSION, "scene": str(data.resolve()), "axes": cells.axes.tolist(),
        "low": _numbers(cells.low), "high": _numbers(cells.high), "overlap": overlap, "least": least,
        "tiles": [{"name": f"tile_{t:02d}", "images": len(i), "points": len(p)}
                  for t, (i, p) in enumerate(zip(images, points, strict=True))],
        "images": len(scene), "unused": [scene.names[v] for v in range(len(scene)) if v not in used],
    }  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        work.chmod(0o755)
        for tile, views, rows in zip(plan["tiles"], images, points, strict=True):
            _write_tile(work / tile["name"], scene, views.tolist(), rows, held_out)
        (work / PLAN).write_text(json.dumps(plan, indent=1) + "\n", encoding="utf-8")
        with contextlib.suppress(FileNotFoundError):
            out.rmdir()  # an empty one
        work.rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return plan


def read_plan(folder: Path) -> tuple[dict[str, Any], Cells]:
    """What split() wrote into `folder`. Raises LpmError where it did not."""
    path = folder / PLAN
    try:
        plan = json.loads(path.read_bytes())
        low, high = (np.array(plan[key], np.float64) for key in ("low", "high"))
        cells = Cells(np.array(plan["axes"], np.float64), np.where(np.isnan(low), -np.inf, low),
                      np.where(np.isnan(high), np.inf, high))  # fmt: skip
        names = [Path(tile["name"]).name for tile in plan["tiles"]]  # a name, never a path
    except (OSError, ValueError, KeyError, TypeError):
        fail(path, "cannot be read", f"the {PLAN} that `lpm-tile split` wrote", "give the folder that it made")
    if plan.get("version") != VERSION or cells.axes.shape != (2, 3) or cells.low.shape != (len(names), 2):
        fail(path, f"version {plan.get('version')}, {len(names)} tiles", f"version {VERSION}, and a cell for each tile")
    return {**plan, "names": names}, cells


def _numbers(values: NDArray[np.float64]) -> list[list[float | None]]:
    """JSON has no infinity: the rim is null."""
    return [[float(v) if np.isfinite(v) else None for v in row] for row in values]


def _write_tile(folder: Path, scene: Scene, views: list[int], rows: NDArray[np.int64], held_out: set[str]) -> None:
    assert scene.points is not None
    frames: list[dict[str, Any]] = []
    lists: dict[str, list[str]] = {"train_filenames": [], "test_filenames": []}
    cuts = scene.cuts or [None] * len(scene)
    masked = scene.masks is not None or any(cut is not None and not cut.whole for cut in cuts)
    for v in views:
        name = str(Path("images") / scene.names[v].removeprefix("images/"))
        files = [scene.images[v], *([] if scene.masks is None else [scene.masks[v]])]
        made = cuts[v] is not None or any(turned_file(file) != file for file in files)  # of a photo, not the photo
        if made:
            name = str(Path(name).with_suffix(".png"))
        lists["test_filenames" if scene.names[v] in held_out else "train_filenames"].append(name)
        if not made:
            _link(scene.images[v], folder / name)
        fx, fy, cx, cy = scene.intrinsics[v].tolist()
        distortion = dict(zip(("k1", "k2", "k3", "k4", "p1", "p2"), scene.distortion[v].tolist(), strict=True))
        frame = {"file_path": name, "transform_matrix": scene.c2w[v].tolist(), "fl_x": fx, "fl_y": fy, "cx": cx,
                 "cy": cy, "w": int(scene.sizes[v, 0]), "h": int(scene.sizes[v, 1]), **distortion}  # fmt: skip
        if masked and (made or scene.masks is None):
            frame["mask_path"] = f"masks/{Path(scene.names[v]).with_suffix('')}.png"
        elif scene.masks is not None:
            frame["mask_path"] = f"masks/{Path(scene.names[v]).with_suffix('')}{scene.masks[v].suffix}"
            _link(scene.masks[v], folder / frame["mask_path"])
        if made or (masked and scene.masks is None):
            _write_view(scene, v, folder / name, folder / frame["mask_path"] if masked else None)
        elif scene.depths is not None and scene.applied_scale == 1:  # else their unit is not that of the tile's poses
            frame["depth_file_path"] = f"depths/{Path(scene.names[v]).with_suffix('')}{scene.depths[v].suffix}"
            _link(scene.depths[v], folder / frame["depth_file_path"])
        frames.append(frame)
    write_points(folder / "sparse_pc.ply", scene.points.xyz[rows], scene.points.rgb[rows])
    # Where none of the held-out images shows a tile, nothing is held out of it: it is measured on what it trains on.
    lists["test_filenames"] = lists["test_filenames"] or lists["train_filenames"]
    head = {"camera_model": "OPENCV", "ply_file_path": "sparse_pc.ply", **lists, "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(head, indent=1) + "\n", encoding="utf-8")


def _write_view(scene: Scene, v: int, picture: Path, mask: Path | None) -> None:
    """View `v` as it is trained on: cut out of a photo by a lens that is no pinhole, or turned; without depths."""
    image, known = shown_of(scene, v)
    if known is None:
        known = np.full(image.shape[:2], 255, np.uint8)
    for path, pixels in ((picture, image), (mask, known)):
        if path is not None and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path, compress_level=3)


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:  # another disk, or one that has no links
        shutil.copyfile(source, target)
