"""What a run keeps of point management: a line an event (edits.jsonl), the replay's files, a line for the terminal."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lpm import records
from lpm.gaussians import spherical_harmonics
from lpm.train.model import GaussianModel
from lpm.viewer.replay import recording
from lpm.viewer.replay.data import EDITS

CLOUDS = 12
"""About so many events of a run are recorded with all points; the others with what they changed."""


class EventLog:
    """Writes each event of the model's strategy into the run's folder, and tells those who listen."""

    def __init__(self, folder: Path, model: GaussianModel, say: Callable[[str], Any]) -> None:
        """`folder`: the run's. `say`: takes a line for each event."""
        self.folder, self.model, self.say = folder, model, say
        self.on_record: list[Callable[[records.EditRecord], None]] = []
        """Called with every event."""
        self.on_snapshot: list[Callable[[records.EditRecord, recording.Snapshot], None]] = []
        """Called with every event of a strategy that tells where it changed something."""
        self._events = 0
        self._psnr: float | None = None
        plan = model.schedule
        self._cloud_every = max(1, (plan.stop - plan.start) // plan.every // CLOUDS)
        model.strategy.on_event = self._on_event

    def held_out(self, psnr: float) -> None:
        """Takes the PSNR (dB) of held-out photos; it goes with the next event."""
        self._psnr = psnr

    def clear(self) -> None:
        """Forgets what a run that was killed before its first checkpoint has left in the folder."""
        (self.folder / "edits.jsonl").unlink(missing_ok=True)
        shutil.rmtree(self.folder / recording.FOLDER, ignore_errors=True)

    def _on_event(self, record: records.EditRecord, changes: records.Changes | None) -> None:
        try:
            records.append(self.folder / "edits.jsonl", record)
        except OSError as error:
            self._not_recorded("events are", error)
        self.say(record.line())
        for listener in self.on_record:
            listener(record)
        if changes is None:  # a strategy that does not tell where
            return
        added, removed, reset = (recording.evenly_spaced(getattr(changes, name), recording.LIMIT) for name in EDITS)
        snapshot = recording.Snapshot(changes.step, added, removed, reset, psnr=self._psnr)
        self._psnr = None
        for told in self.on_snapshot:
            told(record, snapshot)
        self._record(replace(snapshot))  # listeners keep theirs, without all points

    def _record(self, snapshot: recording.Snapshot) -> None:
        params = self.model.gauss_params
        if self._events % self._cloud_every == 0:
            color = params["features_dc"].detach()
            rgb = spherical_harmonics.sh0_to_rgb(color) if self.model.config.sh_degree > 0 else torch.sigmoid(color)
            snapshot.means, snapshot.colors = params["means"].detach(), (rgb.clamp(0, 1) * 255).byte()
        self._events += 1
        try:
            recording.write(self.folder / recording.FOLDER, snapshot)
        except OSError as error:
            self._not_recorded("the replay is", error)

    def _not_recorded(self, what: str, error: OSError) -> None:
        # A replay with a gap is no reason to end a run.
        self.model.strategy.messages.once(
            what, f"lpm: {what} not recorded: {error.filename or self.folder}: {error.strerror}."
        )
