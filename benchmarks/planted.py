#!/usr/bin/env python3
"""Planted defects: what localized point management does about a hole and false points whose place is known.

    python benchmarks/planted.py --scenes room garden --steps 2000 --out benchmarks/results/planted_cpu.json

`fitted`: a model is trained from points without a defect; then the hole's points are removed and false points planted;
one event over all views tells zones and resets, which are compared with the truth (recall, precision, false resets).
`trained`: whole runs from the sample scene's own points, which have the hole and the false points: `lpm` and `adc`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from plain import PlainScene, Run
from torch import Tensor

from lpm.gaussians import edits, parameters
from lpm.multiview.views import Views, project, unproject
from lpm.scenes.samples.make import make
from lpm.strategy.adc import AdcStrategy
from lpm.strategy.event import Event
from lpm.strategy.event_edit import EventEdit
from lpm.strategy.lpm import LpmStrategy
from lpm.zones.zone import FALSE_FRONT, MISSING, ViewZones, membership

CAP = 40_000


class WatchedEdit:
    """Makes the edits of `inner`, and shows them to `saw`."""

    def __init__(self, inner: EventEdit, saw: Callable[[Event, edits.Edit], None]) -> None:
        self.inner, self.saw = inner, saw

    def make(self, event: Event) -> edits.Edit:
        edit = self.inner.make(event)
        self.saw(event, edit)
        return edit


class Watched(LpmStrategy):
    """Keeps for each point which planted one it came from, and who was reset and where points were inserted."""

    def watch(self, planted: Tensor) -> None:
        """`planted` [N] bool of the starting points."""
        self.planted = planted
        self.hit: set[int] = set()
        self.was_reset: list[Tensor] = []
        self.were_inserted: list[Tensor] = []
        self.found: list[ViewZones] = []

    def attach(self, views: Views, points: Tensor | None, cache: Path | None = None) -> None:
        super().attach(views, points, cache)
        self.parts.edit = WatchedEdit(self.parts.edit, self.saw)

    def step_post_backward(self, params, optimizers, state, step, info, packed=False, lr=None) -> None:
        if "origin" not in state:
            state["origin"] = torch.where(self.planted, torch.arange(1, len(self.planted) + 1), 0)
        super().step_post_backward(params, optimizers, state, step, info, packed, lr)

    def saw(self, event: Event, edit: edits.Edit) -> None:
        """Called with the edit of each event."""
        self.found = event.zones
        rows = edit.source[edit.cleared]
        origin = event.state["origin"][rows]
        self.hit |= set(origin[origin > 0].tolist())
        self.was_reset.append(event.params["means"][rows[origin == 0]].detach().clone())
        self.were_inserted.append(edit.params["means"][edit.source < 0].clone())


def in_hole(scene: PlainScene, means: Tensor) -> Tensor:
    """[N] bool, inside the box of the planted hole."""
    hole = scene.truth["hole"]
    return ((means - torch.tensor(hole["centre"])).abs() <= torch.tensor(hole["size"]) / 2).all(1)


def true_points(scene: PlainScene, count: int) -> tuple[Tensor, Tensor]:
    """`count` points [N, 3] and colours on the surfaces that the training views see, the hole's too."""
    generator, means, colors = torch.Generator().manual_seed(0), [], []
    for i in scene.train:
        width, height = scene.size
        at = torch.randint(width * height, (count // len(scene.train),), generator=generator)
        y, x = at // width, at % width
        pixels, depth = torch.stack([x, y], 1) + 0.5, scene.depths[i][y, x]
        means.append(unproject(pixels, depth, scene.viewmats[i], scene.Ks[i]))
        colors.append(scene.photos[i][y, x])
    return torch.cat(means), torch.cat(colors)


def fitted(scene: PlainScene, steps: int, seed: int) -> dict[str, Any]:
    """Zones and resets of one event on a good model with planted defects."""
    strategy = LpmStrategy(max_points=CAP, refine_start_iter=steps // 10, refine_stop_iter=steps * 5 // 6, seed=seed)
    run = Run(scene, strategy, *true_points(scene, CAP // 2), seed)
    run.train(steps, seed=seed)
    quality = run.psnr()
    # The defects: no point in the hole, and opaque points of random colours before a surface.
    keep = ~in_hole(scene, run.params["means"].detach())
    ghosts = torch.tensor(scene.truth["false_points"]["positions"])
    n = len(ghosts)
    with torch.no_grad():
        size = 0.01 * scene.extent
        extra = parameters.from_points(ghosts, torch.randint(256, (n, 3)), 2, opacity=0.9)
        extra["scales"].fill_(size).log_()
    good = int(keep.sum())
    for name in run.params:
        both = torch.cat([run.params[name].detach()[keep], extra[name].detach()])
        run.params[name] = torch.nn.Parameter(both)
    run.optimizers = {name: torch.optim.Adam([p], lr=0.0) for name, p in run.params.items()}
    views = len(scene.train)
    strategy = Watched(
        max_points=10**6, refine_start_iter=0, refine_stop_iter=10**6, refine_every=10 * views, views_per_event=views,
        densify=False, prune=False, insert=False, seed=seed,
    )  # fmt: skip
    strategy.attach(scene.views(), scene.points)
    strategy.watch(torch.arange(good + n) >= good)
    run.strategy, run.state = strategy, strategy.initialize_state(scene.extent)
    for view in range(views):  # nothing moves: lr is 0
        run.step(9 * views + 1 + view, 10 * views + 1, view)
    result = {"psnr_before": quality, "views": views, **zone_quality(scene, strategy.found, ghosts, size)}
    wrong = torch.cat(strategy.was_reset)
    on_surface = run.off_surface(run.params["means"].detach()[:good]) < 0.02
    result["planted"] = n
    result["planted_reset"] = len(strategy.hit) / n
    result["good_reset"] = float((run.off_surface(wrong) < 0.02).sum()) / max(1, int(on_surface.sum()))
    result["reset_at_glass_or_sky"] = near_label(scene, wrong, ("pane", "background"))
    return result


def zone_quality(scene: PlainScene, found: list[ViewZones], ghosts: Tensor, size: float) -> dict[str, float]:
    """Recall and precision of zones with a depth against the planted defects.

    Recall: of the true surface in the hole that training views see, the share that is inside a zone of some view; of
    the false points that some view sees before the surface, the share in front of a false front. Precision: of the
    zones' cells (tile x interval), the share that the hole's surface or, in front, a false point is in.
    """
    surface, seen = [], torch.zeros(len(ghosts), dtype=torch.bool)
    right = {"all": 0, "defects": 0}
    cells = {"all": 0, "defects": 0}
    for view in found:
        i = scene.train[view.view]
        mark = scene.marked(i, "hole")
        y, x = mark.nonzero().unbind(1)
        surface.append(
            unproject(torch.stack([x, y], 1) + 0.5, scene.depths[i][y, x], scene.viewmats[i], scene.Ks[i])[::7]
        )
    points = torch.cat(surface)
    covered = torch.zeros(len(points), dtype=torch.bool)
    hit = torch.zeros(len(ghosts), dtype=torch.bool)
    for view in found:
        i = scene.train[view.view]
        inside, _, cell = membership(points, view, 0.0)
        covered |= inside
        has_hole = torch.zeros(view.near.numel()).index_add_(0, cell, inside.float()) > 0
        # A false point counts where nothing true hides it, with three standard deviations of its size.
        ghost_tiles = torch.zeros(view.near.shape, dtype=torch.bool)
        pixels, z = project(ghosts, scene.viewmats[i], scene.Ks[i])
        for (px, py), depth in zip(pixels.tolist(), z.tolist(), strict=True):
            if depth <= 0.05 or not (0 <= px < scene.size[0] and 0 <= py < scene.size[1]):
                continue
            if depth > 0.98 * float(scene.depths[i][int(py), int(px)]):
                continue
            reach = 3 * size * float(scene.Ks[i, 0, 0]) / depth
            rows = slice(max(0, int((py - reach) // view.tile)), int((py + reach) // view.tile) + 1)
            columns = slice(max(0, int((px - reach) // view.tile)), int((px + reach) // view.tile) + 1)
            ghost_tiles[rows, columns] = True
        _, front, cell = membership(ghosts, view, 0.03)
        hit |= front & (view.kind.flatten()[cell] == FALSE_FRONT)
        seen |= (z > 0.05) & (z < 0.98 * depth_at(scene, pixels, i))
        known = torch.isfinite(view.near)
        defect = has_hole.reshape(view.near.shape) | ghost_tiles
        for name, chosen in (
            ("all", known),
            ("defects", known & ((view.kind == MISSING) | (view.kind == FALSE_FRONT))),
        ):
            cells[name] += int(chosen.sum())
            right[name] += int((chosen & defect).sum())
    return {
        "recall_hole": float(covered.float().mean()),
        "recall_false_points": float(hit[seen].float().mean()),
        "precision": right["defects"] / max(1, cells["defects"]),
        "precision_with_under_resolved": right["all"] / max(1, cells["all"]),
        "cells": cells["defects"],
        "cells_with_under_resolved": cells["all"],
    }


def depth_at(scene: PlainScene, pixels: Tensor, i: int) -> Tensor:
    """[N] true depth at `pixels` [N, 2] of photo i; 0 outside."""
    x, y = pixels.nan_to_num(-1).floor().long().unbind(-1)
    width, height = scene.size
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    return torch.where(inside, scene.depths[i][y.clamp(0, height - 1), x.clamp(0, width - 1)], 0.0)


def near_label(scene: PlainScene, means: Tensor, labels: tuple[str, ...]) -> int:
    """How many of `means` [N, 3] stand on a surface that some training view shows with one of the labels."""
    hit = torch.zeros(len(means), dtype=torch.bool)
    for i in scene.train:
        pixels, z = project(means, scene.viewmats[i], scene.Ks[i])
        true = depth_at(scene, pixels, i)
        x, y = pixels.nan_to_num(0).floor().long().unbind(-1)
        width, height = scene.size
        for label in labels:
            mark = scene.marked(i, label)[y.clamp(0, height - 1), x.clamp(0, width - 1)]
            hit |= mark & (true > 0) & ((z - true).abs() < 0.05 * true)
    return int(hit.sum())


def trained(scene: PlainScene, name: str, steps: int, seed: int) -> dict[str, Any]:
    """A whole run from the sample scene's own points."""
    planted = torch.zeros(len(scene.points), dtype=torch.bool)
    planted[scene.truth["false_points"]["indices"]] = True
    options = dict(max_points=CAP, refine_start_iter=steps // 10)
    if name == "lpm":
        strategy: Any = Watched(**options, refine_stop_iter=steps * 5 // 6, seed=seed)
        strategy.watch(planted)
    else:
        strategy = AdcStrategy(**options, refine_stop_iter=steps // 2, reset_every=10**6, pause_refine_after_reset=0)
    run = Run(scene, strategy, scene.points, scene.rgb, seed)
    run.train(steps, seed=seed)
    result = {"psnr": run.psnr(), "psnr_hole": run.psnr("hole"), "points": len(run.params["means"])}
    result |= {
        f"psnr_{label}": run.psnr(label)
        for label in ("pane", "background")
        if run.scene.truth["pane"] or label != "pane"
    }
    if name != "lpm":
        return result
    # Dealt with: reset, or nothing that came from it is left. Harmless: what is left is faint, or near a surface.
    alive = run.state["origin"] > 0
    off = run.off_surface(run.params["means"].detach())
    opaque = torch.sigmoid(run.params["opacities"].detach()).flatten() > 0.05
    left = set(run.state["origin"][alive].tolist())
    standing = set(run.state["origin"][alive & opaque & (off > 0.05)].tolist())
    n = int(planted.sum())
    wrong = torch.cat(strategy.was_reset)
    inserted = torch.cat(strategy.were_inserted)
    distance = surface_distance(scene, inserted)
    return result | {
        "planted": n,
        "planted_reset": len(strategy.hit) / n,
        "planted_reset_or_pruned": 1 - len(left - strategy.hit) / n,
        "planted_no_longer_in_front": 1 - len(standing - strategy.hit) / n,
        "good_reset": int((run.off_surface(wrong) < 0.02).sum()),
        "good_reset_share": float((run.off_surface(wrong) < 0.02).sum()) / len(run.params["means"]),
        "resets": sum(map(len, strategy.was_reset)) + len(strategy.hit),
        "reset_at_glass_or_sky": near_label(scene, wrong, ("pane", "background")),
        "inserted": len(inserted),
        "inserted_in_hole": int(in_hole(scene, inserted).sum()),
        "inserted_within_2_percent": float((distance <= 0.02 * scene_size(scene)).float().mean()),
        "inserted_in_hole_within_2_percent": float(
            (distance <= 0.02 * scene_size(scene))[in_hole(scene, inserted)].float().mean()
        ),
        "inserted_median_distance": float(distance.median()) if len(distance) else None,
    }


def scene_size(scene: PlainScene) -> float:
    """Largest side of the box around the true points but the farthest twentieth."""
    points = scene.points
    return float((points.quantile(0.975, dim=0) - points.quantile(0.025, dim=0)).max())


def surface_distance(scene: PlainScene, means: Tensor) -> Tensor:
    """[N] distance of `means` to the nearest true surface point that a training view sees (pixels two apart), world."""
    from scipy.spatial import cKDTree

    surface = []
    width, height = scene.size
    y, x = torch.meshgrid(torch.arange(0, height, 2), torch.arange(0, width, 2), indexing="ij")
    pixels = torch.stack([x, y], -1).reshape(-1, 2) + 0.5
    for i in scene.train:
        depth = scene.depths[i][::2, ::2].flatten()
        surface.append(unproject(pixels, depth, scene.viewmats[i], scene.Ks[i]))
    distance, _ = cKDTree(torch.cat(surface).numpy()).query(means.numpy())
    return torch.from_numpy(distance).float()


ROWS = {
    "fitted": {
        "recall_hole": "true surface in the hole that is inside a zone",
        "recall_false_points": "visible false points in front of a false front",
        "precision": "cells of missing and false-front zones with a planted defect",
        "precision_with_under_resolved": "cells of all zones with a planted defect",
        "planted_reset": "false points reset in this one event",
        "good_reset": "points on a true surface that were reset",
        "reset_at_glass_or_sky": "points at the glass or the background that were reset",
    },
    "lpm": {
        "psnr": "PSNR, all pixels (dB)",
        "psnr_hole": "PSNR in the hole's pixels (dB)",
        "psnr_background": "PSNR in the background's pixels (dB)",
        "planted_reset_or_pruned": "false points reset or pruned by the end",
        "planted_no_longer_in_front": "false points reset, gone, faint, or at a surface by the end",
        "good_reset": "points on a true surface that were reset",
        "inserted_in_hole": "points inserted in the hole",
        "inserted_in_hole_within_2_percent": "of these within 2 % of the scene's size of the true surface",
        "inserted_within_2_percent": "of all inserted points within 2 %",
    },
    "adc": {
        "psnr": "PSNR, all pixels (dB)",
        "psnr_hole": "PSNR in the hole's pixels (dB)",
        "psnr_background": "PSNR in the background's pixels (dB)",
    },
}


def tables(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    scenes = [name for name, value in result.items() if isinstance(value, dict)]
    lines = [
        "# Planted defects on the sample scenes", "",
        f"A hole without points and 90 false points before a surface; {result['views']} views of 320x240, "
        f"{result['steps']:,} steps, at most {result['cap']:,} points.", "",
        f"`python benchmarks/planted.py --scenes {' '.join(scenes)} --steps {result['steps']}`",
    ]  # fmt: skip
    titles = {
        "fitted": "One event on a model that was fitted without a defect, into which they were planted",
        "lpm": "A whole run of `lpm` from the sample scene's own points",
        "adc": "The same run of `adc`",
    }
    for part, rows in ROWS.items():
        lines += ["", f"## {titles[part]}", "", f"| | {' | '.join(scenes)} |", "|---" * (len(scenes) + 1) + "|"]
        for key, text in rows.items():
            values = [result[scene].get(part, {}).get(key) for scene in scenes]
            shown = [
                "" if v is None else str(v) if isinstance(v, int) else f"{v:.2f}" if v > 1.5 else f"{v:.1%}"
                for v in values
            ]
            lines.append(f"| {text} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Makes the scenes, measures, prints, writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", nargs="+", default=["room", "garden"])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--views", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parts", nargs="+", default=["fitted", "lpm", "adc"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result: dict[str, Any] = {"steps": options.steps, "views": options.views, "cap": CAP, "seed": options.seed}
    for name in options.scenes:
        with tempfile.TemporaryDirectory() as folder:
            scene = PlainScene(make(name, Path(folder) / name, options.views))
        for part in options.parts:
            measured = (
                fitted(scene, options.steps, options.seed)
                if part == "fitted"
                else trained(scene, part, options.steps, options.seed)
            )
            result.setdefault(name, {})[part] = measured
            print(name, part, json.dumps(measured), flush=True)
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
        options.out.with_suffix(".md").write_text(tables(result))


if __name__ == "__main__":
    main()
