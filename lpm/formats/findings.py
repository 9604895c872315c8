"""What lpm-inspect tells: counts, ranges and histograms of Gaussians."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from lpm.formats.moving import moves, moving_rows
from lpm.formats.read import Loaded
from lpm.formats.rows import SHORTEST, finite_rows
from lpm.gaussians.far import numbers
from lpm.gaussians.parameters import NAMES

BARS = 24  # characters of the longest bar of a histogram
FLAT = 1e-7  # of the longest side: a size that float32 pictures cannot tell from nothing
INVISIBLE = 1 / 255  # an alpha below which rasterizers draw nothing


@dataclass
class Findings:
    """What inspect() finds; bounds, opacities and scales are of the finite rows."""

    count: int
    sh_degree: int
    non_finite: dict[str, int]
    """Rows with a NaN or infinity, by parameter, where there are any."""
    non_finite_rows: int
    zero_quats: int
    """Rotations shorter than 1e-6, which stand for nothing."""
    flat: int
    """Gaussians with a side below 1e-7 of their longest."""
    invisible: int
    """Opacity below 1/255: no rasterizer draws them."""
    low: list[float]
    high: list[float]
    middle: list[float]
    """Bounds of 98 % of the centres on each axis: from here ..."""
    middle_high: list[float]
    """... to here."""
    opacities: Tensor
    """[N] 0..1"""
    log10_scales: Tensor
    """[N] of the longest side."""


def inspect(params: dict[str, Tensor]) -> Findings:
    """Counts and ranges of `params` (lpm.gaussians)."""
    n = len(params["means"])
    finite = finite_rows(params)
    bad = {name: int((~torch.isfinite(params[name]).reshape(n, -1).all(1)).sum()) for name in NAMES}
    good = {name: params[name][finite] for name in ("means", "scales", "quats", "opacities")}
    opacities = torch.sigmoid(good["opacities"]).reshape(-1)
    spread = good["scales"].max(1).values - good["scales"].min(1).values
    means, some = good["means"], len(good["means"]) > 0
    ordered = means.sort(dim=0).values if some else torch.full((1, 3), math.nan)
    edge = len(ordered) // 100
    return Findings(
        count=n,
        sh_degree=math.isqrt(params["features_rest"].shape[1] + 1) - 1,
        non_finite={name: count for name, count in bad.items() if count},
        non_finite_rows=n - int(finite.sum()),
        zero_quats=int((good["quats"].norm(dim=1) < SHORTEST).sum()),
        flat=int((spread > -math.log(FLAT)).sum()),
        invisible=int((opacities < INVISIBLE).sum()),
        low=ordered[0].tolist(),
        high=ordered[-1].tolist(),
        middle=ordered[edge].tolist(),
        middle_high=ordered[-1 - edge].tolist(),
        opacities=opacities,
        log10_scales=good["scales"].max(1).values / math.log(10),
    )


def histogram(title: str, values: Tensor, low: float, high: float, bins: int, unit: str) -> Table:
    """A table of bars; values outside are in the first and the last one."""
    table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 1))
    width = (high - low) / bins
    counts = torch.bincount(((values - low) / width).long().clamp(0, bins - 1), minlength=bins)
    most = max(1, int(counts.max()))
    for i, count in enumerate(counts.tolist()):
        left, right = low + i * width, low + (i + 1) * width
        text = f"{left:.1f} to {right:.1f}" if unit == "" else f"{10**left:.3g} to {10**right:.3g}"
        table.add_row(text, "█" * math.ceil(BARS * count / most), f"{count:,}")
    return table


def report(loaded: Loaded, console: Console) -> Findings:
    """Prints what is in `loaded`."""
    found = inspect(loaded.params)
    size = loaded.path.stat().st_size
    table = Table(show_header=False, box=None, padding=(0, 1))

    def row(name: str, text: str) -> None:
        table.add_row(name, text)

    def triple(values: list[float]) -> str:
        return " ".join(f"{value:.4g}" for value in values)

    row("file", f"{loaded.path} ({loaded.kind})")
    row("size", f"{size / 1e6:.2f} MB, {size / max(found.count, 1):.1f} bytes a Gaussian")
    row("Gaussians", f"{found.count:,}")
    row("SH degree", str(found.sh_degree))
    if moves(loaded.params):
        count = int(moving_rows(loaded.params).sum())
        row("moves", f"{count:,} come and go or move; {found.count - count:,} stand still and stay")
    row("trained", loaded.rasterize_mode or "classic or antialiased: not known")
    row("frame", loaded.frame)
    if loaded.up is not None:
        row("up", triple(loaded.up))
    if loaded.offset.any():
        row("offset", f"{numbers(loaded.offset)}, to be added to what follows")
    row("bounds", f"{triple(found.low)}  to  {triple(found.high)}")
    row("98 % of them", f"{triple(found.middle)}  to  {triple(found.middle_high)}")
    bad = ", ".join(f"{count:,} in {name}" for name, count in found.non_finite.items())
    row("not finite", f"{found.non_finite_rows:,} rows" + (f" ({bad})" if bad else ""))
    row("degenerate", f"{found.zero_quats:,} without a rotation, {found.flat:,} flat (one side 1e-7 of another)")
    row("invisible", f"{found.invisible:,} (opacity below 1/255)")
    for note in loaded.notes:
        row("note", note)
    console.print(table)
    if len(found.opacities):
        console.print(histogram("opacity", found.opacities, 0, 1, 10, ""))
        low = math.floor(2 * float(found.log10_scales.quantile(0.01, interpolation="nearest"))) / 2
        high = math.ceil(2 * float(found.log10_scales.quantile(0.99, interpolation="nearest"))) / 2
        bins = min(12, max(1, round(2 * (high - low))))
        console.print(histogram("longest side", found.log10_scales, low, max(high, low + 0.5), bins, "log10"))
    return found
