#!/usr/bin/env python3
"""Whether `lpm-prepare` finds the poses of photos whose poses are known, and how long each stage takes.

    python benchmarks/prepare.py --out FOLDER --scenes NAME=FOLDER ... [--arms default NAME='OPTIONS' ...]

A scene is a folder with photos and poses (`lpm-scene make` renders such; a COLMAP or transforms.json folder has them).
Its photos alone are given to each arm (options of lpm-prepare) in turn. Printed, and written to FOLDER/results.json:
images with a pose; the area under the recall curve of relative pose errors (the larger of the angles between rotations
and between directions of translation, over all pairs of photos; a pair without poses counts as wrong) up to 1, 3 and 5
degrees (AUC, as in the image matching benchmarks); the error of the focal length; the mapper taken; seconds by stage.
Compare times within one run only. What is in FOLDER is not done again.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lpm.scenes.read import read_scene

DEGREES = (1, 3, 5)


def relative_errors(truth: NDArray[np.float64], found: NDArray[np.float64]) -> NDArray[np.float64]:
    """Degrees, of all pairs of cameras; `truth` and `found` [V, 4, 4] are camera to world."""
    first, second = np.triu_indices(len(truth), 1)

    def between(poses: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.linalg.inv(poses)[first] @ poses[second])

    def angle(cosine: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.degrees(np.arccos(np.clip(cosine, -1, 1))))

    one, two = between(truth), between(found)
    turned = angle((np.einsum("nij,nij->n", one[:, :3, :3], two[:, :3, :3]) - 1) / 2)
    lengths = np.linalg.norm(one[:, :3, 3], axis=1) * np.linalg.norm(two[:, :3, 3], axis=1)
    moved = angle((one[:, :3, 3] * two[:, :3, 3]).sum(1) / np.maximum(lengths, 1e-12))
    return np.maximum(turned, moved)


def measured(scene: Path, out: Path) -> dict[str, Any]:
    """Of the scene that lpm-prepare made in `out` from the photos of `scene`."""
    truth, report = read_scene(scene), json.loads((out / "report.json").read_text())
    row = {
        "photos": len(truth.names),
        "posed": report["registered"],
        "mapper": report["poses"]["mapper"],
        "check": report["poses"]["check"],
        "seconds": report["seconds"] | {"all": sum(report["seconds"].values())},
        "pairs": report["pairs"],
    }
    found = read_scene(out)
    index = {Path(name).stem: i for i, name in enumerate(truth.names)}
    rows = [index[Path(name).stem] for name in found.names]
    errors = relative_errors(truth.c2w[rows], found.c2w)
    pairs = len(truth.names) * (len(truth.names) - 1) / 2
    row |= {f"auc@{at}": float(np.clip(1 - errors / at, 0, 1).sum() / pairs) for at in DEGREES}
    row["focal_error"] = float(np.median(found.intrinsics[:, 0]) / np.median(truth.intrinsics[:, 0]) - 1)
    return row


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scenes", nargs="+", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--arms", nargs="+", default=["default"], metavar="NAME='OPTIONS'")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict[str, Any]] = {}
    for name, folder in (scene.split("=", 1) for scene in asked.scenes):
        scene = Path(folder).expanduser().resolve()
        photos = asked.out / f"{name}-photos"
        photos.mkdir(exist_ok=True)
        for image in read_scene(scene).images:
            if not (photos / image.name).exists():
                (photos / image.name).symlink_to(image)
        for arm, _, options in (arm.partition("=") for arm in asked.arms):
            out = asked.out / f"{name}-{arm}"
            program = Path(sys.executable).with_name("lpm-prepare")
            command = [program, str(photos), str(out), "--overwrite", *shlex.split(options)]
            if not (out / "report.json").exists():
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    why = (done.stdout + done.stderr).strip().splitlines()[-1]
                    print(f"{name} {arm}: {why}", flush=True)
                    results[f"{name} {arm}"] = {"failed": why}
                    continue
            row = results[f"{name} {arm}"] = measured(scene, out)
            aucs = " ".join(f"{row[f'auc@{at}']:.3f}" for at in DEGREES)
            stages = ", ".join(f"{stage} {seconds:.0f}" for stage, seconds in row["seconds"].items())
            print(
                f"{name} {arm}: {row['posed']} of {row['photos']}, AUC@1/3/5 {aucs}, focal "
                f"{100 * row['focal_error']:+.2f} %, {row['mapper']}, seconds: {stages}",
                flush=True,
            )
        (asked.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
