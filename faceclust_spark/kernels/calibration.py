"""What a member's confidence means: the chance that it shows the person whom most of its cluster show.

The mean log-odds of an image to the rest of its cluster alone are too low for a hard image in a large
cluster (few of its pairs are easy) and too high for one that another cluster is nearly as close to. A
logistic curve over three inputs, learned with the model, says what they are worth (Platt 1999).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_OWN, _MARGIN = 8.0, 12.0  # log-odds beyond them say no more
_RIDGE = 1e-3
_STEPS = 30


class Calibration(NamedTuple):
    """Log-odds of being right: a constant, and a factor for each input."""

    constant: float
    own: float
    margin: float
    size: float


def calibration_inputs(
    own: NDArray[np.float64], margins: NDArray[np.float32], sizes: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Describe members: 1, mean log-odds to the own cluster, margin, log of its size. `(n,)` to `(n, 4)`.

    Log-odds are limited; where no other cluster is known the margin is at its limit.
    """
    ahead = np.nan_to_num(margins.astype(np.float64), nan=_MARGIN)
    columns = (np.ones(len(own)), np.clip(own, -_OWN, _OWN), np.clip(ahead, -_MARGIN, _MARGIN), np.log(sizes))
    return np.stack(columns, axis=1)


def calibrate(calibration: Calibration, inputs: NDArray[np.float64]) -> NDArray[np.float32]:
    """Give the confidences of members, 0 to 1: float32 `(n,)`. Sums in one order for any number of rows."""
    total = np.zeros(len(inputs))
    for column, weight in zip(inputs.T, calibration, strict=True):
        total += weight * column
    confidences: NDArray[np.float32] = (1.0 / (1.0 + np.exp(-total))).astype(np.float32)
    return confidences


def fit_calibration(
    inputs: NDArray[np.float64], right: NDArray[np.bool_], share: NDArray[np.float64]
) -> Calibration:
    """Fit the curve by Newton's method, with a little ridge, so that all right is no infinity.

    Shapes: `(n, 4)`, `(n,)`; share: how much each row counts.
    """
    share = share / share.sum()
    weights = np.zeros(inputs.shape[1])
    for _ in range(_STEPS):
        chance = 1.0 / (1.0 + np.exp(-(inputs @ weights)))
        gradient = inputs.T @ (share * (right - chance)) - _RIDGE * weights
        curvature = (inputs.T * (share * chance * (1 - chance))) @ inputs + _RIDGE * np.eye(len(weights))
        weights = weights + np.linalg.solve(curvature, gradient)
    return Calibration(*weights.tolist())
