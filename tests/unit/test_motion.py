"""Points over time: formulas against numbers worked out by hand, gradients, and who counts as moving."""

from __future__ import annotations

import math

import pytest
import torch

from lpm.gaussians import motion


def point(**changes):
    """One point in float64: times .5, durations log(.1), gates logit(.2), motion (1, 0, 0)."""
    values = {
        "means": torch.tensor([[1.0, 2.0, 3.0]]), "quats": torch.tensor([[1.0, 0, 0, 0]]),
        "opacities": torch.tensor([[0.8]]).logit(), "times": torch.tensor([[0.5]]),
        "durations": torch.tensor([[0.1]]).log(), "gates": torch.tensor([[0.2]]).logit(),
        "motion": torch.tensor([[[1.0, 0.0, 0.0]]]),
    }  # fmt: skip
    return {name: value.double().requires_grad_() for name, value in (values | changes).items()}


def test_opacity_fades_around_the_centre_down_to_the_gate():
    p = point()
    assert motion.weight_at(p, 0.5).item() == pytest.approx(1.0)
    assert motion.weight_at(p, 0.6).item() == pytest.approx(0.2 + 0.8 * math.exp(-0.5))
    assert motion.weight_at(p, 0.0).item() == pytest.approx(0.2 + 0.8 * math.exp(-12.5))


def test_means_follow_the_polynomial():
    coefficients = torch.tensor([[[1.0, 0, 0], [0, 2.0, 0], [0, 0, 3.0]]])
    moved = motion.means_at(point(motion=coefficients), 0.7)
    dt = 0.2
    assert torch.allclose(moved, torch.tensor([[1 + dt, 2 + 2 * dt**2, 3 + 3 * dt**3]]).double())


def test_spins_turn_points():
    p = point(spins=torch.tensor([[0.0, 0, 0, 2.0]]))
    assert torch.allclose(motion.quats_at(p, 0.75), torch.tensor([[1.0, 0, 0, 0.5]]).double())
    assert torch.equal(motion.quats_at(point(), 0.75), point()["quats"])


@pytest.mark.parametrize("degree", [1, 3])
def test_points_stay_on_their_paths_where_their_centres_move(degree):
    torch.manual_seed(0)
    p = point(motion=torch.randn(1, degree, 3), spins=torch.randn(1, 4))
    moved = {**p, **motion.recentred(p, torch.tensor([[0.15]]).double())}
    assert moved["times"].item() == pytest.approx(0.65)
    for t in (0.0, 0.3, 1.0):
        assert torch.allclose(motion.means_at(moved, t), motion.means_at(p, t), atol=1e-12)
        assert torch.allclose(motion.quats_at(moved, t), motion.quats_at(p, t), atol=1e-12)
    same = motion.recentred(p, torch.zeros(1, 1).double())
    assert all(torch.equal(value, p[name]) for name, value in same.items())


def test_gradients_are_right_and_the_centre_gets_none_from_the_motion():
    p = point()
    names = ("times", "durations", "gates")
    assert torch.autograd.gradcheck(
        lambda *v: motion.weight_at(dict(zip(names, v, strict=True)), 0.55), [p[n] for n in names]
    )
    assert torch.autograd.gradcheck(
        lambda means, m: motion.means_at({**p, "means": means, "motion": m}, 0.55), (p["means"], p["motion"])
    )
    motion.means_at(p, 0.55).sum().backward()
    assert p["times"].grad is None


def test_points_that_are_not_there_have_next_to_no_opacity():
    p = point(gates=torch.tensor([[0.01]]).logit())
    there, gone = motion.frozen_at(p, 0.5), motion.frozen_at(p, 0.9)
    assert torch.sigmoid(there["opacities"]).item() == pytest.approx(0.8)
    assert torch.sigmoid(gone["opacities"]).item() < 1 / 255
    assert not any(value.requires_grad for value in gone.values())


def test_at_the_start_nothing_moves_and_all_is_there():
    p = {name: value.detach() for name, value in motion.start(100, 3, spins=True).items()}
    p["means"], p["quats"] = torch.randn(100, 3), torch.randn(100, 4)
    assert p["motion"].shape == (100, 3, 3)
    for t in (0.0, 0.3, 1.0):
        assert torch.equal(motion.means_at(p, t), p["means"])
        assert torch.equal(motion.quats_at(p, t), p["quats"])
        assert bool((motion.weight_at(p, t) > motion.STATIC_GATE).all())
    assert not bool(motion.is_moving(p, 0.01).any())


def test_what_fades_or_moves_is_moving():
    still = point(motion=torch.zeros(1, 1, 3), gates=torch.tensor([[0.9]]).logit())
    assert not motion.is_moving(still, 0.01).item()
    assert motion.is_moving({**still, "gates": torch.tensor([[0.2]]).logit()}, 0.01).item()
    walks = {**still, "motion": torch.tensor([[[0.1, 0.0, 0.0]]])}
    assert motion.is_moving(walks, 0.09).item()
    assert not motion.is_moving(walks, 0.11).item()
