"""Progress of long work: readers and writers are told how to show it, and show nothing by themselves."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable

Progress = Callable[[range, str], Iterable[int]]
"""progress(steps, "writing") gives the steps one by one and may show how far it is."""


def quiet(steps: range, doing: str) -> Iterable[int]:
    """Shows nothing."""
    return steps


def bar(steps: range, doing: str) -> Iterable[int]:
    """A bar on a terminal, removed at the end; nothing where the output goes into a file."""
    if len(steps) < 8 or not sys.stderr.isatty():
        return steps
    from rich.console import Console
    from rich.progress import track

    return track(steps, doing, console=Console(stderr=True), transient=True)
