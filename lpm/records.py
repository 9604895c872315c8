"""What point management did, event by event: the one thing that log, viewer, replay and tests read."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

ZoneKind = Literal["false-front", "under-resolved", "missing", "no-evidence"]


@dataclass
class ZoneRecord:
    """A piece of space that an error comes from: connected bad tiles of one view, between two depths."""

    kind: ZoneKind
    view: int
    """Index of the training view."""
    box: tuple[int, int, int, int]
    """x0, y0, x1, y1 of the tiles, pixels of that view."""
    interval: tuple[float, float]
    """Nearest and farthest z-depth, world units."""
    error: float
    """Mean pooled residual of the tiles before the event."""
    points: int = 0
    """Points inside."""
    corners: list[list[float]] = field(default_factory=list)
    """The 8 corners, world: four at the near depth, then four at the far one."""


@dataclass
class EditRecord:
    """One event of a strategy."""

    step: int
    seconds: float
    """Time spent on the event."""
    views: list[int]
    """Training views that were looked at."""
    zones: list[ZoneRecord]
    cloned: int
    split: int
    inserted: int
    pruned: int
    reset: int
    relocated: int
    points: int
    """Points after the event."""
    budget: int | None
    """Points that the growth curve allows at this step."""

    def line(self) -> str:
        """One line for a log."""
        kinds: dict[str, int] = {}
        for zone in self.zones:
            kinds[zone.kind] = kinds.get(zone.kind, 0) + 1
        zones = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items())) or "none"
        return (
            f"step {self.step}: zones: {zones}; +{self.cloned} cloned, +{self.split} split, +{self.inserted} inserted, "
            f"-{self.pruned} pruned, {self.relocated} relocated, {self.reset} reset; {self.points:,} points"
        )


@dataclass
class Changes:
    """Where an event changed something: positions [M, 3], world, on the device. For those who want to see it."""

    step: int
    added: Tensor
    removed: Tensor
    reset: Tensor


def append(path: Path, record: EditRecord) -> None:
    """Adds `record` to the JSON lines in `path`; one write, so that a kill leaves at most one broken last line."""
    with path.open("ab+") as file:
        broken = False
        if file.tell():
            file.seek(-1, 2)
            broken = file.read(1) != b"\n"
        file.write(("\n" * broken + json.dumps(record, default=vars) + "\n").encode())


def read(path: Path) -> list[EditRecord]:
    """The records in `path`, oldest first. A broken last line (a run that was killed) is passed over.

    After a resume an event can be there twice; the later one counts.
    """
    records: dict[int, EditRecord] = {}
    for line in path.read_text().splitlines():
        try:
            values: dict[str, Any] = json.loads(line)
        except json.JSONDecodeError:
            continue
        zones = [ZoneRecord(**{**zone, "box": tuple(zone["box"]), "interval": tuple(zone["interval"])})
                 for zone in values.pop("zones")]  # fmt: skip
        records[values["step"]] = EditRecord(zones=zones, **values)
    return [records[step] for step in sorted(records)]
