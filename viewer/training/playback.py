"""Play, pause and speed for a moving scene in the viewer of a run that is training, and its error over time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

PICTURES = 8
"""Times a second that the clip is moved on: what a run that trains beside it can draw."""
BARS = "▁▂▃▄▅▆▇█"


def strip(errors: dict[int, float], capture_times: Tensor) -> str:
    """A bar for each time step, its height by the mean error of the views taken then; blank where none was seen.

    Args:
        errors: view -> mean residual. capture_times: [V] of every view.
    """
    moments, step = capture_times.unique(return_inverse=True)
    total, count = torch.zeros(len(moments)), torch.zeros(len(moments))
    for view, error in errors.items():
        total[step[view]] += error
        count[step[view]] += 1
    mean = total / count.clamp_min(1)
    most = float(mean.max()) or 1.0
    seen = count > 0
    low = float(mean[seen].min()) if bool(seen.any()) else 0.0
    share = (mean - low) / max(most - low, 1e-9)
    return "".join(BARS[round(float(s) * 7)] if known else " " for s, known in zip(share, seen, strict=True))


class Clip:
    """A folder with the controls; moves the `time` of nerfstudio's control panel."""

    def __init__(
        self, server: Any, control: Any, errors: Callable[[], dict[int, float]], capture_times: Tensor
    ) -> None:
        """Builds the controls and starts the thread that plays.

        Args:
            control: has `time`, 0..1, which the pictures follow.
            errors: gives the mean error of each view that was seen. capture_times: [V] of every view.
        """
        self.server, self.control, self.errors, self.capture_times = server, control, errors, capture_times.cpu()
        self._playing, self._stopped = threading.Event(), False
        with server.gui.add_folder("Clip"):
            self.button = server.gui.add_button("Play")
            self.seconds = server.gui.add_slider(
                "Seconds", min=1.0, max=30.0, step=0.5, initial_value=5.0, hint="From the first frame to the last"
            )
            self.words = server.gui.add_markdown("")
        self.button.on_click(lambda _: self.toggle())
        self._thread = threading.Thread(target=self._run, name="lpm-clip", daemon=True)
        self._thread.start()

    def toggle(self) -> None:
        """Plays, or pauses."""
        if self._playing.is_set():
            self._playing.clear()
        else:
            self._playing.set()
        self.button.label = "Pause" if self._playing.is_set() else "Play"

    def draw(self) -> None:
        """Brings the strip up to date."""
        errors = self.errors()
        if errors:
            self.words.content = f"Error over time (lowest to highest)\n\n`{strip(errors, self.capture_times)}`"

    def stop(self) -> None:
        """Ends the thread."""
        self._stopped = True
        self._playing.set()
        self._thread.join(5)

    def _run(self) -> None:
        last = 0.0
        while not self._stopped:
            now = time.monotonic()
            if now - last > 2.0 and self.server.get_clients():
                self.draw()
                last = now
            if self._playing.wait(0.5) and not self._stopped:
                self.control.time = (float(self.control.time) + 1 / (PICTURES * float(self.seconds.value))) % 1.0
                time.sleep(1 / PICTURES)
