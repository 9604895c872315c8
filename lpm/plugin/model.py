"""Our model as nerfstudio's tools know one.

It stays a SplatfactoModel, so that what the ecosystem does with one (ns-export, ns-render, the viewer's crop)
works. What splatfacto ties to CUDA, to the network or to torch.compile is replaced by lpm.train.model.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import tyro
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.models.splatfacto import SplatfactoModel, SplatfactoModelConfig
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor
from torch.nn import Parameter

from lpm.checks import fail
from lpm.gaussians.similarity import from_dataparser
from lpm.multiview.views import world_to_camera
from lpm.train.all_around import draw_along
from lpm.train.cameras import Camera
from lpm.train.model import GaussianModel, Start
from lpm.train.model_settings import ModelSettings

BENT = (CameraType.FISHEYE, CameraType.FISHEYE624)


@dataclass
class LpmModelConfig(ModelSettings, SplatfactoModelConfig):  # type: ignore[misc]
    """Options of `lpm-splat`. Lengths and scales are relative to the extent of the cameras; None means "automatic"."""

    _target: type = field(default_factory=lambda: LpmModel)
    # splatfacto's options that say nothing here; `strategy` decides.
    use_absgrad: tyro.conf.Suppress[bool] = True
    n_split_samples: tyro.conf.Suppress[int] = 2
    cull_screen_size: tyro.conf.Suppress[float] = 0.15
    split_screen_size: tyro.conf.Suppress[float] = 0.05
    stop_screen_size_at: tyro.conf.Suppress[int] = 0


class LpmModel(GaussianModel, SplatfactoModel):  # type: ignore[misc]
    """3D Gaussian Splatting with a chosen point management."""

    config: LpmModelConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        SplatfactoModel.__init__(self, *args, **kwargs)  # which calls populate_modules

    def populate_modules(self) -> None:
        """Makes the parameters from the scene's points, and the strategy. Replaces splatfacto's, which needs CUDA."""
        metadata = self.kwargs.get("metadata", {})
        placed = metadata.get("dataparser_transform"), metadata.get("dataparser_scale")
        to_train = None if placed[0] is None else from_dataparser(placed[0].cpu().numpy(), placed[1])
        extent, depths = float(metadata.get("scene_extent", 1.0)), bool(metadata.get("depth_filenames"))
        self.crop_box: OrientedBox | None = None
        self.viewer_outputs: Callable[[Cameras, dict[str, Any]], dict[str, Tensor]] | None = None
        self.build(Start(self.num_train_data, self.seed_points, extent, to_train, depths), CONSOLE.print)

    def load_state_dict(self, state_dict: dict[str, Any], **kwargs: Any) -> Any:  # type: ignore[override]
        """Loads parameters of any number of points: the ones here are resized first."""
        self.resize_for(state_dict)
        # Not splatfacto's own: that sets the step to 30,000, which is not the step of this run.
        self.step = self.schedule.steps
        return super(SplatfactoModel, self).load_state_dict(state_dict, **kwargs)

    def get_gaussian_param_groups(self) -> dict[str, list[Parameter]]:
        """Every tensor of points is a group of its own."""
        return {name: [value] for name, value in self.gauss_params.items()}

    def get_param_groups(self) -> dict[str, list[Parameter]]:
        """Beside the Gaussians and what splatfacto has, the sky."""
        return self.param_groups()

    def camera_of(self, camera: Cameras) -> Camera:
        """nerfstudio's camera (of shape [1]) as our model takes it."""
        if not isinstance(camera, Cameras) or camera.shape[0] != 1:
            raise ValueError(f"camera: got {type(camera).__name__}; wanted Cameras of shape [1]")
        # From the manager, if it says so: sizes and intrinsics on the device would be waited for.
        told = camera.metadata or {}
        height, width = told.get("size") or (int(camera.height.item()), int(camera.width.item()))
        K = told["Ks"] if "Ks" in told else camera.get_intrinsics_matrices().to(self.device)
        c2w = camera.camera_to_worlds.to(self.device, torch.float32)  # camera paths from JSON may hold integers
        viewmat = told["viewmats"] if "viewmats" in told else world_to_camera(c2w)
        time = None if camera.times is None else camera.times.reshape(()).to(self.device)
        return Camera(K, viewmat, height, width, c2w, time, told.get("cam_idx"))

    def drawn_parameters(self) -> dict[str, Tensor]:
        """The parameters, without what the viewer's crop box cuts off."""
        params = super().drawn_parameters()
        if self.crop_box is None or self.training:
            return params
        inside = self.crop_box.within(self.means).flatten()
        return {name: value[inside] for name, value in params.items()}

    def get_outputs(self, camera: Cameras) -> dict[str, Any]:  # type: ignore[override]
        """Renders one camera: rgb [H, W, 3], depth [H, W, 1] (world; None in training), accumulation [H, W, 1].

        Panoramas and fisheyes of a camera path are rendered as faces of a cube, and depth is the distance there.

        Raises:
            LpmError: a camera that has no single centre, as those of stereo panoramas and orthophotos.
        """
        if "size" in (getattr(camera, "metadata", None) or {}) or not isinstance(camera, Cameras):
            return self.draw(self.camera_of(camera))
        kind = CameraType(int(camera.camera_type.reshape(-1)[0]))
        # Photos are undistorted when they are read, and nerfstudio leaves their cameras the type that they had.
        if kind == CameraType.PERSPECTIVE or (kind in BENT and camera.distortion_params is not None):
            return self.draw(self.camera_of(camera))
        if kind not in (CameraType.EQUIRECTANGULAR, *BENT):
            fail("camera_type", kind.name.lower(), "perspective, equirectangular or fisheye", "choose one of them")
        rays = camera.generate_rays(0, keep_shape=True).directions.to(self.device)
        # Of a panorama nerfstudio's fx stands for half of the width, which is half of a turn.
        focal = float(camera.fx) / (math.pi if kind == CameraType.EQUIRECTANGULAR else 1)
        c2w = camera.camera_to_worlds.reshape(3, 4).to(self.device, torch.float32)
        time = None if camera.times is None else camera.times.reshape(()).to(self.device)
        return draw_along(self.draw, c2w, rays, focal, time)

    def get_outputs_for_camera(self, camera: Cameras, obb_box: OrientedBox | None = None) -> dict[str, Any]:
        """What get_outputs renders, inside of a crop box if given, and what a training run's viewer shows beside."""
        outputs = super().get_outputs_for_camera(camera, obb_box)
        return outputs if self.viewer_outputs is None else outputs | self.viewer_outputs(camera, outputs)

    def get_metrics_dict(self, outputs: dict[str, Tensor], batch: dict[str, Tensor]) -> dict[str, Any]:
        """The number of points; at steps that nerfstudio logs, PSNR of the training view (dB) and refined poses."""
        return self.metrics(outputs, batch)

    def get_loss_dict(
        self, outputs: dict[str, Tensor], batch: dict[str, Tensor], metrics_dict: Any = None
    ) -> dict[str, Tensor]:
        """The photometric loss, and the regularizers that are on."""
        return self.loss(outputs, batch)

    def get_image_metrics_and_images(
        self, outputs: dict[str, Tensor], batch: dict[str, Tensor]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """PSNR (dB), SSIM and, where its weights are at hand, LPIPS of one held-out image; the pair side by side."""
        metrics = self.held_out_metrics(outputs, batch)
        return metrics, {"img": torch.cat([self.truth(outputs, batch), outputs["rgb"]], 1)}
