"""Makes a sample scene on the spot: images, poses, points, and the truth about them. No GPU needed."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from lpm.checks import fail
from lpm.scenes.ply import write_points
from lpm.scenes.samples.points import NOISE_PX, SamplePoints, find_points, in_view, inside, unproject
from lpm.scenes.samples.textures import usable_cpus
from lpm.scenes.samples.trace import Shot, World, shoot
from lpm.scenes.samples.worlds import SAMPLES, Sample
from lpm.scenes.samples.yards import random_yard
from lpm.scenes.scene import Floats

LABELS = {"hole": 1, "pane": 2, "rails": 4, "background": 8}
"""Bits of the label images: what a pixel's centre shows."""
LEAST_VIEWS, SMALLEST, LARGEST = 8, 16, 8192


def gains(sample: Sample, views: int) -> NDArray[np.float64]:
    """[views] exposure gain of each view. Held-out views keep 1, or the gain would count as error of the model."""
    result = np.ones(views)
    if sample.exposed:
        others = [i for i in range(views) if i % 8 in (2, 5)]
        for place, i in enumerate(others):
            result[i] = sample.exposed[place % len(sample.exposed)]
    return result


def labels(sample: Sample, world: World, shot: Shot, pose: Floats, intrinsics: Floats) -> NDArray[np.uint8]:
    """[H, W] which of LABELS each pixel's centre shows, as bits."""
    height, width = shot.depth.shape
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).reshape(-1, 2) + 0.5
    points = unproject(pixels, shot.depth.reshape(-1).astype(np.float64), pose, intrinsics)
    result = inside(points, sample.hole).reshape(height, width) * np.uint8(LABELS["hole"])
    result |= shot.glass * np.uint8(LABELS["pane"])
    regions = np.array([LABELS.get(solid.region, 0) for solid in world.solids], np.uint8)
    labels: NDArray[np.uint8] = result | regions[shot.solid]
    return labels


def truth(
    sample: Sample,
    seed: int,
    world: World,
    names: list[str],
    shots: list[Shot],
    poses: Floats,
    intrinsics: Floats,
    gain: NDArray[np.float64],
    marks: list[NDArray[np.uint8]],
    points: SamplePoints,
) -> dict[str, Any]:
    """What is known about the scene, as written to truth.json; lengths in world units."""
    low, high = (np.array(corner) for corner in sample.hole)
    ghosts = points.xyz[points.false]
    visible = {}
    for name, shot, pose, mark in zip(names, shots, poses, marks, strict=True):
        rows, at, z = in_view(ghosts, pose, intrinsics, shot.depth)
        in_front = int((z[rows] < 0.95 * shot.depth[at[:, 0], at[:, 1]]).sum())
        shares = {key: round(float(((mark & bit) > 0).mean()), 5) for key, bit in LABELS.items()}
        visible[name] = {**shares, "false_points": in_front}
    solids: list[dict[str, object]] = [
        {"name": s.name, "region": s.region, "low": s.low, "high": s.high}
        if s.high is not None
        else {"name": s.name, "region": s.region, "centre": s.low, "radius": s.radius}
        for s in world.solids
    ]
    pane = None
    if world.pane is not None:
        pane = {"low": world.pane.low, "high": world.pane.high, "mirror": world.pane.mirror, "tint": world.pane.tint}
    return {
        "scene": sample.name,
        "seed": seed,
        "unit": "metre",
        "up": "z",
        "hole": {"centre": ((low + high) / 2).tolist(), "size": (high - low).tolist()},
        "false_points": {
            "in_front_of": sample.floaters[3],
            "indices": points.false.tolist(),
            "positions": ghosts.round(5).tolist(),
        },
        "points": {"count": len(points.xyz), "noise_px": NOISE_PX},
        "exposure_gain": dict(zip(names, gain.tolist(), strict=True)),
        "pane": pane,
        "solids": solids,
        "visible": visible,
        "visible_says": "share of each image's pixels that shows it; false_points: how many float before the surface",
        "labels": LABELS,
        "depth": "depth/NAME.npy: float32 z-depth at pixel centres of the first solid; glass is looked through",
    }


def render(
    sample: Sample, world: World, poses: Floats, intrinsics: Floats, size: tuple[int, int], done: Callable[[], None]
) -> list[Shot]:
    """All views, a thread for each CPU; `done` is called after each view."""

    return render_all([partial(shoot, world, pose, intrinsics, *size) for pose in poses], done)


def render_all(jobs: list[Callable[[], Shot]], done: Callable[[], None]) -> list[Shot]:
    """What the `jobs` give, a thread for each CPU; `done` is called after each."""

    def one(job: Callable[[], Shot]) -> Shot:
        torch.set_num_threads(1)  # whole views side by side are faster than threads within one
        with torch.no_grad():
            shot = job()
        done()
        return shot

    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(usable_cpus())
    try:
        return list(pool.map(one, jobs))
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)


def write(folder: Path, sample: Sample, views: int, size: tuple[int, int], seed: int, done: Callable[[], None]) -> None:
    """Renders `sample` into the empty `folder`; the same arguments give the same bytes."""
    width, height = size
    intrinsics = np.array([sample.focal * width] * 2 + [width / 2, height / 2])
    world = sample.world(seed)
    poses = sample.cameras(views, np.random.default_rng([seed, 1]))
    shots = render(sample, world, poses, intrinsics, size, done)
    gain = gains(sample, views)
    for shot, g in zip(shots, gain, strict=True):
        shot.rgb = np.clip(shot.rgb * g, 0, 1)
    points = find_points(sample, shots, poses, intrinsics, np.random.default_rng([seed, 2]))
    marks = [labels(sample, world, s, p, intrinsics) for s, p in zip(shots, poses, strict=True)]

    names = [f"{i:04d}" for i in range(views)]
    for name in ("images", "depth", "labels"):
        (folder / name).mkdir()
    for name, shot, mark in zip(names, shots, marks, strict=True):
        pixels = (shot.rgb * 255 + 0.5).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{name}.png", compress_level=3)
        Image.fromarray(mark).save(folder / "labels" / f"{name}.png")
        np.save(folder / "depth" / f"{name}.npy", shot.depth)
    write_points(folder / "sparse_pc.ply", points.xyz, points.rgb)
    files = [f"images/{name}.png" for name in names]
    meta = {
        "camera_model": "OPENCV",
        **dict(zip(("fl_x", "fl_y", "cx", "cy"), intrinsics.tolist(), strict=True)),
        "w": width,
        "h": height,
        **dict.fromkeys(("k1", "k2", "p1", "p2"), 0.0),
        "ply_file_path": "sparse_pc.ply",
        "frames": [
            {"file_path": file, "transform_matrix": pose.tolist()} for file, pose in zip(files, poses, strict=True)
        ],
    }
    facts = truth(sample, seed, world, files, shots, poses, intrinsics, gain, marks, points)
    (folder / "truth.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (folder / "transforms.json").write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")


def make(
    name: str,
    out: Path,
    views: int = 40,
    size: tuple[int, int] = (320, 240),
    seed: int = 0,
    overwrite: bool = False,
    done: Callable[[], None] = lambda: None,
) -> Path:
    """Makes the sample scene `name` in the folder `out`, whole or not at all.

    Args:
        views: number of images. size: width and height in pixels.
        overwrite: replace `out` if it is a sample scene; nothing else is ever replaced.
        done: called after each view is rendered, from any thread.

    Raises:
        LpmError: no such scene, unusable numbers, or `out` exists.
    """
    if name != "yard" and name not in SAMPLES:
        fail("scene", repr(name), "one of " + ", ".join([*SAMPLES, "yard"]), "see `lpm-scene list`")
    if views < LEAST_VIEWS:
        fail("views", str(views), f"at least {LEAST_VIEWS}", "fewer views do not see every part of the scene twice")
    sample = SAMPLES[name] if name in SAMPLES else random_yard(seed)
    return fill_folder(out, size, seed, overwrite, lambda new: write(new, sample, views, size, seed, done))


def fill_folder(out: Path, size: tuple[int, int], seed: int, overwrite: bool, fill: Callable[[Path], None]) -> Path:
    """The folder `out` as `fill` writes it, whole or not at all; see make for the rest."""
    if not all(SMALLEST <= side <= LARGEST for side in size):
        fail("size", f"{size[0]}x{size[1]}", f"{SMALLEST} to {LARGEST} pixels a side", "give WIDTHxHEIGHT")
    if seed < 0:
        fail("seed", str(seed), "a number from 0 on")
    out = Path(out).expanduser()
    taken = out.is_file() or out.is_symlink() or (out.is_dir() and any(out.iterdir()))
    if taken and not overwrite:
        fail(out, "is there already", "a new folder", "name another, or add --overwrite to replace a sample scene")
    if taken and not (out / "truth.json").is_file():
        fail(out, "is not a sample scene", "a folder that `lpm-scene make` wrote", "remove it by hand, or name another")
    out.parent.mkdir(parents=True, exist_ok=True)
    # Beside `out`, so that the final rename stays on one file system and cannot leave half a scene.
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        work.chmod(0o755)
        new, old = work / "new", work / "old"
        new.mkdir()
        fill(new)
        if out.exists():
            out.rename(old)
        new.rename(out)
    finally:
        if (work / "old").exists() and not out.exists():
            (work / "old").rename(out)
        shutil.rmtree(work, ignore_errors=True)
    return out
