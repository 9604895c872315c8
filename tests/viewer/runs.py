"""A small run with known events, for the tests of its replay."""

from pathlib import Path

import numpy as np

from lpm import records
from lpm.records import EditRecord, ZoneRecord
from lpm.viewer.replay import recording
from lpm.viewer.replay.recording import Snapshot

KINDS = ("false-front", "missing", "under-resolved", "no-evidence")


def box(size: float = 1.0, centre=(0.0, 0.0, 0.0)) -> np.ndarray:
    """Corners [8, 3] of a cube, in the order of a zone's."""
    face = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
    return np.array([[x, y, z] for z in (-1, 1) for x, y in face], float) * size / 2 + centre


def zone(kind: str, corners, error: float = 0.1) -> ZoneRecord:
    """A zone of view 0."""
    corners = [] if corners is None else np.asarray(corners).tolist()
    return ZoneRecord(kind, 0, (0, 0, 16, 16), (1.0, 2.0), error, 3, corners)


def event(step: int, zones, **more) -> EditRecord:
    """An event of one view."""
    values = {"cloned": 0, "split": 5, "inserted": 2, "pruned": 3, "reset": 1, "relocated": 0}
    values.update(points=1000 + step, budget=1200 + step, **more)
    return EditRecord(step=step, seconds=0.1, views=[0], zones=zones, **values)


def make_run(folder: Path, events: int = 4, points: int = 200, recorded: bool = True) -> Path:
    """A run with one cube of one kind at each event, the kinds taking turns, and points on a grid."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    for i in range(events):
        step = 100 * (i + 1)
        records.append(folder / "edits.jsonl", event(step, [zone(KINDS[i % 4], box()), zone("no-evidence", None)]))
        if recorded:
            added, removed, reset = generator.uniform(-0.4, 0.4, (3, points, 3)).astype(np.float32)
            whole = i % 2 == 0
            recording.write(folder / recording.FOLDER, Snapshot(
                step, added, removed, reset, psnr=20.0 + i if whole else None,
                means=generator.uniform(-1, 1, (300, 3)) if whole else None,
                colors=np.full((300, 3), 200, np.uint8) if whole else None,
            ))  # fmt: skip
    return folder
