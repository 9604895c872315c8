"""What lpm-train can be told, and the file that holds it."""

import copy
import math
import shutil
from pathlib import Path

import pytest

from lpm.checks import LpmError
from lpm.train import cli
from lpm.train.optimizers import STILL, settling, share_of_rate, with_rates
from lpm.train.run_settings import MovingRunSettings, RunSettings, read_settings, write_settings


@pytest.mark.parametrize("kind", [RunSettings, MovingRunSettings])
def test_a_file_gives_back_what_was_written(tmp_path, kind):
    settings = kind(scene=Path('/a/"b"\\c'), steps=7, out=None, rates={"means": 1e-3})
    settings.model.init_from, settings.model.grid_shape = Path("x.ply"), (3, 4, 5)
    settings.model.settings.lpm.recycle = 0.125
    settings.data.alpha_color = None
    write_settings(tmp_path / "config.toml", settings)
    assert read_settings(tmp_path / "config.toml") == settings


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("steps = 5.5", r"steps: 5.5; wanted int"),
        ('steps = "none"\nfast = true', r"fast: not a setting; wanted a name that lpm-train --help lists"),
        ('device = "tpu"', r"device: 'tpu'; wanted one of auto, cpu, cuda"),
        ("page = 1", r"page: 1; wanted bool"),
        ("[model.lpm]\nrecycle = 1", r"model: lpm: not a setting"),
        ('method = "nerf"', r"method: 'nerf'; wanted one of lpm-splat, lpm-splat-4d"),
        ("steps = ", r"cannot be read"),
    ],
)
def test_a_file_that_says_something_else(tmp_path, text, wanted):
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(LpmError, match=wanted):
        read_settings(tmp_path / "a.toml")


def test_words_become_settings(tiny, tmp_path):
    settings, _, resume = cli.parse([str(tiny), "--steps", "12", "--strategy", "mcmc", "--model.sky", "sphere"])
    assert (settings.steps, settings.strategy, settings.model.sky, resume) == (12, "mcmc", "sphere", None)
    assert settings.scene == tiny.resolve()
    assert not settings.moving
    write_settings(tmp_path / "mine.toml", settings)
    again, _, _ = cli.parse(["--config", str(tmp_path / "mine.toml"), "--steps", "13"])
    assert (again.steps, again.strategy, again.out) == (13, "mcmc", None)  # never the folder of the run it is from
    assert cli.parse([str(tiny), "--moving"])[0].moving


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], "SCENE: none given"),
        (["--resume"], "--resume: nothing after it"),
        (["--resume", "nowhere"], r"no config.toml in it"),
        (["nowhere"], "nowhere: no such folder"),
    ],
)
def test_words_that_cannot_be_used(words, wanted):
    with pytest.raises(LpmError, match=wanted):
        cli.parse(words)


def test_rates():
    changed = with_rates(STILL, {"means": 1e-3})
    assert changed["means"].last == pytest.approx(1e-5)
    assert share_of_rate(changed["means"], 100, 100) == pytest.approx(0.01)
    assert share_of_rate(changed["means"], 100, 50) == pytest.approx(0.1)
    assert share_of_rate(STILL["quats"], 100, 50) == 1.0
    for name, value in (("nothing", 1.0), ("means", -1.0), ("means", math.nan)):
        with pytest.raises(LpmError, match="rates"):
            with_rates(STILL, {name: value})


def test_a_run_settles_in_its_last_twentieth():
    assert [settling(step, 1000) for step in (0, 500, 950)] == [1, 1, 1]
    assert settling(975, 1000) == pytest.approx(0.1**0.5)
    assert settling(1000, 1000) == settling(2000, 1000) == pytest.approx(0.1)  # no less beyond its end


def test_a_whole_run_and_what_it_leaves(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [str(tiny), "--steps", "30", "--out", "run", "--no-page", "--measure-every", "10", "--device", "cpu",
             "--model.no-with-lpips"]  # fmt: skip
    trainer = cli.train(words)
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"checkpoints", "config.toml", "metrics.json", "dataparser_transforms.json"} <= left
    assert [step for step, _ in trainer.psnr] == [10, 20]
    text = capsys.readouterr().out
    assert "2 held-out photos: PSNR" in text
    assert "lpm-view run" in text
    with pytest.raises(LpmError, match=r"run: holds a run; wanted a new folder; go on with it by --resume run"):
        cli.train(words)
    assert cli.train(["--resume", "run", "--steps", "40", "--no-page"]).first == 30


def test_photos_without_poses_are_prepared_first_and_once(tiny, tmp_path, monkeypatch, capsys):
    photos, asked = tmp_path / "photos", []
    shutil.copytree(tiny / "images", photos)

    def prepare(settings, console):
        asked.append((settings.source, settings.out))
        shutil.copytree(tiny, settings.out)
        (settings.out / "report.html").write_text("")

    monkeypatch.setattr("lpm.prepare.run.prepare", prepare)
    for _ in range(2):
        settings, scene, _ = cli.parse([str(photos), "--steps", "5"])
        assert settings.scene == tmp_path / "photos-prepared"
        assert len(scene) == 10
    pytest.importorskip("nerfstudio")
    from lpm.plugin.config import lpm_splat

    config = copy.deepcopy(lpm_splat.config)  # ns-train --prepare True
    config.prepare, config.pipeline.datamanager.data, config.output_dir = True, photos, tmp_path / "outputs"
    assert config.setup().config.pipeline.datamanager.data == tmp_path / "photos-prepared"
    assert asked == [(photos, tmp_path / "photos-prepared")]
    assert "photos without poses" in capsys.readouterr().out
