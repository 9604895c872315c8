"""The page of a run that trains: what it has learnt so far, its zones and edits, its quality, and a hand in it."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lpm.checks import LpmError
from lpm.formats.read import Loaded
from lpm.records import EditRecord
from lpm.train.cameras import Camera
from lpm.train.terminal import curve
from lpm.train.trainer import Trainer
from lpm.viewer import compat
from lpm.viewer.page.camera import camera_at, matrices
from lpm.viewer.page.photos import MOST, THUMBNAIL, Photo
from lpm.viewer.page.render_thread import RenderRequest
from lpm.viewer.page.server import View
from lpm.viewer.training.outputs import NAMES, Outputs
from lpm.viewer.training.panels import Panels

TRAIN_SHARE = 0.95
"""Share of the time that stays for training while somebody looks at a view that stands still."""
PICTURES = ("rgb", "depth")


class LiveShown:
    """What lpm.viewer.page.scene.Shown is for a file, of a model that trains."""

    left_out, files = 0, ()

    def __init__(self, trainer: Trainer, outputs: Outputs | None) -> None:
        self.trainer, self.maps = trainer, outputs
        self.outputs = (*PICTURES, *(NAMES if outputs is not None else ()))
        """What can be looked at."""
        self.steps = 0 if trainer.settings.moving else 1
        self.seconds = 0.0
        """Time that the last picture took."""
        model = trainer.model
        self.params = self.framed = {name: value.detach().cpu().clone() for name, value in model.gauss_params.items()}
        self.loaded = Loaded(dict(self.params), trainer.folder, "checkpoint")
        self.degree = model.config.sh_degree

    def draw(
        self, request: RenderRequest, width: int, height: int, strips: int = 1, stop: Callable[[], bool] = lambda: False
    ) -> NDArray[np.uint8] | None:
        """The picture [height, width, 3] uint8 that `request` asks for."""
        if stop():
            return None
        # A thread that has computed in parallel keeps its helpers for as long as it lives, and they slow training.
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(self._draw, request, width, height).result()

    @torch.no_grad()
    def _draw(self, request: RenderRequest, width: int, height: int) -> NDArray[np.uint8]:
        viewmat, K = matrices(request.camera, width, height)
        trainer, model = self.trainer, self.trainer.model
        device, was = model.device, model.training
        camera = Camera(K.to(device), viewmat.to(device), height, width, time=request.time)
        with trainer.lock:
            start = time.monotonic()
            model.eval()
            try:
                picture = self._picture(request.output, camera)
            finally:
                model.train(was)
            self.seconds = time.monotonic() - start
        return (picture.nan_to_num(0.0).clamp(0, 1) * 255).round().byte().cpu().numpy()

    def _picture(self, name: str, camera: Camera) -> Tensor:
        model = self.trainer.model
        if name in NAMES and self.maps is not None:
            viewmat, K, size = camera.viewmat[0], camera.K[0], (camera.width, camera.height)
            params = model.frozen(camera)
            if name == "error":
                return _heat(self.maps.error(params, viewmat, K, size))
            if name == "age":
                touched = model.strategy_state.get("touched")
                return _heat(1 - self.maps.age(params, touched, model.step, viewmat, K, size))
            outputs = model.draw(camera)
            return self.maps.zones(outputs["rgb"], outputs["depth"], viewmat, K)
        outputs = model.draw(camera)
        if name == "depth":
            depth = outputs["depth"]
            near, far = torch.quantile(depth.flatten()[:: -(-depth.numel() // 100_000)], depth.new_tensor([0.02, 0.98]))
            return _heat(1 - (depth - near) / (far - near).clamp_min(1e-6))
        rgb: Tensor = outputs["rgb"]
        return rgb


def _heat(value: Tensor) -> Tensor:
    """[H, W, 3] colours of values [H, W, 1] of 0 to 1: from dark blue over red to yellow."""
    stops = value.new_tensor([(30, 30, 90), (170, 30, 110), (240, 90, 40), (255, 230, 80)]) / 255
    at = value.clamp(0, 1)[..., 0] * (len(stops) - 1)
    low = at.floor().long().clamp_max(len(stops) - 2)
    share = (at - low)[..., None]
    return stops[low] * (1 - share) + stops[low + 1] * share


class RunPage:
    """The page, from now until stop()."""

    def __init__(self, trainer: Trainer) -> None:
        """Opens it at the settings' port, or the next free one."""
        self.trainer, settings = trainer, trainer.settings.viewer
        live = trainer.model.strategy.live()
        self.outputs = outputs = None
        if live is not None:
            self.outputs = outputs = Outputs(live.views, live.maps, trainer.model.config.rasterize_mode, live.flat)
        self.shown = shown = LiveShown(trainer, outputs)
        port = settings.port if settings.port == 0 else compat.free_port(settings.host, settings.port)
        self.view = View(
            shown.loaded, settings.host, port, up=torch.tensor([0.0, 0.0, 1.0]), photos=self._photos(),
            longer=720, out=trainer.folder, label="lpm-train", shown=shown,
        ).start()  # fmt: skip
        self.panels: Panels | None = None
        self._pause()
        if live is not None:
            maps, lock = live.maps, trainer.lock

            def errors() -> dict[int, float]:
                with lock:
                    return {view: maps.mean(view) for view in sorted(maps.maps)}

            self.panels = Panels(self.view.server, live.views, live.requests, errors, live.setting, 1.0)
            trainer.log.on_snapshot.append(self.panels.on_event)
            trainer.log.on_record.append(self._on_record)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lpm-train-page", daemon=True)
        self._thread.start()

    def _photos(self) -> list[Photo]:
        data = self.trainer.data
        cameras, photos = data.train_cameras, []
        for i in np.unique(np.linspace(0, len(cameras) - 1, min(len(cameras), MOST)).round().astype(int)).tolist():
            width, height = cameras.sizes[i].tolist()
            c2w = cameras.c2w[i].double().numpy() * np.array([1.0, -1.0, -1.0, 1.0])  # OpenCV's axes
            fov = 2 * math.atan(height / 2 / float(cameras.intrinsics[i, 1]))
            by = THUMBNAIL / max(width, height)
            size = max(1, round(width * by)), max(1, round(height * by))
            small = cv2.resize(data.train[i]["image"][..., :3].cpu().numpy(), size, interpolation=cv2.INTER_AREA)
            photos.append(Photo(data.scene.train.names[i], camera_at(c2w, fov, width / height), np.asarray(small)))
        return photos

    def _pause(self) -> None:
        gui, paused = self.view.server.gui, self.trainer.paused
        on, off = gui.add_button("Pause training"), gui.add_button("Go on", visible=False)
        self.status = gui.add_markdown(self.about())  # below the buttons: it grows

        def switch(stop: bool) -> None:
            (paused.set if stop else paused.clear)()
            on.visible, off.visible = not stop, stop

        on.on_click(lambda _: switch(True))
        off.on_click(lambda _: switch(False))

    def _on_record(self, record: EditRecord) -> None:
        assert self.outputs is not None
        self.outputs.record = record

    def about(self) -> str:
        """What the run has reached, Markdown."""
        trainer = self.trainer
        lines = [f"Step {trainer.done:,} of {trainer.total:,}, {trainer.model.num_points:,} points"]
        if trainer.psnr:
            lines.append(f"Held-out PSNR {trainer.psnr[-1][1]:.2f} dB `{curve([psnr for _, psnr in trainer.psnr])}`")
        return "\n\n".join(lines)

    def _run(self) -> None:
        """Draws what is looked at again while training goes on."""
        shown, last = self.shown, -1
        while not self._done.wait(max(0.5, shown.seconds / (1 - TRAIN_SHARE))):
            pages = list(self.view.pages.values())
            if pages and self.trainer.done != last:
                last = self.trainer.done
                text = self.about()
                if self.status.content != text:
                    self.status.content = text
                for page in pages:
                    page.render_thread.again()

    def wait(self) -> None:
        """Stays until Ctrl-C."""
        self.trainer.say("The page stays until Ctrl-C.")
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()

    def stop(self) -> None:
        """Closes the page; its port is free afterwards."""
        self._done.set()
        self._thread.join(5)
        if self.panels is not None:
            self.panels.stop()
        with contextlib.suppress(LpmError, OSError):
            self.view.stop()
