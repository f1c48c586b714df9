"""What attributes tell of an image's quality, whichever they are: two readings, weighed by the gallery.

Distances between the attributes of two images tell next to nothing that faces do not tell better. What
helps is how far an image can be trusted. Nobody says which attributes tell that, so they are weighed by how
they go with what is known of faces anyhow. One reading predicts the similarity of an image to its nearest
other in a sample, by those images whose nearest surely shows the same person (from pose, sharpness and
resolution, a detector's score, in real galleries); the other takes attributes that go with norms and have
their long tail on the side of short ones, as scores of detectors have (and, there, the odds of being a
teenager). Attributes that go with neither, or by chance only, have weight 0.

Similarity to whatever is near misleads: where few images have others of their person in the sample, it tells
who has many look-alikes, and that is a matter of gender and age. The mean to the nearest ten gave a reading
that had, on 2,400 poor images, a correlation of -0.04 to +0.01 with an image's cosine to the centre of its
person's others, and of -0.3 in a gallery of one image a person. By images that surely have another it is 0.40
to 0.42 there, and next to no weight is left here.

It takes images that have another of their person in the sample. Of 2,000 drawn from a gallery these are few
where it is large and people have few images: from about a million of 5 images a person on none has weight.

Chance is counted by images, although two that are each other's nearest tell the same, and images of a person
may have the same attribute. One that means nothing but tells people apart has some weight in one of four to
seven galleries; forty such attributes gave a reading with a standard deviation of .05 to .08.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from faceclust_spark.kernels.grid import cosine_matrix
from faceclust_spark.kernels.norms import NormScale, standardise_norms
from faceclust_spark.kernels.spreads import TOO_FEW

READINGS = 2
QUALITIES = 1 + READINGS  # the norm, then the readings
_SURE = 5.0  # standard deviations of random pairs above their mean
_CHANCE = 2.0  # standard errors of a correlation that are taken for chance
_RIDGE = 0.2  # added to the variance of each attribute, which is 1 in the gallery
_LEAST = 0.03  # sum of weights that what tells of failure needs: with this one it counts by half
_LONGEST_TAIL = 2.0  # skewness that counts


class AttributeWeights(NamedTuple):
    """The weights of a gallery's attributes in each reading, one for each; empty: nothing is read."""

    closeness: tuple[float, ...] = ()  # to the nearest, where that surely shows the same person
    failure: tuple[float, ...] = ()


def weigh_attributes(
    sample: NDArray[np.int16],
    attributes: NDArray[np.float32],
    norms: NDArray[np.float32],
    scale: NormScale,
    sure: float,
) -> AttributeWeights:
    """Weigh the attributes of a gallery by a sample of its faces.

    Shapes: grid vectors `(m, d)`, standardised attributes `(m, a)` with NaN where missing, norms of the raw
    embeddings `(m,)` and their scale. sure: the cosine from which on two images show one person
    (`sure_cosine`). Correlations are with ranks; what chance explains is taken off them, so an attribute that
    few faces have gets a small weight, and one that fewer than 20 have none. Weights are rounded, since
    correlations may differ in their last bit between machines.
    """
    known = ~np.isnan(attributes)
    if len(attributes) < TOO_FEW or not known.any():
        return AttributeWeights()
    values = np.ascontiguousarray(np.where(known, attributes, 0.0), np.float64)
    nearest = _nearest(sample)
    is_sure = nearest >= sure
    close = _regress(nearest[is_sure], values[is_sure], known[is_sure].sum(axis=0))
    by_norm = np.zeros(values.shape[1])
    if scale.spread:
        lengths = standardise_norms(norms, scale).astype(np.float64)  # an unknown one as the middle
        by_norm = _goes_with(lengths, values, known.sum(axis=0))
    tail = np.clip(-_skewness(values) * np.sign(by_norm), 0.0, _LONGEST_TAIL)
    failed = by_norm * tail
    failed /= np.abs(failed).sum() + _LEAST
    return AttributeWeights(*(tuple(np.round(weights, 4).tolist()) for weights in (close, failed)))


def read_attributes(attributes: NDArray[np.float32], weights: AttributeWeights) -> NDArray[np.float32]:
    """Give each image's readings, `(n, a)` to float32 `(n, READINGS)`; a missing attribute counts as 0.

    Attributes of width 0, as a gallery or group without any has them, read 0. Added up in one order. Raises
    ValueError where there are more or fewer attributes than weights.
    """
    width, weighed = attributes.shape[1], len(weights.closeness)
    if width and weighed and width != weighed:
        raise ValueError(f"{width} attributes and weights of {weighed}: they are not of one gallery")
    readings = np.zeros((len(attributes), READINGS))
    if width:
        known = np.where(np.isnan(attributes), 0.0, attributes).astype(np.float64)
        for place, own in enumerate(weights):
            for attribute, weight in enumerate(own):
                readings[:, place] += weight * known[:, attribute]
    return readings.astype(np.float32)


def describe_qualities(
    norms: NDArray[np.float32],
    attributes: NDArray[np.float32],
    scale: NormScale,
    weights: AttributeWeights,
) -> NDArray[np.float32]:
    """Give what is known of each image by itself: its standardised norm and readings, `(n, QUALITIES)`."""
    readings = read_attributes(attributes, weights)
    return np.concatenate([standardise_norms(norms, scale)[:, None], readings], axis=1)


def sure_cosine(mean: float, spread: float) -> float:
    """Give the cosine that random pairs, of this mean and standard deviation, next to never reach."""
    return mean + _SURE * spread


def _nearest(sample: NDArray[np.int16]) -> NDArray[np.float64]:
    """Give the cosine of each face to its nearest other in the sample: `(m,)`."""
    cosines = cosine_matrix(sample, sample)
    np.fill_diagonal(cosines, -np.inf)
    nearest: NDArray[np.float64] = cosines.max(axis=1).astype(np.float64)
    return nearest


def _regress(
    told: NDArray[np.float64], values: NDArray[np.float64], counts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Give the weights by which attributes `(m, a)` together go with the ranks of what is told.

    Ridge regression, whose right-hand side is made of the correlations beyond chance, so attributes without
    one take no part. What weights give has the size of a correlation: near 0 where attributes tell little.
    """
    weights, beyond = np.zeros(values.shape[1]), _goes_with(told, values, counts)
    kept = np.flatnonzero(beyond)
    if len(kept):
        centred = values[:, kept] - values[:, kept].mean(axis=0)
        among = centred.T @ centred / len(centred) + _RIDGE * np.eye(len(kept))
        weights[kept] = np.linalg.solve(among, beyond[kept] * centred.std(axis=0))
    return weights


def _goes_with(
    told: NDArray[np.float64], values: NDArray[np.float64], counts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Give the correlation of each attribute `(m, a)` with the ranks of what is told, beyond chance.

    counts: `(a,)` images of which the attribute is known. What few have goes with nothing.
    """
    if len(told) < TOO_FEW:
        return np.zeros(values.shape[1])
    chance = np.where(counts < TOO_FEW, np.inf, _CHANCE / np.sqrt(np.maximum(counts, 1)))
    correlations = _correlations(values, _ranks(told))
    beyond: NDArray[np.float64] = np.maximum(np.abs(correlations) - chance, 0.0)
    return np.sign(correlations) * beyond


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give centred ranks, equals by their order: `(m,)`."""
    ranks = np.empty(len(values))
    ranks[np.argsort(values, kind="stable")] = np.arange(len(values))
    return ranks - (len(values) - 1) / 2


def _correlations(values: NDArray[np.float64], ranks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the correlation of each column `(m, a)` with centred ranks; 0 for a constant column."""
    centred = values - values.mean(axis=0)
    length = np.sqrt((centred * centred).sum(axis=0) * (ranks * ranks).sum())
    product = (centred * ranks[:, None]).sum(axis=0)
    found: NDArray[np.float64] = np.divide(product, length, out=np.zeros(len(length)), where=length > 0)
    return found


def _skewness(values: NDArray[np.float64]) -> NDArray[np.float64]:
    centred = values - values.mean(axis=0)
    spread = np.maximum(values.std(axis=0), 1e-9)
    skewness: NDArray[np.float64] = (centred**3).mean(axis=0) / spread**3
    return skewness
