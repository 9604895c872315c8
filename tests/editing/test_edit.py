"""lpm-edit: what is kept and where it goes, by values; nothing is overwritten unless asked."""

import json

import cv2
import numpy as np
import pytest
import tiny_scene
import torch
from export.some import call, covariances, picture, visible
from scipy.spatial.transform import Rotation

from lpm.editing.cli import main
from lpm.editing.ground import ground_plane
from lpm.editing.simplify import simplify
from lpm.formats.gltf import write_gltf
from lpm.formats.placement import Placement
from lpm.formats.ply import write_ply
from lpm.formats.read import load
from lpm.formats.sidecar import Sidecar, write_sidecar
from lpm.gaussians.similarity import Similarity, move
from lpm.scenes.read import read_scene


@pytest.fixture
def scene(tmp_path):
    """A PLY of 300 Gaussians, and its parameters."""
    params = visible(300, 2)
    write_ply(tmp_path / "a.ply", params)
    return tmp_path / "a.ply", params


def test_crop_to_a_box_and_a_ball(scene, tmp_path, capsys):
    source, params = scene
    out = tmp_path / "b.ply"
    assert call(main, "crop", source, out, "--box", -0.5, -0.4, -0.3, 0.5, 0.4, 0.3, "--sphere", 0, 0, 0, 0.5) == 0
    xyz = params["means"].numpy()
    keep = (np.abs(xyz) <= (0.5, 0.4, 0.3)).all(1) & (np.linalg.norm(xyz, axis=1) <= 0.5)
    assert 10 < keep.sum() < 200
    back = load(out).params
    for name, value in params.items():
        assert torch.equal(back[name], value[torch.from_numpy(keep)]), name
    said = capsys.readouterr().out
    assert f"crop: {300 - keep.sum()} of 300 Gaussians" in said
    assert "outside the box and the ball" in said
    seen = cv2.imread(str(tmp_path / "b.ply.edit.jpg"))
    assert seen.shape == (640, 1280, 3)
    assert (seen[:320] < 200).mean() > (seen[320:] < 200).mean()  # less is there below
    inside = tmp_path / "c.ply"
    assert call(main, "crop", source, inside, "--sphere", 0, 0, 0, 0.5, "--invert", "--no-picture") == 0
    assert len(load(inside).params["means"]) == (np.linalg.norm(xyz, axis=1) > 0.5).sum()
    assert not (tmp_path / "c.ply.edit.jpg").exists()


def test_crop_to_the_cameras(tmp_path):
    """In the frame of a run, which turned and scaled the world, with the sidecar that says how."""
    folder = tiny_scene.make_transforms(tmp_path / "scene", views=6)
    cameras = read_scene(folder).c2w[:, :3, 3]
    turn, scale, shift = (
        Rotation.from_euler("xyz", (20, 50, -70), degrees=True).as_matrix(),
        0.3,
        np.array([1.0, -2, 0.5]),
    )
    params = visible(500, 0)
    world = cameras.mean(0) + params["means"].double().numpy() * np.ptp(cameras, axis=0).max() * 2
    params["means"] = torch.from_numpy((world @ turn.T + shift) * scale).float()
    write_ply(tmp_path / "a.ply", params)
    matrix = np.column_stack([turn, shift]).tolist()
    write_sidecar(tmp_path / "a.ply", Sidecar(500, "train", matrix, scale, "classic", [0, 0, 1], "", "a.ply"))
    out = tmp_path / "b.ply"
    assert call(main, "crop", tmp_path / "a.ply", out, "--cameras", folder, "--margin", 0.4) == 0
    kept = load(out)
    assert kept.frame == "train"
    assert kept.world_to_train is not None
    diagonal = np.linalg.norm(np.ptp(cameras, axis=0))
    away = np.linalg.norm(world[:, None] - cameras, axis=2).min(1)
    survivors = {tuple(row) for row in kept.params["means"].tolist()}
    stays = np.array([tuple(row) in survivors for row in params["means"].tolist()])
    assert stays[away <= 0.4 * diagonal / np.sqrt(3)].all()  # in the cube around a camera
    radius = np.linalg.norm(cameras - cameras.mean(0), axis=1).max() + 0.4 * diagonal
    assert not stays[np.linalg.norm(world - cameras.mean(0), axis=1) > radius].any()
    assert 0 < stays.sum() < 500


def test_transform(scene, tmp_path, capsys):
    source, params = scene
    out = tmp_path / "b.glb"
    arguments = ["--scale", 2, "--rotate", 0, 0, 2, 90, "--move", 1, 2, 3]
    assert call(main, "transform", source, out, *arguments) == 0
    turn = np.array([[0, -1.0, 0], [1, 0, 0], [0, 0, 1]])
    want = move(params, Similarity(turn, np.array([1.0, 2, 3]), 2.0))
    loaded = load(out)
    assert loaded.up == pytest.approx([1, 0, 0], abs=1e-6)  # -y before
    assert (loaded.params["means"] - want["means"]).abs().max() < 1e-5
    assert (covariances(loaded.params) - covariances(want)).abs().max() < 1e-5
    x, y, z = params["means"][0].tolist()
    assert loaded.params["means"][0].tolist() == pytest.approx([1 - 2 * y, 2 + 2 * x, 3 + 2 * z], abs=1e-5)
    before = picture(params, (3.0, 0.2, 0.4))
    after = picture(loaded.params, (1 - 0.4, 2 + 6.0, 3 + 0.8), target=(1.0, 2.0, 3.0))
    assert (before - after).abs().max() < 1 / 255  # with its harmonics
    assert "transform: 300 Gaussians x 2, by 90 degrees" in capsys.readouterr().out


def floor(tilt, n=4000):
    """A floor with things on it, tilted; z is up before."""
    r = np.random.default_rng(1)
    ground = np.column_stack([r.uniform(-3, 3, (n, 2)), r.normal(0, 0.01, n)])
    things = np.column_stack([r.uniform(-1, 1, (n, 2)), r.uniform(0, 2, n)])
    below = np.column_stack([r.uniform(-3, 3, (n // 40, 2)), r.uniform(-1, 0, n // 40)])
    return np.concatenate([ground, things, below]) @ tilt.T + tilt[:, 2] * 0.7, n


def test_level(tmp_path, capsys):
    tilt = Rotation.from_euler("xyz", (25, -15, 40), degrees=True).as_matrix()
    xyz, n = floor(tilt)
    params = visible(len(xyz), 1)
    params["means"], params["opacities"] = torch.from_numpy(xyz).float(), torch.full((len(xyz), 1), 3.0)
    write_ply(tmp_path / "a.ply", params)
    two = (tilt @ (0, 0, 0.7)).tolist(), (tilt @ (2, 0, 0.7)).tolist()
    out = tmp_path / "b.ply"
    arguments = ["--up", 0, 0, 1, "--length", *two[0], *two[1], 5]
    assert call(main, "level", tmp_path / "a.ply", out, *arguments) == 0
    loaded = load(out)
    means = loaded.params["means"][:n].double().numpy()
    assert abs(means[:, 2].mean()) < 0.01
    assert means[:, 2].std() == pytest.approx(0.025, abs=0.003)  # 2.5 times .01: it is level
    assert loaded.params["means"][n : 2 * n, 2].mean() == pytest.approx(2.5, abs=0.1)
    assert loaded.up == [0, 0, 1] or json.loads((tmp_path / "b.ply.json").read_text())["up"] == [0, 0, 1]
    said = capsys.readouterr().out
    assert "x 2.5 to metres" in said
    angle = np.degrees(np.arccos(tilt[2, 2]))
    assert f"was {angle:.1f}"[:-2] in said


def test_no_ground(tmp_path, capsys):
    write_ply(tmp_path / "a.ply", {**visible(3000, 0), "opacities": torch.full((3000, 1), 3.0)})
    assert call(main, "level", tmp_path / "a.ply", tmp_path / "b.ply") == 2
    error = capsys.readouterr().err
    assert "5 % or more" in error
    assert not (tmp_path / "b.ply").exists()


def test_the_ground_is_not_the_ceiling():
    r = np.random.default_rng(2)
    ground = np.column_stack([r.uniform(-3, 3, (500, 2)), np.zeros(500)])
    ceiling = np.column_stack([r.uniform(-3, 3, (2000, 2)), np.full(2000, 2.5)])
    plane = ground_plane(np.concatenate([ground, ceiling]), np.array([0.1, 0, 1.0]))
    assert plane.normal.tolist() == pytest.approx([0, 0, 1], abs=1e-6)
    assert plane.height == pytest.approx(0, abs=1e-6)
    assert plane.share == pytest.approx(0.2, abs=0.02)


def test_merge_in_the_frame_of_the_first(tmp_path, capsys):
    """One in the world's frame, the other in a run's: they lie where they lay in the world."""
    a, b = visible(100, 1, seed=1), visible(120, 3, seed=2)
    turn = Rotation.from_euler("xyz", (20, 50, -70), degrees=True).as_matrix()
    to_train = Similarity(turn, 0.3 * np.array([1.0, -2, 0.5]), 0.3)
    matrix = np.column_stack([turn, [1.0, -2, 0.5]]).tolist()
    for name, params, frame in (("a", a, "world"), ("b", move(b, to_train), "train")):
        write_ply(tmp_path / f"{name}.ply", params)
        sidecar = Sidecar(len(params["means"]), frame, matrix, 0.3, "classic", [0, 0, 1], "", f"{name}.ply")
        write_sidecar(tmp_path / f"{name}.ply", sidecar)
    assert call(main, "merge", tmp_path / "a.ply", tmp_path / "b.ply", tmp_path / "c.ply") == 0
    back = load(tmp_path / "c.ply")
    assert back.frame == "world"
    assert (back.params["means"][:100] - a["means"]).abs().max() == 0
    assert (back.params["means"][100:] - b["means"]).abs().max() < 1e-4
    assert (back.params["features_rest"][100:] - b["features_rest"]).abs().max() < 1e-4
    assert not back.params["features_rest"][:100, 3:].any()
    assert "100 and 120 Gaussians; the second brought into the frame of the first" in capsys.readouterr().out


def test_far_from_the_origin(tmp_path):
    """Places in a national grid are kept in double, through every edit."""
    offset = np.array([500_000.0, 5_400_000.0, 300.0])
    params = visible(200, 0)
    write_gltf(tmp_path / "a.glb", params, Placement([0.0, 0, 1], None, offset))
    xyz = params["means"].double().numpy() + offset
    box = [*(offset - 0.5), *(offset + 0.5)]
    assert call(main, "crop", tmp_path / "a.glb", tmp_path / "b.ply", "--box", *box) == 0
    loaded = load(tmp_path / "b.ply")
    keep = (np.abs(params["means"].numpy()) <= 0.5).all(1)
    assert np.abs(loaded.params["means"].double().numpy() + loaded.offset - xyz[keep]).max() < 1e-5
    assert call(main, "transform", tmp_path / "a.glb", tmp_path / "c.glb",
                "--move", *(-offset)) == 0  # fmt: skip
    moved = load(tmp_path / "c.glb")
    assert not moved.offset.any()
    assert (moved.params["means"] - params["means"]).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["crop", "a.ply", "b.ply"], "crop: no region; wanted --box, --sphere or --cameras"),
        (["crop", "a.ply", "b.ply", "--box", "1", "0", "0", "0", "1", "1"], "--box"),
        (["crop", "a.ply", "b.ply", "--sphere", "0", "0", "0", "0"], "--sphere"),
        (["crop", "a.ply", "b.ply", "--sphere", "50", "0", "0", "1"], "none of 300 Gaussians left"),
        (["crop", "a.ply", "b.ply", "--cameras", "gone"], "gone"),
        (["crop", "a.ply", "b.obj", "--sphere", "0", "0", "0", "1"], "ending '.obj'"),
        (["crop", "gone.ply", "b.ply", "--sphere", "0", "0", "0", "1"], "gone.ply: no such file"),
        (["crop", "a.ply", "a.ply", "--sphere", "0", "0", "0", "1"], "there already; wanted a new name; --overwrite"),
        (["transform", "a.ply", "b.ply", "--scale", "0"], "--scale"),
        (["transform", "a.ply", "b.ply", "--rotate", "0", "0", "0", "90"], "--rotate"),
        (["transform", "a.ply", "b.ply", "--move", "nan", "0", "0"], "--move"),
        (["level", "a.ply", "b.ply", "--length", "0", "0", "0", "0", "0", "0", "1"], "--length"),
        (["level", "a.ply", "b.ply", "--up", "0", "0", "0"], "--up"),
        (["merge", "a.ply", "gone.ply", "b.ply"], "gone.ply: no such file"),
        (["simplify", "a.ply", "b.ply", "--points", "301"], "--points: 301"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(scene, tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    before = (tmp_path / "a.ply").read_bytes()
    assert call(main, *arguments) == 2
    error = capsys.readouterr().err.splitlines()
    assert said in error[-1]
    assert error[-1].startswith("error: ")
    assert "; wanted " in error[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["a.ply"]
    assert (tmp_path / "a.ply").read_bytes() == before


def test_overwrite(scene):
    source, _ = scene
    assert call(main, "crop", source, source, "--sphere", 0, 0, 0, 0.5, "--overwrite", "--no-picture") == 0
    assert len(load(source).params["means"]) < 300


def test_simplify_keeps_mass_and_looks(tmp_path, capsys):
    """A wall of 4,000 in two colours as 500: seen as before, and better than 500 of them."""
    r = np.random.default_rng(3)
    params = visible(4000, 0)
    params["means"] = torch.from_numpy(np.column_stack([r.uniform(-1, 1, (4000, 2)), r.normal(0, 0.01, 4000)])).float()
    params["scales"] = torch.from_numpy(np.log([[0.03, 0.025, 0.004]]) + r.normal(0, 0.2, (4000, 3))).float()
    params["quats"] = torch.tensor([[1.0, 0, 0, 0]]).repeat(4000, 1)
    params["opacities"][:] = 0.5
    params["features_dc"] = torch.where(params["means"][:, :1] > 0, 1.0, -1.0).repeat(1, 3)
    write_ply(tmp_path / "a.ply", params)
    assert call(main, "simplify", tmp_path / "a.ply", tmp_path / "b.ply", "--points", 500) == 0
    assert "4,000 Gaussians became 500" in capsys.readouterr().out
    back = load(tmp_path / "b.ply").params
    assert len(back["means"]) == 500
    subset = {name: value[::8] for name, value in params.items()}
    seen = [picture(each, (0.0, 0.4, 3.0), up=(0.0, 1.0, 0.0)) for each in (params, back, subset)]
    psnr = [float(-10 * torch.log10((each - seen[0]).square().mean())) for each in seen[1:]]
    print(psnr)
    assert psnr[0] > psnr[1] + 6


def test_two_become_one_with_their_moments():
    """Two round ones side by side: mean and covariance are those of the pair, and the light it stops stays."""
    params = visible(2, 1)
    params["means"] = torch.tensor([[0.0, 0, 0], [1.0, 0, 0]])
    params["scales"], params["opacities"] = torch.log(torch.full((2, 3), 0.5)), torch.tensor([[0.2], [0.6]]).logit()
    one = simplify(params, 1)
    assert one["means"][0].tolist() == pytest.approx([0.75, 0, 0])
    want = np.diag([0.25 + 0.25 * 0.75, 0.25, 0.25])
    np.testing.assert_allclose(covariances(one)[0], want, atol=1e-6)
    area = np.sqrt(want[0, 0]) * 0.5
    assert float(one["opacities"].sigmoid()) == pytest.approx(0.8 * 0.25 / area, rel=1e-5)
    color = 0.25 * params["features_rest"][0] + 0.75 * params["features_rest"][1]
    torch.testing.assert_close(one["features_rest"][0], color)


@pytest.mark.parametrize("points", [1, 7, 100])
def test_simplify_to_any_number(points):
    """Places that many share, too."""
    params = visible(100, 0)
    params["means"][10:60] = 0.5
    assert len(simplify(params, points)["means"]) == points
