"""Hands out full training images: nerfstudio's manager with sizes that suit the device, and an exact resume."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.configs.dataparser_configs import AnnotatedDataParserUnion
from nerfstudio.data.datamanagers.full_images_datamanager import FullImageDatamanager, FullImageDatamanagerConfig
from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.utils.rich_utils import CONSOLE
from numpy.typing import NDArray
from torch import Tensor

from lpm import distributed
from lpm.checks import fail
from lpm.multiview.covisibility import FEWEST
from lpm.multiview.depth_prior import at_grid, laid_over, points_from_depth, read_depth
from lpm.multiview.points_from_photos import looked_at, points_from_photos
from lpm.multiview.views import Views, world_to_camera
from lpm.plugin.dataparser import LpmDataParserConfig
from lpm.scenes.images import load_image

# Longest side of a training image in pixels: what two cores train on in minutes; 3DGS's limit on a GPU.
LONGEST_SIDE = {"cpu": 480, "cuda": 1600}

POINTS = 100_000
"""At most so many are drawn from depths."""
FEW = 2_000
"""Points of a scene below which more are looked for; beside many good ones, more of those that photos show do harm."""
UNLIKELY = 20
"""Depths of so many times what the cameras look at, or so many times less, are in another unit."""


def usable(data: dict[str, Any]) -> Tensor | None:
    """[H, W] bool where a photo says something: not masked, not transparent. None: everywhere."""
    mask, image = data.get("mask"), data["image"]
    known = None if mask is None else mask.reshape(image.shape[:2]) != 0
    if image.shape[-1] == 4:
        solid = image[..., 3] > (0.5 if image.is_floating_point() else 127)
        known = solid if known is None else known & solid.to(known.device)
    return known


def fitting_scale(longest: int, device_type: str) -> float:
    """1, or 1/2, 1/3, ... such that the `longest` side (pixels) is at most what suits the device."""
    return 1.0 / max(1, math.ceil(longest / LONGEST_SIDE.get(device_type, LONGEST_SIDE["cuda"])))


class LpmDataset(InputDataset):
    """nerfstudio's dataset; an image that cannot be decoded is named."""

    def get_numpy_image(self, image_idx: int) -> NDArray[np.uint8]:
        """Image [H, W, 3 or 4] uint8, scaled to the size of its camera."""
        image = load_image(self._dataparser_outputs.image_filenames[image_idx])
        if self.scale_factor != 1.0:
            # The camera's own arithmetic (float32, rounded down), so that both agree to the pixel.
            height, width = (int(torch.floor(torch.tensor(n) * self.scale_factor)) for n in image.shape[:2])
            size = (width, height)
            image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        return image


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
        super().__init__(config, device=device, test_mode=test_mode, **kwargs)  # type: ignore[arg-type]
        if test_mode == "val":  # training: a broken image is found now, not after the run's folder is made
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
        images = super()._load_images(split, "gpu" if on_cpu else cache_images_device)
        files = self.train_dataparser_outputs.metadata.get("depth_filenames") if split == "train" else None
        for i, file in enumerate(files or []):
            images[i]["depth"] = self._depth(i, file, usable(images[i])).to(self.device)
        if files:
            self._check_depths([data["depth"] for data in images])
        return images

    def _check_depths(self, depths: list[Tensor]) -> None:
        """Depths in millimetres that are taken for metres put everything where the cameras are: said."""
        found = [(float(d[d > 0].median()), v) for v, d in enumerate(depths) if bool((d > 0).any())]
        if not found:
            fail("depth_file_path", "no depth above 0 in any photo", "depths", "remove it from all frames")
        distance = looked_at(world_to_camera(self.train_dataset.cameras.camera_to_worlds))
        ratio = float(np.median([depth / float(distance[v]) for depth, v in found]))
        if not 1 / UNLIKELY < ratio < UNLIKELY:
            CONSOLE.print(f"warning: the scene's depths are {ratio:.2g} times as far as what the cameras look at. Is "
                          "--pipeline.datamanager.dataparser.depth-unit-scale-factor right?")  # fmt: skip

    def _depth(self, i: int, file: Path, known: Tensor | None) -> Tensor:
        """The depth prior of training photo `i`, world; see lpm.multiview.depth_prior.laid_over."""
        parsed, camera = self.train_dataparser_outputs, self.train_dataset.cameras[i]
        unit = parsed.metadata["depth_unit_scale_factor"] * parsed.dataparser_scale
        c = parsed.cameras[i]
        intrinsics = np.array([float(value) for value in (c.fx, c.fy, c.cx, c.cy)])
        bent = np.zeros(6) if c.distortion_params is None else c.distortion_params.double().numpy()
        size = int(camera.width), int(camera.height)
        given = intrinsics, bent, (int(c.width), int(c.height))
        depth = read_depth(file)
        if abs(depth.shape[1] * given[2][1] / (depth.shape[0] * given[2][0]) - 1) > 0.02:
            wanted = f"the shape of its photo, {given[2][0]}x{given[2][1]}, at any resolution"
            fail(file, f"{depth.shape[1]}x{depth.shape[0]}", wanted, "turn it as its photo is")
        kept = laid_over(depth * np.float32(unit), given, camera.get_intrinsics_matrices(), size)
        return kept if known is None else torch.where(at_grid(known.cpu(), kept), kept, 0.0)

    def views(self, device: Any) -> Views:
        """The training photos with their cameras on `device`."""
        cached = self.cached_train  # first: undistortion changes the cameras
        cameras = self.train_dataset.cameras.to(device)
        known = [usable(data) for data in cached]
        masks = [torch.ones(data["image"].shape[:2], dtype=torch.bool) if k is None else k
                 for data, k in zip(cached, known, strict=True)]  # fmt: skip
        return Views(
            images=[data["image"] for data in cached],
            Ks=cameras.get_intrinsics_matrices(),
            viewmats=world_to_camera(cameras.camera_to_worlds),
            masks=None if all(k is None for k in known) else masks,
            capture_times=None if cameras.times is None else cameras.times.flatten(),
        )

    def _find_points(self) -> None:
        """Adds to few or no points those that the scene's depths tell, else those that its photos show, if they do."""
        metadata = self.train_dataparser_outputs.metadata
        given = len(metadata.get("points3D_xyz", ()))
        if given >= FEW:
            return
        few, more = (f"Only {given:,} points in the scene", " more") if given else ("No points in the scene", "")
        if metadata.get("depth_filenames"):
            depths = [data["depth"] for data in self.cached_train]
            xyz, rgb = points_from_depth(self.views(self.device), depths, POINTS)
            if len(xyz) >= FEWEST:
                CONSOLE.print(f"{few}: {len(xyz):,}{more} are drawn from its depths.")
                self._add(xyz, rgb)
                return
        with CONSOLE.status(f"{few}: comparing the photos to find{more or ' some'}..."):
            xyz, rgb = points_from_photos(self.views(self.device))
        if len(xyz) >= FEWEST:
            CONSOLE.print(f"{few}: {len(xyz):,}{more} were found by comparing the photos.")
            self._add(xyz, rgb)
        elif not given:
            CONSOLE.print("No points, and the photos show none that are sure: training starts from random ones.")

    def _add(self, xyz: Tensor, rgb: Tensor) -> None:
        """Puts points [N, 3] (world) and their colours [N, 3] (uint8) beside those that the scene has."""
        metadata = self.train_dataparser_outputs.metadata
        for name, new in (("points3D_xyz", xyz.cpu()), ("points3D_rgb", rgb.cpu())):
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
            cameras = self.train_cameras
            # One by one: the bits of a product of matrices are not those of many at once.
            viewmats = torch.cat([world_to_camera(c.float()[None]) for c in cameras.camera_to_worlds])
            self._matrices = cameras.get_intrinsics_matrices().to(self.device), viewmats.to(self.device)
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
