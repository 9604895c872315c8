"""The lock between who trains and who draws."""

from __future__ import annotations

import threading


class Turns:
    """A lock that whoever waits for it gets before whoever has just let go of it.

    A `threading.Lock` goes to who asks first once it is free. That is often the training loop, which asks again within
    microseconds, so that a page waited through several steps for its picture.
    """

    def __init__(self) -> None:
        self._next, self._held = threading.Lock(), threading.Lock()

    def __enter__(self) -> None:
        with self._next:  # kept by who waits: nobody passes it
            self._held.acquire()

    def __exit__(self, *_: object) -> None:
        self._held.release()
