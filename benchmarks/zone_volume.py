#!/usr/bin/env python3
"""How much larger than the truth a zone is, by the angle between two views: ours beside the paper's sphere.

    python benchmarks/zone_volume.py --out benchmarks/results/zone_volume.md

A slanted, textured plane is photographed from two places; the bad region is a block of 3 x 3 tiles in the first photo.
The truth is the piece of space that the region's surface fills: its cone between its least and its greatest depth. The
paper's zone gets perfect matches. Ours is measured as points are tested against it (the sum of its tiles' cells) and as
it is shown (the region's cone between the nearest and the farthest of them).
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor

from lpm.multiview.frustum_intersection import bounding_sphere, frustum_intersection
from lpm.multiview.plane_sweep import plane_sweep
from lpm.multiview.views import Views, project, rays, unproject

SIZE, FOCAL, DEPTH, TILE = 240, 260.0, 4.0, 16
ANGLES = (5, 15, 30, 45)
HEAD = """# Volume of a zone over the truth, by the angle between two views

A slanted plane in two photos alone; in training up to four neighbours vote, those near 8 degrees first, and none
beyond 40. A tile gets a zone only where the photos agree on its depth: at large angles few do, and then there is no
zone rather than a wrong one. `zone`: the region's whole cone between the nearest and the farthest depth of its tiles,
over the same with the true depths. `cells`: each tile's own cone and interval, which points are tested against, over
the true extent within that tile. The paper's zone gets perfect matches.
"""


def texture(x: Tensor, y: Tensor, seed: int) -> Tensor:
    """Smooth random gray values at plane coordinates (world): waves from 4 to 25 pixels long."""
    draw = torch.Generator().manual_seed(seed)
    gray = torch.zeros_like(x)
    for _ in range(60):
        angle, phase, length = (float(torch.rand(1, generator=draw)) for _ in range(3))
        k = 2 * math.pi / (DEPTH / FOCAL * 4 * 6.0**length)
        gray += torch.sin(k * (x * math.cos(6.3 * angle) + y * math.sin(6.3 * angle)) + 6.3 * phase)
    return (0.5 + 0.5 * gray / 16).clamp(0, 1)


def photo(viewmat: Tensor, K: Tensor, tilt: float, seed: int) -> tuple[Tensor, Tensor]:
    """Image [SIZE, SIZE, 3] in 0..1 and z-depth of a plane through (0, 0, DEPTH), turned by `tilt` degrees about y."""
    side = torch.arange(SIZE) + 0.5
    y, x = torch.meshgrid(side, side, indexing="ij")
    ray = rays(torch.stack([x, y], -1), K).double() @ viewmat[:3, :3].double()
    origin = -(viewmat[:3, :3].T @ viewmat[:3, 3]).double()
    t = math.radians(tilt)
    normal = torch.tensor([math.sin(t), 0.0, math.cos(t)], dtype=torch.float64)
    across = torch.tensor([math.cos(t), 0.0, -math.sin(t)], dtype=torch.float64)
    centre = torch.tensor([0.0, 0.0, DEPTH], dtype=torch.float64)
    depth = ((centre - origin) @ normal) / (ray @ normal)
    at = origin + ray * depth[..., None] - centre
    return texture(at @ across, at[..., 1], seed).float()[..., None].expand(-1, -1, 3), depth.float()


def cell(near: Tensor, far: Tensor, pixels: float) -> Tensor:
    """Volume of the cone over so many square pixels between two z-depths."""
    return pixels / FOCAL**2 * (far**3 - near**3) / 3


def measure(angle: float, tilt: float, seed: int) -> dict[str, float]:
    """Volumes over the truth, and the share of the region's surface that ours holds."""
    K = torch.tensor([[FOCAL, 0, SIZE / 2], [0, FOCAL, SIZE / 2], [0, 0, 1]])
    second, a = torch.eye(4), math.radians(angle)
    second[0, 0] = second[2, 2] = math.cos(a)
    second[0, 2], second[2, 0] = math.sin(a), -math.sin(a)
    second[:3, 3] = torch.tensor([0.0, 0.0, DEPTH]) - second[:3, :3] @ torch.tensor([0.0, 0.0, DEPTH])
    viewmats, Ks = torch.stack([torch.eye(4), second]), K.expand(2, 3, 3).contiguous()
    shots = [photo(v, K, tilt, seed) for v in viewmats]
    views = Views([(s[0] * 255).round().byte() for s in shots], Ks, viewmats)
    depth = shots[0][1]

    first, last = SIZE // 2 - 24, SIZE // 2 + 24
    block = depth[first:last, first:last]
    true = cell(block.min(), block.max(), 48 * 48)
    middle = torch.arange(3) * TILE + first + TILE / 2
    y, x = torch.meshgrid(middle, middle, indexing="ij")
    pixels = torch.stack([x, y], -1).reshape(-1, 2)
    neighbours = torch.tensor([[1], [0]])
    swept = plane_sweep(
        views, torch.zeros(9, dtype=torch.long), pixels, neighbours, torch.tensor(2.0), torch.tensor(12.0)
    )
    ok = swept.confident
    near, far = swept.interval[:, 0] * 0.99, swept.interval[:, 1] * 1.01
    tiles = block.reshape(3, TILE, 3, TILE).permute(0, 2, 1, 3).reshape(9, -1)
    # Where no tile has evidence there is no zone, and nothing to compare.
    cells = shown = torch.tensor(torch.nan)
    if bool(ok.any()):
        cells = (
            cell(near[ok], far[ok], TILE * TILE).sum() / cell(tiles[ok].amin(1), tiles[ok].amax(1), TILE * TILE).sum()
        )
        shown = cell(near[ok].min(), far[ok].max(), 48 * 48) / true
    held = ((tiles >= near[:, None]) & (tiles <= far[:, None]))[ok].float().mean()

    side = torch.arange(first, last) + 0.5
    v, u = torch.meshgrid(side, side, indexing="ij")
    surface = unproject(torch.stack([u, v], -1).reshape(-1, 2), block.flatten(), viewmats[0], K)
    other, _ = project(surface, viewmats[1], K)
    box = (*other.amin(0).tolist(), *other.amax(0).tolist())
    vertices = frustum_intersection((first, first, last, last), K, viewmats[0], box, K, viewmats[1])
    sphere = torch.nan if vertices is None else 4 / 3 * math.pi * bounding_sphere(vertices)[1] ** 3
    return {
        "ours, cells": float(cells),
        "ours, as shown": float(shown),
        "tiles with evidence": float(ok.float().mean()),
        "surface held": float(held),
        "paper": sphere / float(true),
    }


def main() -> None:
    """Prints the table and, with --out, writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tilts", type=float, nargs="+", default=[-20, 20], help="of the plane, degrees")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="Markdown to write")
    options = parser.parse_args()
    lines = [
        "| angle | tilt | tiles with evidence | our zone | its cells | surface held | paper's sphere |",
        "|---|---|---|---|---|---|---|",
    ]
    for angle in ANGLES:
        for tilt in options.tilts:
            runs = [measure(angle, tilt, seed) for seed in range(options.seeds)]
            lines.append(f"| {angle} deg | {tilt:g} | " + " | ".join(summary(runs)) + " |")
    print("\n".join(lines))
    if options.out:
        tilts = " ".join(f"{tilt:g}" for tilt in options.tilts)
        command = f"python benchmarks/zone_volume.py --tilts {tilts} --seeds {options.seeds}"
        options.out.write_text("\n".join([HEAD, *lines, "", f"`{command}`"]) + "\n")


def summary(runs: list[dict[str, float]]) -> list[str]:
    """The table's columns: means over the runs that have a zone."""

    def mean(key: str) -> float:
        known = [r[key] for r in runs if not math.isnan(r[key])]
        return sum(known) / len(known) if known else math.nan

    def times(key: str) -> str:
        return "no zone" if math.isnan(mean(key)) else f"{mean(key):.2f}x"

    paper = "without end" if math.isnan(mean("paper")) else f"{mean('paper'):.1f}x"
    held = "" if math.isnan(mean("surface held")) else f"{mean('surface held'):.0%}"
    return [f"{mean('tiles with evidence'):.0%}", times("ours, as shown"), times("ours, cells"), held, paper]


if __name__ == "__main__":
    main()
