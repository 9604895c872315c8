"""Text as any system's programs write it: byte order marks, UTF-16, any line ends, Windows' own code."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

# The longer ones first: UTF-32's mark begins with that of UTF-16.
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
WINDOWS = "cp1252"
"""What bytes that are no UTF-8 are taken for."""


def encoding_of(head: bytes) -> str:
    """The encoding of a text that begins with the bytes `head`."""
    for mark, name in MARKS:
        if head.startswith(mark):
            return name
    if len(head) >= 4 and head[1] == 0 != head[0]:  # these files begin with ASCII
        return "utf-16-le"
    return "utf-16-be" if len(head) >= 4 and head[0] == 0 != head[1] else "utf-8"


def decoded(data: bytes) -> str:
    """The text in `data`. Raises ValueError where it is broken UTF-16 or UTF-32."""
    encoding = encoding_of(data[:4])
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        if not encoding.startswith("utf-8"):
            raise
        return data.decode(WINDOWS, "replace")


def read_text(path: Path) -> str:
    """The text in the file at `path`. Raises OSError, and ValueError as `decoded`."""
    return decoded(path.read_bytes())


def lines(path: Path) -> Iterator[str]:
    """The lines of the text in the file at `path`, without their ends. Raises OSError, and ValueError as `decoded`."""
    with path.open("rb") as file:
        encoding = encoding_of(file.read(4))
    errors = "surrogateescape" if encoding.startswith("utf-8") else "strict"
    with path.open(encoding=encoding, errors=errors) as text:
        for line in text:
            found = line.rstrip("\n")
            if not found.isascii() and any("\udc80" <= letter <= "\udcff" for letter in found):
                found = found.encode("utf-8", "surrogateescape").decode(WINDOWS, "replace")
            yield found
