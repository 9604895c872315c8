"""The nerfstudio model: wiring between nerfstudio, the rasterizer, the loss and the strategy.

It stays a SplatfactoModel, so that what the ecosystem does with one (ns-export, ns-render, the viewer's crop)
works. What splatfacto ties to CUDA, to the network or to torch.compile is replaced here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.model_components.lib_bilagrid import BilateralGrid, color_correct, total_variation_loss
from nerfstudio.models.splatfacto import SplatfactoModel, resize_image
from nerfstudio.utils.colors import get_color
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor
from torch.nn import Parameter, ParameterDict

from lpm.checks import check_shape, fail
from lpm.gaussians.similarity import from_dataparser
from lpm.multiview.depth_prior import depth_loss
from lpm.multiview.views import world_to_camera
from lpm.plugin.initial_gaussians import from_file, from_scene
from lpm.plugin.options import LpmModelOptions
from lpm.render.losses import l1_dssim_and_tiles
from lpm.render.rasterize import rasterize
from lpm.render.sky import KINDS, sky_colors
from lpm.strategy import make_strategy
from lpm.train.bad_steps import leave_out
from lpm.train.lpips import Lpips
from lpm.train.out_of_memory import Before, out_of_memory

STEPS_PER_LOG = 10  # nerfstudio's LoggingConfig.steps_per_log
# What viser shows behind a scene; random backgrounds are for training only.
VIEWER_BACKGROUND = (0.1490, 0.1647, 0.2157)


@dataclass
class LpmModelConfig(LpmModelOptions):
    """Options of `lpm-splat`. Lengths and scales are relative to the extent of the cameras; None means "automatic"."""

    _target: type = field(default_factory=lambda: LpmModel)


class LpmModel(SplatfactoModel):
    """3D Gaussian Splatting with a chosen point management."""

    config: LpmModelConfig
    lowered_cap: int | None = None
    """max_points since memory ran out; None: it did not."""

    def populate_modules(self) -> None:
        """Makes the parameters from the scene's points, and the strategy. Replaces splatfacto's, which needs CUDA."""
        config = self.config
        self.scene_extent = float(self.kwargs.get("metadata", {}).get("scene_extent", 1.0))
        self.has_depths = bool(self.kwargs.get("metadata", {}).get("depth_filenames"))
        common = config.common(self.num_train_data)
        self.schedule = common.schedule
        self.sky = None if config.sky == "none" else Parameter(torch.zeros(KINDS[config.sky], 3))
        self.gauss_params = self._start()
        self.camera_optimizer = config.camera_optimizer.setup(num_cameras=self.num_train_data, device="cpu")
        if config.use_bilateral_grid:
            x, y, w = config.grid_shape
            self.bil_grids = BilateralGrid(num=self.num_train_data, grid_X=x, grid_Y=y, grid_W=w)
        self.lpips_metric = Lpips() if config.with_lpips else None
        self.step = 0
        self.crop_box: OrientedBox | None = None
        random_background = config.background_color == "random"
        self.background_color = torch.tensor(
            VIEWER_BACKGROUND if random_background else get_color(config.background_color).tolist()
        )
        self.strategy = make_strategy(config.strategy, common, config.settings, config.moving)
        self.reset_strategy_state()
        self.spoilt: Tensor | bool = False
        """Of this step: whether its gradients are of no use, [] 0 or 1 where the answer is still on the device."""
        self.losses: list[Tensor] = []
        """Each part of this step's loss, detached."""
        self.viewer_outputs: Callable[[Cameras, dict[str, Any]], dict[str, Tensor]] | None = None

    def reset_strategy_state(self) -> None:
        """Forgets what the strategy has gathered."""
        self.strategy_state = self.strategy.initialize_state(scene_scale=self.scene_extent)

    def _start(self) -> ParameterDict:
        """The parameters to begin with; the sky may begin with what a run has learnt."""
        metadata = self.kwargs.get("metadata", {})
        placed = metadata.get("dataparser_transform"), metadata.get("dataparser_scale")
        to_train = None if placed[0] is None else from_dataparser(placed[0].cpu().numpy(), placed[1])
        cap = self.schedule.max_points
        if self.config.init_from is None:
            return from_scene(self.config, self.seed_points, self.scene_extent, cap)
        params, sky = from_file(self.config, to_train, cap)
        if sky is not None and self.sky is not None:
            n = min(len(sky), len(self.sky))
            self.sky.data[:n] = sky[:n]
        return params

    @property
    def steps_per_sh_degree(self) -> int:
        """Steps between turning on SH degrees."""
        return self.config.sh_degree_interval or max(1, min(1000, self.schedule.steps // 12))

    def load_state_dict(self, state_dict: dict[str, Any], **kwargs: Any) -> Any:  # type: ignore[override]
        """Loads parameters of any number of points: the ones here are resized first."""
        for name in self.gauss_params:
            saved = state_dict[f"gauss_params.{name}"]
            wanted = [len(state_dict["gauss_params.means"]), *self.gauss_params[name].shape[1:]]
            check_shape(f"checkpoint: {name}", saved, wanted)
            self.gauss_params[name] = Parameter(torch.zeros(saved.shape, device=self.device))
        # Not splatfacto's own: that sets the step to 30,000, which is not the step of this run.
        self.step = self.schedule.steps
        return super(SplatfactoModel, self).load_state_dict(state_dict, **kwargs)

    def _gaussian_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {name: self.optimizers[name] for name in self.gauss_params}

    def get_gaussian_param_groups(self) -> dict[str, list[Parameter]]:
        """Every tensor of points is a group of its own."""
        return {name: [value] for name, value in self.gauss_params.items()}

    def get_param_groups(self) -> dict[str, list[Parameter]]:
        """Beside the Gaussians and what splatfacto has, the sky."""
        return super().get_param_groups() | ({} if self.sky is None else {"sky": [self.sky]})

    def at_camera(self, params: dict[str, Tensor], camera: Cameras) -> tuple[Tensor, Tensor, Tensor]:
        """means [N, 3], quats [N, 4] and opacities [N] (0..1) of `params` as `camera` sees them."""
        return params["means"], params["quats"], torch.sigmoid(params["opacities"]).squeeze(-1)

    def step_post_backward(self, step: int) -> None:
        """Hands the step's gradients to the strategy, which may add and remove points.

        Where memory runs out over that, points are as they were before it, and there will be no more of them.
        """
        if self.spoilt is True:
            return
        if self.spoilt is not False:  # zeros instead of what may be on the device; the host does not ask
            leave_out(self.info, self.spoilt)
        optimizers = self._gaussian_optimizers()
        before = Before(self.gauss_params, optimizers, self.strategy_state)
        try:
            self.strategy.step_post_backward(self.gauss_params, optimizers, self.strategy_state, step, self.info)
            return
        except Exception as error:
            if not out_of_memory(error):
                raise
        before.put_back()
        self.after_out_of_memory(f"for the edit of points at step {step}", self.num_points)

    def after_out_of_memory(self, where: str, points: int) -> None:
        """Prints that memory ran out, and lets the strategy have no more than `points`."""
        self.info = {}
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.lowered_cap = self.strategy.lower_cap(points)
        CONSOLE.print(f"Memory ran out {where}: max_points is {self.lowered_cap:,} from here on.")

    def _get_downscale_factor(self) -> int:
        if not self.training:
            return 1
        every = self.config.resolution_schedule or max(1, self.schedule.steps // 10)
        return int(2 ** max(self.config.num_downscales - self.step // every, 0))

    def _downscale_if_required(self, image: Tensor) -> Tensor:
        factor = self._get_downscale_factor()
        return resize_image(image, factor) if factor > 1 else image

    def _visible_part(self) -> dict[str, Tensor]:
        """The parameters, without what the viewer's crop box cuts off."""
        params = dict(self.gauss_params.items())
        if self.crop_box is None or self.training:
            return params
        inside = self.crop_box.within(self.means).flatten()
        return {name: value[inside] for name, value in params.items()}

    def frozen(self, camera: Cameras) -> dict[str, Tensor]:
        """The parameters as `camera` sees them, without gradients."""
        return {name: value.detach() for name, value in self.gauss_params.items()}

    def get_outputs(self, camera: Cameras) -> dict[str, Any]:  # type: ignore[override]
        """Renders one camera: rgb [H, W, 3], depth [H, W, 1] (world; None in training), accumulation [H, W, 1]."""
        if not isinstance(camera, Cameras) or camera.shape[0] != 1:
            raise ValueError(f"camera: got {type(camera).__name__}; wanted Cameras of shape [1]")
        factor = self._get_downscale_factor()
        # From the manager, if it says so: sizes and intrinsics on the device would be waited for.
        told = camera.metadata or {}
        height, width = told.get("size") or (int(camera.height.item()), int(camera.width.item()))
        height, width = height // factor, width // factor
        Ks = told["Ks"] if "Ks" in told else camera.get_intrinsics_matrices().to(self.device)
        if factor > 1:
            Ks = torch.cat([Ks[:, :2] / factor, Ks[:, 2:]], 1)
        self.last_size = (height, width)
        if "viewmats" in told and (not self.training or self.camera_optimizer.config.mode == "off"):
            viewmats = told["viewmats"]
        else:  # camera paths from JSON may hold integers
            to_world = self._refined_pose(camera) if self.training else camera.camera_to_worlds
            viewmats = world_to_camera(to_world.to(self.device, torch.float32))
        if self.sky is None:
            behind = background = self._get_background_color()  # type: ignore[no-untyped-call]
        else:
            behind = sky_colors(self.sky, viewmats[0], Ks[0], width, height)
            background = behind.detach()  # to a photo's transparent parts it is no error
            background = background if self.training else background.clamp(0.0, 1.0)
        part = self._visible_part()
        if len(part["means"]) == 0:
            if self.training:
                remedy = "lower cull_alpha_thresh, or start from more points"
                fail("points", f"all were removed by step {self.step}", "at least one to train on", remedy)
            return self._empty(background.expand(height, width, 3))
        asked = self.config.output_depth_during_training or (self.has_depths and self.config.depth_weight > 0)
        with_depth = not self.training or asked
        if self.config.sh_degree > 0:
            colors: Any = (part["features_dc"][:, None], part["features_rest"])
            degree = min(self.step // self.steps_per_sh_degree, self.config.sh_degree)
            if self.config.init_from is not None:  # its harmonics are there from the beginning
                degree = self.config.sh_degree
        else:
            colors, degree = torch.sigmoid(part["features_dc"]), None
        means, quats, opacities = self.at_camera(part, camera)
        image, alpha, self.info = rasterize(
            means,
            quats,
            part["scales"].exp(),
            opacities,
            colors,
            viewmats,
            Ks,
            width,
            height,
            sh_degree=degree,
            backgrounds=background[None] if self.sky is None else None,
            render_mode="RGB+ED" if with_depth else "RGB",
            rasterize_mode=self.config.rasterize_mode,
            absgrad=self.strategy.absgrad and self.training and self.step < self.schedule.stop,
        )
        if self.training:
            self.info["view"] = (camera.metadata or {}).get("cam_idx")
            self.strategy.step_pre_backward(
                self.gauss_params, self._gaussian_optimizers(), self.strategy_state, self.step, self.info
            )
        image, alpha = image[0], alpha[0]
        rgb = image[..., :3] if self.sky is None else image[..., :3] + (1 - alpha) * behind
        if not self.training:  # while training, a clamp would hide the error of too bright pixels from the gradient
            rgb = rgb.clamp(0.0, 1.0)
        if self.config.use_bilateral_grid and self.training and camera.metadata and "cam_idx" in camera.metadata:
            rgb = self._apply_bilateral_grid(rgb[None], camera.metadata["cam_idx"], height, width)[0]
        depth = None
        if with_depth:
            depth = torch.where(alpha > 0, image[..., 3:4], image[..., 3:4].detach().max())
        if not self.training:  # ns-render writes every output as an image
            background = background.expand(height, width, 3)
        return {"rgb": rgb, "depth": depth, "accumulation": alpha, "background": background}

    def _refined_pose(self, camera: Cameras) -> Tensor:
        """camera_to_worlds [1, 3, 4] of a training camera, as camera_optimizer.apply_to_camera() gives them; but that
        sends the camera's number to the device, and waits for it."""
        view, pose = (camera.metadata or {}).get("cam_idx"), camera.camera_to_worlds
        if self.camera_optimizer.config.mode == "off" or view is None:
            return pose
        correction = self.camera_optimizer(slice(view, view + 1)).to(pose.device)
        rotation = torch.bmm(correction[..., :3, :3], pose[..., :3, :3])
        return torch.cat([rotation, pose[..., :3, 3:] + correction[..., :3, 3:]], -1)

    @staticmethod
    def _empty(background: Tensor) -> dict[str, Tensor]:
        """What is seen of no Gaussian before `background` [H, W, 3]."""
        nothing = torch.zeros_like(background[..., :1])
        return {"rgb": background, "depth": nothing + 10, "accumulation": nothing, "background": background}

    def get_outputs_for_camera(self, camera: Cameras, obb_box: OrientedBox | None = None) -> dict[str, Any]:
        """What get_outputs renders, inside of a crop box if given, and what a training run's viewer shows beside."""
        outputs = super().get_outputs_for_camera(camera, obb_box)
        return outputs if self.viewer_outputs is None else outputs | self.viewer_outputs(camera, outputs)

    def _truth(self, outputs: dict[str, Tensor], batch: dict[str, Tensor]) -> Tensor:
        """The photo [H, W, 3] that `outputs` should look like, at their size and over their background."""
        if "truth" not in batch:  # a batch serves one step, in which metrics and loss both ask
            image = self.get_gt_img(batch["image"])
            batch["truth"] = self.composite_with_background(image, outputs["background"])
        return batch["truth"]

    def get_metrics_dict(self, outputs: dict[str, Tensor], batch: dict[str, Tensor]) -> dict[str, Any]:
        """The number of points; at steps that nerfstudio logs, PSNR of the training view (dB) and refined poses."""
        metrics: dict[str, Any] = {"gaussian_count": self.num_points}
        if not self.training or self.step % STEPS_PER_LOG == 0:
            error = (outputs["rgb"].detach() - self._truth(outputs, batch)).square().mean()
            metrics["psnr"] = -10 * torch.log10(error.clamp_min(1e-10))
            self.camera_optimizer.get_metrics_dict(metrics)  # brings values to the host
        return metrics

    def get_loss_dict(
        self, outputs: dict[str, Tensor], batch: dict[str, Tensor], metrics_dict: Any = None
    ) -> dict[str, Tensor]:
        """The photometric loss, and the regularizers that are on."""
        config = self.config
        truth, render = self._truth(outputs, batch), outputs["rgb"]
        mask = None
        if "mask" in batch:
            mask = self._downscale_if_required(batch["mask"]).to(self.device, non_blocking=True)
            truth, render = truth * mask, render * mask
        tiles = None
        if self.training and self.step < self.schedule.stop:
            tiles = self.strategy.tile_request(self.info["view"], self.last_size, mask)
        photometric, error_map = l1_dssim_and_tiles(render, truth, config.ssim_lambda, tiles)
        if self.training:  # what the strategy knows of the step
            self.info.update(render=render, truth=truth, mask=mask, error_map=error_map)
        loss = {"main_loss": photometric}
        regularization = self.strategy.regularization(self.gauss_params)
        loss |= regularization
        if not regularization and config.use_scale_regularization and self.step % 10 == 0:
            scales = self.scales.exp()
            ratio = scales.amax(-1) / scales.amin(-1)
            loss["scale_reg"] = 0.1 * (ratio.clamp_min(config.max_gauss_ratio) - config.max_gauss_ratio).mean()
        if self.training and "depth" in batch and config.depth_weight > 0:
            weight = config.depth_weight * 0.01 ** min(1.0, self.step / self.schedule.steps)
            loss["depth_loss"] = weight * depth_loss(outputs["depth"], outputs["accumulation"], batch["depth"])
        if self.training:
            self.camera_optimizer.get_loss_dict(loss)
            if config.use_bilateral_grid:
                loss["tv_loss"] = 10 * total_variation_loss(self.bil_grids.grids)
            self.losses = [part.detach() for part in loss.values()]
        return loss

    def get_image_metrics_and_images(
        self, outputs: dict[str, Tensor], batch: dict[str, Tensor]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """PSNR (dB), SSIM and, where its weights are at hand, LPIPS of one held-out image; the pair side by side."""
        truth = self._truth(outputs, batch)
        render = outputs["rgb"]
        metrics = self._image_metrics(render, truth)
        if self.config.color_corrected_metrics:
            corrected = color_correct(render, truth)
            metrics |= {f"cc_{name}": value for name, value in self._image_metrics(corrected, truth).items()}
        return metrics, {"img": torch.cat([truth, render], 1)}

    def _image_metrics(self, render: Tensor, truth: Tensor) -> dict[str, float]:
        # Here: it brings matplotlib and half of scipy, for which ns-train's help text would wait a second.
        from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

        a, b = (image.permute(2, 0, 1)[None] for image in (render, truth))
        metrics = {
            "psnr": float(peak_signal_noise_ratio(a, b, data_range=1.0)),
            "ssim": float(structural_similarity_index_measure(a, b, data_range=1.0)),  # type: ignore[arg-type]
        }
        lpips = self.lpips_metric(a, b) if self.lpips_metric is not None else math.nan
        return metrics if math.isnan(lpips) else metrics | {"lpips": lpips}
