"""A textured corner of a room from an arc of cameras, as nerfstudio's layout: small, and rich enough to be matched."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from lpm.scenes.ply import write_points
from lpm.scenes.samples.worlds import look_at

WIDTH, HEIGHT, FOCAL = 240, 180, 220.0
# A point of each wall, and the axes along which its texture runs.
WALLS = [((0, 0, 0), (1, 0, 0), (0, 1, 0)), ((0, 0, 0), (0, 1, 0), (0, 0, 1)), ((0, 0, 0), (1, 0, 0), (0, 0, 1))]
SIDE = 4.0


def textures() -> list[np.ndarray]:
    """[512, 512] grey levels of each wall: blots of several sizes that nowhere repeat."""
    found = []
    for seed in range(len(WALLS)):
        rng, total = np.random.default_rng(seed), np.zeros((512, 512), np.float32)
        for cells, weight in ((12, 60), (40, 50), (110, 40)):
            small = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
            total += weight * cv2.resize(small, (512, 512), interpolation=cv2.INTER_CUBIC)
        found.append((total + 128).clip(0, 255))
    return found


def poses(views: int) -> np.ndarray:
    """[views, 4, 4] OpenGL camera to world."""
    angles = np.linspace(0.35, 1.2, views)
    rise = np.random.default_rng(5).uniform(-0.3, 0.3, views)
    eyes = [np.array([4.5 * np.cos(a), 4.5 * np.sin(a), 2.0 + r]) for a, r in zip(angles, rise, strict=True)]
    return np.stack([look_at(eye, np.array([0.6, 0.6, 0.9])) for eye in eyes])


def picture(c2w: np.ndarray, walls: list[np.ndarray]) -> np.ndarray:
    """[H, W, 3] what a camera sees."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH] + 0.5
    local = np.stack([(x - WIDTH / 2) / FOCAL, -(y - HEIGHT / 2) / FOCAL, -np.ones_like(x)], -1)
    ray, eye = local @ c2w[:3, :3].T, c2w[:3, 3]
    image, nearest = np.zeros((HEIGHT, WIDTH), np.float32), np.full((HEIGHT, WIDTH), np.inf)
    for (at, right, up), texture in zip(WALLS, walls, strict=True):
        normal = np.cross(right, up).astype(float)
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = ((np.array(at) - eye) @ normal) / (ray @ normal)
        place = eye + depth[..., None] * ray
        u, v = place @ np.array(right, float), place @ np.array(up, float)
        hit = (depth > 0) & (depth < nearest) & (u >= 0) & (v >= 0) & (u < SIDE) & (v < SIDE)
        scale = np.float32(511 / SIDE)
        shown = cv2.remap(texture, u.astype(np.float32) * scale, v.astype(np.float32) * scale, cv2.INTER_LINEAR)
        image, nearest = np.where(hit, shown, image), np.where(hit, depth, nearest)
    return image.round().astype(np.uint8)[..., None].repeat(3, 2)


def points(count: int = 600) -> np.ndarray:
    """[count, 3] on the walls."""
    rng = np.random.default_rng(1)
    wall = rng.integers(len(WALLS), size=count)
    uv = rng.uniform(0, 2.2, (count, 2))
    return np.array([u * np.array(WALLS[w][1]) + v * np.array(WALLS[w][2]) for w, (u, v) in zip(wall, uv, strict=True)])


def make_corner(folder: Path, views: int = 16) -> Path:
    """Writes the scene."""
    (folder / "images").mkdir(parents=True)
    walls, frames = textures(), []
    for i, c2w in enumerate(poses(views)):
        Image.fromarray(picture(c2w, walls)).save(folder / f"images/{i:03d}.png")
        frames.append({"file_path": f"images/{i:03d}.png", "transform_matrix": c2w.tolist()})
    xyz = points()
    write_points(folder / "points.ply", xyz, np.full(xyz.shape, 128, np.uint8))
    meta = {"fl_x": FOCAL, "fl_y": FOCAL, "cx": WIDTH / 2, "cy": HEIGHT / 2, "w": WIDTH, "h": HEIGHT}
    (folder / "transforms.json").write_text(json.dumps({**meta, "ply_file_path": "points.ply", "frames": frames}))
    return folder
