"""Tiny good scenes in every layout, written directly: ten 32x24 images on an arc around a few points."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
from PIL import Image

from lpm.scenes.ply import write_points
from lpm.scenes.samples.worlds import look_at

WIDTH, HEIGHT, FOCAL = 32, 24, 30.0


def poses(views: int = 10) -> np.ndarray:
    """[views, 4, 4] OpenGL camera to world on an arc of radius 3 around the origin, z up."""
    angles = np.linspace(-0.8, 0.8, views)
    eyes = [np.array([3 * np.cos(a), 3 * np.sin(a), 0.6 + 0.2 * np.sin(5 * a)]) for a in angles]
    return np.stack([look_at(eye, np.zeros(3)) for eye in eyes])


def points(count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Positions [count, 3] near the origin and colours [count, 3] in 0..255."""
    rng = np.random.default_rng(0)
    return rng.uniform(-0.5, 0.5, (count, 3)), rng.integers(0, 256, (count, 3)).astype(np.uint8)


def write_image(path: Path, seed: int, size: tuple[int, int] = (WIDTH, HEIGHT), channels: int = 3) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], channels)).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def make_transforms(folder: Path, views: int = 10) -> Path:
    """nerfstudio's layout, with points; frames are listed backwards, since order must come from names."""
    for i in range(views):
        write_image(folder / "images" / f"{i:03d}.png", i)
    write_points(folder / "points.ply", *points())
    frames = [
        {"file_path": f"images/{i:03d}.png", "transform_matrix": pose.tolist()} for i, pose in enumerate(poses(views))
    ]
    meta = {"fl_x": FOCAL, "fl_y": FOCAL, "cx": WIDTH / 2, "cy": HEIGHT / 2, "w": WIDTH, "h": HEIGHT, "k1": 0.01}
    (folder / "transforms.json").write_text(
        json.dumps({**meta, "ply_file_path": "points.ply", "frames": frames[::-1]}, indent=1)
    )
    return folder


def make_blender(folder: Path, views: int = 10) -> Path:
    """Blender's layout: two splits, transparent images, names without suffix, no points."""
    angle = 2 * np.arctan(WIDTH / 2 / FOCAL)
    for split, chosen in (("train", range(1, views)), ("test", range(0, 1))):
        frames = []
        for i in chosen:
            write_image(folder / split / f"r_{i}.png", i, channels=4)
            frames.append({"file_path": f"./{split}/r_{i}", "transform_matrix": poses(views)[i].tolist()})
        text = json.dumps({"camera_angle_x": angle, "frames": frames})
        (folder / f"transforms_{split}.json").write_text(text)
    return folder


def quaternion(matrix: np.ndarray) -> np.ndarray:
    """wxyz of a rotation matrix, by its eigenvector form (Bar-Itzhack 2000), which has no special cases."""
    m = matrix
    k = np.array(
        [
            [m[0, 0] + m[1, 1] + m[2, 2], m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]],
            [m[2, 1] - m[1, 2], m[0, 0] - m[1, 1] - m[2, 2], m[0, 1] + m[1, 0], m[0, 2] + m[2, 0]],
            [m[0, 2] - m[2, 0], m[0, 1] + m[1, 0], m[1, 1] - m[0, 0] - m[2, 2], m[1, 2] + m[2, 1]],
            [m[1, 0] - m[0, 1], m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], m[2, 2] - m[0, 0] - m[1, 1]],
        ]
    )
    return np.linalg.eigh(k)[1][:, -1]


def make_colmap(
    folder: Path,
    views: int = 10,
    binary: bool = True,
    model: tuple[int, str, list[float]] = (1, "PINHOLE", [FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2]),
    where: str = "sparse/0",
) -> Path:
    """COLMAP's layout; its frame is that of `poses`. One image has two features and each point a track of two."""
    number, name, params = model
    sparse = folder / where
    sparse.mkdir(parents=True)
    rows = []
    for i, pose in enumerate(poses(views)):
        write_image(folder / "images" / f"{i:03d}.png", i)
        w2c = np.linalg.inv(pose @ np.diag([1.0, -1, -1, 1]))
        rows.append((i + 1, quaternion(w2c[:3, :3]), w2c[:3, 3], f"{i:03d}.png"))
    rows.reverse()
    xyz, rgb = points()
    if binary:
        (sparse / "cameras.bin").write_bytes(
            struct.pack("<QiiQQ", 1, 7, number, WIDTH, HEIGHT) + struct.pack(f"<{len(params)}d", *params)
        )
        data = struct.pack("<Q", len(rows))
        for key, q, t, image in rows:
            data += struct.pack("<i7di", key, *q, *t, 7) + image.encode() + b"\0"
            data += struct.pack("<Q", 2) + struct.pack("<ddq", 1.0, 2.0, 5) * 2 if key == 3 else struct.pack("<Q", 0)
        (sparse / "images.bin").write_bytes(data)
        data = struct.pack("<Q", len(xyz))
        for i, (p, c) in enumerate(zip(xyz, rgb, strict=True)):
            data += struct.pack("<Q3d3Bd", i + 1, *p, *c.tolist(), 0.5) + struct.pack("<Q4i", 2, 1, 0, 2, 0)
        (sparse / "points3D.bin").write_bytes(data)
    else:
        camera = f"7 {name} {WIDTH} {HEIGHT} " + " ".join(map(repr, params))
        (sparse / "cameras.txt").write_text(f"# Camera list\n{camera}\n")
        text = "# Image list\n"
        for key, q, t, image in rows:
            values = " ".join(repr(float(v)) for v in [*q, *t])
            text += f"{key} {values} 7 {image}\n" + ("1.0 2.0 5 1.0 2.0 5\n" if key == 3 else "\n")
        (sparse / "images.txt").write_text(text)
        text = "# 3D point list\n"
        for i, (p, c) in enumerate(zip(xyz, rgb, strict=True)):
            text += f"{i + 1} {' '.join(repr(float(v)) for v in p)} {' '.join(map(str, c))} 0.5 1 0 2 0\n"
        (sparse / "points3D.txt").write_text(text)
    return folder
