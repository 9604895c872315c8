"""How many points there may be at a step: the growth curve that strategies with a budget share."""

from __future__ import annotations


def points_allowed(
    step: int, first: int, cap: int | None, start: int, stop: int, end: float = 1.0, power: float = 1.0
) -> int:
    """Points allowed at `step`: from those at the start to the cap, and never more than that.

    Args:
        first: points at the start. cap: at the end; None: ten times those at the start.
        start, stop: steps of the first and the last edit. end: share of the way between them where the cap is reached.
        power: of the share of that way that is done: 1 a straight line, .5 a square root.
    """
    most = 10 * first if cap is None else cap
    length = max(end * (stop - start), 1e-9)
    done = min(1.0, max(0.0, (step - start) / length))
    return min(most, first + round(float(done**power) * (most - first)))
