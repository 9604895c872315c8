#!/usr/bin/env python3
"""Points, and the depth of single pixels, by nothing but photos with known cameras: no SfM points, no training.

lpm-scene make room out/room && python docs/examples/06_points_from_photos.py out/room out/points.ply
"""

import sys
from pathlib import Path

import torch

import lpm

views = lpm.Views.of_scene(lpm.read_scene(Path(sys.argv[1])))
xyz, rgb = lpm.points_from_photos(views, patches=6_000)
print(f"{len(xyz):,} points from {len(views)} photos")
lpm.write_ply(Path(sys.argv[2]), lpm.from_points(xyz, rgb, sh_degree=0))

# Along the middle row of the first photo: how far away is what every eighth pixel shows?
height, width = views.images[0].shape[:2]
pixels = torch.stack([torch.arange(4.5, width, 8), torch.full((len(range(4, width, 8)),), height / 2)], 1)
view = torch.zeros(len(pixels), dtype=torch.int64)
neighbours = lpm.covisible(views, xyz).neighbours  # who sees the same, under a parallax that tells depths apart
sweep = lpm.plane_sweep(views, view, pixels, neighbours, torch.tensor(0.3), torch.tensor(torch.inf))
for (x, _), depth, score, sure in zip(pixels, sweep.depth, sweep.score, sweep.confident, strict=True):
    print(f"x {x:5.1f}  depth {depth:6.2f}  correlation {score:5.2f}  {'sure' if sure else ''}")

places = lpm.unproject(pixels[sweep.confident], sweep.depth[sweep.confident], views.viewmats[0], views.Ks[0])
print(f"{len(places)} of {len(pixels)} are sure")
