"""The loop of `lpm-train`: steps, faults, measurements, checkpoints, and an exact resume."""

from __future__ import annotations

import functools
import json
import math
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lpm import distributed
from lpm.checks import LpmError, fail
from lpm.files import atomic_file, cache_folder
from lpm.runs import checkpoint
from lpm.runs.claim import claim, release, remove_empty
from lpm.runs.folder import checkpoint_folder, keep_georeference, read_checkpoint
from lpm.scenes.scene import Scene
from lpm.strategy.registry import strategy_class
from lpm.train import bad_steps
from lpm.train.announcement import announcement
from lpm.train.event_log import EventLog
from lpm.train.model import GaussianModel
from lpm.train.moving_model import MovingGaussianModel
from lpm.train.opened_run import as_json, held_out_rows, load_parameters, lost_views, means
from lpm.train.optimizers import MOVING, STILL, Optimizers, with_rates
from lpm.train.out_of_memory import keep_freed_memory, out_of_memory
from lpm.train.photo_store import Budget
from lpm.train.placed import place
from lpm.train.run_data import RunData
from lpm.train.run_settings import FILE, RunSettings, write_settings
from lpm.train.run_state import changed_options, own_state, put_back
from lpm.train.signals import Signals
from lpm.train.terminal import Terminal, curve
from lpm.train.turns import Turns

MEASURED = 8
"""Held-out photos by which quality is followed while it trains; at the end all are measured."""


class Trainer:
    """One run in a folder of its own."""

    def __init__(self, settings: RunSettings, folder: Path, terminal: Terminal | None = None) -> None:
        """`settings` are resolved here for the device that is there; `folder` is the run's."""
        self.terminal = terminal or Terminal()
        self.say = self.terminal.say
        there = torch.cuda.is_available()
        device = ("cuda" if there else "cpu") if settings.device == "auto" else settings.device
        if device == "cuda" and not there:
            device = "cpu"
            self.say("No CUDA device here: training on the CPU.")
        settings.resolve(device)
        strategy_class(settings.strategy, settings.moving)  # a wrong name is found before any photo is read
        self.settings, self.folder, self.device = settings, folder, torch.device(device)
        self.lock = Turns()
        """Held while the parameters change; who draws in another thread holds it, too."""
        self.paused = threading.Event()
        """While it is set no step is made."""
        self.signals = Signals()
        self.psnr: list[tuple[int, float]] = []
        """(steps done, held-out PSNR in dB) as measured on the way."""
        self.on_step: list[Callable[[int], None]] = []
        """Called after every step with its number."""
        self.first = 0
        self._done, self._saved = -1, False

    @property
    def total(self) -> int:
        """Steps of the whole run."""
        assert self.settings.steps is not None
        return self.settings.steps

    @property
    def done(self) -> int:
        """Steps that have been made."""
        return self._done + 1

    def setup(self, scene: Scene, resume: Path | None = None) -> None:
        """Reads the photos, makes model and optimizers, and puts back what `resume` (a run or checkpoint) holds.

        Raises:
            LpmError: something cannot be used; the run's folder does not stay behind.
        """
        there = next(place for place in (self.folder, *self.folder.absolute().parents) if place.exists())
        claim(self.folder)
        try:
            with Signals(then=sys.exit) as signals:
                self._build(scene, resume)
        except (LpmError, SystemExit) as error:
            if resume is None:
                (self.folder / FILE).unlink(missing_ok=True)
            release(self.folder)
            if not any(self.folder.rglob("*.ckpt")):
                remove_empty(self.folder, there)
            if isinstance(error, SystemExit):
                self.say("Stopped before the first step.")
                signals.leave()
            raise

    def _build(self, scene: Scene, resume: Path | None) -> None:
        settings = self.settings
        checkpoint.seed_everything(settings.seed)
        for note in scene.notes:
            self.say(note)
        if not scene.lists and settings.eval_every == 0:
            self.say("--eval-every is 0: nothing is held out; all images are trained on and tested on.")
        placed = place(scene, settings.data, settings.eval_every)
        more = {"random_points": settings.random_points} if settings.moving else {}  # type: ignore[attr-defined]
        self.data = RunData(
            placed, settings.scene, self.device, settings.scale, settings.seed, settings.moving,
            settings.points_from_photos, say=self.say,
            budget=Budget.of(self.device, settings.data.cache_gb, settings.data.device_cache_gb), **more,
        )  # fmt: skip
        settings.scale = self.data.scale
        kind = MovingGaussianModel if settings.moving else GaussianModel
        self.model = kind(settings.model_settings(), self.data.start(), self.say).to(self.device)
        for tensor in (*self.model.parameters(), *self.model.buffers()):
            tensor.data = distributed.tensor_from_first(tensor.data)
        self.rates = with_rates(MOVING if settings.moving else STILL, settings.rates)
        self.optimizers = Optimizers(self.model, self.rates)
        self.left_out = bad_steps.LeftOut(self._photo, self.say)
        strategy = self.model.strategy
        strategy.messages.say, strategy.seed = self.say, settings.seed
        points = None if self.data.xyz is None else self.data.xyz.to(self.device)
        strategy.attach(self.data.views(), points, cache_folder() / "matches")
        self.log = EventLog(self.folder, self.model, lambda line: None)
        if resume is not None:
            self._resume(resume)
        else:
            self.log.clear()
        write_settings(self.folder / FILE, settings)
        keep_georeference(scene.layout.root, self.folder)
        frame = {"transform": placed.transform.tolist(), "scale": placed.scale}
        with atomic_file(self.folder / "dataparser_transforms.json") as file:
            file.write(json.dumps(frame, indent=4).encode())

    def _photo(self, view: int | None) -> str:
        return "a step" if view is None else str(self.data.scene.train.images[view])

    # Training

    def train(self) -> None:
        """Trains up to the run's last step; measures and saves on the way and at the end."""
        camera = self.data.camera(self.data.train_cameras, 0, None)
        photos = len(self.data.train), len(self.data.test)
        checkpoint.set_random_state(distributed.from_first(checkpoint.random_state()))  # all processes draw alike
        if self.device.type == "cpu":
            keep_freed_memory()  # not sooner: what the set-up needed for a moment goes back to the system
        with self.lock:
            self.say(announcement(self.model, camera, photos, self.total - self.first))
        try:
            with Signals(then=self.paused.clear) as self.signals:
                self.terminal.begin(self.first, self.total)
                for step in range(self.first, self.total):
                    self._wait_while_paused()
                    if self.signals.number is not None:
                        self._stop(step - 1)
                    with self.lock:
                        self.step(step)
                    self._after(step)
                self.terminal.end()
                self.save_checkpoint(self.total - 1)
            self.signals.leave()
        except distributed.Lost:
            if self._done >= self.first:
                self.save_checkpoint(self._done)
            raise
        finally:
            self.terminal.end()
            release(self.folder)

    def _wait_while_paused(self) -> None:
        while self.paused.is_set() and self.signals.number is None:
            threading.Event().wait(0.05)

    def step(self, step: int) -> None:
        """One step. One that cannot be used changes nothing.

        Raises:
            LpmError: too many in a row could not; what was reached is saved.
        """
        model, points = self.model, self.model.num_points
        if not model.training:  # it goes through all modules
            model.train()
        model.step, model.optimizers, model.spoilt = step, self.optimizers.optimizers, False
        flag = None
        try:
            flag = self._learn()
        except Exception as error:
            if not out_of_memory(error):
                raise
        try:
            if flag is None:
                self.optimizers.zero_grad()
                self.optimizers.step_schedules()
                model.spoilt = True
                model.after_out_of_memory(f"at step {step}", max(1, points * 9 // 10))
                self.left_out.count(step, "there was no memory for it")
            else:
                self.left_out.note(step, model.info.get("view"), flag)
        except LpmError:
            self.save_checkpoint(step)
            raise
        self._done = step
        model.step_post_backward(step)

    def _learn(self) -> Tensor:
        """Draws, compares, and moves the parameters; [] 1 where it changed nothing, since something was not finite."""
        self.optimizers.zero_grad()
        camera, photo = self.data.next()
        outputs = self.model.draw(camera)
        losses = self.model.loss(outputs, photo)
        functools.reduce(torch.add, losses.values()).backward()
        self.optimizers.step()
        self.optimizers.step_schedules()
        return self.optimizers.flag

    def _after(self, step: int) -> None:
        done, settings = step + 1, self.settings
        for told in self.on_step:
            told(step)
        if settings.measure_every and done % settings.measure_every == 0 and done < self.total:
            self.follow(done)
        if done % 10 == 0 or done == self.total:
            self.terminal.update(done, self.model.num_points, self.psnr[-1][1] if self.psnr else None)
        if step and step % settings.save_every == 0 and done < self.total:
            self.save_checkpoint(step)

    def _stop(self, step: int) -> None:
        self.terminal.end()
        if step >= self.first:
            self.save_checkpoint(step)
        command = f"lpm-train --resume {self.folder}"
        self.say(f"Stopped after step {step}. To go on:\n{command}" if self._saved else "Stopped; nothing new to save.")
        self.signals.leave()

    # Measuring

    def measure(self, most: int | None = None) -> list[dict[str, Any]]:
        """Name, PSNR (dB), SSIM and, where it can be had, LPIPS of each held-out photo, of `most` of them if given; of
        all also FLIP, which is slow.

        Random numbers go on as if nothing had been measured.
        """
        state = checkpoint.random_state()
        self.model.eval()
        rows = held_out_rows(self.model, self.data.held_out(most), most is None)
        self.model.train()
        checkpoint.set_random_state(state)
        return rows

    def follow(self, done: int) -> float:
        """Measures PSNR (dB) on a few held-out photos after `done` steps, for curves."""
        with self.lock:
            psnr = [row["psnr"] for row in self.measure(MEASURED)]
        mean = math.fsum(psnr) / len(psnr)
        self.psnr.append((done, mean))
        self.log.held_out(mean)
        return mean

    def summary(self) -> dict[str, Any]:
        """Measures all held-out photos, writes metrics.json, says the means, and gives what was written."""
        rows = self.measure()
        mean = means(rows)
        found = {"step": self.done, "points": self.model.num_points, **mean, "lost": len(lost_views(rows))}
        result = found | {"views": rows, "curve": [{"step": step, "psnr": psnr} for step, psnr in self.psnr]}
        with atomic_file(self.folder / "metrics.json") as file:
            file.write(as_json(result))
        shown = f", held-out PSNR on the way {curve([psnr for _, psnr in self.psnr])}" if len(self.psnr) > 1 else ""
        parts = [f"PSNR {mean['psnr']:.2f} dB", f"SSIM {mean['ssim']:.4f}"]
        parts += [f"LPIPS {mean['lpips']:.4f}"] if "lpips" in mean else []
        parts += [f"FLIP {mean['flip']:.4f} (less is better)"] if "flip" in mean else []
        self.say(f"{len(rows)} held-out photos: {', '.join(parts)}; {self.model.num_points:,} points{shown}")
        return result

    # Checkpoints

    def save_checkpoint(self, step: int) -> None:
        """Writes step-*.ckpt atomically, with all that an exact resume needs, then removes the older ones.

        Of several processes the first one does.
        """
        if distributed.rank() > 0:
            return
        folder = checkpoint_folder(self.folder)
        path = folder / f"step-{step:09d}.ckpt"
        pipeline = {f"_model.{name}": value for name, value in self.model.state_dict().items()}
        pipeline["_model.device_indicator_param"] = torch.empty(0)  # which nerfstudio's models have
        sampling = {**self.data.order.state(), "eval_unseen_cameras": list(range(len(self.data.test))), "epochs": None}
        state = {
            "step": step,
            "pipeline": pipeline,
            **self.optimizers.state(),
            "scalers": {},
            "lpm": own_state(self.model, sampling) | {"psnr": [list(pair) for pair in self.psnr]},
        }
        try:
            checkpoint.atomic_save(state, path, scratch=self.folder)
        except OSError as error:
            reason = f"{path}: the checkpoint could not be written ({error.strerror or error})"
            if step + 1 >= self.total:
                raise LpmError(f"{reason}; wanted room for it; make room and go on from the one before") from error
            every = self.settings.save_every
            self.say(f"{reason}; what was there stays, and the next is tried after {every} steps.")
            return
        self._saved = True
        if not self.settings.keep_all:
            # Two stay, so that there is one to go on from if the last is damaged on the disk. Never a longer run's,
            # which may have had the same name.
            for other in sorted(p for p in folder.glob("*.ckpt") if p <= path)[:-2]:
                other.unlink()

    def _resume(self, run: Path) -> None:
        path, state = read_checkpoint(run)
        self.first = state["step"] + 1
        if self.first >= self.total:
            fail("--steps", f"{self.total}, and the checkpoint is at step {self.first}", "more steps than are done",
                 f"pass for example --steps {self.first + 1000}")  # fmt: skip
        try:
            self._put_back(path, state)
        except (KeyError, TypeError, AttributeError, IndexError, RuntimeError, ValueError) as error:
            got = f"does not fit ({type(error).__name__}: {str(error)[:200]})"
            fail(path, got, "a checkpoint of this method", "resume with the options that it was made with")
        self._done = self.first - 1
        self.say(f"Resumed from {path}: step {self.first}.")

    def _put_back(self, path: Path, state: dict[str, Any]) -> None:
        load_parameters(self.model, state)
        # Its parameters are new ones; optimizers of the old ones would move nothing.
        self.optimizers = Optimizers(self.model, self.rates)
        self.optimizers.put_back(state)
        own = state.get("lpm")
        if own is None or own["strategy"] != self.model.config.strategy:
            self.say(f"{path} was made with another strategy: its parameters are used, its statistics are not.")
            return
        put_back(own, self.model)
        for name in self.model.strategy.summed if distributed.rank() > 0 else ():
            self.model.strategy_state[name].zero_()  # they are in the first process's sum
        if not self.data.order.put_back(own["sampling"]):
            self.say("The checkpoint was made with other images: the order of views starts anew.")
        self.psnr = [(int(step), float(psnr)) for step, psnr in own.get("psnr", [])]
        changed = changed_options(own, self.model)
        if changed:
            self.say(f"Options of the strategy that the checkpoint was made with have changed: {', '.join(changed)}.")
