#!/usr/bin/env python3
"""Scenes with one planted fault each: whether `lpm-scene check` names it, and what it says of the scenes as they are.

python benchmarks/plausibility.py OUT.json --sample room 1 --sample garden 1 --sample yard 1 --scene FOLDER

A fault is named if there is a finding of its kind, and, where it is one photo's, with that photo's name.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from lpm.plausibility.check import check, check_briefly
from lpm.scenes.ply import write_points
from lpm.scenes.read import read_scene
from lpm.scenes.samples.make import make
from lpm.scenes.seen import shown

FLIP = np.diag([-1.0, 1.0, 1.0, 1.0])


class Planted:
    """A copy of a scene that a fault can be put into: pictures as links, cameras as numbers."""

    def __init__(self, scene, folder):
        self.scene, self.folder = scene, folder
        self.names = [f"images/{i:04d}{path.suffix.lower()}" for i, path in enumerate(scene.images)]
        self.files = [Path(path).resolve() for path in scene.images]
        self.c2w, self.intrinsics = scene.c2w.copy(), scene.intrinsics.copy()
        self.masks = None

    def own_file(self, view, pixels):
        """Puts a picture of `pixels` in the place of a photo."""
        path = self.folder / "made" / Path(self.names[view]).name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path, **({"quality": 95} if path.suffix in (".jpg", ".jpeg") else {}))
        self.files[view] = path

    def add_masks(self):
        """Masks of one and the same part of space: around those points that are nearest to the middle of all."""
        xyz = self.scene.points.xyz
        away = np.linalg.norm(xyz - np.median(xyz, 0), axis=1)
        near = xyz[away < np.quantile(away, 0.4)]
        self.masks = []
        for view in range(len(self.scene)):
            width, height = self.scene.sizes[view].tolist()
            fx, fy, cx, cy = self.scene.intrinsics[view]
            local = (near - self.c2w[view, :3, 3]) @ (self.c2w[view, :3, :3] * [1, -1, -1])
            local = local[local[:, 2] > 1e-6]
            side = max(4, max(width, height) // 40)  # cells in which points lie
            grid = np.zeros((height // side + 1, width // side + 1), bool)
            x, y = fx * local[:, 0] / local[:, 2] + cx, fy * local[:, 1] / local[:, 2] + cy
            there = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            grid[(y[there] / side).astype(int), (x[there] / side).astype(int)] = True
            mask = np.where(grid.repeat(side, 0).repeat(side, 1)[:height, :width], 0, 255).astype(np.uint8)
            self.masks.append(mask)

    def write(self):
        """The folder, as nerfstudio has it."""
        (self.folder / "images").mkdir()
        for name, file in zip(self.names, self.files, strict=True):
            os.symlink(file, self.folder / name)
        write_points(self.folder / "points.ply", self.scene.points.xyz, self.scene.points.rgb)
        frames = []
        for i, name in enumerate(self.names):
            fx, fy, cx, cy = self.intrinsics[i].tolist()
            bent = dict(zip(("k1", "k2", "k3", "k4", "p1", "p2"), self.scene.distortion[i].tolist(), strict=True))
            frame = {"file_path": name, "transform_matrix": self.c2w[i].tolist(), "fl_x": fx, "fl_y": fy, "cx": cx,
                     "cy": cy, **bent}  # fmt: skip
            if self.masks is not None:
                frame["mask_path"] = f"masks/{i:04d}.png"
                (self.folder / "masks").mkdir(exist_ok=True)
                Image.fromarray(self.masks[i]).save(self.folder / frame["mask_path"])
            frames.append(frame)
        meta = {"ply_file_path": "points.ply", "frames": frames}
        (self.folder / "transforms.json").write_text(json.dumps(meta))
        return self.folder


def focal(p, rng, n):
    p.intrinsics[:, :2] *= rng.choice([0.8, 0.87, 1.15, 1.25])


def swapped(p, rng, n):
    i = int(rng.integers(n))
    j = (i + n // 3) % n
    p.files[i], p.files[j] = p.files[j], p.files[i]
    return [i, j]


def mirrored(p, rng, n):
    p.c2w = FLIP @ p.c2w @ FLIP


def shifted(p, rng, n):
    p.files = p.files[1:] + p.files[:1] if rng.random() < 0.5 else p.files[-1:] + p.files[:-1]


def scaled(p, rng, n):
    p.intrinsics *= rng.choice([0.5, 2.0])


def black(p, rng, n):
    i = int(rng.integers(n))
    p.own_file(i, np.zeros((*p.scene.sizes[i][::-1], 3), np.uint8))
    return [i]


def duplicate(p, rng, n):
    i = int(rng.integers(n))
    p.files[i] = p.files[(i + n // 4) % n]
    p.names[i] = str(Path(p.names[i]).with_suffix(p.files[i].suffix))
    return [i]


def mask(p, rng, n):
    p.add_masks()
    i = int(rng.integers(n))
    p.masks[i] = 255 - p.masks[i]
    return [i]


def centre(p, rng, n):
    angle = rng.uniform(0, 2 * np.pi)
    p.intrinsics[:, 2:] += 0.06 * p.scene.sizes.max() * np.array([np.cos(angle), np.sin(angle)])


def pose(p, rng, n):
    i = int(rng.integers(n))
    axis = rng.normal(size=3)
    p.c2w[i, :3, :3] = Rotation.from_rotvec(np.radians(3) * axis / np.linalg.norm(axis)).as_matrix() @ p.c2w[i, :3, :3]
    extent = np.linalg.norm(p.c2w[:, :3, 3] - p.c2w[:, :3, 3].mean(0), axis=1).max()
    p.c2w[i, :3, 3] += 0.03 * extent * rng.normal(size=3)
    return [i]


# What is planted, and the kind of the finding that names it.
FAULTS = {
    "wrong focal": (focal, "focal"), "swapped photos": (swapped, "swapped"), "mirrored poses": (mirrored, "mirrored"),
    "time-shifted names": (shifted, "shifted"), "scaled intrinsics": (scaled, "scaled"),
    "black photo": (black, "black"),
    "duplicate": (duplicate, "duplicate"), "wrong mask": (mask, "mask"),
    "offset principal point": (centre, "principal-point"), "noise on one pose": (pose, "pose"),
    "good masks": (lambda p, rng, n: p.add_masks(), None), "nothing": (lambda p, rng, n: None, None),
}  # fmt: skip


def tried(scene, fault, seed, folder):
    """A row of the table: whether the fault is named by the whole check and by the brief one, and what they said."""
    plant, kind = FAULTS[fault]
    planted = Planted(scene, folder)
    photos = plant(planted, np.random.default_rng(seed), len(scene)) or []
    read = read_scene(planted.write())
    row = {"fault": fault}
    for name, look in (("check", check), ("brief", check_briefly)):
        start = time.perf_counter()
        report = look(read)
        row[f"{name}_s"] = round(time.perf_counter() - start, 2)
        found = [finding for finding in report.findings if finding.serious or finding.kind == kind]
        names = {planted.names[i] for i in photos}
        named = [f for f in found if f.kind == kind and (not photos or names & set(f.photos))]
        row[name] = bool(named) if kind else not report.serious
        row[f"{name}_said"] = [f"{f.kind}: {f.text}" for f in found]
    row["shown"] = round(float(shown(read).mean()), 3)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sample", nargs=2, action="append", default=[], metavar=("NAME", "SEED"))
    parser.add_argument("--scene", type=Path, action="append", default=[])
    parser.add_argument("--views", type=int, default=40)
    parser.add_argument("--size", default="320x240")
    parser.add_argument("--seed", type=int, default=0, help="of what is planted, and where")
    parser.add_argument("--faults", nargs="*", default=list(FAULTS))
    o = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as work:
        scenes = {path.name: path for path in o.scene}
        for name, seed in o.sample:
            size = tuple(map(int, o.size.split("x")))
            scenes[f"{name} {seed}"] = make(name, Path(work) / f"{name}{seed}", o.views, size, int(seed))
        for k, (name, path) in enumerate(scenes.items()):
            scene = read_scene(path)
            for fault in o.faults:
                folder = Path(work) / "planted"
                folder.mkdir()
                row = {"scene": name, "photos": len(scene), **tried(scene, fault, 1000 * o.seed + k, folder)}
                shutil.rmtree(folder)
                rows.append(row)
                told = "; ".join(row["check_said"])[:150]
                print(f"{name:12} {fault:24} {row['check']!s:6} {row['check_s']:5.1f} s  brief {row['brief']!s:6} "
                      f"{row['brief_s']:4.1f} s  {told}", flush=True)  # fmt: skip
    planted = [row for row in rows if FAULTS[row["fault"]][1]]
    summary = {
        "command": " ".join(["python", *sys.argv]), "cores": os.cpu_count(),
        "named": f"{sum(row['check'] for row in planted)} of {len(planted)}",
        "named_briefly": f"{sum(row['brief'] for row in planted)} of {len(planted)}",
        "nothing_serious_on_good_ones": f"{sum(r['check'] and r['brief'] for r in rows if r not in planted)} of "
                                        f"{len(rows) - len(planted)}",
    }  # fmt: skip
    print(json.dumps(summary, indent=1))
    o.out.write_text(json.dumps({**summary, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
