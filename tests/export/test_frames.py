"""Another frame shows the same picture, view-dependent colour included, and going there and back changes nothing."""

import numpy as np
import pytest
import torch
from export.some import rotations, visible

from lpm.checks import LpmError
from lpm.formats.picture import draw
from lpm.gaussians.similarity import Similarity, from_dataparser, move, quaternion
from lpm.gaussians.spherical_harmonics import band_rotation, rotate_harmonics, sh_colors
from lpm.multiview.views import look_at


def turn(seed, mirror=False):
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    return rotation * (1 if (np.linalg.det(rotation) > 0) != mirror else -1)


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_colours_seen_along_a_turned_direction(degree, mirror):
    rotation = turn(degree, mirror)
    directions = torch.nn.functional.normalize(torch.randn(500, 3, dtype=torch.float64), dim=1)
    sh = torch.randn(500, (degree + 1) ** 2, 3, dtype=torch.float64) * 0.3
    turned = torch.cat([sh[:, :1], rotate_harmonics(sh[:, 1:], rotation)], 1)
    along = directions @ torch.from_numpy(rotation).T
    torch.testing.assert_close(sh_colors(degree, along, turned), sh_colors(degree, directions, sh))


@pytest.mark.parametrize("band", [1, 2, 3])
def test_bands_turn_without_stretching(band):
    matrix = band_rotation(band, turn(3))
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(2 * band + 1), atol=1e-12)
    both = band_rotation(band, turn(4) @ turn(3))
    np.testing.assert_allclose(band_rotation(band, turn(4)) @ matrix, both, atol=1e-12)


def test_quaternions_of_rotations():
    turns = [turn(seed) for seed in range(50)]
    turns += [np.diag([1.0, -1, -1]), np.diag([-1.0, 1, -1]), np.diag([-1.0, -1, 1]), np.eye(3)]
    for rotation in turns:
        found = rotations(quaternion(rotation)[None])[0].numpy()
        np.testing.assert_allclose(found, rotation, atol=1e-12)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_the_picture_is_the_same(degree):
    """Rendered before and after, from a camera moved along: within 1/255."""
    params = visible(300, degree)
    by = Similarity(turn(1), np.array([1.0, -2.0, 0.5]), 2.5)
    moved = move(params, by)
    K = torch.tensor([[[150.0, 0, 64], [0, 150, 64], [0, 0, 1]]])
    up = torch.tensor([0.0, 0.0, 1.0])
    for eye in ([3.0, 0.5, 1.0], [-1.0, 2.5, -2.0]):
        before = draw(params, look_at(torch.tensor(eye), torch.zeros(3), up)[None], K, 128, 128)

        def along(x):
            return torch.from_numpy(by.scale * by.rotation @ np.array(x) + by.translation).float()

        camera = look_at(along(eye), along([0.0, 0, 0]), torch.from_numpy(by.rotation @ [0, 0, 1.0]).float())
        after = draw(moved, camera[None], K, 128, 128)
        assert (before - after).abs().max() < 1 / 255
        assert before.std() > 0.05  # there is something to see


def test_there_and_back():
    params = visible(1000)
    by = from_dataparser(np.column_stack([turn(7), [0.3, 0.2, -4]]).astype(np.float32), 0.17)
    back = move(move(params, by), by.inverse())
    for name in ("means", "scales", "features_dc", "features_rest", "opacities"):
        assert (back[name] - params[name]).abs().max() < 1e-5, name
    sign = torch.sign((back["quats"] * params["quats"]).sum(1, keepdim=True))
    assert (back["quats"] * sign - params["quats"]).abs().max() < 1e-5


def test_broken_transforms():
    with pytest.raises(LpmError, match="stretches by"):
        from_dataparser(np.diag([1.0, 2, 1, 1])[:3], 1.0)
    with pytest.raises(LpmError, match="scale 0"):
        from_dataparser(np.eye(4)[:3], 0.0)
    with pytest.raises(LpmError, match="of shape"):
        from_dataparser(np.eye(3), 1.0)
