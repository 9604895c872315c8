"""Trained tiles to one model: of each, what its own cell holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lpm.checks import fail
from lpm.formats.ply import pad_sh
from lpm.formats.ply_columns import REST
from lpm.formats.read import load
from lpm.gaussians.far import Floats
from lpm.gaussians.similarity import move_far
from lpm.tile.cells import Cells


@dataclass
class Merged:
    """The whole of trained tiles, in the frame of the scene's poses."""

    params: dict[str, Tensor]
    """lpm.gaussians"""
    rasterize_mode: str
    offset: Floats
    """[3] to be added to the means where float32 cannot hold them (lpm.gaussians.far); else zeros."""


def merge(runs: Sequence[Path], cells: Cells, done: Callable[[], None] = lambda: None) -> Merged:
    """The Gaussians of all `runs`, one a cell.

    A Gaussian is taken from the tile in whose cell its centre lies: every place comes from one tile, which saw it and
    its surroundings, so there are neither doubles nor gaps.

    Raises:
        LpmError: a run cannot be read, does not know its frame, or was trained in another mode than the others.
    """
    if len(runs) != len(cells):
        fail("runs", str(len(runs)), f"{len(cells)}, one for each tile")
    parts, modes = [], {}
    offset: Floats | None = None  # the first tile's; the others lie around it
    for cell, run in enumerate(runs):
        loaded = load(run)
        if loaded.world_to_train is None:
            fail(run, "does not say where its scene lies", "a run with dataparser_transforms.json")
        params, offset = move_far(loaded.params, loaded.world_to_train.inverse(), offset)
        mine = torch.from_numpy(cells.holding(params["means"].double().numpy() + offset, cell))
        parts.append({name: value[mine] for name, value in params.items()})
        modes[run] = loaded.rasterize_mode or "classic"
        done()
    if len(set(modes.values())) > 1:
        fail("runs", ", ".join(f"{run.name} {mode}" for run, mode in modes.items()), "one rasterize_mode for all tiles")
    degree = max(REST.index(part["features_rest"].shape[1]) for part in parts)
    parts = [pad_sh(part, degree) for part in parts]
    assert offset is not None
    whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return Merged(whole, next(iter(modes.values())), offset)
