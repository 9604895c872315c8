"""Images with times: two cameras of one time after another, and points to start from where a scene has none."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from nerfstudio.utils.rich_utils import CONSOLE

from lpm.checks import fail
from lpm.multiview.points_from_photos import looked_at
from lpm.multiview.views import Views, unproject, world_to_camera
from lpm.plugin.datamanager import LpmDatamanager, LpmDatamanagerConfig

RANGE = (0.4, 2.5)
"""Depths of random starting points, times the distance of what the cameras look at."""


@dataclass
class LpmDatamanager4dConfig(LpmDatamanagerConfig):
    """Options of the images of `lpm-splat-4d`: those of `lpm-splat`, and what a scene without points starts from."""

    _target: type = field(default_factory=lambda: LpmDatamanager4d)
    points_from_photos: bool = False
    """Where the scene has neither points nor depths: find some by comparing the photos of each time."""
    num_random_points: int = 20_000
    """Points to start from where the scene has none, along random rays of the first frame."""


class LpmDatamanager4d(LpmDatamanager):
    """See the module."""

    config: LpmDatamanager4dConfig

    def __init__(self, config: LpmDatamanager4dConfig, device: Any = "cpu", test_mode: Any = "val", **kwargs: Any):
        super().__init__(config, device, test_mode, **kwargs)
        metadata = self.train_dataparser_outputs.metadata
        if test_mode == "val" and metadata.get("depth_filenames") and "points3D_xyz" not in metadata:
            self._find_points()
        if test_mode == "val" and "points3D_xyz" not in metadata:
            xyz, rgb = self._random_points(config.num_random_points)
            metadata["points3D_xyz"], metadata["points3D_rgb"] = xyz, rgb
            CONSOLE.print(f"No points: training starts from {len(xyz):,} random ones in front of the cameras.")

    def sample_train_cameras(self) -> list[int]:
        """Every view once; after each comes, where there is one left, that of the nearest camera at the same time."""
        cameras = self.train_dataset.cameras
        if cameras.times is None:
            source = self.config.dataparser.data
            fail(source, "a scene without times", "a time (0..1) for every frame", "train with lpm-splat")
        order = super().sample_train_cameras()  # type: ignore[no-untyped-call]
        times = cameras.times.flatten().tolist()
        forward = -cameras.camera_to_worlds[:, :3, 2]
        left, pairs = dict.fromkeys(order), []
        by_time: dict[float, list[int]] = {}
        for view in order:
            by_time.setdefault(times[view], []).append(view)
        for view in order:
            if view not in left:
                continue
            del left[view]
            pairs.append(view)
            others = [v for v in by_time[times[view]] if v in left]
            if others:
                nearest = max(others, key=lambda v: float(forward[view] @ forward[v]))
                del left[nearest]
                pairs.append(nearest)
        return pairs

    def _random_points(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Points [N, 3] and colours [N, 3] uint8 on random rays of the first frame, at depths around those at which
        the cameras look."""
        cached = self.cached_train
        cameras = self.train_dataset.cameras
        assert cameras.times is not None
        first = (cameras.times.flatten() == cameras.times.min()).nonzero().flatten().tolist()
        c2w = cameras.camera_to_worlds
        rng = np.random.default_rng(0)
        xyz, rgb = [], []
        Ks = cameras.get_intrinsics_matrices()[first]
        views = Views([cached[v]["image"] for v in first], Ks, world_to_camera(c2w[first]))
        distance = looked_at(views.viewmats).cpu().numpy()
        for i in range(len(first)):
            height, width = views.images[i].shape[:2]
            share = count // len(first)
            pixels = torch.from_numpy(rng.uniform(0, 1, (share, 2)).astype(np.float32)) * torch.tensor([width, height])
            low, high = np.log(RANGE[0] * distance[i]), np.log(RANGE[1] * distance[i])
            depth = torch.from_numpy(np.exp(rng.uniform(low, high, share)).astype(np.float32))
            xyz.append(unproject(pixels, depth, views.viewmats[i], views.Ks[i]))
            image = views.images[i].cpu()
            value = image[pixels[:, 1].long().clamp_max(height - 1), pixels[:, 0].long().clamp_max(width - 1), :3]
            rgb.append(value if value.dtype == torch.uint8 else (value * 255).to(torch.uint8))
        return torch.cat(xyz), torch.cat(rgb)
