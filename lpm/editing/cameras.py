"""Cameras that an edit looks from: those of a scene or of a run's scene, or some that are drawn around the points."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lpm.checks import fail
from lpm.formats.picture import four_sides
from lpm.formats.read import Loaded
from lpm.gaussians.similarity import Similarity, from_dataparser
from lpm.multiview.views import LazyImages, Views, centres_of, look_at, world_to_camera
from lpm.runs.folder import CONFIGS, run_folder
from lpm.scenes.read import read_scene
from lpm.scenes.scene import camera_extent
from lpm.train.cameras import Cameras as PhotoCameras
from lpm.train.load_photos import Photo, PhotoReader, fitting_scale
from lpm.train.placed import place
from lpm.train.run_settings import FILE, RunSettings, read_settings

DRAWN, DRAWN_SIDE = 64, 400
"""Cameras that are drawn around the points, and pixels of each side of their pictures."""
GOLDEN = math.pi * (3 - math.sqrt(5))
"""Turns of a spiral that fills a sphere evenly, radians."""
HELD_OUT = 8
"""One in so many cameras only measures."""


@dataclass
class Cameras:
    """V pinhole cameras in the frame of the Gaussians, less their offset."""

    viewmats: Tensor
    """[V, 4, 4], world to camera (OpenCV axes)."""
    Ks: Tensor
    """[V, 3, 3], pixels."""
    sizes: Tensor
    """[V, 2] int64 width, height."""
    held_out: Tensor
    """[V] bool: what is seen from here only measures, as photos that are held out from training do."""
    points: Tensor
    """[P, 3] what the scene knows of its surfaces (SfM); [0, 3] of drawn cameras."""
    whose: str
    """What a person is told of where they are from."""
    photo: Callable[[int], Photo] | None = None
    """Reads the photo of a camera that does not only measure, by its number among these; None: there are none."""

    @property
    def extent(self) -> float:
        """1.1 times the largest distance of a camera from their mean, as in 3DGS."""
        return camera_extent(centres_of(self.viewmats.double()).cpu().numpy())

    def views(self) -> Views:
        """The cameras that do not only measure, without photos."""
        own = ~self.held_out
        return Views(_NoPhotos(self.sizes[own]), self.Ks[own], self.viewmats[own])


def in_four_photos(cameras: Cameras, side: int) -> tuple[Tensor, Tensor]:
    """Cameras [4, 4, 4] and [4, 3, 3], on the CPU, of pictures of `side` x `side` pixels: four photos' middles."""
    chosen = torch.linspace(0, len(cameras.viewmats) - 1, 4).round().long()
    viewmats, Ks, sizes = (each.cpu()[chosen] for each in (cameras.viewmats, cameras.Ks, cameras.sizes.to(cameras.Ks)))
    scale = side / sizes.amin(1, keepdim=True)
    Ks = torch.cat([Ks[:, :2] * scale[..., None], Ks[:, 2:]], 1)
    Ks[:, :2, 2] += (side - scale * sizes) / 2
    return viewmats, Ks


class _NoPhotos(LazyImages):
    def read(self, i: int) -> Tensor:
        raise AssertionError("edits look at cameras only")


def scene_cameras(source: Path, loaded: Loaded, device: str) -> Cameras:
    """The cameras of a scene's folder, or of the scene and at the size that a run was trained with.

    Photos with lens distortion are taken as they are trained on, as pinholes. Where `loaded` does not say its frame, it
    is taken to be the world's.

    Args:
        device: cpu or cuda, for the size of the pictures where no run tells it.

    Raises:
        LpmError: there is no such scene, or it is not told how the frame of `loaded` lies to the world.
    """
    settings = run_settings(source)
    read = read_scene(settings.scene, settings.data.outside_files, settings.data.lens_fov)
    placed = place(read, settings.data, settings.eval_every)
    if loaded.frame == "train" and loaded.world_to_train is None:
        fail("--scene", f"{loaded.path} does not say how its frame lies", "a run or an export with its sidecar")
    by = from_dataparser(placed.transform, placed.scale).inverse()  # now in the world's frame
    if loaded.frame == "train" and loaded.world_to_train is not None:
        by = by.then(loaded.world_to_train)
    by = by.then(Similarity(np.eye(3), -loaded.offset, 1.0))
    longest = int(placed.train.cameras.sizes.max())
    scale = settings.scale or fitting_scale(longest, device)
    splits = [placed.train] if settings.eval_every == 0 else [placed.train, placed.test]
    readers = [PhotoReader(split, scale, placed.alpha_color) for split in splits]
    parts = [_moved(reader.cameras, by) for reader in readers]
    held = torch.cat([torch.full((len(split),), i == 1) for i, split in enumerate(splits)])
    viewmats, Ks, sizes = (torch.cat(column) for column in zip(*parts, strict=True))
    xyz = torch.zeros(0, 3) if placed.xyz is None else placed.xyz
    moved = torch.from_numpy(xyz.double().numpy() @ by.rotation.T * by.scale + by.translation).float()
    whose = f"{len(held)} cameras of {settings.scene.name}"
    return Cameras(viewmats, Ks, sizes, held, moved, whose, readers[0])


def run_settings(source: Path) -> RunSettings:
    """The settings of the run `source`, or those that a run of the scene `source` would have."""
    file = settings_file(source)
    return read_settings(file) if file.is_file() else RunSettings(scene=source)


def settings_file(source: Path) -> Path:
    """Where the settings of `source` are if it is a run."""
    return (source.parent if source.name in CONFIGS else source) / FILE


def own_scene(loaded: Loaded) -> Path | None:
    """The run that `loaded` is from, where its scene is still there."""
    folder = run_folder(loaded.path)
    if loaded.kind != "checkpoint" or not (folder / FILE).is_file():
        return None
    return folder if read_settings(folder / FILE).scene.is_dir() else None


def _moved(cameras: PhotoCameras, by: Similarity) -> tuple[Tensor, Tensor, Tensor]:
    """viewmats, Ks and sizes of `cameras`, moved by `by`."""
    c2w = cameras.c2w.double().numpy()
    rotation = by.rotation @ c2w[:, :, :3]
    places = c2w[:, :, 3] @ by.rotation.T * by.scale + by.translation
    moved = torch.from_numpy(np.concatenate([rotation, places[:, :, None]], 2))
    return world_to_camera(moved).float(), cameras.Ks(), cameras.sizes


def drawn_cameras(params: Mapping[str, Tensor], up: Tensor, count: int = DRAWN, side: int = DRAWN_SIDE) -> Cameras:
    """Cameras around the middle 98 % of the Gaussians, as lpm-inspect's pictures have them, and nearer ones.

    They lie on a spiral over the sphere; `up` [3] tells where its poles are.
    """
    sides, Ks = four_sides(params, up, side)
    places = centres_of(sides)
    up = torch.nn.functional.normalize(up, dim=0)
    middle = places.mean(0)
    along = places[0] - middle
    distance = float(along.norm())
    first = along / distance
    second = torch.linalg.cross(up, first)
    # four_sides looks at a point below the mean of its cameras: .25 of .97 of the way out.
    centre = middle - up * distance * 0.25 / 0.97
    turn = torch.arange(count) * GOLDEN
    height = 0.9 - 1.6 * (torch.arange(count) + 0.5) / count  # of -.7 to .9: few look from straight below
    flat = (1 - height.square()).sqrt()
    way = (flat * turn.cos())[:, None] * first + (flat * turn.sin())[:, None] * second + height[:, None] * up
    far = distance * torch.where(torch.arange(count) % 3 == 0, 0.6, 1.0)
    viewmats = torch.stack([look_at(centre + far[i] * way[i], centre, up) for i in range(count)])
    held = torch.arange(count) % HELD_OUT == HELD_OUT // 2
    sizes = torch.full((count, 2), side)
    Ks = Ks[:1].expand(count, 3, 3).contiguous()
    return Cameras(viewmats, Ks, sizes, held, torch.zeros(0, 3), f"{count} cameras drawn around the points")


def on_device(cameras: Cameras, device: str) -> Cameras:
    """The same with matrices on `device`."""
    return replace(cameras, viewmats=cameras.viewmats.to(device), Ks=cameras.Ks.to(device))
