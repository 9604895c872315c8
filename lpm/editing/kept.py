"""Pictures that are asked for again and again, made once as long as there is room."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

KEPT_BYTES = 2**30
Pair = tuple[Tensor, Tensor]


@dataclass
class Kept:
    """Pairs of pictures, by a number; on the device where they were made, KEPT_BYTES at most."""

    pairs: dict[int, Pair] = field(default_factory=dict)
    bytes: int = 0

    def of(self, number: int, make: Callable[[], Pair]) -> Pair:
        """The pair of `number`, by `make` if it is not kept."""
        pair = self.pairs.get(number)
        if pair is None:
            pair = make()
            self.bytes += sum(one.nbytes for one in pair)
            if self.bytes <= KEPT_BYTES:
                self.pairs[number] = pair
        return pair
