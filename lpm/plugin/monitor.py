"""What is written and shown of point management while a run trains: log, tensorboard, the replay's files, panels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.utils import writer
from nerfstudio.utils.rich_utils import CONSOLE
from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO, Viewer
from torch import Tensor

from lpm import records
from lpm.multiview.views import world_to_camera
from lpm.plugin.model import LpmModel
from lpm.train.event_log import EventLog
from lpm.train.turns import Turns
from lpm.viewer.training.outputs import NAMES, Outputs
from lpm.viewer.training.panels import Panels
from lpm.viewer.training.playback import Clip

TRAIN_SHARE = 0.98
"""Share of the time that stays for training while somebody looks at a view that stands still."""


class Monitor:
    """Keeps each event of a strategy (lpm.train.event_log), and shows it in tensorboard and in nerfstudio's viewer."""

    def __init__(self, folder: Path, model: LpmModel) -> None:
        """`folder`: the run's."""
        self.model, self.strategy = model, model.strategy
        self.panels: Panels | None = None
        self.clip: Clip | None = None
        self.outputs: Outputs | None = None
        self.log = EventLog(folder, model, CONSOLE.log)
        self.log.on_record.append(self._on_record)
        self.held_out = self.log.held_out

    def show(self, viewer: Viewer, lock: Turns) -> None:
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
        self.log.on_snapshot.append(self.panels.on_event)
        if live.capture_times is not None:
            self.clip = Clip(viewer.viser_server, panel, errors, live.capture_times)

    def stop(self) -> None:
        """Ends the panels."""
        for part in (self.panels, self.clip):
            if part is not None:
                part.stop()

    def _on_record(self, record: records.EditRecord) -> None:
        for name in ("split", "inserted", "pruned", "reset", "points", "seconds"):
            writer.put_scalar(name=f"Point management/{name}", scalar=getattr(record, name), step=record.step)
        if self.outputs is not None:
            self.outputs.record = record

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
        params = self.model.frozen(self.model.camera_of(camera))
        if "error" in wanted:
            made["error"] = self.outputs.error(params, viewmat, K, size)
        if "zones" in wanted:
            made["zones"] = self.outputs.zones(rgb, depth, viewmat, K)
        if "age" in wanted:
            touched = self.model.strategy_state.get("touched")
            made["age"] = self.outputs.age(params, touched, self.model.step, viewmat, K, size)
        return made
