"""What a confidence means: of a member, the chance that it shows the person whom most of its cluster show.

The mean log-odds of an image to the rest of its cluster alone are too low for a hard image in a large
cluster (few of its pairs are easy) and too high for one that another cluster is nearly as close to. A
logistic curve over three inputs, learned with the model, says what they are worth (Platt 1999).

Of an image that is alone after the rounds, it is the chance that its person has no other image. That its
likeliest cluster is another person's says too little: its person may be in a third one, or alone as well. In
a gallery where few clusters are of one image those are mostly images that could not be placed.
"""

from __future__ import annotations

from collections.abc import Sequence
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


class AloneCalibration(NamedTuple):
    """Log-odds of being the only image of a person: a constant, and a factor for each input."""

    constant: float
    apart: float
    kind: float


def calibration_inputs(
    own: NDArray[np.float64], margins: NDArray[np.float32], sizes: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Describe members: 1, mean log-odds to the own cluster, margin, log of its size. `(n,)` to `(n, 4)`.

    Log-odds are limited; where no other cluster is known the margin is at its limit.
    """
    ahead = np.nan_to_num(margins.astype(np.float64), nan=_MARGIN)
    columns = (np.ones(len(own)), np.clip(own, -_OWN, _OWN), np.clip(ahead, -_MARGIN, _MARGIN), np.log(sizes))
    return np.stack(columns, axis=1)


def alone_inputs(apart: NDArray[np.float32], alone: int, clusters: int) -> NDArray[np.float64]:
    """Describe images that are alone: 1, log-odds of `apart`, of how many clusters are alone: `(n, 3)`.

    apart: `(n,)` the chance that the likeliest cluster is another person's. alone, clusters: of the gallery.
    """
    with np.errstate(divide="ignore"):
        odds = np.log(apart.astype(np.float64)) - np.log1p(-apart.astype(np.float64))
    kind = np.log(alone + 1) - np.log(clusters - alone + 1)
    columns = (np.ones(len(apart)), np.clip(odds, -_OWN, _OWN), np.full(len(apart), kind))
    return np.stack(columns, axis=1)


def calibrate(
    calibration: Calibration | AloneCalibration, inputs: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Give confidences, 0 to 1: float32 `(n,)`. Sums in one order for any number of rows."""
    total = np.zeros(len(inputs))
    for column, weight in zip(inputs.T, calibration, strict=True):
        total += weight * column
    confidences: NDArray[np.float32] = (1.0 / (1.0 + np.exp(-total))).astype(np.float32)
    return confidences


def fit_curve(
    inputs: NDArray[np.float64], right: NDArray[np.bool_], share: NDArray[np.float64]
) -> Sequence[float]:
    """Fit a curve by Newton's method, with a little ridge, so that all right is no infinity.

    Gives a weight for each input. Shapes: `(n, i)`, `(n,)`; share: how much each row counts.
    """
    share = share / share.sum()
    weights = np.zeros(inputs.shape[1])
    for _ in range(_STEPS):
        chance = 1.0 / (1.0 + np.exp(-(inputs @ weights)))
        gradient = inputs.T @ (share * (right - chance)) - _RIDGE * weights
        curvature = (inputs.T * (share * chance * (1 - chance))) @ inputs + _RIDGE * np.eye(len(weights))
        weights = weights + np.linalg.solve(curvature, gradient)
    found: list[float] = weights.tolist()
    return found
