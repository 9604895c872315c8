#!/usr/bin/env python3
"""The pictures of docs/method.md, from a real event on the sample scene `room`.

python benchmarks/method_figures.py --out docs/images/method_event.jpg
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import cv2
import numpy as np
import torch
from plain import PlainScene, Run
from planted import Watched
from torch import Tensor

from lpm.gaussians.edits import Edit
from lpm.multiview.views import project
from lpm.scenes.samples.make import make
from lpm.strategy.event import Event
from lpm.zones.zone import KINDS, ViewZones

# RGB: red false front, blue under-resolved, green missing, gray without evidence.
COLORS = dict(zip(KINDS, [(225, 60, 50), (60, 120, 235), (40, 170, 70), (150, 150, 150)], strict=True))
SCALE = 2
STEPS = 2000


class Pictured(Watched):
    """Keeps the last event's edit."""

    def saw(self, event: Event, edit: Edit) -> None:
        super().saw(event, edit)
        self.before = {name: event.params[name].detach().clone() for name in ("means", "opacities")}
        self.edit = edit


def enlarged(image: Tensor | np.ndarray, nearest: bool = False) -> np.ndarray:
    """[H, W, 3] in 0..1 or bytes -> bytes, SCALE times larger."""
    array = np.asarray(image)
    if array.dtype != np.uint8:
        array = (array.clip(0, 1) * 255 + 0.5).astype(np.uint8)
    how = cv2.INTER_NEAREST if nearest else cv2.INTER_CUBIC
    return cv2.resize(array, None, fx=SCALE, fy=SCALE, interpolation=how)


def heat(values: Tensor, most: float, size: tuple[int, int]) -> np.ndarray:
    """A map as colours, at the size of the image."""
    bytes_ = (values / most).clamp(0, 1).mul(255).byte().numpy()
    bytes_ = cv2.resize(bytes_, size, interpolation=cv2.INTER_NEAREST)
    return cv2.cvtColor(cv2.applyColorMap(bytes_, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)


def boxes(picture: np.ndarray, zones: ViewZones) -> np.ndarray:
    """Tiles of all zones, tinted by kind, and their outlines."""
    picture = picture.copy()
    side = zones.tile * SCALE
    for (row, column), kind in np.ndenumerate(zones.kind.numpy()):
        if kind < 0:
            continue
        color = np.array(COLORS[KINDS[kind]])
        part = picture[row * side : (row + 1) * side, column * side : (column + 1) * side]
        part[:] = (0.55 * part + 0.45 * color).astype(np.uint8)
        cv2.rectangle(picture, (column * side, row * side), ((column + 1) * side - 1, (row + 1) * side - 1),
                      color.tolist(), 1)  # fmt: skip
    return picture


def dots(picture: np.ndarray, means: Tensor, zones: ViewZones, color: tuple[int, int, int]) -> None:
    """Draws `means` [N, 3] where the view shows them."""
    pixels, z = project(means, zones.viewmat, zones.K)
    for (x, y), depth in zip(pixels.tolist(), z.tolist(), strict=True):
        if depth > 0.05 and 0 <= x < zones.size[0] and 0 <= y < zones.size[1]:
            cv2.circle(picture, (int(x * SCALE), int(y * SCALE)), 2, color, -1, cv2.LINE_AA)


def titled(picture: np.ndarray, title: str) -> np.ndarray:
    """The picture under a line of text."""
    bar = np.full((26, picture.shape[1], 3), 255, np.uint8)
    cv2.putText(bar, title, (4, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (20, 20, 20), 1, cv2.LINE_AA)
    return np.concatenate([bar, picture])


def main() -> None:
    """Trains up to an event, draws it, writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step", type=int, default=400, help="of the event")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scene = PlainScene(make("room", Path(folder) / "room"))
    planted = torch.zeros(len(scene.points), dtype=torch.bool)
    planted[scene.truth["false_points"]["indices"]] = True
    strategy = Pictured(max_points=40_000, refine_start_iter=200, refine_stop_iter=STEPS * 5 // 6)
    strategy.watch(planted)
    run = Run(scene, strategy, scene.points, scene.rgb)
    order = torch.Generator().manual_seed(0)
    todo: list[int] = []
    for step in range(options.step):
        todo = todo or torch.randperm(len(scene.train), generator=order).tolist()
        run.step(step, STEPS, todo.pop())
    with torch.no_grad():
        renders = {v: run.render(i)[0] for v, i in enumerate(scene.train)}
    run.step(options.step, STEPS, todo.pop())

    # The view with the most to tell.
    kinds = {z.view: len(set(z.kind[z.kind >= 0].tolist())) * 100 + int((z.kind >= 0).sum()) for z in strategy.found}
    zones = next(z for z in strategy.found if z.view == max(kinds, key=lambda v: kinds[v]))
    photo = enlarged(scene.photos[scene.train[zones.view]].numpy())
    error = strategy.maps.maps[zones.view]
    swept = torch.where(torch.isfinite(zones.depth), 1 / zones.depth, 0.0)
    edit, before = strategy.edit, strategy.before
    edited = (photo * 0.35 + 160).astype(np.uint8)
    parents = torch.bincount(edit.source[edit.source >= 0], minlength=len(before["means"])) > 1
    dots(edited, before["means"][parents], zones, COLORS["under-resolved"])
    dots(edited, edit.params["means"][edit.source < 0], zones, COLORS["missing"])
    dots(edited, before["means"][edit.source[edit.cleared]], zones, COLORS["false-front"])
    size = (photo.shape[1], photo.shape[0])
    panels = [
        titled(photo, "photo"),
        titled(enlarged(renders[zones.view].numpy()), f"render at step {options.step}"),
        titled(heat(error, 0.2, size), "error map E[v], tiles of 8 pixels"),
        titled(boxes(photo, zones), "bad tiles: red false front, green missing, blue under-resolved, gray unknown"),
        titled(heat(swept, float(swept.max()), size), "inverse depth by the photos alone"),
        titled(edited, "edits: blue split, green inserted, red reset"),
    ]
    sheet = np.concatenate([np.concatenate(panels[i : i + 3], 1) for i in (0, 3)])
    sheet = cv2.resize(sheet, (1500, round(1500 * sheet.shape[0] / sheet.shape[1])), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(options.out), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])
    print(f"view {zones.view} of the event at step {options.step}; mean error: {float(error.mean()):.3f}")


if __name__ == "__main__":
    main()
