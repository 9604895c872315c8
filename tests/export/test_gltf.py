"""glTF: what the extension's text asks for is in our files, others' files come in right, broken ones are refused."""

import base64
import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from export.some import covariances, picture, visible

from lpm.checks import LpmError
from lpm.formats.gltf import NAME, read_gltf, write_gltf
from lpm.formats.gltf_container import glb_head
from lpm.formats.placement import Placement
from lpm.formats.read import load
from lpm.gaussians.similarity import Similarity, move
from lpm.gaussians.spherical_harmonics import SH_C0

TO_PLY = Similarity(np.diag([1.0, -1, -1]), np.zeros(3), 1.0)


def parts_of(path):
    """The JSON and the buffer of a .glb."""
    data = path.read_bytes()
    magic, version, total, length, kind = struct.unpack_from("<4sIII4s", data)
    assert (magic, version, total, kind) == (b"glTF", 2, len(data), b"JSON")
    size, kind = struct.unpack_from("<I4s", data, 20 + length)
    assert kind == b"BIN\0"
    assert length % 4 == size % 4 == 0
    return json.loads(data[20 : 20 + length]), data[28 + length : 28 + length + size]


def numbers(document, body, index, kind="<f4"):
    """What accessor `index` points to [N, width]."""
    accessor = document["accessors"][index]
    view = document["bufferViews"][accessor["bufferView"]]
    width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[accessor["type"]]
    return np.frombuffer(body, kind, accessor["count"] * width, view["byteOffset"]).reshape(-1, width)


def test_the_file_is_as_the_extension_asks(tmp_path):
    params = visible(41, 3)
    params["quats"][7] = 0
    assert write_gltf(tmp_path / "a.glb", params, Placement([0.0, 0, 1])) == 1
    document, body = parts_of(tmp_path / "a.glb")
    want = {name: value[torch.arange(41) != 7] for name, value in params.items()}
    (primitive,) = document["meshes"][0]["primitives"]
    assert primitive["mode"] == 0
    assert document["extensionsUsed"] == [NAME]
    assert primitive["extensions"][NAME]["kernel"] == "ellipse"
    assert primitive["extensions"][NAME]["colorSpace"] == "srgb_rec709_display"
    assert all(view["byteOffset"] % 4 == 0 for view in document["bufferViews"])
    at = primitive["attributes"]
    position = document["accessors"][at["POSITION"]]
    np.testing.assert_array_equal(position["min"], want["means"].amin(0))
    np.testing.assert_array_equal(position["max"], want["means"].amax(0))
    np.testing.assert_array_equal(numbers(document, body, at["POSITION"]), want["means"])
    xyzw = torch.nn.functional.normalize(want["quats"], dim=1).roll(-1, 1)
    np.testing.assert_allclose(numbers(document, body, at[f"{NAME}:ROTATION"]), xyzw, atol=1e-6)
    np.testing.assert_allclose(numbers(document, body, at[f"{NAME}:SCALE"]), want["scales"].exp(), rtol=1e-6)
    np.testing.assert_allclose(numbers(document, body, at[f"{NAME}:OPACITY"]), want["opacities"].sigmoid(), rtol=1e-6)
    np.testing.assert_array_equal(numbers(document, body, at[f"{NAME}:SH_DEGREE_0_COEF_0"]), want["features_dc"])
    k = 0
    for degree in (1, 2, 3):
        for n in range(2 * degree + 1):
            found = numbers(document, body, at[f"{NAME}:SH_DEGREE_{degree}_COEF_{n}"])
            np.testing.assert_array_equal(found, want["features_rest"][:, k])
            k += 1
    color = numbers(document, body, at["COLOR_0"], "u1") / 255  # linear light, as glTF's vertex colours are
    display = np.where(color <= 0.0031308, 12.92 * color, 1.055 * color ** (1 / 2.4) - 0.055)[:, :3]
    assert np.abs(display - (want["features_dc"] * SH_C0 + 0.5).clamp(0, 1).numpy()).max() < 0.03
    x, y, z, w = document["nodes"][0]["rotation"]  # of which the scene's up becomes +y
    turned = (2 * (y * z - w * x), 1 - 2 * (x * x + y * y))
    np.testing.assert_allclose(turned, (1, 0), atol=1e-12)


@pytest.mark.parametrize("ending", ["glb", "gltf"])
@pytest.mark.parametrize("up", [None, [0.0, 0, 1], [0, 1.0, 0], [0.6, 0, 0.8], [0.0, -1, 0], [0.0, 0, -1]])
def test_round_trip(tmp_path, ending, up):
    params = visible(50, 2)
    offset = np.array([500_000.0, 5e6, 300])
    write_gltf(tmp_path / f"a.{ending}", params, Placement(up, "antialiased", offset))
    loaded = load(tmp_path / f"a.{ending}")
    assert loaded.kind == ending
    assert loaded.up == (up or [0, -1, 0])
    assert loaded.rasterize_mode == "antialiased"
    assert loaded.offset.tolist() == offset.tolist()
    for name in ("means", "features_dc", "features_rest"):
        assert torch.equal(loaded.params[name], params[name])
    assert (loaded.params["scales"] - params["scales"]).abs().max() < 1e-6
    assert (loaded.params["opacities"] - params["opacities"]).abs().max() < 1e-5
    assert (covariances(loaded.params) - covariances(params)).abs().max() < 1e-6


def test_the_ends_of_opacity_and_size_stay(tmp_path):
    params = visible(4, 0)
    params["opacities"][:, 0] = torch.tensor([torch.inf, -torch.inf, 30.0, 0.0])
    params["scales"][0, 1] = -torch.inf
    write_gltf(tmp_path / "a.glb", params)
    back = load(tmp_path / "a.glb").params
    assert back["opacities"][:, 0].sigmoid().tolist() == pytest.approx([1, 0, 1, 0.5], abs=1e-6)
    assert back["scales"][0, 1] <= -30
    assert all(value.isfinite().all() for value in back.values())


def others(path, params, nodes):
    """A .glb as another program could write it: rows side by side, some of them in few bits, nodes in a tree."""
    n, rest = len(params["means"]), params["features_rest"].shape[1]
    row = [("p", "<f4", 3), ("r", "<i2", 4), ("s", "<f4", 3), ("o", "<u2"), ("_", "<u2")]
    row = np.dtype(row + [(f"sh{k}", "<f4", 3) for k in range(1 + rest)])
    rows = np.zeros(n, row)
    rows["p"], rows["s"] = params["means"], params["scales"].exp()
    rows["r"] = np.round(torch.nn.functional.normalize(params["quats"], dim=1).roll(-1, 1).numpy() * 32767)
    rows["o"] = np.round(params["opacities"][:, 0].sigmoid().numpy() * 65535)
    rows["sh0"] = params["features_dc"]
    for k in range(rest):
        rows[f"sh{k + 1}"] = params["features_rest"][:, k]
    names = {"p": "POSITION", "r": f"{NAME}:ROTATION", "s": f"{NAME}:SCALE", "o": f"{NAME}:OPACITY"}
    names |= {f"sh{k}": f"{NAME}:SH_DEGREE_{int(k**0.5)}_COEF_{k - int(k**0.5) ** 2}" for k in range(16)}
    accessors, attributes = [], {}
    for name in row.names:
        if name != "_":
            attributes[names[name]] = len(accessors)
            kind, width = {"r": (5122, "VEC4"), "o": (5123, "SCALAR")}.get(name, (5126, "VEC3"))
            accessors.append({"bufferView": 0, "byteOffset": row.fields[name][1], "componentType": kind, "count": n,
                              "type": width, "normalized": kind != 5126})  # fmt: skip
    body = b"pad " * 4 + rows.tobytes()
    document = {
        "asset": {"version": "2.0"},
        "nodes": nodes,
        "meshes": [
            {"primitives": [{"attributes": attributes, "extensions": {NAME: {"kernel": "ellipse"}}, "mode": 0}]}
        ],
        "accessors": accessors,
        "bufferViews": [{"buffer": 0, "byteOffset": 16, "byteLength": rows.nbytes, "byteStride": row.itemsize}],
        "buffers": [{"byteLength": len(body)}],
    }
    body += bytes(-len(body) % 4)
    path.write_bytes(glb_head(document, len(body)) + body)
    return document


def test_a_file_of_others_comes_in_turned_and_placed(tmp_path):
    """Twice in the scene: turned by 90 degrees about y, doubled and moved; and by a matrix, mirrored."""
    params = visible(200, 3)
    half = np.sqrt(0.5)
    mirror = np.diag([-0.5, 0.5, 0.5, 1.0])
    mirror[:3, 3] = (1, 2, 3)
    nodes = [
        {"children": [1], "translation": [0, 5, 0]},
        {"mesh": 0, "rotation": [0, half, 0, half], "scale": [2, 2, 2], "translation": [1, 0, 0]},
        {"mesh": 0, "matrix": mirror.T.reshape(-1).tolist()},
    ]
    others(tmp_path / "a.glb", params, nodes)
    back, placement, notes = read_gltf(tmp_path / "a.glb")
    assert placement.up is None
    assert not placement.offset.any()
    assert not notes
    turn = np.array([[0, 0, 1.0], [0, 1, 0], [-1, 0, 0]])
    places = [Similarity(turn, np.array([1.0, 5, 0]), 2.0), Similarity(np.diag([-1.0, 1, 1]), mirror[:3, 3], 0.5)]
    want = [move(params, by.then(TO_PLY)) for by in places]
    both = {name: torch.cat([want[0][name], want[1][name]]) for name in params}
    order = torch.tensor([i for i in range(400)])
    if (back["means"][0] - both["means"][0]).abs().max() > 1e-3:
        order = order.roll(200)
    both = {name: value[order] for name, value in both.items()}
    assert (back["means"] - both["means"]).abs().max() < 1e-5
    assert (back["features_rest"] - both["features_rest"]).abs().max() < 1e-5
    assert (back["scales"] - both["scales"]).abs().max() < 1e-5
    assert (back["opacities"].sigmoid() - both["opacities"].sigmoid()).abs().max() < 1e-4
    assert (covariances(back) - covariances(both)).abs().max() < 1e-3
    eye = {"eye": (9.0, -4.0, 3.0), "up": (0.0, -1.0, 0.0), "target": (1.0, -4.0, -1.0)}
    assert (picture(back, **eye) - picture(both, **eye)).abs().max() < 0.01


def test_what_another_program_moved_is_where_it_put_it(tmp_path):
    params = visible(20, 1)
    write_gltf(tmp_path / "a.gltf", params, Placement([0.0, 0, 1]))
    document = json.loads((tmp_path / "a.gltf").read_text())
    document["nodes"][0]["translation"] = [0, 10.0, 0]
    (tmp_path / "a.gltf").write_text(json.dumps(document))
    back = load(tmp_path / "a.gltf")
    assert back.up is None  # as of files whose up direction is not told: -y
    x, y, z = params["means"].unbind(1)  # z became glTF's y, and glTF's y is a PLY's -y
    torch.testing.assert_close(back.params["means"], torch.stack([x, -z - 10, y], 1), atol=1e-5, rtol=0)


def test_far_places_in_nodes_become_an_offset(tmp_path):
    params = visible(50, 0)
    others(tmp_path / "a.glb", params, [{"mesh": 0, "translation": [4e6, 1e6, -5e6]}])
    loaded = load(tmp_path / "a.glb")
    assert loaded.offset.any()
    want = (params["means"].double().numpy() + np.array([4e6, 1e6, -5e6])) * np.array([1, -1, -1])
    assert np.abs(loaded.params["means"].double().numpy() + loaded.offset - want).max() < 1e-4


def test_a_buffer_in_the_json(tmp_path):
    params = visible(10, 0)
    write_gltf(tmp_path / "a.gltf", params)
    document = json.loads((tmp_path / "a.gltf").read_text())
    data = base64.b64encode((tmp_path / "a.bin").read_bytes()).decode()
    document["buffers"][0]["uri"] = f"data:application/octet-stream;base64,{data}"
    (tmp_path / "b.gltf").write_text(json.dumps(document))
    assert torch.equal(load(tmp_path / "b.gltf").params["means"], params["means"])


PRIMITIVE = ("meshes", 0, "primitives", 0)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("asset", "version"), "1.0", "a JSON without asset.version 2.x"),
        (("nodes", 0, "scale"), [1, 2, 1], "node 0 stretches"),
        (("nodes", 0, "scale"), [0, 0, 0], "node 0 stretches"),
        (("nodes", 0, "rotation"), [0, 0, 0, 0], "a rotation of length 0"),
        (("nodes", 0, "rotation"), [0, 0, "x", 0], "a rotation that is not 4 finite numbers"),
        (("nodes", 0, "children"), [0], "below two others"),
        (("nodes", 0, "mesh"), 7, r"no meshes\[7\]"),
        (("meshes", 0, "primitives", 0, "extensions"), {}, "no points with KHR_gaussian_splatting"),
        ((*PRIMITIVE, "attributes", f"{NAME}:SCALE"), 99, r"no accessors\[99\]"),
        (("accessors", 3, "count"), 9, "9 of KHR_gaussian_splatting:SCALE for 10 Gaussians"),
        (("accessors", 3, "count"), 10**9, "its header says 1,000,000,000 rows"),
        (("accessors", 0, "count"), 0, "no Gaussians in it"),
        (("accessors", 3, "type"), "MAT4", "accessor 3 of MAT4"),
        (("accessors", 3, "sparse"), {}, "accessor 3 that is sparse"),
        (("bufferViews", 3, "byteLength"), 10**9, "its header says 1,000,000,000 rows"),
        (("bufferViews", 3, "byteStride"), 4, "4 bytes from one to the next"),
        (("bufferViews", 3, "extensions"), {"EXT_meshopt_compression": {}}, "meshopt's compression"),
        (("buffers", 0, "uri"), "../../etc/passwd", "a buffer at '../../etc/passwd'; wanted a file beside it"),
        (("buffers", 0, "uri"), "%2e%2e/a.bin", "a file beside it"),
        (("buffers", 0, "uri"), "/etc/passwd", "a file beside it"),
        (("buffers", 0, "uri"), "https://example.com/a.bin", "a file beside it"),
        (("buffers", 0, "uri"), "gone.bin", "gone.bin: no such file"),
        (("buffers", 0, "uri"), "data:;base64,?", "broken base64"),
    ],
)
def test_broken_files_end_with_one_line(tmp_path, place, value, said):
    write_gltf(tmp_path / "a.gltf", visible(10, 1))
    document = json.loads((tmp_path / "a.gltf").read_text())
    inner = document
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    (tmp_path / "a.gltf").write_text(json.dumps(document))
    with pytest.raises(LpmError, match=said) as caught:
        load(tmp_path / "a.gltf")
    assert "; wanted " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_attribute_and_a_packed_one(tmp_path):
    write_gltf(tmp_path / "a.gltf", visible(10, 1))
    document = json.loads((tmp_path / "a.gltf").read_text())
    primitive = document["meshes"][0]["primitives"][0]
    del primitive["attributes"][f"{NAME}:SCALE"]
    (tmp_path / "a.gltf").write_text(json.dumps(document))
    with pytest.raises(LpmError, match="Gaussians without KHR_gaussian_splatting:SCALE"):
        load(tmp_path / "a.gltf")
    primitive["extensions"][NAME]["extensions"] = {f"{NAME}_compression_other": {"bufferView": 0}}
    (tmp_path / "a.gltf").write_text(json.dumps(document))
    with pytest.raises(LpmError, match="Gaussians packed by KHR_gaussian_splatting_compression_other"):
        load(tmp_path / "a.gltf")


def test_what_is_read_otherwise_is_said(tmp_path):
    write_gltf(tmp_path / "a.gltf", visible(10, 1))
    document = json.loads((tmp_path / "a.gltf").read_text())
    extension = document["meshes"][0]["primitives"][0]["extensions"][NAME]
    extension |= {"kernel": "disk", "colorSpace": "lin_rec709_display"}
    (tmp_path / "a.gltf").write_text(json.dumps(document))
    notes = load(tmp_path / "a.gltf").notes
    assert "its kernel 'disk' is not known" in notes[0]
    assert "colours are of 'lin_rec709_display'" in notes[1]


@pytest.mark.parametrize("moment", ["numbers", "names"])
@pytest.mark.parametrize("before", [True, False])
def test_a_killed_gltf_is_whole_or_not_there(tmp_path, moment, before):
    """kill -9 while numbers are written, and after the .bin has its name: no .gltf then names bytes of another."""
    code = f"""
import os, signal, sys
from pathlib import Path
from lpm.formats import gltf
from export.some import visible
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
if {moment!r} == "numbers":
    gltf.np.ascontiguousarray = die
else:
    old = Path.replace
    Path.replace = lambda a, b: die() if b.suffix == ".gltf" else old(a, b)
gltf.write_gltf(Path(sys.argv[1]), visible(30, 1))
"""
    path, old = tmp_path / "a.gltf", visible(40, 0)
    if before:
        write_gltf(path, old)
    tests = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code, str(path)], env={"PYTHONPATH": f"{tests}:{':'.join(sys.path)}"})
    assert done.returncode == -9
    if moment == "numbers" and before:
        assert torch.equal(load(path).params["means"], old["means"])
    else:
        assert not path.exists()
    write_gltf(path, visible(30, 1))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.bin", "a.gltf"]
