#!/usr/bin/env python3
"""A scene that moves, trained without nerfstudio: points with a time, drawn as they are at the photo's.

lpm-scene make mover out/mover && python docs/examples/07_train_what_moves.py out/mover out/mover.splatv
"""

import sys
from pathlib import Path

import torch

import lpm

STEPS = int(sys.argv[3]) if len(sys.argv) > 3 else 2000
RATES = dict(means=1.6e-4, scales=5e-3, quats=1e-3, features_dc=2.5e-3, features_rest=1.25e-4, opacities=5e-2)
RATES |= dict(times=2e-3, durations=3e-2, motion=2.8e-4, gates=5e-2)

scene = lpm.read_scene(Path(sys.argv[1]))
train, test = (lpm.Views.of_scene(scene, part) for part in lpm.hold_out(scene, 8))  # of a clip: whole time steps
points = torch.from_numpy(scene.points.xyz).float()
params = lpm.from_points(points, torch.from_numpy(scene.points.rgb), sh_degree=0)
params.update(lpm.motion.start(len(points), degree=1, spins=False))  # all stand still, and are there all the time
optimizers = {name: torch.optim.Adam([p], lr=RATES[name], eps=1e-15) for name, p in params.items()}
strategy = lpm.Lpm4dStrategy(max_points=4 * len(points), refine_start_iter=STEPS // 10, refine_stop_iter=STEPS * 4 // 5,
                             on_event=lambda record, _: print(record.line()))  # fmt: skip
strategy.attach(train, points)
state = strategy.initialize_state()


def render(views: lpm.Views, i: int) -> tuple[torch.Tensor, torch.Tensor, dict]:
    """Photo i as the points show it at its time, and as it is."""
    truth, t = views.images[i] / 255, views.capture_times[i]
    opacities = torch.sigmoid(params["opacities"]).flatten() * lpm.motion.weight_at(params, t)
    image, _, info = lpm.rasterize(
        lpm.motion.means_at(params, t), params["quats"], params["scales"].exp(), opacities,
        (params["features_dc"][:, None], params["features_rest"]), views.viewmats[i, None], views.Ks[i, None],
        truth.shape[1], truth.shape[0], sh_degree=0, absgrad=True,
    )  # fmt: skip
    return image[0], truth, info


for step in range(STEPS):
    view = 7 * step % len(train)  # not one camera's photos in a row
    image, truth, info = render(train, view)
    info.update(view=view, render=image, truth=truth)
    strategy.step_pre_backward(params, optimizers, state, step, info)
    lpm.l1_dssim(image, truth, 0.2).backward()
    for optimizer in optimizers.values():
        optimizer.step()
        optimizer.zero_grad()
    strategy.step_post_backward(params, optimizers, state, step, info)

with torch.no_grad():
    errors = [
        (image.clamp(0, 1) - truth).square().mean() for image, truth, _ in (render(test, i) for i in range(len(test)))
    ]
print(f"PSNR at times that were held out: {-10 * torch.stack(errors).log10().mean():.2f} dB")
lpm.write_splatv(Path(sys.argv[2]), lpm.for_splatv({name: value.detach() for name, value in params.items()}))
