"""Zones against known geometry: groups of tiles, kinds, membership, corners."""

import numpy as np
import pytest
import torch

from lpm.zones.zone import FALSE_FRONT, MISSING, NO_EVIDENCE, UNDER_RESOLVED, ViewZones, classify, membership, regions

INF = float("inf")


def zones_of(near, far, size=(64, 48), tile=16):
    """One camera at the origin looking along z."""
    K = torch.tensor([[50.0, 0, size[0] / 2], [0, 60.0, size[1] / 2], [0, 0, 1]])
    rows, columns = -(-size[1] // tile), -(-size[0] // tile)
    near_map, far_map = torch.full((rows, columns), INF), torch.full((rows, columns), -INF)
    near_map[1, 2], far_map[1, 2] = near, far
    labels = np.zeros((rows, columns), np.int64)
    labels[1, 2] = 1
    kind = torch.full((rows, columns), -1)
    kind[1, 2] = FALSE_FRONT
    return ViewZones(5, torch.eye(4), K, size, tile, near_map, far_map, (near_map + far_map) / 2, labels, kind)


def test_regions_are_connected_and_bounded():
    error = torch.zeros(10, 12)
    error[1, 1] = error[2, 2] = 1.0  # touch at a corner: one group
    error[5:9, 2:12] = 1.0  # large: cut along the grid of 4
    labels = regions(error, 0.5, piece=4)
    assert labels[1, 1] == labels[2, 2] > 0
    assert (labels > 0).sum() == 2 + 40
    for label in range(1, labels.max() + 1):
        rows, columns = np.nonzero(labels == label)
        assert len(rows) > 0
        assert np.ptp(rows) < 4
        assert np.ptp(columns) < 4
    assert labels[5, 2] != labels[8, 2]
    assert regions(error, 2.0).max() == 0  # none is a legal answer
    assert np.array_equal(regions(error, 0.5), labels)


@pytest.mark.parametrize(
    ("interval", "confident", "rendered", "alpha", "kind"),
    [
        ((4.0, 4.2), True, 2.0, 0.9, FALSE_FRONT),
        ((4.0, 4.2), True, 4.1, 0.9, UNDER_RESOLVED),
        ((4.0, 4.2), True, 3.95, 0.9, UNDER_RESOLVED),
        ((4.0, 4.2), True, 8.0, 0.9, MISSING),
        ((4.0, 4.2), True, 2.0, 0.1, MISSING),
        ((4.0, 4.2), False, 2.0, 0.9, NO_EVIDENCE),
    ],
)
def test_kinds(interval, confident, rendered, alpha, kind):
    got = classify(torch.tensor([interval]), torch.tensor([confident]), torch.tensor([rendered]), torch.tensor([alpha]))
    assert got.tolist() == [kind]


def test_membership_by_hand():
    zones = zones_of(4.0, 5.0)
    # Tile (row 1, column 2) spans pixels 32..48 by 16..32: x / z in (0, .32), y / z in (-.133, .133).
    means = torch.tensor(
        [
            [0.8, 0.0, 4.5],  # inside
            [0.3, 0.0, 2.0],  # in front
            [1.0, 0.0, 6.0],  # behind
            [-0.8, 0.0, 4.5],  # another tile
            [0.8, 0.9, 4.5],  # another row
            [0.8, 0.0, -4.5],  # behind the camera
            [9.0, 0.0, 4.5],  # outside the image
            [0.3, 0.0, float("nan")],
        ]
    )
    inside, front, cell = membership(means, zones)
    assert inside.tolist() == [True] + [False] * 7
    assert front.tolist() == [False, True] + [False] * 6
    assert cell[:2].tolist() == [6, 6]


@pytest.mark.parametrize("seed", [0, 1])
def test_membership_is_the_definition(seed):
    """Against a loop over points and tiles in float64, for a turned camera."""
    torch.manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(3, 3))
    q = q * torch.sign(torch.det(q))
    zones = zones_of(2.0, 3.0)
    zones.viewmat = torch.eye(4)
    zones.viewmat[:3, :3], zones.viewmat[:3, 3] = q, torch.tensor([0.1, -0.2, 0.5])
    zones.near = torch.rand(3, 4) * 2 + 1
    zones.far = zones.near + torch.rand(3, 4)
    means = torch.randn(400, 3) * 2
    inside, front, _ = membership(means, zones)
    for i, mean in enumerate(means.double()):
        x, y, z = (zones.viewmat[:3, :3].double() @ mean + zones.viewmat[:3, 3].double()).tolist()
        u, v = 50 * x / z + 32, 60 * y / z + 24
        if z <= 0 or not (0 <= u < 64 and 0 <= v < 48):
            assert not inside[i]
            assert not front[i]
            continue
        near, far = zones.near[int(v // 16), int(u // 16)].item(), zones.far[int(v // 16), int(u // 16)].item()
        assert bool(inside[i]) == (near <= z <= far)
        assert bool(front[i]) == (z < near)


def test_shifted_zones_are_as_many_elsewhere():
    zones = zones_of(4.0, 5.0)
    moved = zones.shifted(2, 3)  # of 3 x 4 tiles: row 1 + 2 = 0, column 2 + 3 = 1
    assert (moved.near[0, 1], moved.far[0, 1], moved.kind[0, 1], moved.labels[0, 1]) == (4.0, 5.0, FALSE_FRONT, 1)
    assert int(torch.isfinite(moved.near).sum()) == 1
    assert torch.isfinite(zones.near[1, 2])


def test_corners_project_back_and_records_count():
    zones = zones_of(4.0, 5.0)
    (record,) = zones.records(torch.full((3, 4), 0.3), torch.full((3, 4), 7.0))
    assert (record.kind, record.view, record.box) == ("false-front", 5, (32, 16, 48, 32))
    assert record.interval == (4.0, 5.0)
    assert record.points == 7
    assert record.error == pytest.approx(0.3)
    corners = torch.tensor(record.corners)
    assert corners[:, 2].tolist() == [4.0] * 4 + [5.0] * 4
    pixels = (corners @ zones.K.T)[:, :2] / corners[:, 2:]
    torch.testing.assert_close(pixels[:4], torch.tensor([[32.0, 16], [48, 16], [48, 32], [32, 32]]))
