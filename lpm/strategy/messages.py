"""Messages that a run prints once, such as why a part of the method is left out."""

from __future__ import annotations

import sys
from collections.abc import Callable


class Messages:
    """Says each remark once. `say` may be replaced, for example by a console's print."""

    def __init__(self) -> None:
        self.said: dict[str, str] = {}
        self.say: Callable[[str], object] = lambda text: print(text, file=sys.stderr)

    def once(self, key: str, text: str) -> None:
        """Says `text` unless something was said under `key` before."""
        if key not in self.said:
            self.said[key] = text
            self.say(text)
