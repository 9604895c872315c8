"""Localized point management as published (Yang et al., CVPR 2025, arXiv 2406.04251), to compare our own with.

It is 3DGS's adaptive density control, to which each event adds what it learns from the view of the current step and one
random neighbour: regions of the view with a large error, the same regions in the neighbour by matched features, and as
a zone the sphere around what both regions' cones have in common. Zones make cloning and splitting easier, get a point
where they have none, and fade the points that stand in front of them. Written from the paper's description; what that
leaves open is decided here, and said where it is.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from lpm.gaussians import edits
from lpm.gaussians.optim_state import apply
from lpm.gaussians.parameters import Optimizers, TrainedParameters, start_colors
from lpm.multiview.feature_matches import PairMatcher
from lpm.multiview.frustum_intersection import bounding_sphere, frustum_intersection
from lpm.multiview.views import Views, angle, centres_of, project, unproject
from lpm.records import EditRecord, ZoneKind, ZoneRecord
from lpm.strategy.adc import AdcStrategy
from lpm.strategy.options import PaperOptions
from lpm.strategy.schedule import Common
from lpm.zones.error_maps import pool

PATCH = 16  # pixels
QUANTILE, SHARE = 0.4, 0.85  # of pixels that are not counted as wrong; of a patch that must be
FEWEST = 3  # matches that tell where a region is in the other view; the paper gives no number
SAME = 1e-3  # degrees; a direction differs from itself by rounding
OPAQUE = 0.7  # quantile of the opacities in a zone
RESET_OPACITY, NEW_OPACITY = 0.01, 0.1

Regions = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Labels and errors of patches, see error_regions."""


@dataclass
class Zone:
    """A sphere, and the region of a view that it was made from."""

    box: tuple[float, float, float, float]
    """x0, y0, x1, y1 of the region, pixels of the photo."""
    centre: Tensor
    """[3], world."""
    radius: float
    """World units."""
    error: float
    """Mean of the region's error map."""
    color: Tensor
    """[3] in 0..1, the photo at the region's centre."""
    points: int = 0
    """Points inside, before the event."""


def error_regions(render: Tensor, truth: Tensor, mask: Tensor | None = None) -> Regions:
    """Where a view is wrong: labels and errors of patches of 16 x 16 pixels, both [ceil(H / 16), ceil(W / 16)].

    Each image is divided by its mean + .01. A pixel is wrong if the absolute difference, summed over channels, is above
    the .4 quantile; a patch if more than 85 % of its pixels are. Label 0 is none; then 1, 2, ... for each group of
    wrong patches that touch, at a corner at least.

    Args:
        render, truth: [H, W, 3], 0..1. mask: [H, W] or [H, W, 1], only pixels in it count.
    """
    # NumPy sums in one thread: the same bits for any number of them.
    images = [image.detach().double().cpu().numpy() for image in (render, truth)]
    used = np.isfinite(images[0]).all(-1) & np.isfinite(images[1]).all(-1)
    if mask is not None:
        used &= mask.reshape(mask.shape[:2]).cpu().numpy() != 0
    shape = tuple(-(-n // PATCH) for n in used.shape)
    if not used.any():
        return np.zeros(shape, np.int64), np.zeros(shape)
    a, b = (np.where(used[..., None], image, 0.0) / (image[used].mean() + 0.01) for image in images)
    error = np.abs(a - b).sum(-1)
    wrong = used & (error > np.quantile(error[used], QUANTILE))
    share, mean = pool(torch.from_numpy(np.stack([wrong, error])), PATCH).numpy()
    return ndimage.label(share > SHARE, structure=np.ones((3, 3)))[0], mean


@dataclass
class PaperStrategy(PaperOptions, AdcStrategy):
    """See the module. `info` of each step must hold `view` (index), `render` and `truth` ([H, W, 3], 0..1).

    All else is AdcStrategy's: statistics, sizes, pauses, global resets, the cap. With all four switches off, or without
    zones, it is AdcStrategy to the bit.
    """

    pause_refine_after_reset: int = 0
    densify: bool = True
    """Halve the gradient threshold inside zones."""
    insert: bool = True
    """Put a point at the centre of a zone that has none."""
    reset: bool = True
    """Lower the opacity of opaque points in front of zones."""
    prune: bool = True
    """Remove as many of the most transparent points as the halved threshold added."""
    Options: ClassVar[type] = PaperOptions
    group: ClassVar[str] = "paper"

    @classmethod
    def make(cls, common: Common, options: Any) -> PaperStrategy:
        """See PointStrategy."""
        return cls(**cls.arguments(common, options), **common.parts(), max_angle=options.max_angle)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.views: Views | None = None
        self.matcher: PairMatcher | None = None

    def attach(self, views: Views, points: Tensor | None = None, cache: Path | None = None) -> None:
        """Tells the training photos with their cameras; the rest is not used, but other strategies take it."""
        # Many features and a lenient ratio: the neighbour may be far off, and the cameras sort out most that is wrong.
        self.views = replace(views, capture_times=None)
        self.matcher = PairMatcher(self.views, features=4000, ratio=0.9)

    def step_post_backward(
        self,
        params: TrainedParameters,
        optimizers: Optimizers,
        state: dict[str, Any],
        step: int,
        info: dict[str, Any],
        packed: bool = False,
        lr: float | None = None,
    ) -> None:
        """See AdcStrategy. An event calls first _grow_gs and then _prune_gs."""
        self._info = info
        super().step_post_backward(params, optimizers, state, step, info, packed=packed, lr=lr)
        del self._info

    @torch.no_grad()
    def _grow_gs(
        self, params: TrainedParameters, optimizers: Optimizers, state: dict[str, Any], step: int
    ) -> tuple[int, int]:
        self._start = time.perf_counter()
        seen, zones = self._find_zones(step)
        n = len(params["means"])
        # gsplat edits every tensor in `state` along with the points, so these marks stay with theirs.
        state["inside"], state["front"] = self._place(params, seen, zones)
        inserted = self._insert(params, optimizers, state, zones) if self.insert else 0
        gradient = state["grad2d"] / state["count"].clamp_min(1)
        zone_only = state["inside"] & (gradient <= self.grow_grad2d)
        if self.densify:  # half the threshold is twice the gradient, also in the ranking under the cap
            state["grad2d"] = torch.where(state["inside"], 2 * state["grad2d"], state["grad2d"])
        state["row"] = torch.arange(len(gradient), device=gradient.device)
        cloned, split = super()._grow_gs(params, optimizers, state, step)
        row = state.pop("row")
        twice = torch.bincount(row, minlength=len(gradient)) > 1
        state["new"] = twice[row] | (row >= n)
        self._surplus = int((twice & zone_only).sum())
        self._event = EditRecord(
            step=step, seconds=0.0, views=seen, zones=[self._record(seen[0], zone) for zone in zones],
            cloned=cloned, split=split, inserted=inserted, pruned=0, reset=0, relocated=0, points=0,
            budget=self.max_points,
        )  # fmt: skip
        return cloned, split

    @torch.no_grad()
    def _prune_gs(self, params: TrainedParameters, optimizers: Optimizers, state: dict[str, Any], step: int) -> int:
        event = self._event
        event.pruned = super()._prune_gs(params, optimizers, state, step)
        if self.prune and self._surplus:
            old = (~state["new"]).nonzero().flatten()
            order = params["opacities"].flatten()[old].argsort(stable=True)
            lowest = torch.zeros_like(state["new"])
            lowest[old[order[: self._surplus]]] = True
            apply(edits.prune(_values(params), lowest), params, optimizers, state)
            event.pruned += int(lowest.sum())
        # Last, or else the points that were just reset would be the lowest.
        front = state["front"] & (torch.sigmoid(params["opacities"]).flatten() > RESET_OPACITY)
        event.reset = int(front.sum())
        if event.reset:
            apply(edits.reset_opacity(_values(params), front, RESET_OPACITY), params, optimizers, state)
        for mark in ("inside", "front", "new"):
            del state[mark]
        event.points, event.seconds = len(params["means"]), time.perf_counter() - self._start
        if self.on_event is not None:
            self.on_event(event, None)
        return event.pruned

    def _find_zones(self, step: int) -> tuple[list[int], list[Zone]]:
        """The view of this step and its neighbour, as far as there are any, and the zones of the view."""
        if self.views is None or self.matcher is None:
            self.messages.once("photos", "strategy paper: there are no photos to find zones with")
            return [], []
        view, info, views = int(self._info["view"]), self._info, self.views
        partner = self._neighbour(view, step)
        if partner is None:
            self.messages.once(
                "neighbour", f"strategy paper: no zones in view {view}, and maybe others: no other view looks in a "
                f"direction that differs by less than {self.max_angle:g} degrees, and not by 0",
            )  # fmt: skip
            return [view], []
        matches = self.matcher.pixels(view, partner).cpu()
        if len(matches) < FEWEST:
            self.messages.once(
                "matches", f"strategy paper: no zones in view {view}, and maybe others: {len(matches)} features match "
                f"with view {partner}; {FEWEST} are needed",
            )  # fmt: skip
        labels, errors = error_regions(info["render"], info["truth"], info.get("mask"))
        photo = views.images[view]
        size = np.array([photo.shape[1], photo.shape[0]])
        height, width = info["render"].shape[:2]
        patch = PATCH * size / (width, height)  # training may be at a smaller size than the photo
        column, row = (matches[:, 0].numpy() // patch).astype(np.int64).T
        label = labels[row.clip(0, labels.shape[0] - 1), column.clip(0, labels.shape[1] - 1)]
        zones = []
        for i, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
            there = matches[torch.from_numpy(label == i), 1]
            if len(there) < FEWEST:
                continue
            low, high = patch * (columns.start, rows.start), np.minimum(patch * (columns.stop, rows.stop), size)
            box, other = (*low.tolist(), *high.tolist()), (*there.amin(0).tolist(), *there.amax(0).tolist())
            corners = frustum_intersection(
                box, views.Ks[view], views.viewmats[view], other, views.Ks[partner], views.viewmats[partner]
            )
            if corners is None:
                continue
            centre, radius = bounding_sphere(corners)
            x, y = ((low + high) / 2).astype(np.int64)
            color = photo[y, x, :3].float() / (1 if photo.is_floating_point() else 255)
            error = float(errors[rows, columns][labels[rows, columns] == i].mean())
            zones.append(Zone(box, centre.to(views.viewmats), radius, error, color.nan_to_num(0.5)))
        return [view, partner], zones

    def _neighbour(self, view: int, step: int) -> int | None:
        """A random view that looks in a direction not too far from that of `view`, and not the same."""
        assert self.views is not None
        forward = self.views.viewmats[:, 2, :3]
        between = angle(forward[view], forward)
        possible = ((between > SAME) & (between < self.max_angle)).nonzero().flatten().tolist()
        return random.Random(f"{self.seed} {step}").choice(possible) if possible else None

    def _place(self, params: TrainedParameters, seen: list[int], zones: list[Zone]) -> tuple[Tensor, Tensor]:
        """[N] bool each: points inside a zone, and points to reset. Counts the points of each zone.

        In front of a zone is what the view sees in the region's box, closer to the camera than any of the sphere. It is
        reset if it is as opaque as the upper 30 % in the zone; where the zone has no point, nothing is.
        """
        means = params["means"].detach()
        inside = torch.zeros(len(means), dtype=torch.bool, device=means.device)
        front = inside.clone()
        if not zones:
            return inside, front
        assert self.views is not None
        viewmat, K = self.views.viewmats[seen[0]], self.views.Ks[seen[0]]
        camera = centres_of(viewmat)
        pixels, z = project(means, viewmat, K)
        x, y = pixels.unbind(-1)
        distance, opacity = (means - camera).norm(dim=-1), torch.sigmoid(params["opacities"]).flatten()
        for zone in zones:
            within = (means - zone.centre).norm(dim=-1) <= zone.radius
            zone.points = int(within.sum())
            inside |= within
            if self.reset and zone.points:
                x0, y0, x1, y1 = zone.box
                before = (z > 0) & (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
                before &= distance < (zone.centre - camera).norm() - zone.radius
                front |= before & (opacity >= opacity[within].quantile(OPAQUE))
        return inside, front

    def _insert(
        self, params: TrainedParameters, optimizers: Optimizers, state: dict[str, Any], zones: list[Zone]
    ) -> int:
        """Puts a point at the centre of each zone without one, worst first, as far as the cap allows."""
        empty = sorted((zone for zone in zones if zone.points == 0), key=lambda zone: -zone.error)
        if self.max_points is not None:
            empty = empty[: max(0, self.max_points - len(params["means"]))]
        if not empty:
            return 0
        means = torch.stack([zone.centre for zone in empty])
        rgb = torch.stack([zone.color for zone in empty]).to(means)
        # A third of the radius, but no larger than what 3DGS would split.
        size = means.new_tensor([zone.radius / 3 for zone in empty]).clamp(max=self.grow_scale3d * state["scene_scale"])
        harmonics = params["features_rest"].shape[1:]
        rows = {
            "means": means,
            "scales": size.log()[:, None].repeat(1, 3),
            "quats": means.new_tensor([[1.0, 0, 0, 0]]).repeat(len(means), 1),
            "features_dc": start_colors(rgb, harmonics[0] > 0),
            "features_rest": means.new_zeros(len(means), *harmonics),
            "opacities": means.new_full((len(means), 1), NEW_OPACITY).logit(),
        }
        apply(edits.insert(_values(params), rows), params, optimizers, state)
        return len(means)

    def _record(self, view: int, zone: Zone) -> ZoneRecord:
        assert self.views is not None
        viewmat, K = self.views.viewmats[view], self.views.Ks[view]
        _, z = project(zone.centre[None], viewmat, K)
        depths = z.new_tensor([max(float(z) - zone.radius, 1e-3 * zone.radius), float(z) + zone.radius])
        x0, y0, x1, y1 = zone.box
        pixels = z.new_tensor([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]).repeat(2, 1)
        corners = unproject(pixels, depths.repeat_interleave(4), viewmat, K)
        near, far = depths.tolist()
        box = (round(x0), round(y0), round(x1), round(y1))
        kind: ZoneKind = "under-resolved" if zone.points else "missing"
        return ZoneRecord(kind, view, box, (near, far), zone.error, zone.points, corners.tolist())


def _values(params: TrainedParameters) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in params.items()}
