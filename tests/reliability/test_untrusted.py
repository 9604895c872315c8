"""Files of others run no code: checkpoints and config.yml through every command of ours."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from plugin.test_resume import BUSY

from lpm.checks import LpmError


class Evil:
    """Unpickled, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


EVIL_YAML = """!!python/object:lpm.plugin.trainer.LpmTrainerConfig
pipeline: !!python/object/apply:os.mkdir ["{mark}"]
data: !!python/object/apply:os.mkdir ["{mark}"]
"""


@pytest.fixture
def run(tmp_path) -> Path:
    """The folder of a run that was made to harm: a pickle and a YAML that would make the folder `mark`."""
    folder, mark = tmp_path / "run", tmp_path / "mark"
    (folder / "nerfstudio_models").mkdir(parents=True)
    torch.save({"step": 9, "pipeline": {"x": Evil(mark)}}, folder / "nerfstudio_models" / "step-000000009.ckpt")
    (folder / "config.yml").write_text(EVIL_YAML.format(mark=mark))
    return folder


COMMANDS = {
    "lpm-export": "from lpm.formats.cli import export_main as main",
    "lpm-inspect": "from lpm.formats.inspect import inspect_main as main",
    "lpm-view": "from lpm.viewer.page.cli import main",
    "lpm-replay": "from lpm.viewer.replay.cli import main",
}


def test_commands_run_no_code(run, tmp_path):
    ways = [str(run), str(run / "config.yml"), str(run / "nerfstudio_models" / "step-000000009.ckpt")]
    code = f"""
import contextlib, io, itertools, sys
for given, (name, how) in itertools.product({ways!r}, {COMMANDS!r}.items()):
    exec(how)
    sys.argv = [name, "ply", given, {str(tmp_path / "o.ply")!r}] if name == "lpm-export" else [name, given]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            main()
    except SystemExit as end:
        print(name, end.code, said.getvalue(), end="")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=200)
    lines = done.stdout.splitlines()
    assert [line.split()[:3] for line in lines] == [[name, "2", "error:"] for name in COMMANDS] * 3, done.stdout
    assert all(("holds more than tensors and numbers" in line) != ("lpm-replay" in line) for line in lines)
    assert not (tmp_path / "mark").exists()


def test_a_good_checkpoint_beside_an_evil_config(run, tmp_path):
    """The configuration is looked through as text, and nothing in it is made."""
    from lpm.formats.read import load
    from lpm.viewer.page.photos import data_folder

    shapes = dict(means=3, scales=3, quats=4, features_dc=3, opacities=1)
    params = {f"_model.gauss_params.{k}": torch.randn(5, n) for k, n in shapes.items()}
    params["_model.gauss_params.features_rest"] = torch.zeros(5, 15, 3)
    torch.save({"step": 9, "pipeline": params}, run / "nerfstudio_models" / "step-000000009.ckpt")
    assert load(run).params["means"].shape == (5, 3)
    assert data_folder(run) is None
    assert not (tmp_path / "mark").exists()


def test_training_runs_no_code(run, tmp_path, make_trainer):
    with pytest.raises(LpmError, match="holds more than tensors and numbers"):
        make_trainer("a", 5, load=run)
    with pytest.raises(LpmError, match="holds more than tensors and numbers"):
        make_trainer("b", 5, init_from=run)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("spoil", [
    lambda s: s.update(optimizers=3),
    lambda s: s["pipeline"].pop("_model.gauss_params.means"),
    lambda s: s["pipeline"].update({"_model.gauss_params.means": torch.zeros(2, 5)}),
    lambda s: s["lpm"].update(random={}),
    lambda s: s["lpm"].update(sampling=[]),
    lambda s: s.update(step="x"),
    lambda s: s.pop("scalers"),
])  # fmt: skip
def test_a_checkpoint_with_other_things_in_it(make_trainer, tmp_path, spoil):
    trainer = make_trainer("a", 2, **BUSY)
    trainer.train()
    path = trainer.checkpoint_dir / "step-000000001.ckpt"
    state = torch.load(path, weights_only=True)
    spoil(state)
    torch.save(state, tmp_path / "other.ckpt")
    with pytest.raises(LpmError, match="wanted a checkpoint") as error:
        make_trainer("b", 9, load=tmp_path / "other.ckpt", **BUSY)
    assert "\n" not in str(error.value)
