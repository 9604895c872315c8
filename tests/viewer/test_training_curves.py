"""The page's curves: viser's own charts where it has them, plotly's in viser 0.2.7."""

import contextlib
from types import SimpleNamespace

import numpy as np

from lpm.records import EditRecord
from lpm.viewer.replay.data import Replay
from lpm.viewer.replay.recording import Snapshot
from lpm.viewer.training.curves import Curves


class Chart(SimpleNamespace):
    removed = False

    def remove(self):
        self.removed = True


class Gui:
    """A gui of viser 1 that keeps what it is asked for."""

    def __init__(self):
        self.made = []

    def add_uplot(self, data, series, **rest):
        assert len(data) == len(series)
        assert all(isinstance(column, np.ndarray) for column in data)
        self.made.append(Chart(data=data, labels=[one["label"] for one in series], visible=True, **rest))
        return self.made[-1]


def run_of(psnr):
    none = np.zeros((0, 3), np.float32)
    events = [EditRecord(100 * i, 0.1, [], [], i, 0, 0, 0, 0, 0, 1000 + i, None) for i in range(1, 4)]
    tested = [Snapshot(step=100 * i, added=none, removed=none, reset=none, psnr=value) for i, value in psnr]
    return Replay("run", events, tested)


def test_charts_of_viser_1():
    gui = Gui()
    curves = Curves(gui, contextlib.nullcontext(), 3.0)
    curves.draw(run_of([(1, 20.0)]))
    assert [(chart.title, chart.labels) for chart in gui.made] == [
        ("points", ["step", "points"]),
        ("edits", ["step", "added"]),
    ]  # one measurement is no curve
    np.testing.assert_array_equal(gui.made[0].data, [[100, 200, 300], [1001, 1002, 1003]])
    curves.draw(run_of([(1, 20.0), (3, 22.0)]))
    assert [chart.title for chart in gui.made] == ["points", "edits", "held-out PSNR, dB"]
    np.testing.assert_array_equal(gui.made[2].data, [[100, 300], [20, 22]])
    more = run_of([])
    more.events[0].pruned = 7
    curves.draw(more)  # a second curve in a plot makes it anew
    assert gui.made[1].removed
    assert gui.made[3].labels == ["step", "added", "removed"]
    curves.show(False)
    assert not gui.made[3].visible
    assert not gui.made[0].visible
