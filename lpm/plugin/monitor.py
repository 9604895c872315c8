"""What is written and shown of point management while a run trains: log, tensorboard, the replay's files, panels."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.utils import writer
from nerfstudio.utils.rich_utils import CONSOLE
from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO, Viewer
from torch import Tensor

from lpm import records
from lpm.gaussians import spherical_harmonics
from lpm.multiview.views import world_to_camera
from lpm.plugin.model import LpmModel
from lpm.viewer.replay import recording
from lpm.viewer.replay.data import EDITS
from lpm.viewer.training.outputs import NAMES, Outputs
from lpm.viewer.training.panels import Panels
from lpm.viewer.training.playback import Clip

CLOUDS = 12
"""About so many events of a run are recorded with all points; the others with what they changed."""
TRAIN_SHARE = 0.98
"""Share of the time that stays for training while somebody looks at a view that stands still."""


class Monitor:
    """Writes each event of a strategy into the run's folder, the log and tensorboard, and shows it in the viewer."""

    def __init__(self, folder: Path, model: LpmModel) -> None:
        """`folder`: the run's, where edits.jsonl and replay/ are written."""
        self.folder, self.model, self.strategy = folder, model, model.strategy
        self.panels: Panels | None = None
        self.clip: Clip | None = None
        self.outputs: Outputs | None = None
        self._events = 0
        self._psnr: float | None = None
        plan = model.schedule
        self._cloud_every = max(1, (plan.stop - plan.start) // plan.every // CLOUDS)
        self.strategy.on_event = self._on_event

    def show(self, viewer: Viewer, lock: threading.Lock) -> None:
        """Adds our pictures and panels to nerfstudio's viewer, for a strategy that takes requests."""
        live = self.strategy.live()
        if live is None:
            return
        views, maps = live.views, live.maps
        self.outputs = Outputs(views, maps, self.model.config.rasterize_mode, live.flat)
        panel = viewer.control_panel

        def extra(camera: Cameras, outputs: dict[str, Any]) -> dict[str, Tensor]:
            split = panel.split_output_render if panel.split else None
            return self._pictures({panel.output_render, split}, camera, outputs)

        def errors() -> dict[int, float]:
            with lock:
                return {view: maps.mean(view) for view in sorted(maps.maps)}

        self.model.viewer_outputs = extra
        self.panels = Panels(
            viewer.viser_server, views, live.requests, errors, live.setting, VISER_NERFSTUDIO_SCALE_RATIO
        )
        if live.capture_times is not None:
            self.clip = Clip(viewer.viser_server, panel, errors, live.capture_times)

    def held_out(self, psnr: float) -> None:
        """Takes the PSNR (dB) of held-out photos; it goes with the next event."""
        self._psnr = psnr

    def stop(self) -> None:
        """Ends the panels."""
        for part in (self.panels, self.clip):
            if part is not None:
                part.stop()

    def _on_event(self, record: records.EditRecord, changes: records.Changes | None) -> None:
        try:
            records.append(self.folder / "edits.jsonl", record)
        except OSError as error:
            self._not_recorded("events are", error)
        CONSOLE.log(record.line())
        for name in ("split", "inserted", "pruned", "reset", "points", "seconds"):
            writer.put_scalar(name=f"Point management/{name}", scalar=getattr(record, name), step=record.step)
        if self.outputs is not None:
            self.outputs.record = record
        if changes is None:  # a strategy that does not tell where
            return
        added, removed, reset = (recording.evenly_spaced(getattr(changes, name), recording.LIMIT) for name in EDITS)
        snapshot = recording.Snapshot(changes.step, added, removed, reset, psnr=self._psnr)
        self._psnr = None
        if self.panels is not None:
            self.panels.on_event(record, snapshot)
        self._record(replace(snapshot))

    def _record(self, snapshot: recording.Snapshot) -> None:
        if self._events % self._cloud_every == 0:
            color = self.model.gauss_params["features_dc"].detach()
            rgb = spherical_harmonics.sh0_to_rgb(color) if self.model.config.sh_degree > 0 else torch.sigmoid(color)
            snapshot.means, snapshot.colors = self.model.means.detach(), (rgb.clamp(0, 1) * 255).byte()
        self._events += 1
        try:
            recording.write(self.folder / recording.FOLDER, snapshot)
        except OSError as error:
            self._not_recorded("the replay is", error)

    def _not_recorded(self, what: str, error: OSError) -> None:
        # A replay with a gap is no reason to end a run.
        self.strategy.messages.once(
            what, f"lpm: {what} not recorded: {error.filename or self.folder}: {error.strerror}."
        )

    @torch.no_grad()
    def _pictures(self, wanted: set[str | None], camera: Cameras, outputs: dict[str, Any]) -> dict[str, Tensor]:
        """NAMES -> pictures [H, W, 1 or 3]; those that nobody looks at are black and cost nothing."""
        assert self.outputs is not None
        rgb, depth = outputs["rgb"], outputs["depth"]
        made: dict[str, Tensor] = {name: rgb.new_zeros(1, 1, 1).expand(*rgb.shape[:2], 1) for name in NAMES}
        if depth is None or not wanted & set(NAMES):
            return made
        viewmat = world_to_camera(camera.camera_to_worlds.to(rgb.device, torch.float32))[0]
        K = camera.get_intrinsics_matrices()[0].to(rgb.device)
        size = (int(rgb.shape[1]), int(rgb.shape[0]))
        params = self.model.frozen(camera)
        if "error" in wanted:
            made["error"] = self.outputs.error(params, viewmat, K, size)
        if "zones" in wanted:
            made["zones"] = self.outputs.zones(rgb, depth, viewmat, K)
        if "age" in wanted:
            touched = self.model.strategy_state.get("touched")
            made["age"] = self.outputs.age(params, touched, self.model.step, viewmat, K, size)
        return made
