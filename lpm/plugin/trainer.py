"""nerfstudio's trainer with defaults that follow the device, atomic checkpoints and an exact resume."""

from __future__ import annotations

import contextlib
import copy
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig
from nerfstudio.engine.trainer import Trainer, TrainerConfig
from nerfstudio.utils.decorators import check_main_thread
from nerfstudio.utils.misc import step_check
from nerfstudio.utils.rich_utils import CONSOLE
from nerfstudio.viewer.render_state_machine import RenderStateMachine
from nerfstudio.viewer.viewer import Viewer

from lpm import distributed
from lpm.checks import LpmError, fail
from lpm.files import cache_folder
from lpm.plugin.datamanager import LpmDatamanager
from lpm.plugin.model import LpmModel, LpmModelConfig
from lpm.plugin.monitor import TRAIN_SHARE, Monitor
from lpm.plugin.nerfstudio_patches import free_viewer_port, leave_no_threads_behind, mend
from lpm.plugin.optimizers import LpmOptimizers
from lpm.plugin.pipeline import LpmPipeline
from lpm.plugin.settings_of_run import settings_of
from lpm.prepare.beside import scene_beside
from lpm.runs import checkpoint
from lpm.runs.claim import claim, release, remove_empty
from lpm.runs.folder import find_checkpoint, keep_georeference, read_checkpoint
from lpm.strategy.registry import strategy_class
from lpm.train import bad_steps
from lpm.train.announcement import announcement
from lpm.train.optimizers import rate_scale
from lpm.train.out_of_memory import keep_freed_memory, out_of_memory
from lpm.train.run_settings import FILE, MAX_POINTS, STEPS, write_settings
from lpm.train.run_state import changed_options, own_state, put_back
from lpm.train.signals import Signals, resume_command
from lpm.train.turns import Turns
from lpm.viewer import compat


@dataclass
class LpmTrainerConfig(TrainerConfig):
    """nerfstudio's options, with a number of steps that follows the device."""

    _target: type = field(default_factory=lambda: LpmTrainer)
    max_num_iterations: int | None = None  # type: ignore[assignment]
    """Steps of the whole run; a resumed run goes on to this number. None: 3,000 on a CPU, 30,000 on a GPU."""
    prepare: bool = False
    """Of --data that is a folder of photos without poses, or a video, make a scene first, beside it (lpm-prepare)."""

    def save_config(self) -> None:
        """Writes config.yml into the run's folder, which is then this process's. Raises LpmError if it cannot."""
        claim(self.get_base_dir())
        super().save_config()
        if self.machine.num_devices * self.machine.num_machines > 1 and distributed.size() == 1:
            release(self.get_base_dir())  # ns-train itself: the first of the processes that it starts takes it


class LpmTrainer(Trainer):
    """Trains lpm-splat."""

    config: LpmTrainerConfig
    optimizers: LpmOptimizers
    monitor: Monitor | None = None
    """Writes and shows what the strategy tells of its events."""
    signals = Signals()
    """Ctrl-C or SIGTERM that came while it trains."""
    _saved = False
    _done = -1
    """The last step that changed the parameters."""

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
            manager.data = (scene_beside(manager.data) if config.prepare else manager.data).resolve()
        if config.gradient_accumulation_steps:
            fail("gradient_accumulation_steps", "set", "nothing: edits of points and exact resume rely on every step")
        device_type = config.machine.device_type
        if device_type == "cuda" and not torch.cuda.is_available():
            config.machine.device_type = device_type = "cpu"
            CONSOLE.print("No CUDA device here: training on the CPU.")
        if config.max_num_iterations is None:
            config.max_num_iterations = STEPS.get(device_type, STEPS["cuda"])
        model = cast(LpmModelConfig, config.pipeline.model)
        if model.max_points is None:
            model.max_points = MAX_POINTS.get(device_type, MAX_POINTS["cuda"])
        if model.max_steps is None:
            model.max_steps = config.max_num_iterations
        if distributed.size() > 1 and not strategy_class(model.strategy, model.moving).several_processes:
            fail("strategy", f"{model.strategy} on {distributed.size()} devices", "lpm", "train others on one device")
        mend()
        super().__init__(config, local_rank, world_size)
        self.train_lock = Turns()  # type: ignore[assignment]
        self.left_out = bad_steps.LeftOut(self._image, CONSOLE.print)

    def setup(self, test_mode: Any = "val") -> None:
        """Builds everything; on bad input the run's folder does not stay behind."""
        if distributed.rank() == 0:
            claim(self.base_dir)
        try:
            with Signals(then=sys.exit) as signals, free_viewer_port(self.config):
                super().setup(test_mode)
        except (LpmError, SystemExit) as error:
            self._remove_empty_run()
            if isinstance(error, SystemExit):
                CONSOLE.print("Stopped before the first step.")
                signals.leave()
            raise
        if self.monitor is not None and isinstance(self.viewer_state, Viewer):
            self.monitor.show(self.viewer_state, self.train_lock)
        if distributed.rank() == 0:
            self.config.save_config()  # again, now with what was chosen automatically: ns-eval must see the same sizes
            if self.config.pipeline.datamanager.data is not None:
                keep_georeference(self.config.pipeline.datamanager.data, self.base_dir)
            settings = settings_of(self.config, self.base_dir)
            if settings is not None:
                write_settings(self.base_dir / FILE, settings)

    def _attach_views(self) -> None:
        """Hands the training photos to a strategy that works on them, and writes what it does into the run's folder."""
        strategy = self.model.strategy
        views = self.data.views(self.device)
        points = self.data.train_dataparser_outputs.metadata.get("points3D_xyz")
        strategy.messages.say, strategy.seed = CONSOLE.print, self.config.machine.seed
        strategy.attach(views, None if points is None else points.to(self.device), cache_folder() / "matches")
        if distributed.rank() > 0:
            return
        self.monitor = Monitor(self.base_dir, self.model)
        cast(LpmPipeline, self.pipeline).held_out = self.monitor.held_out

    def _image(self, view: int | None) -> str:
        return "a step" if view is None else str(self.data.train_dataset.image_filenames[view])

    def _init_viewer_state(self) -> None:
        super()._init_viewer_state()
        viewer = self.viewer_state
        if not isinstance(viewer, Viewer):
            return
        viewer.train_util = TRAIN_SHARE
        leave_no_threads_behind(RenderStateMachine)
        if self.model.camera_optimizer.config.mode == "off":
            viewer.update_camera_poses = (
                lambda: None
            )  # they are where they were; nerfstudio sends them at every picture

    def shutdown(self) -> None:
        """Ends training and viewer; its port is free afterwards."""
        self.stop_training = True
        if self.monitor is not None:
            self.monitor.stop()
        if isinstance(self.viewer_state, Viewer):
            compat.stop(self.viewer_state.viser_server)

    def _remove_empty_run(self) -> None:
        if distributed.rank() > 0 or any(self.base_dir.rglob("*.ckpt")):
            return
        for name in ("config.yml", FILE, "viewer_log_filename.txt"):
            (self.base_dir / name).unlink(missing_ok=True)
        release(self.base_dir)
        remove_empty(self.base_dir, self.config.output_dir)

    def setup_optimizers(self) -> LpmOptimizers:
        """nerfstudio's, with rates that fit the scene and the run, and schedules as long as the run."""
        config = copy.deepcopy(self.config.optimizers)
        for name, group in config.items():
            scheduler = group["scheduler"]
            if isinstance(scheduler, ExponentialDecaySchedulerConfig):
                scheduler.max_steps = self.model.schedule.steps
            by = rate_scale(self.model, name, group["optimizer"].lr)
            group["optimizer"].lr *= by
            if getattr(scheduler, "lr_final", None) is not None:
                scheduler.lr_final *= by
        return LpmOptimizers(config, self.model, self.pipeline.get_param_groups())

    def train(self) -> None:
        """Trains up to `max_num_iterations`, counted from the very first step of the run."""
        total = cast(int, self.config.max_num_iterations)
        remaining = total - self._start_step
        # ns-train seeds each process differently, and from here on all must draw alike.
        checkpoint.set_random_state(distributed.from_first(checkpoint.random_state()))
        if self.config.machine.device_type == "cpu":
            keep_freed_memory()
        with self.train_lock:  # a page that was open before the run began looks already
            if distributed.rank() == 0:
                camera = self.model.camera_of(self.data.train_dataset.cameras[0:1].to(self.model.device))
                photos = len(self.data.train_dataset), len(self.data.eval_dataset)
                CONSOLE.print(announcement(self.model, camera, photos, remaining))
        # nerfstudio logs losses as floats without detaching, and torch warns of it in the middle of the progress.
        warnings.filterwarnings("ignore", message="Converting a tensor with requires_grad=True to a scalar")
        self.config.max_num_iterations = remaining  # nerfstudio counts from the resumed step
        try:
            with Signals(then=self._go_on) as self.signals:
                try:
                    super().train()
                except distributed.Lost:
                    if self._done >= self._start_step:
                        self.save_checkpoint(self._done)
                    raise
            self.signals.leave()
        finally:
            if self.signals.number is not None:
                self.shutdown()
            self.config.max_num_iterations = total
            release(self.base_dir)

    def _go_on(self) -> None:
        self.training_state = "training"  # a run that pauses gets to its next step, where it stops

    def _train_complete_viewer(self) -> None:
        if self.signals.number is None:
            self.signals.__exit__()
            with contextlib.suppress(KeyboardInterrupt):  # how one leaves the page of a run that is complete
                super()._train_complete_viewer()

    def train_iteration(self, step: int) -> Any:
        """nerfstudio's step. One that cannot be used changes nothing; after a signal there is none."""
        if self.signals.number is not None:
            self._stop(step - 1)
        model, points = self.model, self.model.num_points
        model.spoilt, result, flag = False, None, None
        try:
            result, flag = super().train_iteration(step), self.optimizers.flag
        except Exception as error:
            if not out_of_memory(error):
                raise
        try:
            if flag is None or result is None:
                self.optimizers.zero_grad_all()
                self.optimizers.scheduler_step_all(step)
                model.spoilt, result = True, (torch.tensor(torch.nan), {}, {})
                model.after_out_of_memory(f"at step {step}", max(1, points * 9 // 10))
                self.left_out.count(step, "there was no memory for it")
            else:
                self.left_out.note(step, model.info.get("view"), flag)
        except LpmError:
            self.save_checkpoint(step)
            raise
        self._done = step
        return result

    def _stop(self, step: int) -> None:
        if step >= self._start_step:
            self.save_checkpoint(step)
        command = resume_command(self.base_dir, sys.argv)
        text = f"Stopped after step {step}. To go on:\n{command}" if self._saved else "Stopped; nothing new to save."
        CONSOLE.print(text, soft_wrap=True, markup=False, highlight=False)
        self.signals.leave()

    def eval_iteration(self, step: int) -> None:
        """nerfstudio's, which measures nothing where only the viewer is on; ours shows the held-out PSNR, too."""
        super().eval_iteration(step)
        config = self.config
        writes = config.is_wandb_enabled() or config.is_tensorboard_enabled() or config.is_comet_enabled()
        if not writes and self.monitor is not None and step_check(step, config.steps_per_eval_image):
            self.pipeline.get_eval_image_metrics_and_images(step)

    @check_main_thread
    def save_checkpoint(self, step: int) -> None:
        """Writes step-*.ckpt atomically, with all that an exact resume needs, then removes the older ones."""
        path = self.checkpoint_dir / f"step-{step:09d}.ckpt"
        pipeline = cast(torch.nn.Module, getattr(self.pipeline, "module", self.pipeline))
        state = {
            "step": step,
            "pipeline": pipeline.state_dict(),
            "optimizers": {name: o.state_dict() for name, o in self.optimizers.optimizers.items()},
            "schedulers": {name: s.state_dict() for name, s in self.optimizers.schedulers.items()},
            "scalers": self.grad_scaler.state_dict(),
            "lpm": own_state(self.model, self.data.sampling_state()),
        }
        try:
            checkpoint.atomic_save(state, path, scratch=self.base_dir)
        except OSError as error:
            reason = f"{path}: the checkpoint could not be written ({error.strerror or error})"
            if step + 1 >= self._start_step + cast(int, self.config.max_num_iterations):
                raise LpmError(f"{reason}; wanted room for it; make room and go on from the one before") from error
            CONSOLE.print(
                f"{reason}; what was there stays, and the next is tried after {self.config.steps_per_save} steps."
            )
            return
        self._saved = True
        if self.config.save_only_latest_checkpoint:
            # Two stay, so that there is one to go on from if the last is damaged on the disk. Never a longer run's,
            # which may have had the same name.
            for other in sorted(p for p in self.checkpoint_dir.glob("*.ckpt") if p <= path)[:-2]:
                other.unlink()

    def _load_checkpoint(self) -> None:
        """Resumes from --load-dir or --load-checkpoint; without either, starts from scratch."""
        self._attach_views()  # first: what a strategy has saved belongs to its photos
        path, step = self.config.load_checkpoint or self.config.load_dir, self.config.load_step
        if path is None:
            return
        if step is not None and path == self.config.load_dir:
            path = find_checkpoint(path).with_name(f"step-{step:09d}.ckpt")
        path, state = read_checkpoint(path)
        self._start_step = state["step"] + 1
        if self._start_step >= cast(int, self.config.max_num_iterations):
            fail(
                "--max-num-iterations",
                f"{self.config.max_num_iterations}, and the checkpoint is at step {self._start_step}",
                "more steps than are done",
                f"pass for example --max-num-iterations {self._start_step + 1000}",
            )
        try:
            self._put_back(path, state)
        except (KeyError, TypeError, AttributeError, IndexError, RuntimeError, ValueError) as error:
            got = f"does not fit ({type(error).__name__}: {str(error)[:200]})"
            fail(path, got, "a checkpoint of this method", "resume with the options that it was made with")
        CONSOLE.print(f"Resumed from {path}: step {self._start_step}.")

    def _put_back(self, path: Path, state: dict[str, Any]) -> None:
        self.pipeline.load_pipeline(state["pipeline"], state["step"])
        # load_pipeline made new Parameters of the saved size; optimizers of the old ones would move nothing.
        self.optimizers = self.setup_optimizers()
        self.optimizers.load_optimizers(state["optimizers"])
        if self.config.load_scheduler:
            self.optimizers.load_schedulers(state["schedulers"])
        self.grad_scaler.load_state_dict(state["scalers"])
        own = state.get("lpm")
        if own is not None and own["strategy"] == self.model.config.strategy:
            put_back(own, self.model)
            self.data.set_sampling_state(own["sampling"])
            changed = changed_options(own, self.model)
            if changed:
                CONSOLE.print(
                    f"Options of the strategy that the checkpoint was made with have changed: {', '.join(changed)}."
                )
            for name in self.model.strategy.summed if distributed.rank() > 0 else ():
                self.model.strategy_state[name].zero_()  # they are in the first process's sum
        else:
            CONSOLE.print(f"{path} was made with another strategy: its parameters are used, its statistics are not.")
