"""`lpm-data`: nerfstudio's dataparser over every layout that lpm.scenes reads.

It always takes the full-size images, asks nothing, and writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataParserConfig, DataparserOutputs
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from lpm.checks import fail
from lpm.scenes.images import turned_file
from lpm.scenes.read import read_scene
from lpm.scenes.scene import Scene
from lpm.train.cameras import Cameras as OurCameras
from lpm.train.placed import place
from lpm.train.scene_settings import SceneSettings


@dataclass
class PlacedOutputs(DataparserOutputs):
    """nerfstudio's outputs with a transform in double: a scene in a national grid lies beyond float32."""

    def transform_poses_to_original_space(self, poses: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """nerfstudio's, in double."""
        return super().transform_poses_to_original_space(poses.double(), *args, **kwargs)


@dataclass
class LpmDataParserConfig(SceneSettings, DataParserConfig):
    """Reads transforms.json, COLMAP and Blender scenes."""

    _target: type = field(default_factory=lambda: LpmDataParser)
    """target class to instantiate"""
    data: Path = Path()
    """The scene's folder, or its transforms.json."""
    scene_scale: float = 1.0
    """Half the side of nerfstudio's scene box; Gaussians outside stay."""
    eval_interval: int = 8
    """Every n-th image by name, from the first on, is held out; 0 holds out nothing. A scene's own lists win."""
    takes_cuts: ClassVar[bool] = False
    """Whether who reads the photos cuts pinhole views out of them (metadata["cuts"]); our datamanager does."""


@dataclass
class LpmDataParser(DataParser):
    """See LpmDataParserConfig. The folder is read once, whichever splits are asked for.

    `metadata` holds points3D_xyz [N, 3] float32 (output frame) and points3D_rgb [N, 3] uint8 where the scene has
    points; scene_extent (float, output frame: 1.1 x the largest distance of a training camera from their mean); and
    image_names (of the split).
    """

    config: LpmDataParserConfig

    def __init__(self, config: LpmDataParserConfig):
        super().__init__(config=config)
        self._scene: Scene | None = None

    @property  # type: ignore[misc]
    def includes_time(self) -> bool:  # type: ignore[override]
        """Whether the scene moves: nerfstudio's viewer then has a slider for the time."""
        return self.scene().capture_times is not None

    def scene(self) -> Scene:
        """The scene as its files have it; its remarks are said once. Raises LpmError, see read_scene."""
        if self._scene is None:
            self._scene = read_scene(self.config.data, self.config.outside_files, self.config.lens_fov)
            for note in self._scene.notes:
                CONSOLE.print(note)
            if not self._scene.lists and self.config.eval_interval == 0:
                CONSOLE.print("eval_interval is 0: nothing is held out; all images are trained on and tested on")
        return self._scene

    def _generate_dataparser_outputs(self, split: str = "train", **kwargs: Any) -> DataparserOutputs:
        """The outputs of `split` ("train", "val" or "test"; val and test are the same images).

        Raises:
            LpmError: the scene cannot be used; one line with the file, what is wrong and what to do.
        """
        config, scene = self.config, self.scene()
        placed = place(scene, config, config.eval_interval)
        chosen = placed.train if split == "train" else placed.test
        world = torch.from_numpy(placed.transform)
        metadata: dict[str, Any] = {"scene_extent": placed.extent, "image_names": chosen.names, "cams": chosen.cams}
        if chosen.depths is not None:  # as nerfstudio's own parsers have it
            metadata["depth_filenames"] = chosen.depths
            metadata["depth_unit_scale_factor"] = config.depth_unit_scale_factor
        if chosen.cuts is not None:
            if not self.config.takes_cuts:
                got = "photos by fisheyes or other lenses that are no pinholes"
                remedy = "train with lpm-splat, which undistorts them, or undistort first (colmap image_undistorter)"
                fail(scene.layout.source, got, "perspective photos, for this method", remedy)
            metadata["cuts"] = chosen.cuts
        if not config.takes_cuts and any(turned_file(path) != path for path in chosen.images):
            got, wanted = "photos that are to be turned as their EXIF says", "photos that lie as their cameras say"
            fail(scene.layout.source, got, wanted, "train with lpm-splat, which turns them, or turn the files")
        if placed.xyz is not None:
            metadata["points3D_xyz"], metadata["points3D_rgb"] = placed.xyz, placed.rgb
        # What brings a file in the scene's own frame to where training is.
        metadata["dataparser_transform"], metadata["dataparser_scale"] = world, placed.scale
        aabb = torch.tensor([[-1.0] * 3, [1.0] * 3]) * config.scene_scale
        return PlacedOutputs(
            image_filenames=chosen.images,
            mask_filenames=chosen.masks,
            cameras=cameras(chosen.cameras),
            alpha_color=None if placed.alpha_color is None else torch.tensor(placed.alpha_color),
            scene_box=SceneBox(aabb=aabb),
            dataparser_transform=world,
            dataparser_scale=placed.scale,
            metadata=metadata,
        )


def cameras(chosen: OurCameras) -> Cameras:
    """nerfstudio's Cameras of ours."""
    fx, fy, cx, cy = chosen.intrinsics.unbind(-1)
    return Cameras(
        camera_to_worlds=chosen.c2w,
        fx=fx.clone(),
        fy=fy.clone(),
        cx=cx.clone(),
        cy=cy.clone(),
        width=chosen.sizes[:, 0].clone(),
        height=chosen.sizes[:, 1].clone(),
        distortion_params=chosen.distortion,
        camera_type=CameraType.PERSPECTIVE,
        times=None if chosen.capture_times is None else chosen.capture_times[:, None],
    )
