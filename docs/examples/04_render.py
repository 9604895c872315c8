#!/usr/bin/env python3
"""Draw a file of Gaussians from a place of your choice, without a GPU and without nerfstudio.

python docs/examples/04_render.py scene.ply picture.png
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import lpm

WIDTH, HEIGHT, FOCAL = 480, 270, 400.0
params = lpm.load(Path(sys.argv[1])).params
centre = params["means"].median(0).values
size = (params["means"] - centre).norm(dim=-1).median()
eye = centre + size * torch.tensor([2.0, -2.0, 1.0])

back = torch.nn.functional.normalize(centre - eye, dim=0)  # OpenCV's camera axes: x right, y down, z ahead
right = torch.nn.functional.normalize(torch.linalg.cross(back, torch.tensor([0.0, 0.0, 1.0])), dim=0)
rotation = torch.stack([right, torch.linalg.cross(back, right), back])
viewmat = torch.eye(4)
viewmat[:3, :3], viewmat[:3, 3] = rotation, -rotation @ eye
K = torch.tensor([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])

rest = params["features_rest"]
image, alpha, info = lpm.rasterize(
    params["means"], params["quats"], params["scales"].exp(), torch.sigmoid(params["opacities"]).flatten(),
    (params["features_dc"][:, None], rest), viewmat[None], K[None], WIDTH, HEIGHT,
    sh_degree=int((rest.shape[1] + 1) ** 0.5) - 1,
)  # fmt: skip
Image.fromarray((image[0].clamp(0, 1) * 255).to(torch.uint8).numpy().astype(np.uint8)).save(sys.argv[2])
print(f"{sys.argv[2]}: {int((info['radii'] > 0).any(-1).sum()):,} of {len(rest):,} Gaussians in view")
