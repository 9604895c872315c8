"""SPZ inside of glTF: what the draft asks for is in our files, with the numbers of a .spz; broken ones are refused."""

import gzip
import json
import struct

import numpy as np
import pytest
import torch
from export.some import call, covariances, visible
from export.test_gltf import parts_of

from lpm.checks import LpmError
from lpm.formats import gltf_spz
from lpm.formats.cli import export_main
from lpm.formats.gltf import NAME, write_gltf
from lpm.formats.gltf_container import glb_head
from lpm.formats.placement import Placement
from lpm.formats.ply import write_ply
from lpm.formats.read import load
from lpm.formats.spz_extensions import to_ply_axes
from lpm.formats.spz_write import write_spz
from lpm.gaussians.similarity import move

RECORD = struct.pack("<III", 0xADBE0003, 4, 7)
"""The extension of a .spz whose axes are LUF."""
ALIKE = visible(1, 0)


def write(path, params, placement=None):
    write_gltf(path, params, placement, compression="spz")


def payload_of(path):
    """The JSON of a .glb, and its .spz unpacked."""
    document, body = parts_of(path)
    view = document["bufferViews"][0]
    return document, gzip.decompress(body[: view["byteLength"]])


def with_payload(path, document, payload):
    """Writes `document` to `path` (a .glb) with the bytes `payload` in its bufferView."""
    document["bufferViews"][0]["byteLength"] = len(payload)
    document["buffers"][0]["byteLength"] = len(payload)
    payload += bytes(-len(payload) % 4)
    path.write_bytes(glb_head(document, len(payload)) + payload)


def test_what_the_draft_asks_for(tmp_path):
    params = visible(41, 3)
    params["means"][7, 1] = torch.nan
    assert write_gltf(tmp_path / "a.glb", params, Placement([0.0, 0, 1], "antialiased"), compression="spz") == 1
    document, spz = payload_of(tmp_path / "a.glb")
    assert document["extensionsUsed"] == document["extensionsRequired"] == [NAME, gltf_spz.NAME]
    (primitive,) = document["meshes"][0]["primitives"]
    assert primitive["mode"] == 0
    assert primitive["extensions"][NAME]["kernel"] == "ellipse"
    assert primitive["extensions"][NAME]["extensions"] == {gltf_spz.NAME: {"bufferView": 0}}
    harmonics = [f"{NAME}:SH_DEGREE_{l}_COEF_{n}" for l in (1, 2, 3) for n in range(2 * l + 1)]
    assert list(primitive["attributes"]) == ["POSITION", "COLOR_0", f"{NAME}:ROTATION", f"{NAME}:SCALE", *harmonics]
    for name, index in primitive["attributes"].items():
        accessor = document["accessors"][index]
        assert "bufferView" not in accessor
        assert accessor["count"] == 40
        assert accessor["type"] == ("VEC4" if name.endswith(("COLOR_0", "ROTATION")) else "VEC3")
        assert accessor["componentType"] == (5121 if name == "COLOR_0" else 5126)
    magic, version, n, degree, bits, flags, _ = struct.unpack("<IIIBBBB", spz[:16])
    assert (magic, version, n, degree, flags) == (0x5053474E, 2, 40, 3, 3)  # antialiased, and an extension
    assert spz[16 + 40 * (9 + 1 + 3 + 3 + 3 + 45) :] == RECORD
    fixed = np.zeros((120, 4), np.uint8)
    fixed[:, 1:] = np.frombuffer(spz[16 : 16 + 360], np.uint8).reshape(120, 3)
    means = (fixed.view("<i4") >> 8).reshape(40, 3) / 2.0**bits
    kept = params["means"][torch.arange(41) != 7].numpy()
    assert np.abs(means - kept).max() <= 2.0 ** -(bits + 1)  # in the axes of the primitive, as in a plain .glb
    assert document["accessors"][0]["min"] == means.min(0).tolist()
    assert document["accessors"][0]["max"] == means.max(0).tolist()
    np.testing.assert_allclose(np.reshape(document["nodes"][0]["matrix"], (4, 4)).T @ (0, 0, 1, 1), (0, 1, 0, 1))


@pytest.mark.parametrize("ending", ["glb", "gltf"])
@pytest.mark.parametrize("up", [None, [0.0, 0, 1], [0, 1.0, 0], [0.6, 0, 0.8]])
@pytest.mark.parametrize("degree", [0, 2])
def test_round_trip_gives_what_a_spz_gives(tmp_path, ending, up, degree):
    params, offset = visible(300, degree), np.array([500_000.0, 5e6, 300])
    write(tmp_path / f"a.{ending}", params, Placement(up, "antialiased", offset))
    loaded = load(tmp_path / f"a.{ending}")
    assert (loaded.kind, loaded.up, loaded.rasterize_mode) == (ending, up or [0, -1, 0], "antialiased")
    assert loaded.offset.tolist() == offset.tolist()
    assert not loaded.notes
    to_ply = to_ply_axes("RUB")
    write_spz(tmp_path / "b.spz", move(params, to_ply), 2)  # which turns them back: the same numbers are packed
    plain = move(load(tmp_path / "b.spz").params, to_ply.inverse())
    for name in ("means", "scales", "features_dc", "opacities"):
        assert torch.equal(loaded.params[name], plain[name]), name
    assert (loaded.params["features_rest"] - plain["features_rest"]).abs().max() < 1e-5 if degree else True
    assert (covariances(loaded.params) - covariances(plain)).abs().max() < 1e-5
    assert (loaded.params["means"] - params["means"]).abs().max() <= 2.0**-13


def test_no_rotation_of_version_2_is_off_by_a_degree(tmp_path):
    """Needles, of which a wrong rotation shows; with the axes that they came with some are off by nine."""
    params = visible(2000, 0)
    params["scales"][:] = torch.tensor([0.0, -4.0, -4.0])
    for version in (2, 3):
        write_spz(tmp_path / "a.spz", params, version)
        along = [torch.linalg.eigh(covariances(each))[1][:, :, 2] for each in (params, load(tmp_path / "a.spz").params)]
        angles = torch.rad2deg(torch.arccos((along[0] * along[1]).sum(1).abs().clamp(max=1)))
        assert angles.max() < 1


def test_of_others_the_axes_are_what_they_say(tmp_path):
    params = visible(30, 1)
    write(tmp_path / "a.glb", params, Placement([0.0, 1, 0]))
    document, spz = payload_of(tmp_path / "a.glb")
    document["asset"].pop("extras")
    spoken = {}
    for said in (RECORD, struct.pack("<III", 0xADBE0003, 4, 4), b""):  # LUF; RUB; nothing
        data = spz[:14] + bytes([2 if said else 0]) + spz[15 : -len(RECORD)] + said
        with_payload(tmp_path / "b.glb", document, gzip.compress(data))
        loaded = load(tmp_path / "b.glb")
        assert loaded.notes == ([] if said else [gltf_spz.UNTOLD])
        spoken[said] = loaded.params["means"]
    luf, rub, untold = spoken.values()
    assert (luf * torch.tensor([1.0, -1, -1]) - params["means"]).abs().max() <= 2.0**-13  # a PLY's axes, from glTF's
    assert torch.equal(untold, luf)
    assert torch.equal(rub, luf * torch.tensor([-1.0, 1, -1]))


def test_the_other_name_and_antialiasing(tmp_path):
    params = visible(30, 1)
    write(tmp_path / "a.gltf", params, Placement(None, "antialiased"))
    text = (tmp_path / "a.gltf").read_text().replace(gltf_spz.NAME, "KHR_gaussian_splatting_compression_spz")
    document = json.loads(text)
    document["asset"].pop("extras")
    (tmp_path / "a.gltf").write_text(json.dumps(document))
    loaded = load(tmp_path / "a.gltf")
    assert len(loaded.params["means"]) == 30
    assert loaded.rasterize_mode == "antialiased"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: b"", "0 bytes of header"),
        (lambda data: data[:300], "its header says"),
        (lambda data: b"\x1f\x8b" + bytes(60), "cannot be unpacked"),
        (lambda data: b"no spz" * 20, "magic 0x"),
        (lambda data: repacked(data, 4, 9), ".spz version 9"),
        (lambda data: repacked(data, 8, 9), "9 Gaussians in its SPZ, 10 by its accessors"),
        (lambda data: repacked(data, 8, 11), "its header says"),
        (lambda data: repacked(data, 8, 2**31), "packed into"),
        (lambda data: repacked(data, 12, 9), "SH degree 9"),
    ],
)
def test_broken_payloads_end_with_one_line(tmp_path, change, said):
    write(tmp_path / "a.glb", visible(10, 1))
    document, body = parts_of(tmp_path / "a.glb")
    with_payload(tmp_path / "a.glb", document, change(body[: document["bufferViews"][0]["byteLength"]]))
    refused(tmp_path / "a.glb", said)


def repacked(data, at, number):
    """A .spz with another number at byte `at` of its header."""
    data = bytearray(gzip.decompress(data))
    size = 1 if at >= 12 else 4
    data[at : at + size] = number.to_bytes(size, "little")
    return gzip.compress(bytes(data))


def refused(path, said):
    with pytest.raises(LpmError, match=said) as caught:
        load(path)
    assert "; wanted " in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("accessors", 0, "count"), 9, "10 Gaussians in its SPZ, 9 by its accessors"),
        (("accessors", 0, "count"), 10**9, "its header says 19,000,000,000 bytes packed into"),
        (("bufferViews", 0, "byteLength"), 10**9, "its header says 1,000,000,000 rows"),
        (("meshes", 0, "primitives", 0, "extensions", NAME, "extensions", gltf_spz.NAME), {}, "bufferView 'None'"),
        (("meshes", 0, "primitives", 0, "extensions", NAME, "extensions", gltf_spz.NAME), [], "that is no object"),
        (("meshes", 0, "primitives", 0, "extensions", NAME, "extensions", gltf_spz.NAME, "bufferView"), 3,
         r"no bufferViews\[3\]"),
        (("meshes", 0, "primitives", 0, "extensions", NAME, "extensions"), {}, "accessor"),
    ],
)  # fmt: skip
def test_broken_json_ends_with_one_line(tmp_path, place, value, said):
    write(tmp_path / "a.gltf", visible(10, 1))
    document = json.loads((tmp_path / "a.gltf").read_text())
    inner = document
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    (tmp_path / "a.gltf").write_text(json.dumps(document))
    refused(tmp_path / "a.gltf", said)


@pytest.mark.parametrize("views", [1, 100])
def test_one_payload_many_times_is_refused_before_it_is_unpacked(tmp_path, monkeypatch, views):
    """Gaussians that are all alike pack into little; a hundred primitives of them would be 10 million."""
    write(tmp_path / "a.gltf", {name: value.repeat(100_000, *[1] * (value.dim() - 1)) for name, value in ALIKE.items()})
    assert len(load(tmp_path / "a.gltf").params["means"]) == 100_000
    document = json.loads((tmp_path / "a.gltf").read_text())
    primitives, text = document["meshes"][0]["primitives"], json.dumps(document["meshes"][0]["primitives"][0])
    document["bufferViews"] *= views
    for i in range(1, 100):
        primitives.append(json.loads(text))
        primitives[-1]["extensions"][NAME]["extensions"][gltf_spz.NAME]["bufferView"] = i % views
        primitives[-1]["attributes"]["POSITION"] = len(document["accessors"])
        document["accessors"].append(document["accessors"][0])
    (tmp_path / "a.gltf").write_text(json.dumps(document))
    monkeypatch.setattr(gltf_spz, "unpack_spz", None)
    refused(tmp_path / "a.gltf", "190,000,000 bytes packed into")


def test_the_command(tmp_path, capsys):
    write_ply(tmp_path / "a.ply", visible(5000, 3))
    for compression in ("none", "spz"):
        out = tmp_path / f"{compression}.glb"
        assert call(export_main, "glb", tmp_path / "a.ply", out, "--compression", compression) == 0
        assert "5,000 Gaussians" in capsys.readouterr().out
        assert len(load(out).params["means"]) == 5000
    assert (tmp_path / "spz.glb").stat().st_size * 6 < (tmp_path / "none.glb").stat().st_size
