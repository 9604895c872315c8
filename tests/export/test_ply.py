"""The PLY is INRIA's layout to the byte, comes back as it went, and loses no more than its broken rows."""

import time

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

from lpm.checks import LpmError
from lpm.export.ply import property_names, read_ply, write_ply


def some(n=50, degree=3):
    rest = (degree + 1) ** 2 - 1
    shapes = {"means": (3,), "scales": (3,), "quats": (4,), "features_dc": (3,), "features_rest": (rest, 3)}
    shapes["opacities"] = (1,)
    return {name: torch.randn(n, *shape) for name, shape in shapes.items()}


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


@pytest.mark.parametrize("name", ["means", "scales", "quats", "features_dc", "features_rest", "opacities"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_broken_row_is_dropped_alone(tmp_path, name, value):
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
    params = some(n=1_000_000)
    start = time.perf_counter()
    write_ply(tmp_path / "a.ply", params)
    middle = time.perf_counter()
    assert len(read_ply(tmp_path / "a.ply")["means"]) == 1_000_000
    end = time.perf_counter()
    print(f"write {middle - start:.2f} s, read {end - middle:.2f} s")
    assert middle - start <= 3
    assert end - middle <= 3
