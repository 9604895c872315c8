"""What the photos say about geometry, held against scenes whose geometry is known."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from dataclasses import dataclass
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from lpm.checks import LpmError
from lpm.cuda.device import on_host
from lpm.cuda.native import native
from lpm.multiview import feature_matches
from lpm.multiview.covisibility import covisible
from lpm.multiview.feature_matches import Matches, epipolar_distance, sift_points
from lpm.multiview.patch_warp import UNSEEN, Warp, reference
from lpm.multiview.plane_sweep import Sweep, plane_sweep
from lpm.multiview.views import Views, project, triangulate, unproject
from lpm.scenes.read import read_scene
from lpm.scenes.samples import make

WIDTH, HEIGHT, FOCAL = 160, 120, 150.0


@dataclass
class Rectangle:
    """A textured rectangle: centre, the two half axes, and a gray texture [h, w]."""

    centre: Tensor
    u: Tensor
    v: Tensor
    texture: Tensor


def texture(seed: int, size: int = 256) -> Tensor:
    """[size, size] noise of several octaves, in .05 to .95."""
    generator = torch.Generator().manual_seed(seed)
    result = torch.zeros(size, size)
    for octave in (size // 16, size // 8, size // 4, size // 2):
        noise = torch.rand(1, 1, octave, octave, generator=generator) - 0.5
        result += F.interpolate(noise, size=(size, size), mode="bicubic", align_corners=False)[0, 0]
    return (0.5 + 0.45 * result / result.abs().max()).contiguous()


def wall(
    z: float, half: float = 4.0, tilt: float = 0.0, x: float = 0.0, seed: int = 1, flat: bool = False
) -> Rectangle:
    """A square that faces cameras looking along +z, turned about y by `tilt` degrees."""
    c, s = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))
    pattern = torch.full((4, 4), 0.5) if flat else texture(seed, int(64 * half))
    return Rectangle(
        torch.tensor([x, 0.0, z]), half * torch.tensor([c, 0.0, s]), torch.tensor([0.0, half, 0.0]), pattern
    )


def camera(x: float, y: float = 0.0, z: float = 0.0, yaw: float = 0.0) -> Tensor:
    """[4, 4] world to camera, looking along +z turned by `yaw` degrees towards +x."""
    c, s = math.cos(math.radians(yaw)), math.sin(math.radians(yaw))
    rotation = torch.tensor([[c, 0.0, -s], [0.0, 1.0, 0.0], [s, 0.0, c]])
    result = torch.eye(4)
    result[:3, :3] = rotation
    result[:3, 3] = -rotation @ torch.tensor([x, y, z], dtype=torch.float32)
    return result


def shoot(solids: list[Rectangle], viewmat: Tensor, K: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Gray [H, W] and z-depth [H, W] at pixel centres; nothing there: .5 and infinity. 2 x 2 rays per pixel."""
    width, height = size
    fine = 2
    y, x = torch.meshgrid(torch.arange(height * fine), torch.arange(width * fine), indexing="ij")
    pixels = (torch.stack([x, y], -1).reshape(-1, 2) + 0.5) / fine
    origin = -(viewmat[:3, :3].T @ viewmat[:3, 3])
    target = unproject(pixels, torch.ones(len(pixels)), viewmat, K)
    ray = target - origin
    depth, gray = torch.full((len(ray),), torch.inf), torch.full((len(ray),), 0.5)
    for solid in solids:
        normal = torch.linalg.cross(solid.u, solid.v)
        z = ((solid.centre - origin) @ normal) / (ray @ normal)
        place = origin + ray * z[:, None] - solid.centre
        at = torch.stack([place @ solid.u / (solid.u @ solid.u), place @ solid.v / (solid.v @ solid.v)], -1)
        hit = (z > 0) & (at.abs() <= 1).all(-1) & (z < depth)
        color = F.grid_sample(solid.texture[None, None], at[None, None], mode="bicubic", align_corners=False)[0, 0, 0]
        depth, gray = torch.where(hit, z, depth), torch.where(hit, color, gray)
    gray = F.avg_pool2d(gray.reshape(1, height * fine, width * fine), fine)[0]
    return gray, depth.reshape(height * fine, width * fine)[::fine, ::fine]


def shots(solids: list[Rectangle], viewmats: list[Tensor], gains: list[float] | None = None) -> SimpleNamespace:
    """Views of `solids` with their depths; photos are float, so that a gain is nothing but a gain."""
    K = torch.tensor([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
    pairs = [shoot(solids, m, K, (WIDTH, HEIGHT)) for m in viewmats]
    gains = gains or [1.0] * len(pairs)
    images = [(g * gain)[..., None].expand(-1, -1, 3).contiguous() for (g, _), gain in zip(pairs, gains, strict=True)]
    views = Views(images, K.expand(len(pairs), 3, 3), torch.stack(viewmats))
    return SimpleNamespace(views=views, depths=[d for _, d in pairs])


ROW = [camera(0.0), camera(-0.6), camera(0.6), camera(0.0, 0.6), camera(0.0, -0.6)]
"""One camera in the middle of a cross, about 8 degrees of parallax at 4 units."""
ALL_FOUR = torch.tensor([[1, 2, 3, 4]] + [[0, -1, -1, -1]] * 4)


def grid(step: int = 8, border: int = 10) -> Tensor:
    """[P, 2] pixel centres all over the image."""
    y, x = torch.meshgrid(
        torch.arange(border, HEIGHT - border, step), torch.arange(border, WIDTH - border, step), indexing="ij"
    )
    return torch.stack([x, y], -1).reshape(-1, 2) + 0.5


def sweep_first(views: Views, pixels: Tensor, neighbours: Tensor = ALL_FOUR, near=1.5, far=20.0, **options) -> Sweep:
    view = torch.zeros(len(pixels), dtype=torch.int64)
    return plane_sweep(views, view, pixels, neighbours, torch.tensor(near), torch.tensor(far), **options)


def truth_at(depth: Tensor, pixels: Tensor) -> Tensor:
    return depth[pixels[:, 1].long(), pixels[:, 0].long()]


@pytest.fixture(autouse=True)
def _one_thread():
    """Operations are short here: on a machine with other work, waiting for each other's threads costs the most."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def room(tmp_path_factory) -> SimpleNamespace:
    """A small sample room, with its depths and labels."""
    folder = make.make("room", tmp_path_factory.mktemp("room") / "room", views=16, size=(200, 150))
    return from_folder(folder)


def from_folder(folder, shrink: int = 1) -> SimpleNamespace:
    """Views of a scene's folder, undistorted as nerfstudio does it, with points and whatever truth lies beside them."""
    scene = read_scene(folder)
    images, Ks, viewmats = [], [], []
    for path, (fx, fy, cx, cy), d, pose in zip(
        scene.images, scene.intrinsics, scene.distortion, scene.c2w, strict=True
    ):
        image = np.array(Image.open(path).convert("RGB"))
        image = cv2.resize(image, None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA)
        K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, shrink]]) / shrink
        if d.any():
            shifted = K - np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
            image = cv2.undistort(image, shifted, np.array([d[0], d[1], d[4], d[5]]))
        images.append(torch.from_numpy(image))
        Ks.append(K)
        viewmats.append(np.linalg.inv(pose @ np.diag([1.0, -1.0, -1.0, 1.0])))
    views = Views(images, torch.tensor(np.array(Ks)), torch.tensor(np.array(viewmats)))
    points = torch.from_numpy(scene.points.xyz).float()
    names = [path.stem for path in scene.images]
    depth, labels = [], []
    if (folder / "depth").is_dir():
        depth = [torch.from_numpy(np.load(folder / "depth" / f"{name}.npy")) for name in names]
        labels = [torch.from_numpy(np.array(Image.open(folder / "labels" / f"{name}.png"))) for name in names]
    return SimpleNamespace(views=views, points=points, depths=depth, labels=labels)


# -- triangulation and epipolar geometry ---------------------------------------------------------------------------


def two_cameras(n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Points [n, 3] in front of two cameras, float64, and the cameras [n, 2, ...]."""
    generator = torch.Generator().manual_seed(3)
    xyz = torch.rand(n, 3, generator=generator, dtype=torch.float64) * 2 - 1 + torch.tensor([0.0, 0, 5])
    viewmats = torch.stack([camera(-0.5), camera(0.7, 0.2, 0.1, yaw=-9)]).double().expand(n, 2, 4, 4)
    Ks = torch.tensor([[[150.0, 0.3, 80], [0, 155, 60], [0, 0, 1]], [[200, 0, 100], [0, 200, 50], [0, 0, 1]]])
    return xyz, viewmats, Ks.double().expand(n, 2, 3, 3)


def test_triangulation_known_answer():
    xyz, viewmats, Ks = two_cameras(1000)
    pixels, z = project(xyz[:, None, None], viewmats, Ks)
    assert (z > 0).all()
    found, along = triangulate(pixels[:, :, 0], viewmats, Ks)
    assert (found - xyz).abs().max() < 1e-6  # the rotations are of single precision
    centre = torch.tensor([[-0.5, 0, 0], [0.7, 0.2, 0.1]]).double()
    assert torch.allclose(along, (xyz[:, None] - centre).norm(dim=-1), atol=1e-6)
    assert epipolar_distance(pixels[:, :, 0], viewmats, Ks).max() < 1e-4


def test_triangulation_by_hand():
    """Rays along (1, 0, 1) from (-1, 0, 0) and (-1, 1, 1) - skew by 1 in y at the closest points."""
    Ks = torch.eye(3, dtype=torch.float64).expand(1, 2, 3, 3)
    viewmats = torch.stack([camera(-1.0), camera(1.0, 1.0)]).double()[None]
    xyz, along = triangulate(torch.tensor([[[1.0, 0], [-1, 0]]], dtype=torch.float64), viewmats, Ks)
    assert torch.allclose(xyz, torch.tensor([[0.0, 0.5, 1.0]]).double(), atol=1e-12)
    assert torch.allclose(along, torch.full((1, 2), math.sqrt(2)).double(), atol=1e-12)


def test_triangulation_of_what_cannot_be():
    """Parallel rays are not finite; rays that meet behind a camera say so."""
    Ks = torch.eye(3, dtype=torch.float64).expand(1, 2, 3, 3)
    viewmats = torch.stack([camera(-1.0), camera(1.0)]).double()[None]
    assert not torch.isfinite(triangulate(torch.zeros(1, 2, 2).double(), viewmats, Ks)[0]).all()
    _, along = triangulate(torch.tensor([[[-1.0, 0], [1, 0]]]).double(), viewmats, Ks)
    assert (along < 0).all()


def test_epipolar_distance_is_in_pixels():
    xyz, viewmats, Ks = two_cameras(50)
    pixels = project(xyz[:, None, None], viewmats, Ks)[0][:, :, 0].clone()
    pixels[:, 1, 1] += 3.0  # the baseline is nearly horizontal
    distance = epipolar_distance(pixels, viewmats, Ks)
    assert (distance > 2.0).all()
    assert (distance < 4.5).all()
    same = viewmats[:, :1].expand_as(viewmats)
    assert torch.isinf(epipolar_distance(pixels, same, Ks)).all()


# -- covisible -----------------------------------------------------------------------------------------------------


def surface_points(solid: Rectangle, n: int, seed: int = 0) -> Tensor:
    at = torch.rand(n, 2, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return solid.centre + at[:, :1] * solid.u + at[:, 1:] * solid.v


def test_parallax_and_overlap_are_right():
    scene = shots([wall(4.0)], ROW)
    points = surface_points(wall(4.0), 2000)
    found = covisible(scene.views, points)
    expected = torch.rad2deg(torch.atan(torch.tensor(0.6 / 4)))
    middle = found.neighbours[0]
    assert sorted(middle.tolist()) == [1, 2, 3, 4]
    assert (found.parallax[0] / expected - 1).abs().max() < 0.1
    # The image covers 160 pixels; 0.6 units are 22.5 of them sideways, or of 120 upwards.
    shares = {1: 1 - 22.5 / 160, 2: 1 - 22.5 / 160, 3: 1 - 22.5 / 120, 4: 1 - 22.5 / 120}
    for view, share in zip(middle.tolist(), found.overlap[0].tolist(), strict=True):
        assert abs(share - shares[view]) < 0.06


@pytest.mark.parametrize("know", ["points", "depths", "points and depths", "tracks"])
def test_what_looks_the_same_way_but_sees_something_else_is_no_neighbour(know):
    """Views 0-1 before a wall, 2-3 behind it in the same direction, 4-5 far aside: six equal viewing directions."""
    solids = [wall(4.0), wall(9.0, seed=2), wall(4.0, x=30.0, seed=3)]
    cameras = [camera(0), camera(0.7), camera(0, 0, 5), camera(0.7, 0, 5), camera(30), camera(30.7)]
    scene = shots(solids, cameras)
    points = torch.cat([surface_points(solid, 1000, seed) for seed, solid in enumerate(solids)])
    tracks = None
    if know == "tracks":
        z = project(points, scene.views.viewmats, scene.views.Ks)
        inside = (z[0] >= 0).all(-1) & (z[0] < torch.tensor([WIDTH, HEIGHT])).all(-1) & (z[1] > 0)
        inside[:2, 1000:2000] = False
        tracks = inside.nonzero()
    depths = scene.depths if "depths" in know else None
    found = covisible(scene.views, None if know == "depths" else points, tracks, depths)
    first = found.neighbours[:, 0].tolist()
    assert first == [1, 0, 3, 2, 5, 4]
    assert (found.neighbours[:, 1:] == -1).all()
    assert (found.parallax[:, 0] > 5).all()
    assert (found.overlap[:, 0] > 0.5).all()


def test_rendered_depth_alone_is_enough():
    scene = shots([wall(4.0)], ROW)
    depths = [F.interpolate(d[None, None], size=(40, 60))[0, 0] for d in scene.depths]  # of any resolution
    found = covisible(scene.views, None, None, depths)
    assert sorted(found.neighbours[0].tolist()) == [1, 2, 3, 4]


def test_too_little_and_too_much_parallax():
    cameras = [camera(0), camera(0.05), camera(5.0, yaw=-50), camera(0.7)]
    points = surface_points(wall(4.0, half=2.0), 2000)
    found = covisible(shots([], cameras).views, points)
    assert found.neighbours[0].tolist() == [3, -1, -1, -1]
    assert covisible(shots([], cameras).views, points, max_parallax=60).neighbours[0].tolist()[:2] == [3, 2]


def degenerate(case: str) -> tuple[Views, Tensor | None]:
    points = surface_points(wall(4.0), 500)
    if case == "no view":
        return Views([], torch.zeros(0, 3, 3), torch.zeros(0, 4, 4)), points
    cameras = {"one view": ROW[:1], "identical cameras": [ROW[0]] * 3}.get(case, ROW)
    if case == "pure rotation":
        cameras = [camera(0, yaw=a) for a in (-6.0, 0.0, 6.0)]
    views = shots([wall(4.0)], cameras).views
    if case == "NaN photos":
        views = Views([torch.full_like(i, torch.nan) for i in views.images], views.Ks, views.viewmats)
    if case == "all masked":
        masks = [torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)] * len(cameras)
        views = Views(views.images, views.Ks, views.viewmats, masks)
    if case == "black photos":
        views = Views([torch.zeros(HEIGHT, WIDTH, 3, dtype=torch.uint8)] * len(cameras), views.Ks, views.viewmats)
    if case == "no points":
        return views, None
    if case == "NaN points":
        return views, torch.full((100, 3), torch.nan)
    if case == "points behind":
        return views, points * torch.tensor([1.0, 1, -1])
    return views, points


GEOMETRY = ["no view", "one view", "identical cameras", "pure rotation", "no points", "NaN points", "points behind"]


@pytest.mark.parametrize("case", [*GEOMETRY, "NaN photos", "all masked", "black photos"])
def test_no_evidence_is_a_legal_answer(case):
    views, points = degenerate(case)
    found = covisible(views, points)
    if case in GEOMETRY:
        assert (found.neighbours == -1).all()
        assert (found.parallax == 0).all()
    count = len(views)
    # Even if neighbours are claimed that are none, nothing comes of it.
    everyone = torch.tensor([[j for j in range(count) if j != i] for i in range(count)]).reshape(
        count, max(count - 1, 0)
    )
    if case not in ("no points", "NaN points", "points behind"):
        matches = sift_points(views, everyone)
        assert len(matches) == 0
    if case not in ("no view", "no points", "NaN points", "points behind"):
        swept = sweep_first(views, grid(), everyone)
        assert not swept.confident.any()
    swept = (
        sweep_first(views, grid(), torch.full((count, 4), -1)) if count else sweep_first(views, grid()[:0], everyone)
    )
    assert not swept.confident.any()
    assert torch.isnan(swept.depth).all()


def test_wrong_shapes_are_named():
    views = shots([], ROW).views
    with pytest.raises(LpmError, match="points"):
        covisible(views, torch.zeros(4, 2))
    with pytest.raises(LpmError, match="pixels"):
        plane_sweep(views, torch.zeros(3).long(), torch.zeros(2, 2), ALL_FOUR, torch.tensor(1.0), torch.tensor(2.0))
    with pytest.raises(LpmError, match=r"masks\[1\]"):
        Views(views.images[:2], views.Ks[:2], views.viewmats[:2], [torch.ones(HEIGHT, WIDTH), torch.ones(3, 3)])
    with pytest.raises(LpmError, match="viewmats: non-finite value in view 1"):
        Views(views.images[:2], views.Ks[:2], views.viewmats[:2] * torch.tensor([1, torch.nan])[:, None, None])


# -- plane sweep ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tilt", [0, 30, 50])
def test_depth_of_a_textured_wall(tilt):
    scene = shots([wall(4.0, half=8, tilt=tilt, seed=5)], ROW)
    pixels = grid()
    swept = sweep_first(scene.views, pixels)
    true = truth_at(scene.depths[0], pixels)
    error = (swept.depth / true - 1).abs()
    good = swept.confident
    assert good.float().mean() >= 0.6
    assert (error[good] < 0.02).float().mean() >= 0.98
    assert (error[good] < 0.01).float().mean() >= 0.9
    inside = (true >= swept.interval[:, 0]) & (true <= swept.interval[:, 1])
    assert inside[good].float().mean() > 0.9
    assert (swept.interval[good, 1] / swept.interval[good, 0] < 1.6).all()
    assert (swept.support[good] >= 2).all()


@pytest.mark.parametrize("solids", [[], [wall(4.0, flat=True)]], ids=["sky", "flat wall"])
def test_without_texture_nothing_is_known(solids):
    scene = shots(solids, ROW)
    assert not sweep_first(scene.views, grid()).confident.any()
    noisy = [i + 0.004 * torch.randn(i.shape[:2], generator=torch.Generator().manual_seed(k))[..., None]
             for k, i in enumerate(scene.views.images)]  # fmt: skip
    views = Views(noisy, scene.views.Ks, scene.views.viewmats)
    assert not sweep_first(views, grid()).confident.any()
    assert not sweep_first(views, grid(), min_contrast=0.0).confident.any()


def test_stripes_along_the_baseline_say_nothing():
    """The aperture problem: nothing changes along the epipolar line, so that every depth looks right."""
    stripes = wall(4.0)
    stripes.texture = stripes.texture[:, :1].expand(256, 256).contiguous()
    scene = shots([stripes], ROW[:3])
    assert not sweep_first(scene.views, grid(), torch.tensor([[1, 2]] * 3)).confident.any()


def test_repeated_texture_is_ambiguous():
    """A pattern that repeats within the range of depths has several equal peaks."""
    repeated = wall(4.0)
    x = torch.linspace(-1, 1, 512) * 40 * math.pi
    repeated.texture = 0.5 + 0.2 * torch.sin(x)[None] + 0.2 * torch.sin(x)[:, None]
    scene = shots([repeated], ROW)
    swept = sweep_first(scene.views, grid())
    assert swept.confident.float().mean() < 0.05


def test_exposure_changes_nothing():
    plain = shots([wall(4.0, tilt=20)], ROW)
    exposed = shots([wall(4.0, tilt=20)], ROW, gains=[0.7, 1.3, 1.0, 0.7, 1.3])
    a, b = sweep_first(plain.views, grid()), sweep_first(exposed.views, grid())
    assert (a.confident == b.confident).float().mean() > 0.98
    both = a.confident & b.confident
    assert (a.depth / b.depth - 1)[both].abs().max() < 1e-3


def test_occlusion_in_half_of_the_neighbours():
    """A board hides part of the wall from the two cameras on the left and above, not from the others."""
    board = Rectangle(
        torch.tensor([-0.35, 0.0, 2.0]), torch.tensor([0.2, 0, 0]), torch.tensor([0.0, 0.4, 0]), texture(9)
    )
    scene = shots([wall(4.0), board], ROW)
    pixels = grid(4)
    true = truth_at(scene.depths[0], pixels)
    world = unproject(
        pixels, true, scene.views.viewmats[0].expand(len(pixels), 4, 4), scene.views.Ks[0].expand(len(pixels), 3, 3)
    )
    at, z = project(world, scene.views.viewmats[1:], scene.views.Ks[1:])
    shown = torch.stack([truth_at(d, p.clamp(0, HEIGHT - 1)) for d, p in zip(scene.depths[1:], at, strict=True)])
    hidden = (z > shown * 1.1).sum(0)
    swept = sweep_first(scene.views, pixels)
    chosen = (hidden >= 1) & (true > 3.5)
    assert chosen.sum() >= 10
    good = chosen & swept.confident
    assert good.sum() >= 0.3 * chosen.sum()
    assert ((swept.depth / true - 1).abs()[good] < 0.02).float().mean() >= 0.9


def test_masked_and_nan_pixels_are_not_used():
    scene = shots([wall(4.0)], ROW)
    masks = [torch.ones(HEIGHT, WIDTH, dtype=torch.bool) for _ in ROW]
    masks[0][:, :60] = False
    masks[1][:] = False
    images = [i.clone() for i in scene.views.images]
    images[0][:30] = torch.nan
    views = Views(images, scene.views.Ks, scene.views.viewmats, masks)
    pixels = grid()
    swept = sweep_first(views, pixels)
    touched = (pixels[:, 0] < 63) | (pixels[:, 1] < 33)
    assert not swept.confident[touched].any()
    assert swept.confident[~touched].float().mean() > 0.6
    assert (swept.support <= 3).all()


def test_depth_outside_the_range_is_not_made_up():
    scene = shots([wall(4.0)], ROW)
    for near, far in ((6.0, 20.0), (1.0, 3.0)):
        assert sweep_first(scene.views, grid(), near=near, far=far).confident.float().mean() < 0.03
    assert sweep_first(scene.views, grid(), near=1.5, far=math.inf).confident.float().mean() > 0.6
    for near, far in ((0.0, 1.0), (-1.0, 2.0), (3.0, 2.0), (math.nan, 2.0), (2.0, math.nan)):
        assert torch.isnan(sweep_first(scene.views, grid(), near=near, far=far).depth).all()


def test_photos_of_different_sizes():
    scene = shots([wall(4.0)], ROW)
    Ks = scene.views.Ks.clone()
    images = list(scene.views.images)
    small = Views(images, Ks, scene.views.viewmats).gray(1, shrink=2)
    images[1] = small[..., None].expand(-1, -1, 3)
    Ks[1, :2] /= 2
    views = Views(images, Ks, scene.views.viewmats)
    swept = sweep_first(views, grid(), torch.tensor([[1, 2]] * 5))
    true = truth_at(scene.depths[0], grid())
    assert swept.confident.float().mean() > 0.5
    assert ((swept.depth / true - 1).abs()[swept.confident] < 0.02).float().mean() > 0.95


def test_a_patch_does_not_depend_on_the_others():
    scene = shots([wall(4.0, tilt=30)], ROW)
    pixels = grid()
    together = sweep_first(scene.views, pixels)
    some = torch.arange(3, len(pixels), 7)
    alone = sweep_first(scene.views, pixels[some])
    for name, value in vars(alone).items():
        assert torch.equal(value.nan_to_num(-9), getattr(together, name)[some].nan_to_num(-9)), name


@pytest.mark.skipif(native() is None, reason="no native kernels on this machine")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-3)])
@pytest.mark.parametrize("patch", [3, 7])
@pytest.mark.parametrize("tilted", [False, True])
@pytest.mark.parametrize("kernels", [native, on_host], ids=["cpu", "cuda's as loops"])
def test_native_correlation_is_the_twin(kernels, tilted, patch, dtype, tolerance, monkeypatch):
    """Also of patches that leave the neighbour, of neighbours that are missing, and of masked pixels."""
    monkeypatch.setattr("lpm.multiview.patch_warp.native", kernels)
    torch.manual_seed(0)
    views = shots([wall(4.0, tilt=30)], ROW).views
    views.masks = [torch.rand(HEIGHT, WIDTH) > 0.001 for _ in range(len(views))]
    pixels = grid(12)
    p, h = len(pixels), 24
    view = torch.arange(p) % 2
    ref, _ = reference(views, view, pixels, patch)
    neighbours = torch.tensor([[1, 2, 3, 4], [0, 2, -1, 3]])[view]
    warp = Warp(views, view, pixels, neighbours, ref, patch)
    warp.a, warp.b, warp.ref = (t.to(dtype) for t in (warp.a, warp.b, warp.ref))
    rows = torch.arange(0, p, 3)
    w = torch.linspace(0.01, 1.2, h, dtype=dtype).expand(len(rows), h)
    slope = 2e-3 * torch.randn(len(rows), h, 2, dtype=dtype) if tilted else None
    got = warp.zncc(rows, w, slope)
    monkeypatch.setenv("LPM_NATIVE", "off")
    wanted = warp.zncc(rows, w, slope)
    seen = wanted > UNSEEN
    assert torch.equal(got > UNSEEN, seen)
    assert 0.2 < seen.double().mean() < 0.8
    textured = ref.isfinite().all(1)[rows][:, None, None] & seen
    assert wanted[textured].amax() > 0.9
    torch.testing.assert_close(got[textured], wanted[textured], rtol=0, atol=tolerance)


def test_plane_sweep_in_the_room(room):
    """Every 16th pixel of every view, near to far as a scene's bounds would be; the truth is ray-traced."""
    found = covisible(room.views, room.points)
    assert (found.neighbours >= 0).float().mean() > 0.9
    width, height = (int(n) for n in room.views.sizes[0])
    y, x = torch.meshgrid(torch.arange(8, height, 16), torch.arange(8, width, 16), indexing="ij")
    x, y = x.reshape(-1), y.reshape(-1)
    view = torch.arange(16).repeat_interleave(len(x))
    true = torch.cat([d[y, x] for d in room.depths])
    # Where a patch lies on one surface, opaque, in the room.
    flat = [F.max_pool2d(d[None], 7, 1, 3)[0] / -F.max_pool2d(-d[None], 7, 1, 3)[0] < 1.3 for d in room.depths]
    plain = torch.cat([f[y, x] for f in flat]) & (torch.cat([n[y, x] for n in room.labels]) == 0)
    pixels = torch.stack([x, y], 1).repeat(16, 1) + 0.5
    swept = plane_sweep(room.views, view, pixels, found.neighbours, torch.tensor(0.6), torch.tensor(20.0))
    good = plain & swept.confident
    error = (swept.depth / true - 1).abs()
    assert good.sum() / plain.sum() >= 0.6
    assert (error[good] < 0.02).float().mean() >= 0.93
    assert (error[good] < 0.05).float().mean() >= 0.97
    assert error[good].median() < 0.004


# -- matches -------------------------------------------------------------------------------------------------------


def test_matches_lie_on_surfaces(room):
    found = covisible(room.views, room.points)
    matches = sift_points(room.views, found.neighbours)
    assert len(matches) > 1500
    assert (matches.error_px <= 2).all()
    assert (matches.parallax_deg >= 2).all()
    assert (matches.views[:, 0] < matches.views[:, 1]).all()
    view, pixels = matches.views[:, 0], matches.pixels[:, 0].long()
    true = torch.stack([room.depths[v][y, x] for v, (x, y) in zip(view.tolist(), pixels.tolist(), strict=True)])
    z = project(matches.xyz[:, None], room.views.viewmats[view], room.views.Ks[view])[1][:, 0]
    error = (z / true - 1).abs()
    assert error.median() < 0.005
    # A pixel is worth the more depth, the less parallax there is.
    in_pixels = error * matches.parallax_deg.deg2rad() * room.views.Ks[0, 0, 0]
    assert (in_pixels < 1).float().mean() > 0.95
    assert (error < 0.02)[matches.parallax_deg > 8].float().mean() > 0.9
    assert ((matches.rgb >= 0) & (matches.rgb <= 1)).all()


def test_matches_have_no_offset():
    """Half a pixel of shift in the positions of features would move a wall by 1 % here."""
    scene = shots([wall(4.0)], [camera(0.0), camera(0.6, yaw=0)])
    matches = sift_points(scene.views, torch.tensor([[1], [0]]))
    assert len(matches) > 50
    assert abs(float(matches.xyz[:, 2].median()) / 4.0 - 1) < 0.002
    across = scene.views.images[0].shape[1]
    x = matches.pixels[:, 0, 0] - matches.pixels[:, 1, 0]
    assert abs(float(x.median()) - 0.6 / 4 * FOCAL) < 0.05 < across


def test_masked_features_do_not_match():
    scene = shots([wall(4.0)], ROW[:3])
    masks = [torch.ones(HEIGHT, WIDTH, 1) for _ in range(3)]
    masks[0][:, :80] = 0
    views = Views(scene.views.images, scene.views.Ks, scene.views.viewmats, masks)
    matches = sift_points(views, torch.tensor([[1], [-1], [-1]]))
    assert len(matches) > 20
    assert (matches.pixels[:, 0, 0] > 80).all()


def equal(a: Matches, b: Matches) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in vars(a))


def test_cache(tmp_path, monkeypatch):
    views = shots([wall(4.0)], ROW[:3]).views
    neighbours = torch.tensor([[1, 2], [0, 2], [0, 1]])
    made = sift_points(views, neighbours, cache=tmp_path / "new")
    (file,) = (tmp_path / "new").iterdir()

    calls = []
    monkeypatch.setattr(feature_matches, "detect_features", lambda *a: calls.append(a) or pytest.fail("detected again"))
    assert equal(made, sift_points(views, neighbours))  # memory
    feature_matches._memory.clear()
    assert equal(made, sift_points(views, neighbours, cache=tmp_path / "new"))  # folder
    monkeypatch.undo()
    feature_matches._memory.clear()
    file.write_bytes(file.read_bytes()[:100])
    assert equal(made, sift_points(views, neighbours, cache=tmp_path / "new"))  # broken: made again
    assert [f.name for f in (tmp_path / "new").iterdir()] == [file.name]
    changed = [i.clone() for i in views.images]
    changed[1][5, 5] += 0.5
    sift_points(Views(changed, views.Ks, views.viewmats), neighbours, cache=tmp_path / "new")
    assert len(list((tmp_path / "new").iterdir())) == 2


def test_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        sift_points(shots([wall(4.0, seed=8)], ROW[:2]).views, torch.tensor([[1], [0]]), cache=tmp_path / "file")


# -- the same for everybody ----------------------------------------------------------------------------------------


def test_same_bits_for_any_number_of_threads():
    scene = shots([wall(4.0, tilt=30)], ROW)
    points = surface_points(wall(4.0, tilt=30), 3000)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            feature_matches._memory.clear()
            found = covisible(scene.views, points)
            swept = sweep_first(scene.views, grid(4), found.neighbours)
            matches = sift_points(scene.views, found.neighbours, threads=threads)
            results.append([*found, *vars(swept).values(), *vars(matches).values()])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a.nan_to_num(-9), b.nan_to_num(-9))


def test_import_needs_no_host():
    modules = "lpm.multiview.covisibility, lpm.multiview.feature_matches, lpm.multiview.plane_sweep"
    code = f"import sys, {modules}; assert not {{'gsplat', 'nerfstudio'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.gpu
def test_cuda_agrees_with_cpu():
    scene = shots([wall(4.0, tilt=30)], ROW)
    points = surface_points(wall(4.0, tilt=30), 3000)
    there = Views(scene.views.images, scene.views.Ks, scene.views.viewmats.cuda())
    a, b = covisible(scene.views, points), covisible(there, points.cuda())
    assert torch.equal(a.neighbours, b.neighbours.cpu())
    s, t = sweep_first(scene.views, grid(), a.neighbours), sweep_first(there, grid(), b.neighbours)
    assert (s.confident == t.confident.cpu()).float().mean() > 0.98
    both = s.confident & t.confident.cpu()
    assert (s.depth / t.depth.cpu() - 1)[both].abs().max() < 1e-3
    feature_matches._memory.clear()
    m = sift_points(scene.views, a.neighbours)
    feature_matches._memory.clear()
    n = sift_points(there, b.neighbours)
    assert len(m) == len(n)
    assert torch.allclose(m.xyz, n.xyz.cpu(), atol=1e-4)


@pytest.mark.slow
def test_fox(real_data):
    """The budget of preprocessing: 50 photos of 270 x 480 in at most 5 seconds; CPU seconds do not mind other work."""
    fox = from_folder(real_data / "fox", shrink=2)
    feature_matches._memory.clear()
    before, wall_before = time.process_time(), time.perf_counter()
    found = covisible(fox.views, fox.points)
    matches = sift_points(fox.views, found.neighbours)
    cpu, seconds = time.process_time() - before, time.perf_counter() - wall_before
    print(f"covisible and matches: {seconds:.2f} s, {cpu:.2f} CPU seconds, {len(matches)} matches")
    assert (found.neighbours >= 0).float().mean() > 0.9
    assert len(matches) > 10_000
    assert matches.error_px.median() < 0.3
    assert (matches.error_px <= 2).all()
    assert cpu < 6
