"""JSON of others beside or instead of ours: sidecars of exports, glTF, camera paths of the viewer."""

import copy
import json

import pytest
from export.some import visible
from export.test_hostile import refused_or_read
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lpm.checks import LpmError
from lpm.formats.gltf import write_gltf
from lpm.formats.ply import write_ply
from lpm.formats.read import load
from lpm.formats.sidecar import Sidecar, read_sidecar, write_sidecar
from lpm.gaussians.similarity import Similarity
from lpm.viewer.page import camera_path
from lpm.viewer.page.camera import Camera

MATRIX = [[1.0, 0, 0, 0.5], [0, 0, -1.0, 0.25], [0, 1.0, 0, -1.0]]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([1e308, 10**400, 0, -1]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
OFTEN = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def places(value, path=()):
    """Every place in a JSON value, by keys and indices."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from places(item, (*path, key))


def replaced(value, path, new):
    """`value` with something else at `path`."""
    if not path:
        return new
    value = copy.deepcopy(value)
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = new
    return value


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """A PLY with its sidecar: the files, and the sidecar's values."""
    out = tmp_path_factory.mktemp("sidecar") / "a.ply"
    write_ply(out, visible(3))
    write_sidecar(out, Sidecar(3, "world", MATRIX, 0.5, "classic", [0, 1, 0], "lpm-export", "a.ply"))
    return out, json.loads(out.with_name("a.ply.json").read_text())


@OFTEN
@given(data=st.data())
def test_a_sidecar_of_others_is_used_or_passed_over(export, data):
    out, values = export
    place = data.draw(st.sampled_from(list(places(values))))
    out.with_name("a.ply.json").write_text(json.dumps(replaced(values, place, data.draw(JSON))))
    loaded = load(out)  # whatever lies beside it, the PLY is fine
    assert len(loaded.params["means"]) == 3
    assert loaded.frame in ("train", "world", "unknown")
    assert loaded.rasterize_mode in ("classic", "antialiased", None)
    if loaded.world_to_train is not None:
        assert isinstance(loaded.world_to_train, Similarity)
        loaded.world_to_train.inverse()  # what an export would ask of it


@pytest.fixture(scope="module", params=["none", "spz"])
def gltf(tmp_path_factory, request):
    """A .gltf and its JSON."""
    out = tmp_path_factory.mktemp("gltf") / "a.gltf"
    write_gltf(out, visible(3, 1), compression=request.param)
    return out, json.loads(out.read_text())


@OFTEN
@given(data=st.data())
def test_a_gltf_of_others_is_read_or_refused_in_one_line(gltf, data):
    out, values = gltf
    place = data.draw(st.sampled_from(list(places(values))))
    out.write_text(json.dumps(replaced(values, place, data.draw(JSON))))
    refused_or_read(out)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[" * 100_000, b"{}", b"null", b'{"version": 1}'])
def test_a_sidecar_that_is_none(export, content):
    out, _ = export
    out.with_name("a.ply.json").write_bytes(content)
    found = read_sidecar(out)
    assert found is None or found.dataparser_transform is None
    assert len(load(out).params["means"]) == 3


EYES = [Camera((0.0, -3.0, 1.0), (1.0, 0.0, 0.0, 0.0)), Camera((3.0, 0.0, 1.0), (0.6, 0.0, 0.8, 0.0))]
PATH = json.loads(camera_path.to_json(EYES, 4.0, (320, 240)))


@OFTEN
@given(place=st.sampled_from(list(places(PATH))), new=JSON)
def test_a_camera_path_of_others_is_read_or_refused_in_a_line(place, new):
    content = json.dumps(replaced(PATH, place, new)).encode()
    said = None
    try:
        eyes, seconds = camera_path.from_json(content, "theirs.json")
    except LpmError as error:
        said = str(error)
    if said is not None:
        assert said.startswith("theirs.json")
        assert "\n" not in said
        return
    assert len(eyes) >= 1
    assert 0 < seconds < float("inf")
    camera_path.frames(eyes, min(seconds, 2.0))


@OFTEN
@given(content=st.binary(max_size=60))
def test_a_camera_path_of_any_bytes(content):
    with pytest.raises(LpmError, match=r"theirs\.json: "):
        camera_path.from_json(content, "theirs.json")
