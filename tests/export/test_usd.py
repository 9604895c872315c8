"""USD: our files are valid by OpenUSD's own checks, say what the schema asks, and come back; others' come in right."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from export.some import call, covariances, visible

from lpm.checks import LpmError
from lpm.formats import usd
from lpm.formats.cli import export_main
from lpm.formats.placement import Placement
from lpm.formats.ply import write_ply
from lpm.formats.read import load
from lpm.formats.usd import read_usd, write_usd
from lpm.gaussians.similarity import Similarity, move


@pytest.fixture
def pxr():
    return pytest.importorskip("pxr", reason="usd-core is not installed")


KINDS = ("usd", "usda", "usdc", "usdz")
UPS = (None, [0.0, 0, 1], [0, 1.0, 0], [0.6, 0, 0.8])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("up", UPS)
def test_round_trip(pxr, tmp_path, kind, up):
    params = visible(50, 2)
    params["quats"][3] = torch.nan
    keep = torch.arange(50) != 3
    offset = np.array([500_000.0, 5e6, 300])
    path = tmp_path / f"a.{kind}"
    assert write_usd(path, params, Placement(up, "antialiased", offset)) == 1
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    loaded = load(path)
    assert loaded.kind == ("usdz" if kind == "usdz" else "usd")
    assert loaded.up == (up or [0, -1, 0])
    assert loaded.rasterize_mode == "antialiased"
    assert loaded.offset.tolist() == offset.tolist()
    assert not loaded.notes
    for name in ("means", "features_dc", "features_rest"):
        assert torch.equal(loaded.params[name], params[name][keep])
    want = {name: value[keep] for name, value in params.items()}
    assert (loaded.params["scales"] - want["scales"]).abs().max() < 1e-6
    assert (loaded.params["opacities"] - want["opacities"]).abs().max() < 1e-5
    assert (covariances(loaded.params) - covariances(want)).abs().max() < 1e-6


@pytest.mark.parametrize("kind", ["usda", "usdz"])
def test_the_file_is_as_the_schema_asks(pxr, tmp_path, kind):
    from pxr import Usd, UsdGeom, UsdValidation, UsdVol

    params = visible(20, 3)
    write_usd(tmp_path / f"a.{kind}", params, Placement([0.0, -1, 0]))
    stage = Usd.Stage.Open(str(tmp_path / f"a.{kind}"))
    validators = UsdValidation.ValidationRegistry().GetOrLoadAllValidators()
    assert len(validators) > 10
    assert [each.GetMessage() for each in UsdValidation.ValidationContext(validators).Validate(stage)] == []
    assert UsdGeom.GetStageUpAxis(stage) == "Y"
    assert UsdGeom.GetStageMetersPerUnit(stage) == 1
    prim = UsdVol.ParticleField3DGaussianSplat(stage.GetDefaultPrim().GetChild("Gaussians"))
    up = UsdGeom.Xformable(prim).ComputeLocalToWorldTransform(0).TransformDir((0, -1, 0))
    np.testing.assert_allclose(up, (0, 1, 0), atol=1e-12)
    first = prim.GetOrientationsAttr().Get()[0]
    quat = torch.nn.functional.normalize(params["quats"][0], dim=0)
    np.testing.assert_allclose([first.GetReal(), *first.GetImaginary()], quat, atol=1e-6)
    np.testing.assert_allclose(prim.GetScalesAttr().Get()[0], params["scales"][0].exp(), rtol=1e-6)
    assert prim.GetOpacitiesAttr().Get()[0] == pytest.approx(float(params["opacities"][0].sigmoid()), abs=1e-6)
    assert prim.GetRadianceSphericalHarmonicsDegreeAttr().Get() == 3
    harmonics = np.array(prim.GetRadianceSphericalHarmonicsCoefficientsAttr().Get()).reshape(20, 16, 3)
    np.testing.assert_array_equal(harmonics[:, 0], params["features_dc"])
    np.testing.assert_array_equal(harmonics[:, 1:], params["features_rest"])
    low, high = np.array(prim.GetExtentAttr().Get())
    assert (low < params["means"].amin(0).numpy()).all()
    assert (high > params["means"].amax(0).numpy()).all()


def others(path, params, up="Y", scale=1.0, half=False, unit=1.0, degree=None):
    """A stage as another program could write it."""
    from pxr import Gf, Usd, UsdGeom, UsdVol, Vt

    stage = Usd.Stage.CreateNew(str(path))
    UsdGeom.SetStageUpAxis(stage, up)
    UsdGeom.SetStageMetersPerUnit(stage, unit)
    UsdGeom.Xform.Define(stage, "/a").AddTranslateOp().Set(Gf.Vec3d(1, 2, 3))
    splat = UsdVol.ParticleField3DGaussianSplat.Define(stage, "/a/b")
    splat.AddScaleOp().Set(Gf.Vec3f(scale, scale, 2.0))
    quats = torch.nn.functional.normalize(params["quats"], dim=1).tolist()
    harmonics = torch.cat([params["features_dc"][:, None], params["features_rest"]], 1)
    if half:
        splat.CreatePositionshAttr(Vt.Vec3hArray([Gf.Vec3h(*row) for row in params["means"].tolist()]))
        splat.CreateOrientationshAttr(Vt.QuathArray([Gf.Quath(*row) for row in quats]))
    else:
        splat.CreatePositionsAttr([tuple(row) for row in params["means"].tolist()])
        splat.CreateOrientationsAttr(Vt.QuatfArray([Gf.Quatf(*row) for row in quats]))
    splat.CreateScalesAttr([tuple(row) for row in params["scales"].exp().tolist()])
    splat.CreateOpacitiesAttr(params["opacities"][:, 0].sigmoid().tolist())
    splat.CreateRadianceSphericalHarmonicsDegreeAttr(round(harmonics.shape[1] ** 0.5) - 1 if degree is None else degree)
    splat.CreateRadianceSphericalHarmonicsCoefficientsAttr([tuple(row) for row in harmonics.reshape(-1, 3).tolist()])
    stage.Save()
    return stage, splat


@pytest.mark.parametrize(
    ("up", "axes"), [("Y", [[1, 0, 0], [0, -1, 0], [0, 0, -1]]), ("Z", [[1, 0, 0], [0, 0, -1], [0, 1, 0]])]
)
@pytest.mark.parametrize("half", [False, True])
def test_a_file_of_others_comes_in_turned_and_placed(pxr, tmp_path, up, axes, half):
    params = visible(60, 2)
    others(tmp_path / "a.usda", params, up, 2.0, half, unit=0.01)
    back, placement, notes = read_usd(tmp_path / "a.usda")
    assert placement.up is None
    assert notes == ["one of its units is 0.01 m: read in its own units"]
    by = Similarity(np.eye(3), np.array([1.0, 2, 3]), 2.0)
    want = move(params, by.then(Similarity(np.array(axes, np.float64), np.zeros(3), 1.0)))
    tolerance = 5e-3 if half else 1e-5
    assert (back["means"] - want["means"]).abs().max() < tolerance
    assert (back["scales"] - want["scales"]).abs().max() < 1e-5
    assert (back["features_rest"] - want["features_rest"]).abs().max() < 1e-5
    assert (covariances(back) - covariances(want)).abs().max() < tolerance


def test_arrays_of_another_length_and_defaults(pxr, tmp_path):
    params = visible(10, 1)
    stage, splat = others(tmp_path / "a.usda", params, scale=2.0, degree=3)  # 4 coefficients for each, and 16 said
    splat.CreateScalesAttr([(1.0, 2.0, 3.0)] * 11)
    splat.CreateOpacitiesAttr([0.5] * 9)
    stage.Save()
    back, _, notes = read_usd(tmp_path / "a.usda")
    assert len(back["means"]) == 10
    assert (back["opacities"].sigmoid() > 0.999).all()  # the schema's default
    assert back["scales"].exp()[0].tolist() == pytest.approx([2, 4, 6])
    assert not back["features_dc"].any()
    assert any("9 of opacities for 10 Gaussians are too few" in note for note in notes)
    assert any("too few" in note and "radiance" in note for note in notes)


def test_refused_in_one_line(pxr, tmp_path, capfd):
    params = visible(10, 0)
    others(tmp_path / "stretched.usda", params, scale=1.0)
    others(tmp_path / "degree.usda", params, scale=2.0, degree=-1)
    (tmp_path / "empty.usda").write_text("#usda 1.0\n")
    (tmp_path / "broken.usda").write_text("#usda 1.0\ndef {")
    (tmp_path / "cut.usd").write_bytes(b"PXR-USDC" + bytes(30))
    (tmp_path / "none.usd").write_bytes(b"")
    for name, said in (
        ("stretched.usda", "/a/b stretches"), ("degree.usda", "SH degree -1"),
        ("empty.usda", "no ParticleField3DGaussianSplat in it"), ("broken.usda", "cannot be read by usd-core"),
        ("cut.usd", "cannot be read by usd-core"), ("none.usd", "an empty file"),
    ):  # fmt: skip
        with pytest.raises(LpmError, match=said) as caught:
            load(tmp_path / name)
        assert "; wanted " in str(caught.value)
        assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""  # nor does usd-core print what it thinks


def test_without_usd_core_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(usd, "need", lambda module, extra: usd.fail(module, "is not installed", f"it; [{extra}]"))
    write_ply(tmp_path / "a.ply", visible(5, 0))
    assert call(export_main, "usdz", tmp_path / "a.ply", tmp_path / "a.usdz") == 2
    error = capsys.readouterr().err
    assert "[usd]" in error
    assert error.count("\n") == 1
    assert [each.name for each in tmp_path.iterdir()] == ["a.ply"]


@pytest.mark.parametrize("kind", ["usd", "usda", "usdz"])
@pytest.mark.parametrize("how", ["full", "killed"])
def test_a_failed_write_leaves_what_was_there(pxr, tmp_path, kind, how):
    code = f"""
import os, resource, signal, sys
from pathlib import Path
from lpm.formats import usd
from export.some import visible
if {how!r} == "full":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
else:
    old = usd._define
    usd._define = lambda *a: (old(*a), os.kill(os.getpid(), signal.SIGKILL))
try:
    usd.write_usd(Path(sys.argv[1]), visible(5000, 1))
except ValueError as error:
    print(error)
"""
    (tmp_path / f"a.{kind}").write_bytes(b"what was there before")
    tests = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / f"a.{kind}")], env={"PYTHONPATH": f"{tests}:{':'.join(sys.path)}"},
        capture_output=True, text=True,
    )  # fmt: skip
    if how == "full":
        assert "usd-core cannot write it" in done.stdout
        assert done.stdout.count("\n") == 1
    else:
        assert done.returncode == -9
    visible_files = [each.name for each in tmp_path.iterdir() if not each.name.startswith(".")]
    assert visible_files == [f"a.{kind}"]
    assert (tmp_path / f"a.{kind}").read_bytes() == b"what was there before"


def test_a_converter_nobody_here_wrote(pxr, tmp_path):
    """NVIDIA's usd-convert-gsplat makes a USD of our PLY; we read the same from both. It pins a numpy
    that nerfstudio's excludes: `pip install --no-deps usd-convert-gsplat` to run this."""
    pytest.importorskip("usd_convert_gsplat", reason="usd-convert-gsplat is not installed")
    params = visible(200, 3)
    write_ply(tmp_path / "a.ply", params)
    command = [
        sys.executable,
        "-m",
        "usd_convert_gsplat",
        "-i",
        str(tmp_path / "a.ply"),
        "-o",
        str(tmp_path / "a.usda"),
    ]
    subprocess.run(command, check=True, capture_output=True, env={"PYTHONPATH": ":".join(sys.path)})
    back = load(tmp_path / "a.usda").params
    want = move(params, Similarity(np.diag([1.0, -1, -1]), np.zeros(3), 1.0))
    for name in ("means", "scales", "features_dc", "features_rest"):
        assert (back[name] - want[name]).abs().max() < 1e-5, name
    assert (back["opacities"] - want["opacities"]).abs().max() < 1e-4
    assert (covariances(back) - covariances(want)).abs().max() < 1e-5
