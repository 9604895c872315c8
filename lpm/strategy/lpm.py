"""Localized point management (after Yang et al., CVPR 2025, arXiv 2406.04251): points are edited where the error is.

Every `refine_every` steps an event looks at a few training views, chosen by their error and by how long ago they were
looked at. Their worst tiles are given a depth by comparing the photos themselves. Where the render's surface stands in
front of that depth, the points in front lose their opacity (targeted reset); where nothing is there, points are
inserted; everywhere else points are added where the residuals are splatted onto (E_i), and points that paint next to
nothing make room for them. The number of points follows a growth curve that ends at the cap.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lpm import distributed
from lpm.checks import fail
from lpm.gaussians import edits
from lpm.multiview.photo_graph import PhotoGraph
from lpm.multiview.views import Views, centres_of
from lpm.render.losses import TileRequest
from lpm.strategy import width
from lpm.strategy.base import Live
from lpm.strategy.event import Event
from lpm.strategy.lpm_options import LpmFields
from lpm.strategy.requests import Requests, inside_any
from lpm.strategy.selection import around_cameras, lowest, surface_points, weighted_sample
from lpm.zones.error_maps import MAP_TILE, ErrorMaps, coarse, spread
from lpm.zones.find import Hull, find_zones
from lpm.zones.point_errors import Evidence, look
from lpm.zones.votes import Votes, zone_votes
from lpm.zones.zone import ViewZones, false_fronts

# What edits read and change. All other parameters follow the map of rows, and are copied once.
EDITED = ("means", "scales", "quats", "opacities", "features_dc")
GREY_LEVEL = 1 / 255
MARGIN = 0.03
"""Share of its depth by which a point stands in front of a zone."""
FIRST = 1e9
"""Weight of points whose edit was asked for, over the largest of the others: drawn before all of them."""


@dataclass
class LpmStrategy(LpmFields):
    """See the module. `info` of each step must hold `view` (index), `render` and `truth` ([H, W, 3], 0..1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.maps = ErrorMaps(tile=MAP_TILE)
        self.generator = torch.Generator()
        self.visited: dict[int, int] = {}
        self.first_points: int | None = None
        self.requests = Requests()
        self.asked: dict[str, Any] = {}
        self.hull: Hull | None = None
        self.photo_graph: PhotoGraph = None  # type: ignore[assignment]  # until attach()
        self.exchanged = -1

    def attach(self, views: Views, points: Tensor | None, cache: Path | None = None) -> None:
        """See PointStrategy. Photos are compared whenever they were taken: what is managed here stands still."""
        self._attach(replace(views, times=None), points, cache)

    def _attach(self, views: Views, points: Tensor | None, cache: Path | None) -> None:
        self.generator.manual_seed(self.seed)
        self.photo_graph = PhotoGraph(views, points, cache)

    def tile_request(self, view: int, size: tuple[int, int], mask: Tensor | None = None) -> TileRequest | None:
        """The next error map of the view, while points are edited."""
        return self.maps.request(view, size, mask)

    def live(self) -> Live:
        """All that a viewer can show and ask."""
        return Live(self.photo_graph.views, self.maps, self.requests, lambda name: vars(self)[name], self.flat)

    def initialize_state(self, scene_scale: float = 1.0) -> dict[str, Any]:
        """Running state: per point the step it was made or reset at, its votes, gradients, and pixels painted."""
        names = ("touched", "front", "front_before", "inside", "gradient", "painted", "looks")
        return {"scene_scale": scene_scale, **dict.fromkeys(names)}

    def check_sanity(self, params, optimizers) -> None:
        """Beside gsplat's own check: the parameters that edits are made on are there."""
        super().check_sanity(params, optimizers)
        missing = [name for name in (*EDITED, "features_rest") if name not in params]
        assert not missing, f"params: no {', '.join(missing)}; wanted the names of lpm.gaussians"

    def step_pre_backward(self, params, optimizers, state, step, info) -> None:
        """Asks for the gradient that is read after the backward pass."""
        if not self.absgrad:
            info[self.key_for_gradient].retain_grad()

    @torch.no_grad()
    def step_post_backward(self, params, optimizers, state, step, info, packed=False, lr=None) -> None:
        """Remembers the step's residual; at an event, edits. Points are kept from growing too wide to the very end."""
        if step < self.refine_stop_iter:
            self.gather(params, state, step, info)
            if step > self.refine_start_iter and step % self.refine_every == 0:
                self._event(params, optimizers, state, step)
        if self.widest > 0 and self.photo_graph is not None:
            viewmats, anew = self.photo_graph.views.viewmats, step % self.refine_every == 0
            width.hold(params, state, viewmats, self.widest, anew)

    @torch.no_grad()
    def gather(self, params, state, step, info) -> None:
        """Remembers the residual of a view, and how it moved the points."""
        if info.get("view") is None:
            fail("info['view']", "None", "the index of the training view", "hand it to the strategy in every step")
        if state["touched"] is None:
            means = params["means"]
            state["touched"] = torch.full((len(means),), -(10**6), device=means.device)
            for name in ("inside", "gradient", "painted", "looks"):
                state[name] = means.new_zeros(len(means))
            for name in ("front", "front_before"):
                state[name] = torch.zeros(len(means), dtype=torch.int64, device=means.device)
            self.first_points = len(params["means"]) if self.first_points is None else self.first_points
        means2d = info[self.key_for_gradient]
        gradient = means2d.absgrad if self.absgrad else means2d.grad
        if gradient is not None:
            x, y = gradient.reshape(-1, len(state["gradient"]), 2).unbind(-1)
            state["gradient"] += torch.hypot(x * info["width"], y * info["height"]).sum(0)
        self.maps.update(info["view"], step, info["render"], info["truth"], info.get("mask"), info.get("tiles"))

    def budget(self, step: int) -> int:
        """Points allowed at `step`: a straight line that ends at the cap at `growth_end` of the way."""
        assert self.first_points is not None
        most = 10 * self.first_points if self.max_points is None else self.max_points
        length = self.growth_end * (self.refine_stop_iter - self.refine_start_iter)
        done = min(1.0, max(0.0, (step - self.refine_start_iter) / length))
        return min(most, self.first_points + round(done * (most - self.first_points)))

    def _choose_views(self, event: Event) -> list[int]:
        """Half of an event's views at random by their mean error, half those that were looked at longest ago."""
        known = sorted(self.maps.maps)
        n = min(self.views_per_event, len(known))
        oldest = sorted(known, key=lambda v: (self.visited.get(v, -1), v))[: n - n // 2]
        rest = [v for v in known if v not in oldest]
        weights = torch.tensor([mean + 1e-8 for mean in self.maps.means(rest)])
        drawn = torch.multinomial(weights, n // 2, generator=self.generator).tolist() if n // 2 else []
        return oldest + [rest[i] for i in drawn]

    def _event(self, params, optimizers, state, step: int) -> None:
        start = time.perf_counter()
        if self.photo_graph is None:
            fail("views", "none", "the training photos and cameras", "call attach(views, points) before the first step")
        views, means = self.photo_graph.views, params["means"].detach()
        self._exchange(state)
        settings, forced, frozen = self.requests.take()
        for name, value in settings.items():
            setattr(self, name, value)
        self.asked |= settings
        wanted, untouched = (inside_any(regions, means, views.viewmats, views.Ks) for regions in (forced, frozen))
        for parameter in params.values():
            parameter.grad = None  # of no use after the edit: an event then needs no more memory than a step
        event = self._begin(Event(step, params, state, untouched, frozen))
        event.views = self._choose_views(event)
        event.evidence = [self._look(event, view) for view in event.views]
        self.visited.update({view: step for view in event.views})
        event.zones = self._find_zones(event)
        event.errors = [coarse(self.maps.maps[z.view], z.size, z.tile, self.maps.tile) for z in event.zones]
        event.votes = self._vote(event)
        seen = event.evidence
        for name, new in (("painted", [e.contribution for e in seen]), ("looks", [e.visible for e in seen])):
            state[name] = 0.8 * state[name] + torch.stack(new).sum(0)
        score = self._score(event).masked_fill(untouched, 0)
        event.score = torch.where(wanted & ~untouched, FIRST * (1 + score.max()), score)
        event.edit = self._edit(event)
        changes = event.finish(optimizers)
        if self.on_event is not None:
            self.on_event(event.record(time.perf_counter() - start, self.budget(step)), changes)

    def _begin(self, event: Event) -> Event:
        return event

    def _exchange(self, state) -> None:
        """What each process has seen since the last event, to all."""
        distributed.add([state[name] for name in self.summed])
        for seen, maps in distributed.gather(self.maps.since(self.exchanged)) if distributed.size() > 1 else []:
            self.maps.take(seen, maps)
        self.exchanged = max(self.maps.seen.values(), default=-1)

    def _edit(self, event: Event) -> edits.Edit:
        """The event's edit: targeted resets, removals, points where the photos see a surface, splits."""
        params, state, step, untouched, score = event.params, event.state, event.step, event.untouched, event.score
        assert score is not None
        assert event.votes is not None
        edit = edits.identity({name: params[name].detach() for name in self._edited(params)})
        opacity = torch.sigmoid(edit.params["opacities"]).flatten()
        rested = (state["touched"] < step - self.cooldown) & ~untouched
        if self.reset:
            mistaken = self._mistaken(params, state)
            score = score.masked_fill(mistaken, 0)
            mistaken &= rested & (opacity > self.reset_cap)
            event.counts["reset"] = int(mistaken.sum())
            edit = edits.then(edit, edits.reset_opacity(edit.params, mistaken, self.reset_cap))
            rested = rested & ~mistaken
        if self.prune:
            gone = (opacity < self.prune_opacity) & rested
            if self.clearance > 0:
                centres = centres_of(self.photo_graph.views.viewmats)
                p = edit.params
                gone |= around_cameras(p["means"], p["quats"], p["scales"], centres, self.clearance) & ~untouched
            more = round(self.recycle * len(gone)) - int(gone.sum()) if bool((score > 0).any()) else 0
            known = state["looks"] > 0.5
            painted = torch.where(known, self._worth(params, state), torch.inf)
            gone |= lowest(painted, rested & ~gone & known, more)
            # Only where there are more points than there may be: from the start, or since somebody asked for fewer.
            gone |= lowest(painted, ~gone & ~untouched, len(gone) - int(gone.sum()) - self.budget(step))
            room = max(0, self.budget(step) - int((~gone).sum()))
            gone |= self._give_way(event, painted, rested & ~gone & known, room)
            event.counts["pruned"] = int(gone.sum())
            edit = edits.then(edit, edits.prune(edit.params, gone))
        room = max(0, self.budget(step) - len(edit))
        if self.insert and room and event.zones:
            views, harmonics = self.photo_graph.views, params["features_rest"].shape[1] > 0
            rows, seen = surface_points(
                views, event.zones, event.errors, event.votes.counts, room, harmonics, self.sparse
            )
            if event.frozen:
                outside = ~inside_any(event.frozen, rows["means"], views.viewmats, views.Ks)
                rows, seen = {name: value[outside] for name, value in rows.items()}, seen[outside]
            rows = self._born(event, rows, seen)
            event.counts["inserted"] = len(rows["means"])
            edit = edits.then(edit, edits.insert(edit.params, rows))
        room = max(0, self.budget(step) - len(edit))
        if self.densify and room:
            mask = weighted_sample(torch.where(edit.source < 0, 0.0, score[edit.source]), room, self.generator)
            event.counts["split"] = int(mask.sum())
            edit = edits.then(edit, edits.long_axis_split(edit.params, mask, axes=2 if self.flat else 3))
        return edit

    def _give_way(self, event: Event, worth: Tensor, may_go: Tensor, room: int) -> Tensor:
        """[N] bool: which of `may_go` make room for births, of which `room` have it: none, they are few at a time."""
        return torch.zeros_like(may_go)

    def _score(self, event: Event) -> Tensor:
        """[N] how much a point asks to be split: by its error and its gradient."""
        if not self.densify or self.maps.worst() <= self.error_floor:  # nothing is bad: nothing asks for points
            return torch.zeros_like(event.state["gradient"])
        error = torch.stack([e.point_error for e in event.evidence]).sum(0)
        if self.random_places:
            return (error > 0).to(error)
        power = self.gradient_power
        return error ** (1 - power) * event.state["gradient"] ** power

    def _vote(self, event: Event) -> Votes:
        """Adds the votes of the views to the state; `counts` in the result are of points that are not nearly invisible.

        Votes "inside" are a sum that fades by a fifth an event. Votes "in front" are a bit for each view, so that a
        view that errs twice is still one view; they are forgotten after five to ten events.
        """
        state, zones = event.state, event.zones
        # Nothing in place: an event that fails for want of memory is undone by going back to the old tensors.
        state["inside"] = 0.8 * state["inside"] + self._votes(event, zones).inside
        if event.step // self.refine_every % 5 == 0:
            state["front_before"], state["front"] = state["front"], torch.zeros_like(state["front"])
        for view, errs in zip(zones, false_fronts(zones), strict=True):
            if self.reset and errs:
                state["front"] = state["front"] | self._votes(event, [view]).front.long() << view.view % 63
        return self._votes(event, zones, solid=True)

    def _votes(self, event: Event, zones: list[ViewZones], solid: bool = False) -> Votes:
        """What the zones say of all points, or of those only that are not nearly invisible."""
        means = event.params["means"].detach()
        if solid:
            opaque = torch.sigmoid(event.params["opacities"].detach()).flatten() > self.reset_cap
            means = torch.where(opaque[:, None], means, torch.nan)  # these get no vote, and nobody waits for how many
        return zone_votes(means, zones, MARGIN)

    def _mistaken(self, params, state) -> Tensor:
        """[N] bool: at least two views saw it in front of the surface, and none inside a zone for some events."""
        seen = state["front"] | state["front_before"]
        return ((seen & (seen - 1)) != 0) & (state["inside"] < 0.25)

    def _worth(self, params, state) -> Tensor:
        """[N] what is lost without a point: the pixels that it paints, a view."""
        return state["painted"] / state["looks"].clamp_min(1e-6)

    def _edited(self, params) -> tuple[str, ...]:
        return EDITED

    def _born(self, event: Event, rows: dict[str, Tensor], seen: Tensor) -> dict[str, Tensor]:
        """New rows with all that edits change; `seen` [M]: the view that each was found in."""
        return rows

    def _find_zones(self, event: Event) -> list[ViewZones]:
        """The zones of the views that are looked at; none, and why is said once, where the photos can tell no depth."""
        neighbours = self.photo_graph.neighbours(lambda v: self._depth(event, v))
        reason = self.photo_graph.why_no_zones()
        if reason is not None and self.hull is None:
            self.messages.once("zones", f"lpm: no zones, since {reason}: points are added by error alone.")
            return []
        first, last = self.bad_share
        done = (event.step - self.refine_start_iter) / max(1, self.refine_stop_iter - self.refine_start_iter)
        event.threshold = self.maps.bad_threshold(first + (last - first) * done, self.error_floor)
        most, hull = self.tiles_per_view * len(event.views), self.hull
        zones = find_zones(
            self.photo_graph, neighbours, event.views, self.maps, event.evidence, event.threshold, most, hull
        )
        if self.random_zones:
            for i, view in enumerate(zones):
                rows, columns = (int(torch.randint(n, (1,), generator=self.generator)) for n in view.near.shape)
                zones[i] = view.shifted(rows, columns)
        return zones

    def _look(self, event: Event, view: int, shrink: int = 2) -> Evidence:
        """What `view` says, from an image `shrink` times smaller: an error is known for tiles of pixels only."""
        views = self.photo_graph.views
        height, width = views.images[view].shape[:2]
        error = self.maps.maps.get(view, views.viewmats.new_zeros(1, 1))
        # Less than a grey level is no error.
        error = spread((error - GREY_LEVEL).clamp_min(0), (width, height), self.maps.tile)
        camera = (views.viewmats[view], views.Ks[view], (width, height))
        return look(event.at(view), *camera, error, self.rasterize_mode, self.flat, shrink)

    def _depth(self, event: Event, view: int) -> Tensor:
        """[h, w] z-depth of the rendered surface, world; NaN where there is none. For who sees what, coarse will do."""
        seen = self._look(event, view, shrink=4)
        return torch.where(seen.alpha > 0.5, seen.depth, torch.nan)

    def extra_state(self) -> dict[str, Any]:
        """What is not per point, for a checkpoint."""
        return {
            "photos": len(self.photo_graph.views),
            "maps": self.maps.state(), "visited": dict(self.visited), "first_points": self.first_points,
            "generator": self.generator.get_state(),
            "surroundings": self.photo_graph.state(), "asked": dict(self.asked), "frozen": self.requests.state(),
        }  # fmt: skip

    def load_extra_state(self, saved: dict[str, Any], device: torch.device | str) -> None:
        """Puts back what extra_state() gave; if it was made with other photos, only what does not speak of them."""
        self.first_points = saved["first_points"]
        self.generator.set_state(saved["generator"])
        self.asked = dict(saved.get("asked", {}))
        for name, value in self.asked.items():
            setattr(self, name, value)
        if saved["photos"] != len(self.photo_graph.views):
            self.messages.once("photos", "lpm: the checkpoint was made with other photos: errors are gathered anew.")
            return
        self.maps.load(saved["maps"], device)
        self.visited = dict(saved["visited"])
        self.photo_graph.load(saved["surroundings"])
        self.requests.load(saved.get("frozen", []))
