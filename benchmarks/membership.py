#!/usr/bin/env python3
"""Times the votes of all views' zones on all points: the native kernel beside its torch twin.

    python benchmarks/membership.py --threads 2 --out benchmarks/results/membership_cpu.json

Both run in one process on the same tensors, in turn, repetition by repetition, so that whatever else the machine does
falls on both. Given are the least and the median wall time.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import statistics
import sys
import time
from pathlib import Path

import torch
from raster_cpu import machine
from torch import Tensor

from lpm.cuda.native import native
from lpm.zones.votes import zone_votes, zone_votes_torch
from lpm.zones.zone import KINDS, ViewZones, regions

WIDTH, HEIGHT, TILE = 480, 270, 16
MARGIN = 0.03


def make_points(n: int) -> Tensor:
    """[n, 3], world: the surface of a ball of radius 2 with a tenth of it as noise, and a wide cloud around it."""
    near = torch.nn.functional.normalize(torch.randn(n - n // 5, 3), dim=-1) * (2 + 0.2 * torch.randn(n - n // 5, 1))
    return torch.cat([near, torch.randn(n // 5, 3) * 6])[torch.randperm(n)]


def make_view(index: int, views: int, zones: int) -> ViewZones:
    """A camera on a circle of radius 6 around the points that looks at them, with `zones` zones of a few tiles each."""
    turn = 2 * math.pi * index / views
    viewmat = torch.eye(4)
    viewmat[0, 0] = viewmat[2, 2] = math.cos(turn)
    viewmat[0, 2], viewmat[2, 0], viewmat[2, 3] = math.sin(turn), -math.sin(turn), 6.0
    K = torch.tensor([[0.9 * WIDTH, 0, WIDTH / 2], [0, 0.9 * WIDTH, HEIGHT / 2], [0, 0, 1]])
    rows, columns = -(-HEIGHT // TILE), -(-WIDTH // TILE)
    error = torch.rand(rows, columns)
    for share in torch.arange(0.01, 1, 0.01).tolist():
        labels = regions(error, 1 - share, piece=2)
        if labels.max() >= zones:
            break
    labels[labels > zones] = 0
    has = torch.from_numpy(labels) > 0
    depth = torch.where(has, 4 + 2 * torch.rand(rows, columns), torch.nan)
    near, far = torch.where(has, depth * 0.95, torch.inf), torch.where(has, depth * 1.05, -torch.inf)
    kind = torch.where(has, torch.randint(len(KINDS), (rows, columns)), -1)
    return ViewZones(index, viewmat, K, (WIDTH, HEIGHT), TILE, near, far, depth, labels, kind)


def main() -> None:
    """Prints the table and, with --out, writes it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--zones", type=int, default=500, help="in all views together")
    parser.add_argument("--views", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--out", type=Path, help="JSON to write")
    options = parser.parse_args()
    if native() is None:
        sys.exit("error: no native kernels here, so there is nothing to time")
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    means = make_points(options.points)
    ends = [options.zones * i // options.views for i in range(options.views + 1)]
    zones = [make_view(i, options.views, ends[i + 1] - ends[i]) for i in range(options.views)]
    made = sum(int(view.labels.max()) for view in zones)

    functions = {"native": zone_votes, "torch": zone_votes_torch}
    times: dict[str, list[float]] = {name: [] for name in functions}
    for repeat in range(-2, options.repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function(means, zones, MARGIN)
            if repeat >= 0:
                times[name].append((time.perf_counter() - start) * 1e3)
    votes, twin = (function(means, zones, MARGIN) for function in functions.values())
    different = int(((votes.inside != twin.inside) | (votes.front != twin.front)).sum())

    result = dict(
        command=shlex.join(["python", *sys.argv]), points=len(means), zones=made, views=len(zones),
        tiles=sum(int((view.labels > 0).sum()) for view in zones),
        share_inside=(votes.inside > 0).float().mean().item(), share_front=(votes.front > 0).float().mean().item(),
        rows_that_differ=different,
        times_ms={name: dict(min=min(t), median=statistics.median(t)) for name, t in times.items()},
        machine=machine(),
    )  # fmt: skip
    print(
        f"{len(means):,} points, {made} zones of {result['tiles']} tiles, {len(zones)} views, {options.threads} threads"
    )
    print(
        f"inside {result['share_inside']:.1%}, in front {result['share_front']:.1%} of the points, {different} differ"
    )
    print("| | min ms | median ms |\n|---|---|---|")
    for name, t in result["times_ms"].items():
        print(f"| {name} | {t['min']:.2f} | {t['median']:.2f} |")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
