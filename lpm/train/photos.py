"""The photos of a run: which comes next, what a strategy sees of all, and points where the scene has too few."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lpm.multiview.depth_prior import points_from_depth
from lpm.multiview.points_from_photos import looked_at, points_from_photos
from lpm.multiview.views import Views, unproject, world_to_camera
from lpm.multiview.visibility import FEWEST
from lpm.train.cameras import Cameras
from lpm.train.load_photos import Photo

POINTS = 100_000
"""At most so many are drawn from depths."""
FEW = 2_000
"""Points of a scene below which more are looked for; beside many good ones, more of those that photos show do harm."""
RANGE = (0.4, 2.5)
"""Depths of random starting points of a clip, times the distance of what the cameras look at."""


def find_points(
    views: Views, depths: Sequence[Tensor] | None, given: int, say: Callable[[str], Any]
) -> tuple[Tensor, Tensor] | None:
    """Points [N, 3] (world) and colours [N, 3] uint8, on the CPU, to put beside the `given` ones, where those are few.

    From `depths` (of each view, where the scene has them), else by comparing the photos. None: there are enough, or
    none were found.
    """
    if given >= FEW:
        return None
    few, more = (f"Only {given:,} points in the scene", " more") if given else ("No points in the scene", "")
    if depths is not None:
        xyz, rgb = points_from_depth(views, depths, POINTS)
        if len(xyz) >= FEWEST:
            say(f"{few}: {len(xyz):,}{more} are drawn from its depths.")
            return xyz.cpu(), rgb.cpu()
    xyz, rgb = points_from_photos(views)
    if len(xyz) >= FEWEST:
        say(f"{few}: {len(xyz):,}{more} were found by comparing the photos.")
        return xyz.cpu(), rgb.cpu()
    if not given:
        say("No points, and the photos show none that are sure: training starts from random ones.")
    return None


def random_points_of_clip(photos: Sequence[Photo], cameras: Cameras, count: int) -> tuple[Tensor, Tensor]:
    """Points [N, 3] and colours [N, 3] uint8 on random rays of a clip's first frame, at depths around those at which
    the cameras look; N is `count` or a little less."""
    assert cameras.capture_times is not None
    first = (cameras.capture_times == cameras.capture_times.min()).nonzero().flatten().tolist()
    views = Views([photos[v]["image"] for v in first], cameras.Ks()[first], world_to_camera(cameras.c2w[first]))
    rng = np.random.default_rng(0)
    distance = looked_at(views.viewmats).cpu().numpy()
    xyz, rgb = [], []
    for i in range(len(first)):
        height, width = views.images[i].shape[:2]
        share = count // len(first)
        pixels = torch.from_numpy(rng.uniform(0, 1, (share, 2)).astype(np.float32)) * torch.tensor([width, height])
        low, high = np.log(RANGE[0] * distance[i]), np.log(RANGE[1] * distance[i])
        depth = torch.from_numpy(np.exp(rng.uniform(low, high, share)).astype(np.float32))
        xyz.append(unproject(pixels, depth, views.viewmats[i], views.Ks[i]))
        image = views.images[i].cpu()
        value = image[pixels[:, 1].long().clamp_max(height - 1), pixels[:, 0].long().clamp_max(width - 1), :3]
        rgb.append(value if value.dtype == torch.uint8 else (value * 255).to(torch.uint8))
    return torch.cat(xyz), torch.cat(rgb)


def pairs_of_a_moment(order: list[int], times: list[float], c2w: Tensor) -> list[int]:
    """`order` with, after each photo, that of the camera with the nearest direction at the same time, if one is left.

    Args:
        times: [V] of all photos.
        c2w: [V, 3, 4] camera to world, OpenGL axes.
    """
    forward = -c2w[:, :3, 2]
    left, pairs = dict.fromkeys(order), []
    by_time: dict[float, list[int]] = {}
    for view in order:
        by_time.setdefault(times[view], []).append(view)
    for view in order:
        if view not in left:
            continue
        del left[view]
        pairs.append(view)
        others = [v for v in by_time[times[view]] if v in left]
        if others:
            nearest = max(others, key=lambda v: float(forward[view] @ forward[v]))
            del left[nearest]
            pairs.append(nearest)
    return pairs


class PhotoOrder:
    """Training photos one after another, in random order, each as often as the others."""

    def __init__(self, count: int, seed: int, arrange: Callable[[list[int]], list[int]] = lambda order: order) -> None:
        """`arrange`: what is made of a random order, for example pairs_of_a_moment."""
        self.count, self.arrange = count, arrange
        self._generator = random.Random(seed)
        self._left = self._shuffled()

    def _shuffled(self) -> list[int]:
        order = list(range(self.count))
        self._generator.shuffle(order)
        return self.arrange(order)

    def next(self) -> int:
        """The photo of the next step."""
        index = self._left.pop(0)
        if not self._left:
            self._left = self._shuffled()
        return index

    def coming(self, most: int) -> list[int]:
        """The photos of the next steps, at most so many; of those behind the last one of this round it is not told."""
        return self._left[:most]

    def state(self) -> dict[str, Any]:
        """What put_back() goes on from; the names are those of runs of nerfstudio."""
        return {"train_unseen_cameras": list(self._left), "random_generator": self._generator.getstate()}

    def put_back(self, state: dict[str, Any]) -> bool:
        """Goes on where state() was taken; False: that was with other photos, and the order starts anew."""
        if max(state["train_unseen_cameras"], default=0) >= self.count:
            return False
        self._left = [int(i) for i in state["train_unseen_cameras"]]
        if state["random_generator"] is not None:
            self._generator.setstate(state["random_generator"])
        return True
