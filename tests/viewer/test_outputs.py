"""The pictures error, zones and age: values against scenes whose truth is known."""

import pytest
import torch

from lpm.multiview.views import Views
from lpm.records import EditRecord, ZoneRecord
from lpm.viewer.boxes import ZONE_COLORS
from lpm.viewer.training.outputs import Outputs
from lpm.zones.error_maps import ErrorMaps

SIZE = (64, 48)
K = torch.tensor([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]])


def camera(x):
    viewmat = torch.eye(4)
    viewmat[0, 3] = -x
    return viewmat


def wall(z=4.0):
    """Opaque points on a plane."""
    y, x = torch.meshgrid(torch.arange(-2.5, 2.5, 0.08), torch.arange(-3.0, 3.0, 0.08), indexing="ij")
    means = torch.stack([x, y, torch.full_like(x, z)], -1).reshape(-1, 3)
    n = len(means)
    return {
        "means": means, "quats": torch.tensor([[1.0, 0, 0, 0]]).repeat(n, 1), "scales": torch.full((n, 3), 0.05).log(),
        "opacities": torch.full((n, 1), 4.0),
    }  # fmt: skip


@pytest.fixture
def outputs():
    views = Views([torch.rand(48, 64, 3)] * 3, K.repeat(3, 1, 1), torch.stack([camera(x) for x in (0.0, 1.0, 2.0)]))
    maps = ErrorMaps(tile=8)
    for view in range(3):
        maps.maps[view], maps.seen[view] = torch.full((6, 8), 0.05), 1
    maps.maps[0][:, :4] = 0.2  # wrong is what is at the left of the first photo
    return Outputs(views, maps, "classic")


def test_from_a_training_view_its_own_map(outputs):
    error = outputs.error(wall(), camera(0.0), K, SIZE)
    assert error.shape == (48, 64, 1)
    assert torch.equal(error[:, :32], torch.ones(48, 32, 1))  # the worst tile of all
    assert torch.allclose(error[:, 32:], torch.full((48, 32, 1), 0.25))


def test_from_elsewhere_the_error_stays_where_it_is_in_space(outputs):
    """Half a unit aside the border between wrong and right moves by 60 * .5 / 4 pixels."""
    error = outputs.error(wall(), camera(0.5), K, SIZE)[24, :, 0]
    assert error[8] > 1.3 * error[40]
    left, right = error[:16].mean(), error[40:56].mean()
    border = int((error > (left + right) / 2).nonzero().max())
    assert abs(border - (32 - 7.5)) < 4
    again = outputs.error(wall(), camera(0.5), K, SIZE)[24, :, 0]  # from what was kept
    assert torch.equal(error, again)


def test_without_a_map_it_is_dark(outputs):
    outputs.maps.maps.clear()
    assert outputs.error(wall(), camera(0.0), K, SIZE).abs().max() == 0


@pytest.mark.parametrize("x", [0.0, 0.8])
def test_a_zone_colours_the_surface_inside(outputs, x):
    zone = ZoneRecord("under-resolved", 0, (0, 0, 32, 48), (3.9, 4.1), 0.2)
    outputs.record = EditRecord(100, 0.1, [0], [zone], 0, 0, 0, 0, 0, 0, 0, None)
    rgb, depth = torch.full((48, 64, 3), 0.5), torch.full((48, 64, 1), 4.0)
    picture = outputs.zones(rgb, depth, camera(x), K)
    border = round(32 - 60 * x / 4)
    color = torch.tensor(ZONE_COLORS["under-resolved"]) / 255
    assert torch.allclose(picture[:, : border - 1], (0.35 * 0.25 + 0.65 * color).expand(48, border - 1, 3))
    assert torch.allclose(picture[:, border + 1 :], torch.tensor(0.25))
    assert torch.allclose(outputs.zones(rgb, 2 * depth, camera(x), K), torch.tensor(0.25))


def test_age(outputs):
    params = wall()
    touched = torch.where(params["means"][:, 0] < 0, 900, -(10**6))
    age = outputs.age(params, touched, 1000, camera(0.0), K, SIZE)[24, :, 0]
    assert age[4:28].amax() < 0.15
    assert age[36:60].amin() > 0.9
    assert outputs.age(params, None, 1000, camera(0.0), K, SIZE).amin() == 1
