"""The PLY is INRIA's layout to the byte, comes back as it went, and loses no more than its broken rows."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from export.some import some
from plyfile import PlyData, PlyElement

from lpm.checks import LpmError
from lpm.formats.ply import pad_sh, property_names, read_ply, write_ply


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_round_trip(tmp_path, degree):
    params = some(degree=degree)
    assert write_ply(tmp_path / "a.ply", params) == 0
    back = read_ply(tmp_path / "a.ply")
    for name, value in params.items():
        assert torch.equal(back[name], value), name


def test_layout_is_inrias(tmp_path):
    params = some(n=2)
    params["features_rest"][1, 4, 2] = 7.0  # coefficient 4, blue: channel-major index 2 * 15 + 4
    write_ply(tmp_path / "a.ply", params)
    ply = PlyData.read(str(tmp_path / "a.ply"))
    vertex = ply["vertex"]
    assert [p.name for p in vertex.properties] == property_names(15)
    assert not ply.text
    assert ply.byte_order == "<"
    assert vertex["f_rest_34"][1] == 7.0
    assert (vertex["nx"] == 0).all()
    header = (tmp_path / "a.ply").read_bytes().index(b"end_header\n") + len(b"end_header\n")
    assert (tmp_path / "a.ply").stat().st_size == header + 2 * 248  # what Unity's importers count on


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_padded_to_what_unity_wants(tmp_path, degree):
    params = some(degree=degree)
    write_ply(tmp_path / "a.ply", pad_sh(params, 3))
    data = (tmp_path / "a.ply").read_bytes()
    assert len(data) - data.index(b"end_header\n") - len(b"end_header\n") == 50 * 248
    back, rest = read_ply(tmp_path / "a.ply"), params["features_rest"].shape[1]
    assert torch.equal(back["features_rest"][:, :rest], params["features_rest"])
    assert (back["features_rest"][:, rest:] == 0).all()


def test_padding_takes_nothing_away():
    with pytest.raises(LpmError, match=r"--pad-sh: 1, and the model has 15"):
        pad_sh(some(), 1)


def test_extra_columns(tmp_path):
    params = some(n=7, degree=0)
    params["means"][3] = float("nan")
    write_ply(tmp_path / "a.ply", params, extra={"error": np.arange(7.0)})
    vertex = PlyData.read(str(tmp_path / "a.ply"))["vertex"]
    assert vertex["error"].tolist() == [0, 1, 2, 4, 5, 6]
    assert len(read_ply(tmp_path / "a.ply")["means"]) == 6


@pytest.mark.parametrize("name", ["means", "scales", "quats", "features_dc", "features_rest", "opacities"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_broken_row_is_dropped_alone(tmp_path, name, value):
    """But for an infinite opacity and a size of zero, which mean something (test_other_programs.py)."""
    if (name == "opacities" and np.isinf(value)) or (name == "scales" and value == -np.inf):
        return
    params = some()
    params[name][17].view(-1)[0] = value
    assert write_ply(tmp_path / "a.ply", params) == 1
    keep = torch.arange(50) != 17
    assert torch.equal(read_ply(tmp_path / "a.ply")["means"], params["means"][keep])


def test_nothing_finite_writes_nothing(tmp_path):
    params = some()
    params["means"][:] = float("nan")
    with pytest.raises(LpmError, match="none of them finite"):
        write_ply(tmp_path / "a.ply", params)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", [True, False])
def test_reads_what_others_write(tmp_path, text):
    """Columns in another order, doubles, big-endian or ascii, and columns nobody asked for."""
    params = some(n=5, degree=1)
    names = property_names(3)[::-1]
    columns = np.zeros(5, [(name, ">f8") for name in ("extra", *names)])
    write_ply(tmp_path / "ours.ply", params)
    ours = PlyData.read(str(tmp_path / "ours.ply"))["vertex"]
    for name in names:
        columns[name] = ours[name]
    PlyData([PlyElement.describe(columns, "vertex")], text=text, byte_order=">").write(str(tmp_path / "theirs.ply"))
    back = read_ply(tmp_path / "theirs.ply")
    for name, value in params.items():
        torch.testing.assert_close(back[name], value)


def test_errors_name_the_file(tmp_path):
    with pytest.raises(LpmError, match=r"no\.ply: no such file"):
        read_ply(tmp_path / "no.ply")
    (tmp_path / "junk.ply").write_bytes(b"not a ply at all")
    with pytest.raises(LpmError, match=r"junk\.ply: not a readable PLY"):
        read_ply(tmp_path / "junk.ply")
    cloud = np.zeros(3, [("x", "f4"), ("y", "f4"), ("z", "f4")])
    PlyData([PlyElement.describe(cloud, "vertex")]).write(str(tmp_path / "cloud.ply"))
    with pytest.raises(LpmError, match="no column f_dc_0"):
        read_ply(tmp_path / "cloud.ply")


@pytest.mark.slow
def test_a_million_points_in_three_seconds(tmp_path):
    """Write and read within 3 s each, and never more than three times the data in memory (in a process of its own)."""
    code = """
import resource, sys, time
from pathlib import Path
import torch
from lpm.formats.ply import read_ply, write_ply
from export.some import some
path = Path(sys.argv[1])
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
write_ply(path, some(1000)), read_ply(path)  # imports and caches
before = peak()
params = some(1_000_000)
data = sum(v.numel() * 4 for v in params.values())
start = time.perf_counter()
write_ply(path, params)
middle = time.perf_counter()
write_peak = (peak() - before) / data
del params
n = len(read_ply(path)["means"])
end = time.perf_counter()
print(n, middle - start, end - middle, write_peak, (peak() - before) / data)
"""
    tests = Path(__file__).parents[1]
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.ply")], check=True, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(tests)},
    )  # fmt: skip
    n, write, read, write_peak, peak = map(float, run.stdout.split())
    print(f"write {write:.2f} s, read {read:.2f} s, memory {write_peak:.2f} x and {peak:.2f} x of the data")
    assert n == 1_000_000
    assert write <= 3
    assert read <= 3
    assert peak <= 3
