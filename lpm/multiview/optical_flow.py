"""How fast things move on the photos of one camera, and so in the world: optical flow from one time to the next."""

from __future__ import annotations

from collections import OrderedDict

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lpm.multiview.views import Views, project

AGREE = 1.5
"""Pixels by which the flow there and back may miss its start."""
ALIKE = 25.0
"""Greatest difference (of 255) between the patches (5x5) that the flow joins."""


def _flow(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[H, W, 2] pixels from `a` to `b`, [H, W] uint8 (DIS, Kroeger 2016)."""
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    field: NDArray[np.float32] = flow.calc(a, b, None)  # type: ignore[call-overload]
    return field


def _gray(views: Views, view: int) -> NDArray[np.uint8]:
    return (views.gray(view).nan_to_num(0.0).clamp(0, 1) * 255).byte().cpu().numpy()


def _at(field: NDArray[np.float32], pixels: Tensor) -> Tensor:
    """[M, C] the field [H, W, C] at `pixels` [M, 2], nearest."""
    column, row = pixels.long().cpu().numpy().T  # one index that is a tensor would count as a number
    height, width = field.shape[:2]
    return torch.from_numpy(field[row.clip(0, height - 1), column.clip(0, width - 1)]).to(pixels)


class Flows:
    """Optical flow between the photos of `views`, each pair's kept for the next call."""

    def __init__(self, views: Views, cache_bytes: int = 2**28) -> None:
        """`cache_bytes`: of fields that are kept; the least recently used go first."""
        self.views, self.cache_bytes = views, cache_bytes
        self._fields: OrderedDict[tuple[int, int], NDArray[np.float32]] = OrderedDict()
        self._bytes = 0

    def between(self, view: int, other: int) -> NDArray[np.float32]:
        """[H, W, 2] pixels from photo `view` to photo `other`."""
        found = self._fields.pop((view, other), None)
        if found is None:
            found = _flow(_gray(self.views, view), _gray(self.views, other))
            self._bytes += found.nbytes
        self._fields[view, other] = found
        while len(self._fields) > 1 and self._bytes > self.cache_bytes:
            self._bytes -= self._fields.popitem(last=False)[1].nbytes
        return found

    def velocities(self, view: int, other: int, duration: float, places: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity [M, 3] (world per unit of time) of `places` [M, 3] across the line of sight; [M] by how much the
        patches that the flow joins differ (gray, of 255), inf where the velocity is not known.

        The photo `view` shows the places; `other`, by a camera at the same spot, is `duration` later (earlier, if below
        0). It is known where the flow there and back again ends where it began, at a patch that looks the same. Motion
        towards the camera is not seen.
        """
        views = self.views
        pixels, z = project(places, views.viewmats[view], views.Ks[view])
        a, b, forth = _gray(views, view), _gray(views, other), self.between(view, other)
        there = _at(forth, pixels)
        back = _at(self.between(other, view), pixels + there)
        grid = np.stack(np.meshgrid(np.arange(a.shape[1]), np.arange(a.shape[0])), -1).astype(np.float32) + forth
        warped = cv2.remap(b, grid, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
        blurred: NDArray[np.float32] = cv2.blur(cv2.absdiff(a, warped).astype(np.float32), (5, 5))  # type: ignore[assignment]
        unlike = _at(blurred[..., None], pixels)[:, 0]
        known = ((there + back).norm(dim=-1) < AGREE) & (z > 0) & (unlike < ALIKE)
        focal = torch.stack([views.Ks[view][0, 0], views.Ks[view][1, 1]])
        across = there / duration * z[:, None] / focal
        rotation = views.viewmats[view][:3, :3]
        return torch.where(known[:, None], across @ rotation[:2], 0.0), unlike.where(known, torch.inf)
