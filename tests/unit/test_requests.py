"""What a person asks of a running strategy: taken at the next event, exactly where it was asked, kept over a resume."""

import pytest
import torch
from test_lpm_evidence import prepared
from wall_scene import cameras, wall

from lpm.checks import LpmError
from lpm.strategy.requests import Region, Requests, inside_any


def test_a_region_is_a_piece_of_a_views_frustum():
    K = torch.tensor([[10.0, 0, 8], [0, 10, 6], [0, 0, 1]])
    region = Region(0, (8, 6, 12, 10), (2.0, 4.0))
    means = torch.tensor([[0.1, 0.1, 3], [0.1, 0.1, 1.9], [0.1, 0.1, 4.1], [-0.1, 0.1, 3], [1.3, 0.1, 3], [0, 0, -3]])
    assert region.contains(means, torch.eye(4), K).tolist() == [True, False, False, False, False, False]
    nowhere = Region(7, (0, 0, 99, 99), (0.0, 9.0))  # of a view that is not there
    assert inside_any([region, nowhere], means, torch.eye(4)[None], K[None]).sum() == 1
    assert not inside_any([], means, torch.eye(4)[None], K[None]).any()


@pytest.mark.parametrize(("name", "value"), [("max_points", 0), ("error_floor", 2.0), ("seed", 1), ("recycle", -0.1)])
def test_nonsense_is_refused(name, value):
    requests = Requests()
    with pytest.raises(LpmError, match=name):
        requests.set(name, value)
    assert requests.waiting() == 0


def test_frozen_regions_stay_until_thawed():
    requests, region = Requests(), Region(0, (0, 0, 4, 4), (1.0, 2.0))
    for _ in range(2):
        requests.freeze(region)
    assert requests.take() == ({}, [], [region])
    other = Requests()
    other.load(requests.state())
    assert other.frozen() == [region]
    requests.thaw(region)
    assert requests.frozen() == []


HALF = Region(0, (0, 0, 80, 128), (0.0, 100.0))
"""The left half of what view 0 sees."""


def event(ask=lambda requests: None, **options):
    """A noisy wall after one event: strategy, parameters before and after, the record and the changes."""
    strategy, params, _, records, steps = prepared(wall(), 0.6, refine_every=100, **options)
    changes = []

    def keep(record, made):
        records.append(record)
        changes.append(made)

    strategy.on_event = keep
    before = {name: value.detach().clone() for name, value in params.items()}
    ask(strategy.requests)
    steps(0, 101)
    return strategy, before, params, records[-1], changes[-1]


def in_half(means):
    K, viewmats = cameras()
    return HALF.contains(means.detach(), viewmats[0], K[0])


def test_nothing_is_edited_in_a_frozen_region():
    _, before, after, record, changes = event(lambda requests: requests.freeze(HALF))
    frozen, still = in_half(before["means"]), in_half(after["means"])
    assert 0 < frozen.sum() < len(frozen)
    for name in ("means", "scales", "opacities"):
        assert torch.equal(before[name][frozen], after[name][still])
    assert record.split + record.inserted > 0
    for places in (changes.added, changes.removed, changes.reset):
        assert not in_half(places).any()


def test_a_forced_region_is_split_first():
    inside = {}
    for name, ask in (("free", lambda r: None), ("forced", lambda r: r.force(HALF))):
        strategy, _, _, record, changes = event(
            ask, insert=False, prune=False, reset=False, max_points=17000, refine_stop_iter=200
        )
        assert record.split > 50
        parents = changes.added.reshape(2, -1, 3).mean(0)  # halfway between their halves, which may reach outside
        inside[name] = float(in_half(parents).float().mean())
    assert inside["free"] < 0.8
    assert inside["forced"] > 0.999
    assert strategy.requests.waiting() == 0


def test_changes_are_what_the_record_counts():
    _, before, after, record, changes = event()
    assert len(changes.removed) == record.pruned
    assert len(changes.added) == record.inserted + 2 * record.split
    assert len(changes.reset) == record.reset
    assert len(after["means"]) == len(before["means"]) - record.pruned + record.inserted + record.split == record.points


def test_places_of_changes_are_not_looked_for_where_nobody_listens(monkeypatch):
    strategy, params, _, _, steps = prepared(wall(0.2), 0.6, refine_every=100)
    strategy.on_event = None
    before = len(params["means"])

    def asked(*_):
        raise AssertionError

    monkeypatch.setattr("lpm.gaussians.edits.Edit.changes", asked)
    monkeypatch.setattr("lpm.strategy.event.records_of", asked)
    steps(93, 101)
    assert len(params["means"]) != before


def test_a_setting_counts_from_the_next_event_and_is_in_the_checkpoint():
    ask = lambda requests: requests.set("max_points", 900)  # noqa: E731
    strategy, _, after, record, _ = event(ask)
    assert strategy.max_points == 900
    assert record.budget == len(after["means"]) <= 900
    strategy.requests.freeze(HALF)
    other, *_ = prepared(wall())
    other.load_extra_state(strategy.extra_state(), "cpu")
    assert other.max_points == 900
    assert other.requests.frozen() == [HALF]
