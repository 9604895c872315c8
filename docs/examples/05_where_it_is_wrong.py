#!/usr/bin/env python3
"""Where a model shows a photo wrongly, what is wrong there, and which points are to blame.

lpm-scene make room out/room && python docs/examples/05_where_it_is_wrong.py out/room errors.png
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import lpm

scene = lpm.read_scene(Path(sys.argv[1]))
views = lpm.Views.of_scene(scene)
points, rgb = torch.from_numpy(scene.points.xyz).float(), torch.from_numpy(scene.points.rgb)
params = lpm.from_points(points, rgb, sh_degree=0, opacity=0.8)  # or lpm.load("scene.ply").params, in the photos' frame

worst = []
for found in lpm.examine(params, views, chosen=[0, len(views) // 2], points=points):
    counts = {kind: found.kinds.count(kind) for kind in sorted(set(found.kinds))}
    guilty = found.point_error.topk(10).indices
    print(f"photo {found.view}: mean error {found.errors.mean():.3f}; zones: {counts}")
    print(f"  ten points of {len(points):,} make {found.point_error[guilty].sum() / found.point_error.sum():.0%} of it")
    deep = torch.isfinite(found.zones.depth)
    if deep.any():
        print(f"  surfaces by the photos where it is wrong: {found.zones.depth[deep].median():.2f} away, in the median")
    worst.append(found.errors / found.errors.max())

tiles = (torch.cat(worst, 1) * 255).byte().numpy()  # white: the worst tiles of the two photos, side by side
Image.fromarray(np.kron(tiles, np.ones((16, 16), np.uint8))).save(sys.argv[2])
