"""The edit that an event ends with: targeted resets, removals, new points where photos see a surface, splits."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lpm.gaussians import edits, motion
from lpm.multiview.views import Views, centres_of
from lpm.strategy.births import Births
from lpm.strategy.event import Event
from lpm.strategy.false_fronts import FalseFronts, FalseFrontsInTime
from lpm.strategy.lpm4d_fields import Lpm4dFields
from lpm.strategy.lpm_fields import LpmFields
from lpm.strategy.scores import Scores
from lpm.strategy.selection import around_cameras, lowest, weighted_sample


@dataclass
class EventEdit:
    """Makes the edit out of what the other parts say."""

    settings: LpmFields
    views: Views
    fronts: FalseFronts
    scores: Scores
    births: Births
    generator: torch.Generator

    def make(self, event: Event) -> edits.Edit:
        """The edit of event.params, without what else follows; event.counts says what it is made of."""
        assert event.score is not None
        score = event.score
        edit = edits.identity({name: event.params[name].detach() for name in self.births.names(event.params)})
        opacity = torch.sigmoid(edit.params["opacities"]).flatten()
        rested = (event.state["touched"] < event.step - self.settings.cooldown) & ~event.untouched
        if self.settings.reset:
            mistaken = self.fronts.mistaken(event.params, event.state)
            score = score.masked_fill(mistaken, 0)
            mistaken &= rested & (opacity > self.settings.reset_cap)
            event.counts["reset"] = int(mistaken.sum())
            edit = edits.then(edit, edits.reset_opacity(edit.params, mistaken, self.settings.reset_cap))
            rested = rested & ~mistaken
        if self.settings.prune:
            gone = self._gone(event, edit.params, opacity, rested, bool((score > 0).any()))
            event.counts["pruned"] = int(gone.sum())
            edit = edits.then(edit, edits.prune(edit.params, gone))
        room = max(0, event.budget - len(edit))
        if self.settings.insert and room and event.zones:
            rows = self.births.rows(event, room)
            event.counts["inserted"] = len(rows["means"])
            edit = edits.then(edit, edits.insert(edit.params, rows))
        room = max(0, event.budget - len(edit))
        if self.settings.densify and room:
            mask = weighted_sample(torch.where(edit.source < 0, 0.0, score[edit.source]), room, self.generator)
            event.counts["split"] = int(mask.sum())
            edit = edits.then(edit, edits.long_axis_split(edit.params, mask, axes=2 if self.settings.flat else 3))
        return edit

    def _gone(self, event: Event, p: edits.Params, opacity: Tensor, rested: Tensor, recycle: bool) -> Tensor:
        """[N] bool: what is transparent, around a camera, paints least, or is in the way of births."""
        settings, untouched = self.settings, event.untouched
        gone = (opacity < settings.prune_opacity) & rested
        if settings.clearance > 0:
            centres = centres_of(self.views.viewmats)
            gone |= around_cameras(p["means"], p["quats"], p["scales"], centres, settings.clearance) & ~untouched
        more = round(settings.recycle * len(gone)) - int(gone.sum()) if recycle else 0
        known = event.state["looks"] > 0.5
        worth = torch.where(known, self.scores.worth(event.params, event.state), torch.inf)
        gone |= lowest(worth, rested & ~gone & known, more)
        # Only where there are more points than there may be: from the start, or since somebody asked for fewer.
        gone |= lowest(worth, ~gone & ~untouched, len(gone) - int(gone.sum()) - event.budget)
        room = max(0, event.budget - int((~gone).sum()))
        return gone | self.births.give_way(event, worth, rested & ~gone & known, room)


@dataclass
class EventEditInTime(EventEdit):
    """As EventEdit; a point that comes and goes is split in time, too, and one in the way is shortened first."""

    settings: Lpm4dFields
    fronts: FalseFrontsInTime

    def make(self, event: Event) -> edits.Edit:
        """See EventEdit; changes no parameter in place."""
        shorter = self.fronts.too_long(event.params, event.state) & ~event.untouched
        for name in ("front", "front_before"):  # their votes begin anew
            event.state[name] = torch.where(shorter, 0, event.state[name])
        edit = super().make(event)
        p = edit.params
        shorter = shorter[edit.source.clamp_min(0)] & (edit.source >= 0)
        p["durations"] = torch.where(shorter[:, None], p["durations"] - math.log(2.0), p["durations"])
        self._part_in_time(edit)
        return edit

    def _part_in_time(self, edit: edits.Edit) -> None:
        """Moves the two halves of each brief point that was split to both sides of its time."""
        p = edit.params
        brief = torch.sigmoid(p["gates"]).flatten() < 0.5
        children = (edit.fresh & (edit.source >= 0) & brief).nonzero().flatten()
        children = children[edit.source[children].argsort(stable=True)]  # the two of a pair, one after the other
        life = p["durations"][children].exp()
        sign = torch.ones_like(life)
        sign[1::2] = -1
        old = {name: value[children] for name, value in p.items()}
        new = motion.recentred(old, sign * life * self.settings.split_time)
        new["durations"] = old["durations"] + math.log(1 - self.settings.split_time / 3)
        for name, value in new.items():
            p[name] = p[name].index_put((children,), value)
