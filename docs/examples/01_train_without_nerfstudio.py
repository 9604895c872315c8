#!/usr/bin/env python3
"""LpmStrategy in a plain loop, through gsplat's Strategy protocol: no nerfstudio.

lpm-scene make room out/room && python docs/examples/01_train_without_nerfstudio.py out/room out/room.ply
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from lpm.formats.ply import write_ply
from lpm.gaussians import parameters
from lpm.multiview.views import Views
from lpm.render.losses import l1_dssim
from lpm.render.rasterize import rasterize
from lpm.scenes.images import load_image
from lpm.scenes.read import read_scene
from lpm.scenes.split import hold_out
from lpm.strategy.lpm import LpmStrategy

RATES = dict(means=1.6e-4, scales=5e-3, quats=1e-3, features_dc=2.5e-3, features_rest=1.25e-4, opacities=5e-2)
parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("scene", type=Path)
parser.add_argument("out", type=Path)
parser.add_argument("--steps", type=int, default=1000)
parser.add_argument("--max-points", type=int, default=30_000)
parser.add_argument("--rasterize-mode", choices=["classic", "antialiased"], default="classic")
options = parser.parse_args()

scene = read_scene(options.scene)
train, test = hold_out(scene, 8)
flip = np.diag([1.0, -1.0, -1.0, 1.0])  # OpenGL's camera axes to OpenCV's
viewmats = torch.from_numpy(np.linalg.inv(scene.c2w @ flip)).float()
fx, fy, cx, cy = torch.from_numpy(scene.intrinsics).float().unbind(-1)
Ks = torch.zeros(len(fx), 3, 3)
Ks[:, 0, 0], Ks[:, 1, 1], Ks[:, 0, 2], Ks[:, 1, 2], Ks[:, 2, 2] = fx, fy, cx, cy, 1
photos = [torch.from_numpy(load_image(path))[..., :3] for path in scene.images]
points = torch.from_numpy(scene.points.xyz).float()
extent = float((viewmats.inverse()[:, :3, 3] - viewmats.inverse()[:, :3, 3].mean(0)).norm(dim=-1).max())

params = parameters.from_points(points, torch.from_numpy(scene.points.rgb), sh_degree=2)
rates = RATES | {"means": RATES["means"] * extent}
optimizers = {name: torch.optim.Adam([p], lr=rates[name], eps=1e-15, fused=True) for name, p in params.items()}
strategy = LpmStrategy(
    max_points=options.max_points, refine_start_iter=options.steps // 10, refine_stop_iter=options.steps * 5 // 6,
    rasterize_mode=options.rasterize_mode, on_event=lambda record, _: print(record.line()),
)  # fmt: skip
strategy.attach(Views([photos[i] for i in train], Ks[train], viewmats[train]), points)
state = strategy.initialize_state(extent)


def render(i: int) -> tuple[torch.Tensor, dict]:
    """Photo i as the points show it, [H, W, 3]."""
    height, width = photos[i].shape[:2]
    image, _, info = rasterize(
        params["means"], params["quats"], params["scales"].exp(), torch.sigmoid(params["opacities"]).flatten(),
        (params["features_dc"][:, None], params["features_rest"]), viewmats[i : i + 1], Ks[i : i + 1], width, height,
        sh_degree=2, absgrad=True, rasterize_mode=options.rasterize_mode,
    )  # fmt: skip
    return image[0], info


for step in range(options.steps):
    view = step % len(train)
    image, info = render(train[view])
    truth = photos[train[view]] / 255
    info.update(view=view, render=image, truth=truth)
    strategy.step_pre_backward(params, optimizers, state, step, info)
    l1_dssim(image, truth, 0.2).backward()
    for optimizer in optimizers.values():
        optimizer.step()
        optimizer.zero_grad()
    strategy.step_post_backward(params, optimizers, state, step, info)

with torch.no_grad():
    errors = [(render(i)[0].clamp(0, 1) - photos[i] / 255).square().mean() for i in test]
print(f"held-out PSNR {-10 * torch.stack(errors).log10().mean():.2f} dB with {len(params['means']):,} points")
write_ply(options.out, dict(params))
