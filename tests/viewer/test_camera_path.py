"""Camera paths as viewers of nerfstudio wrote them over the years."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from lpm.checks import LpmError
from lpm.viewer.page.camera_path import FLIP, from_json


def pose(angle=0.4, place=(1.0, 2.0, 3.0)):
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = Rotation.from_rotvec([0, angle, 0.1]).as_matrix(), place
    return matrix


def path(keyframes, **values):
    return json.dumps({"keyframes": keyframes, "camera_type": "perspective", **values}).encode()


def old(matrix):
    """As three.js has it: a text, column by column."""
    properties = json.dumps([["FOV", 50], ["NAME", "Camera 0"], ["TIME", 0]])
    return {
        "matrix": json.dumps(matrix.T.flatten().tolist()),
        "fov": 50,
        "aspect": 1.5,
        "properties": properties,
    }


def new(matrix):
    return {"matrix": matrix.flatten().tolist(), "fov": 50, "aspect": 1.5}


def as_list(matrix):
    return {**new(matrix), "matrix": matrix.T.flatten().tolist()}


@pytest.mark.parametrize("form", [old, new, as_list])
def test_both_orders_of_a_matrix(form):
    poses = [pose(), pose(0.9, (0, 0, 0)), pose(-2, (0, 0, 1))]  # the second alone could be either
    cameras, _ = from_json(path([form(each) for each in poses]))
    for camera, matrix in zip(cameras, poses, strict=True):
        np.testing.assert_allclose(camera.c2w, (matrix @ FLIP)[: len(camera.c2w)], atol=1e-9)
        assert camera.fov == pytest.approx(math.radians(50))
        assert camera.aspect == 1.5


def test_a_text_at_the_origin_is_column_by_column():
    (camera,), _ = from_json(path([old(pose(0.9, (0, 0, 0)))]))
    np.testing.assert_allclose(camera.c2w[:3, :3], (pose(0.9) @ FLIP)[:3, :3], atol=1e-9)


def test_a_field_of_view_among_the_properties():
    row = old(pose())
    del row["fov"]
    (camera,), _ = from_json(path([row]))
    assert camera.fov == pytest.approx(math.radians(50))


@pytest.mark.parametrize(("values", "want"), [
    ({"seconds": 6}, 3.0), ({"seconds": 6, "is_cycle": True}, 2.0), ({}, 2.0),
    ({"seconds": 6, "default_transition_sec": 1.5}, 1.5),
])  # fmt: skip
def test_seconds_between_keyframes(values, want):
    assert from_json(path([new(pose(0.1 * i)) for i in range(3)], **values))[1] == want


@pytest.mark.parametrize(("content", "said"), [
    (path([new(pose())], camera_type="equirectangular"), "camera_type equirectangular; wanted perspective"),
    (path([new(pose())], camera_type=[3]), "camera_type"),
    (path([{"matrix": json.dumps([1] * 15), "fov": 50}]), "no matrix of 16 numbers"),
    (path([{"matrix": "[" * 100_000, "fov": 50}]), "no matrix of 16 numbers"),
    (path([new(np.diag([1.0, 1, 1, 2]))]), "not a rotation and a place"),
    (path([{"matrix": np.ones(16).tolist(), "fov": 50}]), "not a rotation and a place"),
    (path([{**old(pose()), "properties": "{}", "fov": None}]), "no matrix of 16 numbers"),
])  # fmt: skip
def test_others_are_refused_in_one_line(content, said):
    with pytest.raises(LpmError, match=said) as error:
        from_json(content, "x.json")
    assert "\n" not in str(error.value)
