"""The model that is trained: Gaussians and what else is learnt, drawn from a camera, compared with a photo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import Parameter, ParameterDict

from lpm.checks import check_shape, fail
from lpm.gaussians.similarity import Similarity
from lpm.multiview.depth_prior import depth_loss
from lpm.multiview.views import world_to_camera
from lpm.render.losses import l1_dssim_and_tiles
from lpm.render.rasterize import rasterize
from lpm.render.sky import KINDS, sky_colors
from lpm.strategy.registry import make_strategy
from lpm.train.bad_steps import leave_out
from lpm.train.cameras import Camera
from lpm.train.image_metrics import Lpips, image_metrics
from lpm.train.initial_gaussians import from_file, from_scene
from lpm.train.load_photos import Photo
from lpm.train.model_settings import ModelSettings
from lpm.train.out_of_memory import Before, out_of_memory
from lpm.train.perceptual import FLIP, flip, have
from lpm.train.photo_colors import BilateralGrids, color_matched
from lpm.train.pose_refinement import PoseRefinement

# What viser shows behind a scene; random backgrounds are for training only.
VIEWER_BACKGROUND = (0.1490, 0.1647, 0.2157)
BACKGROUNDS = {"random": VIEWER_BACKGROUND, "white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0)}
SMALLEST = 64  # pixels, the shorter side of what a strategy makes smaller by itself
STEPS_PER_METRIC = 10
"""Steps from one PSNR of a training view to the next."""


@dataclass
class Start:
    """What of a scene a model begins with."""

    photos: int
    """Training photos."""
    points: tuple[Tensor, Tensor] | None
    """[N, 3] frame of training, and colours [N, 3] 0..255 (or [0, 3]: unknown)."""
    extent: float
    """Of the cameras, frame of training."""
    to_train: Similarity | None
    """From the scene's own frame to that of training."""
    has_depths: bool = False


def downscaled(image: Tensor, factor: int) -> Tensor:
    """[H // factor, W // factor, C] float: the means of squares of `image` [H, W, C]."""
    if factor == 1:
        return image
    image = image.to(torch.float32)
    weight = (1.0 / (factor * factor)) * torch.ones((1, 1, factor, factor), dtype=torch.float32, device=image.device)
    return F.conv2d(image.permute(2, 0, 1)[:, None], weight, stride=factor).squeeze(1).permute(1, 2, 0)


class GaussianModel(nn.Module):
    """Gaussians that a strategy manages, a sky, and what is learnt of cameras."""

    config: ModelSettings
    lowered_cap: int | None = None
    """max_points since memory ran out; None: it did not."""
    logit_opacities = True
    """Whether the opacities of `at_camera` are logits, and not 0..1."""

    def __init__(self, config: ModelSettings, start: Start, say: Callable[[str], Any] = print) -> None:
        """`say` takes what a person should know."""
        super().__init__()
        self.config = config
        self.build(start, say)

    def build(self, start: Start, say: Callable[[str], Any]) -> None:
        """Makes the parameters and the strategy."""
        config, self.say = self.config, say
        self.scene_extent, self.has_depths = start.extent, start.has_depths
        common = config.common(start.photos)
        self.schedule = common.schedule
        self.sky = None if config.sky == "none" else Parameter(torch.zeros(KINDS[config.sky], 3))
        self.gauss_params = self.first_gaussians(start)
        self.camera_optimizer = PoseRefinement(config.camera_optimizer, start.photos)
        if config.use_bilateral_grid:
            self.bil_grids = BilateralGrids(start.photos, config.grid_shape)
        self.lpips_metric = Lpips() if config.with_lpips else None
        self.step, self.factor = 0, 1
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.background_color = torch.tensor(BACKGROUNDS[config.background_color])
        self.strategy = make_strategy(config.strategy, common, config.settings, config.moving)
        self.reset_strategy_state()
        self.spoilt: Tensor | bool = False
        """Of this step: whether its gradients are of no use, [] 0 or 1 where the answer is still on the device."""
        self.losses: list[Tensor] = []
        """Each part of this step's loss, detached."""

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return torch.device(self.gauss_params["means"].device)

    @property
    def num_points(self) -> int:
        """How many Gaussians there are."""
        return len(self.gauss_params["means"])

    def reset_strategy_state(self) -> None:
        """Forgets what the strategy has gathered."""
        self.strategy_state = self.strategy.initialize_state(scene_scale=self.scene_extent)

    def first_gaussians(self, start: Start) -> ParameterDict:
        """The parameters to begin with; the sky may begin with what a run has learnt."""
        cap = self.schedule.max_points
        if self.config.init_from is None:
            return from_scene(self.config, start.points, start.extent, cap)
        params, sky = from_file(self.config, start.to_train, cap, self.say)
        if sky is not None and self.sky is not None:
            n = min(len(sky), len(self.sky))
            self.sky.data[:n] = sky[:n]
        return params

    @property
    def settles(self) -> bool:
        """Whether rates fall at the end of the run (lpm.train.optimizers.settling)."""
        return self.strategy.settles

    @property
    def steps_per_sh_degree(self) -> int:
        """Steps between turning on SH degrees."""
        return self.config.sh_degree_interval or max(1, min(1000, self.schedule.steps // 12))

    def resize_for(self, state_dict: dict[str, Any], prefix: str = "") -> None:
        """Gives the Gaussians' parameters, zeros, the shapes that they have in `state_dict`. Raises LpmError."""
        for name in self.gauss_params:
            saved = state_dict[f"{prefix}gauss_params.{name}"]
            wanted = [len(state_dict[f"{prefix}gauss_params.means"]), *self.gauss_params[name].shape[1:]]
            check_shape(f"checkpoint: {name}", saved, wanted)
            self.gauss_params[name] = Parameter(torch.zeros(saved.shape, device=self.device))

    def param_groups(self) -> dict[str, list[Parameter]]:
        """What is learnt: every tensor of points is a group of its own."""
        groups: dict[str, list[Parameter]] = {name: [value] for name, value in self.gauss_params.items()}
        if self.config.use_bilateral_grid:
            groups["bilateral_grid"] = list(self.bil_grids.parameters())
        self.camera_optimizer.get_param_groups(groups)
        return groups | ({} if self.sky is None else {"sky": [self.sky]})

    def _gaussian_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {name: self.optimizers[name] for name in self.gauss_params}

    # Drawing

    def at_camera(self, params: dict[str, Tensor], camera: Camera) -> tuple[Tensor, Tensor, Tensor]:
        """means [N, 3], quats [N, 4] and opacities [N] of `params` as `camera` sees them; see `logit_opacities`."""
        return params["means"], params["quats"], params["opacities"].squeeze(-1)

    def frozen(self, camera: Camera) -> dict[str, Tensor]:
        """The parameters as `camera` sees them, without gradients."""
        return {name: value.detach() for name, value in self.gauss_params.items()}

    def drawn_parameters(self) -> dict[str, Tensor]:
        """The parameters of the points that are drawn."""
        return dict(self.gauss_params.items())

    def downscale_factor(self, width: int, height: int) -> int:
        """The side of the square of pixels, of a photo of so many, that one pixel of this step stands for."""
        asked, own = self.config.num_downscales, self.config.num_downscales is None
        downscales = self.strategy.num_downscales if asked is None else asked
        every = self.config.resolution_schedule or max(1, self.schedule.steps * (3 if own else 1) // 10)
        factor = int(2 ** max(downscales - self.step // every, 0))
        return 1 if not self.training or (own and min(width, height) < SMALLEST * factor) else factor

    def _background(self) -> Tensor:
        if self.config.background_color == "random" and self.training:
            return torch.rand(3, device=self.device)
        return self.background_color.to(self.device)

    def draw(self, camera: Camera) -> dict[str, Any]:
        """Renders one camera: rgb [H, W, 3], depth [H, W, 1] (world; None in training), accumulation [H, W, 1] and
        background ([3] in training, else [H, W, 3])."""
        self.factor = self.downscale_factor(camera.width, camera.height)
        config, camera = self.config, camera.smaller(self.factor)
        height, width = self.last_size = camera.height, camera.width
        viewmats = camera.viewmat
        if self.training and self.camera_optimizer.on and camera.c2w is not None:
            viewmats = world_to_camera(self.camera_optimizer.refined(camera.c2w, camera.index))
        if self.sky is None:
            behind = background = self._background()
        else:
            behind = sky_colors(self.sky, viewmats[0], camera.K[0], width, height)
            background = behind.detach()  # to a photo's transparent parts it is no error
            background = background if self.training else background.clamp(0.0, 1.0)
        part = self.drawn_parameters()
        if len(part["means"]) == 0:
            if self.training:
                remedy = "lower cull_alpha_thresh, or start from more points"
                fail("points", f"all were removed by step {self.step}", "at least one to train on", remedy)
            return _nothing(background.expand(height, width, 3))
        asked = config.output_depth_during_training or (self.has_depths and config.depth_weight > 0)
        with_depth = not self.training or asked
        if config.sh_degree > 0:
            colors: Any = (part["features_dc"][:, None], part["features_rest"])
            degree = min(self.step // self.steps_per_sh_degree, config.sh_degree)
            if config.init_from is not None:  # its harmonics are there from the beginning
                degree = config.sh_degree
        else:
            colors, degree = torch.sigmoid(part["features_dc"]), None
        means, quats, opacities = self.at_camera(part, camera)
        image, alpha, self.info = rasterize(
            means, quats, part["scales"], opacities, colors, viewmats, camera.K, width, height, sh_degree=degree,
            backgrounds=background[None] if self.sky is None else None, render_mode="RGB+ED" if with_depth else "RGB",
            rasterize_mode=config.rasterize_mode, log_scales=True, logit_opacities=self.logit_opacities,
            absgrad=self.strategy.absgrad and self.training and self.step < self.schedule.stop,
        )  # fmt: skip
        if self.training:
            self.info["view"] = camera.index
            self.strategy.step_pre_backward(
                self.gauss_params, self._gaussian_optimizers(), self.strategy_state, self.step, self.info
            )
        image, alpha = image.squeeze(0), alpha.squeeze(0)  # an index would cost a picture of zeros in the backward pass
        rgb = image[..., :3] if with_depth else image  # as would this slice where there is nothing to leave out
        rgb = rgb if self.sky is None else rgb + (1 - alpha) * behind
        if not self.training:  # while training, a clamp would hide the error of too bright pixels from the gradient
            rgb = rgb.clamp(0.0, 1.0)
        if config.use_bilateral_grid and self.training and camera.index is not None:
            rgb = self.bil_grids(rgb, camera.index)
        depth = None
        if with_depth:
            depth = torch.where(alpha > 0, image[..., 3:4], image[..., 3:4].detach().max())
        if not self.training:  # ns-render writes every output as an image
            background = background.expand(height, width, 3)
        return {"rgb": rgb, "depth": depth, "accumulation": alpha, "background": background}

    # Comparing

    def truth(self, outputs: dict[str, Tensor], photo: Photo) -> Tensor:
        """The photo [H, W, 3] that `outputs` should look like, at their size and over their background."""
        if "truth" not in photo:  # a photo is copied for one step, in which metrics and loss both ask
            image = photo["image"]
            image = image.float().div_(255.0) if image.dtype == torch.uint8 else image
            image = downscaled(image, self.factor).to(self.device)
            if image.shape[2] == 4:
                alpha = image[..., 3:].repeat(1, 1, 3)
                image = alpha * image[..., :3] + (1 - alpha) * outputs["background"]
            photo["truth"] = image
        return photo["truth"]

    def metrics(self, outputs: dict[str, Tensor], photo: Photo) -> dict[str, Any]:
        """The number of points; at every tenth step, PSNR of the training view (dB) and refined poses."""
        metrics: dict[str, Any] = {"gaussian_count": self.num_points}
        if not self.training or self.step % STEPS_PER_METRIC == 0:
            error = (outputs["rgb"].detach() - self.truth(outputs, photo)).square().mean()
            metrics["psnr"] = -10 * torch.log10(error.clamp_min(1e-10))
            metrics |= self.camera_optimizer.sizes()
        return metrics

    def loss(self, outputs: dict[str, Tensor], photo: Photo) -> dict[str, Tensor]:
        """The photometric loss, and the regularizers that are on."""
        config = self.config
        truth = self.truth(outputs, photo)
        render = outputs["rgb"]
        mask = None
        if "mask" in photo:
            mask = downscaled(photo["mask"], self.factor).to(self.device, non_blocking=True)
            truth, render = truth * mask, render * mask
        tiles = None
        if self.training and self.step < self.schedule.stop:
            tiles = self.strategy.tile_request(self.info["view"], self.last_size, mask)
        photometric, error_map = l1_dssim_and_tiles(render, truth, config.ssim_lambda, tiles)
        if self.training:  # what the strategy knows of the step
            self.info.update(render=render, truth=truth, mask=mask, error_map=error_map)
        loss = {"main_loss": photometric}
        loss |= self.strategy.regularization(self.gauss_params, self.strategy_state)
        if config.use_scale_regularization and self.step % 10 == 0:
            scales = self.gauss_params["scales"].exp()
            ratio = scales.amax(-1) / scales.amin(-1)
            loss["needle_reg"] = 0.1 * (ratio.clamp_min(config.max_gauss_ratio) - config.max_gauss_ratio).mean()
        if self.training and "depth" in photo and config.depth_weight > 0:
            weight = config.depth_weight * 0.01 ** min(1.0, self.step / self.schedule.steps)
            loss["depth_loss"] = weight * depth_loss(outputs["depth"], outputs["accumulation"], photo["depth"])
        if self.training:
            if self.camera_optimizer.on:
                loss["camera_opt_regularizer"] = self.camera_optimizer.penalty()
            if config.use_bilateral_grid:
                loss["tv_loss"] = 10 * self.bil_grids.roughness()
            self.losses = [part.detach() for part in loss.values()]
        return loss

    def counted(self, photo: Photo) -> Tensor | None:
        """[H, W, 1] bool, which pixels its mask lets through; None: all."""
        if "mask" not in photo:
            return None
        return downscaled(photo["mask"], self.factor).to(self.device) > 0.5

    def held_out_metrics(self, outputs: dict[str, Tensor], photo: Photo, perceptual: bool = False) -> dict[str, float]:
        """PSNR (dB), SSIM and, where its weights are at hand, LPIPS of a held-out photo where its mask lets through.

        With `perceptual` FLIP, too, where its package is; it takes longer than the others together.
        """
        truth, render, mask = self.truth(outputs, photo), outputs["rgb"], self.counted(photo)
        metrics = image_metrics(render, truth, self.lpips_metric, mask)
        if perceptual and have(FLIP):
            metrics["flip"] = flip(render, truth, mask)
        if self.config.color_corrected_metrics:
            corrected = image_metrics(color_matched(render, truth), truth, self.lpips_metric, mask)
            metrics |= {f"cc_{name}": value for name, value in corrected.items()}
        return metrics

    # Managing points

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
        """Says that memory ran out, and lets the strategy have no more than `points`."""
        self.info = {}
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.lowered_cap = self.strategy.lower_cap(points)
        self.say(f"Memory ran out {where}: max_points is {self.lowered_cap:,} from here on.")


def _nothing(background: Tensor) -> dict[str, Tensor]:
    """What is seen of no Gaussian before `background` [H, W, 3]."""
    nothing = torch.zeros_like(background[..., :1])
    return {"rgb": background, "depth": nothing + 10, "accumulation": nothing, "background": background}
