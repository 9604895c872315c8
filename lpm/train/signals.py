"""Ctrl-C and SIGTERM while a run trains, and the command that goes on from where it stopped."""

from __future__ import annotations

import shlex
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """While this is open the first SIGINT or SIGTERM is kept in `number`; the second ends the process at once."""

    def __init__(self, then: Callable[[], object] = lambda: None) -> None:
        """`then` is called at the first one, in the main thread, wherever it is."""
        self.number: int | None = None
        self._then, self._before = then, dict[int, Any]()

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, a shell's background job
                    self._before[number] = signal.signal(number, self._first)
        return self

    def _first(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        for each in self._before:
            signal.signal(each, signal.SIG_DFL)
        self._then()

    def leave(self) -> None:
        """Ends the process, if there was a signal, with the exit code that is usual for it."""
        if self.number is not None:
            raise SystemExit(128 + self.number)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


def resume_command(run: Path, arguments: list[str]) -> str:
    """The command that goes on from `run`: the one that started it (`arguments`, as in sys.argv), and where from."""
    program, method, *rest = [*arguments, "", ""][: max(2, len(arguments))]
    if not program.endswith("ns-train") or not method.startswith("lpm-splat"):
        program, method, rest = "ns-train", "lpm-splat", ["..."]
    kept, dropped = [], ("--load-dir", "--load-checkpoint", "--load-step")
    words = iter(rest)
    for word in words:
        name = word.split("=")[0].replace("_", "-")
        if name not in dropped:
            kept.append(word)
        elif "=" not in word:
            next(words, None)
    return shlex.join([Path(program).name, method, "--load-dir", str(run), *kept])
