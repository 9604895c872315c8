"""Steps of the optimizer in time: paths are kept, and short lives move as far as long ones."""

from __future__ import annotations

import pytest
import torch

from lpm.gaussians import motion
from lpm.strategy import motion_correction


def points(life, degree=1):
    """Two points, at time .5, of temporal standard deviation `life`, that move."""
    torch.manual_seed(0)
    return {
        "means": torch.rand(2, 3), "quats": torch.rand(2, 4), "times": torch.full((2, 1), 0.5),
        "durations": torch.full((2, 1), life).log(), "motion": torch.rand(2, degree, 3), "spins": torch.rand(2, 4),
    }  # fmt: skip


@pytest.mark.parametrize("degree", [1, 3])
def test_a_point_whose_time_moved_stays_on_its_path(degree):
    params = points(0.5, degree)
    still = {name: value.clone() for name, value in params.items()}
    old = motion_correction.before(params)
    params["times"] += 0.1
    motion_correction.correct(params, old)
    assert torch.allclose(params["times"], torch.tensor(0.6))
    for t in (0.0, 0.7):
        torch.testing.assert_close(motion.means_at(params, t), motion.means_at(still, t))
        torch.testing.assert_close(motion.quats_at(params, t), motion.quats_at(still, t))


@pytest.mark.parametrize(("life", "longer"), [(1.0, 1.0), (0.25, 1.0), (0.125, 2.0), (0.05, 5.0), (0.01, 10.0)])
def test_steps_of_motion_are_as_long_as_lives_are_short(life, longer):
    params = points(life, 3)
    old = motion_correction.before(params)
    params["motion"] += 0.01
    motion_correction.correct(params, old)
    made = params["motion"] - old["motion"]
    expected = 0.01 * torch.tensor([longer, longer**2, longer**3])[:, None].expand(3, 3)
    torch.testing.assert_close(made, expected.expand(2, 3, 3), rtol=1e-3, atol=1e-6)


def test_no_step_changes_nothing():
    params = points(0.03, 3)
    same = {name: value.clone() for name, value in params.items()}
    motion_correction.correct(params, motion_correction.before(params))
    assert all(torch.equal(value, same[name]) for name, value in params.items())
