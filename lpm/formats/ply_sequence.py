"""A numbered PLY for each time step (name_0000.ply, name_0001.ply, ...), as players of moving Gaussians read them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from lpm.checks import fail
from lpm.files import Progress, check_new_folder, quiet, staging_folder
from lpm.formats.ply import read_ply, write_ply

NUMBERED = re.compile(r"(.+)_(\d{4,})\.ply$")


def write_ply_sequence(
    folder: Path,
    frame: Callable[[int], Mapping[str, Tensor]],
    count: int,
    name: str | None = None,
    progress: Progress = quiet,
    comments: Sequence[str] = (),
) -> int:
    """Writes `count` files into the new folder `folder`, which appears when all of them are there.

    Args:
        frame: frame(i) gives the parameters (lpm.gaussians) at step i; their number may change from step to step.
        name: what stands before the number (default: the folder's name).
        comments: for the header of each.

    Returns:
        The number of rows left out (see write_ply), over all steps.

    Raises:
        LpmError: the folder has something in it already, there is nothing to write, or it cannot be written.
    """
    if count < 1:
        fail(folder, f"{count} time steps", "at least one")
    check_new_folder(folder)
    dropped = 0
    with staging_folder(folder) as unfinished:
        for i in progress(range(count), "writing"):
            dropped += write_ply(unfinished / f"{name or folder.name}_{i:04d}.ply", frame(i), comments=comments)
        os.replace(unfinished, folder)
    return dropped


def sequence_files(folder: Path) -> list[Path]:
    """The numbered PLYs of `folder` in order.

    Raises:
        LpmError: none is there, their numbers have a gap, or there are two sequences.
    """
    found = sorted((m[1], int(m[2]), path) for path in folder.glob("*.ply") if (m := NUMBERED.match(path.name)))
    if not found:
        fail(folder, "no numbered PLY in it", "name_0000.ply, name_0001.ply, ...")
    if len({name for name, _, _ in found}) > 1:
        fail(folder, f"sequences {found[0][0]} and {found[-1][0]}", "one sequence in a folder")
    numbers = [number for _, number, _ in found]
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        fail(folder, f"{len(numbers)} files numbered {numbers[0]} to {numbers[-1]}", "numbers without a gap")
    return [path for _, _, path in found]


def read_ply_sequence(folder: Path) -> list[dict[str, Tensor]]:
    """The parameters of each time step; see read_ply() and sequence_files() for errors."""
    return [read_ply(path) for path in sequence_files(folder)]
