#!/usr/bin/env python3
"""A scene trained whole and in tiles: held-out PSNR (dB) of both, and of the photos that look across a border.

lpm-scene make street out/street --views 96
python benchmarks/tiles.py out/street out/tiles --tiles 3 --steps 1500 --max-points 24000
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from lpm.formats.read import load
from lpm.gaussians.similarity import move
from lpm.render.rasterize import rasterize
from lpm.scenes.images import load_image
from lpm.scenes.read import read_scene
from lpm.scenes.split import hold_out
from lpm.tile.cells import seen_points
from lpm.tile.split import read_plan

BIN = Path(sys.executable).parent
CROSSING = 0.2
"""Share of a photo's points that must lie in a second tile for it to look across a border."""


def psnr(params, scene, view):
    """Of the Gaussians in the frame of the scene's poses, against the photo."""
    width, height = scene.sizes[view].tolist()
    fx, fy, cx, cy = scene.intrinsics[view].tolist()
    viewmat = torch.from_numpy(np.linalg.inv(scene.c2w[view] @ np.diag([1.0, -1.0, -1.0, 1.0]))).float()
    K = torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])
    rest = params["features_rest"]
    image, _, _ = rasterize(
        params["means"], params["quats"], params["scales"].exp(), torch.sigmoid(params["opacities"]).flatten(),
        (params["features_dc"][:, None], rest), viewmat[None], K[None], width, height,
        sh_degree=int((rest.shape[1] + 1) ** 0.5) - 1,
    )  # fmt: skip
    photo = torch.from_numpy(load_image(scene.images[view]))[..., :3] / 255
    return float(-10 * (image[0].clamp(0, 1) - photo).square().mean().log10())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tiles", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--max-points", type=int, default=24_000)
    o = parser.parse_args()
    folder, whole = o.out / "tiles", o.out / "whole"
    train = f"--max-num-iterations {o.steps} --pipeline.model.max-points"
    each = o.max_points // o.tiles

    def run(*command) -> None:
        done = subprocess.run([BIN / command[0], *map(str, command[1:])], capture_output=True, text=True)
        assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]

    run("lpm-tile", "split", o.scene, folder, "--tiles", o.tiles)
    run("lpm-tile", "train", folder, f"--args={train} {each}")
    run("lpm-tile", "merge", folder, o.out / "merged.ply")
    run("ns-train", "lpm-splat", "--data", o.scene, "--output-dir", whole, "--experiment-name", "whole", "--timestamp",
        "run", "--vis", "tensorboard", *f"{train} {o.max_points}".split())  # fmt: skip
    scene, (_, cells) = read_scene(o.scene), read_plan(folder)
    run_of_whole = load(whole / "whole" / "lpm-splat" / "run")
    models = {
        "whole": move(run_of_whole.params, run_of_whole.world_to_train.inverse()),
        "tiles": load(o.out / "merged.ply").params,
    }
    held_out, rows = hold_out(scene, 8)[1].tolist(), {}
    for v in held_out:
        points = scene.points.xyz[seen_points(scene, v)]
        shares = sorted(cells.holding(points, t).mean() for t in range(o.tiles))
        rows[v] = (shares[-2] >= CROSSING, {name: psnr(params, scene, v) for name, params in models.items()})
    for title, chosen in (("all", rows.values()), ("across a border", [r for r in rows.values() if r[0]])):
        means = {name: np.mean([values[name] for _, values in chosen]) for name in models}
        counts = {name: len(params["means"]) for name, params in models.items()}
        told = ", ".join(f"{name} {means[name]:.2f} dB ({counts[name]:,} points)" for name in models)
        print(f"{len(chosen)} held-out photos, {title}: {told}")


if __name__ == "__main__":
    main()
