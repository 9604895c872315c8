"""What every part says when it is given something it cannot use: one line with name, got, wanted and remedy."""

from __future__ import annotations

import importlib.util
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:  # torch takes a second to import, and a help text needs none
    from torch import Tensor


class LpmError(ValueError):
    """Something a user gave cannot be used. The text is one line that a person can act on."""


def fail(name: str | Path, got: str, wanted: str, remedy: str = "") -> NoReturn:
    """Raises LpmError with "name: got; wanted ...[; remedy]"."""
    text = f"{name}: {got}; wanted {wanted}" + (f"; {remedy}" if remedy else "")
    raise LpmError(" ".join(text.split()))


def check_shape(name: str, tensor: Tensor, shape: Sequence[int | None]) -> None:
    """Raises LpmError unless `tensor` has `shape`; None in `shape` stands for any size."""
    if tensor.dim() != len(shape) or any(w is not None and w != g for g, w in zip(tensor.shape, shape, strict=True)):
        wanted = "[" + ", ".join("any" if w is None else str(w) for w in shape) + "]"
        fail(name, f"shape {list(tensor.shape)}", wanted)


def check_finite(name: str, tensor: Tensor, rows: str = "row") -> None:
    """Raises LpmError naming the first row of `tensor` [N, ...] that holds a NaN or infinity."""
    import torch

    if math.isfinite(tensor.sum().item()):  # one cheap pass; a finite sum of overflowing values does not happen
        return
    bad = (~torch.isfinite(tensor)).reshape(len(tensor), -1).any(1).nonzero().flatten()
    if len(bad):
        fail(name, f"non-finite value in {rows} {int(bad[0])} ({len(bad)} in all)", "finite numbers")


def need(module: str, extra: str) -> None:
    """Raises LpmError unless `module` can be imported: it comes with lpm-splat[`extra`]. Imports nothing."""
    if importlib.util.find_spec(module) is None:
        fail(module, "is not installed", f"it, for this command; pip install 'lpm-splat[{extra}]'")


def one_line_errors(main: Callable[[], None]) -> None:
    """Runs a command's `main`; an LpmError becomes one line on stderr and exit code 2, never a traceback."""
    try:
        try:
            main()
        finally:
            sys.stdout.flush()
    except LpmError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # who read has gone, as in `lpm-scene list | head -1`: nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
