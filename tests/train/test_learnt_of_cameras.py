"""Refined poses and colours of photos, beside nerfstudio's, and on scenes whose truth is known."""

import pytest
import torch

from lpm.train.model_settings import PoseRefinementSettings
from lpm.train.photo_colors import BilateralGrids, color_matched
from lpm.train.pose_refinement import PoseRefinement


@pytest.mark.parametrize("mode", ["SO3xR3", "SE3"])
def test_corrections_are_nerfstudios(mode):
    from nerfstudio.cameras.lie_groups import exp_map_SE3, exp_map_SO3xR3

    refinement = PoseRefinement(PoseRefinementSettings(mode=mode), 4)
    refinement.pose_adjustment.data = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)) * 0.3
    wanted = (exp_map_SE3 if mode == "SE3" else exp_map_SO3xR3)(refinement.pose_adjustment)
    for i in range(4):
        rotation, shift = refinement.correction(i)
        assert torch.allclose(rotation, wanted[i, :, :3], atol=1e-5)
        assert torch.allclose(shift, wanted[i, :, 3], atol=1e-6)


@pytest.mark.parametrize("mode", ["SO3xR3", "SE3"])
def test_a_pose_that_is_off_is_found_from_its_error(mode):
    c2w = torch.eye(4)[None, :3].repeat(2, 1, 1)
    turn = torch.matrix_exp(torch.tensor([[0.0, -0.05, 0.02], [0.05, 0.0, -0.03], [-0.02, 0.03, 0.0]]))
    truth = torch.cat([turn, torch.tensor([[0.1], [-0.2], [0.05]])], 1)[None]
    refinement = PoseRefinement(PoseRefinementSettings(mode=mode), 2)
    optimizer = torch.optim.Adam(refinement.parameters(), lr=0.01)
    for _ in range(400):
        optimizer.zero_grad()
        (refinement.refined(c2w[1:], 1) - truth).square().sum().backward()
        optimizer.step()
    assert (refinement.refined(c2w[1:], 1) - truth).abs().max() < 1e-3
    assert torch.equal(refinement.pose_adjustment[0], torch.zeros(6))  # the other camera is as it was
    assert refinement.refined(c2w[1:], None) is not None
    assert torch.equal(refinement.refined(c2w[:1], None), c2w[:1])
    assert refinement.sizes()["camera_opt_translation_max"] == pytest.approx(0.229, abs=5e-3)


def test_grids_draw_and_weigh_as_nerfstudios():
    from nerfstudio.model_components.lib_bilagrid import BilateralGrid, slice, total_variation_loss

    ours, theirs = BilateralGrids(3, (4, 5, 2)), BilateralGrid(3, 4, 5, 2)
    assert torch.equal(ours.grids, theirs.grids)
    noise = 0.2 * torch.randn(ours.grids.shape, generator=torch.Generator().manual_seed(0))
    ours.grids.data += noise
    theirs.grids.data += noise
    rgb = torch.rand(6, 9, 3, generator=torch.Generator().manual_seed(1))
    y, x = torch.meshgrid(torch.linspace(0, 1, 6), torch.linspace(0, 1, 9), indexing="ij")
    wanted = slice(theirs, torch.stack([x, y], -1)[None], rgb[None], torch.tensor(1))["rgb"][0]
    assert torch.allclose(ours(rgb, 1), wanted, atol=1e-6)
    assert ours.roughness().item() == pytest.approx(total_variation_loss(theirs.grids).item(), rel=1e-5)


def test_colours_that_a_camera_changed_are_matched():
    truth = 0.1 + 0.8 * torch.rand(30, 40, 3, generator=torch.Generator().manual_seed(0))
    changed = 0.02 + 0.7 * truth + 0.1 * truth.square() + 0.05 * truth.roll(1, -1)
    matched = color_matched(truth, changed)
    assert (matched - changed).abs().max() < 1e-4
