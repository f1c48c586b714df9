"""Attribute features on a common scale: statistics taken once from a sample, then kept."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

STATISTICS_PURPOSE = "attribute_statistics"  # names the sample, see kernels.ids.sample_mask


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
    the set of sampled faces only: not on their order, and not on the machine's vector width.
    """
    wide = sample.astype(np.float64)
    means, deviations, counts = [], [], []
    for column in wide.T:
        known = column[np.isfinite(column)]
        count = max(len(known), 1)
        mean = math.fsum(known) / count
        variance = math.fsum((known - mean) ** 2) / count
        constant = len(known) == 0 or bool((known == known[0]).all())
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

    Shapes: `(n, a)` to float32 `(n, a)`. Missing is every value that is not finite.
    """
    constant = statistics.standard_deviations == 0.0
    scale = np.where(constant, 1.0, statistics.standard_deviations)
    known = np.where(np.isfinite(attributes), attributes, np.nan).astype(np.float64)
    scores = (known - statistics.means) / scale
    return np.where(constant & np.isfinite(known), 0.0, scores).astype(np.float32)
