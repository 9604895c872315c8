"""Photos with known cameras, and the geometry between their pixels and the world.

Pixels are (x, y), the centre of the first at (0.5, 0.5); cameras are pinholes with OpenCV axes (x right, y down, z
forward).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree
from torch import Tensor

from lpm.checks import check_finite, check_shape, fail
from lpm.cuda.device import DeviceLibrary, device_kernels
from lpm.scenes.cut_up import shown_of
from lpm.scenes.scene import Scene

GRAY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue (ITU-R BT.601)."""


class LazyImages(Sequence[Tensor], ABC):
    """Images that are read when they are asked for, and known by their sizes before that."""

    def __init__(self, sizes: Tensor) -> None:
        """`sizes` [V, 2] width, height."""
        self.sizes = sizes

    @abstractmethod
    def read(self, i: int) -> Tensor:
        """Image `i`."""

    def ahead(self, indices: Sequence[int]) -> None:
        """Told that the images `indices` will be asked for next, in this order; may begin to read them."""

    def __len__(self) -> int:
        return len(self.sizes)

    @overload
    def __getitem__(self, i: int) -> Tensor: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[Tensor]: ...
    def __getitem__(self, i: int | slice) -> Tensor | Sequence[Tensor]:
        if isinstance(i, slice):
            return [self.read(k) for k in range(*i.indices(len(self)))]
        if not 0 <= i < len(self):
            raise IndexError(i)
        return self.read(i)


@dataclass
class Views:
    """V photos with known cameras. Sizes may differ from photo to photo."""

    images: Sequence[Tensor]
    """V tensors [H, W, 3 or more], uint8 or floating point in 0..1 (NaN: no data), on any device; or LazyImages."""
    Ks: Tensor
    """[V, 3, 3], pixels. The device of `viewmats` is where all work is done."""
    viewmats: Tensor
    """[V, 4, 4], world to camera, rigid."""
    masks: Sequence[Tensor] | None = None
    """V tensors [H, W] or [H, W, 1], bool, or numbers of which 0 is False; False: this pixel says nothing."""
    capture_times: Tensor | None = None
    """[V] when each was taken, 0..1, of a scene that moves; photos of different times are not compared."""
    cache_bytes: int = 2**29
    """Gray copies kept in memory; the least recently used go first."""
    _gray: OrderedDict[tuple[int, int], Tensor] = field(default_factory=OrderedDict, repr=False)
    _sizes: Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        v = len(self.images)
        check_shape("Ks", self.Ks, [v, 3, 3])
        check_shape("viewmats", self.viewmats, [v, 4, 4])
        self.viewmats = self.viewmats.detach().float()
        self.Ks = self.Ks.detach().to(self.viewmats)
        check_finite("Ks", self.Ks, "view")
        check_finite("viewmats", self.viewmats, "view")
        if isinstance(self.images, LazyImages):
            self._sizes = self.images.sizes.to(self.device, torch.float32)
        for i, image in enumerate(() if self.lazy else self.images):
            if image.dim() != 3 or image.shape[2] < 3 or image.numel() == 0:
                fail(f"images[{i}]", f"shape {list(image.shape)}", "[H, W, 3]")
        if self.masks is not None:
            if len(self.masks) != v:
                fail("masks", str(len(self.masks)), f"one for each of {v} images")
            for i, (mask, image) in enumerate(() if self.lazy else zip(self.masks, self.images, strict=True)):
                if mask.shape[:2] != image.shape[:2] or mask.numel() != image.shape[0] * image.shape[1]:
                    fail(f"masks[{i}]", f"shape {list(mask.shape)}", f"{list(image.shape[:2])} as its image")

    @classmethod
    def of_scene(cls, scene: Scene, chosen: Iterable[int] | None = None) -> Views:
        """The photos `chosen` of `scene` (all, if not given), decoded, in the frame of the scene's files.

        Raises:
            LpmError: the photos have lens distortion; a camera here is a pinhole.
        """
        which = np.arange(len(scene)) if chosen is None else np.array(list(chosen), dtype=np.int64)
        if np.any(scene.distortion[which]):
            fail(scene.layout.source, "lens distortion", "pinhole cameras", "lpm-prepare undistorts photos")
        flip = np.diag([1.0, -1.0, -1.0, 1.0])  # OpenGL's camera axes to OpenCV's
        Ks = torch.eye(3).repeat(len(which), 1, 1)
        Ks[:, [0, 1, 0, 1], [0, 1, 2, 2]] = torch.from_numpy(scene.intrinsics[which]).float()
        viewmats = torch.from_numpy(np.linalg.inv(scene.c2w[which] @ flip)).float()
        shown = [shown_of(scene, i) for i in which]
        images = [torch.from_numpy(image)[..., :3] for image, _ in shown]
        masks, capture_times = None, None
        if any(mask is not None for _, mask in shown):
            masks = [
                torch.from_numpy(np.ones(image.shape[:2], np.uint8) if mask is None else mask) for image, mask in shown
            ]
        if scene.capture_times is not None:
            capture_times = torch.from_numpy(scene.capture_times[which]).float()
        return cls(images, Ks, viewmats, masks, capture_times)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def lazy(self) -> bool:
        """Whether photos are read when they are asked for, since there is no room for all."""
        return isinstance(self.images, LazyImages)

    def ahead(self, indices: Sequence[int]) -> None:
        """Has the photos `indices` read while other work goes on, where they are not in memory."""
        if isinstance(self.images, LazyImages):
            self.images.ahead(indices)

    @property
    def device(self) -> torch.device:
        """Where the work is done."""
        return self.viewmats.device

    @property
    def sizes(self) -> Tensor:
        """[V, 2] width and height of the images, pixels."""
        if self._sizes is None or len(self._sizes) != len(self.images):
            sizes = [(image.shape[1], image.shape[0]) for image in self.images]
            self._sizes = torch.tensor(sizes, dtype=torch.float32).reshape(-1, 2).to(self.device)
        return self._sizes

    def usable(self, v: int) -> Tensor | None:
        """[H, W] bool, where photo `v` says something; None: everywhere."""
        image = self.images[v]
        result = None
        if self.masks is not None:
            result = self.masks[v].reshape(image.shape[:2]) != 0
        if image.is_floating_point():
            finite = torch.isfinite(image[..., :3]).all(-1)
            result = finite if result is None else finite & result.to(finite.device)
        return result

    def colors(self, v: int, pixels: Tensor) -> Tensor:
        """[N, 3] uint8, on the CPU, of photo `v` at `pixels` [N, 2], which lie inside of it."""
        image = self.images[v]
        x, y = pixels.long().to(image.device).unbind(1)
        value = image[y, x, :3].cpu()
        return (value * 255).round().to(torch.uint8) if value.is_floating_point() else value

    def gray(self, v: int, shrink: int = 1) -> Tensor:
        """Photo `v` as [H // shrink, W // shrink] float32 in 0..1, NaN where it says nothing; kept for the next call.

        A shrunk pixel is the mean of its block, so that K of the small image is K / shrink (but K[2, 2] = 1).
        """
        key = (v, shrink)
        if key in self._gray:
            self._gray.move_to_end(key)
            return self._gray[key]
        image = self.images[v].to(self.device)
        rgb = image if image.is_floating_point() else image.float() / 255.0
        gray = sum(weight * rgb[..., c].float() for c, weight in enumerate(GRAY))
        assert isinstance(gray, Tensor)
        usable = self.usable(v)
        if usable is not None:
            gray = torch.where(usable.to(gray.device), gray, torch.nan)
        if shrink > 1:
            gray = F.avg_pool2d(gray[None], shrink)[0]
        self._gray[key] = gray
        while len(self._gray) > 1 and sum(g.numel() * 4 for g in self._gray.values()) > self.cache_bytes:
            self._gray.popitem(last=False)
        return gray


def project(points: Tensor, viewmats: Tensor, Ks: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels [..., N, 2] and z-depths [..., N] of world `points` [..., N, 3] in cameras [..., 4, 4], [..., 3, 3].

    Depth is in world units and <= 0 behind the camera; pixels there are meaningless. Sums are written out, so that
    their order is the same for any number of threads.
    """
    m = Ks @ viewmats[..., :3, :]
    x, y, z = points.unbind(-1)
    u, v, w = (
        x * m[..., i, 0, None] + y * m[..., i, 1, None] + z * m[..., i, 2, None] + m[..., i, 3, None] for i in range(3)
    )
    safe = torch.where(w.abs() > 1e-12, w, 1e-12)
    return torch.stack([u / safe, v / safe], -1), w


NEAREST = 1e-6
"""Z-depth, world, up to which a point is not in front of a camera."""


def in_image(pixels: Tensor, z: Tensor, sizes: Tensor) -> Tensor:
    """Whether points at `pixels` [..., N, 2] and z-depth `z` [..., N] (see project) are in images of `sizes` [..., 2]
    (width, height), [..., N] bool."""
    return (z > NEAREST) & (pixels >= 0).all(-1) & (pixels < sizes[..., None, :]).all(-1)


def rays(pixels: Tensor, Ks: Tensor) -> Tensor:
    """Directions [..., 3] with z = 1, in the camera's axes, of `pixels` [..., 2] of cameras `Ks` [..., 3, 3]."""
    y = (pixels[..., 1] - Ks[..., 1, 2]) / Ks[..., 1, 1]
    x = (pixels[..., 0] - Ks[..., 0, 2] - Ks[..., 0, 1] * y) / Ks[..., 0, 0]
    return torch.stack([x, y, torch.ones_like(x)], -1)


def world_to_camera(camera_to_world: Tensor) -> Tensor:
    """nerfstudio's camera_to_world [C, 3, 4] (OpenGL axes) -> viewmats [C, 4, 4] (OpenCV axes)."""
    # No constants from the host: a device would be waited for.
    rotation = torch.cat([camera_to_world[:, :3, :1], -camera_to_world[:, :3, 1:3]], 2)
    inverse = rotation.transpose(1, 2)
    translation = -inverse @ camera_to_world[:, :3, 3:4]
    zero = torch.zeros_like(camera_to_world[:, :1, :3])
    last = torch.cat([zero, torch.ones_like(zero[..., :1])], 2)
    return torch.cat([torch.cat([inverse, translation], 2), last], 1)


def centres_of(viewmats: Tensor) -> Tensor:
    """Camera centres [..., 3], world, of `viewmats` [..., 4, 4]."""
    return -(viewmats[..., :3, :3] * viewmats[..., :3, 3:]).sum(-2)


MANY_CENTRES = 256
"""Cameras from which on they are too many for a CPU to hold points against them one by one in torch."""


def nearest_centre(means: Tensor, centres: Tensor) -> Tensor:
    """[N] distance (world) from each of `means` [N, 3] to the nearest of `centres` [V, 3]; infinite without any."""
    if len(centres) == 0:
        return torch.full_like(means[:, 0], torch.inf)
    kernels = device_kernels(means.device)
    if kernels is not None:
        return nearest_centre_native(kernels, means, centres)
    if not means.is_cuda:
        centres = centres.unique(dim=0)  # cameras of a clip stand where they stood
    if len(centres) > MANY_CENTRES and not means.is_cuda:
        finite = means.isfinite().all(1)
        distance = cKDTree(centres.numpy()).query(means.nan_to_num(0, 0, 0).numpy(), workers=-1)[0]
        return torch.where(finite, torch.from_numpy(distance).to(means), torch.nan)
    block = max(1, 2**22 // len(centres))  # bounds the memory
    if means.is_cuda:  # cdist starts a block of threads for each of the N x V distances
        return torch.cat([(m[:, None] - centres).square().sum(-1).amin(1) for m in means.split(block)]).sqrt()
    exact = "donot_use_mm_for_euclid_dist"
    return torch.cat([torch.cdist(m, centres, compute_mode=exact).amin(1) for m in means.split(block)])


def nearest_centre_native(kernels: DeviceLibrary, means: Tensor, centres: Tensor) -> Tensor:
    """The kernel: one look at each point; see nearest_centre."""
    distance = means.new_empty(len(means))
    centres = centres.to(means.dtype).contiguous()
    kernels.call("nearest_centre", means.dtype, len(means), len(centres), means.contiguous(), centres, distance)
    return distance


def unproject(pixels: Tensor, depth: Tensor, viewmats: Tensor, Ks: Tensor) -> Tensor:
    """World points [..., 3] of `pixels` [..., 2] at z-`depth` [...] of cameras [..., 4, 4], [..., 3, 3]."""
    local = rays(pixels, Ks) * depth[..., None]
    return (viewmats[..., :3, :3] * (local - viewmats[..., :3, 3])[..., :, None]).sum(-2)


def angle(a: Tensor, b: Tensor) -> Tensor:
    """Degrees [...] between vectors `a` and `b` [..., 3]; exact for small angles, too."""
    a, b = torch.broadcast_tensors(a, b)
    cross = torch.linalg.cross(a, b).square().sum(-1).sqrt()
    return torch.rad2deg(torch.atan2(cross, (a * b).sum(-1)))


def triangulate(pixels: Tensor, viewmats: Tensor, Ks: Tensor) -> tuple[Tensor, Tensor]:
    """The point closest to two rays (midpoint method; Hartley and Sturm 1997, section 5.1), in the type of `pixels`.

    Args:
        pixels: [M, 2, 2], for each pair its (x, y) in the first and in the second view; float64 advised.
        viewmats: [M, 2, 4, 4]. Ks: [M, 2, 3, 3].

    Returns:
        xyz [M, 3], world, not finite where the rays are parallel; distance [M, 2] along the rays, world units,
        negative behind a camera.
    """
    viewmats, Ks = viewmats.to(pixels), Ks.to(pixels)
    centre = centres_of(viewmats)
    ray = F.normalize((viewmats[..., :3, :3] * rays(pixels, Ks)[..., :, None]).sum(-2), dim=-1)
    (a, b), (p, q) = ray.unbind(1), centre.unbind(1)
    normal = torch.linalg.cross(a, b)
    squared = normal.square().sum(-1)
    along = torch.stack(
        [(torch.linalg.cross(q - p, b) * normal).sum(-1), (torch.linalg.cross(q - p, a) * normal).sum(-1)], -1
    )
    along = along / squared[:, None]
    return (centre + along[..., None] * ray).mean(1), along


def look_at(position: Tensor, target: Tensor, up: Tensor) -> Tensor:
    """World-to-camera matrix [4, 4] (OpenCV axes) of a camera at `position` [3] that looks at `target` [3]."""
    forward = torch.nn.functional.normalize(target - position, dim=0)
    right = torch.linalg.cross(forward, up)
    if float(right.norm()) < 1e-6:  # looking along up: any right will do
        right = torch.linalg.cross(forward, torch.eye(3)[int(forward.abs().argmin())])
    right = torch.nn.functional.normalize(right, dim=0)
    out = torch.eye(4)
    out[:3, :3] = torch.stack([right, torch.linalg.cross(forward, right), forward])
    out[:3, 3] = -out[:3, :3] @ position
    return out
