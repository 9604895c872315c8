"""A scene in memory, ready for training: photos, cameras on the device, points to start from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lpm import distributed
from lpm.checks import fail
from lpm.files import Progress, quiet
from lpm.gaussians.similarity import from_dataparser
from lpm.multiview.views import Views, world_to_camera
from lpm.train.cameras import Camera, Cameras
from lpm.train.load_photos import DepthReader, Photo, PhotoReader, check_depths, fitting_scale
from lpm.train.model import Start
from lpm.train.photo_store import AHEAD, Budget, PhotoColumn, PhotoStore, load, sample, told, views_of
from lpm.train.photos import PhotoOrder, find_points, pairs_of_a_moment, random_points_of_clip
from lpm.train.placed import PlacedScene


class RunData:
    """The photos of a run, those to train on in random order; see the module."""

    def __init__(
        self,
        scene: PlacedScene,
        source: Path,
        device: torch.device | str,
        scale: float | None = None,
        seed: int = 42,
        moving: bool = False,
        points_from_photos: bool = True,
        random_points: int = 20_000,
        say: Callable[[str], Any] = print,
        progress: Progress = quiet,
        budget: Budget | None = None,
    ) -> None:
        """Reads all photos, or, where they take more than `budget` (None: half of the free memory), what fits.

        Args:
            source: the scene's folder, for messages.
            scale: of the photos' sizes; None: what suits the device (lpm.train.load_photos.fitting_scale).
            seed: of the order of photos.
            moving: photos of one time come after one another.
            points_from_photos: look for points where the scene has few.
            random_points: how many a clip without points starts from.

        Raises:
            LpmError: a file cannot be used.
        """
        self.scene, self.device = scene, torch.device(device)
        if scale is None:
            scale = fitting_scale(int(scene.train.cameras.sizes.max()), self.device.type)
        self.scale = scale
        self._reader = PhotoReader(scene.train, scale, scene.alpha_color)
        held_out = PhotoReader(scene.test, scale, scene.alpha_color)
        self.train_cameras, self.test_cameras = self._reader.cameras, held_out.cameras
        if scene.train.depths is not None:
            self._reader.depths = DepthReader(scene.train, self.train_cameras, scene.depth_unit)
        budget = budget or Budget.of(self.device)
        share = self._reader.bytes / max(1, self._reader.bytes + held_out.bytes)
        self.train = load(self._reader, self.device, budget, share, progress)
        self.test = load(held_out, self.device, budget, 1 - share, progress)
        for note in (told(self.train, self._reader), told(self.test, held_out)):
            if note is not None:
                say(note)
        self._on_device = {id(cameras): self._sent(cameras) for cameras in (self.train_cameras, self.test_cameras)}
        arrange: Callable[[list[int]], list[int]] = lambda order: order  # noqa: E731
        if moving:
            times = self.train_cameras.capture_times
            if times is None:
                fail(source, "a scene without times", "a time (0..1) for every frame", "train with lpm-splat")
            moments, c2w = times.tolist(), self.train_cameras.c2w
            arrange = lambda order: pairs_of_a_moment(order, moments, c2w)  # noqa: E731
        self.order = PhotoOrder(len(self.train), seed, arrange)
        self.xyz, self.rgb = scene.xyz, scene.rgb
        depths = None
        if scene.train.depths is not None:
            check_depths(sample(self.train), self.train_cameras, say, "--data.depth-unit-scale-factor")
            depths = PhotoColumn(self.train, self.train_cameras.sizes, lambda photo: photo["depth"])
        if points_from_photos or (moving and depths is not None and self.xyz is None):
            self._add(find_points(self.views(), depths, 0 if self.xyz is None else len(self.xyz), say))
        if moving and self.xyz is None:
            self._add(random_points_of_clip(self.train, self.train_cameras, random_points))
            say(f"No points: training starts from {0 if self.xyz is None else len(self.xyz):,} random ones in front of "
                "the cameras.")  # fmt: skip

    def _sent(self, cameras: Cameras) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Ks, viewmats, c2w and times of `cameras` on the device: a step cuts out its own."""
        times = None if cameras.capture_times is None else cameras.capture_times.to(self.device)
        return cameras.Ks().to(self.device), cameras.each_viewmat().to(self.device), cameras.c2w.to(self.device), times

    def _add(self, found: tuple[Tensor, Tensor] | None) -> None:
        if found is None:
            return
        xyz, rgb = found
        self.xyz = xyz if self.xyz is None else torch.cat([self.xyz, xyz])
        self.rgb = rgb if self.rgb is None else torch.cat([self.rgb, rgb])

    def views(self) -> Views:
        """The training photos with their cameras."""
        cameras = self.train_cameras
        times = None if cameras.capture_times is None else cameras.capture_times.to(self.device)
        viewmats = world_to_camera(cameras.c2w.to(self.device))
        return views_of(self.train, cameras.Ks().to(self.device), viewmats, times, self._reader)

    def start(self) -> Start:
        """What a model begins with."""
        scene = self.scene
        points = None if self.xyz is None or self.rgb is None else (self.xyz, self.rgb)
        to_train = from_dataparser(scene.transform, scene.scale)
        return Start(len(self.train), points, scene.extent, to_train, scene.train.depths is not None)

    def camera(self, cameras: Cameras, i: int, index: int | None) -> Camera:
        """Camera `i` of `cameras`; nothing is sent to the device."""
        Ks, viewmats, c2w, times = self._on_device[id(cameras)]
        width, height = cameras.sizes[i].tolist()
        time = None if times is None else times[i]
        return Camera(Ks[i : i + 1], viewmats[i : i + 1], height, width, c2w[i : i + 1], time, index)

    def next(self) -> tuple[Camera, Photo]:
        """The camera and the photo of the next step."""
        indices = [self.order.next() for _ in range(distributed.size())]  # all processes draw alike
        index = indices[distributed.rank()]
        if isinstance(self.train, PhotoStore):
            ahead = self.order.coming(AHEAD * distributed.size())
            self.train.ahead([index, *ahead[distributed.rank() :: distributed.size()]])
        return self.camera(self.train_cameras, index, index), dict(self.train[index])

    def held_out(
        self, most: int | None = None, chosen: Sequence[int] | None = None
    ) -> Iterator[tuple[str, Camera, Photo]]:
        """Name, camera and photo of the held-out views: those of the indices `chosen`, else all, or `most`, evenly
        spread."""
        count = len(self.test)
        if chosen is None:
            chosen = range(count) if most is None or most >= count else [i * count // most for i in range(most)]
        for place, i in enumerate(chosen):
            if isinstance(self.test, PhotoStore):
                self.test.ahead(chosen[place : place + AHEAD])
            yield self.scene.test.names[i], self.camera(self.test_cameras, i, None), dict(self.test[i])
