"""Hands out full training images: nerfstudio's manager with sizes that suit the device, and an exact resume."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.configs.dataparser_configs import AnnotatedDataParserUnion
from nerfstudio.data.datamanagers.full_images_datamanager import FullImageDatamanager, FullImageDatamanagerConfig
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.utils.rich_utils import CONSOLE
from numpy.typing import NDArray
from torch import Tensor

from lpm import distributed
from lpm.files import bar
from lpm.multiview.views import Views, world_to_camera
from lpm.plugin.dataparser import LpmDataParser, LpmDataParserConfig
from lpm.train.cameras import Cameras as OurCameras
from lpm.train.load_photos import add_depths, fitting_scale, load_photos, read_photo, read_view
from lpm.train.photos import find_points, views_of
from lpm.train.placed import Split


def our_cameras(cameras: Cameras) -> OurCameras:
    """nerfstudio's perspective cameras as ours, on the CPU."""
    cameras = cameras.to("cpu")
    intrinsics = torch.cat([cameras.fx, cameras.fy, cameras.cx, cameras.cy], -1)
    times = None if cameras.times is None else cameras.times.flatten()
    sizes = torch.cat([cameras.width, cameras.height], -1)
    return OurCameras(cameras.camera_to_worlds.float(), intrinsics, sizes, cameras.distortion_params, times)


class LpmDataset(InputDataset):
    """nerfstudio's dataset; an image that cannot be decoded is named."""

    def get_numpy_image(self, image_idx: int) -> NDArray[np.uint8]:
        """Image [H, W, 3 or 4] uint8, scaled to the size of its camera."""
        return read_photo(self._dataparser_outputs.image_filenames[image_idx], self.scale_factor).numpy()

    def get_data(self, image_idx: int, image_type: Literal["uint8", "float32"] = "float32") -> dict[str, Any]:
        """nerfstudio's; as lpm.train reads it, of a photo with a mask (its own have one channel) or by another lens."""
        cuts = self._dataparser_outputs.metadata.get("cuts")
        if self._dataparser_outputs.mask_filenames is None and (cuts is None or cuts[image_idx] is None):
            return super().get_data(image_idx, image_type)
        size = int(self.cameras.width[image_idx]), int(self.cameras.height[image_idx])
        color = self._dataparser_outputs.alpha_color
        alpha_color = None if color is None else tuple(color.tolist())
        photo: dict[str, Any] = dict(read_view(self.split(), image_idx, self.scale_factor, size, alpha_color))
        if image_type == "float32":
            photo["image"] = photo["image"].float() / 255
        return {"image_idx": image_idx, **photo}

    def split(self) -> Split:
        """The photos and their cameras as the files have them."""
        parsed: DataparserOutputs = self._dataparser_outputs
        return Split(
            [path.name for path in parsed.image_filenames],
            parsed.image_filenames,
            our_cameras(parsed.cameras),
            parsed.mask_filenames,
            parsed.metadata.get("depth_filenames"),
            cuts=parsed.metadata.get("cuts"),
        )


@dataclass
class LpmDatamanagerConfig(FullImageDatamanagerConfig):
    """nerfstudio's options, with automatic image size."""

    _target: type = field(default_factory=lambda: LpmDatamanager)
    dataparser: AnnotatedDataParserUnion = field(default_factory=LpmDataParserConfig)
    camera_res_scale_factor: float | None = None  # type: ignore[assignment]
    """Scale of the images. None: 1/2, 1/3, ... so that the longest side is <= 480 pixels on a CPU, 1600 on a GPU."""
    cache_images_type: Literal["uint8", "float32"] = "uint8"
    """How images are kept in memory."""
    points_from_photos: bool = True
    """Where the scene has few points (below 2,000) or none: draw some from its depths, or find some by comparing the
    photos (seconds). False: start from those there are, or else the model's random ones."""


class LpmDatamanager(FullImageDatamanager[LpmDataset]):
    """Images and cameras for training and evaluation."""

    config: LpmDatamanagerConfig

    def __init__(
        self, config: LpmDatamanagerConfig, device: Any = "cpu", test_mode: str = "val", **kwargs: Any
    ) -> None:
        self._cameras: dict[int, Cameras] = {}
        self._matrices: tuple[Tensor, Tensor] | None = None
        if isinstance(config.dataparser, LpmDataParserConfig):
            config.dataparser.takes_cuts = True  # type: ignore[misc]
        super().__init__(config, device=device, test_mode=test_mode, **kwargs)  # type: ignore[arg-type]
        if test_mode == "val":  # training: a broken image is found now, not after the run's folder is made
            if isinstance(self.dataparser, LpmDataParser) and not self.dataparser.config.unchecked:
                from lpm.plausibility.check import stop_if_serious  # its imports take time that a help text has not

                option = "--pipeline.datamanager.dataparser.unchecked True"
                stop_if_serious(self.dataparser.scene(), CONSOLE.print, option)
            _ = self.cached_train, self.cached_eval
            if self.config.points_from_photos:
                self._find_points()

    @property
    def dataset_type(self) -> type[LpmDataset]:
        """The dataset class; nerfstudio would look for it among the type arguments."""
        return LpmDataset

    def create_train_dataset(self) -> LpmDataset:
        """Decides on the image size, then makes the dataset."""
        if self.config.camera_res_scale_factor is None:
            cameras = self.train_dataparser_outputs.cameras
            longest = int(max(cameras.width.max(), cameras.height.max()))
            self.config.camera_res_scale_factor = fitting_scale(longest, str(self.device).split(":")[0])
        return super().create_train_dataset()

    def _load_images(
        self, split: Literal["train", "eval"], cache_images_device: Literal["cpu", "gpu"]
    ) -> list[dict[str, Any]]:
        # nerfstudio's "cpu" pins memory, which needs CUDA; its "gpu" means "the device", which is the CPU here.
        on_cpu = str(self.device) == "cpu"
        dataset: LpmDataset = self.train_dataset if split == "train" else self.eval_dataset
        if self.config.cache_images_type == "float32" or bool(
            (dataset.cameras.camera_type != CameraType.PERSPECTIVE.value).any()
        ):
            images = super()._load_images(split, "gpu" if on_cpu else cache_images_device)
        else:
            images = self._load(split, dataset, on_cpu or cache_images_device == "gpu")
        if split == "train" and dataset.split().depths:
            parsed = self.train_dataparser_outputs
            unit = parsed.metadata["depth_unit_scale_factor"] * parsed.dataparser_scale
            option = "--pipeline.datamanager.dataparser.depth-unit-scale-factor"
            add_depths(images, dataset.split(), our_cameras(dataset.cameras), unit, CONSOLE.print, option)
            for data in images:
                data["depth"] = data["depth"].to(self.device)
        return images

    def _load(self, split: str, dataset: LpmDataset, to_device: bool) -> list[dict[str, Any]]:
        """What nerfstudio's loading does with perspective cameras, by our own."""
        parsed = dataset.split()
        assert self.config.camera_res_scale_factor is not None

        def read(i: int) -> dict[str, Tensor]:
            data = dataset.get_data(i, image_type="uint8")
            return {name: value for name, value in data.items() if isinstance(value, Tensor)}

        photos, cameras = load_photos(parsed, self.config.camera_res_scale_factor, None, bar, read)
        dataset.cameras.fx, dataset.cameras.fy, dataset.cameras.cx, dataset.cameras.cy = (
            column[:, None].clone() for column in cameras.intrinsics.unbind(-1)
        )
        dataset.cameras.width, dataset.cameras.height = (side[:, None].clone() for side in cameras.sizes.unbind(-1))
        for photo in photos:
            photo.update({name: v.to(self.device) if to_device else v.pin_memory() for name, v in photo.items()})
        if split == "train":
            self.train_cameras = dataset.cameras.to(self.device) if to_device else dataset.cameras
        return [photo | {"image_idx": i} for i, photo in enumerate(photos)]

    def views(self, device: Any) -> Views:
        """The training photos with their cameras on `device`."""
        cached = self.cached_train  # first: undistortion changes the cameras
        cameras = self.train_dataset.cameras.to(device)
        times = None if cameras.times is None else cameras.times.flatten()
        return views_of(cached, cameras.get_intrinsics_matrices(), world_to_camera(cameras.camera_to_worlds), times)

    def _find_points(self) -> None:
        """Adds to few or no points those that the scene's depths tell, else those that its photos show, if they do."""
        metadata = self.train_dataparser_outputs.metadata
        depths = [data["depth"] for data in self.cached_train] if metadata.get("depth_filenames") else None
        found = find_points(self.views(self.device), depths, len(metadata.get("points3D_xyz", ())), CONSOLE.print)
        for name, new in zip(("points3D_xyz", "points3D_rgb"), found or (), strict=False):
            metadata[name] = torch.cat([metadata[name], new]) if name in metadata else new

    def next_train(self, step: int) -> tuple[Cameras, dict[str, Any]]:
        """The next view; its number, size (height, width), Ks and viewmats are in the camera's metadata."""
        # Not nerfstudio's own, which cuts the camera out of all cameras at every step: .4 ms.
        indices = [self._next_index() for _ in range(distributed.size())]  # all processes draw alike
        index = indices[distributed.rank()]
        data = self.cached_train[index].copy()
        data["image"] = data["image"].to(self.device, non_blocking=True)
        if index not in self._cameras:
            self._cameras[index] = self.train_cameras[index : index + 1].to(self.device)
        camera = copy.copy(self._cameras[index])
        Ks, viewmats = (matrices[index : index + 1] for matrices in self._camera_matrices())
        told = {"cam_idx": index, "size": tuple(data["image"].shape[:2]), "Ks": Ks, "viewmats": viewmats}
        camera.metadata = {**(camera.metadata or {}), **told}
        return camera, data

    def _camera_matrices(self) -> tuple[Tensor, Tensor]:
        """Ks [V, 3, 3] and viewmats [V, 4, 4] of the training photos, on the device: a step cuts out its own."""
        if self._matrices is None:
            cameras = our_cameras(self.train_cameras)
            self._matrices = cameras.Ks().to(self.device), cameras.each_viewmat().to(self.device)
        return self._matrices

    def _next_index(self) -> int:
        index: int = self.train_unseen_cameras.pop(0)
        if not self.train_unseen_cameras:
            self.train_unseen_cameras = self.sample_train_cameras()  # type: ignore[no-untyped-call]
        return index

    def get_datapath(self) -> Path:
        """The scene's folder."""
        return Path(self.config.dataparser.data)

    def sampling_state(self) -> dict[str, Any]:
        """Which views come next; resume puts it back."""
        return {
            "train_unseen_cameras": [int(i) for i in self.train_unseen_cameras],
            "eval_unseen_cameras": [int(i) for i in self.eval_unseen_cameras],
            "epochs": getattr(self, "train_unsampled_epoch_count", None),
            "random_generator": self.random_generator.getstate() if hasattr(self, "random_generator") else None,
        }

    def set_sampling_state(self, state: dict[str, Any]) -> None:
        """Puts back what sampling_state() gave."""
        views = len(self.train_dataset), len(self.eval_dataset)
        asked = max(state["train_unseen_cameras"], default=0), max(state["eval_unseen_cameras"], default=0)
        if asked[0] >= views[0] or asked[1] >= views[1]:
            CONSOLE.print("The checkpoint was made with other images: the order of views starts anew.")
            return
        if state["epochs"] is not None:
            self.train_unsampled_epoch_count = state["epochs"].numpy()
        self.train_unseen_cameras = list(state["train_unseen_cameras"])
        self.eval_unseen_cameras = list(state["eval_unseen_cameras"])
        if state["random_generator"] is not None:
            self.random_generator.setstate(state["random_generator"])
