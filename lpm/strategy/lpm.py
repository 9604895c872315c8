"""Localized point management (after Yang et al., CVPR 2025, arXiv 2406.04251): points are edited where the error is.

Every `refine_every` steps an event looks at a few training views, chosen by their error and by how long ago they were
looked at. Their worst tiles are given a depth by comparing the photos themselves. Where the render's surface stands in
front of that depth, the points in front lose their opacity (targeted reset); where nothing is there, points are
inserted; everywhere else points are added where the residuals are splatted onto (E_i), more readily inside zones. The
number of points follows a growth curve that ends at the cap.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from gsplat.strategy.base import Strategy
from torch import Tensor

from lpm import edits
from lpm.correspond import Views, covisible, unproject
from lpm.error_maps import ErrorMaps
from lpm.evidence import Evidence, look
from lpm.find_zones import coarse, find_zones
from lpm.gaussians import rgb_to_sh0
from lpm.optim_state import apply
from lpm.records import EditRecord
from lpm.zones import FALSE_FRONT, MISSING, ViewZones, membership


@dataclass
class LpmStrategy(Strategy):
    """See the module. `info` of each step must hold `view` (index), `render` and `truth` ([H, W, 3], 0..1)."""

    max_points: int = 1_000_000
    """Points at the end of the growth curve; never exceeded."""
    refine_start_iter: int = 500
    """First step with an event."""
    refine_stop_iter: int = 15_000
    """Step after which there are no events."""
    refine_every: int = 100
    """Steps between events."""
    growth_end: float = 0.9
    """Where the growth curve ends, as a share of the steps between the first and the last event."""
    views_per_event: int = 6
    """Training views that an event looks at."""
    prune_opacity: float = 0.005
    """Points below this opacity are removed."""
    zone_boost: float = 3.0
    """How much more readily points inside a zone are split."""
    reset_cap: float = 0.05
    """Opacity of points after a targeted reset. Well above 1/255, below which a point never comes back."""
    reset_votes: float = 1.5
    """Sum of votes "in front" (one a view, fading by a fifth an event) that a reset takes: more than one view's."""
    cooldown: int = 500
    """Steps in which a point is not reset again, nor removed for being transparent."""
    bad_share: tuple[float, float] = (0.15, 0.05)
    """Share of all tiles that count as bad, at the first and at the last event."""
    error_floor: float = 0.02
    """Mean residual below which a tile is never bad."""
    densify: bool = True
    """Add points by E_i."""
    insert: bool = True
    """Add points where the photos see a surface and there is none."""
    reset: bool = True
    """Lower the opacity of points that stand in front of the surface."""
    prune: bool = True
    """Remove transparent points."""
    random_zones: bool = False
    """Placebo for comparisons: the zones that were found are moved to a random place of their view."""
    seed: int = 0
    """Of everything that is drawn at random."""
    rasterize_mode: str = "classic"
    absgrad: bool = True
    gradient_power: float = 0.5
    """How much the screen gradient (AbsGS) counts beside the error when points are chosen: 0 not at all, 1 alone."""
    on_event: Callable[[EditRecord], None] | None = None
    """Called with each event's record."""

    views: Views | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.maps = ErrorMaps(tile=8)
        self.generator = torch.Generator().manual_seed(self.seed)
        self.visited: dict[int, int] = {}
        self.first_points: int | None = None

    def attach(self, views: Views, points: Tensor | None) -> None:
        """Tells the training photos with their cameras, and the SfM points [N, 3] (world) if there are any."""
        self.views = views
        self.neighbours = covisible(views, points).neighbours

    def initialize_state(self, scene_scale: float = 1.0) -> dict[str, Any]:
        """Running state: per point the step it was made or reset at, and its votes for "in front" and "inside"."""
        return {"scene_scale": scene_scale, "touched": None, "front": None, "inside": None, "gradient": None}

    def step_pre_backward(self, params, optimizers, state, step, info) -> None:
        """Nothing is read from the backward pass."""

    @torch.no_grad()
    def step_post_backward(self, params, optimizers, state, step, info, packed=False, lr=None) -> None:
        """Remembers the step's residual; at an event, edits."""
        if step >= self.refine_stop_iter:
            return
        if state["touched"] is None:
            means = params["means"]
            state["touched"] = torch.full((len(means),), -(10**6), device=means.device)
            for name in ("front", "inside", "gradient"):
                state[name] = means.new_zeros(len(means))
            self.first_points = len(params["means"]) if self.first_points is None else self.first_points
        absolute = info["means2d"].absgrad
        state["gradient"] += (absolute * absolute.new_tensor([info["width"], info["height"]])).norm(dim=-1).sum(0)
        self.maps.update(info["view"], step, info["render"], info["truth"], info.get("mask"))
        if step > self.refine_start_iter and step % self.refine_every == 0:
            self._event(params, optimizers, state, step)

    def budget(self, step: int) -> int:
        """Points allowed at `step`: a straight line that ends at the cap at `growth_end` of the way."""
        assert self.first_points is not None
        length = self.growth_end * (self.refine_stop_iter - self.refine_start_iter)
        done = min(1.0, max(0.0, (step - self.refine_start_iter) / length))
        return min(self.max_points, self.first_points + round(done * (self.max_points - self.first_points)))

    def _choose_views(self) -> list[int]:
        """Half of an event's views at random by their mean error, half those that were looked at longest ago."""
        known = sorted(self.maps.maps)
        n = min(self.views_per_event, len(known))
        oldest = sorted(known, key=lambda v: (self.visited.get(v, -1), v))[: n - n // 2]
        rest = [v for v in known if v not in oldest]
        weights = torch.tensor([self.maps.mean(v) + 1e-8 for v in rest])
        drawn = torch.multinomial(weights, n // 2, generator=self.generator).tolist() if n // 2 else []
        return oldest + [rest[i] for i in drawn]

    def _event(self, params, optimizers, state, step: int) -> None:
        start = time.perf_counter()
        chosen = self._choose_views()
        evidence = [self._look(params, view) for view in chosen]
        self.visited.update({view: step for view in chosen})
        zones = self._find_zones(params, chosen, evidence, step)
        counts = self._vote(params, state, zones)

        before = {name: p.detach() for name, p in params.items()}
        edit = edits.identity(before)
        reset = self._mistaken(before, state, step) if self.reset else torch.zeros_like(edit.fresh)
        if self.reset:
            edit = edits.then(edit, edits.reset_opacity(edit.params, reset, self.reset_cap))
        faint = torch.zeros_like(reset)
        if self.prune:
            faint = torch.sigmoid(before["opacities"]).flatten() < self.prune_opacity
            faint &= state["touched"] < step - self.cooldown
            edit = edits.then(edit, edits.prune(edit.params, faint))
        room = max(0, self.budget(step) - len(edit))
        inserted = 0
        if self.insert and room:
            rows = self._missing_points(before, zones, counts, room)
            inserted = len(rows["means"])
            edit = edits.then(edit, edits.insert(edit.params, rows))
        split = 0
        if self.densify and room > inserted:
            error = torch.stack([e.point_error for e in evidence]).sum(0)
            power = self.gradient_power
            score = error ** (1 - power) * state["gradient"] ** power * (1 + self.zone_boost * state["inside"])
            mask = self._draw(torch.where(edit.source < 0, 0.0, score[edit.source]), room - inserted)
            split = int(mask.sum())
            edit = edits.then(edit, edits.long_axis_split(edit.params, mask))
        apply(edit, params, optimizers, state)
        state["gradient"].zero_()
        state["touched"][edit.fresh | edit.cleared] = step
        state["front"][edit.fresh | edit.cleared] = 0
        if self.on_event is not None:
            self.on_event(
                EditRecord(
                    step=step,
                    seconds=time.perf_counter() - start,
                    views=chosen,
                    zones=[r for z, c in zip(zones, counts, strict=True) for r in z.records(c[0], c[1])],
                    cloned=0,
                    split=split,
                    inserted=inserted,
                    pruned=int(faint.sum()),
                    reset=int(reset.sum()),
                    relocated=0,
                    points=len(params["means"]),
                    budget=self.budget(step),
                )
            )

    def _find_zones(self, params, chosen: list[int], evidence: list[Evidence], step: int) -> list[ViewZones]:
        assert self.views is not None
        first, last = self.bad_share
        done = (step - self.refine_start_iter) / max(1, self.refine_stop_iter - self.refine_start_iter)
        threshold = self.maps.bad_threshold(first + (last - first) * done, self.error_floor)
        zones = find_zones(self.views, self.neighbours, chosen, self.maps.maps, evidence, params, threshold)
        if self.random_zones:
            for i, view in enumerate(zones):
                rows, columns = (int(torch.randint(n, (1,), generator=self.generator)) for n in view.near.shape)
                zones[i] = view.shifted(rows, columns)
        return zones

    def _vote(self, params, state, zones: list[ViewZones]) -> list[tuple[Tensor, Tensor]]:
        """Adds the votes of each view's zones; returns per view the error and the points inside of each tile."""
        state["front"] *= 0.8
        state["inside"] *= 0.8
        counts = []
        for view in zones:
            inside, front, cell = membership(params["means"].detach(), view, margin=0.03)
            front &= view.kind.flatten()[cell] == FALSE_FRONT
            state["inside"] += inside
            state["front"] += front
            points = torch.zeros(view.near.numel(), device=inside.device).index_add_(0, cell, inside.float())
            counts.append((coarse(self.maps.maps[view.view], view.size, view.tile), points.reshape(view.near.shape)))
        return counts

    def _mistaken(self, params, state, step: int) -> Tensor:
        """[N] bool: points that several views saw in front of the surface, and none inside a zone."""
        opaque = torch.sigmoid(params["opacities"]).flatten() > self.reset_cap
        rested = state["touched"] < step - self.cooldown
        return (state["front"] >= self.reset_votes) & (state["inside"] < 0.5) & opaque & rested

    def _missing_points(self, params, zones: list[ViewZones], counts, most: int) -> dict[str, Tensor]:
        """Points for tiles where the photos see a surface and no point is: four a tile, as large as a quarter of it."""
        assert self.views is not None
        means, colors, sizes = [], [], []
        for view, (_, points) in zip(zones, counts, strict=True):
            wanted = ((view.kind == MISSING) | (view.kind == FALSE_FRONT)) & (points == 0)
            at = wanted.nonzero()
            depth = view.depth[wanted]
            image = self.views.images[view.view]
            for dy, dx in ((0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75)):
                x = ((at[:, 1] + dx) * view.tile).clamp(max=view.size[0] - 1)
                y = ((at[:, 0] + dy) * view.tile).clamp(max=view.size[1] - 1)
                where = torch.full_like(at[:, 0], view.view)
                pixels = torch.stack([x, y], 1)
                means.append(unproject(pixels, depth, self.views.viewmats[where], self.views.Ks[where]))
                color = image[y.long(), x.long(), :3].to(depth)
                colors.append(color / 255 if not image.is_floating_point() else color)
                sizes.append(0.25 * view.tile * depth / view.K[0, 0])
        xyz, rgb, size = torch.cat(means)[:most], torch.cat(colors)[:most], torch.cat(sizes)[:most]
        n = len(xyz)
        quats = torch.zeros(n, 4, device=xyz.device)
        quats[:, 0] = 1
        return {
            "means": xyz,
            "scales": size.clamp_min(1e-9).log()[:, None].repeat(1, 3),
            "quats": quats,
            "features_dc": rgb_to_sh0(rgb),
            "features_rest": xyz.new_zeros(n, *params["features_rest"].shape[1:]),
            "opacities": torch.full((n, 1), 0.1, device=xyz.device).logit(),
        }

    def _look(self, params, view: int) -> Evidence:
        assert self.views is not None
        size = (int(self.views.images[view].shape[1]), int(self.views.images[view].shape[0]))
        error, mode = self.maps.maps[view], self.rasterize_mode
        return look(params, self.views.viewmats[view], self.views.Ks[view], size, error, mode)

    def _draw(self, score: Tensor, n: int) -> Tensor:
        """Mask of at most n rows, drawn without replacement with probability by `score` [N]."""
        mask = torch.zeros_like(score, dtype=torch.bool)
        possible = int((score > 0).sum())
        if min(n, possible) == 0:
            return mask
        # Gumbel's trick (Efraimidis 2006): the n largest of score^(1/u) are such a sample; one sort, no host loop.
        uniform = torch.rand(len(score), generator=self.generator).to(score.device)
        key = torch.log(score.clamp_min(0)) - torch.log(-torch.log(uniform.clamp(1e-12, 1 - 1e-7)))
        mask[key.topk(min(n, possible)).indices] = True
        return mask

    def extra_state(self) -> dict[str, Any]:
        """What is not per point, for a checkpoint."""
        return {
            "maps": self.maps.state(), "visited": dict(self.visited), "first_points": self.first_points,
            "generator": self.generator.get_state(),
        }  # fmt: skip

    def load_extra_state(self, saved: dict[str, Any], device: torch.device | str) -> None:
        """Puts back what extra_state() gave."""
        self.maps.load(saved["maps"], device)
        self.visited, self.first_points = dict(saved["visited"]), saved["first_points"]
        self.generator.set_state(saved["generator"])
