"""What we write, opened by programs that nobody here wrote (`pytest -m export`).

Node packages are installed once into lpm.formats.splat_transform.node_folder(), and only when this group is asked for
by name: other test runs use what is there and never the network.
"""

import fcntl
import json
import math
import re
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from export import canaries
from export.some import visible
from export.test_gltf import parts_of

from lpm.formats import splat_transform
from lpm.formats.gltf import write_gltf
from lpm.formats.gltf_container import glb_head
from lpm.formats.moving import at_time, for_splatv
from lpm.formats.picture import draw
from lpm.formats.placement import Placement
from lpm.formats.ply import write_ply
from lpm.formats.read import load
from lpm.formats.splat import write_splat
from lpm.formats.splatv import write_splatv
from lpm.formats.spz_write import write_spz
from lpm.gaussians import motion
from lpm.gaussians.similarity import Similarity, move
from lpm.multiview.views import look_at

pytestmark = pytest.mark.export
PACKAGES = {
    "puppeteer-core": "24.43.1",
    "three": "0.187.0",
    "@sparkjsdev/spark": "2.2.0",
    "@mkkellogg/gaussian-splats-3d": "0.4.7",
    "gsplat": "1.2.9",
    "playcanvas": "2.23.3",
    "cesium": "1.145.0",
    "3d-tiles-tools": "0.5.4",
    splat_transform.PACKAGE: splat_transform.VERSION,
}
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Spark is made for antialiased models and sorts by distance; this is 3DGS: its low-pass filter, sorted by depth.
CLASSIC = {
    "preBlurAmount": 0.3, "blurAmount": 0.0, "maxStdDev": 3.33, "minAlpha": 1 / 255, "sortRadial": False,
    "maxPixelRadius": 4096, "accumExtSplats": True,
}  # fmt: skip
FOV = 50.0


@pytest.fixture(scope="session")
def packages(request) -> Path:
    """The folder with node_modules; skips where Node or the packages are missing and cannot be had."""
    if shutil.which("node") is None:
        pytest.skip("no Node on this machine")
    folder = splat_transform.node_folder()

    def missing():
        return [name for name in PACKAGES if not (folder / "node_modules" / name / "package.json").is_file()]

    if not missing():
        return folder
    if "export" not in re.findall(r"\w+", request.config.option.markexpr.replace("not export", "")):
        pytest.skip(f"{missing()[0]} is not in {folder}: `pytest -m export` installs it")
    if shutil.which("npm") is None:
        pytest.skip("no npm on this machine")
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [f"{name}@{version}" for name, version in PACKAGES.items()]
    command = ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--ignore-scripts", *wanted]
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of the processes that test side by side one installs
        if missing():
            done = subprocess.run(command, capture_output=True, text=True, timeout=600)
            if done.returncode:
                pytest.skip(f"npm install failed: {(done.stderr.strip().splitlines() or ['?'])[-1][:200]}")
    return folder


@pytest.fixture(scope="session")
def chromium() -> str:
    """A Chromium; skips where there is none."""
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        pytest.skip("no Chromium on this machine (apt-get install chromium)")
    return found


@pytest.fixture
def shoot(packages, chromium, tmp_path):
    """shoot(jobs): a picture [H, W, 3] 0..255 float of each job (see viewers/shoot.mjs)."""

    def take(jobs):
        usual = {"width": 320, "height": 240, "fov": FOV, "target": [0, 0, 0], "up": [0, 1, 0], "background": 0}
        full = []
        for i, job in enumerate(jobs):
            file = job["file"]
            paths = {
                "file": str(file),
                "name": file.name,
                "url": f"/file/{i}/{file.name}",
                "out": str(tmp_path / f"shot{i}.png"),
            }
            full.append({**usual, "settings": {}, **job, **paths})
        text = json.dumps({"chromium": chromium, "packages": str(packages), "jobs": full})
        (tmp_path / "jobs.json").write_text(text)
        script = Path(__file__).parent / "viewers" / "shoot.mjs"
        command = ["node", str(script), str(tmp_path / "jobs.json")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=800)
        assert done.returncode == 0, done.stdout + done.stderr
        pictures = [cv2.imread(job["out"]) for job in full]
        return [torch.from_numpy(picture[..., ::-1].copy()).float() for picture in pictures]

    return take


def statistics(path):
    """splat-transform's table: {column: {min, max, ..., nans, infs}}."""
    said = splat_transform.run_tool([path, "-m", "null"])
    rows = [[cell.strip() for cell in line.strip("|\n ").split("|")] for line in said.splitlines() if "|" in line]
    head = next(row for row in rows if row[0] == "Column")
    table = {
        row[0]: dict(zip(head, row, strict=True)) for row in rows if len(row) == len(head) and row[0][0] not in "C-"
    }
    count = re.search(r"Row Count:\D*([\d,]+)", said)
    return int(count[1].replace(",", "")), table


def test_statistics_of_our_ply(packages, tmp_path):
    """Count, activated values and the absence of NaN as splat-transform sees them; nx ny nz are there."""
    params = canaries.scale_canary(0.2, 0.8)
    write_ply(tmp_path / "a.ply", params)
    count, table = statistics(tmp_path / "a.ply")
    assert count == 1
    for name in ("x", "y", "z", "nx", "ny", "nz"):
        assert float(table[name]["median"]) == 0
    for name in ("scale_0", "scale_1", "scale_2"):
        assert float(table[name]["median"]) == pytest.approx(0.2, rel=1e-3)
    assert float(table["opacity"]["median"]) == pytest.approx(0.8, rel=1e-3)
    assert float(table["f_dc_0"]["median"]) == pytest.approx(1.0, rel=1e-3)
    write_ply(tmp_path / "b.ply", visible(1000))
    count, table = statistics(tmp_path / "b.ply")
    assert count == 1000
    assert {"nx", "ny", "nz", "f_rest_44"} <= table.keys()
    assert all(row["nans"] == row["infs"] == "0" for row in table.values())


@pytest.mark.parametrize("version", [3, 4])
def test_our_spz_in_splat_transform(packages, tmp_path, version):
    params = visible(2000, degree=2)
    write_spz(tmp_path / "a.spz", params, version)
    splat_transform.convert(tmp_path / "a.spz", tmp_path / "b.ply")
    theirs, ours = load(tmp_path / "b.ply").params, load(tmp_path / "a.spz").params
    for name in ("means", "scales", "features_dc", "features_rest"):
        assert (theirs[name] - ours[name]).abs().max() < 0.02, name
    assert (theirs["opacities"].sigmoid() - ours["opacities"].sigmoid()).abs().max() < 3e-3


@pytest.mark.parametrize("ending", [".compressed.ply", ".spz", ".sog"])
def test_the_tools_formats_come_back(packages, tmp_path, ending):
    """Ours -> splat-transform's writer -> our reader (its own for .sog): the same scene."""
    params = visible(2000, degree=2)
    write_ply(tmp_path / "a.ply", params)
    splat_transform.convert(tmp_path / "a.ply", tmp_path / f"b{ending}")
    back = load(tmp_path / f"b{ending}").params
    assert len(back["means"]) == 2000
    camera = look_at(torch.tensor([3.0, 1.0, 1.0]), torch.zeros(3), torch.tensor([0.0, 0.0, 1.0]))
    K = torch.tensor([[[200.0, 0, 100], [0, 200, 100], [0, 0, 1]]])
    ours, theirs = (draw(each, camera[None], K, 200, 200) for each in (params, back))
    psnr = -10 * math.log10(float((ours - theirs).square().mean()))
    print(f"{ending}: {psnr:.1f} dB")
    assert psnr > 30


@pytest.mark.parametrize("viewer", ["spark", "mkkellogg"])
def test_sh_canary(shoot, tmp_path, viewer):
    """Red 252 from +X and 3 from -X, green and blue 127; a file in the wrong order is seen to be wrong."""
    right, wrong = tmp_path / "right.ply", tmp_path / "wrong.ply"
    params = canaries.sh_canary()
    write_ply(right, params)
    mixed = params["features_rest"].transpose(1, 2).reshape(40, 15, 3)
    write_ply(wrong, {**params, "features_rest": mixed})
    eyes = ([3, 0, 0.001], [-3, 0, 0.001])
    jobs = [{"viewer": viewer, "file": file, "position": eye} for file in (right, wrong) for eye in eyes]
    seen = [picture[120, 160].tolist() for picture in shoot(jobs)]
    print(viewer, seen)
    for rgb, red in zip(seen[:2], (252, 3), strict=True):
        assert abs(rgb[0] - red) <= 3
        assert abs(rgb[1] - 127) <= 3
        assert abs(rgb[2] - 127) <= 3
    assert abs(seen[2][0] - 252) > 20


def with_company(params):
    """`params` and 64 specks out of the way: GaussianSplats3D draws nothing of a scene of one Gaussian."""
    specks = {name: value[:1].repeat(64, *[1] * (value.dim() - 1)) for name, value in params.items()}
    specks["means"] = torch.cat([torch.linspace(-1, 1, 64)[:, None], torch.full((64, 1), -1.1), torch.zeros(64, 1)], 1)
    specks["scales"] = torch.full((64, 3), math.log(0.005))
    return {name: torch.cat([value, specks[name]]) for name, value in params.items()}


@pytest.mark.parametrize("viewer", ["three", "playcanvas"])
@pytest.mark.parametrize("ending", ["glb", "gltf"])
def test_sh_canary_in_gltf(shoot, tmp_path, viewer, ending):
    """As it is, and below the node that turns z up to glTF's y: the harmonics turn along."""
    jobs = []
    for name, up in (("y", [0.0, 1, 0]), ("z", [0.0, 0, 1])):
        placement = Placement(up)
        write_gltf(tmp_path / f"{name}.{ending}", canaries.sh_canary(), placement)
        for x in (3, -3):
            turned = placement.turn()
            place = {"position": (turned @ (x, 0.001, 0.001)).tolist(), "up": (turned @ up).tolist()}
            jobs.append({"viewer": viewer, "file": tmp_path / f"{name}.{ending}", **place})
    seen = [picture[120, 160].tolist() for picture in shoot(jobs)]
    print(viewer, ending, seen)
    for rgb, red in zip(seen, (252, 3, 252, 3), strict=True):
        assert abs(rgb[0] - red) <= 3
        assert abs(rgb[1] - 127) <= 3
        assert abs(rgb[2] - 127) <= 3


def tileset_of(glb):
    """A tileset.json of one tile at the equator with `glb` in it, which is what CesiumJS opens; its path."""
    document, _ = parts_of(glb)
    content = {name: document[name] for name in ("extensionsUsed", "extensionsRequired") if name in document}
    east, north, up, place = [0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [6378137, 0, 0, 1]
    root = {
        "boundingVolume": {"sphere": [0, 0, 0, 10]}, "geometricError": 0, "refine": "ADD",
        "transform": [*east, *north, *up, *place], "content": {"uri": glb.name},
    }  # fmt: skip
    tiles = {"asset": {"version": "1.1"}, "geometricError": 100, "root": root}
    if content:
        tiles |= {"extensionsUsed": ["3DTILES_content_gltf"], "extensions": {"3DTILES_content_gltf": content}}
    glb.with_suffix(".json").write_text(json.dumps(tiles))
    return glb.with_suffix(".json")


def write_points(path, params, placement):
    """A plain .glb of ours without its extension: points."""
    write_gltf(path, params, placement)
    document, body = parts_of(path)
    (primitive,) = document["meshes"][0]["primitives"]
    del primitive["extensions"], document["extensionsUsed"]
    primitive["attributes"] = {name: primitive["attributes"][name] for name in ("POSITION", "COLOR_0")}
    path.write_bytes(glb_head(document, len(body)) + body)


def test_spz_in_gltf_lies_where_the_plain_one_does(shoot, tmp_path):
    """In CesiumJS: four Gaussians in four colours, none of which a turn or a mirror brings to another."""
    params = canaries.corner_canary()
    jobs = []
    for name, up in (("y", [0.0, 1, 0]), ("z", [0.0, 0, 1])):
        write_gltf(tmp_path / f"{name}.glb", params, Placement(up), compression="spz")
        write_points(tmp_path / f"{name}-points.glb", params, Placement(up))
        jobs += [tileset_of(tmp_path / f"{name}.glb"), tileset_of(tmp_path / f"{name}-points.glb")]
    jobs = [{"viewer": "cesium", "file": file, "position": [2.5, 1.0, 1.5]} for file in jobs]

    def places(picture):
        """[4, 2] x and y of what is red, green, blue and white."""
        colors = torch.tensor([[255.0, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]])
        close = ((picture - colors[:, None, None]).abs() < 90).all(-1)
        return torch.stack([each.nonzero().float().mean(0).flip(0) for each in close])

    spz_y, points_y, spz_z, points_z = map(places, shoot(jobs))
    print(spz_y.tolist(), points_y.tolist(), spz_z.tolist(), points_z.tolist())
    assert (spz_y - points_y).abs().max() < 1.5
    assert (spz_z - points_z).abs().max() < 1.5
    assert (spz_y - spz_z).abs().max() > 20
    camera = look_at(torch.tensor([2.5, 1.0, 1.5]), torch.zeros(3), torch.tensor([0.0, 1, 0]))
    seen = params["means"] @ camera[:3, :3].T + camera[:3, 3]
    focal = 120 / math.tan(math.radians(FOV / 2))
    assert (seen[:, :2] / seen[:, 2:] * focal + torch.tensor([160.0, 120]) - spz_y).abs().max() < 1.5


UNPACK = """
import fs from "node:fs";
import {createRequire} from "node:module";
import {pathToFileURL} from "node:url";
const [folder, file, out] = process.argv.slice(-3);
const library = createRequire(folder + "/package.json").resolve("@adobe/spz");
const spz = await (await import(pathToFileURL(library))).default();
const data = new Uint8Array(fs.readFileSync(file));
const read = name => {
  const {positions, sh} = spz.loadSpzFromBuffer(data, {to: spz.CoordinateSystem[name]});
  return {positions: [...positions], sh: [...sh]};
};
fs.writeFileSync(out, JSON.stringify({LUF: read("LUF"), UNSPECIFIED: read("UNSPECIFIED")}));
"""


def test_spz_in_gltf_means_the_same_by_the_drafts_text(packages, tmp_path):
    """SPZ's own library (Adobe's build of it) unpacks to LUF, as the draft wants it, what CesiumJS takes as it is."""
    params = visible(50)
    write_gltf(tmp_path / "a.glb", params, Placement([0.0, 1, 0]), compression="spz")
    document, body = parts_of(tmp_path / "a.glb")
    (tmp_path / "a.spz").write_bytes(body[: document["bufferViews"][0]["byteLength"]])
    (tmp_path / "unpack.mjs").write_text(UNPACK)
    command = ["node", tmp_path / "unpack.mjs", packages, tmp_path / "a.spz", tmp_path / "out.json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    for found in json.loads((tmp_path / "out.json").read_text()).values():
        assert (torch.tensor(found["positions"]).view(-1, 3) - params["means"]).abs().max() <= 2.0**-13
        assert (torch.tensor(found["sh"]).view(-1, 15, 3) - params["features_rest"]).abs().max() <= 9 / 128


def test_canaries_of_spz_in_gltf(shoot, tmp_path):
    """Harmonics (below a node that turns, too), rotation, opacity and size, in CesiumJS."""
    jobs = []

    def job(name, params, place, up=(0.0, 1, 0)):
        write_gltf(tmp_path / f"{name}.glb", params, Placement(list(up)), compression="spz")
        jobs.append({"viewer": "cesium", "file": tileset_of(tmp_path / f"{name}.glb"), **place})

    for name, up in (("y", [0.0, 1, 0]), ("z", [0.0, 0, 1])):
        for x in (3, -3):
            turned = Placement(up).turn()
            place = {"position": (turned @ (x, 0.001, 0.001)).tolist(), "up": (turned @ up).tolist()}
            job(f"{name}{x}", canaries.sh_canary(), place, up)
    for name in ("quaternion", "opacity", "scale"):
        # Not quite from the front: of a circle's covariance CesiumJS makes no axes, and shows nothing.
        job(name, getattr(canaries, f"{name}_canary")(), {"position": [0.003, 0.001, 3]})
    *harmonics, needle, opacity, scale = shoot(jobs)
    focal = 120 / math.tan(math.radians(FOV / 2))
    at = [float(scale[120, 160 + round(step * 0.2 / 3 * focal), 0]) for step in (0, 1, 2)]
    seen = [picture[120, 160].tolist() for picture in harmonics]
    print(seen, needle[80, 160].tolist(), needle[120, 200].tolist(), float(opacity[120, 160, 0]), at)
    for rgb, red in zip(seen, (252, 3, 252, 3), strict=True):
        assert abs(rgb[0] - red) <= 3
        assert abs(rgb[1] - 127) <= 3
        assert abs(rgb[2] - 127) <= 3
    assert needle[120 - 40, 160].min() > 220
    assert needle[120, 160 + 40].max() < 10
    assert abs(opacity[120, 160, 0] - 0.25 * 255) <= 4
    for step, value in enumerate(at):
        assert abs(value - 255 * 0.8 * math.exp(-0.5 * step**2)) <= 8


def test_spz_in_gltf_shows_what_we_render(shoot, tmp_path):
    params = visible(3000)
    write_gltf(tmp_path / "a.glb", params, Placement([0.0, 1, 0]), compression="spz")
    place = ([2.5, 1.0, 1.5], [0.0] * 3, [0.0, 1, 0])
    psnr, _, _ = compare(shoot, tileset_of(tmp_path / "a.glb"), params, *place, (400, 300), FOV, 0, "cesium")
    print(f"cesium: {psnr:.1f} dB")
    assert psnr >= 30


def test_a_tileset_by_3d_tiles_tools(shoot, packages, tmp_path):
    """As docs/export.md tells it: made of the plain .glb, shown with the packed one in its place."""
    params = visible(3000)
    write_gltf(tmp_path / "scene.glb", params, Placement([0.0, 1, 0]))
    script = packages / "node_modules" / "3d-tiles-tools" / "build" / "src" / "cli.mjs"
    command = ["node", script, "createTilesetJson", "-i", tmp_path / "scene.glb", "-o", tmp_path / "tileset.json"]
    command += ["--cartographicPositionDegrees", "8.5", "47.4", "400"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    write_gltf(tmp_path / "scene.glb", params, Placement([0.0, 1, 0]), compression="spz")
    tiles = json.loads((tmp_path / "tileset.json").read_text())
    names = ["KHR_gaussian_splatting", "KHR_gaussian_splatting_compression_spz_2"]
    tiles["extensionsUsed"] = ["3DTILES_content_gltf"]
    tiles["extensions"] = {"3DTILES_content_gltf": {"extensionsUsed": names, "extensionsRequired": names}}
    (tmp_path / "tileset.json").write_text(json.dumps(tiles))
    place = ([2.5, 1.0, 1.5], [0.0] * 3, [0.0, 1, 0])
    psnr, _, _ = compare(shoot, tmp_path / "tileset.json", params, *place, (400, 300), FOV, 0, "cesium")
    print(f"cesium, a tileset by 3d-tiles-tools: {psnr:.1f} dB")
    assert psnr >= 30


WRITERS = {
    "ply": write_ply, "splat": write_splat,
    "glb": lambda path, params: write_gltf(path, params, Placement([0.0, 1, 0])),
    "spz": lambda path, params: write_spz(path, turned_over(params)),
}  # fmt: skip


def turned_over(params):
    """By half a turn about x, which an .spz's axes undo."""
    return move(params, Similarity(np.diag([1.0, -1, -1]), np.zeros(3), 1.0))


@pytest.mark.parametrize(
    ("viewer", "ending"),
    [("spark", "ply"), ("spark", "splat"), ("mkkellogg", "ply"), ("mkkellogg", "splat"), ("three", "glb"),
     ("playcanvas", "glb"), ("spark", "spz")],
)  # fmt: skip
def test_quaternion_opacity_and_scale_canaries(shoot, tmp_path, viewer, ending):
    write = WRITERS[ending]
    files = []
    for name in ("quaternion", "opacity", "scale"):
        files.append(tmp_path / f"{name}.{ending}")
        write(files[-1], with_company(getattr(canaries, f"{name}_canary")()))
    settings = CLASSIC if viewer == "spark" else {}
    jobs = [{"viewer": viewer, "file": file, "position": [0, 0, 3], "settings": settings} for file in files]
    needle, opacity, scale = shoot(jobs)
    focal = 120 / math.tan(math.radians(FOV / 2))
    assert needle[120 - 40, 160].min() > 220  # it stands along y
    assert needle[120, 160 + 40].max() < 10
    assert abs(opacity[120, 160, 0] - 0.25 * 255) <= 4
    at = [float(scale[120, 160 + round(step * 0.2 / 3 * focal), 0]) for step in (0, 1, 2)]
    print(viewer, ending, float(opacity[120, 160, 0]), at)
    for step, value in enumerate(at[:2] if viewer == "three" else at):  # which draws nothing from two on
        assert abs(value - 255 * 0.8 * math.exp(-0.5 * step**2)) <= 8


def compare(shoot, file, params, position, target, up, size, fov, background, viewer="spark"):
    """PSNR of a viewer's picture of `file` against ours of `params`, and both pictures, 0..1."""
    width, height = size
    job = {
        "viewer": viewer, "file": file, "position": position, "target": target, "up": up, "width": width,
        "height": height, "fov": fov, "background": background, "settings": CLASSIC,
    }  # fmt: skip
    theirs = shoot([job])[0] / 255
    focal = height / 2 / math.tan(math.radians(fov / 2))
    K = torch.tensor([[[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]]])
    camera = look_at(torch.tensor(position), torch.tensor(target), torch.tensor(up))
    ours = draw(params, camera[None], K, width, height, background)[0]
    return -10 * math.log10(float((ours - theirs).square().mean())), ours, theirs


def test_spark_shows_what_we_render(shoot, tmp_path):
    params = visible(3000)
    write_ply(tmp_path / "a.ply", params)
    psnr, _, _ = compare(shoot, tmp_path / "a.ply", params, [2.5, 1.0, 1.5], [0.0] * 3, [0.0, 0, 1], (400, 300), FOV, 0)
    print(f"{psnr:.1f} dB")
    assert psnr >= 30


@pytest.mark.parametrize("viewer", ["three", "playcanvas"])
def test_gltf_shows_what_we_render(shoot, tmp_path, viewer):
    params = visible(3000)
    write_gltf(tmp_path / "a.glb", params, Placement([0.0, 1, 0]))
    place = ([2.5, 1.0, 1.5], [0.0] * 3, [0.0, 1, 0])
    psnr, _, _ = compare(shoot, tmp_path / "a.glb", params, *place, (400, 300), FOV, 0, viewer)
    print(f"{viewer}: {psnr:.1f} dB")
    assert psnr >= (25 if viewer == "three" else 30)  # three.js ends a Gaussian at two standard deviations


def test_spark_shows_a_real_scene_as_we_do(shoot, real_data, tmp_path):
    """The shared guitar through our reader and writer."""
    params = load(real_data / "splats" / "guitar.compressed.ply").params
    write_ply(tmp_path / "a.ply", params)
    place = ([0.3, -2.1, 5.0], [0.07, -2.1, 0.2], [0.0, -1, 0])
    psnr, _, _ = compare(shoot, tmp_path / "a.ply", params, *place, (480, 640), FOV, 1)
    print(f"{psnr:.1f} dB")
    assert psnr >= 30


def test_splatv_plays_in_gsplat_js(shoot, tmp_path):
    """Cubic motion, turning and fading at three times, against our own picture of the model at each.

    The player sorts by places at rest, and by a wrong x (a word of the quaternion): few points overlap, seen along z.
    """
    torch.manual_seed(0)
    n, focal = 120, 280.0
    moving = {name: value.detach() for name, value in motion.start(n, 3, spins=True).items()}
    params = moving | {
        "means": torch.rand(n, 3) * torch.tensor([2.4, 1.8, 1.5]) + torch.tensor([-1.2, -0.9, 2.5]),
        "scales": torch.full((n, 3), -3.2) + torch.rand(n, 3), "quats": torch.randn(n, 4),
        "features_dc": torch.randn(n, 3), "features_rest": torch.zeros(n, 0, 3),
        "opacities": 2 + torch.rand(n, 1), "motion": 0.4 * torch.randn(n, 3, 3), "spins": torch.randn(n, 4),
    }  # fmt: skip
    params["durations"][: n // 2] = -2.0
    params["gates"][: n // 2], params["gates"][n // 2 :] = -9.0, 9.0  # it comes and goes, or is always there
    write_splatv(tmp_path / "clip.splatv", for_splatv(params))
    times = (0.1, 0.5, 0.9)
    job = {"viewer": "gsplatjs", "file": tmp_path / "clip.splatv", "focal": focal}
    theirs = shoot([{**job, "time": t} for t in times])
    K = torch.tensor([[[focal, 0, 160], [0, focal, 120], [0, 0, 1]]])
    ours = [draw(at_time(params, t), torch.eye(4)[None], K, 320, 240, background=0.0)[0] for t in times]
    for t, mine, other in zip(times, ours, theirs, strict=True):
        psnr = -10 * math.log10(float((mine - other / 255).square().mean()))
        print(f"gsplat.js at {t}: {psnr:.1f} dB")
        assert psnr > 30
    assert float((ours[0] - ours[2]).square().mean()) > 0.01  # and between these times it moved
