"""Images with times: two cameras of one time after another, and points to start from where a scene has none."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nerfstudio.utils.rich_utils import CONSOLE

from lpm.checks import fail
from lpm.plugin.datamanager import LpmDatamanager, LpmDatamanagerConfig, our_cameras
from lpm.train.photos import pairs_of_a_moment, random_points_of_clip


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
            photos, cameras = self.cached_train, our_cameras(self.train_dataset.cameras)
            xyz, rgb = random_points_of_clip(photos, cameras, config.num_random_points)
            metadata["points3D_xyz"], metadata["points3D_rgb"] = xyz, rgb
            CONSOLE.print(f"No points: training starts from {len(xyz):,} random ones in front of the cameras.")

    def sample_train_cameras(self) -> list[int]:
        """Every view once; after each comes, where there is one left, that of the nearest camera at the same time."""
        cameras = self.train_dataset.cameras
        if cameras.times is None:
            source = self.config.dataparser.data
            fail(source, "a scene without times", "a time (0..1) for every frame", "train with lpm-splat")
        return pairs_of_a_moment(
            super().sample_train_cameras(),  # type: ignore[no-untyped-call]
            cameras.times.flatten().tolist(),
            cameras.camera_to_worlds,
        )
