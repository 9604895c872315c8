"""Edits: counts, identity of the rows that stay, moments and statistics that follow."""

import math

import pytest
import torch
from torch.nn import Parameter, ParameterDict

from lpm.checks import LpmError
from lpm.gaussians import edits
from lpm.gaussians.optim_state import apply

N = 12


def some(n=N):
    return {
        "means": torch.randn(n, 3),
        "scales": torch.randn(n, 3) * 0.3 - 2,
        "quats": torch.randn(n, 4),
        "features_dc": torch.randn(n, 3),
        "features_rest": torch.randn(n, 15, 3),
        "opacities": torch.randn(n, 1),
    }


def mask_of(*rows, n=N):
    mask = torch.zeros(n, dtype=torch.bool)
    mask[list(rows)] = True
    return mask


def moments(edit, params):
    """What moments 1..N (by old row) and a statistic become."""
    live = ParameterDict({k: Parameter(v.clone()) for k, v in params.items()})
    optimizers = {k: torch.optim.Adam([p], lr=0.0) for k, p in live.items()}
    for k, p in live.items():
        p.grad = torch.zeros_like(p)
        optimizers[k].step()
        for key in ("exp_avg", "exp_avg_sq"):
            rows = torch.arange(1.0, len(p) + 1).reshape(-1, *[1] * (p.dim() - 1))
            optimizers[k].state[p][key].copy_(rows.expand_as(p))
    state = {"grad2d": torch.arange(1.0, N + 1), "scene_scale": 2.0, "events": 3, "table": torch.ones(N + 1), "x": None}
    apply(edit, live, optimizers, state)
    for k, p in live.items():
        assert optimizers[k].param_groups[0]["params"][0] is p
        assert list(optimizers[k].state) == [p]
        assert torch.equal(p, edit.params[k])
        assert p.requires_grad
        assert optimizers[k].state[p]["step"] == 1
        before, p.grad = p.detach().clone(), torch.ones_like(p)
        optimizers[k].param_groups[0]["lr"] = 0.1
        optimizers[k].step()  # moves what is in params now
        assert not torch.equal(p, before)
    assert state["scene_scale"] == 2.0
    assert state["events"] == 3
    assert len(state["table"]) == N + 1
    return optimizers, state


def first_moment(optimizers, name):
    (value,) = optimizers[name].state.values()
    return value["exp_avg"].flatten(1)[:, 0]


def test_clone():
    params = some()
    edit = edits.clone(params, mask_of(3, 7))
    assert edit.source.tolist() == [*range(N), 3, 7]
    assert edit.fresh.tolist() == [False] * N + [True] * 2
    for k, v in params.items():
        assert torch.equal(edit.params[k][:N], v)
        assert torch.equal(edit.params[k][N:], v[[3, 7]])
    _, state = moments(edit, params)
    assert state["grad2d"].tolist() == [*range(1, N + 1), 4, 8]


def test_moments_follow_rows_and_start_at_zero():
    params = some()
    edit = edits.then(edits.prune(params, mask_of(0, 1)), edits.identity(edits.prune(params, mask_of(0, 1)).params))
    edit = edits.then(edit, edits.clone(edit.params, mask_of(0, n=N - 2)))
    live = ParameterDict({k: Parameter(v.clone()) for k, v in params.items()})
    optimizers = {k: torch.optim.Adam([p]) for k, p in live.items()}
    for k, p in live.items():
        p.grad = torch.arange(1.0, N + 1).reshape(-1, *[1] * (p.dim() - 1)).expand_as(p).clone()
        optimizers[k].step()
    before = {k: first_moment(optimizers, k).clone() for k in params}
    apply(edit, live, optimizers, {})
    for k in params:
        assert torch.equal(first_moment(optimizers, k), torch.cat([before[k][2:], torch.zeros(1)]))


@pytest.mark.parametrize("revised", [False, True])
def test_split(revised):
    params = some()
    edit = edits.split(params, mask_of(2, 5, 6), torch.Generator().manual_seed(0), revised)
    rest = [i for i in range(N) if i not in (2, 5, 6)]
    assert edit.source.tolist() == rest + [2, 5, 6] * 2
    assert edit.fresh.tolist() == [False] * 9 + [True] * 6
    torch.testing.assert_close(edit.params["scales"][9:12].exp(), params["scales"][[2, 5, 6]].exp() / 1.6)
    parent, child = (torch.sigmoid(p) for p in (params["opacities"][[2, 5, 6]], edit.params["opacities"][9:12]))
    wanted = 1 - (1 - parent).sqrt() if revised else parent
    torch.testing.assert_close(child, wanted)
    moments(edit, params)


def test_split_samples_the_parents_distribution():
    n = 40_000
    params = {k: v[:1].repeat(n, *[1] * (v.dim() - 1)) for k, v in some().items()}
    edit = edits.split(params, torch.ones(n, dtype=torch.bool), torch.Generator().manual_seed(1))
    offset = edit.params["means"] - params["means"][0]
    rotation = edits.rotations(params["quats"][:1])[0]
    wanted = rotation @ torch.diag(params["scales"][0].exp() ** 2) @ rotation.T
    torch.testing.assert_close(offset.T @ offset / (2 * n), wanted, rtol=0.05, atol=0.02 * wanted.max().item())


def test_long_axis_split_keeps_the_second_moment():
    params = some()
    chosen = [1, 4]
    edit = edits.long_axis_split(params, mask_of(*chosen))
    means, scales = edit.params["means"][N - 2 :].reshape(2, 2, 3), edit.params["scales"][N - 2 :].reshape(2, 2, 3)
    for i, row in enumerate(chosen):
        rotation = edits.rotations(params["quats"][row : row + 1])[0]

        def covariance(log_scales, rotation=rotation):
            return rotation @ torch.diag(log_scales.exp() ** 2) @ rotation.T

        offset = means[:, i] - params["means"][row]
        together = sum(covariance(scales[b, i]) + torch.outer(offset[b], offset[b]) for b in range(2)) / 2
        torch.testing.assert_close(offset.sum(0), torch.zeros(3), atol=1e-5, rtol=0)
        torch.testing.assert_close(together, covariance(params["scales"][row]), rtol=1e-3, atol=1e-6)
        before, after = params["scales"][row].exp().sort().values, scales[0, i].exp()
        torch.testing.assert_close(after.sort().values, torch.cat([before[:2], before[2:] / 2]).sort().values)
    moments(edit, params)


def test_insert():
    params, rows = some(), some(3)
    edit = edits.insert(params, rows)
    assert edit.source.tolist() == [*range(N), -1, -1, -1]
    assert torch.equal(edit.params["means"][N:], rows["means"])
    _, state = moments(edit, params)
    assert state["grad2d"].tolist() == [*range(1, N + 1), 0, 0, 0]
    with pytest.raises(LpmError, match="rows: names"):
        edits.insert(params, {"means": rows["means"]})


def test_prune_all_and_none():
    params = some()
    assert len(edits.prune(params, torch.ones(N, dtype=torch.bool))) == 0
    edit = edits.prune(params, torch.zeros(N, dtype=torch.bool))
    assert edit.source.tolist() == list(range(N))
    moments(edit, params)


def test_reset_lowers_and_never_raises():
    params = some()
    params["opacities"][0] = -6.0
    edit = edits.reset_opacity(params, mask_of(0, 1, 2), 0.05)
    before, after = params["opacities"].flatten(), edit.params["opacities"].flatten()
    assert after[0] == before[0]
    assert torch.equal(after[3:], before[3:])
    assert (after[1:3] <= math.log(0.05 / 0.95) + 1e-6).all()
    moments(edit, params)
    with pytest.raises(LpmError, match="cap"):
        edits.reset_opacity(params, mask_of(0), 1 / 300)


def test_reset_clears_the_moments_of_opacity_alone():
    params = some()
    edit = edits.reset_opacity(params, mask_of(4), 0.05)
    live = ParameterDict({k: Parameter(v.clone()) for k, v in params.items()})
    optimizers = {k: torch.optim.Adam([p]) for k, p in live.items()}
    for k, p in live.items():
        p.grad = torch.ones_like(p)
        optimizers[k].step()
    apply(edit, live, optimizers, {})
    assert (first_moment(optimizers, "opacities") == 0).nonzero().flatten().tolist() == [4]
    assert (first_moment(optimizers, "means") != 0).all()


def test_relocate_keeps_the_opacity_together():
    params = some()
    edit = edits.relocate(params, torch.tensor([0, 1]), torch.tensor([5, 5]))
    together = 1 - (1 - torch.sigmoid(edit.params["opacities"][[0, 1, 5]])).prod()
    torch.testing.assert_close(together, torch.sigmoid(params["opacities"][5, 0]))
    assert edit.source.tolist() == list(range(N))  # the dead stay themselves, moments included
    assert edit.fresh.nonzero().flatten().tolist() == [5]
    assert torch.equal(edit.params["means"][0], params["means"][5])
    moments(edit, params)


def test_duplicate_keeps_the_opacity_together():
    params = some()
    edit = edits.duplicate(params, torch.tensor([5, 5, 2]))
    together = 1 - (1 - torch.sigmoid(edit.params["opacities"][[5, N, N + 1]])).prod()
    torch.testing.assert_close(together, torch.sigmoid(params["opacities"][5, 0]))
    assert edit.source.tolist() == [*range(N), 5, 5, 2]
    assert edit.fresh.nonzero().flatten().tolist() == [N, N + 1, N + 2]
    assert torch.equal(edit.params["scales"][N], edit.params["scales"][5])
    moments(edit, params)


def test_edits_compose():
    params = some()
    a = edits.prune(params, mask_of(0, 3))
    b = edits.split(a.params, mask_of(0, n=N - 2), torch.Generator().manual_seed(0))
    c = edits.insert(b.params, some(2))
    d = edits.reset_opacity(c.params, mask_of(1, len(c) - 1, n=len(c)), 0.1)
    edit = edits.then(edits.then(edits.then(a, b), c), d)
    kept = [i for i in range(N) if i not in (0, 3)]
    assert edit.source.tolist() == [*kept[1:], 1, 1, -1, -1]
    assert edit.fresh.tolist() == [False] * 9 + [True] * 4
    assert edit.cleared.nonzero().flatten().tolist() == [1, len(c) - 1]
    moments(edit, params)


def test_nothing_given_is_changed():
    params = some()
    before = {k: v.clone() for k, v in params.items()}
    edits.clone(params, mask_of(1))
    edits.split(params, mask_of(1))
    edits.long_axis_split(params, mask_of(1))
    edits.reset_opacity(params, mask_of(1), 0.1)
    edits.relocate(params, torch.tensor([0]), torch.tensor([1]))
    edits.duplicate(params, torch.tensor([1]))
    for k, v in before.items():
        assert torch.equal(params[k], v)


def test_masks_are_checked():
    with pytest.raises(LpmError, match=r"mask: shape \[3\]"):
        edits.clone(some(), torch.zeros(3, dtype=torch.bool))
    with pytest.raises(LpmError, match=r"mask: torch.int64"):
        edits.prune(some(), torch.zeros(N, dtype=torch.int64))


def test_parameters_that_are_not_edited_follow_the_map():
    """An edit of some parameters; the others, and their moments, come from the same rows."""
    params = some()
    live = ParameterDict({k: Parameter(v.clone()) for k, v in params.items()})
    optimizers = {k: torch.optim.Adam([p], lr=0.1) for k, p in live.items()}
    for k, p in live.items():
        p.grad = torch.ones_like(p)
        optimizers[k].step()
    old = {k: p.detach().clone() for k, p in live.items()}
    small = {k: v for k, v in old.items() if k != "features_rest"}
    edit = edits.then(edits.identity(small), edits.prune(small, mask_of(0, 5)))
    edit = edits.then(edit, edits.insert(edit.params, {k: v[:2] for k, v in small.items()}))
    apply(edit, live, optimizers, {})
    rest = live["features_rest"]
    kept = [1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    assert torch.equal(rest[:-2], old["features_rest"][kept])
    assert rest[-2:].abs().max() == 0
    assert rest.grad is None
    assert optimizers["features_rest"].param_groups[0]["params"][0] is rest
    assert optimizers["features_rest"].state[rest]["exp_avg"][:-2].min() > 0
    assert optimizers["features_rest"].state[rest]["exp_avg"][-2:].abs().max() == 0


def test_disks_are_split_along_their_own_two_axes():
    params = some(1)
    params["scales"] = torch.tensor([[-3.0, -2.0, 5.0]])
    edit = edits.long_axis_split(params, torch.tensor([True]), axes=2)
    assert torch.equal(edit.params["scales"][:, [0, 2]], params["scales"][:, [0, 2]].expand(2, 2))
    assert (edit.params["scales"][:, 1] < -2).all()
