"""The header of a PLY (Turk 1994), read and weighed before any of its rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lpm.checks import fail
from lpm.formats.bounds import check_file, check_rows

LONGEST_HEADER = 1 << 20  # bytes; a header of 200 properties has 6 kB
_SCALARS = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4",
    "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
    "float32": "f4", "float64": "f8",
}  # fmt: skip
_ORDER = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}


@dataclass
class Element:
    """One element of a PLY: `count` rows of `columns` (name, numpy type without byte order)."""

    name: str
    count: int
    columns: list[tuple[str, str]] = field(default_factory=list)
    lists: int = 0
    """How many of its properties are lists, whose rows have no fixed size."""

    def least_bytes(self, text: bool) -> int:
        """The fewest bytes a row can have."""
        if text:
            return 2 * (len(self.columns) + self.lists)  # a digit and a separator each
        return sum(np.dtype(kind).itemsize for _, kind in self.columns) + self.lists


@dataclass
class Header:
    """The header of the PLY at `path`; rows start at byte `start`."""

    path: Path
    order: str
    """"<" or ">" for binary files, "" for text."""
    elements: list[Element]
    start: int
    comments: list[str] = field(default_factory=list)

    def element(self, name: str) -> Element | None:
        """The element called `name`, if there is one."""
        return next((e for e in self.elements if e.name == name), None)

    def dtype(self, element: Element) -> np.dtype[np.void]:
        """The rows of a binary `element` without lists."""
        return np.dtype([(name, self.order + kind) for name, kind in element.columns])

    def map(self, element: Element) -> NDArray[np.void] | None:
        """Rows of `element` straight from the binary file (a memory map); None where rows before it vary in size."""
        offset = self.start
        for each in self.elements:
            if each.lists or not self.order:
                return None
            if each is element:
                return np.memmap(self.path, self.dtype(element), "r", offset, (element.count,))
            offset += each.count * each.least_bytes(text=False)
        return None


def read_header(path: Path) -> Header:
    """Reads the header of `path` and checks that its rows fit into the file.

    Raises:
        LpmError: no such file, not a PLY, a header that cannot be understood, or more rows than bytes for them.
    """
    size = check_file(path, "a PLY with Gaussians")
    with path.open("rb") as file:
        raw = file.read(LONGEST_HEADER)
    end = raw.find(b"end_header")
    if not raw.startswith(b"ply") or end < 0:
        fail(path, "not a readable PLY (no header)", "a PLY with Gaussians")
    start = raw.find(b"\n", end) + 1 or len(raw)
    lines = [line.split() for line in raw[:end].decode("ascii", "replace").splitlines()]
    order, elements = _parse(path, lines[1:])
    comments = [" ".join(words[1:]) for words in lines[1:] if words[:1] in (["comment"], ["obj_info"])]
    total = sum(e.count * e.least_bytes(text=not order) for e in elements)
    for element in elements:
        # A text file's last line may end without a separator.
        check_rows(path, element.count, element.least_bytes(text=not order), size - start + (not order))
    if total > size - start + (not order):
        fail(path, f"its header asks for {total:,} bytes, and {size - start:,} follow", "a whole file", "copy it again")
    return Header(path, order, elements, start, comments)


def _parse(path: Path, lines: list[list[str]]) -> tuple[str, list[Element]]:
    order: str | None = None
    elements: list[Element] = []
    for words in lines:
        match words:
            case ["format", kind, _] if kind in _ORDER:
                order = _ORDER[kind]
            case ["element", name, count] if count.isascii() and count.isdigit():
                elements.append(Element(name, int(count)))
            case ["property", "list", count, kind, _] if elements and {count, kind} <= _SCALARS.keys():
                elements[-1].lists += 1
            case ["property", kind, name] if elements and kind in _SCALARS:
                if any(name == other for other, _ in elements[-1].columns):
                    fail(path, f"not a readable PLY (two properties {name[:40]})", "each property once")
                elements[-1].columns.append((name, _SCALARS[kind]))
            case [] | ["comment", *_] | ["obj_info", *_]:
                pass
            case _:
                fail(path, f"not a readable PLY (header line {' '.join(words)[:60]!r})", "a PLY with Gaussians")
    if order is None:
        fail(path, "not a readable PLY (no format line)", "a PLY with Gaussians")
    return order, elements
