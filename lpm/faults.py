"""What can go wrong around training: a folder in use, a signal, a step that cannot be used, memory that runs out."""

from __future__ import annotations

import fcntl
import os
import shlex
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from lpm import distributed
from lpm.checks import LpmError, fail

LOCK = ".lock"
"""In a run's folder; who trains there holds it, and the system lets go of it however that process ends."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)
MOST_IN_A_ROW = 10
READ_EVERY = 10
"""Steps after which the host waits for the device anyway, to log."""
_held: dict[Path, int] = {}


def claim(folder: Path) -> None:
    """Makes `folder`, if it is not there, and takes it for this process alone, until release().

    Raises:
        LpmError: another process has it, or nothing can be written there; what was made for it is gone again.
    """
    folder = folder.absolute()
    if folder in _held:
        return
    there = next(place for place in (folder, *folder.parents) if place.exists())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        os.pwrite(handle, b"\n", 0)  # a full disk takes names
    except OSError as error:
        remove_empty(folder, there)
        wanted = "a folder that can be written and has room"
        fail(folder, f"cannot be written ({error.strerror})", wanted, "give another with --output-dir")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        remedy = "wait until it ends, or give another --timestamp"
        fail(folder, "another run is writing there", "a folder for each run", remedy)
    except OSError:  # a file system without locks
        pass
    for left in folder.glob(".*.unfinished"):  # by a run that was killed
        left.unlink()
    _held[folder] = handle


def release(folder: Path) -> None:
    """Gives back what claim() took."""
    if folder.absolute() in _held:
        os.close(_held.pop(folder.absolute()))


def remove_empty(folder: Path, top: Path) -> None:
    """Removes `folder` and those above it, up to `top`, which stays, as far as nothing but our lock is in them."""
    while folder != top and top in folder.parents and folder.is_dir() and {p.name for p in folder.iterdir()} <= {LOCK}:
        (folder / LOCK).unlink(missing_ok=True)
        folder.rmdir()
        folder = folder.parent


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


def not_finite(tensors: list[Tensor]) -> Tensor:
    """[] 1 where any of `tensors` (floats, one device) holds a NaN or infinity, else 0; the host waits for nothing."""
    found = torch.zeros((), device=tensors[0].device)
    torch._amp_foreach_non_finite_check_and_unscale_(tensors, found, torch.ones_like(found))  # one pass; times 1
    return found


def out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory, of the device or the host, ran out, and this process can go on without.

    Where several train one model (lpm.distributed) it cannot: the others would wait for its part of the step.
    """
    if distributed.size() > 1:
        return False
    words = ("can't allocate memory", "not enough memory", "bad_alloc", "out of memory")
    said = isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    return said or isinstance(error, MemoryError)


def leave_out(info: dict[str, Any], strategy: Any, spoilt: Tensor) -> None:
    """Where `spoilt` [] is 1, a strategy finds in `info` that the step drew no point and moved none."""
    means2d = info["means2d"]
    if "radii" in info:
        info["radii"] = torch.where(spoilt > 0, 0, info["radii"])
    for name in ("grad", "absgrad"):
        if getattr(means2d, name, None) is not None:
            setattr(means2d, name, torch.where(spoilt > 0, 0, getattr(means2d, name)))


class LeftOut:
    """Steps that changed nothing, since their loss or gradient was not finite or memory ran out."""

    def __init__(self, image: Callable[[int | None], str], say: Callable[[str], object]) -> None:
        """`image`: the name of a training view."""
        self.image, self.say = image, say
        self.total = self.in_a_row = 0
        self._unread: list[tuple[int, int | None, Tensor]] = []

    def note(self, step: int, view: int | None, flag: Tensor) -> None:
        """Takes in not_finite() of a step on `view`; of a device it is read later, when the host waits anyway.

        Raises:
            LpmError: too many in a row.
        """
        self._unread.append((step, view, flag))
        if flag.is_cuda and step % READ_EVERY:
            return
        unread, self._unread = self._unread, []
        for (step, view, _), bad in zip(unread, torch.stack([flag for *_, flag in unread]).tolist(), strict=True):
            if bad:
                self.count(step, f"the loss or gradient of {self.image(view)} is not finite")
            else:
                self.in_a_row = 0

    def count(self, step: int, why: str) -> None:
        """One more. Raises LpmError where there were too many in a row."""
        self.total, self.in_a_row = self.total + 1, self.in_a_row + 1
        if self.total <= MOST_IN_A_ROW or self.total % 100 == 0:
            self.say(f"Step {step} is left out: {why} ({self.total} so far).")
        if self.in_a_row >= MOST_IN_A_ROW:
            raise LpmError(
                f"training: {MOST_IN_A_ROW} steps in a row could not be used, the last since {why}; wanted finite "
                "losses and room for a step; look at that image, lower learning rates or --pipeline.model.max-points"
            )


class Before:
    """Parameters, moments and statistics before an event, to go back to. Holds references and copies nothing."""

    def __init__(self, params: Any, optimizers: dict[str, torch.optim.Optimizer], state: dict[str, Any]) -> None:
        self.params, self.optimizers, self.state = params, optimizers, state
        self._params, self._state = dict(params.items()), dict(state)
        self._moments = {name: dict(o.state.get(self._params[name], {})) for name, o in optimizers.items()}

    def put_back(self) -> None:
        """An event replaces tensors; what it had replaced when it failed is undone."""
        self.state.clear()
        self.state.update(self._state)
        for name, optimizer in self.optimizers.items():
            self.params[name] = old = self._params[name]
            optimizer.state.clear()
            if self._moments[name]:
                optimizer.state[old] = self._moments[name]
            optimizer.param_groups[0]["params"] = [old]


def lower_cap(strategy: Any, points: int) -> int:
    """Lets `strategy` have no more than `points`, if it could have more; returns its cap."""
    name = "cap_max" if hasattr(strategy, "cap_max") else "max_points"
    setattr(strategy, name, min(getattr(strategy, name) or points, points))
    return getattr(strategy, name)
