"""Scenes far from the origin: placed exactly, or refused where float32 cannot hold them."""

from dataclasses import replace

import numpy as np
import pytest
from tiny_scene import make_transforms

from lpm.checks import LpmError
from lpm.scenes.read import read_scene
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
