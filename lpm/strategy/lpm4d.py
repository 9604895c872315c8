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
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from lpm import distributed, edits, motion, motion_steps
from lpm.births import velocity
from lpm.checks import fail
from lpm.correspond import Views
from lpm.error_hull import error_hull
from lpm.error_maps import coarse
from lpm.evidence import Evidence
from lpm.proposals import PER_TILE, lowest, sparse_tiles
from lpm.stillness import Cameras, hold_still
from lpm.strategy.lpm import EDITED, MARGIN, LpmStrategy
from lpm.views import project
from lpm.votes import Votes, zone_votes
from lpm.zones import FALSE_FRONT, ViewZones

SLICES = 16
"""Moments of which an event keeps the points as they are then."""
ZonesInTime = Literal["none", "time-blind", "same-time", "calibrated"]


@dataclass
class Lpm4dStrategy(LpmStrategy):
    """See the module. Parameters are those of lpm.gaussians and lpm.motion; `views.times` must be there."""

    views_per_event: int = 12
    """Twice as many as of a static scene: a moment is seen in few of them."""
    widest: float = 0.0
    """No limit: what it does to scenes that move was not measured."""
    zones_in_time: ZonesInTime = "calibrated"
    """none: points are added by error alone. time-blind: zones as in a static scene, whatever the time. same-time: of
    photos of one time. calibrated: and resets need several times."""
    life: float = 2.5
    """Temporal standard deviation of points that are born in a dynamic zone, in frames."""
    shortest: float = 1.0
    """No point lives shorter than this temporal standard deviation, in frames: no photo could tell."""
    static_share: float = 0.8
    """A tile that is bad at this share of its camera's times is a static zone."""
    change: float = 0.06
    """Grey levels (0..1) by which photos of one camera must differ somewhere in a tile for it to be a dynamic zone."""
    hold: float = 0.1
    """Pull of a point's motion towards none in a step, as a share of its learning rate: what photos do not ask for
    again and again stands still."""
    calm_hold: float = 1.0
    """The same of points where the photos never change, and of their gates towards being there all the time."""
    split_time: float = 0.5
    """How far in time, in its standard deviations, the halves of a split point go that comes and goes."""
    times_to_reset: int = 3
    """Times at which a long-lived point was seen in front of the surface before it is reset."""
    first_views: int = 96
    """Photos that the first event looks at, evenly spread over the clip."""
    first_births: float = 0.25
    """Share of the points that make room at the first event for births where something moves."""

    summed: ClassVar[tuple[str, ...]] = ("gradient", "present")

    def attach(self, views: Views, points: Tensor | None, cache: Path | None = None) -> None:
        """See LpmStrategy; `views.times` [V] says when each photo was taken."""
        if views.times is None:
            fail("views.times", "none", "when each photo was taken, 0..1", "use the static method, lpm-splat")
        self.times = views.times
        self.moments = views.times.unique()
        if self.zones_in_time == "time-blind":
            views = replace(views, times=None)
        self.same_time = [(self.times == t).nonzero().flatten().tolist() for t in self.times]
        if self.zones_in_time != "time-blind" and max(map(len, self.same_time)) > 1:
            self.hull = self._hull
        self.cameras = Cameras(views, len(self.moments), 2 * self.maps.tile, self.change)
        super().attach(views, points, cache)

    def initialize_state(self, scene_scale: float = 1.0) -> dict[str, Any]:
        """As LpmStrategy's, with the times of votes and how much of a point was there."""
        more = ("present", "when", "when_before", "calm")
        return super().initialize_state(scene_scale) | dict.fromkeys(more)

    def step_pre_backward(self, params, optimizers, state, step, info) -> None:
        """Remembers, too, when points are there and how they move."""
        super().step_pre_backward(params, optimizers, state, step, info)
        self.before = motion_steps.before(params)

    @torch.no_grad()
    def step_post_backward(self, params, optimizers, state, step, info, packed=False, lr=None) -> None:
        """After the optimizer's step. Remembers, too, how much of every point was there at the step's time."""
        motion_steps.correct(params, self.before)
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
        self.there: list[Tensor] = []
        self.static: dict[int, Tensor] = {}
        self.slices: dict[float, Any] = {}
        self.depths: dict[int, Tensor] = {}
        self.first = self._knows_when() and step <= self.refine_start_iter + self.refine_every
        try:
            super()._event(params, optimizers, state, step)
        finally:  # an event may fail for want of memory
            self.slices.clear()
            self.depths.clear()
        state["present"].zero_()
        state["calm"] = self._calm(params)

    def _choose_views(self) -> list[int]:
        """At the first event photos of all times, by cameras that stand still, since each may show what no other does;
        then as LpmStrategy."""
        known = [v for v in self.maps.maps if self.first and self.cameras.stands(v)]
        self.first = bool(known)  # where no camera stands still nobody knows what moves
        if not self.first:
            return super()._choose_views()
        known.sort(key=lambda v: (float(self.times[v]), v))
        n = min(self.first_views, len(known))
        edges = [i * len(known) // n for i in range(n + 1)]
        drawn = torch.rand(n, generator=self.generator).tolist()
        return [known[a + int(u * (b - a))] for (a, b), u in zip(pairwise(edges), drawn, strict=True)]

    def _at(self, params, view: int) -> Any:
        """As `view` sees them; an event asks many times for the same few moments."""
        t = float(self.times[view])
        if t not in self.slices:
            if len(self.slices) >= SLICES:
                self.slices.pop(next(iter(self.slices)))
            self.slices[t] = motion.frozen_at(params, t)
        return self.slices[t]

    def _look(self, params, view: int, shrink: int = 2) -> Evidence:
        self.there.append(motion.weight_at(params, self.times[view]).detach())
        return super()._look(params, view, shrink)

    def _depth(self, params, view: int) -> Tensor:
        """As LpmStrategy's; of a camera that stands still once an event: who sees what hardly depends on the time."""
        camera = self.cameras.same[view][0]
        if camera not in self.depths:
            self.depths[camera] = super()._depth(params, view)
        return self.depths[camera]

    def _score(self, state, evidence: list[Evidence]) -> Tensor:
        """As LpmStrategy's, of a point's error and gradient for the time that it is there."""
        there = torch.stack(self.there[: len(evidence)]).mean(0).clamp_min(0.05)
        present = state["present"].clamp_min(0.05 * float(state["present"].max()) + 1e-6)
        power = self.gradient_power
        whole = super()._score(state, evidence)
        return whole / (there ** (1 - power) * present**power)

    def _find_zones(self, params, chosen: list[int], evidence: list[Evidence], step: int) -> list[ViewZones]:
        if self.zones_in_time == "none":
            return []
        return super()._find_zones(params, chosen, evidence, step)

    def _hull(
        self, view: int, threshold: float, pixels: Tensor, near: Tensor, far: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Depths by the errors of the other cameras of the same time."""
        views, tile = self.surroundings.views, 2 * self.maps.tile
        others = [v for v in self.same_time[view] if v != view and v in self.maps.maps]
        sizes = [(views.images[v].shape[1], views.images[v].shape[0]) for v in others]
        maps = [coarse(self.maps.maps[v], size, tile, self.maps.tile) for v, size in zip(others, sizes, strict=True)]
        return error_hull(views, view, others, maps, tile, threshold, pixels, near, far)

    def _votes(self, params, zones: list[ViewZones], solid: bool = False) -> Votes:
        if self.zones_in_time == "time-blind":
            return super()._votes(params, zones, solid)
        inside, front = (torch.zeros(len(params["means"]), device=params["means"].device) for _ in range(2))
        counts = []
        for zone in zones:
            points = self._at(params, zone.view)
            opaque = torch.sigmoid(points["opacities"]).flatten()
            rows = (opaque > (self.reset_cap / 2 if solid else 2e-6)).nonzero().flatten()  # 1e-6: not there
            votes = zone_votes(points["means"][rows], [zone], MARGIN)
            inside[rows] += votes.inside
            front[rows] += votes.front
            counts += votes.counts
        return Votes(inside, front, counts)

    def _vote(self, params, state, step: int, zones: list[ViewZones]) -> Votes:
        if step // self.refine_every % 5 == 0:
            state["when_before"], state["when"] = state["when"], torch.zeros_like(state["when"])
        for zone in zones:
            if not bool((zone.kind == FALSE_FRONT).any()):
                continue
            moment = int(torch.searchsorted(self.moments, self.times[zone.view]))
            state["when"] = state["when"] | self._votes(params, [zone]).front.gt(0).long() << moment % 63
        return super()._vote(params, state, step, zones)

    def _edit(self, params, state, *rest) -> tuple[edits.Edit, dict[str, int]]:
        """As LpmStrategy's; a point that comes and goes is split in time, too."""
        untouched = rest[-2]
        shorter = self._too_long(params, state) & ~untouched
        for name in ("front", "front_before"):  # their votes begin anew
            state[name] = torch.where(shorter, 0, state[name])
        edit, counts = super()._edit(params, state, *rest)
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
        return edit, counts

    def _give_way(
        self, state, worth: Tensor, may_go: Tensor, zones: list[ViewZones], votes: Votes, room: int
    ) -> Tensor:
        """At the first event what paints least where something moves makes room for as many births as the dynamic zones
        of all times ask for: what a scene starts from stands still, and is wrong there."""
        if not (self.first and self.insert):
            return super()._give_way(state, worth, may_go, zones, votes, room)
        tiles = sum(
            int((sparse_tiles(zone, inside, self.sparse) & ~self._static_tiles(zone.view)).sum())
            for zone, inside in zip(zones, votes.counts, strict=True)
        )
        births = min(PER_TILE * tiles, round(self.first_births * len(worth)))
        return lowest(worth, may_go & ~state["calm"], births - room)

    def _knows_when(self) -> bool:
        """Whether zones are static or dynamic."""
        return self.zones_in_time in ("same-time", "calibrated")

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

    def _born(self, params, rows: dict[str, Tensor], seen: Tensor) -> dict[str, Tensor]:
        """New rows stand still in static zones; in dynamic ones they live around the zone's time, and move."""
        n, degree, device = len(seen), params["motion"].shape[1], params["means"].device
        rows = rows | {name: value.to(device) for name, value in motion.still(n, degree).items()}
        if motion.SPINS in params:
            rows[motion.SPINS] = torch.zeros(n, 4, device=device)
        if self.zones_in_time == "time-blind":
            return rows
        for v in seen.unique().tolist():
            mine = (seen == v).nonzero().flatten()
            mine = mine[~self._in_static_zone(rows["means"][mine], v)]
            t = self.times[v]
            rows["times"][mine] = t
            rows["durations"][mine] = math.log(self.life * self._frame())
            rows["gates"][mine] = math.log(motion.MOVING_GATE / (1 - motion.MOVING_GATE))
            frames = [(float(self.times[other] - t), other) for other in self.cameras.same[v]]
            rows["motion"][mine, 0] = velocity(params, self.surroundings.views, rows["means"][mine], v, t, frames)
        return rows

    def _in_static_zone(self, means: Tensor, view: int) -> Tensor:
        """[M] whether the tile that each of `means` is seen in is a static zone."""
        views, static = self.surroundings.views, self._static_tiles(view)
        pixels, _ = project(means, views.viewmats[view], views.Ks[view])
        column, row = (pixels / (2 * self.maps.tile)).long().unbind(-1)
        return static[row.clamp(0, static.shape[0] - 1), column.clamp(0, static.shape[1] - 1)]

    def _static_tiles(self, view: int) -> Tensor:
        """[rows, columns] bool: tiles that are bad at most times of the camera of `view`."""
        camera = self.cameras.same[view][0]
        if camera not in self.static:
            self.static[camera] = self._find_static_tiles(view)
        return self.static[camera]

    def _find_static_tiles(self, view: int) -> Tensor:
        views, tile = self.surroundings.views, 2 * self.maps.tile
        height, width = views.images[view].shape[:2]
        maps = [coarse(self.maps.maps[v], (width, height), tile, self.maps.tile)
                for v in self.cameras.same[view] if v in self.maps.maps]  # fmt: skip
        share = (torch.stack(maps) > self.threshold).float().mean(0)
        # A camera that moves, or was there once, cannot tell.
        static = (share >= self.static_share) & (len(maps) > 1)
        return static | ~self.cameras.changing(view) if self.cameras.stands(view) else static
