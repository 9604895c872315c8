"""Photos read into memory: at the size that training takes, without lens distortion, with masks and depths."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lpm.checks import fail
from lpm.files import Progress, quiet
from lpm.multiview.depth_prior import STRIDE, at_grid, laid_over, read_depth
from lpm.multiview.points_from_photos import looked_at
from lpm.multiview.views import world_to_camera
from lpm.scenes.images import has_alpha, load_image
from lpm.scenes.masks import load_mask
from lpm.train.cameras import Cameras, intrinsics_matrices
from lpm.train.placed import Split

Photo = dict[str, Tensor]
"""image [H, W, 3 or 4] uint8; mask [H, W, 1] bool and depth [h, w] (lpm.multiview.depth_prior) where there are any."""

# Longest side of a training photo in pixels: what two cores train on in minutes; 3DGS's limit on a GPU.
LONGEST_SIDE = {"cpu": 480, "cuda": 1600}
UNLIKELY = 20
"""Depths of so many times what the cameras look at, or so many times less, are in another unit."""


def fitting_scale(longest: int, device_type: str) -> float:
    """1, or 1/2, 1/3, ... such that the `longest` side (pixels) is at most what suits the device."""
    return 1.0 / max(1, math.ceil(longest / LONGEST_SIDE.get(device_type, LONGEST_SIDE["cuda"])))


def usable(photo: Photo) -> Tensor | None:
    """[H, W] bool where a photo says something: not masked, not transparent. None: everywhere."""
    mask, image = photo.get("mask"), photo["image"]
    known = None if mask is None else mask.reshape(image.shape[:2]) != 0
    if image.shape[-1] == 4:
        solid = image[..., 3] > (0.5 if image.is_floating_point() else 127)
        known = solid if known is None else known & solid.to(known.device)
    return known


def read_photo(path: Path, scale: float, alpha_color: tuple[float, float, float] | None = None) -> Tensor:
    """[H, W, 3 or 4] uint8, `scale` times the size of the file's, rounded down; a transparent one over `alpha_color`.

    Raises:
        LpmError: the file cannot be decoded.
    """
    pixels = load_image(path)
    if scale != 1.0:
        # The cameras' own arithmetic (single precision, rounded down), so that both agree to the pixel.
        height, width = (int(torch.floor(torch.tensor(n) * scale)) for n in pixels.shape[:2])
        pixels = np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    image = torch.from_numpy(pixels)
    if alpha_color is not None and image.shape[-1] == 4:
        opaque = image[:, :, -1:] / 255.0
        image = image[:, :, :3] * opaque + 255.0 * torch.tensor(alpha_color) * (1.0 - opaque)
        image = image.clamp(0, 255).to(torch.uint8)
    return image


def read_mask(path: Path, size: tuple[int, int]) -> Tensor:
    """[H, W, 1] bool at `size` (width, height): what counts (lpm.scenes.masks); of a smaller mask a pixel that mixes
    none that does not, as the photo's are mixed: what stands under a mask (black, often) must not reach what is trained
    on. Raises LpmError."""
    mask = load_mask(path)
    if mask.shape[1::-1] != size:
        mask = np.asarray(cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)) > 0.999
    return torch.from_numpy(mask)[..., None]


def read_view(
    split: Split, i: int, scale: float, size: tuple[int, int], alpha_color: tuple[float, float, float] | None = None
) -> Photo:
    """Photo `i` of `split` at `scale`, with its mask; of one by a lens that is no pinhole, the view that is cut out.

    Args:
        size: (width, height) of the view at `scale`. alpha_color: see read_photo.

    Raises:
        LpmError: a file cannot be decoded.
    """
    image = read_photo(split.images[i], scale, alpha_color)
    photo = {"image": image}
    if split.masks is not None:
        photo["mask"] = read_mask(split.masks[i], (image.shape[1], image.shape[0]))
    cut = None if split.cuts is None else split.cuts[i]
    if cut is None:
        return photo
    mask = photo["mask"][..., 0].numpy().astype(np.uint8) if "mask" in photo else None
    view, there = cut.take(image.numpy(), mask, cut.intrinsics * scale, size)
    photo["image"] = torch.from_numpy(view)
    if mask is not None or not there.all():
        photo["mask"] = torch.from_numpy(there)[..., None]
    return photo


@dataclass(frozen=True)
class Straightened:
    """A pinhole camera of which a photo with lens distortion is made, and how."""

    K: NDArray[Any]
    """[3, 3] float32, of the photo as it is; OpenCV's first pixel has its centre at (0, 0)."""
    bent: NDArray[Any]
    """[8] OpenCV's distortion."""
    straight: NDArray[Any]
    """[3, 3] before cropping."""
    crop: tuple[int, int, int, int]
    """x, y, width, height of where it has pixels."""

    @property
    def pinhole(self) -> NDArray[Any]:
        """[3, 3] intrinsics of the result; the centre of the first pixel is at (0.5, 0.5)."""
        K = self.straight.copy()
        K[0, 2] -= self.crop[0]
        K[1, 2] -= self.crop[1]
        K[:2, 2] += 0.5
        return K

    def __call__(self, photo: Photo) -> Photo:
        """`photo` as the pinhole camera would have taken it."""
        x, y, width, height = self.crop
        image: NDArray[Any] = photo["image"].numpy()
        image = np.asarray(cv2.undistort(image, self.K, self.bent, None, self.straight))[y : y + height, x : x + width]
        image = np.ascontiguousarray(image)  # a cut would keep the whole, and be slow to read in every step
        result = photo | {"image": torch.from_numpy(image)}
        if "mask" in photo:
            mask: NDArray[Any] = photo["mask"].numpy().astype(np.uint8) * 255
            mask = np.asarray(cv2.undistort(mask, self.K, self.bent, None, self.straight))
            mask = mask[y : y + height, x : x + width]
            result["mask"] = torch.from_numpy(mask).bool().reshape(*mask.shape[:2], 1)
        return result


def straightened(K: NDArray[Any], distortion: NDArray[Any], size: tuple[int, int]) -> Straightened:
    """How a photo of `size` (width, height) with lens distortion becomes one of a pinhole camera, cropped.

    Args:
        K: [3, 3] float32, pixels; the centre of the first pixel is at (0.5, 0.5).
        distortion: [6] k1, k2, k3, k4, p1, p2 (OpenCV's formula).

    Raises:
        LpmError: k4, which OpenCV's formula of five numbers has not.
    """
    k1, k2, k3, k4, p1, p2 = distortion.tolist()
    if k4 != 0:
        fail("k4", f"{k4:g}", "0: of radial distortion k1, k2, k3 are used", "undistort the photos before (COLMAP can)")
    bent, K = np.array([k1, k2, p1, p2, k3, 0.0, 0.0, 0.0]), K.copy()
    K[:2, 2] -= 0.5
    found, (x, y, width, height) = cv2.getOptimalNewCameraMatrix(K, bent, size, 0)
    return Straightened(K, bent, np.asarray(found), (x, y, width, height))


class PhotoReader:
    """Reads the photos of a split, one by one and from any thread, as training takes them: on the CPU."""

    def __init__(
        self,
        split: Split,
        scale: float,
        alpha_color: tuple[float, float, float] | None = None,
        read: Callable[[int], Photo] | None = None,
    ) -> None:
        """
        Args:
            scale: of the photos' sizes.
            alpha_color: what transparent photos stand on; None keeps their alpha.
            read: what reads photo i where it is not `read_view`.

        Raises:
            LpmError: a lens that cannot be undistorted.
        """
        self.split, self.scale, self.alpha_color, self._own = split, scale, alpha_color, read
        cameras = split.cameras.scaled(scale)
        self._sizes = cameras.sizes
        self._straighten: dict[int, Straightened] = {}
        intrinsics, sizes = cameras.intrinsics.clone(), cameras.sizes.clone()
        bent = None if cameras.distortion is None else cameras.distortion.numpy()
        for i in range(len(split) if bent is not None and bent.any() else 0):
            assert bent is not None
            if not bent[i].any():
                continue
            width, height = sizes[i].tolist()
            how = straightened(intrinsics_matrices(intrinsics[i]).numpy(), bent[i], (width, height))
            self._straighten[i], K = how, how.pinhole
            intrinsics[i] = torch.tensor([K[0, 0], K[1, 1], K[0, 2], K[1, 2]])
            sizes[i] = torch.tensor(how.crop[2:])
        self.cameras = Cameras(cameras.c2w, intrinsics, sizes, None, cameras.capture_times)
        """The photos' pinhole cameras."""
        self.depths: DepthReader | None = None
        """What adds depths to them."""

    def __call__(self, i: int) -> Photo:
        """Photo `i`. Raises LpmError where it cannot be decoded, or its camera is of another size."""
        width, height = self._sizes[i].tolist()
        if self._own is None:
            photo = read_view(self.split, i, self.scale, (width, height), self.alpha_color)
        else:
            photo = self._own(i)
        if photo["image"].shape[:2] != (height, width):
            got = f"{photo['image'].shape[1]}x{photo['image'].shape[0]}"
            fail(self.split.images[i], got, f"{width}x{height}, the size of its camera")
        if i in self._straighten:
            photo = self._straighten[i](photo)
        return photo if self.depths is None else photo | {"depth": self.depths(i, photo)}

    @property
    def bytes(self) -> int:
        """What all photos will take; of those with an alpha channel a little more."""
        layers = 3 + (self.split.masks is not None or self.split.cuts is not None)
        depth = 4 / STRIDE**2 if self.depths is not None else 0
        return int(self.cameras.sizes.prod(1).sum() * (layers + depth))

    @cached_property
    def masked(self) -> bool:
        """Whether photos may say nothing somewhere: by a mask, a view's rim, or their alpha channel."""
        if self.split.masks is not None or self.split.cuts is not None:
            return True
        return self.alpha_color is None and any(has_alpha(path) for path in self.split.images)


def load_photos(
    split: Split,
    scale: float,
    alpha_color: tuple[float, float, float] | None = None,
    progress: Progress = quiet,
    read: Callable[[int], Photo] | None = None,
) -> tuple[list[Photo], Cameras]:
    """The photos of `split` on the CPU, all of them, and their pinhole cameras; arguments as of PhotoReader.

    Raises:
        LpmError: a photo cannot be decoded, or its camera is of another size.
    """
    reader = PhotoReader(split, scale, alpha_color, read)
    return read_all(reader, progress), reader.cameras


def read_all(reader: PhotoReader, progress: Progress = quiet) -> list[Photo]:
    """All photos of `reader`."""
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(reader, i) for i in range(len(reader.split))]
        photos = [waiting[i].result() for i in progress(range(len(reader.split)), "reading photos")]
    check_masks(reader.split, photos)
    return photos


def check_masks(split: Split, photos: list[Photo]) -> None:
    """Raises LpmError where the masks of `photos` leave nothing of any."""
    if photos and split.masks is not None and not any(bool(photo["mask"].any()) for photo in photos):
        got = f"the masks of all {len(photos)} photos are black, which leaves nothing to train on"
        fail(
            split.masks[0].parent, got, "masks that are black where a photo says nothing", "invert them, if they say it"
        )


class DepthReader:
    """Reads the scene's depths (lpm.multiview.depth_prior) for photos, in the frame of training."""

    def __init__(self, split: Split, cameras: Cameras, unit: float) -> None:
        """
        Args:
            cameras: the photos' as they are trained on; those of `split` are the files'.
            unit: what one of the files' units is in the frame of training.
        """
        self._split, self._cameras, self._unit, self._Ks = split, cameras, unit, cameras.Ks()

    def __call__(self, i: int, photo: Photo) -> Tensor:
        """[h, w] of photo `i`. Raises LpmError where the file cannot be used."""
        split, cameras = self._split, self._cameras
        assert split.depths is not None
        file, distortion = split.depths[i], split.cameras.distortion
        cut = None if split.cuts is None else split.cuts[i]
        given_size = int(split.cameras.sizes[i, 0]), int(split.cameras.sizes[i, 1])
        given_size = given_size if cut is None else cut.lens.size
        bent = np.zeros(6) if distortion is None else distortion[i].double().numpy()
        given = split.cameras.intrinsics[i].double().numpy(), bent, given_size
        depth = read_depth(file)
        if abs(depth.shape[1] * given_size[1] / (depth.shape[0] * given_size[0]) - 1) > 0.02:
            wanted = f"the shape of its photo, {given_size[0]}x{given_size[1]}, at any resolution"
            fail(file, f"{depth.shape[1]}x{depth.shape[0]}", wanted, "turn it as its photo is")
        size = int(cameras.sizes[i, 0]), int(cameras.sizes[i, 1])
        kept = laid_over(depth * np.float32(self._unit), given, self._Ks[i], size, cut)
        known = usable(photo)
        return kept if known is None else torch.where(at_grid(known.cpu(), kept), kept, 0.0)


def check_depths(photos: Mapping[int, Photo], cameras: Cameras, say: Callable[[str], Any], option: str) -> None:
    """Depths in millimetres that are taken for metres put everything where the cameras are: `say` then names `option`.

    Args:
        photos: some or all, by number. cameras: of all.

    Raises:
        LpmError: none of `photos` holds any depth.
    """
    found = [(float(d[d > 0].median()), v) for v, p in photos.items() if bool(((d := p["depth"].cpu()) > 0).any())]
    if not found:
        fail("depth_file_path", "no depth above 0 in any photo", "depths", "remove it from all frames")
    distance = looked_at(world_to_camera(cameras.c2w))
    ratio = float(np.median([depth / float(distance[v]) for depth, v in found]))
    if not 1 / UNLIKELY < ratio < UNLIKELY:
        say(f"warning: the scene's depths are {ratio:.2g} times as far as what the cameras look at. Is {option} right?")


def add_depths(
    photos: list[Photo], split: Split, cameras: Cameras, unit: float, say: Callable[[str], Any], option: str
) -> None:
    """Puts the scene's depths into all of `photos`; arguments as of DepthReader and check_depths. Raises LpmError."""
    read = DepthReader(split, cameras, unit)
    for i, photo in enumerate(photos):
        photo["depth"] = read(i, photo)
    check_depths(dict(enumerate(photos)), cameras, say, option)
