"""A plain training loop in the scene's own frame, for measurements that need the sample scenes' truth."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lpm.gaussians import parameters
from lpm.multiview.views import Views, project
from lpm.render.losses import l1_dssim
from lpm.render.rasterize import rasterize
from lpm.scenes.images import load_image
from lpm.scenes.read import read_scene
from lpm.scenes.scene import camera_extent
from lpm.scenes.split import hold_out

RATES = dict(means=1.6e-4, scales=5e-3, quats=1e-3, features_dc=2.5e-3, features_rest=1.25e-4, opacities=5e-2)
SH_DEGREE = 2


class PlainScene:
    """A sample scene with its truth; world is the frame of its files."""

    def __init__(self, folder: Path) -> None:
        scene = read_scene(folder)
        self.train, self.test = (list(map(int, part)) for part in hold_out(scene, 8))
        self.viewmats = torch.from_numpy(np.linalg.inv(scene.c2w @ np.diag([1.0, -1.0, -1.0, 1.0]))).float()
        fx, fy, cx, cy = torch.from_numpy(scene.intrinsics).float().unbind(-1)
        self.Ks = torch.zeros(len(fx), 3, 3)
        self.Ks[:, 0, 0], self.Ks[:, 1, 1], self.Ks[:, 0, 2], self.Ks[:, 1, 2], self.Ks[:, 2, 2] = fx, fy, cx, cy, 1
        self.photos = [torch.from_numpy(load_image(path))[..., :3] for path in scene.images]
        self.size = (self.photos[0].shape[1], self.photos[0].shape[0])
        assert scene.points is not None
        self.points = torch.from_numpy(scene.points.xyz).float()
        self.rgb = torch.from_numpy(scene.points.rgb)
        self.extent = camera_extent(scene.c2w[self.train, :3, 3])
        self.truth = json.loads((folder / "truth.json").read_text())
        names = [Path(path).stem for path in scene.images]
        self.depths = [torch.from_numpy(np.load(folder / "depth" / f"{name}.npy")) for name in names]
        self.labels = [torch.from_numpy(load_image(folder / "labels" / f"{name}.png")) for name in names]
        self.labels = [mark if mark.dim() == 2 else mark[..., 0] for mark in self.labels]

    def views(self) -> Views:
        """The training photos."""
        return Views([self.photos[i] for i in self.train], self.Ks[self.train], self.viewmats[self.train])

    def marked(self, i: int, label: str) -> Tensor:
        """[H, W] bool, pixels of photo i with the label."""
        return (self.labels[i] & self.truth["labels"][label]) > 0


class Run:
    """Parameters, optimizers and a strategy on a scene."""

    def __init__(self, scene: PlainScene, strategy: Any, points: Tensor, rgb: Tensor, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.scene, self.strategy = scene, strategy
        self.params = parameters.from_points(points, rgb, SH_DEGREE)
        rates = RATES | {"means": RATES["means"] * scene.extent}
        self.optimizers = {k: torch.optim.Adam([p], lr=rates[k], eps=1e-15, fused=True) for k, p in self.params.items()}
        if hasattr(strategy, "attach"):
            strategy.attach(scene.views(), points)
        self.state = strategy.initialize_state(scene_scale=scene.extent)

    def render(self, i: int, degree: int = SH_DEGREE) -> tuple[Tensor, dict[str, Any]]:
        """Photo i as the points show it, [H, W, 3]."""
        p = self.params
        image, _, info = rasterize(
            p["means"], p["quats"], p["scales"].exp(), torch.sigmoid(p["opacities"]).flatten(),
            (p["features_dc"][:, None], p["features_rest"]), self.scene.viewmats[i : i + 1], self.scene.Ks[i : i + 1],
            *self.scene.size, sh_degree=degree, absgrad=True,
        )  # fmt: skip
        return image[0], info

    def step(self, step: int, steps: int, view: int) -> None:
        """One training step on training view `view`."""
        for name, optimizer in self.optimizers.items():
            optimizer.zero_grad()
            if name == "means":
                optimizer.param_groups[0]["lr"] = RATES["means"] * self.scene.extent * 0.01 ** (step / steps)
        image, info = self.render(self.scene.train[view], min(SH_DEGREE, 12 * step // steps))
        truth = self.scene.photos[self.scene.train[view]] / 255
        info.update(view=view, render=image, truth=truth)
        self.strategy.step_pre_backward(self.params, self.optimizers, self.state, step, info)
        l1_dssim(image, truth, 0.2).backward()
        for optimizer in self.optimizers.values():
            optimizer.step()
        self.strategy.step_post_backward(self.params, self.optimizers, self.state, step, info)

    def train(self, steps: int, each: Callable[[int], None] = lambda step: None, seed: int = 0) -> None:
        """All steps, in a random order of views that is the same for the same seed."""
        order = torch.Generator().manual_seed(seed)
        todo: list[int] = []
        for step in range(steps):
            todo = todo or torch.randperm(len(self.scene.train), generator=order).tolist()
            self.step(step, steps, todo.pop())
            each(step)

    @torch.no_grad()
    def psnr(self, label: str | None = None) -> float:
        """Held-out PSNR (dB), over the pixels with `label` or all of them, pooled over the images."""
        total, count = 0.0, 0
        for i in self.scene.test:
            error = (self.render(i)[0].clamp(0, 1) - self.scene.photos[i] / 255).square().mean(-1)
            error = error if label is None else error[self.scene.marked(i, label)]
            total, count = total + float(error.sum()), count + error.numel()
        return -10 * float(np.log10(max(total / max(count, 1), 1e-10)))

    @torch.no_grad()
    def off_surface(self, means: Tensor) -> Tensor:
        """[N] least |z - true z| / true z of `means` [N, 3] over the training views that see that place; inf: none."""
        best = torch.full((len(means),), torch.inf)
        for i in self.scene.train:
            pixels, z = project(means, self.scene.viewmats[i], self.scene.Ks[i])
            x, y = pixels.nan_to_num(-1).floor().long().unbind(-1)
            width, height = self.scene.size
            seen = (z > 0.05) & (x >= 0) & (y >= 0) & (x < width) & (y < height)
            true = self.scene.depths[i][y.clamp(0, height - 1), x.clamp(0, width - 1)]
            off = torch.where(seen, (z - true).abs() / true, torch.inf)
            best = torch.minimum(best, off)
        return best
