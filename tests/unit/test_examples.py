"""The examples in docs/examples run as they stand."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lpm.export.ply import read_ply
from lpm.scenes.sample import make

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("example") / "room"
    make("room", folder, views=12, size=(80, 60))
    return folder


@pytest.mark.parametrize("mode", ["classic", "antialiased"])
def test_a_loop_without_nerfstudio(scene, tmp_path, mode):
    """A plugin, not a fork: the strategy through gsplat's protocol in at most 80 lines."""
    script = ROOT / "docs" / "examples" / "train_without_nerfstudio.py"
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
