#!/usr/bin/env python3
"""What fisheye and 360 degree photos lose against pinhole photos that show the same.

    python benchmarks/prepare_lenses.py --out FOLDER [--lenses fisheye 360] [--scene room] [--views 24] [--steps 3000]

For each lens, a sample scene is rendered, and what lpm-prepare would cut out of each photo is rendered as pinhole
photos of their own. Four arms, which hold out the same places, every eighth:
`photos`: the photos alone, by lpm-prepare; `given`: the photos with exact poses and the sample's points, cut while they
are read; `pinhole`: the pinhole photos alone, by lpm-prepare; `pinhole-given`: those with exact poses and the sample's
points. Printed, and written to FOLDER/results.json: held-out PSNR and SSIM. What is in FOLDER is not done again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lpm.scenes.cut_up import named
from lpm.scenes.cuts import cuts
from lpm.scenes.read import read_scene
from lpm.scenes.samples.make import lens_of, render
from lpm.scenes.samples.worlds import SAMPLES

SIZES = {"fisheye": (480, 360), "360": (768, 384)}


def pinholes(scene: Path, name: str, lens_name: str, out: Path) -> None:
    """Renders what the views of each photo of the sample scene in `scene` show, as a scene of pinhole photos."""
    sample, told = SAMPLES[name], json.loads((scene / "transforms.json").read_text())
    lens = lens_of(lens_name, SIZES[lens_name])
    assert lens is not None
    world = sample.world(0)
    frames: list[dict[str, Any]] = []
    for cut in cuts(lens, None, "lens"):
        places = [np.array(frame["transform_matrix"]) for frame in told["frames"]]
        poses = [cut.pose(place) for place in places]
        shots = render(sample, world, np.array(poses), cut.intrinsics, cut.size, lambda: None)
        there = cut.take(np.zeros((lens.size[1], lens.size[0], 3), np.uint8))[1]
        for frame, pose, shot in zip(told["frames"], poses, shots, strict=True):
            photo, mask = (Path(named(f"{kind}/{Path(frame['file_path']).name}", cut)) for kind in ("images", "masks"))
            for path, pixels in ((photo, np.clip(shot.rgb, 0, 1) * 255 + 0.5), (mask, there * 255)):
                (out / path).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.astype(np.uint8)).save(out / path)
            values = dict(zip(("fl_x", "fl_y", "cx", "cy"), cut.intrinsics.tolist(), strict=True))
            frames.append(
                {"file_path": str(photo), "mask_path": str(mask), "transform_matrix": pose.tolist(), **values}
                | {"w": cut.size[0], "h": cut.size[1]}
            )
    held = {frame["file_path"].rsplit("/")[-1].split(".")[0] for frame in told["frames"][::8]}
    tests = [f["file_path"] for f in frames if Path(f["file_path"]).stem.split("_")[0] in held]
    lists = {
        "train_filenames": [f["file_path"] for f in frames if f["file_path"] not in tests],
        "test_filenames": tests,
        "val_filenames": tests,
    }
    (out / "sparse_pc.ply").write_bytes((scene / "sparse_pc.ply").read_bytes())
    meta = {"camera_model": "PINHOLE", "ply_file_path": "sparse_pc.ply", "frames": frames} | lists
    (out / "transforms.json").write_text(json.dumps(meta))


def ran(*command: object) -> None:
    """Runs a command of this environment."""
    program = Path(sys.executable).with_name(str(command[0]))
    subprocess.run([str(program), *map(str, command[1:])], check=True)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--lenses", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--scene", default="room", choices=list(SAMPLES))
    parser.add_argument("--views", type=int, default=24)
    parser.add_argument("--steps", type=int, default=3000)
    asked = parser.parse_args()
    results: dict[str, Any] = {}
    for lens in asked.lenses:
        place = asked.out / f"{asked.scene}-{lens}-{asked.views}"
        place.mkdir(parents=True, exist_ok=True)
        made, photos, pinhole, prepared = (place / kind for kind in ("made", "photos", "pinhole", "prepared"))
        if not made.exists():
            size = "x".join(map(str, SIZES[lens]))
            ran("lpm-scene", "make", asked.scene, made, "--lens", lens, "--size", size, "--views", asked.views)
        if not pinhole.exists():
            pinholes(made, asked.scene, lens, pinhole)
        if not photos.exists():
            photos.mkdir()
            for image in read_scene(made).images:
                if not (photos / image.name).exists():
                    (photos / image.name).symlink_to(image.resolve())
        if not (prepared / "report.json").exists():
            model = ["--camera-model", "OPENCV_FISHEYE"] if lens == "fisheye" else []
            ran("lpm-prepare", photos, prepared, "--overwrite", *model)
        again = place / "pinhole-prepared"
        if not (again / "report.json").exists():
            ran("lpm-prepare", pinhole / "images", again, "--masks", pinhole / "masks", "--overwrite", "--accept")
        lists = json.loads((pinhole / "transforms.json").read_text())
        for kind, file in (("train", "train_list.txt"), ("test", "test_list.txt"), ("val", "validation_list.txt")):
            names = [name.removeprefix("images/") for name in lists[f"{kind}_filenames"]]
            (again / file).write_text("\n".join(names) + "\n")
        for arm, scene in (("photos", prepared), ("given", made), ("pinhole", again), ("pinhole-given", pinhole)):
            run = place / f"run-{arm}"
            if not (run / "metrics.json").exists():
                ran("lpm-train", scene, "--out", run, "--steps", asked.steps, "--no-page", "--seed", 1)
            found = json.loads((run / "metrics.json").read_text())
            results.setdefault(lens, {})[arm] = {key: found[key] for key in ("psnr", "ssim", "points")}
            print(f"{lens} {arm}: {found['psnr']:.2f} dB, SSIM {found['ssim']:.4f}", flush=True)
        (asked.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
