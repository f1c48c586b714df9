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
_QUANTILES = np.array([0.0228, 0.1587, 0.5, 0.8413])  # of a normal distribution: -2, -1, 0 and 1 s.d.
_NORMAL = 1.2  # times by which a side may be too long or too short: galleries of many people reach 1.07
_SHARE_STEP = 0.02
_OF_ONE_PERSON = 0.45  # in the middle of all pairs; of strangers only where an embedding is off centre
_FEWEST_PAIRS = 200  # to describe
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


class RandomPairs(NamedTuple):
    """The cosines of pairs of different people in a gallery."""

    centre: float
    spread: float
    same: float  # share of all pairs taken for pairs of one person, and left out


def random_pairs(sample: NDArray[np.int16]) -> RandomPairs:
    """Describe the cosines of all pairs of a sample `(m, d)` that are not of one person.

    Median, and median minus the 15.87 % quantile, of the lower part of all cosines: pairs of the same
    person live in the upper tail. Few of them do not matter, and nothing is left out. Where one person has
    much of the gallery, as in an album, the least share is left out, in steps, without which the rest is
    shaped as a normal distribution: as far up from the median to the 84.13 % quantile as down to the
    15.87 %, and half of the way down to the 2.28 %. A gallery of one person alone cannot be told from one of
    strangers (`doubt_of`). Fewer than 20 faces: those of a typical model.
    """
    if len(sample) < 20:
        return RandomPairs(0.0, 0.1, 0.0)
    cosines = np.sort(cosine_matrix(sample, sample)[np.triu_indices(len(sample), 1)])
    shares = np.arange(0.0, 1.0 - min(_FEWEST_PAIRS / len(cosines), 1.0) + _SHARE_STEP / 2, _SHARE_STEP)
    best, least = RandomPairs(0.0, 0.1, 0.0), np.inf
    for share in shares:
        rows = (_QUANTILES * (1.0 - share) * (len(cosines) - 1)).astype(np.int64)
        far, low, middle, high = cosines[rows].astype(np.float64)
        spread = max(middle - low, 1e-3)
        lopsided = np.array([high - middle, (middle - far) / 2]) / spread
        misfit = float(np.max(np.maximum(lopsided, 1 / np.maximum(lopsided, 1e-9))))
        if misfit < least:
            best, least = RandomPairs(float(middle), float(spread), float(share)), misfit
        if misfit <= _NORMAL:
            break
    return best


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
    given = groups.random_pairs
    mean, spread, same = random_pairs(sample) if given == "auto" else RandomPairs(*given, 0.0)
    without = f", {same:.0%} of the pairs taken for one person's" if same else ""
    if groups.thresholds == "auto":
        z = max(_chance_level(groups.random_links, faces), LOWEST_ROOT)
        levels = tuple(sorted({_chosen(mean + spread * (z + step)) for step in groups.spread}))
        chosen = (
            f"auto: {groups.random_links:g} chance links a face at {z:.2f} s.d. above random pairs{without}"
        )
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


def doubt_of(chosen: Thresholds, groups: CoarseGroupsConfig) -> str | None:
    """Say what is odd about thresholds chosen from a gallery: it may be of one person."""
    if groups.random_pairs != "auto" or chosen.mean < _OF_ONE_PERSON:
        return None
    return (
        f"two faces of this gallery have a cosine of {chosen.mean:.2f} in the middle, as images of one "
        f"person have with most embeddings. If nearly all are of one, say how different people are: "
        "coarse_groups.random_pairs=[0.0,0.1] is typical; else ignore this"
    )


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
