"""Training that starts from a file: the same picture at the start, whatever frame and format, and it trains on."""

import numpy as np
import pytest
import torch

from lpm.checks import LpmError
from lpm.formats.ply import write_ply
from lpm.formats.splat import write_splat
from lpm.gaussians.similarity import Similarity, from_dataparser, move
from lpm.render.sky import sky_colors
from lpm.train.gaussians_from_file import start_from

BUSY = dict(warmup_length=2, refine_every=5, max_points=300, sh_degree_interval=3)


@pytest.fixture
def trained(make_trainer):
    trainer = make_trainer("first", 20, **BUSY)
    trainer.train()
    return trainer


def picture(trainer):
    model = trainer.pipeline.model
    model.eval()
    camera = trainer.pipeline.datamanager.eval_dataset.cameras[0:1]
    with torch.no_grad():
        return model.get_outputs(camera)["rgb"]


def params_of(trainer):
    return {name: p.detach() for name, p in trainer.pipeline.model.gauss_params.items()}


@pytest.mark.parametrize("kind", ["run", "ply in the world's frame", "ply of the run's frame", "splat"])
def test_starts_with_the_same_picture_and_trains_on(trained, make_trainer, tmp_path, kind):
    params, options = params_of(trained), {}
    path = tmp_path / ("a.splat" if kind == "splat" else "a.ply")
    metadata = trained.pipeline.datamanager.train_dataset.metadata
    to_train = from_dataparser(metadata["dataparser_transform"].numpy(), metadata["dataparser_scale"])
    if kind == "run":
        path = trained.base_dir
    elif kind == "splat":
        write_splat(path, move(params, to_train.inverse()))
    elif "world" in kind:
        write_ply(path, move(params, to_train.inverse()))
    else:
        write_ply(path, params)
        options["init_frame"] = "train"
    second = make_trainer("second", 12, init_from=path, **options, **BUSY)
    assert second.pipeline.model.num_points == len(params["means"])
    difference = (picture(second) - picture(trained)).abs()
    if kind == "splat":  # bytes, and no harmonics
        assert difference.mean() < 0.05
    else:
        assert difference.max() < 1 / 255
    second.train()
    assert torch.isfinite(second.pipeline.model.means).all()
    assert second.pipeline.model.num_points >= len(params["means"])


def test_harmonics_are_cut_or_filled(trained, make_trainer, tmp_path):
    params = params_of(trained)
    write_ply(tmp_path / "a.ply", params)
    for degree in (0, 1, 3):
        model = make_trainer(f"d{degree}", 5, init_from=tmp_path / "a.ply", sh_degree=degree, **BUSY).pipeline.model
        assert model.gauss_params["features_rest"].shape[1] == (degree + 1) ** 2 - 1
    params["features_rest"] = params["features_rest"][:, :3]
    write_ply(tmp_path / "b.ply", params)
    model = make_trainer("b", 5, init_from=tmp_path / "b.ply", init_frame="train", **BUSY).pipeline.model
    assert torch.equal(model.gauss_params["features_rest"][:, :3].detach(), params["features_rest"])
    assert model.gauss_params["features_rest"][:, 3:].abs().max() == 0


def test_a_file_above_the_cap_is_said(trained, make_trainer, tmp_path, capsys):
    write_ply(tmp_path / "a.ply", params_of(trained))
    model = make_trainer("a", 20, init_from=tmp_path / "a.ply", **{**BUSY, "max_points": 40})
    assert "more than max_points (40)" in " ".join(capsys.readouterr().out.split())
    model.train()
    assert model.pipeline.model.num_points == 40


def test_a_broken_file_is_one_line_and_leaves_nothing(make_trainer, tmp_path):
    (tmp_path / "bad.ply").write_text("not a ply")
    with pytest.raises(LpmError, match=r"bad\.ply"):
        make_trainer("bad", 5, init_from=tmp_path / "bad.ply", **BUSY)
    assert not (tmp_path / "out" / "tiny" / "lpm-splat" / "bad").exists()


def test_a_sky_is_taken_over_or_said_to_be_left_out(make_trainer, capsys):
    first = make_trainer("first", 20, sky="sphere", **BUSY)
    first.train()
    assert first.pipeline.model.sky.detach().abs().max() > 0.01
    second = make_trainer("second", 5, init_from=first.base_dir, sky="sphere", **BUSY)
    assert (picture(second) - picture(first)).abs().max() < 1 / 255
    constant = make_trainer("third", 5, init_from=first.base_dir, sky="constant", **BUSY).pipeline.model.sky
    assert torch.allclose(constant, first.pipeline.model.sky[:1], atol=1e-5)
    capsys.readouterr()
    assert make_trainer("fourth", 5, init_from=first.base_dir, **BUSY).pipeline.model.sky is None
    assert "has a sky, which is left out" in " ".join(capsys.readouterr().out.split())


def test_a_sky_turns_with_the_scene(make_trainer):
    first = make_trainer("first", 20, sky="sphere", **BUSY)
    first.train()
    rotation = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    metadata = first.pipeline.datamanager.train_dataset.metadata
    to_train = from_dataparser(metadata["dataparser_transform"].numpy(), metadata["dataparser_scale"])
    other = Similarity(rotation @ to_train.rotation, to_train.translation, to_train.scale)
    _, turned = start_from(first.base_dir, 3, "auto", other)
    K, camera = torch.tensor([[20.0, 0, 16], [0, 20, 16], [0, 0, 1]]), torch.eye(4)
    camera[:3, :3] = torch.from_numpy(rotation).float().T
    expected = sky_colors(first.pipeline.model.sky, torch.eye(4), K, 32, 32)
    assert expected.std() > 1e-4
    assert torch.allclose(sky_colors(turned, camera, K, 32, 32), expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["guitar.compressed.ply", "guitar.spz"])
def test_files_of_other_programs_train_on(make_trainer, real_data, name):
    """The guitar among the photos of another scene: what counts is that all of it is there and is trained."""
    path = real_data / "splats" / name
    trainer = make_trainer(
        "a", 30, data=real_data / "fox", scale=0.1, init_from=path, max_points=91_000, warmup_length=5
    )
    assert trainer.pipeline.model.num_points == 90_854
    before = trainer.pipeline.model.means.detach().clone()
    trainer.train()
    after = trainer.pipeline.model.means
    assert torch.isfinite(after).all()
    assert before.shape != after.shape or not torch.equal(before, after)
