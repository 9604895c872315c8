#!/usr/bin/env python3
"""Scenes and splat files that are broken, one after another: each must be read, or refused in one line. Outside of CI.

python -P tools/fuzz_inputs.py --minutes 10

transforms.json, COLMAP's tables as text and binary, masks and points; PLY, SPZ, splat, glTF and (where usd-core is)
USD files of Gaussians, and sidecars; broken by bytes, words, and values of JSON.
What fails is made as small as it gets by hypothesis, printed with its traceback, and ends the run with exit code 1.
"""

import argparse
import gzip
import importlib.util
import json
import re
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from functools import partial
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from plyfile import PlyData, PlyElement

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "export"))
import tiny_scene
from test_other_programs import extended, record, visible

from lpm.checks import LpmError
from lpm.formats.gltf import write_gltf
from lpm.formats.ply import write_ply
from lpm.formats.read import load
from lpm.formats.sidecar import Sidecar, sidecar_path, write_sidecar
from lpm.formats.splat import write_splat
from lpm.formats.spz_write import write_spz
from lpm.formats.usd import write_usd
from lpm.plausibility.check import check_briefly
from lpm.plausibility.points import track_errors
from lpm.scenes.read import read_scene
from lpm.scenes.split import hold_out
from lpm.train.load_photos import load_photos
from lpm.train.placed import place
from lpm.train.scene_settings import SceneSettings

ODD = [
    None, True, False, -1, 0, 1, 0.5, 1e400, -1e400, float("nan"), 1e308, 10**400, "", " ", "x", "1", "nan", "../x",
    "/etc/passwd", "C:\\x\\images\\000.png", "images\\000.png", "images/000", "a\0b", "y" * 5000, "\ud800", "\u202e",
    [], {}, [[]], [[1, 2], [3]], {"a": [None]}, [1e308] * 16, ["images/000.png"], [[0] * 4] * 4, np.eye(4).tolist(),
    [["0"] * 4] * 4, [1e-320] * 6,
]  # fmt: skip
KEYS = [
    "camera_model", "is_fisheye", "camera_angle_x", "fl_x", "fl_y", "cx", "cy", "w", "h", "k1", "k2", "k3", "k4", "p1",
    "p2", "distortion_params", "applied_transform", "applied_scale", "orientation_override", "ply_file_path", "frames",
    "time", "cam", "mask_path", "depth_file_path", "file_path", "transform_matrix", "train_filenames", "test_filenames",
    "val_filenames",
]  # fmt: skip
WORDS = [
    "", "0", "-1", "1", "nan", "inf", "1e400", "1e-400", "99999999999999999999", "x", "PINHOLE", "OPENCV_FISHEYE",
    "EUCM", "EQUIRECTANGULAR", "FULL_OPENCV", "000.png", "../x.png", "a b.png", "#", "\ufeff", "\u2028", "\0", "1,5",
    "0x10", "1_0",
]  # fmt: skip

edits = st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=9)), max_size=4)
swaps = st.lists(st.tuples(st.integers(0, 400), st.sampled_from(WORDS)), max_size=4)
tree = st.lists(
    st.tuples(st.booleans(), st.lists(st.integers(0, 9), max_size=5), st.sampled_from(KEYS), st.sampled_from(ODD)),
    max_size=4,
)
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252", "utf-32"]


def broken(data, changes, cut):
    """`data` overwritten at some places, and cut off, one time out of five."""
    new = bytearray(data)
    for where, what in changes:
        start = int(where**2 * len(new))
        new[start : start + len(what)] = what
    return bytes(new[: round(cut * 5 * len(new))] if cut < 0.2 else new)


def reworded(text, changes):
    """`text` with some of its words replaced."""
    parts = text.split(" ")
    for where, word in changes:
        parts[where % len(parts)] = word
    return " ".join(parts)


def regrown(value, changes):
    """JSON with keys set, at the top or in a frame, or values replaced wherever they lie."""
    for at_top, way, name, new in changes:
        frames = value.get("frames") if isinstance(value, dict) else None
        if at_top and isinstance(value, dict):
            value[name] = new
        elif way and isinstance(frames, list) and frames and isinstance(frames[way[0] % len(frames)], dict):
            frames[way[0] % len(frames)][name] = new
    return value


def used(folder):
    """All that reads the scene, up to the photos that are trained on."""
    scene = read_scene(folder)
    hold_out(scene, 4)
    placed = place(scene, SceneSettings(), 4)
    if int(scene.sizes.max()) < 400:
        check_briefly(scene)
        load_photos(placed.train, 1.0)
    if scene.layout.kind == "colmap":
        track_errors(scene.layout.source)


def scenes(work):
    """Good ones, and the files of them that are broken."""
    found = []
    folder = tiny_scene.make_transforms(work / "transforms", views=6)
    meta = json.loads((folder / "transforms.json").read_text())
    for i, frame in enumerate(meta["frames"]):
        mask = folder / f"masks/{i}.png"
        mask.parent.mkdir(exist_ok=True)
        Image.new("RGBA" if i % 2 else "L", (32, 24), "white").save(mask)
        frame["mask_path"] = f"masks/{i}.png"
    (folder / "transforms.json").write_text(json.dumps(meta))
    found += [(folder, name) for name in ("transforms.json", "masks/0.png", "masks/1.png", "points.ply")]
    found += [(tiny_scene.make_blender(work / "blender", views=6), f"transforms_{split}.json") for split in ("train",)]
    for binary, end in ((True, "bin"), (False, "txt")):
        for model in ((1, "PINHOLE", [30.0, 30, 16, 12]), (5, "OPENCV_FISHEYE", [30.0, 30, 16, 12, 0.1, 0, 0, 0])):
            folder = tiny_scene.make_colmap(work / f"{end}{model[0]}", views=6, binary=binary, model=model)
            for i in range(6):
                (folder / "masks").mkdir(exist_ok=True)
                Image.new("1", (32, 24), 1).save(folder / f"masks/{i:03d}_mask.png")
            found += [(folder, f"sparse/0/{table}.{end}") for table in ("cameras", "images", "points3D")]
            found.append((folder, "masks/002_mask.png"))
    return [(partial(used, folder), folder / name) for folder, name in found]


def splats(work):
    """Good files of Gaussians with what reads them, and the sidecar of one."""
    params = visible(20, 3)
    work.mkdir()
    files = [work / name for name in ("a.ply", "b.ply", "a.spz", "a.splat")]
    write_ply(files[0], params)
    columns = PlyData.read(files[0])["vertex"].data
    names = (*columns.dtype.names, "filter_3D", "trbf_center", "motion_0", "red")
    more = np.zeros(len(columns), [(name, "f4") for name in names])
    for name in columns.dtype.names:
        more[name] = columns[name]
    PlyData([PlyElement.describe(more, "vertex")], text=True).write(files[1])
    files[2].write_bytes(extended(params, 3, record(0xADBE0003, 5)))
    write_splat(files[3], params)
    packed, spz_4 = partial(write_gltf, compression="spz"), partial(write_spz, version=4)
    for name, write in (("a.glb", write_gltf), ("a.gltf", write_gltf), ("b.gltf", packed), ("b.spz", spz_4)):
        files.append(work / name)
        write(files[-1], params)
    for name in ("a.usd", "a.usda", "a.usdz") if importlib.util.find_spec("pxr") else ():
        files.append(work / name)
        write_usd(files[-1], params)
    write_sidecar(files[0], Sidecar(20, "world", None, None, "classic", [0, 0, 1], "x", "a.ply"))
    return [(partial(load, file), file) for file in files] + [(partial(load, files[0]), sidecar_path(files[0]))]


def tried(use, path, examples, vague):
    """Breaks the file at `path`, which `use` reads, in many ways; how often, and how often it was refused.

    `vague`: refusals that say no more than Python's own error are put into it.
    """
    data, done = path.read_bytes(), [0, 0]

    def one(changes, cut, words, grown, encoding):
        new = data
        if path.suffix == ".json":
            new = json.dumps(regrown(json.loads(data), grown)).encode(encoding, "replace")
        elif path.suffix == ".txt":
            new = reworded(data.decode(), words).encode(encoding, "replace")
        elif path.suffix == ".ply":
            head, end, rest = data.partition(b"end_header")
            new = reworded(head.decode("ascii", "replace"), words).encode("ascii", "replace") + end + rest
        zipped = data[:2] == b"\x1f\x8b"
        new = broken(gzip.decompress(new) if zipped else new, changes, cut)
        path.write_bytes(gzip.compress(new, 1) if zipped else new)
        done[0] += 1
        refusal = None
        try:
            use()
        except LpmError as error:
            refusal = str(error)
            done[1] += 1
            if caught := re.search(r"cannot be read \((\w+Error: .{0,60})", refusal):
                vague.setdefault(caught[1], path.name)
        assert refusal is None or ("; wanted " in refusal and "\n" not in refusal), refusal

    chosen = {"changes": edits, "cut": st.floats(0, 1), "words": swaps, "grown": tree}
    test = given(**chosen, encoding=st.sampled_from(ENCODINGS))(one)
    try:
        settings(
            max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
        )(test)()  # fmt: skip
    finally:
        path.write_bytes(data)
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--examples", type=int, default=100, help="of a file, before it is the next one's turn")
    o = parser.parse_args()
    warnings.simplefilter("ignore")
    vague: dict[str, str] = {}
    end, count, refused = time.monotonic() + 60 * o.minutes, 0, 0
    work = Path(tempfile.mkdtemp())
    try:
        good = scenes(work) + splats(work / "splats")
        for use, _ in good:
            use()
        while time.monotonic() < end:
            for use, path in good:
                done, said = tried(use, path, o.examples, vague)
                count, refused = count + done, refused + said
                if time.monotonic() > end:
                    break
        print(f"{count} broken files in {o.minutes:g} minutes: {refused} refused in one line, the others read")
        print(f"{len(vague)} refusals in Python's words only:", *(f"  {v}: {k}" for k, v in vague.items()), sep="\n")
    except BaseException:
        traceback.print_exc()
        sys.exit(1)
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
