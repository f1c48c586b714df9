"""Attribute features on a common scale: statistics taken once from a sample, then kept."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

STATISTICS_PURPOSE = "attribute_statistics"  # names the sample, see kernels.ids.sample_mask
HIGHEST = 6.0  # standard deviations that count
_OUTLIERS = 500  # of so many values, one at each end is left out of the statistics
_MANY = 100  # values, of which one at each end may be left out


class AttributeStatistics(NamedTuple):
    """Mean, standard deviation and number of known values of each attribute.

    means, standard_deviations: float64 `(a,)`; counts: int64 `(a,)`. A standard deviation of 0
    marks an attribute that is constant, or never known, in the sample.
    """

    means: NDArray[np.float64]
    standard_deviations: NDArray[np.float64]
    counts: NDArray[np.int64]


def attribute_statistics(sample: NDArray[np.float32]) -> AttributeStatistics:
    """Take the statistics of each attribute over its known (finite) values.

    Shapes: float32 `(m, a)`. Sums are correctly rounded (`math.fsum`), so the statistics depend on
    the set of sampled faces only: not on their order, and not on the machine's vector width. Of 100 values
    and more, the lowest and the highest are left out, of 1,000 and more 0.2 % at each end: one estimate of a
    pose that had gone wrong made the attribute the same for all others.
    """
    wide = sample.astype(np.float64)
    means, deviations, counts = [], [], []
    for column in wide.T:
        known = np.sort(column[np.isfinite(column)])
        apart = max(len(known) // _OUTLIERS, int(len(known) >= _MANY))
        usual = known[apart : len(known) - apart]
        if len(usual) and usual[0] == usual[-1]:
            usual = known  # but for a few rows all have one value: these rows are what it tells
        count = max(len(usual), 1)
        mean = math.fsum(usual) / count
        variance = math.fsum((usual - mean) ** 2) / count
        constant = len(usual) == 0 or bool(usual[0] == usual[-1])
        means.append(mean)
        deviations.append(0.0 if constant else math.sqrt(variance))
        counts.append(len(known))
    return AttributeStatistics(
        np.array(means, dtype=np.float64),
        np.array(deviations, dtype=np.float64),
        np.array(counts, dtype=np.int64),
    )


def standardise(attributes: NDArray[np.float32], statistics: AttributeStatistics) -> NDArray[np.float32]:
    """Give (x - mean) / standard deviation; 0 for a constant attribute, NaN for a missing value.

    Shapes: `(n, a)` to float32 `(n, a)`, within +-HIGHEST. Missing is every value that is not finite.
    """
    constant = statistics.standard_deviations == 0.0
    scale = np.where(constant, 1.0, statistics.standard_deviations)
    known = np.where(np.isfinite(attributes), attributes, np.nan).astype(np.float64)
    scores = (known - statistics.means) / scale
    limited = np.clip(scores, -HIGHEST, HIGHEST)
    return np.where(constant & np.isfinite(known), 0.0, limited).astype(np.float32)
