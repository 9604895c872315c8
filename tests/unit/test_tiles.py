"""Tiles: every place in one of them, every photo where it is of use, and a merged model that is the whole one."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch

from lpm.checks import LpmError
from lpm.gaussians.similarity import Similarity, move
from lpm.scenes.read import read_scene
from lpm.scenes.samples.make import make
from lpm.scenes.split import hold_out
from lpm.tile import merge as merging
from lpm.tile.cells import lay_out, seen_points
from lpm.tile.split import read_plan, split


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    return make("street", tmp_path_factory.mktemp("street") / "scene", 48, (96, 72))


@pytest.mark.parametrize("count", [2, 3, 5])
def test_cells_cover_everything_once_with_as_many_points_each(street, count):
    scene = read_scene(street)
    cells = lay_out(scene, count)
    everywhere = np.random.default_rng(0).uniform(-200, 200, (5000, 3))
    assert (sum(cells.holding(everywhere, t).astype(int) for t in range(count)) == 1).all()
    shares = [cells.holding(scene.points.xyz, t).mean() for t in range(count)]
    assert min(shares) > 0.8 / count and max(shares) < 1.2 / count  # noqa: PT018
    assert abs(cells.axes @ [0, 0, 1.0]).max() < 0.15  # along the ground, as the cameras stand
    inner = cells.high[:, 0][np.isfinite(cells.high[:, 0])]
    assert len(inner) == count - 1  # a street is cut across


def test_images_belong_to_what_they_show(street, tmp_path):
    plan = split(street, tmp_path / "tiles", 3, 0.1, 0.25)
    scene = read_scene(street)
    assert plan["unused"] == []
    assert all(tile["images"] < 0.65 * len(scene) for tile in plan["tiles"])
    _, cells = read_plan(tmp_path / "tiles")
    for t in range(3):
        part = read_scene(tmp_path / "tiles" / f"tile_{t:02d}")
        whole = {name: v for v, name in enumerate(scene.names)}
        held = {scene.names[v] for v in hold_out(scene, 8)[1]}
        assert {part.names[v] for v in hold_out(part, 8)[1]} == held & set(part.names)
        for v, name in enumerate(part.names):
            original = whole[name]
            assert np.allclose(part.c2w[v], scene.c2w[original])
            assert np.allclose(part.intrinsics[v], scene.intrinsics[original])
            assert os.path.samefile(part.images[v], scene.images[original])  # no second copy on the disk
            rows = seen_points(scene, original)
            assert cells.holding(scene.points.xyz[rows], t, 5.0).mean() > 0.25


def test_a_point_behind_a_house_is_not_seen(street):
    scene = read_scene(street)
    points, pose = scene.points.xyz, scene.c2w[0]
    rows = seen_points(scene, 0)
    depth = -((points - pose[:3, 3]) @ pose[:3, :3])[:, 2]
    assert 50 < len(rows) < len(points) / 2
    assert depth[rows].min() > 0


def gaussians(n):
    generator = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    return {"means": draw(n, 3) * 5, "quats": torch.nn.functional.normalize(draw(n, 4), dim=-1),
            "scales": draw(n, 3) - 3, "opacities": draw(n, 1), "features_dc": draw(n, 3),
            "features_rest": draw(n, 3, 3)}  # fmt: skip


def test_merged_tiles_are_the_whole_model(street, monkeypatch, tmp_path):
    """Every tile holds the same Gaussians in a frame of its own: none may come twice, none may be lost."""
    whole, cells = gaussians(500), lay_out(read_scene(street), 3)
    frames = []
    for k in range(3):
        turn = np.linalg.qr(np.random.default_rng(k).normal(size=(3, 3)))[0]
        turn[:, 0] *= np.linalg.det(turn)
        frames.append(Similarity(turn, np.array([k, -1.0, 2.0]), 0.3 + k))
    held = {f"run{k}": (move(whole, by), by) for k, by in enumerate(frames)}

    def load(run):
        params, by = held[run.name]
        return type("Loaded", (), {"params": params, "world_to_train": by, "rasterize_mode": None})

    monkeypatch.setattr(merging, "load", load)
    found = merging.merge([tmp_path / name for name in held], cells)
    merged = found.params
    assert found.rasterize_mode == "classic"
    assert not found.offset.any()
    order = lambda p: p["means"][:, 0].argsort()  # noqa: E731
    for name in ("means", "scales", "opacities", "features_dc", "features_rest"):
        a, b = whole[name][order(whole)], merged[name][order(merged)]
        assert a.shape == b.shape
        assert torch.allclose(a, b, atol=2e-4), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tiles": 1}, "--tiles: 1; wanted 2 or more"),
        ({"tiles": 500}, "fewer tiles"),
        ({"least": 0.0}, "--overlap and --least"),
        ({"least": 1.0, "overlap": 0.0, "tiles": 12}, "images see it; wanted at least 4"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(street, tmp_path, changes, message):
    with pytest.raises(LpmError, match=message) as error:
        split(street, tmp_path / "out", **{"tiles": 3, "overlap": 0.1, "least": 0.2} | changes)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_plan_cannot_lead_out_of_its_folder(street, tmp_path):
    split(street, tmp_path / "tiles", 2, 0.1, 0.2)
    path = tmp_path / "tiles" / "tiles.json"
    plan = json.loads(path.read_text())
    plan["tiles"][0]["name"] = "../../elsewhere"
    path.write_text(json.dumps(plan))
    assert read_plan(tmp_path / "tiles")[0]["names"] == ["elsewhere", "tile_01"]
    path.write_text("{")
    with pytest.raises(LpmError, match="cannot be read"):
        read_plan(tmp_path / "tiles")
    with pytest.raises(LpmError, match="is there already"):
        split(street, tmp_path / "tiles", 2, 0.1, 0.2)
