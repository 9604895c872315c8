"""Scenes and runs that are broken or made to harm: one line, little memory, and no file outside of their folder."""

import io
import json
import os
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tiny_scene
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runs import make_run
from unit.test_scenes_moving import write_llff, write_nerfies, write_technicolor

from lpm.checks import LpmError
from lpm.runs import checkpoint
from lpm.runs.folder import load_gaussians, run_frame
from lpm.scenes.read import read_scene
from lpm.scenes.split import hold_out
from lpm.viewer.replay.data import load

VIEWS = 4
MOST = int(os.environ.get("LPM_EXAMPLES", "60"))


def made(folder: Path, kind: str) -> Path:
    folder.mkdir()
    makers = {
        "transforms": lambda: tiny_scene.make_transforms(folder, VIEWS),
        "colmap": lambda: tiny_scene.make_colmap(folder, VIEWS),
        "colmap-text": lambda: tiny_scene.make_colmap(folder, VIEWS, binary=False),
        "blender": lambda: tiny_scene.make_blender(folder, VIEWS),
        "video": lambda: write_llff(folder),
        "nerfies": lambda: (write_nerfies(folder), np.save(folder / "points.npy", np.ones((5, 3), np.float32))),
        "technicolor": lambda: write_technicolor(folder),
    }
    makers[kind]()
    return folder


# Kind of scene, and the file of it that is broken.
FILES = [
    ("transforms", "transforms.json"), ("transforms", "points.ply"), ("blender", "transforms_train.json"),
    ("colmap", "sparse/0/cameras.bin"), ("colmap", "sparse/0/images.bin"), ("colmap", "sparse/0/points3D.bin"),
    ("colmap-text", "sparse/0/cameras.txt"), ("colmap-text", "sparse/0/images.txt"),
    ("colmap-text", "sparse/0/points3D.txt"), ("video", "poses_bounds.npy"), ("nerfies", "dataset.json"),
    ("nerfies", "metadata.json"), ("nerfies", "scene.json"), ("nerfies", "points.npy"),
    ("technicolor", "cameras_parameters.txt"),
]  # fmt: skip


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    return {kind: made(folder / kind, kind) for kind in dict.fromkeys(kind for kind, _ in FILES)}


def refused_or_read(read) -> None:
    """`read` gives something, or one line that says what was wanted; anything else is an error of ours."""
    text = "wanted"
    try:
        read()
    except LpmError as error:
        text = str(error)
    assert "wanted" in text
    assert "\n" not in text


def whole(folder: Path) -> None:
    scene = read_scene(folder)
    hold_out(scene, 2)
    assert len(scene.images) == len(scene.c2w) == len(scene.sizes) > 0
    assert np.isfinite(scene.c2w).all()
    assert all(Path(os.path.abspath(p)).is_relative_to(folder) for p in [*scene.images, *(scene.masks or [])])


def broken(data: bytes, edits, cut: float) -> bytes:
    """`data` overwritten at some places (most of them near the beginning), and cut off, half of the time."""
    new = bytearray(data)
    for where, what in edits:
        start = int(where**2 * len(new))
        new[start : start + len(what)] = what
    return bytes(new[: round(cut * 2 * len(new))] if cut < 0.5 else new)


def changed(value, path, new):
    """JSON `value` with what lies at `path` (numbers that choose keys and elements) replaced by `new`."""
    if not path or not isinstance(value, (dict, list)) or not value:
        return new
    keys = list(value) if isinstance(value, dict) else range(len(value))
    key, copy = keys[path[0] % len(keys)], value.copy()
    copy[key] = changed(value[key], path[1:], new)
    return copy


bytes_edits = st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=9)), max_size=3)
odd = st.sampled_from([
    None, True, -1, 0, 1e400, float("nan"), 10**400, "", "x", "../x", "/etc/passwd", "a\0b", "y" * 5000, [], {}, [[]],
    [[1, 2], [3]], {"a": [None]}, [1e308] * 16, ["images/000.png"], "1",
])  # fmt: skip
json_edits = st.lists(st.tuples(st.lists(st.integers(0, 9), min_size=1, max_size=5), odd), min_size=1, max_size=3)
quick = settings(max_examples=MOST, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize(("kind", "name"), FILES, ids=lambda v: str(v))
@quick
@given(edits=bytes_edits, cut=st.floats(0, 1), tree=json_edits)
def test_broken_scenes(scenes, kind, name, edits, cut, tree):
    path = scenes[kind] / name
    data = path.read_bytes()
    versions = [broken(data, edits, cut)]
    if path.suffix == ".json":
        value = json.loads(data)
        for where, new in tree:
            value = changed(value, where, new)
        versions.append(json.dumps(value).encode())
    try:
        for version in versions:
            path.write_bytes(version)
            refused_or_read(lambda: whole(scenes[kind]))
    finally:
        path.write_bytes(data)


@quick
@given(edits=bytes_edits, cut=st.floats(0, 1), tree=json_edits)
def test_broken_runs(tmp_path, edits, cut, tree):
    """edits.jsonl, a snapshot of the replay, dataparser_transforms.json."""
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    run = make_run(tmp_path / "run", 2, 20)
    frame = run / "dataparser_transforms.json"
    frame.write_text(json.dumps({"transform": np.eye(4)[:3].tolist(), "scale": 0.5}))
    lines = (run / "edits.jsonl").read_bytes()
    value = json.loads(lines.splitlines()[0])
    other = json.loads(frame.read_text())
    for where, new in tree:
        value, other = changed(value, where, new), changed(other, where, new)
    for text in (broken(lines, edits, cut), json.dumps(value).encode() + b"\n" + lines):
        (run / "edits.jsonl").write_bytes(text)
        refused_or_read(lambda: load(run))
    (run / "edits.jsonl").write_bytes(lines)
    snapshot = run / "replay" / "step-000000100.npz"
    snapshot.write_bytes(broken(snapshot.read_bytes(), edits, cut))
    refused_or_read(lambda: load(run))
    frame.write_text(json.dumps(other))
    refused_or_read(lambda: run_frame(run))


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> bytes:
    shapes = dict(means=3, scales=3, quats=4, features_dc=3, opacities=1)
    params = {f"_model.gauss_params.{k}": torch.randn(5, n) for k, n in shapes.items()}
    params["_model.gauss_params.features_rest"] = torch.zeros(5, 15, 3)
    path = tmp_path_factory.mktemp("saved") / "a.ckpt"
    torch.save({"step": 1, "pipeline": params}, path)
    return path.read_bytes()


@quick
@given(edits=bytes_edits, cut=st.floats(0, 1))
def test_broken_checkpoints(tmp_path, saved, edits, cut):
    (tmp_path / "a.ckpt").write_bytes(broken(saved, edits, cut))
    refused_or_read(lambda: load_gaussians(tmp_path / "a.ckpt"))


# -- names that leave the folder ---------------------------------------------------------------------------------------


def rename(folder: Path, kind: str, name: str) -> None:
    """Lets the scene call one of its files `name`."""
    if kind in ("file_path", "mask_path", "ply_file_path"):
        path = folder / "transforms.json"
        meta = json.loads(path.read_text())
        if kind == "ply_file_path":
            meta[kind] = name
        for frame in meta["frames"] if kind == "mask_path" else meta["frames"][:1] * (kind == "file_path"):
            frame[kind] = name
        path.write_text(json.dumps(meta))
    elif kind == "colmap":
        path = folder / "sparse/0/images.txt"
        path.write_text(path.read_text().replace("000.png", name))
    else:
        for path in (folder / "dataset.json", folder / "metadata.json"):
            path.write_text(path.read_text().replace('"0_00000"', json.dumps(name)))


SCENE_OF = {"colmap": "colmap-text", "nerfies": "nerfies"}


@pytest.mark.parametrize("kind", ["file_path", "mask_path", "ply_file_path", "colmap", "nerfies"])
@pytest.mark.parametrize("how", ["up", "absolute"])
def test_names_that_leave_the_folder(tmp_path, kind, how):
    folder = made(tmp_path / "scene", SCENE_OF.get(kind, "transforms"))
    tiny_scene.write_image(tmp_path / "private.png", 1)
    below = "../" if kind == "colmap" else "../../" if kind == "nerfies" else ""
    name = "private.png" if kind != "nerfies" else "private"
    name = f"{below}../{name}" if how == "up" else str(tmp_path / name)
    rename(folder, kind, name)
    with pytest.raises(
        LpmError, match=r"private(\.png|\.json)? lies outside of .*scene; wanted files of the scene's folder"
    ):
        read_scene(folder)
    if kind in ("file_path", "colmap"):
        scene = read_scene(folder, outside_files=True)
        assert tmp_path / "private.png" in [Path(os.path.abspath(p)) for p in scene.images]


def test_absolute_names_inside_of_the_folder_and_links_are_fine(tmp_path):
    folder = made(tmp_path / "scene", "transforms")
    rename(folder, "file_path", str(folder / "images" / "003.png"))
    (folder / "images").rename(tmp_path / "elsewhere")
    (folder / "images").symlink_to(tmp_path / "elsewhere")
    assert len(read_scene(folder)) == VIEWS


# -- lengths that are not there ----------------------------------------------------------------------------------------

LIMITED = """
import resource, sys, time
from pathlib import Path
from lpm.checks import LpmError
from lpm.runs.folder import load_gaussians
from lpm.scenes.read import read_scene
from lpm.viewer.replay.data import load
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 300_000_000,) * 2)
for kind, path in zip(sys.argv[1::2], sys.argv[2::2]):
    start = time.perf_counter()
    try:
        {"scene": read_scene, "run": load, "checkpoint": load_gaussians}[kind](Path(path))
        print(path, "read", time.perf_counter() - start)
    except LpmError as error:
        print(path, "refused", time.perf_counter() - start, error)
"""


def test_lengths_that_are_not_there(tmp_path, saved):
    """Each file tells of billions of rows, in a process that could not have them."""
    many, asked = 2**33, []

    def scene(name, kind, file, change):
        path = made(tmp_path / name, kind) / file
        path.write_bytes(change(path.read_bytes()))
        asked.extend(["scene", str(tmp_path / name)])

    def count(data):
        return struct.pack("<Q", many) + data[8:]

    scene("cameras", "colmap", "sparse/0/cameras.bin", count)
    scene("images", "colmap", "sparse/0/images.bin", count)
    scene("points", "colmap", "sparse/0/points3D.bin", count)
    scene("ply", "transforms", "points.ply", lambda d: d.replace(b"vertex 60", b"vertex %d" % many))
    scene("poses", "video", "poses_bounds.npy", lambda d: d.replace(b"(3, 17), }          ", b"(8589934592, 17), } "))
    packed = made_run_with_zeros(tmp_path / "run")
    torch.save({"step": 1, "pipeline": {
        "_model.gauss_params." + name: torch.zeros(1).expand(many, n) if n else torch.zeros(1).expand(many, 15, 3)
        for name, n in dict(means=3, scales=3, quats=4, features_dc=3, opacities=1, features_rest=0).items()
    }}, tmp_path / "views.ckpt")  # fmt: skip
    asked += ["run", str(packed), "checkpoint", str(tmp_path / "views.ckpt")]
    done = subprocess.run([sys.executable, "-c", LIMITED, *asked], check=True, capture_output=True, text=True)
    said = {Path(line.split()[0]).name: line.split()[1:3] for line in done.stdout.splitlines()}
    verdicts = {name: what for name, (what, _) in said.items()}
    assert verdicts == {"run": "read"} | dict.fromkeys(
        ("cameras", "images", "points", "ply", "poses", "views.ckpt"), "refused"
    ), done.stdout
    assert max(float(seconds) for _, seconds in said.values()) < 5
    assert "step-000000100.npz: cannot be read and left out" in done.stderr


def made_run_with_zeros(folder: Path) -> Path:
    """A run with a snapshot of 100 MB of zeros, packed into a tenth of one, whose header tells of 1.2 GB."""
    make_run(folder, 1, 5)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**8, 3)})
    path = folder / "replay" / "step-000000100.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("means.npy", "w") as file:
        file.write(header.getvalue())
        for _ in range(100):
            file.write(bytes(10**6))
    return folder


def test_a_packed_checkpoint_is_not_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(10**7))
    with pytest.raises(LpmError, match="cannot be read"):
        checkpoint.load(tmp_path / "a.ckpt")
