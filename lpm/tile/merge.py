"""Trained tiles to one model: of each, what its own cell holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from lpm.checks import fail
from lpm.formats.ply import REST, pad_sh
from lpm.formats.read import load
from lpm.gaussians.similarity import move
from lpm.tile.cells import Cells


def merge(runs: Sequence[Path], cells: Cells, done: Callable[[], None] = lambda: None) -> tuple[dict[str, Tensor], str]:
    """The Gaussians (lpm.gaussians) of all `runs`, one a cell, in the frame of the scene's poses; rasterize_mode.

    A Gaussian is taken from the tile in whose cell its centre lies: every place comes from one tile, which saw it and
    its surroundings, so there are neither doubles nor gaps.

    Raises:
        LpmError: a run cannot be read, does not know its frame, or was trained in another mode than the others.
    """
    if len(runs) != len(cells):
        fail("runs", str(len(runs)), f"{len(cells)}, one for each tile")
    parts, modes = [], {}
    for cell, run in enumerate(runs):
        loaded = load(run)
        if loaded.world_to_train is None:
            fail(run, "does not say where its scene lies", "a run with dataparser_transforms.json")
        params = move(loaded.params, loaded.world_to_train.inverse())
        mine = torch.from_numpy(cells.holding(params["means"].double().numpy(), cell))
        parts.append({name: value[mine] for name, value in params.items()})
        modes[run] = loaded.rasterize_mode or "classic"
        done()
    if len(set(modes.values())) > 1:
        fail("runs", ", ".join(f"{run.name} {mode}" for run, mode in modes.items()), "one rasterize_mode for all tiles")
    degree = max(REST.index(part["features_rest"].shape[1]) for part in parts)
    parts = [pad_sh(part, degree) for part in parts]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}, next(iter(modes.values()))
