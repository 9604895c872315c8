"""Clips drawn from a seed, for figures that nobody tuned on: even seeds for development, odd ones for reports.

Movers, surroundings, cameras, and what is wrong with the photos are drawn. Two hold-outs: times of the cameras that are
trained on, and cameras at all times. Nothing is wrong with held-out photos, or it would count as error of the model.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lpm.scenes.ply import write_points
from lpm.scenes.samples.drawn_clips import Clip, draw_clip
from lpm.scenes.samples.faults import noisy, nudged
from lpm.scenes.samples.make import fill_folder, render_all
from lpm.scenes.samples.movers import Mover
from lpm.scenes.samples.moving import FRAMES, check_counts, first_points, solid_facts, write_photo
from lpm.scenes.samples.points import project, unproject
from lpm.scenes.samples.stages import draw_stage
from lpm.scenes.samples.trace import Shot, World, shoot
from lpm.scenes.scene import Floats

STAGE, PHOTOS = 31, 35
"""Streams of the generators that draw what stands still, and the noise."""


def world_at(base: World, movers: list[Mover], t: float) -> World:
    """`base` with those of the `movers` that are there at time `t`."""
    return replace(base, solids=base.solids + [s for m in movers if m.is_there(t) for s in m.solids(t)])


def motion(base: World, movers: list[Mover], t: float, later: float) -> tuple[Floats, Floats]:
    """[solids, 3] how far each solid of world_at(`t`) is moved at the time `later` (NaN: it is gone), and [solids] the
    number of its mover, from 1 on; 0 for what stands still."""
    still = len(base.solids)
    moved, number = [np.zeros((still, 3))], [np.zeros(still)]
    for i, mover in enumerate(movers):
        if mover.is_there(t):
            before, after = (np.array([s.low for s in mover.solids(at)]) for at in (t, later))
            moved.append(after - before if mover.is_there(later) else np.full_like(before, np.nan))
            number.append(np.full(len(before), i + 1.0))
    return np.concatenate(moved), np.concatenate(number)


def flow(shot: Shot, pose: Floats, intrinsics: Floats, moved: Floats) -> Floats:
    """[H, W, 2] float32 pixels (x, y) that what a pixel's centre shows is moved by, as the same camera sees it.

    Args:
        moved: [solids, 3] how far each solid is moved, metres; NaN gives NaN.
    """
    height, width = shot.depth.shape
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).reshape(-1, 2) + 0.5
    by = moved[shot.solid.ravel()]
    points = unproject(pixels, shot.depth.ravel().astype(np.float64), pose, intrinsics) + by
    there = project(points, pose, intrinsics)[0] - pixels
    there[(by == 0).all(1)] = 0
    return there.reshape(height, width, 2).astype(np.float32)  # type: ignore[no-any-return]


def write(folder: Path, clip: Clip, size: tuple[int, int], seed: int, done: Callable[[], None]) -> None:
    """Renders `clip` into the empty `folder`; the same arguments give the same bytes."""
    width, height = size
    intrinsics = np.array([clip.arc.focal * width] * 2 + [width / 2, height / 2])
    base = draw_stage(np.random.default_rng([seed, STAGE]), seed, clip.arc.distance, clip.faults.detail)
    rng, count, frames = np.random.default_rng([seed, PHOTOS]), len(clip.poses), len(clip.times)
    held = np.isin(np.arange(count), clip.arc.held_out)
    off = clip.faults.calibration * rng.uniform(0.5, 1.0, count) * ~held
    told = nudged(clip.poses, intrinsics, off, rng)
    still = render_all([partial(shoot, base, pose, intrinsics, *size) for pose in clip.poses], lambda: None)
    meta: list[dict[str, Any]] = []
    lists: dict[str, list[str]] = {"train_filenames": [], "test_filenames": [], "val_filenames": []}
    shares, firsts = {}, []
    for c, pose in enumerate(clip.poses):
        cam = f"cam{c:02d}"
        for kind in ("images", "dynamic", "depth", "movers", "flow"):
            (folder / kind / cam).mkdir(parents=True)
        worlds = [world_at(base, clip.movers, float(t)) for t in clip.moments[c]]
        shots = render_all([partial(shoot, world, pose, intrinsics, *size) for world in worlds], done)
        firsts.append(shots[0])
        for i, shot in enumerate(shots):
            name, t = f"{cam}/{i:04d}", float(clip.moments[c, i])
            trained = clip.trained_on(c, i)
            rgb = noisy(shot.rgb, clip.faults.noise, rng) if trained else shot.rgb
            shares[f"images/{name}.png"] = round(write_photo(folder, name, rgb, shot, still[c]), 5)
            later = float(clip.moments[c, min(i + 1, frames - 1)])
            moved, number = motion(base, clip.movers, t, later)
            Image.fromarray(number[shot.solid].astype(np.uint8)).save(folder / "movers" / f"{name}.png")
            if i + 1 < frames:
                by = flow(shot, pose, intrinsics, moved)
                np.savez_compressed(folder / "flow" / f"{name}.npz", flow=by)
            meta.append({"file_path": f"images/{name}.png", "time": float(clip.times[i]), "cam": cam,
                         "transform_matrix": told[c].tolist()})  # fmt: skip
            kinds = {"train": trained, "test": i in clip.held_times(), "val": bool(held[c])}
            for split in (split for split, is_in in kinds.items() if is_in):
                lists[f"{split}_filenames"].append(f"images/{name}.png")
    rows = [c for c in range(count) if not held[c]]
    xyz, rgb8 = first_points([firsts[c] for c in rows], clip.poses[rows], intrinsics, np.random.default_rng([seed, 2]))
    write_points(folder / "sparse_pc.ply", xyz, rgb8)
    lens = dict(zip(("fl_x", "fl_y", "cx", "cy"), intrinsics.tolist(), strict=True))
    head = {"camera_model": "PINHOLE", **lens, "w": width, "h": height, "ply_file_path": "sparse_pc.ply", **lists}
    facts = truth(clip, seed, shares, off)
    (folder / "truth.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (folder / "transforms.json").write_text(json.dumps({**head, "frames": meta}, indent=1) + "\n", encoding="utf-8")


def truth(clip: Clip, seed: int, shares: dict[str, float], off: Floats) -> dict[str, Any]:
    """What is known about the clip, as written to truth.json; lengths in metres.

    Args:
        shares: by photo, the share of its pixels that movers change. off: [C] pixels that told poses are off by.
    """
    cams = [f"cam{c:02d}" for c in range(len(clip.poses))]
    files = [f"images/{cam}/{i:04d}.png" for cam in cams for i in range(len(clip.times))]
    there = [[s for m in clip.movers if m.is_there(t) for s in m.solids(t)] for t in clip.times.tolist()]
    return {
        "scene": "random-moving", "seed": seed, "unit": "metre", "up": "z", "times": clip.times.tolist(),
        "moving": [[solid_facts(s) for s in solids] for solids in there],
        "exposure": [1.0] * len(clip.times),
        "drawn": {"share": clip.share, **asdict(clip.faults), "arc": asdict(clip.arc),
                  "movers": [asdict(mover) for mover in clip.movers]},
        "held_out": {"cams": [cams[c] for c in clip.arc.held_out], "times": clip.times[clip.held_times()].tolist()},
        "still_share": round(1 - float(np.mean(list(shares.values()))), 5),
        "moving_share": shares,
        "poses": dict(zip(cams, clip.poses.tolist(), strict=True)),
        "pose_error_px": dict(zip(cams, off.round(4).tolist(), strict=True)),
        "moments": dict(zip(files, clip.moments.ravel().tolist(), strict=True)),
        "moments_say": "when a photo was taken; transforms.json has the time that was asked for, as moving has",
        "dynamic": "dynamic/NAME.png: 255 where a pixel differs from the scene without what moves",
        "depth": "depth/NAME.npy: float32 z-depth at pixel centres, by the true poses",
        "movers": "movers/NAME.png: the number of the mover at a pixel's centre, from 1 on; 0 for what stands still",
        "flow": "flow/NAME.npz: flow, float32 [H, W, 2] (x, y): where what a pixel's centre shows is in the next photo "
        "of its camera, hidden or not, less where it is; NaN where it is gone; none of the last photo",
    }  # fmt: skip


def make_random_clip(
    out: Path, cams: int | None = None, frames: int = FRAMES, size: tuple[int, int] = (320, 240), seed: int = 0,
    overwrite: bool = False, done: Callable[[], None] = lambda: None,
) -> Path:  # fmt: skip
    """Makes the clip that `seed` draws in the folder `out`; see lpm.scenes.samples.make.make for the rest.

    Args:
        cams: number of cameras to train on, at least 2; None: 3 to 12, drawn. One or two more are held out.
        frames: number of time steps, at least 4. size: width and height in pixels.
    """
    check_counts(cams or 2, frames)
    return fill_folder(
        out, size, seed, overwrite, lambda new: write(new, draw_clip(seed, cams, frames, size), size, seed, done)
    )
