"""The strategy of scenes that move, on the wall of test_lpm_strategy over five times: when as well as where."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import Parameter, ParameterDict
from wall_scene import WALL, add, cameras, draw, wall

from lpm.checks import LpmError
from lpm.gaussians import motion
from lpm.gaussians.spherical_harmonics import rgb_to_sh0
from lpm.multiview.views import Views
from lpm.strategy.birth_velocity import neighbours_velocity
from lpm.strategy.capture_times import CaptureTimes
from lpm.strategy.event import Event
from lpm.strategy.false_fronts import FalseFrontsInTime
from lpm.strategy.lpm4d import Lpm4dStrategy
from lpm.zones.votes import Votes

TIMES = torch.linspace(0, 1, 5)
FRAME = 0.25


def plate(z=3.0, x=0.0):
    """A textured plate in front of the wall."""
    points = wall(0.03)
    inside = (points["means"][:, :2].abs() < 0.35).all(-1)
    points = {name: value[inside].clone() for name, value in points.items()}
    points["means"][:, 0] += x
    points["means"][:, 2] = z
    random = torch.rand(len(points["means"]) // 4 + 1, 3, generator=torch.Generator().manual_seed(1))
    points["features_dc"] = rgb_to_sh0(random.repeat_interleave(4, 0)[: len(points["means"])])
    return points


def moving(points):
    """`points` as parameters that can move; they stand still, and are there all the time."""
    params = ParameterDict({name: Parameter(value.clone()) for name, value in points.items()})
    params.update(motion.start(len(params["means"]), 1, spins=False))
    return params


def event(params, truth_at, **options):
    """All views of all times once, then one event that looks at all of them. `truth_at(i)`: the points of time i."""
    K, viewmats = cameras(6)
    count = len(K) * len(TIMES)
    K, viewmats = K.repeat(len(TIMES), 1, 1), viewmats.repeat(len(TIMES), 1, 1)
    times = TIMES.repeat_interleave(count // len(TIMES))
    truth = [draw(truth_at(i // 6), viewmats[i], K[i])[0].clamp(0, 1) for i in range(count)]
    options = {"max_points": 10**6, "refine_start_iter": 1, "refine_stop_iter": 1000, "densify": False, **options}
    strategy, records = Lpm4dStrategy(refine_every=100, views_per_event=count, **options), []
    strategy.on_event = lambda record, _: records.append(record)
    views = Views([(t * 255).round().byte() for t in truth], K, viewmats, capture_times=times)
    strategy.attach(views, wall()["means"][::7])
    if not isinstance(params, ParameterDict):
        params = moving(params)
    optimizers = {k: torch.optim.Adam([p], lr=0.0) for k, p in params.items()}
    state = strategy.initialize_state(1.0)
    for step in range(101 - count, 101):
        view = (step - 101) % count
        image, info = draw(motion.frozen_at(params, times[view]) | {"means": params["means"]}, viewmats[view], K[view])
        strategy.step_pre_backward(params, optimizers, state, step, info)
        (image - truth[view]).square().sum().backward()
        info.update(view=view, render=image, truth=truth[view])
        strategy.step_post_backward(params, optimizers, state, step, info)
    return strategy, params, state, records[-1]


def test_what_appears_is_born_at_its_time_and_place():
    start = wall()
    n = len(start["means"])
    _, after, _, record = event(start, lambda i: add(wall(), plate()) if i == 2 else wall())
    assert record.inserted >= 16
    born = {name: value[n:].detach() for name, value in after.items()}
    assert torch.equal(born["times"], torch.full_like(born["times"], 0.5))
    assert torch.allclose(born["durations"].exp(), torch.tensor(2.5 * FRAME))
    assert bool((torch.sigmoid(born["gates"]) < 0.5).all())
    assert ((born["means"][:, 2] - 3.0).abs() < 0.1).float().mean() >= 0.9
    assert (born["means"][:, :2].abs() < 0.5).float().mean() >= 0.9
    assert len(after["means"]) == len(after["motion"]) == len(after["times"]) == n + record.inserted


def test_first_births_take_the_room_of_points_where_something_moves():
    start = wall()
    n = len(start["means"])
    strategy, after, _, record = event(
        start, lambda i: add(wall(), plate()) if i == 2 else wall(), max_points=n, first_views=20
    )
    assert len(set(record.views)) == 20
    assert strategy.capture.by_view[record.views].tolist() == TIMES.repeat_interleave(4).tolist()
    assert record.inserted == record.pruned >= 16
    assert len(after["means"]) == n
    born = torch.sigmoid(after["gates"].detach().flatten()) < 0.5
    assert int(born.sum()) == record.inserted
    calm = strategy.cameras.calm(start["means"])
    kept = (after["means"].detach()[~born][:, None] == start["means"][calm][None, :100]).all(-1).any(0)
    assert 0 < int(calm.sum()) < n
    assert bool(kept.all())


@pytest.mark.parametrize("options", [{"zones_in_time": "none"}, {"insert": False}])
def test_nothing_makes_room_where_there_are_no_births(options):
    start = wall()
    _, after, _, record = event(
        start, lambda i: add(wall(), plate()) if i == 2 else wall(), max_points=len(start["means"]), **options
    )
    assert (record.inserted, record.pruned) == (0, 0)
    assert len(after["means"]) == len(start["means"])


def test_a_start_above_the_cap_is_thinned_everywhere_before_births_take_room():
    start = wall()
    n = len(start["means"])
    most = n * 3 // 4
    strategy, after, _, record = event(
        start, lambda i: add(wall(), plate()) if i == 2 else wall(), max_points=most, prune_opacity=0.0
    )
    assert len(after["means"]) == most
    assert record.pruned - (n - most) == record.inserted >= 16
    born = torch.sigmoid(after["gates"].detach().flatten()) < 0.5
    calm = strategy.cameras.calm(start["means"])
    kept = strategy.cameras.calm(after["means"].detach()[~born])
    lost = (int(calm.sum()) - int(kept.sum())) / int(calm.sum())
    assert lost > 0.5 * (n - most) / n


def test_what_is_missing_all_the_time_is_born_static():
    hole = ((wall()["means"][:, :2] - torch.tensor([0.9, 0.0])).abs() < 0.4).all(-1)
    start = {name: value[~hole] for name, value in wall().items()}
    n = len(start["means"])
    _, after, _, record = event(start, lambda i: wall())
    assert record.inserted >= 16
    assert bool((torch.sigmoid(after["gates"][n:]) > 0.5).all())
    assert ((after["means"][n:, 2] - WALL).abs() < 0.02 * WALL).float().mean() >= 0.9


@pytest.mark.parametrize(("zones_in_time", "expected"), [("same-time", True), ("calibrated", False)])
def test_what_is_gone_for_one_time_is_reset_only_without_calibration(zones_in_time, expected):
    start = add(wall(), plate(2.6))
    _, after, _, record = event(start, lambda i: wall() if i == 2 else start, zones_in_time=zones_in_time)
    assert (record.reset > 0) is expected
    if not expected:
        assert torch.equal(after["opacities"][: len(start["opacities"])], start["opacities"])


def test_what_is_never_there_is_reset():
    start = add(wall(), plate(2.6))
    _, after, _, record = event(start, lambda i: wall())
    planted = torch.sigmoid(after["opacities"][len(wall()["means"]) : len(start["means"])])
    assert (planted <= 0.0501).float().mean() >= 0.9
    assert record.reset >= 0.9 * len(planted)


def test_brief_points_lose_half_of_their_life_first():
    fronts = FalseFrontsInTime(Lpm4dStrategy(zones_in_time="calibrated"), capture=CaptureTimes(TIMES))
    life = torch.tensor([2.0 * FRAME, 0.5 * FRAME, 2.0])  # brief, hardly there, long
    params = {"durations": Parameter(life.log()[:, None]), "gates": Parameter(torch.tensor([[-2.0], [-2.0], [2.0]]))}
    bits = torch.tensor([0b11, 0b11, 0b11])
    state = {"front": bits.clone(), "front_before": bits * 0, "when": torch.tensor([1, 1, 0b111]),
             "when_before": bits * 0, "inside": torch.zeros(3)}  # fmt: skip
    assert fronts.too_long(params, state).tolist() == [True, False, False]
    state["when"] = torch.tensor([1, 1, 0b11])
    assert fronts.mistaken(params, state).tolist() == [True, True, False]  # two times do not do for a long life


def brief_plate():
    """The wall with a plate in front that lives around the middle of the clip; which points are the plate's."""
    params = moving(add(wall(), plate(2.6)))
    planted = torch.arange(len(params["means"])) >= len(wall()["means"])
    for name, value in (("gates", -4.0), ("durations", math.log(2 * FRAME)), ("times", 0.5)):
        params[name].data[planted] = value
    return params, planted


def test_brief_points_in_front_are_shortened_and_not_reset():
    params, planted = brief_plate()
    before = {name: value.detach().clone() for name, value in params.items()}
    _, after, state, record = event(params, lambda i: wall())
    n = len(planted)
    shorter = after["durations"][:n] < before["durations"] - 0.6
    assert torch.equal(shorter.flatten() & ~planted, torch.zeros(n, dtype=torch.bool))
    assert shorter.flatten()[planted].float().mean() >= 0.9
    assert torch.allclose(after["durations"][:n][shorter], before["durations"][shorter] - math.log(2))
    assert torch.equal(after["opacities"][:n], before["opacities"])
    assert record.reset == 0
    assert bool((state["front"][:n][shorter.flatten()] == 0).all())


def test_an_event_that_fails_leaves_lives_as_they_were(monkeypatch):
    def no_memory(*_):
        raise MemoryError

    params, _ = brief_plate()
    before = params["durations"].detach().clone()
    monkeypatch.setattr("lpm.strategy.event.apply", no_memory)
    with pytest.raises(MemoryError):
        event(params, lambda i: wall())
    assert torch.equal(params["durations"], before)


def test_split_points_that_come_and_go_part_in_time():
    start = wall()
    count = len(start["means"])

    def changed(i):  # something is wrong everywhere
        return {**wall(), "features_dc": rgb_to_sh0(torch.full((count, 3), 0.1 * i))}

    strategy, after, state, record = event(
        start,
        changed,
        densify=True,
        insert=False,
        max_points=count + 200,
        refine_stop_iter=101,
        zones_in_time="none",
        recycle=0.0,
    )
    assert record.split == 200
    assert len(after["means"]) == count + 200 == len(state["present"]) == len(state["when"])
    assert torch.equal(after["durations"], torch.zeros_like(after["durations"]))  # static points stay whole
    params = {k: v.detach() for k, v in after.items()} | {
        "gates": torch.full((len(after["gates"]), 1), -3.0), "motion": torch.full_like(after["motion"], 0.2)
    }  # fmt: skip
    strategy.refine_stop_iter, strategy.max_points = 101, count + 300
    score = torch.ones(len(params["means"]))
    none = torch.zeros(len(score), dtype=torch.bool)
    state["front"], state["front_before"] = state["front"] * 0, state["front_before"] * 0
    points = strategy.parts.points(params)
    now = Event(101, params, points, state, none, [], strategy.budget(101), score=score, votes=Votes(score, score, []))
    edit = strategy.parts.edit.make(now)
    children = (edit.fresh & (edit.source >= 0)).nonzero().flatten()
    assert len(children) == 2 * now.counts["split"] > 0
    parents = edit.source[children]
    moved = (edit.params["times"][children] - params["times"][parents]).flatten()
    assert torch.allclose(moved.abs(), torch.full_like(moved, strategy.split_time))
    for parent in parents.unique():
        assert moved[parents == parent].sum().item() == pytest.approx(0, abs=1e-6)
    # In space halves go to both sides of the parent's path, on which they stay.
    at, old = motion.means_at(edit.params, 0.3)[children], motion.means_at(params, 0.3)
    for parent in parents.unique():
        assert torch.allclose(at[parents == parent].mean(0), old[parent], atol=1e-5)
    assert torch.allclose(edit.params["durations"][children].exp(), torch.tensor(1 - strategy.split_time / 3))


def test_same_bits_for_any_number_of_threads():
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            torch.manual_seed(0)
            results.append(event(wall(), lambda i: add(wall(), plate()) if i > 2 else wall(), densify=True,
                                 max_points=len(wall()["means"]) + 400)[1])  # fmt: skip
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for name in results[0]:
            assert torch.equal(results[0][name], other[name]), name


def test_photos_without_times_are_refused():
    K, viewmats = cameras(2)
    views = Views([torch.zeros(8, 8, 3)] * 2, K, viewmats)
    with pytest.raises(LpmError, match=r"views.capture_times: none"):
        Lpm4dStrategy().attach(views, None)


def test_velocities_come_from_the_nearest_point_that_is_there():
    params = {name: value.detach() for name, value in motion.start(3, 1, spins=False).items()}
    params["means"] = torch.tensor([[0.0, 0, 0], [5.0, 0, 0], [1.0, 0, 0]])
    params["motion"][:, 0] = torch.tensor([[1.0, 0, 0], [2.0, 0, 0], [3.0, 0, 0]])
    params["times"][:] = 0.5
    params["gates"][2], params["durations"][2] = -5.0, math.log(0.01)  # at .5 only
    velocity = neighbours_velocity(params, torch.tensor([[0.9, 0, 0], [4.0, 0, 0]]), torch.tensor(0.5))
    assert velocity[:, 0].tolist() == [3.0, 2.0]
    assert neighbours_velocity(params, torch.tensor([[0.9, 0, 0]]), torch.tensor(0.9))[:, 0].tolist() == [1.0]


def test_points_where_photos_never_change_are_held_still():
    """A plate is there at one time: the points that fall on it in the photos are free, all others are held."""
    start = wall()
    _, _, state, _ = event(start, lambda i: add(wall(), plate()) if i == 2 else wall(), insert=False)
    behind = (start["means"][:, :2].abs() < 0.2).all(-1)
    aside = (start["means"][:, 0].abs() > 1.2) & (start["means"][:, 0].abs() < 1.5)
    assert not bool(state["calm"][behind].any())
    assert float(state["calm"][aside].float().mean()) > 0.9
    for zones_in_time in ("none", "time-blind"):  # which are to know nothing of time
        _, _, state, _ = event(start, lambda i: wall(), zones_in_time=zones_in_time, insert=False)
        assert not bool(state["calm"].any())


def test_the_hold_falls_with_the_rates():
    """At the end of a run, where all rates fall to a tenth, so does the pull towards no motion."""
    strategy, params, state, _ = event(wall(), lambda _: wall())
    K, viewmats = cameras(6)
    lost = []
    for share in (1.0, 0.1):
        params["motion"].data.fill_(1.0)
        optimizers = {name: torch.optim.Adam([value], lr=0.01) for name, value in params.items()}
        for optimizer in optimizers.values():
            optimizer.share = share
        image, info = draw(motion.frozen_at(params, 0.0) | {"means": params["means"]}, viewmats[0], K[0])
        strategy.step_pre_backward(params, optimizers, state, 101, info)
        image.sum().backward()
        info.update(view=0, render=image, truth=image.detach())
        strategy.step_post_backward(params, optimizers, state, 101, info)
        lost.append(3**0.5 - params["motion"].detach().norm(dim=-1))
    assert bool((lost[0] > 5e-4).all())
    torch.testing.assert_close(lost[1], 0.1 * lost[0], rtol=0.01, atol=1e-6)
