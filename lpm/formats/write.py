"""Writing Gaussians to a file whose ending says in which format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from lpm.checks import fail
from lpm.files import Progress, quiet
from lpm.formats.gltf import write_gltf
from lpm.formats.placement import Placement
from lpm.formats.ply import write_ply
from lpm.formats.ply_columns import written_comments
from lpm.formats.splat import write_splat
from lpm.formats.spz_write import write_spz
from lpm.formats.usd import check_usd, write_usd

USD = (".usd", ".usdc", ".usda", ".usdz")
ENDINGS = (".ply", ".splat", ".spz", ".glb", ".gltf", *USD)


def check_writable(out: Path) -> None:
    """Raises LpmError where write() has no format for the name of `out`, or lacks what writes it."""
    if out.suffix.lower() not in ENDINGS or out.name.endswith(".compressed.ply"):
        remedy = "lpm-export makes other formats of these"
        fail(out, f"ending {out.suffix!r}", ", ".join(ENDINGS), remedy)
    if out.suffix.lower() in USD:
        check_usd()


def write(out: Path, params: Mapping[str, Tensor], placement: Placement, progress: Progress = quiet) -> int:
    """Writes `params` (lpm.gaussians) to `out`, atomically; how many rows were left out since nobody can draw them.

    An offset of `placement` is in the file where the format has a place for it; a sidecar should have it, too.

    Raises:
        LpmError: no such format, no row is left, or it cannot be written.
    """
    check_writable(out)
    kind = out.suffix.lower()
    if kind == ".ply":
        comments = written_comments(placement.rasterize_mode, placement.offset)
        return write_ply(out, params, progress=progress, comments=comments)
    if kind == ".splat":
        return write_splat(out, params, progress)
    if kind == ".spz":
        return write_spz(out, params, antialiased=placement.rasterize_mode == "antialiased")
    return write_usd(out, params, placement) if kind in USD else write_gltf(out, params, placement, progress)
