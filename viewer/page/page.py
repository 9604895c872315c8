"""One page of lpm-view: its controls, its thread that draws, its camera."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lpm.checks import LpmError
from lpm.viewer import compat
from lpm.viewer.page import camera_path
from lpm.viewer.page.camera import Camera, size_of
from lpm.viewer.page.render_thread import RenderRequest, RenderThread
from lpm.viewer.page.video import ending, write_video

if TYPE_CHECKING:
    from lpm.viewer.page.server import View

PLAYED = 24  # pictures a second that a path or a moving scene is played with
STOPPED = "stopped"
BACKGROUNDS = {"white": 1.0, "gray": 0.5, "black": 0.0}


class Page:
    """What belongs to one client; made when it comes, ended when it goes."""

    def __init__(self, client: Any, view: View) -> None:
        self.client, self.view = client, view
        self.lock = threading.Lock()
        self.done = threading.Event()
        self.playing = threading.Event()
        self.filming = threading.Event()
        self.frustums: list[Any] = []
        self.photo = -1  # the last one gone to
        self.said = ""
        self.render_thread = RenderThread(view.shown.draw, self._show, self._failed)
        self._controls()
        self.render_thread.start()
        self.go(*view.start_camera(client.camera.aspect))
        client.camera.on_update(lambda _: self.look())

    # What is seen

    def camera(self) -> Camera:
        """Where the page looks from now."""
        camera = self.client.camera
        return Camera(
            tuple(camera.position.tolist()), tuple(camera.wxyz.tolist()), float(camera.fov), float(camera.aspect)
        )

    def request(self, camera: Camera | None = None) -> RenderRequest:
        """What the page shall show now, or from `camera`."""
        moment = float(self.time.value) if self.time is not None else 0.0
        return RenderRequest(
            camera or self.camera(), int(self.longer.value), moment, self.antialiased.value,
            BACKGROUNDS[self.background.value], self.output.value if self.output is not None else "rgb",
        )  # fmt: skip

    def look(self) -> None:
        """Draws what the page looks at, unless it is gone."""
        if not self.done.is_set():
            request = self.request()
            self.render_thread.ask(request)
            self._clear_the_way(request.camera)

    def go(self, camera: Camera, distance: float) -> None:
        """Moves the camera there; it then turns around what is `distance` ahead."""
        if self.done.is_set() or not camera.usable():
            return
        compat.move_camera(
            self.client, camera.position, camera.wxyz, self.view.up.double().numpy(), distance, camera.fov
        )
        # Not from camera(), which follows when the page has answered.
        self.render_thread.ask(self.request(replace(camera, aspect=float(self.client.camera.aspect))))
        self._clear_the_way(camera)

    def _show(self, picture: NDArray[np.uint8], moving: bool) -> None:
        if not self.done.is_set():
            compat.show_image(self.client, picture, 60 if moving else 92)

    def _failed(self, error: Exception) -> None:
        text = " ".join(f"{error}".split()) or type(error).__name__
        if text != self.said and not self.done.is_set():  # once, not ten times a second
            self.said = text
            compat.notify(self.client, "This view cannot be drawn", text[:300])

    def end(self) -> None:
        """Stops what goes on for this page; returns at once."""
        self.done.set()
        self.playing.clear()
        self.filming.clear()
        self.render_thread.end()

    # Controls

    def _controls(self) -> None:
        gui, view = self.client.gui, self.view
        gui.add_markdown(view.about)
        gui.add_button("Frame the scene").on_click(lambda _: self.go(*view.frame_camera(self.client.camera.aspect)))
        self.time = None
        if view.shown.steps != 1:
            step = 0.001 if view.shown.steps == 0 else 1 / (view.shown.steps - 1)
            self.time = gui.add_slider("Time", 0.0, 1.0, step, 0.0)
            self.time.on_update(lambda _: self.look())
            self._switch("Play time", "Stop time", self.playing, self._run_time)
        with gui.add_folder("Picture"):
            self.longer = gui.add_slider(
                "Longer side", 160, max(1920, view.longer), 16, view.longer, hint="Pixels of a picture at rest"
            )
            self.background = gui.add_dropdown("Background", tuple(BACKGROUNDS), initial_value="white")
            self.antialiased = gui.add_checkbox(
                "Antialiased", view.antialiased, hint="Draw as models are that were trained antialiased"
            )
            self.output = None
            if len(view.shown.outputs) > 1:
                self.output = gui.add_dropdown("Show", view.shown.outputs, initial_value="rgb")
                self.output.on_update(lambda _: self.look())
            for handle in (self.longer, self.background, self.antialiased):
                handle.on_update(lambda _: self.look())
            gui.add_button("Screenshot").on_click(lambda _: self._screenshot())
        if view.photos:
            self._photos()
        with gui.add_folder("Camera path"):
            self.count = gui.add_markdown("")
            gui.add_button("Add keyframe").on_click(lambda _: self._add())
            self._switch("Play path", "Stop path", self.playing, self._run_path)
            self.seconds = gui.add_slider("Seconds between", 0.2, 10.0, 0.1, 2.0)
            gui.add_button("Clear path").on_click(lambda _: view.set_path([]))
            gui.add_button("Save path").on_click(lambda _: self._save())
            load = gui.add_upload_button("Load path", mime_type="application/json")
            load.on_upload(lambda _: self._load(load.value))
            self._switch("Video", "Stop video", self.filming, self._video)
            self.progress = gui.add_progress_bar(0.0, visible=False)
        self.path_changed()

    def path_changed(self) -> None:
        """Says how many keyframes there are."""
        n = len(self.view.path)
        self.count.content = f"{n} keyframe{'' if n == 1 else 's'}"

    def _add(self) -> None:
        self.view.set_path([*self.view.path, self.camera()])

    def _switch(self, start: str, stop: str, going: threading.Event, work: Any) -> None:
        """Two buttons in one place: one does `work` in a thread while `going` is set, the other clears it.

        Two, since buttons of viser 0.2.7 keep the label that they were made with.
        """
        on = self.client.gui.add_button(start)
        off = self.client.gui.add_button(stop, visible=False)

        def run() -> None:
            on.visible, off.visible = False, True
            try:
                work()
            finally:
                going.clear()
                on.visible, off.visible = True, False

        def begin() -> None:
            with self.lock:
                if going.is_set():
                    return
                going.set()
            threading.Thread(target=run, name=f"lpm-view {start}", daemon=True).start()

        on.on_click(lambda _: begin())
        off.on_click(lambda _: going.clear())

    def _steps(self, seconds: float) -> Any:
        """Passes through 0..1 within `seconds`, a step whenever a picture is due, until somebody stops it."""
        start = time.monotonic()
        while self.playing.is_set() and not self.done.wait(1 / PLAYED):
            now = (time.monotonic() - start) / seconds
            yield min(1.0, now)
            if now >= 1:
                return

    def _run_path(self) -> None:
        path = self.view.path
        if len(path) < 2:
            compat.notify(self.client, "Nothing to play", "Add two keyframes: move the camera, then Add keyframe.")
            return
        for now in self._steps(float(self.seconds.value) * (len(path) - 1)):
            camera = camera_path.sample(path, np.array([now * (len(path) - 1)]))[0]
            self.go(camera, self.view.distance(camera))

    def _run_time(self) -> None:
        assert self.time is not None
        for now in self._steps(5.0):
            self.time.value = now
            self.look()

    def _save(self) -> None:
        if not self.view.path:
            compat.notify(self.client, "Nothing to save", "Add keyframes first.")
            return
        size = size_of(self.client.camera.aspect, int(self.longer.value))
        content = camera_path.to_json(self.view.path, float(self.seconds.value), size)
        compat.send_file(self.client, f"{self.view.stem}_path.json", content)

    def _load(self, file: Any) -> None:
        try:
            path, seconds = camera_path.from_json(file.content, file.name)
        except LpmError as error:
            compat.notify(self.client, "Not loaded", str(error))
            return
        self.seconds.value = min(10.0, max(0.2, seconds))
        self.view.set_path(path)

    def _screenshot(self) -> None:
        request = self.request()
        width, height = size_of(request.camera.aspect, request.longer)
        picture = self.view.shown.draw(request, width, height)
        assert picture is not None
        good, data = cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))
        if good:
            compat.send_file(self.client, f"{self.view.stem}.png", data.tobytes())

    def _video(self) -> None:
        path = self.view.path or [self.camera()]
        if len(path) < 2 and self.time is None:
            compat.notify(self.client, "Nothing to film", "Add two keyframes: move the camera, then Add keyframe.")
            return
        # A scene that moves is filmed for five seconds where the camera stands still.
        between = float(self.seconds.value)
        cameras = camera_path.frames(path, between) if len(path) > 1 else path * (5 * camera_path.FPS)
        request = self.request()
        width, height = (side - side % 2 for side in size_of(request.camera.aspect, request.longer))
        out = self.view.free_name(ending())

        def pictures() -> Any:
            for i, camera in enumerate(cameras):
                if not self.filming.is_set():
                    raise LpmError(STOPPED)
                moment = i / max(1, len(cameras) - 1) if self.time is not None else 0.0
                now = replace(request, camera=replace(camera, aspect=request.camera.aspect), time=moment)
                yield self.view.shown.draw(now, width, height)
                self.progress.value = 100.0 * (i + 1) / len(cameras)

        self.progress.visible = True
        try:
            write_video(out, pictures(), (width, height), camera_path.FPS)
            compat.notify(self.client, "Video", f"Written to {out.resolve()}, and on its way to your browser.")
            compat.send_file(self.client, out.name, out.read_bytes())
        except (LpmError, OSError) as error:
            if str(error) != STOPPED:
                compat.notify(self.client, "No video", str(error)[:300])
        finally:
            self.progress.visible = False

    # Photos

    def _photos(self) -> None:
        gui, view = self.client.gui, self.view
        with gui.add_folder("Photos"):
            self.named = gui.add_markdown(view.photo_note or f"{len(view.photos)} photos; click one to go there.")
            self.photos_on = gui.add_checkbox("Show photos", True)
            self.photos_on.on_update(lambda _: self._clear_the_way(self.camera()))
            gui.add_button("Next photo").on_click(lambda _: self.jump(self.photo + 1))
            gui.add_button("Previous photo").on_click(lambda _: self.jump(self.photo - 1))
        for i, photo in enumerate(view.photos):
            handle = self.client.scene.add_camera_frustum(
                f"/photos/{i:04d}", fov=photo.camera.fov, aspect=photo.camera.aspect, scale=view.frustum,
                color=(30, 120, 220), image=photo.thumbnail, format="jpeg", jpeg_quality=75,
                wxyz=photo.camera.wxyz, position=photo.camera.position,
            )  # fmt: skip
            handle.on_click(lambda _, i=i: self.jump(i))
            self.frustums.append(handle)

    def _clear_the_way(self, camera: Camera) -> None:
        """Hides photos that stand right before the camera; one that the camera has gone to would fill the page."""
        if not self.frustums:
            return
        apart = np.linalg.norm(self.view.places - np.array(camera.position), axis=1)
        for handle, far in zip(self.frustums, (apart > 5 * self.view.frustum).tolist(), strict=True):
            visible = far and bool(self.photos_on.value)
            if handle.visible != visible:
                handle.visible = visible

    def jump(self, index: int) -> None:
        """Goes to where a photo was taken."""
        self.photo = index % len(self.view.photos)
        photo = self.view.photos[self.photo]
        self.named.content = f"{photo.name} ({self.photo + 1} of {len(self.view.photos)})"
        self.go(photo.camera, self.view.distance(photo.camera))
