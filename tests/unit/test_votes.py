"""Votes of all views' zones at once: the native kernel against its torch twin, and both by hand."""

import numpy as np
import pytest
import torch

from lpm.cuda.native import native
from lpm.zones.votes import zone_votes, zone_votes_torch
from lpm.zones.zone import FALSE_FRONT, KINDS, UNDER_RESOLVED, ViewZones

INF, NAN = float("inf"), float("nan")
needs_native = pytest.mark.skipif(native() is None, reason="no native kernels on this machine")


def make_view(size=(480, 270), tile=16, share=0.3, dtype=torch.float32):
    """A turned camera 5 away from the origin; a `share` of its tiles has a zone."""
    q, _ = torch.linalg.qr(torch.randn(3, 3, dtype=dtype))
    viewmat = torch.eye(4, dtype=dtype)
    viewmat[:3, :3] = q * torch.sign(torch.det(q))
    viewmat[:3, 3] = torch.tensor([0.3, -0.2, 5.0])
    width, height = size
    K = torch.tensor([[0.9 * width, 0, 0.48 * width], [0, 1.1 * width, 0.53 * height], [0, 0, 1]], dtype=dtype)
    rows, columns = -(-height // tile), -(-width // tile)
    has = torch.rand(rows, columns) < share
    near = 4 + torch.rand(rows, columns, dtype=dtype)
    far = torch.where(has, near + torch.rand(rows, columns, dtype=dtype), -INF)
    near = torch.where(has, near, INF)
    kind = torch.where(has, torch.randint(len(KINDS), (rows, columns)), -1)
    return ViewZones(0, viewmat, K, size, tile, near, far, (near + far) / 2, has.long().numpy(), kind)


def border_distance(means, view, margin):
    """[N]: how near each point is to any border of the view: between tiles, of depths, of what is seen."""
    x, y, z = (means @ view.viewmat[:3, :3].T + view.viewmat[:3, 3]).unbind(-1)
    column = (x / z * view.K[0, 0] + view.K[0, 2]) / view.tile
    row = (y / z * view.K[1, 1] + view.K[1, 2]) / view.tile
    distances = [z.abs(), (column - view.size[0] / view.tile).abs(), (row - view.size[1] / view.tile).abs()]
    distances += [(value - value.round()).abs() for value in (column, row)]
    limits = torch.cat([view.near, view.far, view.near * (1 - margin)]).flatten()
    limits = limits[limits.isfinite()].sort().values
    after = torch.searchsorted(limits, z.contiguous())
    distances += [(z - limits[(after + i).clamp(0, len(limits) - 1)]).abs() for i in (-1, 0)]
    return torch.stack(distances).amin(0)


def assert_equal(votes, twin):
    assert torch.equal(votes.inside, twin.inside)
    assert torch.equal(votes.front, twin.front)
    assert votes.inside.dtype == twin.inside.dtype
    for mine, wanted in zip(votes.counts, twin.counts, strict=True):
        assert torch.equal(mine, wanted)  # shape and dtype too


def by_hand():
    """A camera at the origin that looks along z; the one tile with a zone has x/z in 0 .. .32, y/z in -.133 .. .133."""
    near, far = torch.full((3, 4), INF), torch.full((3, 4), -INF)
    near[1, 2], far[1, 2] = 4.0, 5.0
    kind = torch.full((3, 4), -1)
    kind[1, 2] = FALSE_FRONT
    K = torch.tensor([[50.0, 0, 32], [0, 60, 24], [0, 0, 1]])
    return ViewZones(0, torch.eye(4), K, (64, 48), 16, near, far, (near + far) / 2, np.zeros((3, 4), np.int64), kind)


@pytest.mark.parametrize("mode", ["auto", "off"])
def test_by_hand(mode, monkeypatch):
    monkeypatch.setenv("LPM_NATIVE", mode)
    rows = [
        ([0.8, 0, 4.5], 2, 0),
        ([0.8, 0, 5.0], 2, 0),  # the borders belong to the inside
        ([0.3, 0, 2.0], 0, 1),  # in front: votes only where the kind is FALSE_FRONT
        ([0.3, 0, 3.9], 0, 0),  # not by more than the margin
        ([1.0, 0, 6.0], 0, 0),
        ([-0.8, 0, 4.5], 0, 0),
        ([0.8, 0, -4.5], 0, 0),
        ([9.0, 0, 4.5], 0, 0),
        ([0.3, 0, NAN], 0, 0),
    ]
    other = by_hand()
    other.kind[1, 2] = UNDER_RESOLVED
    votes = zone_votes(torch.tensor([mean for mean, _, _ in rows]), [by_hand(), other], 0.05)
    assert votes.inside.tolist() == [inside for _, inside, _ in rows]
    assert votes.front.tolist() == [front for _, _, front in rows]
    wanted = torch.zeros(3, 4, dtype=torch.int64)
    wanted[1, 2] = 2
    assert torch.equal(torch.stack(votes.counts), torch.stack([wanted, wanted]))


@needs_native
@pytest.mark.parametrize("seed", range(3))
def test_native_is_the_twin_in_float64(seed):
    torch.manual_seed(seed)
    zones = [make_view(dtype=torch.float64) for _ in range(4)]
    means = torch.randn(50_000, 3, dtype=torch.float64) * 2
    votes, twin = zone_votes(means, zones, 0.03), zone_votes_torch(means, zones, 0.03)
    assert min(twin.inside.sum(), twin.front.sum()) > 1000
    clear = torch.stack([border_distance(means, view, 0.03) for view in zones]).amin(0) > 1e-9
    assert torch.equal(votes.inside[clear], twin.inside[clear])
    assert torch.equal(votes.front[clear], twin.front[clear])
    for mine, wanted in zip(votes.counts, twin.counts, strict=True):
        assert mine.dtype == wanted.dtype == torch.int64
        assert (mine - wanted).abs().sum() <= 2 * (~clear).sum()


@needs_native
def test_native_is_nearly_the_twin_in_float32():
    torch.manual_seed(0)
    zones = [make_view(size) for size in ((480, 270), (100, 75), (64, 64), (17, 5))]
    means = torch.randn(100_000, 3) * 2
    votes, twin = zone_votes(means, zones, 0.03), zone_votes_torch(means, zones, 0.03)
    different = int(((votes.inside != twin.inside) | (votes.front != twin.front)).sum())
    assert different <= 10
    assert sum((a - b).abs().sum() for a, b in zip(votes.counts, twin.counts, strict=True)) <= 2 * 10
    assert [count.shape for count in votes.counts] == [view.near.shape for view in zones]
    assert votes.inside.sum() == sum(count.sum() for count in votes.counts)


@needs_native
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1, 1023, 1025, 20_000])
def test_same_bits_for_any_number_of_threads(dtype, n):
    torch.manual_seed(1)
    zones = [make_view(dtype=dtype), make_view((123, 45), 8, dtype=dtype)]
    means = torch.randn(n, 3, dtype=dtype) * 2
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(zone_votes(means, zones, 0.03))
    finally:
        torch.set_num_threads(before)
    for votes in results[1:]:
        assert_equal(votes, results[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_broken_and_far_away_points_have_no_vote(dtype):
    torch.manual_seed(2)
    zones = [make_view(dtype=dtype, share=1.0), make_view((33, 47), dtype=dtype, share=1.0)]
    zones[0].kind[:] = zones[1].kind[:] = FALSE_FRONT
    plain = by_hand()
    for name in ("viewmat", "K", "near", "far"):
        setattr(plain, name, getattr(plain, name).to(dtype))
    zones.append(plain)
    large = torch.finfo(dtype).max
    values = [NAN, INF, -INF, large, -large, 1e30, -1e30, 0.5]
    means = torch.cartesian_prod(*[torch.tensor(values, dtype=dtype)] * 3)[:-1]  # all but (.5, .5, .5)
    for function in (zone_votes, zone_votes_torch):
        votes = function(means, zones, 0.03)
        assert votes.inside.sum() == votes.front.sum() == 0
        assert all(count.sum() == 0 for count in votes.counts)


@pytest.mark.parametrize("mode", ["auto", "off"])
def test_nothing_to_count(mode, monkeypatch):
    monkeypatch.setenv("LPM_NATIVE", mode)
    torch.manual_seed(3)
    empty = make_view(share=0.0)
    votes = zone_votes(torch.randn(100, 3), [empty, empty], 0.03)
    assert votes.inside.tolist() == votes.front.tolist() == [0.0] * 100
    assert [count.sum() for count in votes.counts] == [0, 0]
    no_views = zone_votes(torch.randn(5, 3), [], 0.03)
    assert (no_views.inside.tolist(), no_views.front.tolist(), no_views.counts) == ([0.0] * 5, [0.0] * 5, [])
    no_points = zone_votes(torch.empty(0, 3), [make_view()], 0.03)
    assert (len(no_points.inside), len(no_points.front), int(no_points.counts[0].sum())) == (0, 0, 0)


def test_without_the_kernels_the_twin_serves(monkeypatch):
    monkeypatch.setenv("LPM_NATIVE", "off")
    torch.manual_seed(4)
    zones = [make_view() for _ in range(2)]
    means = torch.randn(2000, 3, requires_grad=True)
    votes = zone_votes(means, zones, 0.03)
    assert_equal(votes, zone_votes_torch(means.detach(), zones, 0.03))
    assert not votes.inside.requires_grad


@needs_native
def test_strided_points():
    torch.manual_seed(5)
    zones = [make_view()]
    means = (torch.randn(3, 3000) * 2).T.requires_grad_()
    assert_equal(zone_votes(means, zones, 0.03), zone_votes(means.detach().contiguous(), zones, 0.03))
