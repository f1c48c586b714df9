"""The floor and the first thresholds, from the distribution of random pairs."""

from __future__ import annotations

from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from faceclust_spark.config import CoarseGroupsConfig, NeighboursConfig
from faceclust_spark.errors import ConfigError
from faceclust_spark.kernels.grid import cosine_matrix

SAMPLE = "thresholds"  # purpose of the sample, see ids.sample_rows
LOWEST_FLOOR = 2.65  # s.d. above random pairs; both real galleries: cosine 0.25
LOWEST_ROOT = 2.9  # s.d.; only tiny galleries would go below
HIGHEST = 0.95  # of what `auto` chooses: a threshold above would separate images of one photo


class Thresholds(NamedTuple):
    """Cosines that decide what is kept and grouped, chosen once for a gallery.

    mean and standard_deviation describe the cosines of random pairs: cosine scales differ between
    embedding models, and models that serve any embedding measure cosines in these units.
    """

    floor: float  # lowest cosine of a neighbour
    groups: tuple[float, ...]  # first thresholds, ascending; the lowest one makes the root groups
    mean: float
    standard_deviation: float
    floor_chosen_by: str
    groups_chosen_by: str


def random_pairs(sample: NDArray[np.int16]) -> tuple[float, float]:
    """Give centre and spread of the cosines of all pairs of a sample `(m, d)`.

    Median, and median minus the 15.87 % quantile: pairs of the same person live in the upper tail
    and would widen an ordinary standard deviation. Fewer than 20 faces: those of a typical model.
    """
    if len(sample) < 20:
        return 0.0, 0.1
    cosines = cosine_matrix(sample, sample)[np.triu_indices(len(sample), 1)]
    low, middle = np.quantile(cosines.astype(np.float64), [0.1587, 0.5], method="lower")
    return float(middle), float(max(middle - low, 1e-3))


def choose_thresholds(
    sample: NDArray[np.int16], faces: int, neighbours: NeighboursConfig, groups: CoarseGroupsConfig
) -> Thresholds:
    """Choose floor and first thresholds for a gallery of `faces` faces [claims 2, 3].

    `auto` counts chance links. A random pair's cosine is close to normal, so the share of random pairs
    above mean + z s.d. is 1 - Phi(z); the lowest first threshold is where a face has
    `random_links` of them on average, near the point where one component swallows the gallery, and
    so rises with the gallery's size. The floor is where it has K. Real galleries of 14.5 K and
    9.7 K faces by two models: floor 0.26, thresholds 0.35, 0.45, 0.55.

    sample: int16 `(m, d)`, in the order of ids.sample_rows. Raises ConfigError where a given floor
    lies above the lowest given threshold.
    """
    mean, spread = random_pairs(sample)
    if groups.thresholds == "auto":
        z = max(_chance_level(groups.random_links, faces), LOWEST_ROOT)
        levels = tuple(sorted({_chosen(mean + spread * (z + step)) for step in groups.spread}))
        chosen = f"auto: {groups.random_links:g} chance links a face at {z:.2f} s.d. above random pairs"
    else:
        # Two that a FLOAT column cannot tell apart are one.
        levels, chosen = tuple(sorted({_cosine(t) for t in groups.thresholds})), "given"
    if neighbours.floor == "auto":
        z = max(_chance_level(neighbours.k, faces), LOWEST_FLOOR)
        floor = min(_chosen(mean + spread * z), levels[0])
        floor_chosen = f"auto: {neighbours.k} chance links a face, at least {LOWEST_FLOOR} s.d."
    else:
        floor, floor_chosen = _cosine(neighbours.floor), "given"
    if floor > levels[0]:
        raise ConfigError(
            f"neighbours.floor {floor:g} lies above the lowest coarse_groups threshold {levels[0]:g}: "
            "neighbours below the floor are not kept, so the threshold could not be honoured; "
            "lower the floor or raise the threshold"
        )
    return Thresholds(floor, levels, mean, spread, floor_chosen, chosen)


def _chance_level(links: float, faces: int) -> float:
    """Give the z above which a face meets `links` random others on average."""
    share = min(links / max(faces, 2), 0.5)
    return NormalDist().inv_cdf(1.0 - share)


def _chosen(value: float) -> float:
    """Give a cosine that `auto` may choose: what is given by hand is taken as it is."""
    return _cosine(min(max(value, -1.0), HIGHEST))


def _cosine(value: float) -> float:
    """Give the nearest value that a FLOAT column can hold."""
    return float(np.float32(value))
