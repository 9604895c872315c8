"""Pictures of nerfstudio's viewer are made in threads that end with them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from typing import Any


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
