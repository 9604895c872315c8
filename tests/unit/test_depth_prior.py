"""Depths that a scene brings along: as read, under a lens, as points, and in the loss."""

import cv2
import numpy as np
import pytest
import torch

from lpm.checks import LpmError
from lpm.multiview.depth_prior import STRIDE, depth_loss, laid_over, points_from_depth, read_depth
from lpm.multiview.views import Views, project

K = torch.tensor([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]])
OWN = np.array([50.0, 50, 32, 24])


def test_read_as_stored(tmp_path):
    depth = np.array([[0, 1500], [65535, 2]], np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), depth)
    assert read_depth(tmp_path / "a.png").tolist() == depth.tolist()
    np.save(tmp_path / "a.npy", np.array([[[np.nan], [1.5]], [[-2.0], [np.inf]]]))
    assert read_depth(tmp_path / "a.npy").tolist() == [[0, 1.5], [0, 0]]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.png", None, "missing or no image"),
        ("a.npy", None, "cannot be read"),
        ("a.png", b"no image", "missing or no image"),
        ("a.npy", np.ones((2, 2, 3)), r"\[2, 2, 3\] of float64"),
        ("a.npy", np.array([["a", "b"]]), "of <U1"),
        ("a.npy", np.array([[{}]]), "cannot be read"),  # a pickle, which could run code
        ("a.png", np.zeros((4, 4, 3), np.uint8), r"\[4, 4, 3\] of uint8"),
        ("a.png", np.ones((4, 4), np.uint8), r"\[4, 4\] of uint8"),  # a picture of depths
    ],
)
def test_bad_files_are_named(tmp_path, name, content, said):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None and name.endswith("npy"):
        np.save(path, content)
    elif content is not None:
        cv2.imwrite(str(path), content)
    with pytest.raises(LpmError, match=rf"{name}.*{said}.*wanted one depth a pixel"):
        read_depth(path)


@pytest.mark.parametrize("resolution", [1, 2, 0.5])
def test_laid_over_the_same_photo(resolution):
    """Each kept depth is that of the file's pixel under the middle of its four by four."""
    height, width = int(48 * resolution), int(64 * resolution)
    depth = (np.arange(height * width).reshape(height, width) + 1).astype(np.float32)
    kept = laid_over(depth, (OWN, np.zeros(6), (64, 48)), K, (64, 48))
    assert kept.shape == (48 // STRIDE, 64 // STRIDE)
    for row, column in ((0, 0), (3, 7), (11, 15)):
        y, x = (int((i + 0.5) * STRIDE * resolution) for i in (row, column))
        assert kept[row, column] == depth[y, x]


def test_laid_over_what_a_lens_bent():
    """A tilted plane, photographed through a lens and undistorted: its depth, to what a pixel is worth."""
    bent = np.array([-0.2, 0.05, 0.0, 0.0, 0.01, -0.01])
    y, x = np.mgrid[0:480, 0:640] + 0.5
    own = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
    flat = cv2.undistortPoints(
        np.stack([x, y], -1).reshape(-1, 1, 2), own, np.array([*bent[:2], *bent[4:], bent[2]])
    ).reshape(480, 640, 2)
    depth = (1 / (0.5 + 0.3 * flat[..., 0] - 0.1 * flat[..., 1])).astype(np.float32)  # z of a plane, along each ray
    kept = laid_over(depth, (np.array([500.0, 500, 320, 240]), bent, (640, 480)), K, (64, 48))
    row, column = torch.meshgrid(torch.arange(12), torch.arange(16), indexing="ij")
    a, b = ((column + 0.5) * 4 - 32) / 50, ((row + 0.5) * 4 - 24) / 50
    known = kept > 0
    assert known.float().mean() > 0.9  # the corners were outside of the bent photo
    torch.testing.assert_close(kept[known], (1 / (0.5 + 0.3 * a - 0.1 * b))[known], rtol=2e-3, atol=0)


def test_few_measured_pixels_are_found_all_the_same():
    """One in a hundred has a depth: of a photo ten times as large as the training's, every kept one finds its own."""
    depth = np.zeros((480, 640), np.float32)
    depth[5::10, 7::10] = 3.0
    kept = laid_over(depth, (10 * OWN, np.zeros(6), (640, 480)), K, (64, 48))
    assert float((kept > 0).float().mean()) == 1.0
    assert kept.unique().tolist() == [3.0]


def test_points_stand_at_their_depth_in_their_colours():
    images = [torch.zeros(48, 64, 3, dtype=torch.uint8), torch.full((48, 64, 3), 0.5)]
    images[0][:, 32:] = torch.tensor([255, 0, 0], dtype=torch.uint8)
    away = torch.eye(4)
    away[2, 3] = 5.0
    views = Views(images, K.expand(2, 3, 3), torch.stack([torch.eye(4), away]))
    depths = [torch.full((12, 16), 2.0), torch.zeros(12, 16)]
    depths[1][3, 4] = 7.0
    xyz, rgb = points_from_depth(views, depths, 10_000)
    assert len(xyz) == 12 * 16 + 1
    assert rgb.dtype == torch.uint8
    assert torch.equal(xyz[:-1, 2], torch.full((192,), 2.0))
    assert rgb[:-1][xyz[:-1, 0] > 0.01].unique(dim=0).tolist() == [[255, 0, 0]]
    pixel, z = project(xyz[-1:], away, K)
    torch.testing.assert_close(pixel, torch.tensor([[18.0, 14.0]]))
    torch.testing.assert_close(z, torch.tensor([7.0]))
    assert rgb[-1].tolist() == [128, 128, 128]
    some, _ = points_from_depth(views, depths, 50)
    assert 40 <= len(some) <= 50
    assert torch.equal(some, points_from_depth(views, depths, 50)[0])


def test_loss_by_hand():
    depth, alpha = torch.full((8, 8, 1), 2.0), torch.ones(8, 8, 1)
    alpha[:, 4:] = 0.2
    prior = torch.tensor([[3.0, 1.0], [0.0, 1.0]])  # right: not drawn; below left: unknown
    assert float(depth_loss(depth, alpha, prior)) == pytest.approx(0.5)
    assert float(depth_loss(depth, alpha, torch.full((2, 2), 100.0))) == 1.0  # as much as a gross error counts
    assert float(depth_loss(depth, alpha, torch.zeros(2, 2))) == 0.0


def test_gradient_pulls_towards_the_prior():
    torch.manual_seed(0)
    prior = 1.5 + torch.rand(3, 4, dtype=torch.float64)
    depth = (1.6 + torch.rand(12, 16, 1, dtype=torch.float64)).requires_grad_()
    alpha = torch.ones(12, 16, 1, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda d: depth_loss(d, alpha, prior), depth)
    depth_loss(depth, alpha, prior).backward()
    asked = depth.grad[2::4, 2::4, 0]
    assert torch.equal(asked.sign(), (depth.detach()[2::4, 2::4, 0] - prior).sign())
