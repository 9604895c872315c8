"""The command lpm-view: Gaussians in a page of their own, drawn here with all of their view-dependent colour."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lpm.checks import fail
from lpm.formats.read import Loaded
from lpm.formats.sidecar import read_sidecar
from lpm.runs.folder import CHECKPOINTS, run_folder
from lpm.viewer import compat
from lpm.viewer.page.camera import MOST, Camera, frame, middle
from lpm.viewer.page.page import Page
from lpm.viewer.page.photos import Photo
from lpm.viewer.page.scene import Shown

ANTIALIASED = (
    "**Trained antialiased.** It is drawn so here; viewers that do not dim small Gaussians show it too bold "
    "(docs/export.md)."
)


def axis(name: str) -> Tensor:
    """The unit vector [3] of "+x", "-y" and the like."""
    out = torch.zeros(3)
    out["xyz".index(name[1])] = 1.0 if name[0] == "+" else -1.0
    return out


def up_of(loaded: Loaded) -> Tensor:
    """The scene's up direction [3], from what is known about the file.

    nerfstudio makes it z in the training frame; an export's sidecar says it, or a comment in a PLY; other
    programs' files come from COLMAP's axes, where up is about -y.
    """
    if loaded.frame == "train":
        return axis("+z")
    if loaded.frame == "world" and loaded.world_to_train is not None:
        return torch.from_numpy(loaded.world_to_train.rotation.T @ np.array([0.0, 0.0, 1.0])).float()
    sidecar = read_sidecar(loaded.path)
    try:
        up = torch.tensor(loaded.up if sidecar is None else sidecar.up, dtype=torch.float32)
        if up.shape == (3,) and 0 < float(up.norm()) < math.inf:
            unit: Tensor = up / up.norm()
            return unit
    except (TypeError, ValueError, RuntimeError):
        pass
    return axis("-y")


class View:
    """A page with Gaussians in it. `start` opens it and `stop` closes it; each browser has a view of its own."""

    def __init__(
        self,
        scene: Loaded | Mapping[str, Tensor],
        host: str = "127.0.0.1",
        port: int = 7009,
        *,
        up: Tensor | None = None,
        photos: list[Photo] | None = None,
        photo_note: str = "",
        longer: int = 960,
        out: Path = Path(),
        device: str = "cpu",
        label: str = "lpm-view",
        shown: Any = None,
    ) -> None:
        """Nothing is opened yet.

        Args:
            scene: what lpm.formats.read gives, or parameters (lpm.gaussians).
            host, port: where to listen; port 0 takes any that is free.
            up: [3], the scene's up direction; None goes by what is known about the file.
            photos: photos and where they were taken, in the scene's frame.
            photo_note: what to say about them.
            longer: pixels along the longer side of a picture at rest.
            out: the folder where films are written.
            device: cpu or cuda.
            label: the command that the page belongs to.
            shown: what draws `scene`, where it is not lpm.viewer.page.scene.Shown.

        Raises:
            LpmError: nothing finite is there to draw, or `longer` is out of range.
        """
        if not 64 <= longer <= MOST:
            fail("--size", str(longer), f"64 to {MOST} pixels")
        loaded = scene if isinstance(scene, Loaded) else Loaded(dict(scene), Path("scene"), "ply")
        self.shown = Shown(loaded, device) if shown is None else shown
        self.label = label
        self.host, self.port, self.longer, self.out = host, port, longer, out
        self.up = up_of(loaded) if up is None else torch.nn.functional.normalize(up.float(), dim=0)
        self.photos, self.photo_note = photos or [], photo_note
        self.antialiased = loaded.rasterize_mode == "antialiased"
        self.centre, self.radius = middle(self.shown.framed)
        self.places = np.array([photo.camera.position for photo in self.photos]).reshape(-1, 3)
        self.frustum = self._frustum()
        # Checkpoints are all called alike; their run's folder is not.
        of_run = loaded.kind == "checkpoint" and loaded.path.parent.name in CHECKPOINTS
        run = run_folder(loaded.path).name
        self.name = f"{run}/{loaded.path.name}" if of_run else loaded.path.name
        self.stem = (run if of_run else loaded.path.name.split(".")[0]) or "scene"
        self.path: list[Camera] = []
        """Keyframes; all pages share them, so that they outlive a reload."""
        self.pages: dict[int, Page] = {}
        self._lock = threading.Lock()
        self.server: Any = None

    @property
    def about(self) -> str:
        """What the page says about the scene, Markdown."""
        loaded, shown = self.shown.loaded, self.shown
        count = len(shown.params["means"])
        lines = [f"**{self.name}** ({loaded.kind})", f"{count:,} Gaussians, SH degree {shown.degree}"]
        if shown.left_out:
            lines.append(f"{shown.left_out:,} that are not finite are left out.")
        if shown.files:
            lines.append(f"{len(shown.files)} time steps")
        if self.antialiased:
            lines.append(ANTIALIASED)
        if self.photo_note and not self.photos:
            lines.append(self.photo_note)
        # A file's name is anybody's: it must not become a link or an image.
        return "\n\n".join(lines).replace("<", "&lt;").replace("[", "\\[").replace("!", "\\!")

    def _frustum(self) -> float:
        """How large photos are shown, in the scene's unit: less than half of what is between neighbours."""
        if len(self.places) < 2:
            return 0.1 * self.radius
        apart = np.linalg.norm(self.places[:, None] - self.places[None], axis=-1)
        np.fill_diagonal(apart, np.inf)
        return float(np.clip(0.4 * np.median(apart.min(1)), 1e-3 * self.radius, 0.2 * self.radius))

    def distance(self, camera: Camera) -> float:
        """How far ahead of `camera` the scene's middle is; never less than a tenth of its radius."""
        ahead = camera.c2w[:3, 2] @ (self.centre.double().numpy() - np.array(camera.position))
        return max(float(ahead), 0.1 * self.radius)

    def frame_camera(self, aspect: float) -> tuple[Camera, float]:
        """A camera that has all of the scene in view, and how far the scene's middle is."""
        camera, centre = frame(self.shown.framed, self.up, aspect if 1e-2 < aspect < 1e2 else 4 / 3)
        return camera, float(np.linalg.norm(centre.numpy() - np.array(camera.position)))

    def start_camera(self, aspect: float) -> tuple[Camera, float]:
        """Where a page begins: at the first photo, since a scene around its cameras is a hull from outside."""
        if self.photos:
            camera = self.photos[0].camera
            return camera, self.distance(camera)
        return self.frame_camera(aspect)

    def set_path(self, path: list[Camera]) -> None:
        """Other keyframes, for all pages."""
        self.path = path
        with self._lock:
            pages = list(self.pages.values())
        for view_page in pages:
            view_page.path_changed()

    def free_name(self, ending: str) -> Path:
        """A name in `out` that nothing has yet."""
        number = 1
        while (path := self.out / f"{self.stem}_{number:03d}{ending}").exists():
            number += 1
        return path

    def start(self) -> View:
        """Opens the page. Raises LpmError where the port is taken."""
        self.server = compat.serve(self.host, self.port, self.label)
        self.port = self.server.get_port()
        self.server.gui.configure_theme(control_layout="collapsible", show_logo=False, show_share_button=False)
        self.server.scene.set_up_direction(tuple(self.up.tolist()))
        self.server.on_client_disconnect(self._leave)
        self.server.on_client_connect(self._come)
        return self

    def stop(self) -> None:
        """Closes the page; the port is free afterwards."""
        with self._lock:
            pages, self.pages = list(self.pages.values()), {}
        for view_page in pages:
            view_page.end()
        if self.server is not None:
            compat.stop(self.server)
            self.server = None
        for view_page in pages:
            view_page.render_thread.join(5)

    def _come(self, client: Any) -> None:
        view_page = Page(client, self)
        with self._lock:
            self.pages[compat.client_id(client)] = view_page

    def _leave(self, client: Any) -> None:
        with self._lock:
            view_page = self.pages.pop(compat.client_id(client), None)
        if view_page is not None:
            view_page.end()

    def __enter__(self) -> View:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
