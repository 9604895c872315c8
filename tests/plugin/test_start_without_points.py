"""A scene without points, or with few: some are found in its photos, by the trainer, in every run alike."""

import json

import pytest
import torch
from tiny_scene import make_transforms

from lpm.plugin.datamanager import LpmDatamanagerConfig
from lpm.scenes.samples import make


def without_points(folder):
    meta = json.loads((folder / "transforms.json").read_text())
    del meta["ply_file_path"]
    (folder / "transforms.json").write_text(json.dumps(meta))
    return folder


@pytest.fixture(scope="module")
def bare_room(tmp_path_factory):
    return without_points(make.make("room", tmp_path_factory.mktemp("room") / "bare", views=12, size=(120, 90)))


def test_points_are_found_and_handed_to_the_strategy(make_trainer, bare_room, capsys):
    trainer = make_trainer("a", 10, data=bare_room, strategy="lpm", max_points=4_000)
    found = trainer.data.train_dataparser_outputs.metadata["points3D_xyz"]
    assert f"No points in the scene: {len(found):,} were found by comparing the photos" in capsys.readouterr().out
    means = trainer.model.gauss_params["means"].detach()
    assert 300 < len(means) <= 2_000
    assert torch.isin(means[:, 0], found[:, 0]).all()  # some of them, where they are
    assert (trainer.model.strategy.photo_graph._neighbours >= 0).any()  # by points, before the first event
    again = make_trainer("b", 10, data=bare_room, strategy="lpm", max_points=4_000).model.gauss_params["means"]
    assert torch.equal(means, again)  # a resumed run looks for them anew


def test_photos_that_show_nothing_start_from_random_points(make_trainer, tmp_path, capsys):
    noise = without_points(make_transforms(tmp_path / "noise"))
    trainer = make_trainer("a", 10, data=noise, max_points=500)
    assert "No points, and the photos show none that are sure" in capsys.readouterr().out
    assert len(trainer.model.gauss_params["means"]) == 250


def started_from(data, **settings):
    """The points and colours that training starts from."""
    parsed = LpmDatamanagerConfig(data=data, **settings).setup(device="cpu", test_mode="val").train_dataparser_outputs
    return parsed.metadata.get("points3D_xyz"), parsed.metadata.get("points3D_rgb")


def test_random_points_when_asked_for(bare_room):
    assert started_from(bare_room, points_from_photos=False) == (None, None)


def test_few_points_get_company(bare_room, tmp_path, monkeypatch, capsys):
    room = make.make("room", tmp_path / "room", views=12, size=(120, 90))
    given, colors = started_from(room, points_from_photos=False)
    found, _ = started_from(bare_room)
    monkeypatch.setattr("lpm.train.photos.FEW", len(given) + 1)
    capsys.readouterr()
    xyz, rgb = started_from(room)
    assert f"Only {len(given):,} points in the scene: {len(found):,} more were found" in capsys.readouterr().out
    assert torch.equal(xyz[: len(given)], given)
    assert torch.equal(rgb[: len(given)], colors)
    torch.testing.assert_close(xyz[len(given) :], found)
    assert (rgb.dtype, rgb.shape) == (torch.uint8, xyz.shape)
    monkeypatch.setattr("lpm.train.photos.FEW", len(given))
    assert torch.equal(started_from(room)[0], given)
