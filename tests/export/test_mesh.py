"""lpm-export mesh: surfaces whose truth is known, through depths, fusing, files and the command."""

import json
import math
import struct

import numpy as np
import pytest
import torch
from editing.walls import cameras, wall
from export.some import call
from plyfile import PlyData

from lpm.exporting.cli import main
from lpm.exporting.depths import seen_surface
from lpm.exporting.mesh import seen_box
from lpm.exporting.mesh_files import write_mesh
from lpm.exporting.tsdf import DepthMap, Grid, Mesh, fuse, large_parts, surface
from lpm.formats.placement import Placement
from lpm.formats.ply import write_ply
from lpm.multiview.views import look_at

pytest.importorskip("skimage", reason="scikit-image is not installed")
RADIUS = 0.7


def sphere_maps(side=160, focal=180.0, eyes=None):
    """Exact depths of a ball about the origin, red where x > 0, blue elsewhere."""
    K = torch.tensor([[focal, 0, side / 2], [0, focal, side / 2], [0, 0, 1]])
    if eyes is None:
        eyes = [[3.0 * s * (axis == i) for i in range(3)] for axis in range(3) for s in (-1, 1)]
    grid = torch.arange(side) + 0.5
    v, u = torch.meshgrid(grid, grid, indexing="ij")
    rays = torch.stack([(u - side / 2) / focal, (v - side / 2) / focal, torch.ones_like(u)], -1)
    for eye in eyes:
        eye = torch.tensor(eye)
        viewmat = look_at(eye, torch.zeros(3), torch.tensor([0.3, 0.5, 0.8]))
        ways = rays @ viewmat[:3, :3]
        a, b, c = ways.square().sum(-1), (ways * eye).sum(-1), eye.square().sum() - RADIUS**2
        inside = b * b - a * c
        depth = torch.where(inside > 0, (-b - inside.clamp_min(0).sqrt()) / a, 0.0)
        right = (eye + depth[..., None] * ways)[..., 0] > 0
        color = torch.where(right[..., None], torch.tensor([255, 0, 0]), torch.tensor([0, 0, 255])).byte()
        yield DepthMap(depth, color, viewmat, K)


def test_a_balls_depths_give_the_ball():
    maps = list(sphere_maps())
    grid = Grid.around(torch.full((3,), -1.0), torch.full((3,), 1.0), 64)
    assert grid.shape == (64, 64, 64)
    mesh = surface(fuse(grid, maps, 3 * grid.voxel))
    radii = np.linalg.norm(mesh.vertices, axis=1)
    assert abs(radii.mean() - RADIUS) < 0.2 * grid.voxel
    assert np.abs(radii - RADIUS).max() < grid.voxel
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    volume = np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6
    assert volume == pytest.approx(4 / 3 * math.pi * RADIUS**3, rel=0.03)  # and faces look outside
    edges = np.sort(np.concatenate([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]]), 1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()  # closed
    clear = np.abs(mesh.vertices[:, 0]) > 2 * grid.voxel
    red = mesh.vertices[clear, 0] > 0
    assert (mesh.colors[clear][red] == [255, 0, 0]).all()
    assert (mesh.colors[clear][~red] == [0, 0, 255]).all()


def test_what_nobody_sees_stays_open_and_too_few_do_not_count():
    """From one side there is half a ball, no wall behind it; asked for two cameras there is nothing."""
    maps = list(sphere_maps(eyes=[[0.0, 0.0, 3.0]]))
    grid = Grid.around(torch.full((3,), -1.0), torch.full((3,), 1.0), 48)
    fused = fuse(grid, maps, 3 * grid.voxel)
    mesh = surface(fused)
    assert mesh.vertices[:, 2].min() > -grid.voxel
    assert mesh.vertices[:, 2].max() == pytest.approx(RADIUS, abs=0.5 * grid.voxel)
    with pytest.raises(ValueError, match="no surface in the box that enough cameras see"):
        surface(fused, views=2)


def test_blocks_are_those_that_matter():
    """All blocks give the same surface as those with a depth in them."""
    maps = list(sphere_maps(side=96, focal=110.0))
    grid = Grid.around(torch.full((3,), -1.0), torch.full((3,), 1.0), 64)
    fused = fuse(grid, maps, 3 * grid.voxel)
    assert 0.05 < len(fused.index) / 64**3 < 0.7
    assert (fused.index.diff() > 0).all()
    crossing = fused.distance[fused.weight > 0]
    assert crossing.min() < -0.3
    assert crossing.max() == 1


def test_small_parts_go():
    faces = np.array([[0, 1, 2], [1, 2, 3], [2, 3, 4], [5, 6, 7]])
    assert len(large_parts(faces, 8, 0.0)) == 4
    assert large_parts(faces, 8, 0.3).tolist() == faces[:3].tolist()


def test_the_box_leaves_out_what_is_far():
    """A window's view, as many pixels as the wall, fifty times as far: the box is about the wall."""
    depth = torch.full((60, 80), 2.0)
    depth[:, 40:] = 100.0
    K = torch.tensor([[80.0, 0, 40], [0, 80, 30], [0, 0, 1]])
    low, high = seen_box([DepthMap(depth, torch.zeros(60, 80, 3, dtype=torch.uint8), torch.eye(4), K)])
    assert low[0] == pytest.approx(-1, abs=0.15)
    assert high[2] == pytest.approx(2, abs=0.15)


def test_median_depth_is_on_the_wall():
    """Of a wall of opaque Gaussians, with a haze far behind it that the mean depth would follow."""
    full = wall(1500)
    back = {name: value.clone() for name, value in full.items()}
    back["means"][:, 2] -= 40
    back["means"][:, :2] *= 12
    back["scales"] += math.log(12)
    both = {name: torch.cat([full[name], back[name]]) for name in full}
    seen = cameras(full)
    found = seen_surface(both, seen, 4, "classic")
    z = found.points()
    near = (z[:, :2].abs() < 0.7).all(1) & (z[:, 2] > -5)
    assert near.sum() > 500
    assert z[near, 2].abs().median() < 0.02
    assert found.color.shape == (64, 64, 3)


def test_files(tmp_path):
    mesh = Mesh(np.eye(3) * 2, np.array([[0, 1, 2]]), np.array([[255, 0, 0], [0, 128, 0], [1, 2, 3]], np.uint8))
    up = Placement([0.0, 0, 1], offset=np.array([5e6, 0, 0]))
    write_mesh(tmp_path / "a.ply", mesh, up)
    back = PlyData.read(str(tmp_path / "a.ply"))
    assert back["vertex"]["x"].tolist() == [5e6 + 2, 5e6, 5e6]
    assert back["vertex"]["green"].tolist() == [0, 128, 2]
    assert back["face"]["vertex_indices"][0].tolist() == [0, 1, 2]
    write_mesh(tmp_path / "a.glb", mesh, Placement([0.0, 0, 1]))
    data = (tmp_path / "a.glb").read_bytes()
    magic, version, length, size = struct.unpack("<4sIII", data[:16])
    assert (magic, version, length) == (b"glTF", 2, len(data))
    document = json.loads(data[20 : 20 + size])
    turned = np.array(document["nodes"][0]["matrix"]).reshape(4, 4).T
    np.testing.assert_allclose(turned @ [0, 0, 1, 0], [0, 1, 0, 0], atol=1e-12)  # up is y
    assert document["accessors"][2]["count"] == 3
    trimesh = pytest.importorskip("trimesh", reason="trimesh, which reads it as others do, is not installed")
    shown = trimesh.load(tmp_path / "a.glb", force="mesh", process=False)
    np.testing.assert_allclose(shown.vertices, mesh.vertices @ turned[:3, :3].T, atol=1e-6)
    assert shown.faces.tolist() == [[0, 1, 2]]


def test_command(tmp_path, capsys):
    write_ply(tmp_path / "a.ply", wall(600))
    arguments = ["--crop", "-1", "-1", "-.4", "1", "1", ".4", "--resolution", "48"]
    assert call(main, "mesh", tmp_path / "a.ply", tmp_path / "b.ply", *arguments) == 0
    said = capsys.readouterr().out
    assert "looking from 64 cameras drawn around the points" in said
    assert "triangles, voxels of 0.0417" in said
    vertex = PlyData.read(str(tmp_path / "b.ply"))["vertex"]
    assert np.median(np.abs(vertex["z"])) < 0.03
    assert vertex["red"][vertex["x"] > 0.3].mean() > 150
    assert vertex["red"][vertex["x"] < -0.3].mean() < 100
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ply", "b.ply"]


@pytest.mark.parametrize(("arguments", "said"), [
    (["b.obj"], "b.obj: a name that does not end in .ply or .glb"),
    (["b.ply", "--resolution", "4"], "--resolution: 4; wanted 16 to 1,024"),
    (["b.ply", "--truncation", "9"], "--truncation: 9.0; wanted 1 to 8 voxels"),
    (["b.ply", "--views", "0"], "--views: 0; wanted 1 or more"),
    (["b.ply", "--crop", "5", "5", "5", "6", "6", "6"], "no surface in the box"),
    (["b.ply", "--crop", "1", "1", "1", "0", "0", "0"], "--crop: 1.0 1.0 1.0 0.0 0.0 0.0"),
])  # fmt: skip
def test_errors_are_one_line(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    write_ply(tmp_path / "a.ply", wall(100))
    assert call(main, "mesh", "a.ply", *arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.ply"]


def test_without_the_extra_one_line(tmp_path, monkeypatch, capsys):
    from lpm import checks

    monkeypatch.setattr(checks.importlib.util, "find_spec", lambda name: None)
    write_ply(tmp_path / "a.ply", wall(100))
    assert call(main, "mesh", tmp_path / "a.ply", tmp_path / "b.ply") == 2
    error = capsys.readouterr().err
    assert "skimage: is not installed; wanted it, for this command; pip install 'lpm-splat[mesh]'" in error
    assert error.count("\n") == 1
