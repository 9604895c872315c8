"""The README's user path, line by line: a fresh environment, the built wheel, an empty folder. Takes minutes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def block(name: str) -> list[str]:
    """The lines of the README's block that is marked `<!-- runs: name -->`."""
    found = re.search(rf"<!-- runs: {name} -->\n```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert found, f"no block {name} in README.md"
    return [line.split(" #")[0].rstrip() for line in found[1].splitlines() if line.strip()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from the files that git knows, as a release is."""
    source, out = (tmp_path_factory.mktemp(name) for name in ("source", "dist"))
    for name in subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.splitlines():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(out), "."]
    subprocess.run(pip, cwd=source, check=True)
    return next(out.glob("*.whl"))


def test_readme_line_by_line(wheel, tmp_path):
    assert block("install")[2].endswith("'.[nerfstudio,prepare]'")
    assert any("lpm-view" in line for line in block("use"))
    install = "\n".join(block("install"))
    install = install.replace("'.[nerfstudio,prepare]'", f"'{wheel}[nerfstudio,prepare]'")
    install = install.replace("-c constraints.txt", f"-c {ROOT / 'constraints.txt'}")
    install = install.replace("install torch", f"install -c {ROOT / 'constraints.txt'} torch 'setuptools<81' wheel")
    use = []
    for line in block("use"):
        if line.startswith("ns-train"):
            line += " --max-num-iterations 200 --viewer.quit-on-train-completion True"
        if line.startswith("lpm-train"):
            line += " --steps 200 --no-page"
        if line.startswith("lpm-render"):
            line += " --seconds 0.2"
        if line.startswith("lpm-view"):
            line = f"timeout --signal INT 20 {line} > view.log || grep -q http view.log"
        use.append(line)
    script = "\n".join(["set -e -o pipefail", install, *(f"echo '$ {line}'; {line}" for line in use)])
    clean = {k: v for k, v in os.environ.items() if k in ("HOME", "PATH", "LANG", "LPM_CACHE")}
    clean["PATH"] = os.pathsep.join(p for p in clean["PATH"].split(os.pathsep) if ".venv" not in p)
    clean |= {"LPM_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    folder = tmp_path / "empty"
    folder.mkdir()
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert "lpm-train and ns-train lpm-splat will start" in done.stdout
    assert (folder / "room.ply").stat().st_size > 100_000
    assert '"psnr"' in (folder / "eval.json").read_text()
    where = "import lpm, lpm.cuda.native as n; print(lpm.__file__, n.native() is not None)"
    told = subprocess.run(
        [folder / ".venv/bin/python", "-c", where], cwd=folder, env=clean, capture_output=True, text=True
    )
    assert str(folder) in told.stdout  # the installed package, not this checkout
    assert "True" in told.stdout or shutil.which("g++") is None  # with its kernels
