#!/usr/bin/env python3
"""A model made ready for other programs: y up, no faint points, no outliers; as a PLY and as a small file for the web.

python docs/examples/09_for_another_program.py scene.ply out/
"""

import sys
from pathlib import Path

import numpy as np
import torch

import lpm

loaded = lpm.load(Path(sys.argv[1]))  # a run's folder, a checkpoint, .ply, .splat, .splatv, .spz, .sog
out = Path(sys.argv[2])
out.mkdir(parents=True, exist_ok=True)
print(f"{loaded.path.name}: {loaded.kind}, {len(loaded.params['means']):,} Gaussians, frame: {loaded.frame}")
if loaded.rasterize_mode == "antialiased":
    print("trained antialiased: a viewer that does not dim small Gaussians shows them too bold")

z_up_to_y_up = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
params = lpm.move(loaded.params, lpm.Similarity(z_up_to_y_up, np.zeros(3), 1.0))  # harmonics turn along
centre = params["means"].median(0).values
away = (params["means"] - centre).norm(dim=-1)
keep = (torch.sigmoid(params["opacities"]).flatten() > 0.02) & (away < 10 * away.median())
params = {name: value[keep] for name, value in params.items()}

lpm.write_ply(out / "scene.ply", params)  # SuperSplat, Blender, Unity: nothing is lost
lpm.write_splat(out / "scene.splat", params)  # 32 bytes a Gaussian, one colour from all sides
for file in sorted(out.glob("scene.*")):
    print(f"{file.name}: {int(keep.sum()):,} Gaussians, {file.stat().st_size / 1e6:.2f} MB")
