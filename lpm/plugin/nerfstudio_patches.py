"""Patches of nerfstudio in this process: steady clocks, writers that outlive a full disk, threads that end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from types import SimpleNamespace
from typing import Any

from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.utils import writer
from nerfstudio.utils.rich_utils import CONSOLE
from nerfstudio.viewer import viewer

from lpm.viewer import compat


def mend() -> None:
    """Mends nerfstudio in this process: clocks that cannot jump, and writers that a full disk silences.

    By the wall clock its viewer would hold up a run that somebody looks at for as long as the clock is set back.
    """
    vars(viewer)["time"] = SimpleNamespace(time=time.monotonic, sleep=time.sleep)
    vars(writer)["time"] = time.monotonic
    if not hasattr(writer.write_out_storage, "__wrapped__"):
        writer.write_out_storage = _enduring(writer.write_out_storage)


def _enduring(write: Any) -> Any:
    def call() -> None:
        try:
            write()
        except OSError as error:
            CONSOLE.print(f"Tensorboard's files are not written from here on: {error.strerror or error}.")
            writer.EVENT_STORAGE.clear()
            writer.EVENT_WRITERS[:] = [w for w in writer.EVENT_WRITERS if isinstance(w, writer.LocalWriter)]

    call.__wrapped__ = write  # type: ignore[attr-defined]
    return call


def _passing(work: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(work)
    def call(*args: Any, **kwargs: Any) -> Any:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(work, *args, **kwargs).result()

    return call


def leave_no_threads_behind(render_state_machine: type) -> None:
    """From now on a page that was sent a picture by nerfstudio's RenderStateMachine leaves no OpenMP threads behind.

    A thread that has computed in parallel keeps its helpers for as long as it lives, and with more threads than cores
    libgomp lets none of them spin: each parallel part of a training step then wakes its helpers through the kernel,
    which made every step 5 to 8 % slower on two cores, whether a picture was being made or not.
    """
    for name in ("_render_img", "_send_output_to_viewer"):
        method = getattr(render_state_machine, name)
        if not hasattr(method, "__wrapped__"):
            setattr(render_state_machine, name, _passing(method))


def set_random_seed(seed: int) -> None:
    """Seeds Python, numpy and torch as ns-train does."""
    from nerfstudio.scripts.train import _set_random_seed  # loads all methods, ours too

    _set_random_seed(seed)


@contextlib.contextmanager
def free_viewer_port(config: TrainerConfig) -> Iterator[None]:
    """Where the viewer's port is taken, the next free one; nerfstudio would print a wrong one, or take any."""
    viewer = config.viewer
    asked, wanted = viewer.websocket_port, viewer.websocket_port or viewer.websocket_port_default
    if config.is_viewer_enabled():
        viewer.websocket_port = compat.free_port(viewer.websocket_host, wanted)
        if viewer.websocket_port != wanted:
            CONSOLE.print(f"Port {wanted} is taken: the viewer is at {viewer.websocket_port}.")
    try:
        yield
    finally:
        viewer.websocket_port = asked
