"""Feature norms: lengths of embeddings as they come, before they are normalised.

Most models give clear images long embeddings and poor ones short ones, although nothing asks them to: AdaFace
(arXiv 2204.00964) takes the norm for the quality of an image, MagFace (arXiv 2103.06627) trains for it. With
two ordinary models the correlation of an image's norm with its cosine to the centre of its person's other
images was .66 and .67. Lengths differ between models, so they are told in standard deviations of their
logarithm in the gallery; where they do not differ, as in galleries that come normalised, they are unknown.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from faceclust_spark.kernels.spreads import TOO_FEW, spread_of_few

UNKNOWN = np.float32(0.0)  # a standardised norm that tells nothing
_LEAST_SPREAD = 0.01  # of logarithms: below it lengths differ by rounding only
_TYPICAL_SPREAD = 0.12
_HIGHEST = np.float32(4.0)  # standard deviations that count
_QUARTILES_OF_NORMAL = 1.349  # quartiles of a normal distribution lie so many standard deviations apart


class NormScale(NamedTuple):
    """Centre and spread of the logarithms of a gallery's norms; spread 0: norms tell nothing."""

    centre: float = 0.0
    spread: float = 0.0


def feature_norms(embeddings: NDArray[np.floating]) -> NDArray[np.float32]:
    """Give the length of each row of raw embeddings `(n, d)`: float32 `(n,)`, 0 or more.

    Summed in double precision, each row by itself, then rounded.
    """
    wide = np.ascontiguousarray(embeddings, np.float64)
    largest = np.abs(wide).max(axis=1, initial=0.0)  # keeps the squares of huge and tiny values finite
    scaled = wide / np.where(largest > 0, largest, 1.0)[:, None]
    with np.errstate(over="ignore"):
        norms: NDArray[np.float32] = (np.sqrt((scaled * scaled).sum(axis=1)) * largest).astype(np.float32)
    return norms


def norm_scale(norms: NDArray[np.float32]) -> NormScale:
    """Describe the norms `(m,)` of a sample: median, and distance of the quartiles; NaN: unknown.

    Fewer than 60 tell little of the spread, which is drawn towards that of a typical model; fewer than 20
    tell nothing. Rounded, since logarithms may differ in their last bit between machines.
    """
    with np.errstate(divide="ignore"):
        logarithms = np.log(norms.astype(np.float64))
    logarithms = logarithms[np.isfinite(logarithms)]
    if len(logarithms) < TOO_FEW:
        return NormScale()
    low, middle, high = np.quantile(logarithms, (0.25, 0.5, 0.75)).tolist()
    spread = (high - low) / _QUARTILES_OF_NORMAL
    if spread < _LEAST_SPREAD:
        return NormScale()
    spread = spread_of_few(spread, _TYPICAL_SPREAD, len(logarithms))
    return NormScale(float(np.float32(middle)), float(np.float32(spread)))


def standardise_norms(norms: NDArray[np.float32], scale: NormScale) -> NDArray[np.float32]:
    """Give norms in standard deviations of their logarithm, within +-4, and 0 where unknown: `(n,)`."""
    if scale.spread == 0.0:
        return np.full(len(norms), UNKNOWN)
    with np.errstate(divide="ignore"):
        scores = (np.log(norms.astype(np.float64)) - scale.centre) / scale.spread
    known = np.isfinite(scores)
    return np.where(known, np.clip(scores, -_HIGHEST, _HIGHEST), UNKNOWN).astype(np.float32)
