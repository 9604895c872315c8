"""Broken and hostile files: one clear line, bounded memory, no traceback. Fuzzed from valid files of each format."""

import gzip
import struct
import subprocess
import sys

import pytest
import torch
from export.some import some, visible
from export.test_formats import compress, spz
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plyfile import PlyData

from lpm.checks import LpmError
from lpm.formats.gltf import write_gltf
from lpm.formats.ply import write_ply
from lpm.formats.read import load
from lpm.formats.splat import write_splat
from lpm.formats.splatv import write_splatv
from lpm.formats.usd import write_usd

KINDS = ("ply", "ascii.ply", "compressed.ply", "splat", "splatv", "2.spz", "3.spz", "glb", "spz.glb")


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    """Bytes of a small valid file of each kind."""
    folder = tmp_path_factory.mktemp("valid")
    params = visible(20, degree=1)
    write_ply(folder / "a.ply", params)
    ascii_ply = PlyData.read(str(folder / "a.ply"))
    ascii_ply.text = True
    ascii_ply.write(str(folder / "a.ascii.ply"))
    compress(folder / "a.compressed.ply", params, sh=True)
    write_splat(folder / "a.splat", params)
    write_splatv(folder / "a.splatv", params)
    for version in (2, 3):
        header, parts = spz(params, version)
        (folder / f"a.{version}.spz").write_bytes(gzip.compress(header + b"".join(parts), mtime=0))
    write_gltf(folder / "a.glb", params)
    write_gltf(folder / "a.spz.glb", params, compression="spz")
    return {kind: (folder / f"a.{kind}").read_bytes() for kind in KINDS}


def refused_or_read(path):
    """Either parameters of the right shapes come out, or one line; anything else is an error of ours."""
    try:
        params = load(path).params
        text = None
    except LpmError as error:
        text = str(error)
    if text is not None:
        assert "\n" not in text
        assert "wanted" in text
        assert path.name in text or "pip install" in text  # what would read it is not installed
        return
    n = len(params["means"])
    assert n > 0
    assert params["features_rest"].shape[0] == params["quats"].shape[0] == n
    assert all(value.dtype == torch.float32 for value in params.values())


edits = st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), max_size=4)


BREAKS = {"cut": st.floats(0, 1), "edits": edits, "in_header": st.booleans()}


def broken(data, path, cut, edits, in_header):
    """`data` at `path`, cut anywhere, overwritten anywhere (half of the time in the header only)."""
    data = bytearray(data)
    for where, what in edits:
        start = int(where * (min(len(data), 600) if in_header else len(data)))
        data[start : start + len(what)] = what
    path.write_bytes(data[: max(1, round(cut * len(data)))] if cut < 0.5 else data)
    return path


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(**BREAKS)
def test_broken_bytes(tmp_path, valid, kind, cut, edits, in_header):
    refused_or_read(broken(valid[kind], tmp_path / f"x.{kind}", cut, edits, in_header))


@pytest.mark.parametrize("kind", ["usd", "usdz"])
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(**BREAKS)
def test_broken_bytes_of_usd(tmp_path, kind, cut, edits, in_header):
    """Fewer: each is read by a process of its own."""
    pytest.importorskip("pxr", reason="usd-core is not installed")
    good = tmp_path / f"good.{kind}"
    if not good.exists():
        write_usd(good, visible(20, 1))
    refused_or_read(broken(good.read_bytes(), tmp_path / f"x.{kind}", cut, edits, in_header))


@pytest.mark.parametrize("name", [b"min_g", b"max_scale_y", b"min_x", b"max_b"])
def test_a_compressed_ply_without_one_of_its_bounds(tmp_path, valid, name):
    path = tmp_path / "x.compressed.ply"
    path.write_bytes(valid["compressed.ply"].replace(name, b"q" * len(name), 1))
    with pytest.raises(LpmError, match=name.decode()):
        load(path)


@pytest.mark.parametrize("version", [2, 3])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=edits)
def test_broken_spz_inside_a_whole_gzip(tmp_path, valid, version, edits):
    data = bytearray(gzip.decompress(valid[f"{version}.spz"]))
    for where, what in edits:
        start = int(where * 20)
        data[start : start + len(what)] = what
    (tmp_path / "x.spz").write_bytes(gzip.compress(bytes(data), 1))
    refused_or_read(tmp_path / "x.spz")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(st.sampled_from(
    ["ply", "format", "ascii", "binary_little_endian", "1.0", "element", "vertex", "chunk", "sh", "property", "list",
     "float", "uint", "uchar", "x", "f_rest_0", "packed_position", "0", "-1", "3", "4294967296", "end_header", "\n"]
), max_size=40))  # fmt: skip
def test_any_header(tmp_path, words):
    (tmp_path / "x.ply").write_bytes(("ply\n" + " ".join(words) + "\nend_header\n").encode() + bytes(64))
    refused_or_read(tmp_path / "x.ply")


def with_count(data, count):
    return data.replace(b"element vertex 20\n", b"element vertex %d\n" % count)


HUGE = {
    "ply": lambda d: with_count(d, 2**31),
    "ascii.ply": lambda d: with_count(d, 2**31),
    "compressed.ply": lambda d: with_count(d, 2**31),
    "splatv": lambda d: d.replace(b'"texheight": 1', b'"texheight": 9'[:14]).replace(b'"count": 20', b'"count": 9e'),
    "2.spz": lambda d: gzip.compress(d[:8] + struct.pack("<I", 2**31) + d[12:]),
    "3.spz": lambda d: gzip.compress(d[:8] + struct.pack("<I", 2**32 - 1) + d[12:]),
}


@pytest.mark.parametrize("kind", HUGE)
def test_two_billion_rows_in_a_small_file(tmp_path, valid, kind):
    """Refused at once and without memory for them, in a process that could not have it."""
    raw = gzip.decompress(valid[kind]) if kind.endswith("spz") else valid[kind]
    path = tmp_path / f"x.{kind}"
    path.write_bytes(HUGE[kind](raw))
    code = """
import resource, sys, time
from pathlib import Path
from lpm.checks import LpmError
from lpm.formats.read import load
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 200_000_000,) * 2)
start = time.perf_counter()
try:
    load(Path(sys.argv[1]))
except LpmError as error:
    print(time.perf_counter() - start, error)
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True)
    assert "wanted" in done.stdout
    assert float(done.stdout.split()[0]) < 0.5


def test_a_bomb_is_not_unpacked(tmp_path):
    """A gzip stream of zeros, whose header asks for all of them."""
    header = struct.pack("<IIIBBBB", 0x5053474E, 2, 50_000_000, 0, 12, 0, 0)
    (tmp_path / "x.spz").write_bytes(gzip.compress(header + bytes(1_000_000)))
    with pytest.raises(LpmError, match="packed into"):
        load(tmp_path / "x.spz")


@pytest.mark.parametrize("kind", ["ply", "splatv"])
def test_values_that_are_not_finite_come_in_as_they_are(tmp_path, kind):
    params = visible(5, degree=0)
    {"ply": write_ply, "splatv": write_splatv}[kind](tmp_path / "x", params)
    data = bytearray((tmp_path / "x").read_bytes())
    first = params["means"][0].numpy().tobytes()
    start = data.index(first)
    data[start : start + 4] = struct.pack("<f", float("nan"))
    (tmp_path / "x").write_bytes(data)
    back = load(tmp_path / "x").params
    assert torch.isnan(back["means"][0, 0])
    assert torch.isfinite(back["means"][1:]).all()


@pytest.mark.parametrize("missing", ["x", "opacity", "scale_1", "rot_3", "f_dc_2"])
def test_a_missing_column_is_named(tmp_path, missing):
    write_ply(tmp_path / "x.ply", some(3, degree=0))
    data = (tmp_path / "x.ply").read_bytes()
    (tmp_path / "x.ply").write_bytes(data.replace(f" {missing}\n".encode(), b" other\n"))
    with pytest.raises(LpmError, match=f"no column {missing}; wanted"):
        load(tmp_path / "x.ply")


def test_zero_rows(tmp_path, valid):
    for kind in ("ply", "ascii.ply", "compressed.ply"):
        data = with_count(valid[kind], 0)
        (tmp_path / kind).write_bytes(data)
        with pytest.raises(LpmError, match=r"no Gaussians in it \(0 rows\)"):
            load(tmp_path / kind)
    (tmp_path / "empty.splat").write_bytes(b"")
    with pytest.raises(LpmError, match="an empty file"):
        load(tmp_path / "empty.splat")


def test_other_files_are_told_what_is_wanted(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"hello, this is a letter")
    with pytest.raises(LpmError, match=r"x\.txt: a file that begins with b'hello, t'; wanted a run's folder"):
        load(tmp_path / "x.txt")
    with pytest.raises(LpmError, match="no such file"):
        load(tmp_path / "nothing.ply")
    with pytest.raises(LpmError, match="no checkpoint in it"):
        load(tmp_path)
    (tmp_path / "x.zip").write_bytes(b"PK\x03\x04 but no archive")
    with pytest.raises(LpmError, match="cannot be read"):
        load(tmp_path / "x.zip")
