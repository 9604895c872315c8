"""What a run says in the terminal: lines, and one that shows how far it is."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

BARS = "▁▂▃▄▅▆▇█"
CURVE = 24
"""Most values of a curve that one line shows."""


def curve(values: list[float]) -> str:
    """`values` as a line of bars, the lowest to the highest; evenly spaced ones, and the last, where there are many."""
    if len(values) > CURVE:
        values = [values[i * (len(values) - 1) // (CURVE - 1)] for i in range(CURVE)]
    low, high = min(values, default=0.0), max(values, default=0.0)
    top = len(BARS) - 1
    return "".join(BARS[round((value - low) / (high - low) * top) if high > low else top] for value in values)


class Terminal:
    """Lines and one progress line below them; on something that is no terminal, lines alone."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)
        self._progress: Progress | None = None
        self._task: Any = None

    def say(self, text: str) -> None:
        """Prints a line, above the progress line if there is one."""
        self.console.print(Text.from_markup(text) if "[bold]" in text else Text(text))

    def begin(self, first: int, total: int) -> None:
        """Shows the progress line of steps `first` to `total`."""
        self._progress = Progress(
            TextColumn("training"), BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"),
            TimeRemainingColumn(), TextColumn("{task.fields[about]}"), console=self.console, refresh_per_second=4,
        )  # fmt: skip
        self._task = self._progress.add_task("", total=total, completed=first, about="")
        self._progress.start()

    def update(self, done: int, points: int, psnr: float | None) -> None:
        """Moves the progress line on: `done` steps, points, held-out PSNR (dB) where it was measured."""
        if self._progress is not None:
            about = f"{points:,} points" + ("" if psnr is None else f", {psnr:.2f} dB")
            self._progress.update(self._task, completed=done, about=about)

    def end(self) -> None:
        """Leaves the progress line as it is."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
