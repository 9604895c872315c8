"""Photos of a sample scene, rendered once for all tests of lpm-prepare, and their features and matches."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image
from rendered_photos import FOCAL, SIZE, VIEWS

from lpm.prepare import pair_choice, sfm
from lpm.scenes.samples.make import render
from lpm.scenes.samples.worlds import SAMPLES, look_at


@pytest.fixture(scope="session")
def rendered(tmp_path_factory):
    """Photos of a sample scene from an arc, with a mask of one, and their true poses [V, 4, 4] (OpenGL)."""
    pytest.importorskip("pycolmap")
    folder = tmp_path_factory.mktemp("rendered")
    (folder / "images").mkdir()
    world = SAMPLES["garden"].world(0)
    turns = np.linspace(-0.6, 0.6, VIEWS)
    poses = [
        look_at(np.array([3.0 * np.sin(turn), -3.0 * np.cos(turn), 1.5 + 0.3 * (i % 3)]), np.array([0.0, 0.0, 0.5]))
        for i, turn in enumerate(turns)
    ]
    pinhole = np.array([FOCAL, FOCAL, SIZE[0] / 2, SIZE[1] / 2])
    for i, shot in enumerate(render(SAMPLES["garden"], world, poses, pinhole, SIZE, lambda: None)):
        Image.fromarray((np.clip(shot.rgb, 0, 1) * 255).astype("u1")).save(folder / "images" / f"{i:02d}.png")
    return folder, np.stack(poses)


@pytest.fixture(scope="session")
def matched(rendered, tmp_path_factory):
    """A work folder with features and matches of the rendered photos."""
    folder, _ = rendered
    work = tmp_path_factory.mktemp("matched")
    shutil.copytree(folder / "images", work / "images")
    names = sorted(path.name for path in (work / "images").iterdir())
    made = [{"name": name, "size": SIZE, "lens": "one"} for name in names]
    told = {"camera_model": "auto", "cameras": "shared", "feature_size": 1600, "max_features": 1000, "masks": False}
    sfm.extract(work, made, told | {"seed": 0}, True, lambda count: None)
    wanted = pair_choice.choose(work / "database.db", names, "auto", lambda count: None)
    sfm.match(work, names, wanted, 0, True, lambda count: None)
    return work
