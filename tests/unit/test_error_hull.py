"""Depth from errors alone: a ball of errors seen by cameras all around."""

from __future__ import annotations

import math
from types import SimpleNamespace

import torch

from lpm.multiview.views import Views, project, unproject
from lpm.strategy.zone_search import SameTimeHull
from lpm.zones import error_maps
from lpm.zones.error_hull import error_hull

SIZE, TILE = (160, 120), 8


def around(count=4, distance=4.0):
    """Cameras on a circle that look at the origin, 360 / count degrees apart."""
    viewmats = []
    for k in range(count):
        a = 2 * math.pi * k / count
        eye = torch.tensor([distance * math.cos(a), 0.0, distance * math.sin(a)])
        forward = -eye / eye.norm()
        down = torch.tensor([0.0, 1.0, 0.0])
        rotation = torch.stack([torch.linalg.cross(down, forward), down, forward])
        viewmats.append(torch.cat([torch.cat([rotation, (-rotation @ eye)[:, None]], 1), torch.eye(4)[3:]]))
    K = torch.tensor([[150.0, 0, SIZE[0] / 2], [0, 150.0, SIZE[1] / 2], [0, 0, 1]]).repeat(count, 1, 1)
    images = [torch.full((SIZE[1], SIZE[0], 3), 0.5) for _ in range(count)]
    return Views(images, K, torch.stack(viewmats))


def errors_of(views, centre, radius=0.3):
    """Per view the tile errors of a ball: 1 where it is seen, 0 elsewhere."""
    offsets = torch.nn.functional.normalize(torch.randn(2000, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    maps = []
    for v in range(len(views)):
        pixels, _ = project(centre + radius * offsets, views.viewmats[v], views.Ks[v])
        error = torch.zeros(SIZE[1] // TILE, SIZE[0] // TILE)
        column, row = (pixels / TILE).long().unbind(-1)
        inside = (column >= 0) & (row >= 0) & (column < error.shape[1]) & (row < error.shape[0])
        error[row[inside], column[inside]] = 1.0
        maps.append(error)
    return maps


def depths(views, maps, centre, others=(1, 2, 3)):
    pixel, z = project(centre[None], views.viewmats[0], views.Ks[0])
    range_ = torch.tensor([1.0]), torch.tensor([20.0])
    found = error_hull(views, 0, list(others), [maps[v] for v in others], TILE, 0.5, pixel, *range_)
    return pixel, z, found


def test_the_hull_holds_what_causes_the_errors_and_little_else():
    views, centre = around(), torch.tensor([0.3, 0.1, -0.4])
    pixel, z, (low, high, best) = depths(views, errors_of(views, centre), centre)
    assert low.item() < z.item() < high.item()
    assert high.item() - low.item() < 2.0  # the ball is .6 across, tiles add .4, and a step of depth at both ends .8
    place = unproject(pixel, best, views.viewmats[0], views.Ks[0])
    assert (place - centre).norm().item() < 0.8


def test_colours_tell_depths_apart():
    views, centre = around(), torch.tensor([0.0, 0.0, 0.0])
    maps = [torch.ones_like(m) for m in errors_of(views, centre)]  # the whole picture is bad
    for v in range(4):
        pixels, _ = project(centre[None], views.viewmats[v], views.Ks[v])
        x, y = pixels[0].long().tolist()
        views.images[v][y - 6 : y + 6, x - 6 : x + 6] = torch.tensor([1.0, 0.0, 0.0])
    _, z, (low, high, best) = depths(views, maps, centre)
    assert high.item() - low.item() > 4
    assert abs(best.item() - z.item()) < 0.4


def test_nothing_is_known_where_another_camera_sees_no_error():
    views, centre = around(), torch.tensor([0.0, 0.0, 0.0])
    maps = errors_of(views, centre)
    maps[2][:] = 0
    assert all(bool(d.isnan().all()) for d in depths(views, maps, centre)[2])
    assert all(bool(d.isnan().all()) for d in depths(views, maps, centre, others=())[2])


def test_errors_of_still_zones_are_given_no_depth_by_it():
    views, centre = around(), torch.tensor([0.3, 0.1, -0.4])
    maps = error_maps.ErrorMaps(tile=TILE)
    maps.maps = dict(enumerate(errors_of(views, centre)))
    pixel, z = project(centre[None], views.viewmats[0], views.Ks[0])
    column, row = (pixel[0] / error_maps.TILE).long().tolist()
    static = torch.zeros(SIZE[1] // error_maps.TILE + 1, SIZE[0] // error_maps.TILE, dtype=torch.bool)
    capture = SimpleNamespace(same=[[0, 1, 2, 3]])
    hull = SameTimeHull(SimpleNamespace(views=views), maps, capture, SimpleNamespace(tiles=lambda event, view: static))
    asked = (None, 0, 0.5, pixel, torch.tensor([1.0]), torch.tensor([20.0]))
    low, high, _ = hull.depths(*asked)
    assert low.item() < z.item() < high.item()
    static[row, column] = True
    assert all(depth.isnan().all() for depth in hull.depths(*asked))
