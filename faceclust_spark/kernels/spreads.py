"""What a handful of values tells of their spread: little, so a typical one has a say."""

from __future__ import annotations

TOO_FEW = 20  # faces that tell nothing
_ENOUGH = 60  # faces that tell all


def spread_of_few(spread: float, typical: float, count: int) -> float:
    """Draw the spread of `count` faces towards a typical one, on a logarithmic scale; from 60 on it stays."""
    if count >= _ENOUGH:
        return spread
    return float(typical * (spread / typical) ** (count / _ENOUGH))
