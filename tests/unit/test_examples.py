"""The examples in docs/examples run as they stand."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lpm.formats.ply import read_ply
from lpm.formats.splatv import read_splatv
from lpm.scenes.samples.make import make
from lpm.scenes.samples.moving import make_clip

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("example") / "room"
    make("room", folder, views=12, size=(80, 60))
    return folder


@pytest.mark.parametrize("mode", ["classic", "antialiased"])
def test_a_loop_without_nerfstudio(scene, tmp_path, mode):
    """A plugin, not a fork: the strategy through gsplat's protocol in at most 80 lines."""
    script = ROOT / "docs" / "examples" / "01_train_without_nerfstudio.py"
    assert len(script.read_text().splitlines()) <= 80
    code = f"import sys, runpy; sys.modules['nerfstudio'] = None; sys.argv[0] = {str(script)!r}; "
    code += f"runpy.run_path({str(script)!r}, run_name='__main__')"
    out = tmp_path / "out.ply"
    result = subprocess.run(
        [sys.executable, "-c", code, scene, out, "--steps", "150", "--max-points", "9500", "--rasterize-mode", mode],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    assert "step 100: zones: " in result.stdout
    psnr, points = re.search(r"held-out PSNR ([\d.]+) dB with ([\d,]+) points", result.stdout).groups()
    assert float(psnr) > 15
    assert len(read_ply(out)["means"]) == int(points.replace(",", "")) <= 9500


def run(script: str, *arguments: object, cwd: Path | None = None) -> str:
    command = [sys.executable, ROOT / "docs" / "examples" / script, *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120, cwd=cwd)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_a_strategy_of_your_own(scene, tmp_path):
    """At most forty lines of code; through ns-train's own option."""
    pytest.importorskip("nerfstudio")
    script = ROOT / "docs" / "examples" / "02_own_strategy.py"
    code = [line for line in script.read_text().split('"""', 2)[2].splitlines() if line.strip()]
    assert len(code) <= 40
    method = ["ns-train", "lpm-splat", "--data", scene, "--output-dir", tmp_path, "--timestamp", "run", "--vis",
              "tensorboard", "--max-num-iterations", "300", "--pipeline.model.strategy", "02_own_strategy:MostMoved",
              "--pipeline.model.max-points", "5000"]  # fmt: skip
    command = [str(Path(sys.executable).parent / "ns-train"), *map(str, method[1:])]
    done = subprocess.run(command, cwd=script.parent, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    from lpm.formats.read import load

    points = len(load(tmp_path / "room" / "lpm-splat" / "run").params["means"])
    assert points == pytest.approx(2500 * 1.1**2, rel=0.01)  # half of what it may have, and two edits


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere:Kind", "No module named 'nowhere'"),
        ("lpm.gaussians.edits:Kind", "has no attribute 'Kind'"),
        ("builtins:repr", "has no initialize_state"),
    ],
)
def test_a_strategy_that_is_none_is_told_in_one_line(name, said):
    from lpm.checks import LpmError
    from lpm.strategy.registry import own_strategy
    from lpm.strategy.schedule import Schedule

    with pytest.raises(LpmError, match=said):
        own_strategy(name, Schedule(1, 0, 1, 1, 1, 1, None))


def test_editing_and_drawing_a_file(tmp_path):
    import numpy as np
    import torch
    from PIL import Image

    from lpm.formats.ply import write_ply
    from lpm.gaussians import parameters

    xyz = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    whole, ball, picture = (tmp_path / name for name in ("whole.ply", "ball.ply", "picture.png"))
    write_ply(whole, dict(parameters.from_points(xyz, torch.full((400, 3), 128, dtype=torch.uint8), sh_degree=2)))
    assert "400 Gaussians read, 200 written" in run("03_edit_a_file.py", whole, ball)
    a, b = read_ply(whole), read_ply(ball)
    kept = (xyz - xyz.median(0).values).norm(dim=-1)
    kept = a["means"][kept <= kept.median()]
    turned = torch.stack([-kept[:, 1], kept[:, 0], kept[:, 2]], -1)
    assert torch.allclose(b["means"], turned, atol=1e-5)
    assert "200 Gaussians in view" in run("04_render.py", ball, picture)
    pixels = np.asarray(Image.open(picture)).reshape(-1, 3).astype(float)
    assert pixels.max() > 60  # there is something,
    assert pixels[:, 0].sum() > 1.5 * pixels[:, 2].sum()  # and it is red


def test_what_is_wrong_with_a_model(scene, tmp_path):
    from PIL import Image

    said = run("05_where_it_is_wrong.py", scene, tmp_path / "errors.png")
    assert len(re.findall(r"photo \d+: mean error 0\.\d+; zones: {'", said)) == 2
    assert Image.open(tmp_path / "errors.png").size == (2 * 80, 64)


def test_points_and_depths_by_photos(scene, tmp_path):
    said = run("06_points_from_photos.py", scene, tmp_path / "points.ply")
    assert len(read_ply(tmp_path / "points.ply")["means"]) > 500
    sure, tried = map(int, re.search(r"(\d+) of (\d+) are sure", said).groups())
    assert 1 <= sure <= tried == 10


def test_a_loop_of_what_moves(tmp_path):
    make_clip("mover", tmp_path / "mover", 4, 10, (80, 60))
    said = run("07_train_what_moves.py", tmp_path / "mover", tmp_path / "out.splatv", "200")
    assert "missing" in said
    assert float(re.search(r"held out: ([\d.]+) dB", said)[1]) > 22
    assert float(read_splatv(tmp_path / "out.splatv")["motion"].abs().max()) > 0


def test_two_strategies_in_one_loop(scene):
    said = run("08_compare_strategies.py", scene, "150")
    rows = re.findall(r"(\w+): ([\d.]+) dB with ([\d,]+) points", said)
    assert [name for name, _, _ in rows] == ["AdcStrategy", "LpmStrategy"]
    assert all(float(psnr) > 18 for _, psnr, _ in rows)


def test_for_another_program(tmp_path):
    import torch

    from lpm import from_points, load, write_ply

    xyz = torch.randn(300, 3, generator=torch.Generator().manual_seed(0))
    xyz[0] = 1000.0
    write_ply(tmp_path / "in.ply", from_points(xyz, None, sh_degree=1))
    said = run("09_for_another_program.py", tmp_path / "in.ply", tmp_path / "out")
    assert said.count("299 Gaussians") == 2
    turned = torch.stack([xyz[1:, 0], xyz[1:, 2], -xyz[1:, 1]], -1)
    for name in ("scene.ply", "scene.splat"):
        means = load(tmp_path / "out" / name).params["means"]
        assert torch.allclose(means.sort(0).values, turned.sort(0).values, atol=1e-4)


def test_examples_are_short_and_use_the_public_face():
    scripts = sorted((ROOT / "docs" / "examples").glob("*.py"))
    assert [script.name[:3] for script in scripts] == [f"{i:02}_" for i in range(1, len(scripts) + 1)]
    listed = (ROOT / "docs" / "extending.md").read_text()
    for script in scripts:
        assert f"examples/{script.name}" in listed
        text = script.read_text()
        assert 15 <= len(text.splitlines()) <= 66, script.name
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom):
                assert not (node.module or "").startswith("lpm."), f"{script.name}: {node.module} is private"
