#!/usr/bin/env python3
"""Thousands of photos on one machine: seconds to the first step, memory, and how long steps wait for photos.

python benchmarks/many_photos.py OUT --photos 5000 --points 2000000 --cache-gb 1

The scene is a walk through a street of `lpm-scene`, repeated: some photos, rendered at half the size and scaled up, are
linked under many names, and each round of them has the same poses and points, a street farther on. Training runs in a
process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

STREET = 24.0
"""Metres from one round to the next, along x."""
TRACK = 3
"""Photos that see a point, as the model's tracks have it."""


def make_scene(folder: Path, photos: int, points: int, distinct: int, size: tuple[int, int]) -> None:
    """Writes a COLMAP folder; its photos are hard links to `distinct` JPEGs."""
    from scipy.spatial.transform import Rotation

    from lpm.scenes.read import read_scene
    from lpm.scenes.samples.make import make

    if (folder / "sparse").exists():
        return
    once = folder / "once"
    if not once.exists():
        make("street", once, distinct, (size[0] // 2, size[1] // 2))
    scene = read_scene(once)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for i, path in enumerate(scene.images):
        Image.open(path).convert("RGB").resize(size, Image.Resampling.BICUBIC).save(folder / f"{i}.jpg", quality=92)
    rng = np.random.default_rng(0)
    model = folder / "sparse" / "0"
    flip = np.diag([1.0, -1.0, -1.0, 1.0])
    fx, fy, cx, cy = 2 * scene.intrinsics[0]
    images = bytearray(struct.pack("<Q", photos))
    for i in range(photos):
        pose = scene.c2w[i % distinct] @ flip
        pose[0, 3] += STREET * (i // distinct)
        w2c = np.linalg.inv(pose)
        x, y, z, w = Rotation.from_matrix(w2c[:3, :3]).as_quat()
        images += struct.pack("<I7dI", i + 1, w, x, y, z, *w2c[:3, 3], 1)
        images += f"{i:06d}.jpg".encode() + b"\0" + struct.pack("<Q", 0)
        os.link(folder / f"{i % distinct}.jpg", folder / "images" / f"{i:06d}.jpg")
    rounds = -(-photos // distinct)
    which = rng.integers(0, len(scene.points.xyz), points)
    xyz = scene.points.xyz[which] + rng.normal(0, 0.01, (points, 3))
    xyz[:, 0] += STREET * rng.integers(0, rounds, points)
    row = np.dtype([("id", "<u8"), ("xyz", "<f8", 3), ("rgb", "u1", 3), ("error", "<f8"), ("length", "<u8"),
                    ("track", "<u4", 2 * TRACK)])  # fmt: skip
    rows = np.zeros(points, row)
    rows["id"], rows["xyz"], rows["rgb"], rows["length"] = np.arange(points), xyz, scene.points.rgb[which], TRACK
    model.mkdir(parents=True)
    (model / "points3D.bin").write_bytes(struct.pack("<Q", points) + rows.tobytes())
    (model / "images.bin").write_bytes(bytes(images))
    camera = struct.pack("<IiQQ4d", 1, 1, *size, fx, fy, cx, cy)
    (model / "cameras.bin").write_bytes(struct.pack("<Q", 1) + camera)


def train(o: argparse.Namespace) -> None:
    """One run, measured from inside; prints JSON."""
    began = time.perf_counter()
    from lpm.scenes.read import read_scene
    from lpm.train.photo_store import PhotoStore
    from lpm.train.run_settings import RunSettings
    from lpm.train.trainer import Trainer

    settings = RunSettings(
        scene=o.folder, steps=o.steps, page=False, device="cpu", strategy=o.strategy, save_every=10**9, measure_every=0
    )
    settings.data.cache_gb = o.cache_gb
    settings.model.warmup_length, settings.model.refine_every = o.steps // 6, max(10, o.steps // 6)
    trainer = Trainer(settings, o.folder / f"run-{os.getpid()}")
    scene = read_scene(o.folder)
    read = time.perf_counter() - began
    trainer.setup(scene)
    start = time.perf_counter() - began
    photos = trainer.data.train
    lazy = isinstance(photos, PhotoStore)
    waited = photos.waited if lazy else 0.0
    most, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            most[0] = max(most[0], int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize())

    threading.Thread(target=watch, daemon=True).start()
    times, last = [], time.perf_counter()

    def after(step: int) -> None:
        nonlocal last
        now = time.perf_counter()
        times.append(now - last)
        last = now

    trainer.on_step.append(after)
    trainer.train()
    done.set()
    total = sum(times)
    print("RESULT " + json.dumps({
        "photos": len(scene), "points": len(scene.points.xyz), "strategy": o.strategy, "steps": o.steps,
        "cache_gb": o.cache_gb, "streamed": lazy, "read_s": round(read, 1), "start_s": round(start, 1),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "training_gib": round(most[0] / 2**30, 2), "ms_a_step": round(1000 * total / len(times), 1),
        "median_ms": round(1000 * float(np.median(times)), 1),
        "events": sum(1 for _ in (trainer.folder / "edits.jsonl").open()) if o.strategy != "adc" else None,
        "waited_share": round((photos.waited - waited) / total, 4) if lazy else 0.0,
        "decoded": photos.decoded if lazy else len(photos), "cached_mib": round(
            (photos.kept_bytes + photos.passing_bytes) / 2**20) if lazy else None,
    }))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=500)
    parser.add_argument("--points", type=int, default=200_000)
    parser.add_argument("--distinct", type=int, default=36)
    parser.add_argument("--size", type=int, nargs=2, default=(1600, 1200))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--strategy", default="lpm")
    parser.add_argument("--cache-gb", type=float, default=None)
    parser.add_argument("--out", type=Path, help="append the figures to this file")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    o = parser.parse_args()
    if o.inside:
        train(o)
        return
    make_scene(o.folder, o.photos, o.points, o.distinct, tuple(o.size))
    done = subprocess.run([sys.executable, "-P", __file__, *sys.argv[1:], "--inside"], capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    result = next(line for line in done.stdout.splitlines() if line.startswith("RESULT ")).removeprefix("RESULT ")
    print(result)
    if o.out is not None:
        with o.out.open("a") as file:
            file.write(result + "\n")


if __name__ == "__main__":
    main()
