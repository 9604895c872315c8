"""A trained fox in each format, drawn by programs that nobody here wrote, against our own render at three photos.

lpm-train fox --scale .25 --steps 3000 --max-points 15000 --out RUN
LPM_TEST_DATA=FOLDER LPM_TEST_RUN=RUN pytest -m export -s tests/export/test_trained_fox.py
"""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from export.some import call
from export.test_viewers import CLASSIC, chromium, packages, shoot, tileset_of  # noqa: F401

from lpm.exporting.cli import main
from lpm.formats.cli import Options
from lpm.formats.export import prepare
from lpm.formats.picture import draw
from lpm.formats.placement import Placement
from lpm.multiview.views import look_at

pytestmark = [pytest.mark.export, pytest.mark.slow]
WIDTH, HEIGHT = 540, 960
TURNED_OVER = np.diag([1.0, -1, -1])
"""From our axes to an .spz's: right, up, back."""


@pytest.fixture
def run():
    """The folder of a run on fox."""
    told = os.environ.get("LPM_TEST_RUN")
    if not told:
        pytest.skip("LPM_TEST_RUN is not set to the folder of a run on fox")
    return Path(told)


def as_is(file):
    return file, np.eye(3)


def upright(file):
    """glTF: the node above the Gaussians turns their up to +y."""
    return file, Placement(json.loads(file.with_name(file.name + ".json").read_text())["up"]).turn()


def in_a_tileset(file):
    file, turn = upright(file)
    return tileset_of(file), turn


def by_newton(file):
    """USD: read by NVIDIA's Newton, which draws no harmonics; what it read is drawn by Spark."""
    pytest.importorskip("newton", reason="newton is not installed (pip install --no-deps newton warp-lang)")
    script = Path(__file__).parent / "viewers" / "usd_to_ply.py"
    subprocess.run([sys.executable, script, file, file.with_suffix(".ply")], check=True, capture_output=True)
    return as_is(file.with_suffix(".ply"))


CASES = {
    "ply in Spark": ("spark", ["ply"], "fox.ply", as_is),
    "spz 3 in Spark": ("spark", ["spz"], "fox.spz", lambda file: (file, TURNED_OVER)),
    "spz 4 in three.js": ("three", ["spz", "--spz-version", "4"], "fox.spz", lambda file: (file, TURNED_OVER)),
    "glb in PlayCanvas": ("playcanvas", ["glb"], "fox.glb", upright),
    "glb in three.js": ("three", ["glb"], "fox.glb", upright),
    "spz in glb in CesiumJS": ("cesium", ["glb", "--compression", "spz"], "fox.glb", in_a_tileset),
    "usdz by Newton in Spark": ("spark", ["usdz"], "fox.usdz", by_newton),
    "sog in Spark": ("spark", ["sog"], "fox.sog", as_is),
    "streamed sog in PlayCanvas": (
        "playcanvas", ["sog", "--lod", "--levels", "2", "--refit-steps", "0"], "fox",
        lambda folder: as_is(folder / "lod-meta.json"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_fox_at_three_photos(shoot, run, real_data, tmp_path, case):  # noqa: F811
    viewer, words, name, opened = CASES[case]
    assert call(main, words[0], run, tmp_path / name, "--frame", "world", *words[1:]) == 0
    file, turn = opened(tmp_path / name)
    scene = json.loads((real_data / "fox" / "transforms.json").read_text())
    params = prepare(run, Options(frame="world"))[1].params
    focal = scene["fl_y"] * HEIGHT / scene["h"]
    K = torch.tensor([[[focal, 0, WIDTH / 2], [0, focal, HEIGHT / 2], [0, 0, 1.0]]])
    fov = 2 * math.degrees(math.atan(HEIGHT / 2 / focal))
    usual = {"viewer": viewer, "file": file, "width": WIDTH, "height": HEIGHT, "fov": fov}
    usual["settings"] = CLASSIC | {"level": 0}
    jobs, ours, photos = [], [], []
    for frame in scene["frames"][::20]:
        pose = torch.tensor(frame["transform_matrix"])  # OpenGL: right, up, back
        place = {"position": pose[:3, 3], "target": pose[:3, 3] - pose[:3, 2], "up": pose[:3, 1]}
        jobs.append(usual | {name: (turn @ value.double().numpy()).tolist() for name, value in place.items()})
        camera = look_at(*place.values())
        ours.append(draw(params, camera[None], K, WIDTH, HEIGHT, 0.0)[0])
        photo = cv2.resize(
            cv2.imread(str(real_data / "fox" / frame["file_path"])), (WIDTH, HEIGHT), None, 0, 0, cv2.INTER_AREA
        )
        photos.append(torch.from_numpy(photo[..., ::-1] / 255))

    def psnr(a, b):
        return -10 * math.log10(float((a - b).square().mean()))

    seen = [psnr(mine, theirs / 255) for mine, theirs in zip(ours, shoot(jobs), strict=True)]
    print(f"{case}: {', '.join(f'{value:.1f}' for value in seen)} dB")
    assert min(psnr(mine, photo) for mine, photo in zip(ours, photos, strict=True)) > 15  # they look where photos did
    assert len(seen) == 3
    assert min(seen) >= 30
