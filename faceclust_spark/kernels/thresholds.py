"""The floor and the first thresholds, from the distribution of random pairs."""

from __future__ import annotations

from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from faceclust_spark.config import CoarseGroupsConfig, NeighboursConfig
from faceclust_spark.errors import ConfigError
from faceclust_spark.kernels.grid import cosine_matrix
from faceclust_spark.kernels.norms import NormScale, norm_scale
from faceclust_spark.kernels.readings import AttributeWeights, sure_cosine, weigh_attributes
from faceclust_spark.kernels.spreads import TOO_FEW, spread_of_few

SAMPLE = "thresholds"  # purpose of the sample, see ids.sample_rows
LOWEST_FLOOR = 2.65  # s.d. above random pairs; both real galleries: cosine 0.25
LOWEST_ROOT = 2.9  # s.d.; only tiny galleries would go below
_QUANTILES = np.array([0.0228, 0.1587, 0.5, 0.8413])  # of a normal distribution: -2, -1, 0 and 1 s.d.
_NORMAL = 1.2  # times by which a side may be too long or too short: galleries of many people reach 1.07
_NEARLY = 1.4  # where nothing is better: few strangers beside one person
_SHARE_STEP = 0.02
# How far one person's pairs lie above strangers', on the way from there to 1: .45 to .75 with real
# embeddings. Two kinds of images, such as with and without masks, have to stay below.
_APART = 0.35
_OF_ONE_PERSON = 0.35  # in the middle of all pairs; of strangers only where an embedding is off centre
_FEWEST_PAIRS = 60  # to describe: 200 left two people of 12 images each at thresholds of .5 to .9
_TYPICAL_SPREAD = 0.1
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
    norms: NormScale = NormScale()  # of the raw embeddings
    attributes: AttributeWeights = AttributeWeights()
    doubt: str | None = None  # what is odd about the gallery, and what to do; not stored


class RandomPairs(NamedTuple):
    """The cosines of pairs of different people in a gallery."""

    centre: float
    spread: float
    same: float = 0.0  # share of all pairs taken for pairs of one person, and left out
    of_all: float = 0.0  # the middle of all pairs


def random_pairs(sample: NDArray[np.int16]) -> RandomPairs:
    """Describe the cosines of all pairs of a sample `(m, d)` that are not of one person.

    Median, and median minus the 15.87 % quantile, of the lower part of all cosines: pairs of the same
    person live in the upper tail. Few of them do not matter, and nothing is left out. Where one person has
    much of the gallery, as in an album, the least share is left out, in steps, without which the rest is
    shaped as a normal distribution: as far up from the median to the 84.13 % quantile as down to the
    15.87 %, and half of the way down to the 2.28 %. What is left out has to be far above it: two kinds of
    images, of which each is more alike within itself, are not one person. Where no share is like that, as in
    a gallery of one person alone, all pairs count (see `Thresholds.doubt`). Fewer than 60 faces tell little
    of the spread, which is drawn towards that of a typical model; fewer than 20 tell nothing.
    """
    if len(sample) < TOO_FEW:
        return RandomPairs(0.0, _TYPICAL_SPREAD)
    cosines = np.sort(cosine_matrix(sample, sample)[np.triu_indices(len(sample), 1)])
    most = 1.0 - min(_FEWEST_PAIRS / len(cosines), 1.0)
    found = [_without(cosines, share) for share in np.arange(0.0, most + _SHARE_STEP / 2, _SHARE_STEP)]
    first = next((pairs for pairs, misfit in found if misfit <= _NORMAL), None)
    nearest, misfit = min(found, key=lambda one: one[1])
    pairs = first or (nearest if misfit <= _NEARLY else found[0][0])
    return pairs._replace(spread=spread_of_few(pairs.spread, _TYPICAL_SPREAD, len(sample)))


def _without(cosines: NDArray[np.float32], share: float) -> tuple[RandomPairs, float]:
    """Describe ascending cosines without a share at the upper end, and how far the rest is from normal.

    That is 1 or more: times by which a side is too long or too short; infinite where the end is not apart.
    """
    last = len(cosines) - 1
    far, low, middle, high = cosines[(_QUANTILES * (1.0 - share) * last).astype(np.int64)].tolist()
    spread = max(middle - low, 1e-3)
    sides = (max((high - middle) / spread, 1e-9), max((middle - far) / spread / 2, 1e-9))
    misfit = max(*sides, *(1 / side for side in sides))
    left_out = float(cosines[int((1.0 - share / 2) * last)])
    if share and left_out < middle + _APART * (1.0 - middle):
        misfit = np.inf
    return RandomPairs(middle, spread, float(share), float(cosines[last // 2])), misfit


def choose_thresholds(
    sample: NDArray[np.int16],
    faces: int,
    neighbours: NeighboursConfig,
    groups: CoarseGroupsConfig,
    norms: NDArray[np.float32] | None = None,
    attributes: NDArray[np.float32] | None = None,
) -> Thresholds:
    """Choose floor and first thresholds for a gallery of `faces` faces [claims 2, 3].

    `auto` counts chance links. A random pair's cosine is close to normal, so the share of random pairs
    above mean + z s.d. is 1 - Phi(z); the lowest first threshold is where a face has
    `random_links` of them on average, near the point where one component swallows the gallery, and
    so rises with the gallery's size. The floor is where it has K. Real galleries of 14.5 K and
    9.7 K faces by two models: floor 0.26, thresholds 0.35, 0.45, 0.55. `random_pairs` says which pairs
    count, unless the config gives their mean and standard deviation.

    sample: int16 `(m, d)`, in the order of ids.sample_rows. norms: `(m,)` of their embeddings, and
    attributes: standardised `(m, a)`, to be described beside the cosines. Raises ConfigError where a given
    floor lies above the lowest given threshold.
    """
    given = groups.random_pairs
    pairs = random_pairs(sample) if given == "auto" else RandomPairs(*given)
    mean, spread = pairs.centre, pairs.spread
    how = f", {pairs.same:.0%} of the pairs taken for one person's" if pairs.same else ""
    how = " as given" if given != "auto" else how
    if groups.thresholds == "auto":
        z = max(_chance_level(groups.random_links, faces), LOWEST_ROOT)
        levels = tuple(sorted({_chosen(mean + spread * (z + step)) for step in groups.spread}))
        chosen = f"auto: {groups.random_links:g} chance links a face at {z:.2f} s.d. above random pairs{how}"
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
    lengths = NormScale() if norms is None else norm_scale(norms)
    weights = AttributeWeights()
    if norms is not None and attributes is not None:
        weights = weigh_attributes(sample, attributes, norms, lengths, sure_cosine(mean, spread))
    return Thresholds(floor, levels, mean, spread, floor_chosen, chosen, lengths, weights, _doubt(pairs))


def _doubt(pairs: RandomPairs) -> str | None:
    """Say that a gallery may be of one person, where its pairs do not tell."""
    if pairs.same or pairs.of_all < _OF_ONE_PERSON:
        return None
    return (
        f"two faces of this gallery have a cosine of {pairs.of_all:.2f} in the middle, as images of one "
        "person have with most embeddings. If nearly all are of one, say how different people are: "
        "'coarse_groups.random_pairs=[0.0,0.1]' is typical; else ignore this"
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
