"""Scenes in a national grid, millions of metres from the origin: places stay apart, and come back where they were."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from export.some import call, covariances, visible
from plyfile import PlyData
from scipy.spatial import cKDTree

from lpm.checks import LpmError
from lpm.formats.cli import export_main
from lpm.formats.inspect import inspect_main
from lpm.formats.ply import read_ply, write_ply
from lpm.formats.read import load
from lpm.gaussians.far import offset_of
from lpm.gaussians.similarity import Similarity, from_dataparser, move, move_far
from lpm.runs import checkpoint
from lpm.scenes.ply import read_points, write_points
from lpm.train.gaussians_from_file import start_from

UTM = np.array([500000.25, 5412345.5, 300.0])
SCALE = 0.125


def turn(seed=0):
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q * np.sign(np.linalg.det(q))


@pytest.fixture
def run(tmp_path):
    """A run whose frame is turned, scaled and centred on a place in UTM; its parameters, and where they are."""
    folder, params, rotation = tmp_path / "run", visible(300, 2), turn()
    (folder / "checkpoints").mkdir(parents=True)
    state = {"step": 9, "pipeline": {f"_model.gauss_params.{name}": value for name, value in params.items()}}
    checkpoint.atomic_save(state, folder / "checkpoints" / "step-000000009.ckpt", folder)
    # In single precision, as nerfstudio computes rotations, and the place exact.
    rough = rotation.astype(np.float32).astype(np.float64)
    transform = np.column_stack([rough, -rough @ UTM])
    (folder / "dataparser_transforms.json").write_text(json.dumps({"transform": transform.tolist(), "scale": SCALE}))
    world = params["means"].double().numpy() @ rotation / SCALE + UTM
    return folder, params, world


def places(loaded):
    return loaded.params["means"].double().numpy() + loaded.offset


def test_world_frame(run, tmp_path, capsys):
    folder, params, world = run
    out = tmp_path / "w.ply"
    assert call(export_main, "ply", folder, out, "--frame", "world") == 0
    said = capsys.readouterr().out
    assert "float32 cannot hold its positions: they are less 5000" in said
    loaded = load(out)
    assert np.abs(places(loaded) - world).max() < 1e-5
    assert loaded.offset.tolist() == json.loads((tmp_path / "w.ply.json").read_text())["offset"]
    assert (loaded.offset == np.round(loaded.offset)).all()
    assert len(np.unique(loaded.params["means"][:, 1])) == 300
    assert call(inspect_main, out) == 0
    assert "offset" in capsys.readouterr().out
    # By its comment alone, and back again by its sidecar.
    (tmp_path / "only.ply").write_bytes(out.read_bytes())
    assert np.abs(places(load(tmp_path / "only.ply")) - world).max() < 1e-5
    assert call(export_main, "ply", out, tmp_path / "t.ply", "--frame", "train") == 0
    back = load(tmp_path / "t.ply")
    assert not back.offset.any()
    assert (back.params["means"] - params["means"]).abs().max() < 1e-5
    assert (covariances(back.params) - covariances(params)).abs().max() < 1e-5


def test_as_doubles(run, tmp_path):
    folder, _, world = run
    assert call(export_main, "ply", folder, tmp_path / "d.ply", "--frame", "world", "--doubles", "--no-sidecar") == 0
    vertex = PlyData.read(str(tmp_path / "d.ply"))["vertex"]
    assert vertex["x"].dtype == "f8"
    assert vertex["scale_0"].dtype == "f4"
    assert np.abs(np.stack([vertex[a] for a in "xyz"], 1) - world).max() < 1e-5
    loaded = load(tmp_path / "d.ply")
    assert np.abs(places(loaded) - world).max() < 1e-5
    with pytest.raises(LpmError, match=r"beyond float32; wanted a file to read with lpm\.formats\.read\.load"):
        read_ply(tmp_path / "d.ply")
    assert call(export_main, "ply", tmp_path / "d.ply", tmp_path / "e.ply") == 0
    assert np.abs(places(load(tmp_path / "e.ply")) - world).max() < 1e-5


@pytest.mark.parametrize("kind", ["splat", "splatv", "spz"])
def test_formats_without_comments_have_a_sidecar(run, tmp_path, capsys, kind):
    folder, _, world = run
    out = tmp_path / f"w.{kind}"
    assert call(export_main, kind, folder, out, "--frame", "world", "--no-sidecar") == 2
    assert "a sidecar, which holds an offset" in capsys.readouterr().err
    assert not out.exists()
    assert call(export_main, kind, folder, out, "--frame", "world") == 0
    found = places(load(out))
    away, which = cKDTree(found).query(world)  # a .splat is in an order of its own
    assert away.max() < (1e-3 if kind == "spz" else 1e-4)  # a .spz has steps of 2^-12
    assert len(np.unique(which)) == 300


@pytest.mark.parametrize("kind", ["glb", "gltf", "usd", "usdz"])
def test_formats_that_say_it_themselves(run, tmp_path, kind):
    if kind.startswith("usd"):
        pytest.importorskip("pxr", reason="usd-core is not installed")
    folder, _, world = run
    out = tmp_path / f"w.{kind}"
    assert call(export_main, kind, folder, out, "--frame", "world", "--no-sidecar") == 0
    assert np.abs(places(load(out)) - world).max() < 1e-5


def test_a_sequence_says_it_in_every_file(run, tmp_path):
    folder, _, world = run
    assert call(export_main, "ply-sequence", folder, tmp_path / "s", "--frame", "world", "--no-sidecar") == 0
    assert np.abs(places(load(tmp_path / "s")) - world).max() < 1e-5
    assert np.abs(places(load(tmp_path / "s" / "s_0000.ply")) - world).max() < 1e-5


def test_crop_counts_in_the_world(run, tmp_path):
    folder, _, world = run
    box = [*(UTM - 2), *(UTM + np.array([2.0, 1.0, 3.0]))]
    assert call(export_main, "ply", folder, tmp_path / "c.ply", "--frame", "world", "--crop", *box) == 0
    inside = ((world >= box[:3]) & (world <= box[3:])).all(1)
    assert 10 < inside.sum() < 290
    assert np.abs(places(load(tmp_path / "c.ply")) - world[inside]).max() < 1e-5


def test_training_starts_where_the_file_says(run, tmp_path):
    """By another run of the same scene, which is centred a little elsewhere."""
    folder, _, world = run
    assert call(export_main, "ply", folder, tmp_path / "w.ply", "--frame", "world") == 0
    assert call(export_main, "ply", folder, tmp_path / "t.ply") == 0
    other = Similarity(turn(5), -0.2 * turn(5) @ (UTM + 1), 0.2)
    want = 0.2 * (world - UTM - 1) @ turn(5).T
    for source in (folder, tmp_path / "w.ply", tmp_path / "t.ply"):
        params, _ = start_from(source, 2, "auto", other)
        assert np.abs(params["means"].detach().double().numpy() - want).max() < 1e-5


def test_near_scenes_have_no_offset():
    params = visible(100, 0)
    for by in (Similarity(turn(), np.array([3.0, -20.0, 100.0]), 2.0), Similarity(np.eye(3), np.zeros(3), 1e-6)):
        moved, offset = move_far(params, by)
        assert not offset.any()
        assert all(torch.equal(moved[name], value) for name, value in move(params, by).items())


@pytest.mark.parametrize("size", [1e-7, 0.02, 30.0])
def test_offsets_are_round_and_leave_little(size):
    """Degrees of longitude, metres, a model of a country."""
    xyz = np.array([13.4, 5e6, -7e7]) + np.random.default_rng(0).normal(0, 50 * size, (500, 3))
    offset = offset_of(xyz, np.full(500, size))
    rest = np.abs(xyz - offset).max()
    assert rest < 1000 * size
    assert offset_of(xyz - offset, np.full(500, size)).tolist() == [0, 0, 0]
    assert not offset_of(np.full((3, 3), np.nan), np.ones(3)).any()


def test_a_rotation_in_single_precision_shifts_nothing():
    rough = turn(3).astype(np.float32).astype(np.float64)
    by = from_dataparser(np.column_stack([rough, -rough @ UTM]), 2.0)
    assert np.abs(by.inverse().translation - UTM).max() < 1e-8


def test_points_are_written_far_from_the_origin(tmp_path):
    xyz = np.random.default_rng(0).uniform(-3, 3, (200, 3))
    rgb = np.zeros((200, 3), np.uint8)
    write_points(tmp_path / "near.ply", xyz, rgb)
    assert PlyData.read(str(tmp_path / "near.ply"))["vertex"]["x"].dtype == "f4"
    write_points(tmp_path / "far.ply", xyz + UTM, rgb)
    assert np.abs(read_points(tmp_path / "far.ply").xyz - UTM - xyz).max() < 1e-8


def test_a_file_of_others_that_is_on_a_lattice_is_told_of(tmp_path):
    params = visible(100, 0)
    write_ply(tmp_path / "a.ply", params)
    assert load(tmp_path / "a.ply").notes == []
    params["means"] += torch.from_numpy(UTM).float()
    write_ply(tmp_path / "b.ply", params)
    (note,) = load(tmp_path / "b.ply").notes
    assert "5.41e+06 from the origin, where float32 has steps of 0.65" in note
