"""Cones of pixels and spheres, on cases that can be computed by hand."""

import itertools
import math

import pytest
import torch

from lpm.multiview.frustum_intersection import bounding_sphere, frustum_intersection

K = torch.tensor([[100.0, 0, 50], [0, 100.0, 50], [0, 0, 1]])


def looking(at, direction, right):
    """World to camera of a camera at `at` with the given axes; y down is the cross product."""
    z, x = torch.tensor(direction), torch.tensor(right)
    rotation = torch.stack([x, torch.linalg.cross(z, x), z])
    viewmat = torch.eye(4)
    viewmat[:3, :3], viewmat[:3, 3] = rotation, -rotation @ torch.tensor(at)
    return viewmat


FRONT = looking([0.0, 0, -10], [0.0, 0, 1], [1.0, 0, 0])
SIDE = looking([-10.0, 0, 0], [1.0, 0, 0], [0.0, 0, -1])
AXIS = (45.0, 45.0, 55.0, 55.0)  # the cone |x|, |y| <= .05 z


def rows(points):
    return sorted(tuple(round(v, 9) + 0.0 for v in row) for row in points.tolist())


def test_cones_at_a_right_angle():
    """|x| <= .05 (z + 10), |z| <= .05 (x + 10), and |y| below both: the corners in the plane y = 0 by hand."""
    far, near = 10 * 0.05 / 0.95, 10 * 0.05 / 1.05  # where x = z, and where x = -z
    sides = [(far, far), (-near, -near)]
    mixed = 0.5 * 0.95 / (1 + 0.05**2)  # x = .05 (z + 10) and z = -.05 (x + 10)
    sides += [(mixed, -0.05 * (mixed + 10)), (-0.05 * (mixed + 10), mixed)]
    wanted = [(x, s * 0.05 * (min(x, z) + 10), z) for x, z in sides for s in (-1, 1)]
    found = frustum_intersection(AXIS, K, FRONT, AXIS, K, SIDE)
    for corner in wanted:
        assert (found - found.new_tensor(corner)).norm(dim=-1).min() < 1e-9
    # The two roofs cross where x = z, so that the corners that are left are those above.
    assert len(found) == 8


@pytest.mark.parametrize("shift", [(0.0, 0, 0), (1e3, -2e3, 5e2)])
@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
def test_place_and_unit_of_the_world_change_nothing(shift, unit):
    def moved(viewmat):
        result = viewmat.double().clone()
        result[:3, 3] = viewmat[:3, 3].double() * unit - result[:3, :3] @ torch.tensor(shift, dtype=torch.float64)
        return result

    plain = frustum_intersection(AXIS, K, FRONT, AXIS, K, SIDE)
    found = frustum_intersection(AXIS, K, moved(FRONT), AXIS, K, moved(SIDE))
    back = (found - found.new_tensor(shift)) / unit
    assert len(back) == len(plain)
    assert (back[:, None] - plain).norm(dim=-1).amin(1).max() < 1e-7


def test_a_camera_inside_the_others_cone_is_a_corner():
    inside = looking([0.0, 0, 10], [1.0, 0, 0], [0.0, 0, -1])
    found = frustum_intersection(AXIS, K, FRONT, AXIS, K, inside)
    assert (found - found.new_tensor([0.0, 0, 10])).norm(dim=-1).min() < 1e-9


@pytest.mark.parametrize(
    ("box", "viewmat"),
    [
        (AXIS, looking([1.0, 0, -10], [0.0, 0, 1], [1.0, 0, 0])),  # parallel: never ends
        ((60.0, 45.0, 70.0, 55.0), looking([1.0, 0, -10], [0.0, 0, 1], [1.0, 0, 0])),  # diverging
        (AXIS, looking([-10.0, 5, 0], [1.0, 0, 0], [0.0, 0, -1])),  # passing above
        (AXIS, FRONT),  # the same camera
        ((45.0, 45.0, 45.0, 55.0), SIDE),  # a box without width
        (AXIS, looking([-10.0, 0, 0], [-1.0, 0, 0], [0.0, 0, 1])),  # looking away
    ],
)
def test_no_zone(box, viewmat):
    assert frustum_intersection(AXIS, K, FRONT, box, K, viewmat) is None


def test_random_points_are_inside_both_or_outside():
    """A point is in the hull of the corners exactly if both views see it in their box."""
    from scipy.spatial import Delaunay

    from lpm.multiview.views import project

    tilted = looking([-6.0, 1, -9], [math.sin(0.6), 0.0, math.cos(0.6)], [math.cos(0.6), 0.0, -math.sin(0.6)])
    boxes = ((40.0, 42.0, 57.0, 55.0), (35.0, 30.0, 60.0, 70.0))
    corners = frustum_intersection(boxes[0], K, FRONT, boxes[1], K, tilted)
    low, high = corners.amin(0), corners.amax(0)
    points = low + (high - low) * torch.rand(4000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    inside = torch.ones(len(points), dtype=torch.bool)
    for box, viewmat in zip(boxes, (FRONT, tilted), strict=True):
        pixels, z = project(points, viewmat.double(), K.double())
        inside &= (z > 0) & (pixels >= pixels.new_tensor(box[:2])).all(-1)
        inside &= (pixels <= pixels.new_tensor(box[2:])).all(-1)
    hull = torch.from_numpy(Delaunay(corners.numpy()).find_simplex(points.numpy()) >= 0)
    assert torch.equal(hull, inside)
    assert 100 < inside.sum() < 3900


def test_spheres():
    def sphere(points):
        centre, radius = bounding_sphere(torch.tensor(points, dtype=torch.float64))
        return [round(v, 9) + 0.0 for v in centre.tolist()], round(radius, 9)

    assert sphere([[1.0, 2, 3]]) == ([1, 2, 3], 0)
    assert sphere([[1.0, 2, 3]] * 5) == ([1, 2, 3], 0)
    assert sphere([[0.0, 0, 0], [2, 0, 0], [1, 0, 0]]) == ([1, 0, 0], 1)  # on a line
    assert sphere([[-1.0, 0, 0], [1, 0, 0], [0, 0.9, 0], [0, 0, 0.5]]) == ([0, 0, 0], 1)  # two of them decide
    side = math.sqrt(3) / 2
    assert sphere([[1.0, 0, 5], [-0.5, side, 5], [-0.5, -side, 5], [0, 0, 5.2]]) == ([0, 0, 5], 1)  # three
    assert sphere([list(map(float, p)) for p in itertools.product((0, 2), repeat=3)]) == ([1, 1, 1], round(3**0.5, 9))


def test_sphere_is_the_smallest():
    """No centre nearby does better, and every vertex is inside."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        points = torch.randn(11, 3, generator=generator, dtype=torch.float64)
        centre, radius = bounding_sphere(points)
        assert (points - centre).norm(dim=-1).max() <= radius * (1 + 1e-12)
        nearby = centre + 1e-3 * torch.randn(500, 3, generator=generator, dtype=torch.float64)
        assert (points - nearby[:, None]).norm(dim=-1).amax(1).min() >= radius
