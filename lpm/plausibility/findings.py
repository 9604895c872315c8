"""What a check says: one line each, with what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

NAMED = 4
"""Photos that a line names; of the others it tells how many."""


@dataclass(frozen=True)
class Finding:
    """Something in a scene that cannot be right, or that training should know of."""

    kind: str
    """One word, such as focal: see the table in docs/scenes.md."""
    serious: bool
    """Whether training on it is of no use until it is mended."""
    text: str
    remedy: str
    photos: tuple[str, ...] = ()
    """Names of the photos that it is about; none: all."""

    def line(self) -> str:
        """All of it in one line."""
        return f"{'error' if self.serious else 'warning'}: {self.kind}: {self.text}; {self.remedy}"

    def as_json(self) -> dict[str, Any]:
        """The same as an object."""
        return asdict(self)


def listed(names: Sequence[str]) -> str:
    """`names` in words, the first of them if there are many."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
