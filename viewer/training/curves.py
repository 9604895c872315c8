"""The curves of a run that is training, in the page: by viser's own charts, or by plotly where viser is older."""

from __future__ import annotations

from typing import Any

import numpy as np

from lpm.viewer.replay.curves import plots, rows
from lpm.viewer.replay.data import Replay


class Curves:
    """Held-out PSNR, points, errors and edits over the steps, drawn at first use.

    Viser 0.2.7, which nerfstudio holds, has plotly's charts only: the page is then sent 3 MB of plotly.
    """

    def __init__(self, gui: Any, place: Any, order: float) -> None:
        self.gui, self.place, self.order = gui, place, order
        self.charts: dict[str, Any] = {}

    def show(self, on: bool) -> None:
        """Shows or hides what is drawn."""
        for chart in self.charts.values():
            chart.visible = on

    def draw(self, replay: Replay) -> None:
        """What is known by now, in place of what was drawn."""
        if not hasattr(self.gui, "add_uplot"):
            figure = plots(replay, "plotly_dark")
            if "all" not in self.charts:
                with self.place:
                    self.charts["all"] = self.gui.add_plotly(figure, aspect=1.6, order=self.order)
            self.charts["all"].figure = figure
            return
        for title, lines in rows(replay):
            steps = next(iter(lines.values()))[0][0]
            columns = np.array([steps, *(values for (_, values), _ in lines.values())], np.float64)
            columns = columns[:, np.isfinite(columns).all(0)]
            if columns.shape[1] < 2:
                continue  # one step is no curve
            key = f"{title}: {' '.join(lines)}"  # a curve that comes later makes another chart
            if key in self.charts:
                self.charts[key].data = tuple(columns)
                continue
            for old in [old for old in self.charts if old.startswith(f"{title}: ")]:
                self.charts.pop(old).remove()
            series: list[dict[str, Any]] = [{"label": "step"}]
            series += [{"label": name, "stroke": color, "width": 2} for name, (_, color) in lines.items()]
            with self.place:
                self.charts[key] = self.gui.add_uplot(
                    tuple(columns), tuple(series), title=title, scales={"x": {"time": False}}, aspect=1.6,
                    order=self.order + 0.01 * len(self.charts),
                )  # fmt: skip
