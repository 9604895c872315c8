"""Differences between two strategies, view by view and seed by seed, with an interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lpm.bench.jobs import hold_out_of

DRAWS = 4_000


@dataclass(frozen=True)
class Difference:
    """Mean of a difference and its bootstrap interval of 95 %."""

    mean: float
    low: float
    high: float
    pairs: int
    """Pairs of runs (same scene, seed, cap, start, hold-out)."""


def paired(runs: list[dict[str, Any]], other: list[dict[str, Any]], metric: str = "psnr") -> Difference | None:
    """`runs` less `other`, of views that have the metric; None without a common scene and seed.

    The mean is over scenes, each with the same weight. The bootstrap draws seeds and views within every scene, both
    with replacement: views of one scene err together, and so do the views of one seed. It says nothing of other
    scenes.
    """
    blocks: dict[str, list[NDArray[np.float64]]] = {}
    theirs = {(r["scene"], r["seed"], r["cap"], r["start"], hold_out_of(r)): r for r in other}
    for run in runs:
        match = theirs.get((run["scene"], run["seed"], run["cap"], run["start"], hold_out_of(run)))
        if match is not None:
            values = [{view["view"]: view[metric] for view in r["views"] if metric in view} for r in (run, match)]
            difference = np.array([values[0][name] - values[1][name] for name in sorted(values[0].keys() & values[1])])
            if len(difference) == 0:
                continue
            blocks.setdefault(run["scene"], []).append(difference)
    if not blocks:
        return None
    rng = np.random.default_rng(0)
    means, draws = [], np.zeros(DRAWS)
    for scene in sorted(blocks):
        block = np.stack(blocks[scene])  # [seeds, views]
        means.append(block.mean())
        seeds = rng.integers(len(block), size=(DRAWS, len(block)))
        views = rng.integers(block.shape[1], size=(DRAWS, block.shape[1]))
        draws += block[seeds[:, :, None], views[:, None, :]].mean((1, 2)) / len(blocks)
    low, high = np.percentile(draws, [2.5, 97.5])
    return Difference(float(np.mean(means)), float(low), float(high), sum(map(len, blocks.values())))
