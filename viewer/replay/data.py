"""A finished run as its replay shows it: zones, edits and points of each event, and curves over the events."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lpm import records
from lpm.checks import fail
from lpm.records import EditRecord
from lpm.viewer.boxes import ZONE_COLORS
from lpm.viewer.replay import recording
from lpm.viewer.replay.recording import Snapshot

EDITS = ("added", "removed", "reset")
Curve = tuple[list[int], list[float | None]]


@dataclass
class Replay:
    """A run's events, oldest first, and what was recorded of them."""

    name: str
    events: list[EditRecord]
    snapshots: list[Snapshot]

    def boxes(self, event: int) -> dict[str, NDArray[np.float32]]:
        """Corners [Z, 8, 3] of an event's zones by kind. Zones of which no depth is known are no piece of space."""
        found: dict[str, list[list[list[float]]]] = {kind: [] for kind in ZONE_COLORS}
        for zone in self.events[event].zones:
            if len(zone.corners) == 8 and np.isfinite(zone.corners).all():
                found[zone.kind if zone.kind in found else "no-evidence"].append(zone.corners)
        return {kind: np.array(corners, np.float32).reshape(-1, 8, 3) for kind, corners in found.items()}

    def recent(self, event: int, last: int) -> dict[str, NDArray[np.float32]]:
        """Positions [M, 3] that the `last` events up to `event` added, removed and reset."""
        newest = self.events[event].step
        oldest = self.events[event - last].step if event >= last else -1
        chosen = [s for s in self.snapshots if oldest < s.step <= newest]
        none = np.zeros((0, 3), np.float32)
        return {name: np.concatenate([none, *(getattr(s, name) for s in chosen)]) for name in EDITS}

    def cloud(self, event: int) -> Snapshot | None:
        """The newest snapshot with all points that is not newer than the event; before the first, None."""
        step = self.events[event].step
        return max(
            (s for s in self.snapshots if s.means is not None and s.step <= step), key=lambda s: s.step, default=None
        )

    @cached_property
    def bounds(self) -> tuple[NDArray[np.float64], float]:
        """Centre [3] of the scene, and half the width of the cube around it with nine tenths of what there is."""
        places = [s.means for s in self.snapshots if s.means is not None] or [s.added for s in self.snapshots]
        if not sum(map(len, places)):
            places = [corners.reshape(-1, 3) for i in range(len(self.events)) for corners in self.boxes(i).values()]
        all_places = np.concatenate([np.zeros((0, 3)), *places])
        if not len(all_places):
            return np.zeros(3), 1.0
        centre = np.median(all_places, 0)
        return centre, max(1e-3, float(np.quantile(np.abs(all_places - centre).max(1), 0.9)))

    def curves(self) -> dict[str, Curve]:
        """Steps and values of: points, budget, error (mean over an event's zones), psnr (dB), and each kind of edit."""
        steps = [event.step for event in self.events]
        errors = [[zone.error for zone in event.zones if math.isfinite(zone.error)] for event in self.events]
        tested = [s for s in self.snapshots if s.psnr is not None]
        return {
            "points": (steps, [event.points for event in self.events]),
            "budget": (steps, [event.budget for event in self.events]),
            "error": (steps, [sum(e) / len(e) if e else None for e in errors]),
            "psnr": ([s.step for s in tested], [s.psnr for s in tested]),
            "added": (steps, [event.cloned + event.split + event.inserted for event in self.events]),
            "removed": (steps, [event.pruned for event in self.events]),
            "reset": (steps, [event.reset for event in self.events]),
            "relocated": (steps, [event.relocated for event in self.events]),
        }


def load(run: Path) -> Replay:
    """Reads a run's folder (or its config.yml, or its edits.jsonl).

    Raises:
        LpmError: there are no events in it, or a line that is none.
    """
    folder = run.parent if run.name in ("config.yml", "edits.jsonl") else run
    path = folder / "edits.jsonl"
    if not path.is_file():
        got = "no edits.jsonl in it" if folder.is_dir() else "no such folder"
        fail(folder, got, "the folder of an lpm-splat run with events", "outputs/SCENE/lpm-splat/DATE is one")
    snapshots = recording.read(folder / recording.FOLDER)
    try:
        replay = Replay(folder.absolute().name, records.read(path), snapshots)
        for i, event in enumerate(replay.events):  # whatever is wrong in it is found here and not while drawing
            event.line()
            replay.boxes(i)
        safe_json(replay.curves())
    except (TypeError, KeyError, ValueError, AttributeError, ArithmeticError, RecursionError):
        fail(path, "a line in it is no event", "what lpm-splat writes")
    if not replay.events:
        fail(path, "no event in it", "at least one", "the first comes 100 or more steps after the start")
    if not snapshots:
        said = f"{folder}: no {recording.FOLDER}/ in it: zones and counts are shown, edited points are not"
        print(said, file=sys.stderr)
    return replay


def safe_json(value: object) -> str:
    """JSON for a <script>: nothing in it can end the script."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
