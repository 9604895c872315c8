"""Localized point management where things move: evidence, zones, births and resets know when as well as where.

What the published method has no mechanism for. Photos are compared only with photos of the same time. A tile that is
bad at four fifths of its camera's times or more is a static zone, any other a dynamic one, at its time. Points are
where they are at that time, and count only if they are there. A point that is born in a dynamic zone lives for a few
frames, and the first event makes many such births; points that stand in front of a surface are reset only if that was
seen at several times, and short lives are shortened first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from lpm import distributed
from lpm.checks import fail
from lpm.gaussians import edits, motion
from lpm.multiview.views import Views, project
from lpm.sending import sent
from lpm.strategy import motion_correction
from lpm.strategy.base import Live
from lpm.strategy.birth_velocity import velocity
from lpm.strategy.event import Event, EventInTime
from lpm.strategy.lpm import EDITED, MARGIN, LpmStrategy
from lpm.strategy.lpm4d_options import Lpm4dOptions
from lpm.strategy.selection import PER_TILE, lowest, sparse_tiles
from lpm.strategy.static_cameras import Cameras, hold_still
from lpm.zones.error_hull import error_hull
from lpm.zones.error_maps import TILE, coarse
from lpm.zones.point_errors import Evidence
from lpm.zones.votes import Votes, zone_votes
from lpm.zones.zone import ViewZones, false_fronts


@dataclass
class Lpm4dStrategy(Lpm4dOptions, LpmStrategy):
    """See the module. Parameters are those of lpm.gaussians and lpm.gaussians.motion; `views.times` must be there."""

    Options: ClassVar[type] = Lpm4dOptions
    summed: ClassVar[tuple[str, ...]] = ("gradient", "present")

    def attach(self, views: Views, points: Tensor | None, cache: Path | None = None) -> None:
        """See LpmStrategy; `views.times` [V] says when each photo was taken."""
        if views.times is None:
            fail("views.times", "none", "when each photo was taken, 0..1", "use the static method, lpm-splat")
        self.times = views.times
        self.moments = views.times.unique()
        self.clock = views.times.cpu()  # the host asks often, and would wait each time
        if self.zones_in_time == "time-blind":
            views = replace(views, times=None)
        self.same_time = [(self.clock == t).nonzero().flatten().tolist() for t in self.clock]
        if self.zones_in_time != "time-blind" and max(map(len, self.same_time)) > 1:
            self.hull = self._hull
        self.cameras = Cameras(views, len(self.moments), TILE, self.change)
        self._attach(views, points, cache)

    def live(self) -> Live:
        """As LpmStrategy's, with the times of the photos."""
        return replace(super().live(), times=self.times)

    def initialize_state(self, scene_scale: float = 1.0) -> dict[str, Any]:
        """As LpmStrategy's, with the times of votes and how much of a point was there."""
        more = ("present", "when", "when_before", "calm")
        return super().initialize_state(scene_scale) | dict.fromkeys(more)

    def step_pre_backward(self, params, optimizers, state, step, info) -> None:
        """Remembers, too, when points are there and how they move."""
        super().step_pre_backward(params, optimizers, state, step, info)
        self.before = motion_correction.before(params)

    @torch.no_grad()
    def step_post_backward(self, params, optimizers, state, step, info, packed=False, lr=None) -> None:
        """After the optimizer's step. Remembers, too, how much of every point was there at the step's time."""
        motion_correction.correct(params, self.before)
        n, device = len(params["means"]), params["means"].device
        params["durations"].data.clamp_(min=math.log(self.shortest * self._frame()))
        if info.get("view") is not None:
            if state["present"] is None:
                state["present"] = torch.zeros(n, device=device)
                for name in ("when", "when_before"):
                    state[name] = torch.zeros(n, dtype=torch.int64, device=device)
            if state.get("calm") is None:
                state["calm"] = self._calm(params)
            there = motion.weight_at(params, self.times[info["view"]]).detach()
            state["present"] += there
            distributed.average([there])  # each process sees another time, and all are to stay the same
            share = torch.where(state["calm"], self.calm_hold, self.hold) * there
            rates = {name: optimizers[name].param_groups[0]["lr"] for name in ("motion", "gates")}
            hold_still(params, rates["motion"] * share, rates["gates"] * share * state["calm"])
        super().step_post_backward(params, optimizers, state, step, info, packed, lr)

    def _calm(self, params) -> Tensor:
        """[N] bool: points where the photos never change; none where zones know nothing of time."""
        if not self._knows_when():
            return torch.zeros(len(params["means"]), dtype=torch.bool, device=params["means"].device)
        return self.cameras.calm(params["means"].detach())

    def _event(self, params, optimizers, state, step: int) -> None:
        super()._event(params, optimizers, state, step)
        state["present"].zero_()
        state["calm"] = self._calm(params)

    def _begin(self, event: Event) -> EventInTime:
        first = self._knows_when() and event.step <= self.refine_start_iter + self.refine_every
        return EventInTime(**vars(event), times=self.times, clock=self.clock.tolist(), first=first)

    def _choose_views(self, event: EventInTime) -> list[int]:  # type: ignore[override]
        """At the first event photos of all times, by cameras that stand still, since each may show what no other does;
        then as LpmStrategy."""
        known = [v for v in self.maps.maps if event.first and self.cameras.stands(v)]
        event.first = bool(known)  # where no camera stands still nobody knows what moves
        if not event.first:
            return super()._choose_views(event)
        known.sort(key=lambda v: (float(self.clock[v]), v))
        n = min(self.first_views, len(known))
        edges = [i * len(known) // n for i in range(n + 1)]
        drawn = torch.rand(n, generator=self.generator).tolist()
        return [known[a + int(u * (b - a))] for (a, b), u in zip(pairwise(edges), drawn, strict=True)]

    def _look(self, event: EventInTime, view: int, shrink: int = 2) -> Evidence:  # type: ignore[override]
        event.there.append(motion.weight_at(event.params, self.times[view]).detach())
        return super()._look(event, view, shrink)

    def _depth(self, event: EventInTime, view: int) -> Tensor:  # type: ignore[override]
        """As LpmStrategy's; of a camera that stands still once an event: who sees what hardly depends on the time."""
        camera = self.cameras.same[view][0]
        if camera not in event.depths:
            event.depths[camera] = super()._depth(event, view)
        return event.depths[camera]

    def _score(self, event: EventInTime) -> Tensor:  # type: ignore[override]
        """As LpmStrategy's, of a point's error and gradient for the time that it is there."""
        there = torch.stack(event.there[: len(event.evidence)]).mean(0).clamp_min(0.05)
        present = event.state["present"]
        present = present.clamp_min(0.05 * float(present.max()) + 1e-6)
        power = self.gradient_power
        return super()._score(event) / (there ** (1 - power) * present**power)

    def _find_zones(self, event: Event) -> list[ViewZones]:
        return [] if self.zones_in_time == "none" else super()._find_zones(event)

    def _hull(
        self, view: int, threshold: float, pixels: Tensor, near: Tensor, far: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Depths by the errors of the other cameras of the same time."""
        views = self.photo_graph.views
        others = [v for v in self.same_time[view] if v != view and v in self.maps.maps]
        sizes = [(views.images[v].shape[1], views.images[v].shape[0]) for v in others]
        maps = [coarse(self.maps.maps[v], size, TILE, self.maps.tile) for v, size in zip(others, sizes, strict=True)]
        return error_hull(views, view, others, maps, TILE, threshold, pixels, near, far)

    def _votes(self, event: Event, zones: list[ViewZones], solid: bool = False) -> Votes:
        if self.zones_in_time == "time-blind":
            return super()._votes(event, zones, solid)
        inside, front = (torch.zeros_like(event.params["means"][:, 0]) for _ in range(2))
        counts = []
        for zone in zones:
            points = event.at(zone.view)
            opaque = torch.sigmoid(points["opacities"]).flatten()
            there = opaque > (self.reset_cap / 2 if solid else 2e-6)  # 1e-6: not there
            # Places that are not finite get no vote, and nobody waits for how many there are.
            votes = zone_votes(torch.where(there[:, None], points["means"], torch.nan), [zone], MARGIN)
            inside += votes.inside
            front += votes.front
            counts += votes.counts
        return Votes(inside, front, counts)

    def _vote(self, event: Event) -> Votes:
        """As LpmStrategy's; and remembers the times at which a point was seen in front of a surface."""
        state = event.state
        if event.step // self.refine_every % 5 == 0:
            state["when_before"], state["when"] = state["when"], torch.zeros_like(state["when"])
        for zone, errs in zip(event.zones, false_fronts(event.zones), strict=True):
            if not errs:
                continue
            moment = self._moment(zone.view)
            state["when"] = state["when"] | self._votes(event, [zone]).front.gt(0).long() << moment % 63
        return super()._vote(event)

    def _edit(self, event: Event) -> edits.Edit:
        """As LpmStrategy's; a point that comes and goes is split in time, too."""
        shorter = self._too_long(event.params, event.state) & ~event.untouched
        for name in ("front", "front_before"):  # their votes begin anew
            event.state[name] = torch.where(shorter, 0, event.state[name])
        edit = super()._edit(event)
        p = edit.params
        shorter = shorter[edit.source.clamp_min(0)] & (edit.source >= 0)
        p["durations"] = torch.where(shorter[:, None], p["durations"] - math.log(2.0), p["durations"])
        brief = torch.sigmoid(p["gates"]).flatten() < 0.5
        children = (edit.fresh & (edit.source >= 0) & brief).nonzero().flatten()
        children = children[edit.source[children].argsort(stable=True)]  # the two of a pair, one after the other
        life = p["durations"][children].exp()
        sign = torch.ones_like(life)
        sign[1::2] = -1
        old = {name: value[children] for name, value in p.items()}
        new = motion.recentred(old, sign * life * self.split_time)
        new["durations"] = old["durations"] + math.log(1 - self.split_time / 3)
        for name, value in new.items():
            p[name] = p[name].index_put((children,), value)
        return edit

    def _give_way(self, event: EventInTime, worth: Tensor, may_go: Tensor, room: int) -> Tensor:  # type: ignore[override]
        """At the first event what paints least where something moves makes room for as many births as the dynamic zones
        of all times ask for: what a scene starts from stands still, and is wrong there."""
        if not (event.first and self.insert):
            return super()._give_way(event, worth, may_go, room)
        assert event.votes is not None
        asking = [
            (sparse_tiles(zone, inside, self.sparse) & ~self._static_tiles(event, zone.view)).sum()
            for zone, inside in zip(event.zones, event.votes.counts, strict=True)
        ]
        tiles = int(torch.stack(asking).sum()) if asking else 0
        births = min(PER_TILE * tiles, round(self.first_births * len(worth)))
        return lowest(worth, may_go & ~event.state["calm"], births - room)

    def _knows_when(self) -> bool:
        """Whether zones are static or dynamic."""
        return self.zones_in_time in ("same-time", "calibrated")

    def _moment(self, view: int) -> int:
        """Which of the moments a view was taken at."""
        return int(torch.searchsorted(self.clock.unique(), self.clock[view]))

    def _frame(self) -> float:
        """Time from one frame to the next."""
        return 1.0 / max(1, len(self.moments) - 1)

    def _short(self, params) -> tuple[Tensor, Tensor]:
        """[N] temporal standard deviation, and [N] whether a point lives for a few frames only."""
        life = params["durations"].detach().exp().flatten()
        brief = torch.sigmoid(params["gates"].detach()).flatten() < 0.5
        return life, brief & (life < 2 * self.life * self._frame())

    def _too_long(self, params, state) -> Tensor:
        """[N] bool: short-lived points that stand in front of the surface, and whose life can be halved."""
        life, short = self._short(params)
        if not self.reset or self.zones_in_time != "calibrated":
            return torch.zeros_like(short)
        return super()._mistaken(params, state) & short & (life > self._frame())

    def _mistaken(self, params, state) -> Tensor:
        """A long-lived point must have been seen in front at several times."""
        mistaken = super()._mistaken(params, state)
        if self.zones_in_time != "calibrated":
            return mistaken
        bits = state["when"] | state["when_before"]
        times = sum(bits >> k & 1 for k in range(min(63, len(self.moments))))
        assert isinstance(times, Tensor)
        return mistaken & (self._short(params)[1] | (times >= min(self.times_to_reset, len(self.moments))))

    def _worth(self, params, state) -> Tensor:
        """What a point paints in a view times how long it is there, as its place (0..1) within its class.

        Static and moving points are compared with their own kind: a point that lives for a few frames paints little
        over the whole clip, and would always be the first to go.
        """
        gate = torch.sigmoid(params["gates"].detach()).flatten()
        life = (2.5 * params["durations"].detach().exp().flatten()).clamp_max(1.0)
        worth = super()._worth(params, state) * (gate + (1 - gate) * life)
        place = torch.empty_like(worth)
        for group in (gate > 0.5, gate <= 0.5):
            rows = group.nonzero().flatten()
            order = worth[rows].argsort(stable=True)
            place[rows[order]] = torch.linspace(0, 1, len(rows), device=worth.device)
        return place

    def _edited(self, params) -> tuple[str, ...]:
        return (*EDITED, *motion.NAMES, *([motion.SPINS] if motion.SPINS in params else []))

    def _born(self, event: EventInTime, rows: dict[str, Tensor], seen: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        """New rows stand still in static zones; in dynamic ones they live around the zone's time, and move."""
        params = event.params
        n, degree, device = len(seen), params["motion"].shape[1], params["means"].device
        rows = rows | {name: sent(value, device) for name, value in motion.still(n, degree).items()}
        if motion.SPINS in params:
            rows[motion.SPINS] = torch.zeros(n, 4, device=device)
        if self.zones_in_time == "time-blind":
            return rows
        for v in seen.unique().tolist():
            mine = (seen == v).nonzero().flatten()
            mine = mine[~self._in_static_zone(event, rows["means"][mine], v)]
            t = self.times[v]
            rows["times"][mine] = t
            rows["durations"][mine] = math.log(self.life * self._frame())
            rows["gates"][mine] = math.log(motion.MOVING_GATE / (1 - motion.MOVING_GATE))
            frames = [(float(self.clock[other] - self.clock[v]), other) for other in self.cameras.same[v]]
            rows["motion"][mine, 0] = velocity(params, self.photo_graph.views, rows["means"][mine], v, t, frames)
        return rows

    def _in_static_zone(self, event: EventInTime, means: Tensor, view: int) -> Tensor:
        """[M] whether the tile that each of `means` is seen in is a static zone."""
        views, static = self.photo_graph.views, self._static_tiles(event, view)
        pixels, _ = project(means, views.viewmats[view], views.Ks[view])
        column, row = (pixels / TILE).long().unbind(-1)
        return static[row.clamp(0, static.shape[0] - 1), column.clamp(0, static.shape[1] - 1)]

    def _static_tiles(self, event: EventInTime, view: int) -> Tensor:
        """[rows, columns] bool: tiles that are bad at most times of the camera of `view`."""
        camera = self.cameras.same[view][0]
        if camera not in event.static:
            event.static[camera] = self._find_static_tiles(view, event.threshold)
        return event.static[camera]

    def _find_static_tiles(self, view: int, threshold: float) -> Tensor:
        views = self.photo_graph.views
        height, width = views.images[view].shape[:2]
        maps = [coarse(self.maps.maps[v], (width, height), TILE, self.maps.tile)
                for v in self.cameras.same[view] if v in self.maps.maps]  # fmt: skip
        share = (torch.stack(maps) > threshold).float().mean(0)
        # A camera that moves, or was there once, cannot tell.
        static = (share >= self.static_share) & (len(maps) > 1)
        return static | ~self.cameras.changing(view) if self.cameras.stands(view) else static
