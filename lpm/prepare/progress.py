"""How far a stage is: a bar in a terminal; elsewhere, as in a file or a notebook, a line every quarter of a minute."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from lpm.checks import fail

EVERY = 15.0
"""Seconds from one line to the next."""
PHASE = re.compile(r"=== (?:Running )?(.+?) ===")
"""How COLMAP's log names what it begins."""


class Bar:
    """One stage's."""

    def __init__(self, name: str, total: int | None, console: Console, progress: Progress, task: TaskID) -> None:
        self.name, self.total, self.console = name, total, console
        self.progress, self.task, self.start = progress, task, time.perf_counter()
        self.done, self.said = 0, time.perf_counter()

    def set_total(self, total: int) -> None:
        """How much there is to do, where that was not known before."""
        self.total = total
        self.progress.update(self.task, total=total)

    def set_done(self, count: int) -> None:
        """How much of it is done."""
        self.done = count
        self.progress.update(self.task, completed=count)
        if not self.total or not count:
            return
        left = (time.perf_counter() - self.start) * (self.total - count) / count
        self._line(f"{count} of {self.total}, about {left:.0f} s left")

    def add(self, more: int = 1) -> None:
        """That so much more is done."""
        self.set_done(self.done + more if self.total is None else min(self.done + more, self.total))

    def phase(self, text: str) -> None:
        """What is being done, of a stage that cannot count."""
        self.progress.update(self.task, description=f"{self.name}: {text}")
        self._line(text)

    def _line(self, text: str) -> None:
        now = time.perf_counter()
        if not self.console.is_terminal and now - self.said >= EVERY:
            self.said = now
            self.console.print(f"{self.name}: {text}", highlight=False)


@contextmanager
def bar(console: Console, name: str, total: int | None, log: Path) -> Iterator[Bar]:
    """A bar while a stage runs, a line when it is done.

    Raises:
        LpmError: pycolmap failed; `log` is where it says why.
    """
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    columns = (TextColumn("{task.description:9}"), BarColumn(), MofNCompleteColumn(), *times)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        shown = Bar(name, total, console, progress, progress.add_task(name, total=total))
        try:
            yield shown
        except RuntimeError as error:  # what pycolmap raises
            got = (str(error) or type(error).__name__).splitlines()[0]
            fail(
                f"stage {name}",
                got,
                "pycolmap to do it",
                f"see {log}; repeat the command, or remove that folder and begin anew",
            )
    console.print(f"{name}: {time.perf_counter() - shown.start:.0f} s", highlight=False)


@contextmanager
def phases(shown: Bar, log: Path) -> Iterator[None]:
    """Shows what COLMAP's `log` says that it does: its global mapper tells nothing else before it ends."""
    with log.open(errors="replace") as file:
        file.seek(0, 2)

        def follow() -> None:
            found = PHASE.findall(file.read())
            if found:
                shown.phase(found[-1].lower())

        with every(1.0, follow):
            yield


@contextmanager
def every(seconds: float, look: Callable[[], None]) -> Iterator[None]:
    """Calls `look` again and again from a thread of its own, while a native call does not come back."""
    end = threading.Event()

    def watch() -> None:
        while not end.wait(seconds):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
