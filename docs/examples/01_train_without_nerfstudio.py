#!/usr/bin/env python3
"""LpmStrategy in a plain loop, through gsplat's Strategy protocol: no nerfstudio.

lpm-scene make room out/room && python docs/examples/01_train_without_nerfstudio.py out/room out/room.ply
"""

import argparse
from pathlib import Path

import torch

import lpm

RATES = dict(means=1.6e-4, scales=5e-3, quats=1e-3, features_dc=2.5e-3, features_rest=1.25e-4, opacities=5e-2)
parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("scene", type=Path)
parser.add_argument("out", type=Path)
parser.add_argument("--steps", type=int, default=1000)
parser.add_argument("--max-points", type=int, default=30_000)
parser.add_argument("--rasterize-mode", choices=["classic", "antialiased"], default="classic")
options = parser.parse_args()

scene = lpm.read_scene(options.scene)
train, test = (lpm.Views.of_scene(scene, part) for part in lpm.hold_out(scene, 8))
points = torch.from_numpy(scene.points.xyz).float()
centres = train.viewmats.inverse()[:, :3, 3]
extent = float((centres - centres.mean(0)).norm(dim=-1).max())

params = lpm.from_points(points, torch.from_numpy(scene.points.rgb), sh_degree=2)
rates = RATES | {"means": RATES["means"] * extent}
optimizers = {name: torch.optim.Adam([p], lr=rates[name], eps=1e-15, fused=True) for name, p in params.items()}
strategy = lpm.LpmStrategy(
    max_points=options.max_points, refine_start_iter=options.steps // 10, refine_stop_iter=options.steps * 5 // 6,
    rasterize_mode=options.rasterize_mode, on_event=lambda record, _: print(record.line()),
)  # fmt: skip
strategy.attach(train, points)
state = strategy.initialize_state(extent)


def render(views: lpm.Views, i: int) -> tuple[torch.Tensor, torch.Tensor, dict]:
    """Photo i as the points show it and as it is, [H, W, 3], 0..1."""
    truth = views.images[i] / 255
    image, _, info = lpm.rasterize(
        params["means"], params["quats"], params["scales"].exp(), torch.sigmoid(params["opacities"]).flatten(),
        (params["features_dc"][:, None], params["features_rest"]), views.viewmats[i, None], views.Ks[i, None],
        truth.shape[1], truth.shape[0], sh_degree=2, absgrad=True, rasterize_mode=options.rasterize_mode,
    )  # fmt: skip
    return image[0], truth, info


for step in range(options.steps):
    view = step % len(train)
    image, truth, info = render(train, view)
    info.update(view=view, render=image, truth=truth)
    strategy.step_pre_backward(params, optimizers, state, step, info)
    lpm.l1_dssim(image, truth, 0.2).backward()
    for optimizer in optimizers.values():
        optimizer.step()
        optimizer.zero_grad()
    strategy.step_post_backward(params, optimizers, state, step, info)

with torch.no_grad():
    pairs = [render(test, i)[:2] for i in range(len(test))]
psnr = torch.stack([-10 * (image.clamp(0, 1) - truth).square().mean().log10() for image, truth in pairs]).mean()
print(f"held-out PSNR {psnr:.2f} dB with {len(params['means']):,} points")
lpm.write_ply(options.out, dict(params))
