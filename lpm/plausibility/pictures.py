"""The photos, small: enough to tell black, blank and equal ones, and to find features in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lpm.scenes.images import load_image
from lpm.scenes.masks import load_mask
from lpm.scenes.scene import Scene

LONGEST = 800
"""Pixels along the longer side at which photos are looked at."""
THUMBNAIL = 32
"""Pixels along both sides of what is compared to find equal photos."""


@dataclass
class Picture:
    """A view of a scene, small and grey."""

    view: int
    gray: NDArray[np.uint8]
    """[h, w]"""
    known: NDArray[np.bool_] | None
    """[h, w] where the scene's mask lets pixels through; None: it has no masks."""
    inside: NDArray[np.bool_] | None
    """[h, w] where the lens sees something of the view; None: everywhere."""
    scale: tuple[float, float]
    """Its width and height by those of the view."""

    @property
    def values(self) -> NDArray[np.uint8]:
        """[N] those that the lens sees."""
        return self.gray.ravel() if self.inside is None else self.gray[self.inside]


def picture(scene: Scene, view: int, longest: int = LONGEST) -> Picture:
    """View `view` of `scene`, at most `longest` pixels along its longer side.

    Raises:
        LpmError: a file cannot be decoded.
    """
    width, height = scene.sizes[view].tolist()
    shrink = min(1.0, longest / max(width, height))
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    scale = size[0] / width, size[1] / height
    cut = None if scene.cuts is None else scene.cuts[view]
    photo = (width, height) if cut is None else cut.lens.size
    pixels = load_image(scene.images[view], least=math.ceil(shrink * min(photo)))[..., :3]
    mask = None if scene.masks is None else load_mask(scene.masks[view]).astype(np.uint8)
    known = inside = None
    if cut is not None:
        intrinsics = cut.intrinsics * np.tile(scale, 2)
        if mask is not None:
            known = cut.take(mask[..., None], mask, intrinsics, size)[1]
        pixels, inside = cut.take(pixels, None, intrinsics, size)
    else:
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
        known = None if mask is None else np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)) > 0
    gray = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)
    return Picture(view, gray, known, None if inside is None or inside.all() else inside, scale)


def pictures(scene: Scene, views: Sequence[int], longest: int = LONGEST) -> list[Picture]:
    """`picture` of each of `views`."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda view: picture(scene, view, longest), views))


def thumbnail(gray: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[THUMBNAIL * THUMBNAIL] grey levels of a picture."""
    small = cv2.resize(gray, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32).ravel()
