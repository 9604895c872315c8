"""nerfstudio's trainer with defaults that follow the device, atomic checkpoints and an exact resume."""

from __future__ import annotations

import copy
import math
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from nerfstudio.engine.optimizers import AdamOptimizerConfig, Optimizers
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig
from nerfstudio.engine.trainer import Trainer, TrainerConfig
from nerfstudio.utils.decorators import check_main_thread
from nerfstudio.utils.misc import step_check
from nerfstudio.utils.rich_utils import CONSOLE
from nerfstudio.viewer.render_state_machine import RenderStateMachine
from nerfstudio.viewer.viewer import Viewer

from lpm import checkpoint
from lpm.adam import Adam
from lpm.checks import LpmError, fail
from lpm.correspond import Views
from lpm.cuda.build import cache_folder
from lpm.datamanager import LpmDatamanager
from lpm.memory import keep_freed_memory
from lpm.model import LpmModel, LpmModelConfig, world_to_camera
from lpm.pipeline import LpmPipeline
from lpm.runs import find_checkpoint
from lpm.viewer import compat
from lpm.viewer.threads import leave_no_threads_behind
from lpm.watch import TRAIN_SHARE, Watch

STEPS = {"cpu": 3_000, "cuda": 30_000}
MAX_POINTS = {"cpu": 60_000, "cuda": 1_000_000}


@dataclass
class AdamConfig(AdamOptimizerConfig):
    """Adam, straight to torch's fused kernel."""

    _target: type = field(default_factory=lambda: Adam)


@dataclass
class LpmTrainerConfig(TrainerConfig):
    """nerfstudio's options, with a number of steps that follows the device."""

    _target: type = field(default_factory=lambda: LpmTrainer)
    max_num_iterations: int | None = None  # type: ignore[assignment]
    """Steps of the whole run; a resumed run goes on to this number. None: 3,000 on a CPU, 30,000 on a GPU."""


class LpmTrainer(Trainer):
    """Trains lpm-splat."""

    config: LpmTrainerConfig
    watch: Watch | None = None
    """Follows a strategy that tells of its events."""

    @property
    def model(self) -> LpmModel:
        """The model that is trained."""
        return cast(LpmModel, self.pipeline.model)

    @property
    def data(self) -> LpmDatamanager:
        """The manager of the images."""
        return cast(LpmDatamanager, self.pipeline.datamanager)

    def __init__(self, config: LpmTrainerConfig, local_rank: int = 0, world_size: int = 1) -> None:
        # ns-eval and the viewer read config.yml from wherever they are called.
        config.output_dir = config.output_dir.resolve()
        manager = config.pipeline.datamanager
        if manager.data is not None:
            manager.data = manager.data.resolve()
        if config.gradient_accumulation_steps:
            fail("gradient_accumulation_steps", "set", "nothing: edits of points and exact resume rely on every step")
        device_type = config.machine.device_type
        if device_type == "cuda" and not torch.cuda.is_available():
            config.machine.device_type = device_type = "cpu"
            CONSOLE.print("No CUDA device here: training on the CPU.")
        if device_type == "cpu":
            keep_freed_memory()
        if config.max_num_iterations is None:
            config.max_num_iterations = STEPS.get(device_type, STEPS["cuda"])
        model = cast(LpmModelConfig, config.pipeline.model)
        if model.max_points is None:
            model.max_points = MAX_POINTS.get(device_type, MAX_POINTS["cuda"])
        if model.max_steps is None:
            model.max_steps = config.max_num_iterations
        super().__init__(config, local_rank, world_size)

    def setup(self, test_mode: Any = "val") -> None:
        """Builds everything; on bad input the run's folder does not stay behind."""
        try:
            super().setup(test_mode)
        except LpmError:
            self._remove_empty_run()
            raise
        if self.watch is not None and isinstance(self.viewer_state, Viewer):
            self.watch.show(self.viewer_state, self.train_lock)
        self.config.save_config()  # again, now with what was chosen automatically: ns-eval must see the same sizes

    def _attach_views(self) -> None:
        """Hands the training photos to a strategy that works on them, and writes what it does into the run's folder."""
        strategy: Any = self.model.strategy
        if not hasattr(strategy, "attach"):
            return
        cached = self.data.cached_train  # first: undistortion changes the cameras
        assert self.data.train_dataset is not None
        cameras = self.data.train_dataset.cameras.to(self.device)
        masks = [data.get("mask", torch.ones(data["image"].shape[:2], dtype=torch.bool)) for data in cached]
        views = Views(
            images=[data["image"] for data in cached],
            Ks=cameras.get_intrinsics_matrices(),
            viewmats=world_to_camera(cameras.camera_to_worlds),
            masks=masks if any("mask" in data for data in cached) else None,
            times=cameras.times.flatten() if cameras.times is not None and self.model.zones_in_time else None,
        )
        points = self.data.train_dataparser_outputs.metadata.get("points3D_xyz")
        strategy.notices.say, strategy.seed = CONSOLE.print, self.config.machine.seed
        strategy.attach(views, None if points is None else points.to(self.device), cache_folder() / "matches")
        self.watch = Watch(self.base_dir, self.model)
        cast(LpmPipeline, self.pipeline).held_out = self.watch.held_out

    def _init_viewer_state(self) -> None:
        super()._init_viewer_state()
        viewer = self.viewer_state
        if not isinstance(viewer, Viewer):
            return
        viewer.train_util = TRAIN_SHARE
        leave_no_threads_behind(RenderStateMachine)
        if self.model.camera_optimizer.config.mode == "off":
            viewer.update_camera_poses = lambda: None  # they are where they were; the host sends them at every picture

    def shutdown(self) -> None:
        """Ends training and viewer; its port is free afterwards."""
        self.stop_training = True
        if self.watch is not None:
            self.watch.stop()
        if isinstance(self.viewer_state, Viewer):
            compat.stop(self.viewer_state.viser_server)

    def _remove_empty_run(self) -> None:
        if any(self.base_dir.rglob("*.ckpt")):
            return
        for name in ("config.yml", "viewer_log_filename.txt"):
            (self.base_dir / name).unlink(missing_ok=True)
        folder = self.base_dir
        while folder != self.config.output_dir and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
            folder = folder.parent

    def setup_optimizers(self) -> Optimizers:
        """nerfstudio's, with the means' rate times the scene's extent as in 3DGS, and schedules as long as the run."""
        config = copy.deepcopy(self.config.optimizers)
        extent = self.model.scene_extent
        for name, group in config.items():
            scheduler = group["scheduler"]
            if isinstance(scheduler, ExponentialDecaySchedulerConfig):
                scheduler.max_steps = self.model.schedule.steps
            if name in ("means", "motion"):
                group["optimizer"].lr *= extent
                if scheduler is not None and scheduler.lr_final is not None:
                    scheduler.lr_final *= extent
        return Optimizers(config, self.pipeline.get_param_groups())

    def train(self) -> None:
        """Trains up to `max_num_iterations`, counted from the very first step of the run."""
        total = cast(int, self.config.max_num_iterations)
        remaining = total - self._start_step
        with self.train_lock:  # a page that was open before the run began looks already
            self._announce(remaining)
        # The host logs losses as floats without detaching them, and torch remarks on it in the middle of the progress.
        warnings.filterwarnings("ignore", message="Converting a tensor with requires_grad=True to a scalar")
        self.config.max_num_iterations = remaining  # the host counts from the resumed step
        try:
            super().train()
        finally:
            self.config.max_num_iterations = total

    def eval_iteration(self, step: int) -> None:
        """The host's, which measures nothing where only the viewer is on; ours shows the held-out PSNR, too."""
        super().eval_iteration(step)
        config = self.config
        writes = config.is_wandb_enabled() or config.is_tensorboard_enabled() or config.is_comet_enabled()
        if not writes and self.watch is not None and step_check(step, config.steps_per_eval_image):
            self.pipeline.get_eval_image_metrics_and_images(step)

    def _announce(self, remaining: int) -> None:
        data, model = self.data, self.model
        height, width = data.cached_train[0]["image"].shape[:2]
        cap = model.schedule.max_points
        chosen = "CPU defaults; each can be overridden" if self.device == "cpu" else self.device
        CONSOLE.print(
            f"[bold]lpm-splat[/bold] ({chosen}): strategy {model.config.strategy}, {remaining:,} steps, "
            f"{len(data.train_dataset)} training and {len(data.eval_dataset)} held-out images of {width}x{height}, "
            f"{model.num_points:,} points to start with, at most {f'{cap:,}' if cap else 'as many as it takes'}. "
            f"About {_spoken(remaining * self._seconds_per_step())}."
        )

    def _seconds_per_step(self) -> float:
        """Time of one render and its gradient now, with allowance for growth, loss and optimizer."""
        model, data = self.model, self.data
        state, cached = checkpoint.random_state(), data.cached_train[0]["image"]
        camera = data.train_dataset.cameras[0:1].to(self.device)
        model.eval()
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            model.get_outputs(camera)["rgb"].mean().backward()
            if self.device != "cpu":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
        for parameter in model.parameters():
            parameter.grad = None
        checkpoint.set_random_state(state)
        plan, points = model.schedule, model.num_points
        edits = max(0, plan.stop - plan.start) // plan.every
        at_most = min(points * 1.1 ** min(edits, 100), plan.max_points or math.inf)  # an edit adds about a tenth
        growth = (points + at_most) / 2 / points
        pixels = cached.shape[0] * cached.shape[1]
        loss = 1.2e-7 * pixels if self.device == "cpu" else 1e-3
        return min(seconds) * growth**0.6 + loss

    @check_main_thread
    def save_checkpoint(self, step: int) -> None:
        """Writes step-*.ckpt atomically, with all that an exact resume needs, then removes the older ones."""
        path = self.checkpoint_dir / f"step-{step:09d}.ckpt"
        strategy: Any = self.model.strategy
        pipeline = cast(torch.nn.Module, getattr(self.pipeline, "module", self.pipeline))
        state = {
            "step": step,
            "pipeline": pipeline.state_dict(),
            "optimizers": {name: o.state_dict() for name, o in self.optimizers.optimizers.items()},
            "schedulers": {name: s.state_dict() for name, s in self.optimizers.schedulers.items()},
            "scalers": self.grad_scaler.state_dict(),
            "lpm": {
                "strategy": self.model.config.strategy,
                "strategy_state": self.model.strategy_state,
                "strategy_extra": strategy.extra_state() if hasattr(strategy, "extra_state") else None,
                "sampling": self.data.sampling_state(),
                "random": checkpoint.random_state(),
            },
        }
        checkpoint.atomic_save(state, path, scratch=self.base_dir)
        if self.config.save_only_latest_checkpoint:
            for other in self.checkpoint_dir.glob("*.ckpt"):
                if other != path and other < path:  # never a longer run's, which may have had the same name
                    other.unlink()

    def _load_checkpoint(self) -> None:
        """Resumes from --load-dir or --load-checkpoint; without either, starts from scratch."""
        self._attach_views()  # first: what a strategy has saved belongs to its photos
        path = self.config.load_checkpoint
        if path is None and self.config.load_dir is not None:
            path, step = find_checkpoint(self.config.load_dir), self.config.load_step
            path = path if step is None else path.with_name(f"step-{step:09d}.ckpt")
        if path is None:
            return
        state = checkpoint.load(path)
        self._start_step = state["step"] + 1
        if self._start_step >= cast(int, self.config.max_num_iterations):
            fail(
                "--max-num-iterations",
                f"{self.config.max_num_iterations}, and the checkpoint is at step {self._start_step}",
                "more steps than are done",
                f"pass for example --max-num-iterations {self._start_step + 1000}",
            )
        self.pipeline.load_pipeline(state["pipeline"], state["step"])
        # load_pipeline made new Parameters of the saved size; optimizers of the old ones would move nothing.
        self.optimizers = self.setup_optimizers()
        self.optimizers.load_optimizers(state["optimizers"])
        if self.config.load_scheduler:
            self.optimizers.load_schedulers(state["schedulers"])
        self.grad_scaler.load_state_dict(state["scalers"])
        self._load_own_state(path, state.get("lpm"))
        CONSOLE.print(f"Resumed from {path}: step {self._start_step}.")

    def _load_own_state(self, path: Path, own: dict[str, Any] | None) -> None:
        model: Any = self.model
        if own is None or own["strategy"] != model.config.strategy:
            CONSOLE.print(f"{path} was made with another strategy: its parameters are used, its statistics are not.")
            return
        for key, value in own["strategy_state"].items():
            model.strategy_state[key] = value.to(self.device) if isinstance(value, torch.Tensor) else value
        if hasattr(model.strategy, "load_extra_state"):
            model.strategy.load_extra_state(own["strategy_extra"], self.device)
        self.data.set_sampling_state(own["sampling"])
        checkpoint.set_random_state(own["random"])


def _spoken(seconds: float) -> str:
    units = ((90, 1, "s"), (5400, 60, "min"), (math.inf, 3600, "h"))
    return next(f"{seconds / unit:.0f} {name}" for limit, unit, name in units if seconds < limit)
