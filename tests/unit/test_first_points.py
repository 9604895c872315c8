"""Points found by comparing photos, held against scenes whose geometry is known."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lpm.multiview.points_from_photos import guess_neighbours, looked_at, points_from_photos
from lpm.multiview.views import Views, project
from lpm.scenes.read import read_scene
from lpm.scenes.samples import make


def facing(centre: list[float], target: list[float]) -> torch.Tensor:
    """[4, 4] world to camera, from `centre` towards `target`, y down."""
    z = torch.nn.functional.normalize(torch.tensor(target) - torch.tensor(centre), dim=0)
    x = torch.nn.functional.normalize(torch.linalg.cross(torch.tensor([0.0, 1.0, 0.0]), z), dim=0)
    result = torch.eye(4)
    result[:3, :3] = torch.stack([x, torch.linalg.cross(z, x), z])
    result[:3, 3] = -result[:3, :3] @ torch.tensor(centre)
    return result


def grey(viewmats: list[torch.Tensor], times: torch.Tensor | None = None) -> Views:
    K = torch.tensor([[60.0, 0, 40], [0, 60, 30], [0, 0, 1]])
    images = [torch.full((60, 80, 3), 128, dtype=torch.uint8)] * len(viewmats)
    return Views(images, K.expand(len(viewmats), 3, 3), torch.stack(viewmats), capture_times=times)


@pytest.fixture(scope="module")
def room(tmp_path_factory) -> tuple[Views, list[torch.Tensor]]:
    """A small sample room and its depths."""
    folder: Path = make.make("room", tmp_path_factory.mktemp("room") / "room", views=16, size=(200, 150))
    scene = read_scene(folder)
    Ks = np.zeros((16, 3, 3))
    Ks[:, 0, 0], Ks[:, 1, 1], Ks[:, 0, 2], Ks[:, 1, 2], Ks[:, 2, 2] = *scene.intrinsics.T, 1
    viewmats = np.linalg.inv(scene.c2w @ np.diag([1.0, -1.0, -1.0, 1.0]))
    images = [torch.from_numpy(np.array(Image.open(path).convert("RGB"))) for path in scene.images]
    depths = [torch.from_numpy(np.load(folder / "depth" / f"{path.stem}.npy")) for path in scene.images]
    return Views(images, torch.from_numpy(Ks), torch.from_numpy(viewmats)), depths


def test_points_lie_on_surfaces_in_the_colours_of_the_photos(room):
    views, depths = room
    xyz, rgb = points_from_photos(views, patches=3_000)
    assert 1_200 < len(xyz) < 3_000
    assert rgb.shape == xyz.shape
    assert rgb.dtype == torch.uint8
    pixels, z = project(xyz, views.viewmats, views.Ks)
    off = torch.full((len(xyz),), torch.inf)
    unlike = torch.full((len(xyz),), torch.inf)
    for v, depth in enumerate(depths):
        x, y = pixels[v].floor().long().unbind(1)
        inside = (z[v] > 0) & (x >= 0) & (y >= 0) & (x < 200) & (y < 150)
        x, y = x.clamp(0, 199), y.clamp(0, 149)
        off = torch.where(inside, torch.minimum(off, (z[v] / depth[y, x] - 1).abs()), off)
        difference = (views.images[v][y, x].int() - rgb.int()).abs().amax(1).float()
        unlike = torch.where(inside, torch.minimum(unlike, difference), unlike)
    assert (off < 0.02).float().mean() > 0.95
    assert (unlike <= 12).float().mean() > 0.95
    # All over the room: no eighth of it is empty.
    octants = ((xyz > xyz.median(0).values).long() * torch.tensor([1, 2, 4])).sum(1)
    assert octants.bincount(minlength=8).min() > 20


def test_the_same_points_for_any_number_of_threads(room):
    found, before = [], torch.get_num_threads()
    for threads in (1, 3):
        torch.set_num_threads(threads)
        found.append(points_from_photos(room[0], patches=500))
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_cameras_look_at_a_point():
    target = [0.5, 0.2, 3.0]
    centres = [[0.0, 0.0, 0.0], [2.0, 0.0, 1.0], [-1.0, 1.0, 0.0]]
    wanted = torch.tensor([math.dist(c, target) for c in centres])
    torch.testing.assert_close(looked_at(torch.stack([facing(c, target) for c in centres])), wanted)


@pytest.mark.parametrize("behind", [False, True])
def test_cameras_that_look_at_no_point(behind):
    """All the same way, or away from each other: the largest distance between them."""
    towards = [[-9.0, 0, 0.1], [9.0, 0, 0.1]] if behind else [[-1.0, 0, 9], [1.0, 0, 9]]
    viewmats = torch.stack([facing([-1.0, 0, 0], towards[0]), facing([1.0, 0, 0], towards[1])])
    torch.testing.assert_close(looked_at(viewmats), torch.tensor([2.0, 2.0]))


def test_neighbours_are_those_with_a_useful_parallax():
    """On a ring about the target: 3, 10, 20 degrees apart and the other side; 10 degrees is best."""
    ring = [facing([4 * math.sin(a), 0.0, -4 * math.cos(a)], [0.0, 0, 0]) for a in map(math.radians, (0, 3, 10, 180))]
    views = grey(ring)
    found = guess_neighbours(views, looked_at(views.viewmats))
    assert found[0, 0] == 2
    assert 3 not in found[0]
    assert 0 not in found[0]
    assert (found[3] == -1).all()
    views.capture_times = torch.tensor([0.0, 0.0, 0.5, 0.0])
    assert guess_neighbours(views, looked_at(views.viewmats))[0].tolist() == [1, -1, -1, -1]


@pytest.mark.parametrize("count", [1, 4])
def test_photos_that_show_nothing_give_no_points(count):
    views = grey([facing([0.3 * i, 0.0, -4.0], [0.0, 0, 0]) for i in range(count)])
    xyz, rgb = points_from_photos(views, patches=200)
    assert xyz.shape == rgb.shape == (0, 3)
