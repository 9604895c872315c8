"""Files as other programs write them: columns, comments and flags that change the picture are used, or it is said."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
import torch
from export.some import call, covariances, visible
from export.test_canaries import WRITERS
from export.test_formats import compress, spz
from plyfile import PlyData, PlyElement

from lpm.checks import LpmError
from lpm.formats import read as reading
from lpm.formats.cli import export_main
from lpm.formats.inspect import inspect_main
from lpm.formats.moving import at_time
from lpm.formats.ply import read_ply, write_ply
from lpm.formats.read import kind_of, load
from lpm.formats.rows import FLAT, OPAQUE
from lpm.formats.splat import write_splat
from lpm.formats.spz_extensions import SYSTEMS
from lpm.gaussians.spherical_harmonics import SH_C0, sh0_to_rgb
from lpm.viewer.page.server import up_of


def columns(n=40, rest=0, seed=0):
    """The columns of a 3DGS PLY, by name."""
    r = np.random.default_rng(seed)
    c = {a: r.normal(0, 1, n) for a in "xyz"} | {a: np.zeros(n) for a in ("nx", "ny", "nz")}
    c |= {f"f_dc_{i}": r.normal(0, 1, n) for i in range(3)} | {f"f_rest_{i}": r.normal(0, 0.1, n) for i in range(rest)}
    c |= {"opacity": r.normal(1, 1, n)} | {f"scale_{i}": r.normal(-3, 0.4, n) for i in range(3)}
    q = r.normal(size=(n, 4))
    q /= np.linalg.norm(q, axis=1, keepdims=True)
    return c | {f"rot_{i}": q[:, i] for i in range(4)}


def write(path, values, kinds=None, comments=(), order="<", text=False, more=()):
    """`values` as a PLY, by plyfile; kinds: numpy types of columns that are not float32."""
    rows = np.zeros(len(values["x"]), [(name, (kinds or {}).get(name, "f4")) for name in values])
    for name, column in values.items():
        rows[name] = column
    data = PlyData([*more, PlyElement.describe(rows, "vertex")], text=text, byte_order=order, comments=list(comments))
    data.write(str(path))
    return path


# Infinite by right, and rows that are none


def test_opaque_and_flat_gaussians_stay(tmp_path, capsys):
    c = columns()
    c["opacity"][::4], c["opacity"][1::4] = np.inf, -np.inf
    c["scale_1"][2::4] = -np.inf
    source = write(tmp_path / "a.ply", c)
    for kind in ("ply", "splat", "splatv", "glb"):
        assert call(export_main, kind, source, tmp_path / f"b.{kind}") == 0
        assert "40 Gaussians" in capsys.readouterr().out
        back = load(tmp_path / f"b.{kind}").params
        assert all(value.isfinite().all() for value in back.values())
        alpha = back["opacities"].sigmoid().flatten()
        assert (alpha > 0.999 - 0.5 / 255).sum() >= 10
        assert (alpha < 0.5 / 255).sum() >= 10
        assert (back["scales"].amin(1) < -15).sum() == 10
    params = read_ply(source)
    assert (params["opacities"][::4] == OPAQUE).all()
    assert (params["opacities"][1::4] == -OPAQUE).all()
    assert (params["scales"][2::4, 1] == FLAT).all()
    assert float(torch.sigmoid(torch.tensor(OPAQUE))) == 1.0


def test_an_infinitely_large_one_is_none(tmp_path):
    c = columns()
    c["scale_0"][5], c["x"][6], c["rot_2"][7] = np.inf, np.nan, -np.inf
    assert write_ply(tmp_path / "b.ply", read_ply(write(tmp_path / "a.ply", c))) == 3


@pytest.mark.parametrize("kind", WRITERS)
def test_rows_without_a_rotation_are_left_out_of_every_format(tmp_path, kind):
    if kind.startswith("usd"):
        pytest.importorskip("pxr", reason="usd-core is not installed")
    params = visible(40, 0)
    params["quats"][5:] = 0
    assert WRITERS[kind](tmp_path / f"a.{kind}", params) == 35
    assert len(load(tmp_path / f"a.{kind}").params["means"]) == 5


def test_rows_of_zeros(tmp_path, capsys):
    c = columns(200)
    for values in c.values():
        values[1:] = 0
    assert call(export_main, "splat", write(tmp_path / "a.ply", c), tmp_path / "a.splat") == 0
    assert "199 points with non-finite values or without a rotation" in capsys.readouterr().out
    assert call(inspect_main, tmp_path / "a.splat") == 0
    for i in range(4):
        c[f"rot_{i}"][:] = 0
    assert call(export_main, "splat", write(tmp_path / "b.ply", c), tmp_path / "b.splat") == 2
    assert not (tmp_path / "b.splat").exists()


def test_a_splat_of_others_with_rows_without_a_rotation(tmp_path):
    write_splat(tmp_path / "a.splat", visible(20, 0))
    data = bytearray((tmp_path / "a.splat").read_bytes())
    for row in range(10):
        data[32 * row + 28 : 32 * row + 32] = bytes([128] * 4)
    (tmp_path / "a.splat").write_bytes(data)
    assert write_ply(tmp_path / "a.ply", load(tmp_path / "a.splat").params) == 10


@pytest.mark.parametrize("size", [1, 31, 33, 32 * 20 - 1])
def test_a_splat_of_odd_length(tmp_path, size):
    write_splat(tmp_path / "a.splat", visible(20, 0))
    (tmp_path / "a.splat").write_bytes((tmp_path / "a.splat").read_bytes()[:size].ljust(size, b"\0"))
    with pytest.raises(LpmError, match="a multiple of 32 bytes"):
        load(tmp_path / "a.splat")


# Columns


def test_mip_filter(tmp_path, capsys):
    c = columns(rest=9)
    size = np.random.default_rng(3).uniform(0.01, 0.3, 40)
    path = write(tmp_path / "a.ply", c | {"filter_3D": size})
    scales = np.stack([np.exp(np.float32(c[f"scale_{i}"])).astype(float) for i in range(3)], 1)
    larger = np.sqrt(scales**2 + size[:, None] ** 2)
    alpha = 1 / (1 + np.exp(-c["opacity"])) * np.sqrt((scales**2).prod(1) / (larger**2).prod(1))
    back = load(path)
    np.testing.assert_allclose(back.params["scales"].exp(), larger, rtol=1e-5)
    np.testing.assert_allclose(back.params["opacities"].sigmoid()[:, 0], alpha, rtol=1e-5)
    assert back.rasterize_mode == "antialiased"
    assert call(inspect_main, path) == 0
    assert "filter_3D is applied" in " ".join(capsys.readouterr().out.split())
    nothing = read_ply(write(tmp_path / "b.ply", c | {"filter_3D": np.zeros(40)}))
    torch.testing.assert_close(nothing["opacities"], read_ply(write(tmp_path / "c.ply", c))["opacities"])


def test_spacetime_gaussians_move(tmp_path):
    c, r = columns(), np.random.default_rng(1)
    c |= {f"f_dc_{i}": r.uniform(0, 1, 40) for i in range(3)}
    c |= {"trbf_center": r.uniform(0, 1, 40), "trbf_scale": np.full(40, -1.0)}
    c |= {f"motion_{i}": r.normal(0, 0.3, 40) for i in range(9)} | {
        f"omega_{i}": r.normal(0, 0.1, 40) for i in range(4)
    }
    loaded = load(write(tmp_path / "a.ply", c))
    assert "it moves" in loaded.notes[0]
    color = np.stack([c[f"f_dc_{i}"] for i in range(3)], 1)
    np.testing.assert_allclose(sh0_to_rgb(loaded.params["features_dc"]), color, atol=1e-6)
    dt = 0.4 - c["trbf_center"]
    alpha = 1 / (1 + np.exp(-c["opacity"])) * np.exp(-((dt / np.exp(-1)) ** 2))
    place = np.stack(
        [c[a] + sum(c[f"motion_{3 * k + i}"] * dt ** (k + 1) for k in range(3)) for i, a in enumerate("xyz")], 1
    )
    there, now = alpha >= 1 / 255, at_time(loaded.params, 0.4)
    np.testing.assert_allclose(now["means"], place[there], atol=1e-5)
    np.testing.assert_allclose(now["opacities"].sigmoid()[:, 0], alpha[there], rtol=1e-4)
    turned = np.stack([c[f"rot_{i}"] + dt * c[f"omega_{i}"] for i in range(4)], 1)
    np.testing.assert_allclose(now["quats"], turned[there], atol=1e-5)


def test_motions_that_are_not_read_are_said(tmp_path):
    c = columns()
    half = load(write(tmp_path / "a.ply", c | {"motion_0": np.ones(40), "t": np.ones(40), "weight": np.ones(40)}))
    assert any("not read, everything stands still: motion_0, t" in note for note in half.notes)
    assert any("columns passed over: weight" in note for note in half.notes)
    with pytest.raises(LpmError, match="the full model, whose colours come from a network"):
        load(write(tmp_path / "b.ply", c | {f"f_t_{i}": np.ones(40) for i in range(3)}))


def test_two_sizes_are_flat(tmp_path):
    c = columns(rest=45)
    last = c.pop("scale_2")
    loaded = load(write(tmp_path / "a.ply", c))
    assert "2DGS" in loaded.notes[0]
    assert (loaded.params["scales"][:, 2] == FLAT).all()
    flat = read_ply(write(tmp_path / "b.ply", c | {"scale_2": np.full(40, FLAT)}))
    for name, value in flat.items():
        assert torch.equal(loaded.params[name], value), name
    assert torch.linalg.matrix_rank(covariances(loaded.params)).eq(2).all()
    assert (last > FLAT).all()


@pytest.mark.parametrize(("kind", "top"), [("u1", 255), ("u2", 65535), ("f4", 1)])
def test_colours_instead_of_harmonics(tmp_path, kind, top):
    c = columns()
    color = np.random.default_rng(2).uniform(0, 1, (40, 3))
    for i, name in enumerate(("red", "green", "blue")):
        del c[f"f_dc_{i}"]
        c[name] = color[:, i] * top
    loaded = load(write(tmp_path / "a.ply", c, {name: kind for name in ("red", "green", "blue")}))
    assert loaded.params["features_rest"].shape == (40, 0, 3)
    np.testing.assert_allclose(
        loaded.params["features_dc"] * SH_C0 + 0.5, color, atol=1.01 / (255 if top == 255 else 2**16)
    )


def test_colours_beside_harmonics_are_passed_over(tmp_path):
    c = columns()
    extra = {name: np.full(40, 7) for name in ("red", "green", "blue")}
    loaded = load(write(tmp_path / "a.ply", c | extra, {name: "u1" for name in extra}))
    np.testing.assert_allclose(loaded.params["features_dc"][:, 1], c["f_dc_1"], rtol=1e-6)
    assert loaded.notes == ["columns passed over: red, green, blue"]


def test_degree_four_is_read_up_to_three(tmp_path):
    c = columns(rest=72)
    loaded = load(write(tmp_path / "a.ply", c))
    assert loaded.params["features_rest"].shape == (40, 15, 3)
    for k in (0, 14):
        for channel in range(3):
            np.testing.assert_allclose(
                loaded.params["features_rest"][:, k, channel], c[f"f_rest_{24 * channel + k}"], rtol=1e-6
            )
    assert "degree 4" in loaded.notes[0]


@pytest.mark.parametrize(("rest", "gone", "said"), [
    (45, "f_rest_44", "44 f_rest columns; wanted 0, 9, 24, 45 or 72"),
    (9, "rot_1", "no column rot_1; wanted a Gaussian Splatting PLY; export it again"),
    (0, "scale_1", "no column scale_1"),
    (0, "opacity", "no column opacity; wanted a Gaussian Splatting PLY; is it a point cloud"),
])  # fmt: skip
def test_what_is_missing_is_named(tmp_path, rest, gone, said):
    c = columns(rest=rest)
    del c[gone]
    with pytest.raises(LpmError, match=said):
        load(write(tmp_path / "a.ply", c))


def test_harmonics_with_a_gap_in_their_numbers(tmp_path):
    c = columns(rest=9)
    c["f_rest_9"] = c.pop("f_rest_0")
    with pytest.raises(LpmError, match="no column f_rest_0"):
        load(write(tmp_path / "a.ply", c))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("rest", [9, 24])
def test_any_writing_of_the_same_file(tmp_path, order, text, rest):
    """Both byte orders and text, degree 1 and 2, a list of faces before the rows, colours of bytes and a filter."""
    c = columns(rest=rest) | {"filter_3D": np.full(40, 0.1), "red": np.full(40, 9)}
    want = read_ply(write(tmp_path / "a.ply", c))
    faces = np.array([(np.array([0, 1, 2], "i4"),)], [("vertex_indices", "O")])
    faces = PlyElement.describe(faces, "face", val_types={"vertex_indices": "i4"})
    got = read_ply(write(tmp_path / "b.ply", c, {"red": "u1", "x": "f8"}, order=order, text=text, more=[faces]))
    for name, value in want.items():
        torch.testing.assert_close(got[name], value, atol=1e-5, rtol=1e-5)


def test_a_list_among_the_columns(tmp_path):
    c = columns(5)
    rows = np.zeros(5, [(name, "f4") for name in c] + [("ids", "O")])
    for name, values in c.items():
        rows[name] = values
    for i in range(5):
        rows["ids"][i] = np.arange(i, dtype="i4")
    PlyData([PlyElement.describe(rows, "vertex", val_types={"ids": "i4"})], byte_order="<").write(
        str(tmp_path / "a.ply")
    )
    np.testing.assert_allclose(read_ply(tmp_path / "a.ply")["means"][:, 2], c["z"], rtol=1e-6)


# Comments


@pytest.mark.parametrize(("comments", "mode", "up"), [
    (["Exported from Brush", "Vertical axis: y", "SplatRenderMode: mip"], "antialiased", [0, -1, 0]),
    (["SplatRenderMode: default", "Vertical axis: z"], "classic", [0, 0, 1]),
    (["antialiased 1", "Vertical axis: -x"], "antialiased", [-1, 0, 0]),
    (["antialiased 0", "Vertical axis: 0 3 4"], "classic", [0, 0.6, 0.8]),
    (["SPLATRENDERMODE: MIP", "Vertical axis: 0 0 0"], "antialiased", None),
    (["SplatRenderMode: banana", "Vertical axis: sideways", "offset of two"], None, None),
])  # fmt: skip
def test_comments_of_others(tmp_path, capsys, comments, mode, up):
    loaded = load(write(tmp_path / "a.ply", columns(), comments=comments))
    assert loaded.rasterize_mode == mode
    assert loaded.up == pytest.approx(up) if up else loaded.up is None
    np.testing.assert_allclose(up_of(loaded), up or [0, -1, 0], atol=1e-6)
    assert call(export_main, "ply", tmp_path / "a.ply", tmp_path / "b.ply", "--no-sidecar") == 0
    assert ("trained antialiased" in capsys.readouterr().err) == (mode == "antialiased")
    if (
        mode == "antialiased"
    ):  # and what we write says it in Brush's words, behind the count, which some readers want third
        head = (tmp_path / "b.ply").read_bytes().split(b"end_header")[0].decode().splitlines()
        assert head[2] == "element vertex 40"
        assert "comment SplatRenderMode: mip" in head
        assert load(tmp_path / "b.ply").rasterize_mode == mode


def test_comments_of_a_compressed_ply(tmp_path):
    compress(tmp_path / "a.ply", visible(30, 0))
    data = (tmp_path / "a.ply").read_bytes()
    (tmp_path / "a.ply").write_bytes(data.replace(b"element chunk", b"comment SplatRenderMode: mip\nelement chunk", 1))
    assert load(tmp_path / "a.ply").rasterize_mode == "antialiased"


# SPZ


def extended(params, version, records, flags=2):
    header, parts = spz(params, version)
    header = bytearray(header)
    header[14] |= flags
    return gzip.compress(bytes(header) + b"".join(parts) + records)


def record(kind, *values):
    return struct.pack(f"<II{len(values)}I", kind, 4 * len(values), *values)


LETTERS = {"R": (1, 0, 0), "L": (-1, 0, 0), "D": (0, 1, 0), "U": (0, -1, 0), "F": (0, 0, 1), "B": (0, 0, -1)}


@pytest.mark.parametrize("number", range(1, 17))
def test_spz_says_where_its_axes_point(tmp_path, number):
    """x of the file goes where its first letter says, and so on; the picture of it goes along."""
    params = visible(30, 1)
    (tmp_path / "a.spz").write_bytes(extended(params, 3, record(0xADBE0003, number)))
    back = load(tmp_path / "a.spz").params
    name = "LDB RDB LUB RUB LDF RDF LUF RUF LBD RBD LBU RBU LFD RFD LFU RFU"[4 * number - 4 : 4 * number - 1]
    turn = torch.tensor([LETTERS[letter] for letter in name], dtype=torch.float64).T
    assert name == SYSTEMS[number]
    assert (back["means"].double() - params["means"].double() @ turn.T).abs().max() < 2e-4
    assert (covariances(back) - turn @ covariances(params) @ turn.T).abs().max() < 0.02
    # Linear harmonics are the vector (-x, -y, z) in the order y z x.
    signs = torch.tensor([-1.0, -1, 1])[:, None]
    vector, seen = (p["features_rest"][:, [2, 0, 1]].double() * signs for p in (params, back))
    assert (seen - torch.einsum("ij,njc->nic", turn, vector)).abs().max() < 0.01


def test_spz_without_the_flag_or_with_other_extensions(tmp_path):
    params = visible(30, 0)
    plain = gzip.compress(b"".join([spz(params, 3)[0], *spz(params, 3)[1]]))
    (tmp_path / "a.spz").write_bytes(plain)
    want = load(tmp_path / "a.spz").params["means"]
    for records, flags, notes in (
        (record(0xADBE0003, 6), 0, 0),  # the flag says that nothing follows
        (record(0xADBE0003, 0), 2, 0),  # unspecified
        (record(0xADBE0002, 1, 2, 3), 2, 0),  # a camera's limits
        (record(0x12340001, 5), 2, 1),
        (record(0xADBE0003, 6)[:-1], 2, 1),
        (b"", 2 | 64, 1),
    ):
        (tmp_path / "b.spz").write_bytes(extended(params, 3, records, flags))
        loaded = load(tmp_path / "b.spz")
        assert torch.equal(loaded.params["means"], want)
        assert len(loaded.notes) == notes, loaded.notes
    (tmp_path / "b.spz").write_bytes(extended(params, 3, record(0x12340001, 5) + record(0xADBE0003, 6)))
    turned = load(tmp_path / "b.spz").params["means"]
    torch.testing.assert_close(turned * torch.tensor([1.0, -1, -1]), want)
    (tmp_path / "b.spz").write_bytes(extended(params, 3, record(0xADBE0003, 17)))
    with pytest.raises(LpmError, match="coordinate system 17; wanted 0 to 16"):
        load(tmp_path / "b.spz")


def test_spz_of_version_one(tmp_path):
    """Half floats for positions; the rest as in version 2."""
    params = visible(30, 1)
    header, parts = spz(params, 2)
    header = header[:4] + struct.pack("<I", 1) + header[8:]
    parts[0] = params["means"].numpy().astype("<f2").tobytes()
    (tmp_path / "a.spz").write_bytes(gzip.compress(header + b"".join(parts)))
    back = load(tmp_path / "a.spz").params
    flip = torch.tensor([1.0, -1.0, -1.0])
    assert (back["means"] * flip - params["means"]).abs().max() < 2e-3
    assert (covariances(back) * flip * flip[:, None] - covariances(params)).abs().max() < 0.04


def test_spz_of_degree_four(tmp_path):
    params = visible(30, 3)
    header, parts = spz(params, 3)
    harmonics = np.frombuffer(parts[-1], np.uint8).reshape(30, 45)
    parts[-1] = np.concatenate([harmonics, np.full((30, 27), 200, np.uint8)], 1).tobytes()
    (tmp_path / "a.spz").write_bytes(gzip.compress(header[:12] + b"\4" + header[13:] + b"".join(parts)))
    (tmp_path / "b.spz").write_bytes(gzip.compress(b"".join([header, *spz(params, 3)[1]])))
    a, b = load(tmp_path / "a.spz"), load(tmp_path / "b.spz")
    assert torch.equal(a.params["features_rest"], b.params["features_rest"])
    assert "degree 4" in a.notes[0]


# Others


def test_ksplat_and_sog_go_through_splat_transform(tmp_path, monkeypatch):
    """A .ksplat has no magic, and its rows can look like those of a .splat."""
    write_splat(tmp_path / "a.ksplat", visible(20, 0))
    assert kind_of(tmp_path / "a.ksplat") == "ksplat"
    said = ["SplatRenderMode: mip"]
    convert = lambda source, out: write_ply(out, visible(7, 2), comments=said)  # noqa: E731
    monkeypatch.setattr(reading.splat_transform, "convert", convert)
    loaded = load(tmp_path / "a.ksplat")
    assert len(loaded.params["means"]) == 7
    assert (loaded.kind, loaded.path, loaded.rasterize_mode) == ("ksplat", tmp_path / "a.ksplat", "antialiased")


def test_a_sidecar_of_another_file_is_passed_over(tmp_path, capsys):
    write_ply(tmp_path / "a.ply", visible(20, 0), comments=["offset 1000 2000 3000.5"])
    assert call(export_main, "ply", tmp_path / "a.ply", tmp_path / "b.ply") == 0
    assert load(tmp_path / "b.ply").offset.tolist() == [1000, 2000, 3000.5]
    (tmp_path / "b.ply").write_bytes(write(tmp_path / "c.ply", columns(30)).read_bytes())  # the sidecar stays
    loaded = load(tmp_path / "b.ply")
    assert loaded.offset.tolist() == [0, 0, 0]
    assert "b.ply.json is of another file (20 Gaussians, and the file has 30)" in loaded.notes[0]
