"""The same strategy on several models: classic, antialiased, and disks (2DGS); the same bits for any thread count."""

import pytest
import torch
from torch.nn import Parameter, ParameterDict
from wall_scene import SIZE, cameras, draw, wall

from lpm.multiview import feature_matches
from lpm.multiview.views import Views
from lpm.render.rasterize import rasterize
from lpm.strategy.lpm import LpmStrategy

STEPS = 60


def classic(params, viewmat, K, mode="classic"):
    image, _, info = rasterize(
        params["means"], params["quats"], params["scales"].exp(), torch.sigmoid(params["opacities"]).flatten(),
        params["features_dc"][:, None], viewmat[None], K[None], *SIZE, sh_degree=0, absgrad=True, rasterize_mode=mode,
    )  # fmt: skip
    return image[0], info


def antialiased(params, viewmat, K):
    return classic(params, viewmat, K, "antialiased")


def disks(params, viewmat, K):
    """What gsplat's 2DGS hands to a strategy: the third scale unused, `gradient_2dgs` the tensor to read."""
    thin = torch.cat([params["scales"][:, :2], torch.full_like(params["scales"][:, :1], -8.0)], 1)
    image, info = classic({**params, "scales": thin}, viewmat, K)
    means2d = info.pop("means2d")
    return image, {**info, "gradient_2dgs": means2d}


def disks_gsplat(params, viewmat, K):
    from gsplat import rasterization_2dgs

    image, *_, info = rasterization_2dgs(
        params["means"], params["quats"], params["scales"].exp(), torch.sigmoid(params["opacities"]).flatten(),
        params["features_dc"][:, None], viewmat[None], K[None], *SIZE, sh_degree=0, packed=False,
    )  # fmt: skip
    return image[0], info


def train(render, device="cpu", stop=STEPS, saved=None, **options):
    """A short training of a sparse wall with a hole, up to `stop` or on from what an earlier one saved.

    Returns losses, parameters, records, the strategy, and what it takes to go on.
    """
    torch.manual_seed(0)
    K, viewmats = (t.to(device) for t in cameras())
    truth = [draw(wall(), v, k)[0].clamp(0, 1).to(device) for v, k in zip(viewmats.cpu(), K.cpu(), strict=True)]
    start = wall(0.09)
    hole = ((start["means"][:, :2] - torch.tensor([0.5, 0.0])).abs() < 0.4).all(-1)
    n = int((~hole).sum())
    start = {k: v[~hole] for k, v in start.items()} if saved is None else saved["params"]
    params = ParameterDict({k: Parameter(v.to(device)) for k, v in start.items()})
    optimizers = {k: torch.optim.Adam([p], lr=0.003) for k, p in params.items()}
    strategy, records = LpmStrategy(
        max_points=n + 500, refine_start_iter=10, refine_stop_iter=STEPS, refine_every=20, cooldown=20, **options
    ), []  # fmt: skip
    strategy.on_event = lambda record, _: records.append(record)
    strategy.attach(Views([(t * 255).round().byte() for t in truth], K, viewmats), wall()["means"][::7].to(device))
    strategy.check_sanity(params, optimizers)
    state, losses = strategy.initialize_state(1.0), []
    if saved is not None:
        state = saved["state"]
        strategy.load_extra_state(saved["extra"], device)
        for k, optimizer in optimizers.items():
            optimizer.load_state_dict(saved["optimizers"][k])
    for step in range(0 if saved is None else saved["step"], stop):
        view = step % len(K)
        image, info = render(params, viewmats[view], K[view])
        info.update(view=view, render=image, truth=truth[view])
        strategy.step_pre_backward(params, optimizers, state, step, info)
        loss = (image - truth[view]).abs().mean()
        loss.backward()
        losses.append(loss.item())
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)
        strategy.step_post_backward(params, optimizers, state, step, info)
    on = {
        "step": stop, "params": {k: p.detach() for k, p in params.items()}, "state": state,
        "extra": strategy.extra_state(), "optimizers": {k: o.state_dict() for k, o in optimizers.items()},
    }  # fmt: skip
    return losses, params, records, strategy, on


def check(losses, params, records, *_):
    assert [r.step for r in records] == [20, 40]
    assert sum(r.split for r in records) > 100
    assert sum(r.inserted for r in records) > 0
    assert len(params["means"]) == records[-1].points == records[-1].budget
    assert all(torch.isfinite(p).all() for p in params.values())
    assert sum(losses[-8:]) < 0.7 * sum(losses[:8])


@pytest.mark.parametrize(("render", "mode"), [(classic, "classic"), (antialiased, "antialiased")])
def test_classic_and_antialiased(render, mode):
    check(*train(render, rasterize_mode=mode))


def test_plain_gradient():
    check(*train(classic, absgrad=False))


def test_disks():
    result = train(disks, flat=True, key_for_gradient="gradient_2dgs")
    check(*result)
    start = wall(0.09)["scales"][0, 2]
    grown = result[1]["scales"][:, 2] == start  # an axis that means nothing is not what points are split along
    assert grown.float().mean() > 0.8


@pytest.mark.gpu
def test_disks_of_gsplat():
    options = dict(flat=True, key_for_gradient="gradient_2dgs", absgrad=False)
    check(*train(disks_gsplat, device="cuda", **options))


def test_a_whole_run_has_the_same_bits_for_any_number_of_threads():
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(train(classic))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for name in other[1]:
            assert torch.equal(other[1][name], results[0][1][name]), name
        for a, b in zip(other[2], results[0][2], strict=True):
            a.seconds = b.seconds
            assert a == b


@pytest.mark.parametrize("stop", [5, 21, 33])
def test_a_resume_gives_the_same_edits(tmp_path, stop):
    """Through a file, with zones, insertions and splits on both sides: parameters, state and records to the bit."""
    whole = train(classic)
    first = train(classic, stop=stop)
    torch.save(first[-1], tmp_path / "saved.pt")
    feature_matches._memory.clear()
    second = train(classic, saved=torch.load(tmp_path / "saved.pt", weights_only=True))
    assert sum(r.inserted for r in whole[2]) > 0
    assert any(zone.kind != "no-evidence" for r in whole[2] for zone in r.zones)
    for record in [*whole[2], *first[2], *second[2]]:
        record.seconds = 0.0
    assert first[2] + second[2] == whole[2]
    for name, value in whole[1].items():
        assert torch.equal(second[1][name], value), name
    for name, value in whole[-1]["state"].items():
        assert torch.equal(torch.as_tensor(second[-1]["state"][name]), torch.as_tensor(value)), name
