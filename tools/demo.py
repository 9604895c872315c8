#!/usr/bin/env python3
"""`make demo`: a sample scene made on the spot, trained, evaluated on held-out views, and exported."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import cv2

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


def run(title: str, *command: object) -> float:
    """Runs a command of the environment and shows what it prints; ends the demo where it fails. Returns seconds."""
    print(f"\n\033[1m[demo] {title}\033[0m\n$ {' '.join(map(str, command))}", flush=True)
    start = time.perf_counter()
    code = subprocess.run([BIN / str(command[0]), *map(str, command[1:])], cwd=ROOT).returncode
    if code:
        sys.exit(f"[demo] {command[0]} ended with code {code}")
    return time.perf_counter() - start


def contact_sheet(folder: Path, out: Path) -> None:
    """One picture of the first four pairs of photo and render that ns-eval left in `folder`."""
    pairs = [cv2.imread(str(path)) for path in sorted(folder.glob("*.png"))[:4]]
    frame = [cv2.copyMakeBorder(pair, 3, 3, 3, 3, cv2.BORDER_CONSTANT, value=(255, 255, 255)) for pair in pairs]
    rows = [cv2.hconcat(frame[i : i + 2]) for i in range(0, len(frame) - 1, 2)] or frame[:1]
    cv2.imwrite(str(out), cv2.vconcat(rows), [cv2.IMWRITE_JPEG_QUALITY, 90])


def main() -> None:
    """Four commands, the same that a person would type."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scene", default="room", help="name of the sample scene (lpm-scene list)")
    parser.add_argument("--steps", type=int, help="training steps (default: what suits the device)")
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="folder for everything that is made")
    options = parser.parse_args()

    scene, run_folder = options.out / options.scene, options.out / "runs" / options.scene / "lpm-splat" / "demo"
    if (ROOT / scene / "transforms.json").exists():
        print(f"[demo] {scene} is there already")
    else:
        run("1 of 4: a scene with known geometry, ray-traced", "lpm-scene", "make", options.scene, scene)
    steps = [] if options.steps is None else ["--max-num-iterations", options.steps]
    seconds = run(
        "2 of 4: training", "ns-train", "lpm-splat", "--data", scene, "--output-dir", options.out / "runs",
        "--experiment-name", options.scene, "--timestamp", "demo", "--vis", "viewer",
        "--viewer.quit-on-train-completion", "True", *steps,
    )  # fmt: skip
    evaluation = run_folder / "eval.json"
    run(
        "3 of 4: views that were held out", "ns-eval", "--load-config", run_folder / "config.yml",
        "--output-path", evaluation, "--render-output-path", run_folder / "eval",
    )  # fmt: skip
    ply = options.out / f"{options.scene}.ply"
    run("4 of 4: a PLY for other viewers", "lpm-export", "ply", run_folder, ply)

    sheet = options.out / f"{options.scene}.jpg"
    contact_sheet(ROOT / run_folder / "eval", ROOT / sheet)
    result = json.loads((ROOT / evaluation).read_text())["results"]
    print(
        f"\n\033[1mHeld-out PSNR {result['psnr']:.2f} dB, SSIM {result['ssim']:.4f}; "
        f"trained in {seconds:.0f} s.\033[0m\n"
        f"  photo beside render:    {sheet}\n"
        f"  Gaussians:              {ply}  (drop it on superspl.at/editor, or import it in Unity or Blender)\n"
        f"  look at it here:        .venv/bin/ns-viewer --load-config {run_folder / 'config.yml'}\n"
        f"  train on your own:      .venv/bin/ns-train lpm-splat --data FOLDER"
    )


if __name__ == "__main__":
    main()
