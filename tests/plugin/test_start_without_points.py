"""A scene without points: some are found in its photos, by the trainer, in every run alike."""

import json

import pytest
import torch
from tiny_scene import make_transforms

from lpm.scenes import sample


def without_points(folder):
    meta = json.loads((folder / "transforms.json").read_text())
    del meta["ply_file_path"]
    (folder / "transforms.json").write_text(json.dumps(meta))
    return folder


@pytest.fixture(scope="module")
def bare_room(tmp_path_factory):
    return without_points(sample.make("room", tmp_path_factory.mktemp("room") / "bare", views=12, size=(120, 90)))


def test_points_are_found_and_handed_to_the_strategy(make_trainer, bare_room, capsys):
    trainer = make_trainer("a", 10, data=bare_room, strategy="lpm", max_points=4_000)
    found = trainer.data.train_dataparser_outputs.metadata["points3D_xyz"]
    assert f"No points in the scene: {len(found):,} were found by comparing the photos" in capsys.readouterr().out
    means = trainer.model.gauss_params["means"].detach()
    assert 300 < len(means) <= 2_000
    assert torch.isin(means[:, 0], found[:, 0]).all()  # some of them, where they are
    assert (trainer.model.strategy.surroundings._neighbours >= 0).any()  # by points, before the first event
    again = make_trainer("b", 10, data=bare_room, strategy="lpm", max_points=4_000).model.gauss_params["means"]
    assert torch.equal(means, again)  # a resumed run looks for them anew


def test_photos_that_show_nothing_start_from_random_points(make_trainer, tmp_path, capsys):
    noise = without_points(make_transforms(tmp_path / "noise"))
    trainer = make_trainer("a", 10, data=noise, max_points=500)
    assert "No points, and the photos show none that are sure" in capsys.readouterr().out
    assert len(trainer.model.gauss_params["means"]) == 250


def test_random_points_when_asked_for(bare_room):
    from lpm.datamanager import LpmDatamanagerConfig

    data = LpmDatamanagerConfig(data=bare_room, points_from_photos=False).setup(device="cpu", test_mode="val")
    assert "points3D_xyz" not in data.train_dataparser_outputs.metadata
