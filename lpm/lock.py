"""One process at a time in a folder."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lpm.checks import fail


@contextmanager
def alone(file: Path, folder: Path, got: str, remedy: str) -> Iterator[None]:
    """Holds the lock `file` of `folder`; the system lets go of it however this process ends.

    Raises:
        LpmError: another process has it; `got` says who, `remedy` what to do.
    """
    with file.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            fail(folder, got, "one at a time", remedy)
        yield
