"""Features matched between covisible photos, checked against the known cameras, and triangulated."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lpm.checks import check_shape
from lpm.multiview.views import Views, angle, centres_of, project, rays, triangulate

VERSION = 1
"""Changes with anything that changes results, so that no older cache is read."""
MOST_THREADS = 8
"""Photos worked on side by side at most: each takes some hundred megabytes, and OpenCV has threads of its own."""
KEPT = 8
"""Results kept in memory; the least recently used go first."""
_memory: OrderedDict[str, Matches] = OrderedDict()


@dataclass
class Matches:
    """M points that were seen by two views each."""

    xyz: Tensor
    """[M, 3], world."""
    views: Tensor
    """[M, 2] int64, the lower first."""
    pixels: Tensor
    """[M, 2, 2], (x, y) in each of the two views, pixels."""
    error_px: Tensor
    """[M], the larger of the two reprojection errors, pixels."""
    parallax_deg: Tensor
    """[M], angle between the two rays, degrees."""
    rgb: Tensor
    """[M, 3] in 0..1, mean of both photos."""

    def __len__(self) -> int:
        return len(self.xyz)


@dataclass
class Features:
    """F features of one photo."""

    pixels: Tensor
    """[F, 2]."""
    descriptors: Tensor
    """[F, 128] float32; whole numbers 0..255, so that their products are exact in any order of summation."""


def sift_points(
    views: Views,
    neighbours: Tensor,
    *,
    features: int = 1500,
    ratio: float = 0.8,
    max_epipolar: float = 2.0,
    max_error: float = 2.0,
    min_parallax: float = 2.0,
    threads: int | None = None,
    cache: Path | None = None,
) -> Matches:
    """Matches SIFT features (Lowe 2004) between neighbours and triangulates those that the cameras allow.

    Two features match if each is the other's nearest, and nearer than `ratio` times the second nearest (section 7.1).

    Args:
        neighbours: [V, k] int64 as from `covisible`; -1: none. Each pair of views is matched once.
        features: at most so many per photo, those of highest contrast.
        max_epipolar: largest distance from the other's epipolar line, in both photos, pixels.
        max_error: largest reprojection error in both photos, pixels. min_parallax: degrees.
        threads: photos worked on side by side, by default one a core, at most MOST_THREADS; does not change the result.
        cache: folder for results; they are found again by the content of photos and cameras. None: memory only.

    Returns:
        Matches on the device of `views`, ordered by pair; in front of both cameras. None where there is no evidence.

    Raises:
        LpmError: wrong shapes. OSError: `cache` cannot be written.
    """
    check_shape("neighbours", neighbours, [len(views), None])
    neighbours = neighbours.detach().cpu().long()
    numbers = (features, ratio, max_epipolar, max_error, min_parallax)
    key = _key(views, neighbours, numbers)
    found = _recall(key, cache)
    if found is None:
        found = find_matches(views, neighbours, features, ratio, max_epipolar, max_error, min_parallax, threads)
        found = Matches(*(getattr(found, f.name).cpu() for f in fields(Matches)))
        _keep(key, found, cache)
    return Matches(*(getattr(found, f.name).to(views.device) for f in fields(Matches)))


def find_matches(
    views: Views,
    neighbours: Tensor,
    features: int = 1500,
    ratio: float = 0.8,
    max_epipolar: float = 2.0,
    max_error: float = 2.0,
    min_parallax: float = 2.0,
    threads: int | None = None,
    detect: Callable[[int], Features] | None = None,
) -> Matches:
    """sift_points() without a cache: features by OpenCV on the CPU, the rest where `views` is.

    `detect` gives the features of a view where they are known already.
    """
    device = views.device
    here = torch.arange(len(neighbours))[:, None].expand_as(neighbours)
    pairs = torch.stack([torch.minimum(here, neighbours), torch.maximum(here, neighbours)], -1)[neighbours >= 0]
    pairs = pairs[pairs[:, 0] != pairs[:, 1]].unique(dim=0)
    wanted = pairs.unique().tolist()
    # OpenCV lets go of the interpreter's lock.
    with ThreadPoolExecutor(threads or min(os.cpu_count() or 1, MOST_THREADS)) as pool:
        work = detect or (lambda v: detect_features(views, v, features))
        detected = dict(zip(wanted, pool.map(work, wanted), strict=True))

    chosen_views = [torch.zeros(0, 2, dtype=torch.int64, device=device)]
    chosen_pixels = [torch.zeros(0, 2, 2, device=device)]
    for pair in pairs.tolist():
        a, b = detected[pair[0]], detected[pair[1]]
        i, j = _mutual(a.descriptors, b.descriptors, ratio)
        chosen_views.append(torch.tensor([pair], device=device).expand(len(i), 2))
        chosen_pixels.append(torch.stack([a.pixels[i], b.pixels[j]], 1))
    view, pixels = torch.cat(chosen_views), torch.cat(chosen_pixels).double()

    viewmats, Ks = views.viewmats.double()[view], views.Ks.double()[view]
    keep = epipolar_distance(pixels, viewmats, Ks) <= max_epipolar
    view, pixels, viewmats, Ks = view[keep], pixels[keep], viewmats[keep], Ks[keep]
    xyz, along = triangulate(pixels, viewmats, Ks)
    back, z = project(xyz[:, None, None], viewmats, Ks)
    error = (back[:, :, 0] - pixels).square().sum(-1).sqrt().amax(1)
    centre = centres_of(viewmats)
    parallax = angle(centre[:, 0] - xyz, centre[:, 1] - xyz)
    keep = torch.isfinite(xyz).all(1) & (along > 0).all(1) & (z > 0).flatten(1).all(1)
    keep &= (error <= max_error) & (parallax >= min_parallax)
    return Matches(
        xyz[keep].float(),
        view[keep],
        pixels[keep].float(),
        error[keep].float(),
        parallax[keep].float(),
        _colors(views, view[keep].cpu(), pixels[keep].cpu()),
    )


class PairMatcher:
    """Matches between any two photos, made when they are asked for and kept in memory; parameters as sift_points."""

    def __init__(self, views: Views, features: int = 1500, ratio: float = 0.8, max_epipolar: float = 2.0) -> None:
        self.views, self.ratio, self.max_epipolar = views, ratio, max_epipolar
        self._features = lru_cache(128)(lambda v: detect_features(views, v, features))
        self.pixels = lru_cache(4096)(self._match)

    def _match(self, first: int, second: int) -> Tensor:
        """[M, 2, 2] float64, (x, y) in each of the two views, pixels; those that the cameras allow."""
        a, b = self._features(first), self._features(second)
        i, j = _mutual(a.descriptors, b.descriptors, self.ratio)
        pixels = torch.stack([a.pixels[i], b.pixels[j]], 1).double()
        pair = torch.tensor([[first, second]], device=pixels.device).expand(len(pixels), 2)
        viewmats, Ks = self.views.viewmats.double()[pair], self.views.Ks.double()[pair]
        return pixels[epipolar_distance(pixels, viewmats, Ks) <= self.max_epipolar]


def _bytes(views: Views, v: int) -> NDArray[np.uint8]:
    """Photo `v` as [H, W, 3] uint8; NaN is black."""
    image = views.images[v].detach()[..., :3].cpu()
    if image.dtype != torch.uint8:
        image = (image.float().nan_to_num(0.0, 1.0, 0.0).clamp(0, 1) * 255 + 0.5).to(torch.uint8)
    return np.ascontiguousarray(image.numpy())


def detect_features(views: Views, v: int, features: int = 1500) -> Features:
    """SIFT features of photo `v`, none where it is masked."""
    usable = views.usable(v)
    mask = None if usable is None else usable.cpu().numpy().astype(np.uint8)
    if mask is not None:  # the edge of a mask is no feature of the scene
        mask = cv2.erode(mask, np.ones((9, 9), np.uint8)).astype(np.uint8)
    # Without precise upscaling, positions are off by a quarter of a pixel.
    sift = cv2.SIFT_create(nfeatures=features, enable_precise_upscale=True)  # type: ignore[attr-defined]
    points, descriptors = sift.detectAndCompute(cv2.cvtColor(_bytes(views, v), cv2.COLOR_RGB2GRAY), mask)
    if descriptors is None or not len(points):
        return Features(torch.zeros(0, 2, device=views.device), torch.zeros(0, 128, device=views.device))
    # OpenCV counts from the centre of the first pixel.
    pixels = torch.from_numpy(np.array([point.pt for point in points], np.float32)) + 0.5
    return Features(pixels.to(views.device), torch.from_numpy(descriptors).to(views.device))


def _mutual(a: Tensor, b: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
    """Rows [K] of `a` [F, 128] and `b` [G, 128] that are each other's nearest and pass the ratio test in `a`."""
    if len(a) < 1 or len(b) < 2:
        none = torch.zeros(0, dtype=torch.int64, device=a.device)
        return none, none
    distance = torch.addmm(a.square().sum(1)[:, None] + b.square().sum(1), a, b.T, alpha=-2.0)
    nearest, j = distance.min(1)
    mutual = nearest == distance.amin(0)[j]
    i = torch.arange(len(a), device=a.device)
    distance[i, j] = torch.inf
    good = mutual & (nearest < ratio**2 * distance.amin(1))
    return i[good], j[good]


def epipolar_distance(pixels: Tensor, viewmats: Tensor, Ks: Tensor) -> Tensor:
    """[M] the larger distance of a match from the other's epipolar line, pixels (Hartley and Zisserman 2004, 9.2.4).

    Args as for `triangulate`. Infinite where the two cameras are at the same place.
    """
    to_second = viewmats[:, 1, :3, :3] @ viewmats[:, 0, :3, :3].transpose(1, 2)
    shift = viewmats[:, 1, :3, 3] - (to_second * viewmats[:, 0, None, :3, 3]).sum(-1)
    a, b = rays(pixels, Ks).unbind(1)
    # The epipolar planes' normals, in each camera's axes; a line in pixels is K^-T times that.
    second = torch.linalg.cross(shift, (to_second * a[:, None]).sum(-1))
    first = (to_second * torch.linalg.cross(b, shift)[..., None]).sum(1)
    normal = torch.stack([first, second], 1)
    x = normal[..., 0] / Ks[..., 0, 0]
    y = (normal[..., 1] - Ks[..., 0, 1] * x) / Ks[..., 1, 1]
    length = (x * x + y * y).amin(1).sqrt()
    off = (second * b).sum(-1).abs()
    return torch.where(length > 1e-12, off / length, torch.inf)


def _colors(views: Views, view: Tensor, pixels: Tensor) -> Tensor:
    """[M, 3] mean of the two photos at `pixels` [M, 2, 2]."""
    color = torch.zeros(len(view), 2, 3)
    for v in view.unique().tolist():
        image = torch.from_numpy(_bytes(views, v))
        row, side = (view == v).nonzero(as_tuple=True)
        x, y = pixels[row, side].long().unbind(-1)
        color[row, side] = image[y.clamp(0, len(image) - 1), x.clamp(0, image.shape[1] - 1)].float() / 255
    return color.mean(1)


def _key(views: Views, neighbours: Tensor, numbers: tuple[float, ...]) -> str:
    """A name for the result, by everything that it depends on."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr((VERSION, cv2.__version__, numbers, [tuple(image.shape) for image in views.images])).encode())
    for tensor in (views.Ks, views.viewmats, neighbours):
        digest.update(np.ascontiguousarray(tensor.cpu().numpy()).tobytes())
    for v in range(len(views)):
        digest.update(_bytes(views, v).tobytes())
        usable = views.usable(v)
        if usable is not None:
            digest.update(np.packbits(usable.cpu().numpy()).tobytes())
    return digest.hexdigest()


def _recall(key: str, cache: Path | None) -> Matches | None:
    """The result kept as `key`, from memory or the folder; None if there is none that can be read."""
    if key in _memory:
        _memory.move_to_end(key)
        return _memory[key]
    if cache is None:
        return None
    try:
        with np.load(Path(cache) / f"matches-{key}.npz", allow_pickle=False) as file:
            found = Matches(*(torch.from_numpy(file[f.name]) for f in fields(Matches)))
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):  # not there, or cut short: it is made again
        return None
    _remember(key, found)
    return found


def _keep(key: str, matches: Matches, cache: Path | None) -> None:
    _remember(key, matches)
    if cache is None:
        return
    folder = Path(cache)
    folder.mkdir(parents=True, exist_ok=True)
    # Whole or not at all, even with two runs at once.
    handle, name = tempfile.mkstemp(prefix=".matches-", suffix=".npz", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **{f.name: getattr(matches, f.name).numpy() for f in fields(Matches)})
        os.replace(name, folder / f"matches-{key}.npz")
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _remember(key: str, matches: Matches) -> None:
    _memory[key] = matches
    while len(_memory) > KEPT:
        _memory.popitem(last=False)
