"""Makes a sample scene on the spot: images, poses, points, and the truth about them. No GPU needed."""

from __future__ import annotations

import json
import math
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
from lpm.scenes.lenses import NAMES, Lens
from lpm.scenes.ply import write_points
from lpm.scenes.samples.points import NOISE_PX, SamplePoints, find_points, in_view, inside, unproject
from lpm.scenes.samples.random_still import random_still, random_views
from lpm.scenes.samples.textures import usable_cpus
from lpm.scenes.samples.trace import Shot, World, shoot
from lpm.scenes.samples.worlds import SAMPLES, Sample
from lpm.scenes.samples.yards import random_yard
from lpm.scenes.scene import Floats

LABELS = {"hole": 1, "pane": 2, "rails": 4, "background": 8}
"""Bits of the label images: what a pixel's centre shows."""
LENSES = ("pinhole", "fisheye", "360")
"""What a scene's photos can be taken with."""
BY_SEED = {"yard": random_yard, "random": random_still}
"""Scenes that are another place for each seed."""
LEAST_VIEWS, SMALLEST, LARGEST = 8, 16, 8192


def lens_of(kind: str, size: tuple[int, int]) -> Lens | None:
    """The lens that LENSES calls `kind`, for photos of `size`; None for a pinhole.

    The fisheye sees 180 degrees from corner to corner. Raises LpmError for an unknown one, and a size it cannot have.
    """
    width, height = size
    if kind not in LENSES:
        fail("lens", repr(kind), "one of " + ", ".join(LENSES))
    if kind == "360":
        if width != 2 * height:
            fail("size", f"{width}x{height}", "twice as wide as high, for 360 degree photos", "give --size 640x320")
        return Lens("EQUIRECTANGULAR", (float(width), float(height)), size)
    bend, edge = (-0.02, 0.004, 0.0, 0.0), math.pi / 2
    drawn = edge * (1 + bend[0] * edge**2 + bend[1] * edge**4)
    focal = math.hypot(width, height) / 2 / drawn
    return Lens("OPENCV_FISHEYE", (focal, focal, width / 2, height / 2, *bend), size) if kind == "fisheye" else None


def gains(sample: Sample, views: int) -> NDArray[np.float64]:
    """[views] exposure gain of each view. Held-out views keep 1, or the gain would count as error of the model."""
    result = np.ones(views)
    if sample.exposed:
        others = [i for i in range(views) if i % 8 in (2, 5)]
        for place, i in enumerate(others):
            result[i] = sample.exposed[place % len(sample.exposed)]
    return result


def labels(sample: Sample, world: World, shot: Shot, pose: Floats, camera: Floats | Lens) -> NDArray[np.uint8]:
    """[H, W] which of LABELS each pixel's centre shows, as bits."""
    height, width = shot.depth.shape
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).reshape(-1, 2) + 0.5
    points = unproject(pixels, shot.depth.reshape(-1).astype(np.float64), pose, camera)
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
    camera: Floats | Lens,
    gain: NDArray[np.float64],
    marks: list[NDArray[np.uint8]],
    points: SamplePoints,
) -> dict[str, Any]:
    """What is known about the scene, as written to truth.json; lengths in world units."""
    low, high = (np.array(corner) for corner in sample.hole)
    ghosts = points.xyz[points.false]
    visible = {}
    for name, shot, pose, mark in zip(names, shots, poses, marks, strict=True):
        rows, at, z = in_view(ghosts, pose, camera, shot.depth)
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
        "depth": "depth/NAME.npy: float32 z-depth at pixel centres of the first solid; glass is looked through"
        + "; 0 where that is 90 degrees from the axis or more" * isinstance(camera, Lens),
    }


def render(
    sample: Sample,
    world: World,
    poses: Floats,
    intrinsics: Floats | Lens,
    size: tuple[int, int],
    done: Callable[[], None],
) -> list[Shot]:
    """All views, by a pinhole or a lens, a thread for each CPU; `done` is called after each view."""

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


def write(
    folder: Path, sample: Sample, views: int, size: tuple[int, int], seed: int, done: Callable[[], None],
    lens: Lens | None = None,
) -> None:  # fmt: skip
    """Renders `sample` into the empty `folder`; the same arguments give the same bytes."""
    width, height = size
    intrinsics = np.array([sample.focal * width] * 2 + [width / 2, height / 2])
    camera = intrinsics if lens is None else lens
    world = sample.world(seed)
    poses = sample.cameras(views, np.random.default_rng([seed, 1]))
    told_poses = poses
    shots = render(sample, world, poses, camera, size, done)
    gain = gains(sample, views)
    if sample.drawn is not None:
        gain = sample.drawn.gains(poses)
        told_poses = sample.drawn.told_poses(poses, intrinsics, np.random.default_rng([seed, 3]))
    for shot, g in zip(shots, gain, strict=True):
        shot.rgb = np.clip(shot.rgb * g, 0, 1)
    points = find_points(sample, shots, poses, camera, np.random.default_rng([seed, 2]))
    marks = [labels(sample, world, s, p, camera) for s, p in zip(shots, poses, strict=True)]

    names = [f"{i:04d}" for i in range(views)]
    for name in ("images", "depth", "labels"):
        (folder / name).mkdir()
    for name, shot, mark in zip(names, shots, marks, strict=True):
        pixels = (shot.rgb * 255 + 0.5).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{name}.png", compress_level=3)
        Image.fromarray(mark).save(folder / "labels" / f"{name}.png")
        np.save(folder / "depth" / f"{name}.npy", shot.depth if lens is None else along_axis(shot.depth, lens))
    write_points(folder / "sparse_pc.ply", points.xyz, points.rgb)
    files = [f"images/{name}.png" for name in names]
    told: dict[str, Any] = {
        "camera_model": "OPENCV",
        **dict(zip(("fl_x", "fl_y", "cx", "cy"), intrinsics.tolist(), strict=True)),
        "w": width,
        "h": height,
        **dict.fromkeys(("k1", "k2", "p1", "p2"), 0.0),
    }
    if lens is not None:
        values = dict(zip(NAMES[lens.model], lens.params, strict=True))
        renamed = {{"fx": "fl_x", "fy": "fl_y"}.get(name, name): value for name, value in values.items()}
        told = {"camera_model": lens.model, **renamed, "w": width, "h": height}
    meta = {
        **told,
        "ply_file_path": "sparse_pc.ply",
        "frames": [
            {"file_path": file, "transform_matrix": pose.tolist()} for file, pose in zip(files, told_poses, strict=True)
        ],
    }
    facts = truth(sample, seed, world, files, shots, poses, camera, gain, marks, points)
    if sample.drawn is not None:
        facts |= sample.drawn.facts(files, poses)
        lists = {"train_filenames": sorted(set(files) - set(facts["sector"])), "test_filenames": facts["sector"]}
        (folder / "sector.json").write_text(json.dumps({**meta, **lists}, indent=1) + "\n", encoding="utf-8")
    (folder / "truth.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (folder / "transforms.json").write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")


def along_axis(distance: NDArray[np.float32], lens: Lens) -> NDArray[np.float32]:
    """[H, W] the depths along the axis of `lens` of what is at `distance` [H, W]; 0 where it is not before the lens."""
    x, y = np.meshgrid(np.arange(distance.shape[1]) + 0.5, np.arange(distance.shape[0]) + 0.5)
    depth = distance * lens.rays(np.stack([x, y], -1))[..., 2]
    return np.where(depth > 0, depth, 0).astype(np.float32)


def make(
    name: str,
    out: Path,
    views: int | None = 40,
    size: tuple[int, int] = (320, 240),
    seed: int = 0,
    overwrite: bool = False,
    done: Callable[[], None] = lambda: None,
    lens: str = "pinhole",
) -> Path:
    """Makes the sample scene `name` in the folder `out`, whole or not at all.

    Args:
        views: number of images; None: 40, of `random` as its seed draws. size: width and height in pixels.
        overwrite: replace `out` if it is a sample scene; nothing else is ever replaced.
        done: called after each view is rendered, from any thread.
        lens: one of LENSES.

    Raises:
        LpmError: no such scene, unusable numbers, or `out` exists.
    """
    if name not in BY_SEED and name not in SAMPLES:
        fail("scene", repr(name), "one of " + ", ".join([*SAMPLES, *BY_SEED]), "see `lpm-scene list`")
    if views is None:
        views = 40 if name in SAMPLES or name == "yard" else random_views(seed)
    if views < LEAST_VIEWS:
        fail("views", str(views), f"at least {LEAST_VIEWS}", "fewer views do not see every part of the scene twice")
    sample = SAMPLES[name] if name in SAMPLES else BY_SEED[name](seed)
    if sample.drawn is not None and lens != "pinhole":
        fail("lens", lens, "pinhole, for a scene that is called random")
    by = lens_of(lens, size)
    return fill_folder(out, size, seed, overwrite, lambda new: write(new, sample, views, size, seed, done, by))


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
