"""The canaries show what they promise in our own renderer, and after a round trip through each format."""

import math

import pytest
import torch
from export import canaries
from export.some import picture

from lpm.formats.gltf import write_gltf
from lpm.formats.ply import write_ply
from lpm.formats.read import load
from lpm.formats.splat import write_splat
from lpm.formats.splatv import write_splatv
from lpm.formats.spz_write import write_spz
from lpm.formats.usd import write_usd

WRITERS = {
    "ply": write_ply, "splat": write_splat, "splatv": write_splatv, "glb": write_gltf, "gltf": write_gltf,
    "usd": write_usd, "usdz": write_usd, "spz": write_spz,
}  # fmt: skip


@pytest.fixture(params=WRITERS)
def through(request, tmp_path):
    """What a file of this format makes of a scene."""
    if request.param.startswith("usd"):
        pytest.importorskip("pxr", reason="usd-core is not installed")

    def convert(params):
        path = tmp_path / f"a.{request.param}"
        WRITERS[request.param](path, params)
        return load(path).params

    convert.harmonics = not request.param.startswith("splat")
    return convert


def test_sh_order(through):
    if not through.harmonics:
        pytest.skip("the format holds no view-dependent colour")
    params = through(canaries.sh_canary())
    for eye, red in (((3.0, 0, 0), 252), ((-3.0, 0, 0), 3)):
        seen = picture(params, eye)[48, 48] * 255
        assert abs(seen[0] - red) <= 3
        assert (seen[1:] - 127).abs().max() <= 3


def test_coefficient_major_order_shows():
    """What the canary is for: a file with the wrong order is told from a right one."""
    params = canaries.sh_canary()
    params["features_rest"] = params["features_rest"].transpose(1, 2).reshape(40, 15, 3)
    assert abs(picture(params, (3.0, 0, 0))[48, 48] * 255 - 252)[0] > 20


def test_quaternion_order(through):
    params = through(canaries.quaternion_canary())
    seen = picture(params, (0.0, 0, 3.0), up=(0.0, 1.0, 0.0))[..., 0]
    assert seen[48 - 15, 48] > 0.9  # along y
    assert seen[48, 48 - 15] < 0.02
    params["quats"] = params["quats"].roll(1, 1)
    wrong = picture(params, (0.0, 0, 3.0), up=(0.0, 1.0, 0.0))[..., 0]
    assert wrong[48 - 15, 48] < 0.02


def test_opacity(through):
    seen = picture(through(canaries.opacity_canary(0.25)), (3.0, 0, 0))[48, 48] * 255
    assert (seen - 0.25 * 255).abs().max() <= 1.5


def test_scale(through):
    seen = picture(through(canaries.scale_canary(0.2, 0.8)), (3.0, 0, 0), size=300)[150, :, 0]
    sigma = 0.2 / 3 * 1.2 * 300  # pixels
    at = seen[150 + round(sigma)]
    assert abs(at - 0.8 * math.exp(-0.5)) < 0.02
    assert torch.all(seen[:140] <= seen[150])
