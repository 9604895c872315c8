"""Hands out full training images: nerfstudio's manager with sizes that suit the device, and an exact resume."""

from __future__ import annotations

import copy
from collections.abc import Sequence
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
from lpm.train.load_photos import (
    DepthReader,
    PhotoReader,
    add_depths,
    check_depths,
    fitting_scale,
    read_photo,
    read_view,
)
from lpm.train.photo_store import AHEAD, Budget, PhotoColumn, PhotoStore, load, sample, told, views_of
from lpm.train.photos import find_points
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


class Numbered(Sequence[dict[str, Any]]):
    """The photos of a store as nerfstudio has them, each with its number."""

    def __init__(self, photos: PhotoStore) -> None:
        self.photos = photos

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        return self.photos[i] | {"image_idx": i}


class HeldOut(Sequence[tuple[Cameras, dict[str, Any]]]):
    """Cameras with their photos, which are decoded as they are asked for."""

    def __init__(self, photos: Numbered, cameras: Cameras, device: Any) -> None:
        self._photos, self._cameras, self._device = photos, cameras, device

    def __len__(self) -> int:
        return len(self._photos)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        self._photos.photos.ahead(range(i, min(i + AHEAD, len(self))))
        data = self._photos[i]
        data["image"] = data["image"].to(self._device)
        return self._cameras[i : i + 1], data


@dataclass
class LpmDatamanagerConfig(FullImageDatamanagerConfig):
    """nerfstudio's options, with automatic image size."""

    _target: type = field(default_factory=lambda: LpmDatamanager)
    dataparser: AnnotatedDataParserUnion = field(default_factory=LpmDataParserConfig)
    camera_res_scale_factor: float | None = None  # type: ignore[assignment]
    """Scale of the images. None: 1/2, 1/3, ... so that the longest side is <= 480 pixels on a CPU, 1600 on a GPU."""
    cache_images_type: Literal["uint8", "float32"] = "uint8"
    """How images are kept in memory."""
    cache_gb: float | None = None
    """Memory that decoded photos may take, in GiB; those for which there is no room are decoded ahead of their step.
    None: half of what is free. The result does not depend on it."""
    device_cache_gb: float | None = None
    """The same of a GPU's memory, apart from the other."""
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
        self._told: Budget | None = None
        self._reader: PhotoReader | None = None
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

    def _load_images(  # type: ignore[override]
        self, split: Literal["train", "eval"], cache_images_device: Literal["cpu", "gpu"]
    ) -> Sequence[dict[str, Any]]:
        # nerfstudio's "cpu" pins memory, which needs CUDA; its "gpu" means "the device", which is the CPU here.
        on_cpu = str(self.device) == "cpu"
        dataset: LpmDataset = self.train_dataset if split == "train" else self.eval_dataset
        option = "--pipeline.datamanager.dataparser.depth-unit-scale-factor"
        perspective = bool((dataset.cameras.camera_type == CameraType.PERSPECTIVE.value).all())
        if self.config.cache_images_type != "float32" and perspective:
            return self._load(split, dataset, on_cpu or cache_images_device == "gpu", option)
        images: list[dict[str, Any]] = super()._load_images(split, "gpu" if on_cpu else cache_images_device)
        if split == "train" and dataset.split().depths:
            add_depths(images, dataset.split(), our_cameras(dataset.cameras), self._unit(), CONSOLE.print, option)
            for data in images:
                data["depth"] = data["depth"].to(self.device)
        return images

    def _unit(self) -> float:
        """What one unit of the depth files is in the frame of training."""
        parsed = self.train_dataparser_outputs
        unit: float = parsed.metadata["depth_unit_scale_factor"] * parsed.dataparser_scale
        return unit

    def _load(self, split: str, dataset: LpmDataset, to_device: bool, option: str) -> Sequence[dict[str, Any]]:
        """What nerfstudio's loading does with perspective cameras, by our own, within the budget."""
        parsed = dataset.split()
        assert self.config.camera_res_scale_factor is not None

        def read(i: int) -> dict[str, Tensor]:
            data = dataset.get_data(i, image_type="uint8")
            return {name: value for name, value in data.items() if isinstance(value, Tensor)}

        reader = PhotoReader(parsed, self.config.camera_res_scale_factor, None, read)
        cameras = reader.cameras
        if split == "train" and parsed.depths:
            reader.depths = DepthReader(parsed, cameras, self._unit())
        device = torch.device(self.device) if to_device else torch.device("cpu")
        budget = self._budget(device)
        share = len(dataset) / (len(self.train_dataset) + len(self.eval_dataset))
        photos = load(reader, device, budget, share, bar)
        if note := told(photos, reader):
            CONSOLE.print(note)
        dataset.cameras.fx, dataset.cameras.fy, dataset.cameras.cx, dataset.cameras.cy = (
            column[:, None].clone() for column in cameras.intrinsics.unbind(-1)
        )
        dataset.cameras.width, dataset.cameras.height = (side[:, None].clone() for side in cameras.sizes.unbind(-1))
        if split == "train":
            self.train_cameras = dataset.cameras.to(self.device) if to_device else dataset.cameras
            self._reader = reader
            if reader.depths is not None:
                check_depths(sample(photos), cameras, CONSOLE.print, option)
        if not isinstance(photos, list):
            return Numbered(photos)
        if not to_device:
            for photo in photos:
                photo.update({name: value.pin_memory() for name, value in photo.items()})
        return [photo | {"image_idx": i} for i, photo in enumerate(photos)]

    def _budget(self, device: torch.device) -> Budget:
        """Told once: the second split does not get half of what the first one left."""
        if self._told is None:
            self._told = Budget.of(device, self.config.cache_gb, self.config.device_cache_gb)
        return self._told

    def views(self, device: Any) -> Views:
        """The training photos with their cameras on `device`."""
        cached = self.cached_train  # first: undistortion changes the cameras
        photos = cached.photos if isinstance(cached, Numbered) else cached
        cameras = self.train_dataset.cameras.to(device)
        times = None if cameras.times is None else cameras.times.flatten()
        viewmats = world_to_camera(cameras.camera_to_worlds)
        return views_of(photos, cameras.get_intrinsics_matrices(), viewmats, times, self._reader)

    def _find_points(self) -> None:
        """Adds to few or no points those that the scene's depths tell, else those that its photos show, if they do."""
        metadata, depths = self.train_dataparser_outputs.metadata, None
        if metadata.get("depth_filenames"):
            sizes = our_cameras(self.train_dataset.cameras).sizes
            depths = PhotoColumn(self.cached_train, sizes, lambda photo: photo["depth"])
        found = find_points(self.views(self.device), depths, len(metadata.get("points3D_xyz", ())), CONSOLE.print)
        for name, new in zip(("points3D_xyz", "points3D_rgb"), found or (), strict=False):
            metadata[name] = torch.cat([metadata[name], new]) if name in metadata else new

    @property
    def fixed_indices_eval_dataloader(self) -> Any:  # as nerfstudio's: a sequence of pairs
        """Cameras and photos held out; decoded one by one where they are not kept."""
        if not isinstance(self.cached_eval, Numbered):
            return super().fixed_indices_eval_dataloader
        return HeldOut(self.cached_eval, self.eval_dataset.cameras.to(self.device), self.device)

    def next_train(self, step: int) -> tuple[Cameras, dict[str, Any]]:
        """The next view; its number, size (height, width), Ks and viewmats are in the camera's metadata."""
        # Not nerfstudio's own, which cuts the camera out of all cameras at every step: .4 ms.
        indices = [self._next_index() for _ in range(distributed.size())]  # all processes draw alike
        index = indices[distributed.rank()]
        if isinstance(self.cached_train, Numbered):
            ahead = self.train_unseen_cameras[: AHEAD * distributed.size()][distributed.rank() :: distributed.size()]
            self.cached_train.photos.ahead([index, *ahead])
        data = self.cached_train[index].copy()
        data["image"] = data["image"].to(self.device, non_blocking=True)
        if "depth" in data:
            data["depth"] = data["depth"].to(self.device)
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
