"""`lpm-data`: nerfstudio's dataparser over every layout that lpm.scenes reads.

It always takes the full-size images, asks nothing, and writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from nerfstudio.cameras.camera_utils import auto_orient_and_center_poses
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataParserConfig, DataparserOutputs
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.utils.colors import get_color
from nerfstudio.utils.rich_utils import CONSOLE
from numpy.typing import NDArray
from torch import Tensor

from lpm.checks import fail
from lpm.scenes.read import read_scene
from lpm.scenes.scene import Floats, Scene, camera_extent
from lpm.scenes.split import hold_out


@dataclass
class LpmDataParserConfig(DataParserConfig):
    """Reads transforms.json, COLMAP and Blender scenes."""

    _target: type = field(default_factory=lambda: LpmDataParser)
    """target class to instantiate"""
    data: Path = Path()
    """The scene's folder, or its transforms.json."""
    orientation_method: Literal["pca", "up", "vertical", "none"] = "up"
    """How the scene is turned: by default the cameras' mean up direction becomes z."""
    center_method: Literal["poses", "focus", "none"] = "poses"
    """What becomes the origin: the cameras' mean, the point they look at, or what it was."""
    auto_scale_poses: bool = True
    """Scale so that the cameras fit into +-1."""
    scale_factor: float = 1.0
    """A further factor on positions."""
    scene_scale: float = 1.0
    """Half the side of nerfstudio's scene box; Gaussians outside stay."""
    eval_interval: int = 8
    """Every n-th image by name, from the first on, is held out; 0 holds out nothing. A scene's own lists win."""
    load_3D_points: bool = True
    """Start from the scene's points where it has them."""
    max_points: int | None = None
    """Keep at most this many of the points, drawn at random with a fixed seed."""
    outside_files: bool = False
    """Read files that the scene names outside of its folder (`..`, absolute paths)."""
    depth_unit_scale_factor: float = 1e-3
    """Of a scene with depths (depth_file_path): its unit for one of the files'. Millimetres for metres by default."""
    alpha_color: Literal["white", "black"] | None = "white"
    """Background for Blender's images, which are transparent there; None leaves their alpha to the method."""


def frame(poses: Floats, orientation: str, center: str) -> Floats:
    """[3, 4] the transform that turns and centres `poses` [V, 4, 4] (OpenGL), by nerfstudio's rules.

    The cameras' mean is subtracted in double precision first: nerfstudio's arithmetic is single, and georeferenced
    scenes have coordinates of millions of metres.
    """
    mean = poses[:, :3, 3].mean(0) if center != "none" else np.zeros(3)
    near = poses.copy()
    near[:, :3, 3] -= mean
    _, transform = auto_orient_and_center_poses(
        torch.from_numpy(near).float(),
        method=orientation,  # type: ignore[arg-type]
        center_method=center,  # type: ignore[arg-type]
    )
    result = transform.double().numpy()[:3]
    result[:, 3] -= result[:, :3] @ mean
    return result


def random_rows(count: int, most: int | None) -> NDArray[np.int64]:
    """Indices of at most `most` of `count` points, ascending, the same every time."""
    if most is None or count <= most:
        return np.arange(count)
    if most <= 0:
        fail("max_points", str(most), "a positive number or None", "leave it out to keep all points")
    return np.sort(np.random.default_rng(0).choice(count, most, replace=False))


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
            self._scene = read_scene(self.config.data, self.config.outside_files)
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
        train, test = hold_out(scene, config.eval_interval)
        chosen = train if split == "train" else test
        centres = scene.c2w[train, :3, 3]
        spread = np.linalg.norm(centres - centres.mean(0), axis=1).max()
        if spread <= 1e-9 * max(float(np.abs(centres).max()), 1e-3):
            fail(
                scene.layout.source,
                f"the {len(train)} training cameras are all in one place",
                "cameras at different places (depth comes from parallax)",
                "use photos taken while moving, or run the pose estimation again",
            )
        if not (np.isfinite(config.scale_factor) and config.scale_factor > 0):
            fail("scale_factor", str(config.scale_factor), "a positive number", "leave it at 1")

        transform = frame(scene.c2w, scene.orientation_override or config.orientation_method, config.center_method)
        poses = transform @ scene.c2w
        largest = float(np.abs(poses[:, :, 3]).max())
        scale = (1.0 / largest if config.auto_scale_poses else 1.0) * config.scale_factor
        poses[:, :, 3] *= scale

        metadata: dict[str, Any] = {
            "scene_extent": camera_extent(poses[train, :, 3]),
            "image_names": [scene.names[i] for i in chosen],
            "cams": None if scene.cams is None else [scene.cams[i] for i in chosen],
        }
        if scene.depths is not None:  # as nerfstudio's own parsers have it
            metadata["depth_filenames"] = [scene.depths[i] for i in chosen]
            metadata["depth_unit_scale_factor"] = config.depth_unit_scale_factor
        if scene.points is not None and config.load_3D_points:
            keep = random_rows(len(scene.points.xyz), config.max_points)
            # The points stand in the same frame as the poses, so they move just like them.
            xyz = (scene.points.xyz[keep] @ transform[:, :3].T + transform[:, 3]) * scale
            metadata["points3D_xyz"] = torch.from_numpy(xyz).float()
            metadata["points3D_rgb"] = torch.from_numpy(scene.points.rgb[keep])

        # out = scale * applied_scale * (world @ original), "original" being the frame before any tool's own transform.
        world = transform.copy()
        world[:, 3] /= scene.applied_scale
        world = world @ np.vstack([scene.applied_transform, [0.0, 0.0, 0.0, 1.0]])
        # What brings a file in the scene's own frame to where training is.
        metadata["dataparser_transform"] = torch.from_numpy(world).float()
        metadata["dataparser_scale"] = float(scale * scene.applied_scale)
        aabb = torch.tensor([[-1.0] * 3, [1.0] * 3]) * config.scene_scale
        return DataparserOutputs(
            image_filenames=[scene.images[i] for i in chosen],
            mask_filenames=[scene.masks[i] for i in chosen] if scene.masks is not None else None,
            cameras=cameras(scene, poses, chosen),
            alpha_color=get_color(config.alpha_color) if scene.alpha_color and config.alpha_color else None,
            scene_box=SceneBox(aabb=aabb),
            dataparser_transform=torch.from_numpy(world).float(),
            dataparser_scale=scale * scene.applied_scale,
            metadata=metadata,
        )


def cameras(scene: Scene, poses: Floats, chosen: NDArray[np.int64]) -> Cameras:
    """nerfstudio's Cameras of the `chosen` images, at `poses` [V, 3, 4]."""

    def column(values: NDArray[np.float64] | NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values[chosen]))

    fx, fy, cx, cy = (column(scene.intrinsics[:, i]).float() for i in range(4))
    return Cameras(
        camera_to_worlds=column(poses).float(),
        fx=fx,
        fy=fy,
        cx=cx,
        cy=cy,
        width=column(scene.sizes[:, 0]),
        height=column(scene.sizes[:, 1]),
        distortion_params=column(scene.distortion).float(),
        camera_type=CameraType.PERSPECTIVE,
        times=None if scene.capture_times is None else column(scene.capture_times).float()[:, None],
    )
