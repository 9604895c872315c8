"""Births before a surface that another photo shows: what tells that there is nothing, and when."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from wall_scene import WALL, photos, wall

from lpm.strategy.seen_through import seen_through
from lpm.zones.error_maps import TILE, ErrorMaps
from lpm.zones.find import find_zones
from lpm.zones.zone import ViewZones

K = torch.tensor([[100.0, 0, 24], [0, 100, 16], [0, 0, 1]])
BAD = 0.5


def zones_at(view, depth, x=0.0):
    """2 x 3 tiles of 16 pixels at z-`depth`, of a camera that stands at `x` and looks along z."""
    viewmat = torch.eye(4)
    viewmat[0, 3] = -x
    depths = torch.full((2, 3), depth)
    kind = torch.zeros(2, 3, dtype=torch.int64)
    return ViewZones(view, viewmat, K, (48, 32), 16, depths, depths, depths, np.ones((2, 3), int), kind)


def looked_at(place=2.0, drawn=4.0, alpha=1.0, error=0.1):
    """Camera 0 takes a surface to be at z = `place`; camera 1, a fifth aside, draws one at `drawn`."""
    zones = [zones_at(0, place), zones_at(1, torch.nan, x=0.2)]
    evidence = [
        SimpleNamespace(depth=torch.full((16, 24), d), alpha=torch.full((16, 24), alpha)) for d in (place, drawn)
    ]
    errors = [torch.full((2, 3), 1.0), torch.full((2, 3), error)]
    return SimpleNamespace(zones=zones, evidence=evidence, errors=errors, threshold=BAD)


def asked(event, times=(0.0, 0.0), static=False):
    return seen_through(event, torch.tensor(times), [torch.full((2, 3), static)] * 2)


def test_a_place_before_what_another_photo_shows_rightly():
    mine, other = asked(looked_at())
    # Camera 1 sees z = 2 ten pixels to the left: the middles of the left tiles, at 8 pixels, are outside.
    assert mine.tolist() == [[False, True, True]] * 2
    assert not other.any()  # where no depth is known nothing is contradicted


@pytest.mark.parametrize(
    "event",
    [
        looked_at(drawn=2.1),  # the surface itself
        looked_at(drawn=1.0),  # hidden from it
        looked_at(error=0.9),  # what it draws is wrong there
        looked_at(alpha=0.2),  # it draws nothing there
        looked_at(error=0.0),  # a mask hides what it should draw
    ],
)
def test_what_does_not_contradict(event):
    assert not asked(event)[0].any()


def test_photos_of_another_time_tell_of_what_stands_still_only():
    assert not asked(looked_at(), times=(0.0, 0.5))[0].any()
    assert asked(looked_at(), times=(0.0, 0.5), static=True)[0].any()


def test_nothing_was_found():
    assert asked(SimpleNamespace(zones=[], evidence=[], errors=[], threshold=BAD)) == []


def test_one_other_photo_alone_tells_no_depth():
    views, _ = photos(wall())
    width, height = views.sizes[0].int().tolist()
    maps = ErrorMaps()
    maps.maps = {0: torch.linspace(1, 2, height // TILE * (width // TILE)).reshape(height // TILE, -1)}
    seen = SimpleNamespace(
        depth=torch.full((height, width), WALL), alpha=torch.ones(height, width), z=torch.full((9,), WALL),
        visible=torch.ones(9, dtype=torch.bool),
    )  # fmt: skip
    none = torch.zeros(0, 2), torch.zeros(0)
    graph = SimpleNamespace(views=views, features=lambda view: none)
    known = []
    for neighbours in ([3, -1, -1], [3, 4, 5]):
        (zones,) = find_zones(graph, torch.tensor([neighbours] * len(views)), [0], maps, [seen], 0.5, 100)
        known.append((zones.depth - WALL).abs() < 0.1)
    assert not known[0].any()
    assert known[1].float().mean() > 0.3
