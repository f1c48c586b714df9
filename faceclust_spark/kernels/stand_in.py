"""A small gallery that groups as a large one does.

A sample of a gallery has lost most links between the faces of a person, and most chance links. A stand-in
has people of the full size and likeness, in a space of so few dimensions that a face has as many chance
links at the lowest threshold as in the full gallery. Its coarse groups are what the full gallery's would be.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from faceclust_spark.kernels.grid import normalise, quantise
from faceclust_spark.kernels.people import Q_RANGE, Likeness
from faceclust_spark.kernels.thresholds import Thresholds

DIMENSIONS = (8, 4_096)  # fewest and most of a stand-in


def stand_in_dimension(faces: int, gallery: int, thresholds: Thresholds) -> int:
    """Give the dimension in which `faces` random faces link by chance like `gallery` at its lowest threshold.

    The cosines of random directions have a standard deviation of 1 / sqrt(dimension).
    """
    normal = NormalDist()
    above = max(thresholds.groups[0] - thresholds.mean, 1e-3)
    chance = gallery * (1.0 - normal.cdf(above / thresholds.standard_deviation))
    z = normal.inv_cdf(1.0 - min(max(chance / faces, 1e-12), 0.4))
    return int(min(max(round((z / above) ** 2), DIMENSIONS[0]), DIMENSIONS[1]))


def draw_stand_in(
    sizes: NDArray[np.int64], likeness: Likeness, dimension: int, seed: int
) -> NDArray[np.int16]:
    """Draw a face for each face of people of these sizes: grid vectors int16 `(sum, dimension)`, mixed.

    Random pairs have a mean cosine of 0 here: thresholds have to be taken less the gallery's.
    """
    generator = np.random.default_rng(seed)
    person = generator.permutation(np.repeat(np.arange(len(sizes)), sizes))
    centres = normalise(generator.standard_normal((len(sizes), dimension), np.float32))
    noise = normalise(generator.standard_normal((len(person), dimension), np.float32))
    q = np.clip(likeness.mean + likeness.spread * generator.standard_normal(len(person)), *Q_RANGE)[:, None]
    return quantise(normalise(q * centres[person] + np.sqrt(1.0 - q * q) * noise))


def thin_people(sizes: NDArray[np.int64], share: float, seed: int) -> NDArray[np.int64]:
    """Give how many faces of each person a random share of the gallery holds; people without any are gone."""
    kept = np.random.default_rng(seed).binomial(sizes, share)
    return kept[kept > 0]
