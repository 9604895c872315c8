"""What a file says about its size is checked against the bytes that are there, before anything is allocated."""

from __future__ import annotations

from pathlib import Path

from lpm.checks import fail

MOST_EXPANSION = 1100  # deflate's limit is 1032 : 1; a file that claims more was made to fill the memory


def check_file(path: Path, wanted: str) -> int:
    """The size of `path` in bytes; raises LpmError where there is no such file or it is empty."""
    if not path.is_file():
        fail(path, "no such file", wanted)
    size = path.stat().st_size
    if size == 0:
        fail(path, "an empty file", wanted)
    return size


def check_rows(path: Path, rows: int, row_bytes: int, there: int) -> None:
    """Raises LpmError unless `rows` of at least `row_bytes` each fit into the `there` bytes that follow the header."""
    if rows < 0 or rows * row_bytes > there:
        fail(
            path,
            f"its header says {rows:,} rows of {row_bytes} bytes, and {there:,} bytes follow",
            "as many bytes as the header says",
            "the file is cut off or broken: copy or export it again",
        )


def check_some(path: Path, rows: int) -> None:
    """Raises LpmError for a file without a single Gaussian."""
    if rows == 0:
        fail(path, "no Gaussians in it (0 rows)", "at least one", "export it again from where it came")


def check_expansion(path: Path, unpacked: int, packed: int) -> None:
    """Raises LpmError where `packed` bytes claim to hold more than MOST_EXPANSION times as many."""
    if unpacked > MOST_EXPANSION * max(packed, 1):
        fail(
            path,
            f"its header says {unpacked:,} bytes packed into {packed:,}",
            f"at most {MOST_EXPANSION} times as many",
            "the header is broken: export the file again",
        )
