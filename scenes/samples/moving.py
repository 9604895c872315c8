"""Sample scenes that move: a row of cameras that stand still, and one thing that happens. Metres, z up.

What moves, where it is at every time, and which pixels it changes (shadows too) is known exactly.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lpm.checks import fail
from lpm.scenes.ply import write_points
from lpm.scenes.samples.make import fill_folder, render_all
from lpm.scenes.samples.points import unproject
from lpm.scenes.samples.textures import Atlas, stained, tiles
from lpm.scenes.samples.trace import Shot, Solid, World, shoot
from lpm.scenes.samples.worlds import COMMON, block, look_at, table
from lpm.scenes.scene import Floats

CAMS, FRAMES, FOCAL = 6, 20, 0.95
POINTS = 4_000
"""Points of the first frame's surface that training starts from."""
NOISE = 0.004
"""Standard deviation of their places, metres."""

Happening = Callable[[float], tuple[list[Solid], float]]
"""time (0..1) -> what is there beside the studio, and the exposure as a share of the usual."""


@dataclass(frozen=True)
class Clip:
    """A scene that moves."""

    name: str
    happening: Happening


def _mover(t: float) -> tuple[list[Solid], float]:
    angle = np.pi * (0.15 + 0.7 * t)
    centre = (0.55 * float(np.cos(angle)), -0.15, 0.95 + 0.3 * float(np.sin(angle)))
    return [Solid("globe", "mosaic", centre, None, 0.17, 0.5)], 1.0


def _occluder(t: float) -> tuple[list[Solid], float]:
    if not 0.3 <= t <= 0.6:
        return [], 1.0
    x = -0.75 + 5.0 * (t - 0.3)
    return [block("board", "poster", (x - 0.25, -0.95, 0.75), (0.5, 0.03, 0.5), 0.52)], 1.0


def _appearing(t: float) -> tuple[list[Solid], float]:
    return ([block("crate", "crate2", (-0.15, -0.2, 0.74), (0.34, 0.3, 0.32), 0.36)] if t >= 0.5 else []), 1.0


def _flash(t: float) -> tuple[list[Solid], float]:
    return [], 1.7 if 0.45 <= t <= 0.52 else 1.0


CLIPS = {
    clip.name: clip
    for clip in (
        Clip("mover", _mover),
        Clip("occluder", _occluder),
        Clip("appearing", _appearing),
        Clip("flash", _flash),
        Clip("still", lambda t: ([], 1.0)),
    )
}


def studio(seed: int) -> World:
    """The corner of a room with a table and things on it."""
    makers = {
        **COMMON,
        "plaster": stained((0.78, 0.73, 0.64), (0.55, 0.46, 0.4)),
        "paper": tiles([(0.42, 0.55, 0.5), (0.55, 0.62, 0.48), (0.36, 0.46, 0.5), (0.62, 0.6, 0.5)], 16, 0.06),
        "floor": tiles([(0.7, 0.6, 0.5), (0.58, 0.56, 0.55), (0.76, 0.68, 0.56), (0.5, 0.46, 0.44)], 16, 0.06),
    }
    solids = [
        Solid("floor", "floor", (-4, -4, 0), (4, 4, 0), 0, 4.1),
        Solid("wall", "paper", (-4, 1.2, 0), (4, 1.2, 4), 0, 4.7),
        Solid("wall", "plaster", (-1.9, -4, 0), (-1.9, 4, 4), 0, 5.1),
        Solid("poster", "poster", (-0.9, 1.19, 1.0), (0.1, 1.19, 1.9), 0, 1.02),
        *table((-0.9, -0.5, 0.0), (1.8, 1.0, 0.74), "wood"),
        block("box", "mosaic", (-0.75, 0.1, 0.74), (0.28, 0.26, 0.3), 0.9),
        Solid("ball", "rust", (0.45, 0.2, 0.74 + 0.15), None, 0.15, 0.5),
        block("cabinet", "crate", (1.0, 0.6, 0.0), (0.7, 0.55, 1.25), 1.4),
        Solid("vase", "marble", (1.3, 0.85, 1.25 + 0.19), None, 0.19, 0.5),
    ]
    return World(solids, Atlas(makers, seed), light=(0.4, -2.5, 3.0))


def cameras(count: int) -> Floats:
    """[count, 4, 4] an arc of cameras, eight degrees apart, that look at the table."""
    angles = np.radians(8.0) * (np.arange(count) - (count - 1) / 2) - np.pi / 2
    height = 1.45 + 0.15 * np.cos(2 * np.arange(count))
    eyes = np.stack([2.6 * np.cos(angles), 2.6 * np.sin(angles), height], 1)
    return np.stack([look_at(eye, np.array([0.0, 0.1, 0.9])) for eye in eyes])


def write(folder: Path, clip: Clip, cams: int, frames: int, size: tuple[int, int], seed: int, done: Any) -> None:
    """Renders `clip` into the empty `folder`; the same arguments give the same bytes."""
    width, height = size
    intrinsics = np.array([FOCAL * width] * 2 + [width / 2, height / 2])
    base, poses, times = studio(seed), cameras(cams), np.arange(frames) / (frames - 1)
    happenings = [clip.happening(float(t)) for t in times]
    worlds = [replace(base, solids=base.solids + more, exposure=base.exposure * gain) for more, gain in happenings]
    still = render_all([partial(shoot, base, pose, intrinsics, *size) for pose in poses], lambda: None)
    shots = render_all([partial(shoot, world, pose, intrinsics, *size) for pose in poses for world in worlds], done)
    meta: list[dict[str, Any]] = []
    for c, pose in enumerate(poses):
        for name in ("images", "dynamic", "depth"):
            (folder / name / f"cam{c:02d}").mkdir(parents=True)
        for i, t in enumerate(times):
            shot, name = shots[c * frames + i], f"cam{c:02d}/{i:04d}"
            write_photo(folder, name, shot.rgb, shot, still[c])
            meta.append({"file_path": f"images/{name}.png", "time": float(t), "cam": f"cam{c:02d}",
                         "transform_matrix": pose.tolist()})  # fmt: skip
    xyz, rgb = first_points(shots[::frames], poses, intrinsics, np.random.default_rng([seed, 2]))
    write_points(folder / "sparse_pc.ply", xyz, rgb)
    lens = dict(zip(("fl_x", "fl_y", "cx", "cy"), intrinsics.tolist(), strict=True))
    head = {"camera_model": "PINHOLE", **lens, "w": width, "h": height, "ply_file_path": "sparse_pc.ply"}
    tracks = [[solid_facts(s) for s in more] for more, _ in happenings]
    facts = {
        "scene": clip.name, "seed": seed, "unit": "metre", "up": "z", "times": times.tolist(), "moving": tracks,
        "exposure": [gain for _, gain in happenings],
        "dynamic": "dynamic/NAME.png: 255 where a pixel differs from the scene without what moves",
        "depth": "depth/NAME.npy: float32 z-depth at pixel centres",
    }  # fmt: skip
    (folder / "truth.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (folder / "transforms.json").write_text(json.dumps({**head, "frames": meta}, indent=1) + "\n", encoding="utf-8")


def write_photo(folder: Path, name: str, rgb: NDArray[np.float32], shot: Shot, still: Shot) -> float:
    """Writes the photo `rgb` of `shot` [H, W, 3], the mask of where `shot` differs from the `still` scene, and depth.

    Returns the share of the photo in the mask.
    """
    pixels, same, seen = ((np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8) for image in (shot.rgb, still.rgb, rgb))
    Image.fromarray(seen).save(folder / "images" / f"{name}.png", compress_level=3)
    moved = np.abs(pixels.astype(int) - same).max(2) > 1
    Image.fromarray(moved * np.uint8(255)).save(folder / "dynamic" / f"{name}.png")
    np.save(folder / "depth" / f"{name}.npy", shot.depth)
    return float(moved.mean())


def solid_facts(solid: Solid) -> dict[str, Any]:
    """What truth.json says of a part of what moves."""
    return {"name": solid.name, "low": solid.low, "high": solid.high, "radius": solid.radius}


def first_points(shots: list[Shot], poses: Floats, intrinsics: Floats, rng: np.random.Generator) -> tuple[Floats, Any]:
    """Points of the surfaces that the first frame shows, with a little noise, as SfM would find them."""
    xyz, rgb = [], []
    for shot, pose in zip(shots, poses, strict=True):
        height, width = shot.depth.shape
        at = rng.integers(0, [width, height], (POINTS // len(shots), 2))
        depth = shot.depth[at[:, 1], at[:, 0]].astype(np.float64)
        xyz.append(unproject(at + 0.5, depth, pose, intrinsics) + rng.normal(scale=NOISE, size=(len(at), 3)))
        rgb.append((np.clip(shot.rgb[at[:, 1], at[:, 0]], 0, 1) * 255 + 0.5).astype(np.uint8))
    return np.concatenate(xyz), np.concatenate(rgb)


def check_counts(cams: int, frames: int) -> None:
    """Raises LpmError where a clip of `cams` cameras and `frames` time steps is too small."""
    if cams < 2 or frames < 4:
        fail("cams and frames", f"{cams} and {frames}", "at least 2 cameras and 4 frames")


def make_clip(
    name: str, out: Path, cams: int = CAMS, frames: int = FRAMES, size: tuple[int, int] = (240, 180), seed: int = 0,
    overwrite: bool = False, done: Callable[[], None] = lambda: None,
) -> Path:  # fmt: skip
    """Makes the clip `name` in the folder `out`, whole or not at all; see lpm.scenes.samples.make.make for the rest.

    Args:
        cams, frames: numbers of cameras (at least 2) and of time steps (at least 4). size: width and height in pixels.
    """
    check_counts(cams, frames)
    return fill_folder(out, size, seed, overwrite, lambda f: write(f, CLIPS[name], cams, frames, size, seed, done))
