#!/usr/bin/env python3
"""Two strategies in one loop, under the same rules: that of 3DGS, and localized point management.

lpm-scene make room out/room && python docs/examples/08_compare_strategies.py out/room
"""

import sys
from pathlib import Path

import torch

import lpm

STEPS = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
RATES = dict(means=1.6e-4, scales=5e-3, quats=1e-3, features_dc=2.5e-3, features_rest=1.25e-4, opacities=5e-2)
plan = dict(refine_start_iter=STEPS // 10, refine_stop_iter=STEPS * 5 // 6, refine_every=50)

scene = lpm.read_scene(Path(sys.argv[1]))
train, test = (lpm.Views.of_scene(scene, part) for part in lpm.hold_out(scene, 8))
points, rgb = torch.from_numpy(scene.points.xyz).float(), torch.from_numpy(scene.points.rgb)


def draw(params: dict, views: lpm.Views, i: int) -> tuple[torch.Tensor, torch.Tensor, dict]:
    """Photo i as the points show it, and as it is."""
    truth = views.images[i] / 255
    image, _, info = lpm.rasterize(
        params["means"], params["quats"], params["scales"].exp(), torch.sigmoid(params["opacities"]).flatten(),
        (params["features_dc"][:, None], params["features_rest"]), views.viewmats[i, None], views.Ks[i, None],
        truth.shape[1], truth.shape[0], sh_degree=0, absgrad=True,
    )  # fmt: skip
    return image[0], truth, info


def trained(strategy) -> tuple[float, int]:
    """Held-out PSNR (dB), and the number of points, of a run with `strategy`; all else is the same."""
    torch.manual_seed(0)
    params = lpm.from_points(points, rgb, sh_degree=0)
    optimizers = {name: torch.optim.Adam([p], lr=RATES[name], eps=1e-15) for name, p in params.items()}
    if hasattr(strategy, "attach"):
        strategy.attach(train, points)
    state = strategy.initialize_state(scene_scale=1.0)
    for step in range(STEPS):
        view = step % len(train)
        image, truth, info = draw(params, train, view)
        info.update(view=view, render=image, truth=truth)
        strategy.step_pre_backward(params, optimizers, state, step, info)
        lpm.l1_dssim(image, truth, 0.2).backward()
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        strategy.step_post_backward(params, optimizers, state, step, info)
    with torch.no_grad():
        pairs = [draw(params, test, i)[:2] for i in range(len(test))]
    psnr = torch.stack([-10 * (a.clamp(0, 1) - b).square().mean().log10() for a, b in pairs]).mean()
    return float(psnr), len(params["means"])


for kind in (lpm.AdcStrategy, lpm.LpmStrategy):
    psnr, count = trained(kind(**plan, max_points=2 * len(points)))
    print(f"{kind.__name__}: {psnr:.2f} dB with {count:,} points")
