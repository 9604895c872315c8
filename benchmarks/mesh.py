"""A mesh of lpm-export mesh --frame world against a sample scene's exact depths.

    lpm-scene make room FOLDER --views 40 --size 320x240; lpm-train FOLDER --out RUN --max-points 20000
    lpm-export mesh RUN room.ply --frame world
    python benchmarks/mesh.py room.ply FOLDER [--picture room.png] [--run RUN]

Truth: points of all depths that lie in the mesh's own box (what is behind the window is not asked for). Chamfer: the
mean of the mean distances from 200,000 points on the mesh to the nearest of truth, and from 200,000 of truth to the
nearest on the mesh. Scene size: the diagonal of truth's box. --run: also what other depths give in the same box: those
that one camera alone tells of, the mean instead of the median, and the exact ones.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from plyfile import PlyData
from scipy.spatial import cKDTree

from lpm.editing.opened import mode_of
from lpm.editing.simplifying import cameras_for
from lpm.exporting.cli import Surface
from lpm.exporting.depths import ALPHA, seen_surface
from lpm.exporting.mesh import seen_box
from lpm.exporting.tsdf import DepthMap, Grid, fuse, surface
from lpm.formats.cli import Options
from lpm.formats.export import prepare
from lpm.gaussians.parameters import NAMES
from lpm.render.rasterize import rasterize

POINTS = 200_000


def truth_maps(folder: Path) -> list[DepthMap]:
    """The exact depths of a sample scene."""
    scene = json.loads((folder / "transforms.json").read_text())
    K = torch.tensor([[scene["fl_x"], 0, scene["cx"]], [0, scene["fl_y"], scene["cy"]], [0, 0, 1]])
    maps = []
    for frame in scene["frames"]:
        name = Path(frame["file_path"])
        depth = torch.from_numpy(np.load(folder / "depth" / f"{name.stem}.npy")).float()
        c2w = torch.tensor(frame["transform_matrix"]) @ torch.diag(torch.tensor([1.0, -1, -1, 1]))
        color = torch.from_numpy(cv2.imread(str(folder / name))[..., ::-1].copy())
        maps.append(DepthMap(depth, color, torch.linalg.inv(c2w), K))
    return maps


def on_surface(xyz, faces, generator):
    """[POINTS, 3] drawn evenly from the triangles."""
    a, b, c = (xyz[faces[:, i]] for i in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    of = generator.choice(len(area), POINTS, p=area / area.sum())
    s, t = np.sqrt(generator.random((POINTS, 1))), generator.random((POINTS, 1))
    return (1 - s) * a[of] + s * (1 - t) * b[of] + s * t * c[of]


def drawn(xyz, faces, colors, at: DepthMap):
    """[H, W, 3] BGR: triangles from the farthest to the nearest, each in its mean colour, over magenta."""
    size = 3
    seen = xyz @ at.viewmat[:3, :3].numpy().T + at.viewmat[:3, 3].numpy()
    z = seen[:, 2]
    near = z.clip(1e-3)[:, None]
    pixels = seen[:, :2] / near * at.K.diagonal()[:2].numpy() + at.K[:2, 2].numpy()
    shown = faces[(z[faces] > 0.05).all(1)]
    shown = shown[np.argsort(-z[shown].mean(1))]
    picture = np.full((at.depth.shape[0] * size, at.depth.shape[1] * size, 3), (255, 0, 255), np.uint8)
    corners = np.round(pixels[shown] * size * 16).clip(-(2**20), 2**20).astype(np.int32)
    for corner, color in zip(corners, colors[shown].mean(1)[:, ::-1].tolist(), strict=True):
        cv2.fillConvexPoly(picture, corner, color, shift=4)
    return picture


def score(name, xyz, faces, true):
    """One row of the table; `true` [T, 3]."""
    size, generator = np.linalg.norm(np.ptp(true, 0)), np.random.default_rng(0)
    ours = on_surface(xyz, faces, generator)
    ways = cKDTree(true).query(ours)[0], cKDTree(ours).query(true[generator.choice(len(true), POINTS)])[0]
    means, shares = [way.mean() for way in ways], [(way < 0.01 * size).mean() for way in ways]
    numbers = " | ".join([f"{value:.4f}" for value in (sum(means) / 2, *means)] + [f"{share:.1%}" for share in shares])
    print(f"| {name} | {len(faces):,} | {numbers} |", flush=True)


def others(run: Path, exact: list[DepthMap]):
    """Meshes of the same box from other depths, with the command's own defaults."""
    how = Surface()
    loaded, chosen = prepare(run, Options(frame="world", sky=False))
    params = {name: chosen.params[name].detach() for name in NAMES}
    placed = replace(loaded, params=params, frame="world", offset=chosen.offset)
    cameras, mode = cameras_for(placed, params, None, "cpu"), mode_of(loaded)
    median = [seen_surface(params, cameras, v, mode) for v in range(len(cameras.sizes))]
    grid = Grid.around(*seen_box(median), how.resolution)
    mean = []
    for each in median:
        height, width = each.depth.shape
        blended, alpha, _ = rasterize(
            params["means"], params["quats"], params["scales"].exp(), torch.sigmoid(params["opacities"]).reshape(-1),
            params["features_dc"], each.viewmat[None], each.K[None], width, height, render_mode="RGB+ED",
            rasterize_mode=mode,
        )  # fmt: skip
        mean.append(replace(each, depth=torch.where(alpha[0, ..., 0] > ALPHA, blended[0, ..., -1], 0.0)))
    for name, maps, views in (("median, --views 1", median, 1), ("mean", mean, how.views), ("exact", exact, how.views)):
        yield name, surface(fuse(grid, maps, how.truncation * grid.voxel), views, how.smallest)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("mesh", type=Path)
    parser.add_argument("scene", type=Path)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--run", type=Path)
    args = parser.parse_args()
    ply = PlyData.read(str(args.mesh))
    xyz = np.column_stack([ply["vertex"][axis] for axis in "xyz"]).astype(np.float64)
    faces = np.stack(list(ply["face"]["vertex_indices"]))
    maps = truth_maps(args.scene)
    true = torch.cat([each.points() for each in maps]).double().numpy()
    true = true[((true >= xyz.min(0)) & (true <= xyz.max(0))).all(1)]
    said = "| depths | triangles | chamfer | to truth | from truth | of the mesh within 1 % | of truth within 1 % |"
    print(f"scene size {np.linalg.norm(np.ptp(true, 0)):.2f}\n{said}\n|---|" + "---|" * 6)
    score("median", xyz, faces, true)
    if args.run:
        for name, mesh in others(args.run, maps):
            score(name, mesh.vertices, mesh.faces, true)
    if args.picture:
        colors = np.column_stack([ply["vertex"][c] for c in ("red", "green", "blue")]).astype(np.float64)
        rows = []
        for v in (0, len(maps) // 3, 2 * len(maps) // 3):
            picture = drawn(xyz, faces, colors, maps[v])
            photo = cv2.resize(maps[v].color.numpy()[..., ::-1], picture.shape[1::-1])
            rows.append(np.hstack([photo, picture]))
        cv2.imwrite(str(args.picture), cv2.resize(np.vstack(rows), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))


if __name__ == "__main__":
    main()
