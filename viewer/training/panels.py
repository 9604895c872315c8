"""Panels in the viewer of a run that is training: why points are added, removed and reset, and a hand in it.

The training thread only hands over what happened (`on_event`); a thread of the panels draws it, once a second at most
and only while somebody is connected. What a person asks for goes into `Requests` and counts from the next
event on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import viser
import viser.transforms as vtf
from numpy.typing import NDArray

from lpm.checks import LpmError
from lpm.multiview.views import Views
from lpm.records import EditRecord, ZoneRecord
from lpm.strategy.requests import SETTINGS, Region, Requests
from lpm.viewer.boxes import EDIT_COLORS, ZONE_COLORS, edges_mesh
from lpm.viewer.replay.data import Replay
from lpm.viewer.replay.recording import Snapshot
from lpm.viewer.training.curves import Curves

ROOT = "/point_management"
NO_ZONE = "none"
AHEAD = 0.02
"""How far in front of a training camera one looks from it, in units of the training frame: the scene is about 1."""


def heat(value: float) -> tuple[int, int, int]:
    """Colour of a value of 0 to 1: from dark blue over red to yellow."""
    value = min(1.0, max(0.0, value))
    stops = np.array([(30, 30, 90), (170, 30, 110), (240, 90, 40), (255, 230, 80)])
    at = value * (len(stops) - 1)
    i = min(int(at), len(stops) - 2)
    red, green, blue = (stops[i] + (at - i) * (stops[i + 1] - stops[i])).round().astype(int).tolist()
    return red, green, blue


class Panels:
    """The tabs Error, Zones, Points and Time of a viser server that shows a training run."""

    def __init__(
        self, server: viser.ViserServer, views: Views, requests: Requests, errors: Callable[[], dict[int, float]],
        settings: Callable[[str], float | None], scale: float = 1.0,
    ) -> None:  # fmt: skip
        """Builds the tabs and starts the drawing thread.

        Args:
            views: training photos and cameras.
            errors: gives the mean error of each view that was seen; called with nothing locked.
            settings: gives the strategy's value of a field of lpm.strategy.requests.SETTINGS.
            scale: of the page's scene over the training frame.
        """
        self.server, self.views, self.requests, self.errors = server, views, requests, errors
        self.scale = scale
        self.replay = Replay("training", [], [])
        self.chosen: ZoneRecord | None = None
        self._nodes: dict[str, list[Any]] = {"zones": [], "edits": [], "cameras": []}
        self._drawn: dict[str, Any] = {}
        self._news = threading.Event()
        self._lock = threading.Lock()
        self._stopped = False
        tabs = server.gui.add_tab_group()
        with tabs.add_tab("Zones", viser.Icon.BOX):
            self._zones_tab()
        with tabs.add_tab("Points", viser.Icon.GRAIN) as self._plot_place:
            self._points_tab(settings)
        with tabs.add_tab("Error", viser.Icon.FLAME):
            self._error_tab()
        with tabs.add_tab("Time", viser.Icon.CLOCK):
            server.gui.add_markdown("The scene stands still: there is no time to choose.")
        server.on_client_connect(self._welcome)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    # -- what the training thread tells ------------------------------------------------------------------------------

    def on_event(self, record: EditRecord, snapshot: Snapshot) -> None:
        """Takes an event's record and the places of its edits, on the CPU."""
        self.replay.snapshots.append(snapshot)
        self.replay.events.append(record)
        self._news.set()

    def stop(self) -> None:
        """Ends the drawing thread."""
        self._stopped = True
        self._news.set()
        self._thread.join(5)

    # -- tabs --------------------------------------------------------------------------------------------------------

    def _zones_tab(self) -> None:
        gui = self.server.gui
        self.show_zones = gui.add_checkbox("Show zones", True, hint="Pieces of space that the last event looked at")
        self.kinds = {kind: gui.add_checkbox(kind, kind != "no-evidence") for kind in ZONE_COLORS}
        self.zone = gui.add_dropdown("Zone", (NO_ZONE,), hint="Or click a box in the scene")
        self.freeze = gui.add_button("Freeze", hint="No point in this zone is touched from the next event on")
        self.thaw = gui.add_button("Thaw", visible=False)
        self.force = gui.add_button("Force an edit", hint="Points in this zone are split first at the next event")
        # Below the buttons: what grows must not push them from under the pointer.
        self.zone_text = gui.add_markdown("No event yet.")
        for box in (self.show_zones, *self.kinds.values()):
            box.on_update(lambda _: self._news.set())
        self.zone.on_update(lambda _: self._choose(self.zone.value))
        self.freeze.on_click(lambda _: self._ask(self.requests.freeze))
        self.thaw.on_click(lambda _: self._ask(self.requests.thaw))
        self.force.on_click(lambda _: self._ask(self.requests.force))

    def _points_tab(self, settings: Callable[[str], float | None]) -> None:
        gui = self.server.gui
        self.show_edits = gui.add_checkbox("Show edits", False, hint="green: added, red: removed, amber: reset")
        self.last = gui.add_slider("Last events", 1, 20, 1, 3)
        self.show_plots = gui.add_checkbox("Show plots", False, hint="Points, error and edits over the events")
        self.curves = Curves(gui, self._plot_place, self.show_plots.order + 0.5)
        self.values = {}
        with gui.add_folder("From the next event on"):
            for name, (kind, least, most) in SETTINGS.items():
                value = settings(name)
                if value is not None:
                    step = 1000 if kind is int else 0.001
                    self.values[name] = gui.add_number(name, value, min=kind(least), max=kind(most), step=step)
            self.apply = gui.add_button("Apply", hint="Counts from the next event on")
            self.said = gui.add_markdown("")
        for box in (self.show_edits, self.last, self.show_plots):
            box.on_update(lambda _: self._news.set())
        self.apply.on_click(lambda _: self._apply())

    def _error_tab(self) -> None:
        gui = self.server.gui
        self.color_cameras = gui.add_checkbox("Colour cameras by error", False)
        self.view = gui.add_dropdown("View", ("0",), hint="Training views, those with the largest error first")
        self.go = gui.add_button("Look from there")
        self.error_text = gui.add_markdown("No view was trained on yet.")
        self.color_cameras.on_update(lambda _: self._news.set())
        self.go.on_click(lambda event: self.jump(event.client, int(self.view.value.split()[0])))

    # -- what a person does ------------------------------------------------------------------------------------------

    def jump(self, client: Any, view: int) -> None:
        """Puts a client's camera where a training view was taken, just in front of the small photo that is there."""
        position, wxyz = self._pose(view)
        position = position + AHEAD * self.scale * self.views.viewmats[view, 2, :3].cpu().double().numpy()
        client.camera.position, client.camera.wxyz = position, wxyz

    def _clicked(self, name: str, _: Any) -> None:
        self.zone.value = name

    def _jump_of(self, view: int, event: Any) -> None:
        self.jump(event.client, view)

    def _welcome(self, client: Any) -> None:
        """A page begins where the first photo was taken: there is something to see from there in any scene."""
        self.jump(client, 0)
        self._news.set()

    def _pose(self, view: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        viewmat = self.views.viewmats[view].cpu().double().numpy()
        rotation = viewmat[:3, :3].T
        return -rotation @ viewmat[:3, 3] * self.scale, vtf.SO3.from_matrix(rotation).wxyz

    def _apply(self) -> None:
        try:
            for name, number in self.values.items():
                self.requests.set(name, number.value)
        except LpmError as error:
            self.said.content = str(error)
            return
        self.said.content = "Counts from the next event on."

    def _ask(self, what: Callable[[Region], None]) -> None:
        if self.chosen is not None:
            what(Region(self.chosen.view, self.chosen.box, self.chosen.interval))
            self._say_zone()

    def _choose(self, name: str) -> None:
        zones = self._shown_zones()
        self.chosen = zones.get(name)
        self._say_zone()

    # -- drawing -----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopped:
            self._news.wait()
            self._news.clear()
            if self._stopped:
                return
            if self.server.get_clients():
                self.draw()
            time.sleep(1.0)

    def draw(self) -> None:
        """Brings the page up to date."""
        errors = self.errors()  # waits for the training step; before the page is held
        with self._lock:
            self._draw_zones()
            self._draw_edits()
            self._draw_errors(errors)

    def _changed(self, part: str, key: Any) -> bool:
        """Whether `part` must be drawn anew, since `key` is not what it was drawn for."""
        if self._drawn.get(part) == key:
            return False
        self._drawn[part] = key
        for node in self._nodes.get(part, []):
            node.remove()
        self._nodes[part] = []
        return True

    def _shown_zones(self) -> dict[str, ZoneRecord]:
        """The last event's zones of the kinds that are ticked, by name."""
        if not self.replay.events:
            return {}
        record = self.replay.events[-1]
        zones = [zone for zone in record.zones if self.kinds[zone.kind].value]
        zones.sort(key=lambda zone: -zone.error)
        return {f"{i} {zone.kind}, view {zone.view}": zone for i, zone in enumerate(zones, 1)}

    def _draw_zones(self) -> None:
        count = len(self.replay.events)
        ticked = tuple(box.value for box in self.kinds.values())
        if not self._changed("zones", (count, ticked, self.show_zones.value)):
            return
        zones = self._shown_zones()
        self.zone.options = (NO_ZONE, *zones)
        self._say_zone()
        if not self.show_zones.value:
            return
        for number, (name, zone) in enumerate(zones.items()):
            corners = self.scale * np.array(zone.corners, np.float64).reshape(-1, 8, 3)
            if len(corners) == 0 or not np.isfinite(corners).all():
                continue
            thick = 0.03 * float(np.linalg.norm(corners[0, 0] - corners[0, 2]))  # as large as the box is near
            vertices, faces = edges_mesh(corners, thick)
            mesh = self.server.scene.add_mesh_simple(
                f"{ROOT}/zones/{number}", vertices, faces, color=ZONE_COLORS[zone.kind], side="double"
            )
            mesh.on_click(partial(self._clicked, name))
            self._nodes["zones"].append(mesh)

    def _say_zone(self) -> None:
        zone = self.chosen
        waiting = self.requests.waiting()
        self.thaw.visible = False
        if zone is None:
            said = f"{len(self._shown_zones())} zones in the last event." if self.replay.events else "No event yet."
        else:
            region = Region(zone.view, zone.box, zone.interval)
            self.thaw.visible = region in self.requests.frozen()
            history = ", ".join(f"{step}: {error:.3f}" for step, error in self.history(zone)[-6:])
            said = (
                f"**{zone.kind}** in view {zone.view}  \ndepth {zone.interval[0]:.3g} to {zone.interval[1]:.3g}, "
                f"{zone.points} points  \nerror by step: {history}  \nlast event: {self._last_action(region)}"
                + ("  \n*frozen*" if self.thaw.visible else "")
            )
        self.zone_text.content = said + (f"  \n{waiting} requests wait for the next event" if waiting else "")

    def history(self, zone: ZoneRecord) -> list[tuple[int, float]]:
        """Step and error of the zones of the same view whose pixels overlap with those of `zone`, over all events."""

        def overlaps(a: ZoneRecord) -> bool:
            (x0, y0, x1, y1), (u0, v0, u1, v1) = a.box, zone.box
            return a.view == zone.view and x0 < u1 and u0 < x1 and y0 < v1 and v0 < y1

        return [(e.step, max(z.error for z in e.zones if overlaps(z))) for e in self.replay.events
                if any(map(overlaps, e.zones))]  # fmt: skip

    def _last_action(self, region: Region) -> str:
        if not self.replay.snapshots:
            return "nothing known"
        camera = (self.views.viewmats[region.view].cpu(), self.views.Ks[region.view].cpu())
        done = []
        for name in EDIT_COLORS:
            places = getattr(self.replay.snapshots[-1], name)
            inside = int(region.contains(camera[0].new_tensor(places), *camera).sum()) if len(places) else 0
            if inside:
                done.append(f"{inside} {name}")
        return ", ".join(done) or "nothing done"

    def _draw_edits(self) -> None:
        count = len(self.replay.events)
        if self._changed("edits", (count, self.show_edits.value, self.last.value)) and self.show_edits.value and count:
            for name, places in self.replay.recent(count - 1, int(self.last.value)).items():
                if len(places):
                    cloud = self.server.scene.add_point_cloud(
                        f"{ROOT}/edits/{name}", self.scale * places, EDIT_COLORS[name], point_size=0.02,
                        point_shape="circle",
                    )  # fmt: skip
                    self._nodes["edits"].append(cloud)
        if self._changed("plots", (count, self.show_plots.value)) and count:
            self.curves.show(self.show_plots.value)
            if self.show_plots.value:
                self.curves.draw(self.replay)

    def _draw_errors(self, errors: dict[int, float]) -> None:
        if not errors or not self._changed("cameras", (len(self.replay.events), len(errors), self.color_cameras.value)):
            return
        worst = sorted(errors, key=lambda v: -errors[v])
        most = max(errors[worst[0]], 1e-9)
        self.view.options = tuple(f"{v} ({errors[v]:.3f})" for v in worst)
        lines = [f"| {v} | {errors[v]:.4f} | {'█' * max(1, round(12 * errors[v] / most))} |" for v in worst[:8]]
        self.error_text.content = "\n".join(["| view | error | |", "|---|---|---|", *lines])
        if not self.color_cameras.value:
            return
        for v, error in errors.items():
            width, height = (float(n) for n in self.views.sizes[v])
            position, wxyz = self._pose(v)
            frustum = self.server.scene.add_camera_frustum(
                f"{ROOT}/cameras/{v}", fov=2 * float(np.arctan(height / 2 / float(self.views.Ks[v, 1, 1]))),
                aspect=width / height, scale=0.012 * self.scale, color=heat(error / most), wxyz=wxyz,
                position=position,
            )  # fmt: skip
            frustum.on_click(partial(self._jump_of, v))
            self._nodes["cameras"].append(frustum)
