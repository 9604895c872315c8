"""The replay in a page: controls that scrub through a run's events, and what they show."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import viser
from numpy.typing import NDArray

from lpm.viewer.boxes import EDIT_COLORS, ZONE_COLORS, edges_mesh
from lpm.viewer.replay.curves import mark, plots
from lpm.viewer.replay.data import Replay

NAMES = {
    "false-front": "False fronts (red)",
    "missing": "Missing (blue)",
    "under-resolved": "Under-resolved (orange)",
    "no-evidence": "No evidence (gray)",
    "added": "Added (green)",
    "removed": "Removed (pale red)",
    "reset": "Reset (amber)",
    "points": "All points",
}
GRAY = (140, 140, 140)


def paler(color: tuple[int, int, int]) -> tuple[int, int, int]:
    """Half way to white: what was removed is a ghost, and viser 0.2.7 has no transparent points."""
    r, g, b = color
    return (r + 255) // 2, (g + 255) // 2, (b + 255) // 2


class Page:
    """The replay in a viser server: controls on the right, the scene in the middle."""

    def __init__(self, server: viser.ViserServer, replay: Replay) -> None:
        self.server, self.replay = server, replay
        self.lock = threading.Lock()  # viser calls back from several threads
        self.drawn: dict[str, Any] = {}
        self.shown: dict[str, Any] = {}
        self.state: tuple[int, int, float] | None = None  # event, events whose edits are shown, size of points
        self.cloud: tuple[int | None, float] = (None, 0.0)
        self.curves = plots(replay)
        self.centre, self.radius = replay.bounds
        server.scene.set_up_direction("+z")
        server.on_client_connect(self._look)
        self._build()
        self.draw()

    def _look(self, client: viser.ClientHandle) -> None:
        client.camera.position = tuple(self.centre + self.radius * np.array([1.4, -2.2, 1.2]))
        client.camera.look_at = tuple(self.centre)

    def _build(self) -> None:
        gui, last = self.server.gui, len(self.replay.events) - 1
        self.server.gui.configure_theme(control_layout="fixed", control_width="large", show_logo=False)
        # A slider needs two ends; with one event it stays where it is.
        self.event = gui.add_slider("Event", 1, max(2, last + 1), 1, 1, disabled=last < 1)
        self.play = gui.add_button("Play", disabled=last < 1)
        self.pause = gui.add_button("Pause", visible=False)  # a button of viser 0.2.7 keeps its label
        self.text = gui.add_markdown("")  # below the buttons: while it plays its lines wrap now here, now there
        self.speed = gui.add_slider("Events a second", 0.5, 10.0, 0.5, 2.0)
        self.last = gui.add_slider("Edits of last", 1, 20, 1, 1, hint="Edits of so many events are shown")
        with gui.add_folder("Show"):
            for name, label in NAMES.items():
                self.shown[name] = gui.add_checkbox(label, True)
                self.shown[name].on_update(lambda _, name=name: self._show(name))
            self.size = gui.add_slider("Point size", 0.1, 5.0, 0.1, 1.0)
        with gui.add_folder("Curves"):
            mark(self.curves, self.replay.events[0].step)
            # viser's aspect is height over width, whatever it says.
            self.plot = gui.add_plotly(self.curves, aspect=0.45 * len(self.curves.layout.annotations) + 0.1)
        self.play.on_click(lambda _: self._play(True))
        self.pause.on_click(lambda _: self._play(False))
        for handle in (self.event, self.last, self.size):
            handle.on_update(lambda _: self.draw())

    @property
    def playing(self) -> bool:
        """Whether it goes on by itself."""
        return self.pause.visible

    def _play(self, on: bool) -> None:
        if on and self.event.value >= len(self.replay.events):
            self.event.value = 1
        self.play.visible, self.pause.visible = not on, on

    def _show(self, name: str) -> None:
        with self.lock:
            if name in self.drawn:
                self.drawn[name].visible = self.shown[name].value

    def _text(self, index: int) -> str:
        event = self.replay.events[index]
        kinds: list[str] = [zone.kind for zone in event.zones]
        placeless = sum(not zone.corners for zone in event.zones)
        zones = ", ".join(f"{kinds.count(kind)} {kind}" for kind in ZONE_COLORS if kind in kinds) or "none"
        added = event.cloned + event.split + event.inserted
        budget = "" if event.budget is None else f" of {event.budget:,}"
        return "\n\n".join([
            f"**{self.replay.name}**: event {index + 1} of {len(self.replay.events)}, step {event.step:,}",
            f"Zones: {zones}" + (f"; {placeless} without a depth are not drawn" if placeless else ""),
            f"{added:,} added, {event.pruned:,} removed, {event.reset:,} reset; {event.points:,}{budget} points",
        ])  # fmt: skip

    def draw(self) -> None:
        """Shows what the sliders stand at."""
        with self.lock:
            index = min(int(self.event.value), len(self.replay.events)) - 1
            last, size = int(self.last.value), 0.006 * self.radius * self.size.value
            if self.state == (index, last, size):  # a slider that is dragged calls faster than this draws
                return
            self.state = index, last, size
            self.text.content = self._text(index)
            for kind, corners in self.replay.boxes(index).items():
                self._put(kind, self._mesh(kind, corners) if len(corners) else None)
            for name, places in self.replay.recent(index, last).items():
                color = paler(EDIT_COLORS[name]) if name == "removed" else EDIT_COLORS[name]
                self._put(name, self._dots(name, places, color, 1.5 * size) if len(places) else None)
            self._draw_cloud(index, size)
            mark(self.curves, self.replay.events[index].step)
            self.plot.figure = self.curves

    def _draw_cloud(self, index: int, size: float) -> None:
        cloud = self.replay.cloud(index)
        if cloud is None or cloud.means is None:
            self._put("points", None)
        elif self.cloud != (cloud.step, size) or "points" not in self.drawn:  # most events share it, and it is large
            colors = GRAY if cloud.colors is None else cloud.colors
            self._put("points", self._dots("points", cloud.means, colors, size))
        self.cloud = None if cloud is None else cloud.step, size

    def _put(self, name: str, handle: Any) -> None:
        if handle is None and name in self.drawn:
            self.drawn.pop(name).remove()
        elif handle is not None:
            self.drawn[name] = handle  # the scene has it in the place of the last one of this name

    def _mesh(self, kind: str, corners: NDArray[np.float32]) -> Any:
        # Bars as thick as the box is near, so that those far away can be seen, too.
        edge = np.linalg.norm(corners[:, [1, 2, 3, 0]] - corners[:, :4], axis=-1).mean(1)
        vertices, faces = edges_mesh(corners, np.maximum(0.03 * edge, 0.005 * self.radius))
        return self.server.scene.add_mesh_simple(
            f"/zones/{kind}", vertices, faces, color=ZONE_COLORS[kind], side="double", flat_shading=True,
            visible=self.shown[kind].value,
        )  # fmt: skip

    def _dots(self, name: str, places: Any, colors: Any, size: float) -> Any:
        return self.server.scene.add_point_cloud(
            f"/{name}", places, colors, point_size=size, point_shape="circle", visible=self.shown[name].value
        )

    def run(self, done: threading.Event) -> None:
        """Plays, when asked to, until `done` is set."""
        while not done.wait(1 / self.speed.value if self.playing else 0.1):
            if not self.playing:
                continue
            if self.event.value < len(self.replay.events):
                self.event.value = self.event.value + 1
            else:
                self._play(False)
