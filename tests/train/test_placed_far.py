"""Scenes far from the origin: placed exactly, or refused where float32 cannot hold them."""

from dataclasses import replace

import numpy as np
import pytest
from tiny_scene import make_transforms

from lpm.checks import LpmError
from lpm.scenes.read import read_scene
from lpm.scenes.seen import looks_away
from lpm.train.placed import place
from lpm.train.scene_settings import SceneSettings

UTM = np.array([500000.25, 5412345.5, 300.0])


@pytest.fixture
def scene(tmp_path):
    return read_scene(make_transforms(tmp_path / "near"))


def moved(scene, by):
    c2w = scene.c2w.copy()
    c2w[:, :3, 3] += by
    return replace(scene, c2w=c2w, points=replace(scene.points, xyz=scene.points.xyz + by))


def test_a_scene_in_utm_trains_as_the_same_one_at_the_origin(scene):
    near, far = (place(each, SceneSettings(), 8) for each in (scene, moved(scene, UTM)))
    assert (near.xyz - far.xyz).abs().max() < 1e-6
    assert (near.train.cameras.c2w - far.train.cameras.c2w).abs().max() < 1e-6


def test_it_is_not_left_where_float32_cannot_hold_it(scene):
    settings = SceneSettings(center_method="none")
    assert place(scene, settings, 8).extent > 0
    with pytest.raises(LpmError, match=r"center_method: none, and the cameras are 5.*e\+06 from") as error:
        place(moved(scene, UTM), settings, 8)
    assert "\n" not in str(error.value)


def town(scene, rounds):
    """`scene` again and again, each time a street farther on: of all points a photo shows next to none."""
    c2w = np.concatenate([scene.c2w + np.pad([[40.0 * k]], ((0, 3), (3, 0))) for k in range(rounds)])
    xyz = np.concatenate([scene.points.xyz + np.array([40.0 * k, 0, 0]) for k in range(rounds)])
    points = replace(scene.points, xyz=xyz, rgb=np.tile(scene.points.rgb, (rounds, 1)), ids=None)
    many = {name: np.concatenate([getattr(scene, name)] * rounds) for name in ("intrinsics", "distortion", "sizes")}
    names = [f"{k}/{name}" for k in range(rounds) for name in scene.names]
    return replace(scene, c2w=c2w, points=points, names=names, images=scene.images * rounds, **many)


def test_a_town_does_not_look_away_from_its_points(scene):
    large = town(scene, 300)
    assert looks_away(large) is None
    elsewhere = large.c2w.copy()
    elsewhere[:, 1, 3] += 1e5
    assert "lie before its cameras" in looks_away(replace(large, c2w=elsewhere))
