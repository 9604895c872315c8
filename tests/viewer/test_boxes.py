"""Boxes of zones: the bars lie on the 12 edges and nowhere else."""

import numpy as np

from lpm.viewer.boxes import EDGES, edge_ends, edges_mesh

# A frustum cell: 2 x 2 at depth 1, 4 x 4 at depth 2.
FRUSTUM = np.array([[x * s, y * s, s] for s in (1.0, 2.0) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))])


def test_each_corner_has_three_edges():
    assert len({tuple(sorted(e)) for e in EDGES.tolist()}) == 12
    assert np.bincount(EDGES.ravel(), minlength=8).tolist() == [3] * 8


def test_edges_of_a_unit_cube_are_one_long():
    near = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
    cube = np.array(near + [[x, y, 1] for x, y, _ in near], float)
    start, end = edge_ends(cube[None]).transpose(1, 0, 2)
    assert np.allclose(np.linalg.norm(end - start, axis=1), 1)  # diagonals would be longer


def test_bars_lie_along_their_edges_and_are_as_thick_as_asked():
    corners = np.stack([FRUSTUM, FRUSTUM * 3 + 5])
    vertices, faces = edges_mesh(corners, 0.02)
    assert vertices.shape == (2 * 96, 3)
    assert vertices.dtype == np.float32
    assert faces.shape == (2 * 96, 3)
    bars = vertices.reshape(-1, 2, 4, 3)  # edge, end, corner
    ends = edge_ends(corners)
    assert np.allclose(bars.mean(2), ends, atol=1e-5)
    along = ends[:, 1] - ends[:, 0]
    across = bars - ends[:, :, None]
    assert np.allclose(np.einsum("ejkc,ec->ejk", across, along), 0, atol=1e-4)
    sides = np.linalg.norm(bars - np.roll(bars, 1, axis=2), axis=-1)
    assert np.allclose(sides, 0.02, atol=1e-5)


def test_faces_stay_within_their_bar_and_look_outwards():
    vertices, faces = edges_mesh(FRUSTUM[None], 0.02)
    bar = np.arange(len(faces)) // 8
    assert (faces // 8 == bar[:, None]).all()
    a, b, c = vertices[faces].transpose(1, 0, 2).astype(float)
    middle = vertices.reshape(-1, 8, 3).mean(1)[bar]
    outwards = np.einsum("fc,fc->f", np.cross(b - a, c - a), (a + b + c) / 3 - middle)
    assert (outwards > 0).all()


def test_no_boxes_and_flat_boxes():
    vertices, faces = edges_mesh(np.zeros((0, 8, 3)), 0.1)
    assert vertices.shape == (0, 3)
    assert faces.shape == (0, 3)
    vertices, _ = edges_mesh(np.zeros((1, 8, 3)), 0.1)  # all corners in one place
    assert np.isfinite(vertices).all()
