"""Who is in a synthetic gallery, and how each face was taken: everything but the vectors.

A gallery is made of blocks of faces, each drawn on its own, whose bounds follow from the config only.
Every draw of a block comes from a counter-based generator keyed by seed, purpose and block (Philox;
Salmon et al. 2011), so a block's faces are the same wherever and with whatever else they are made.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from faceclust_spark.config import SynthConfig

BLOCK_FACES = 10_000  # at most; at 512 components a block takes some 60 MB while it is made
BLURRED_BELOW = 0.25  # quality of blurred faces: uniform in 0 to this
USUAL_QUALITY = 0.7  # mean of the others: this and above to 1, by a Beta(4, 2.67) law
_ADULT_YEARS = 40.0
_YEARS_BETWEEN_PEOPLE = 12.0  # s.d.
_YEARS_WITHIN_PERSON = 8.0  # s.d.
_DEALS = 8  # of faces to photos


class Purpose(IntEnum):
    """What random numbers are drawn for. The values are part of what a seed means."""

    COMMON = 0
    SIZES = 1
    PEOPLE = 2
    FACTORS = 3
    PHOTOS = 4
    ORDER = 5
    EMBEDDINGS = 6
    ATTRIBUTES = 7


class Factors(NamedTuple):
    """The faces of one block, in the gallery's row order, which is mixed over persons."""

    person: NDArray[np.int64]  # (n,) number of the person in the block, 0..p-1
    photo: NDArray[np.int64]  # (n,) number of the photo in the block
    repeats: NDArray[np.int64]  # (n,) row whose near-duplicate this face is; its own where it is none
    quality: NDArray[np.float32]  # (n,) 0 to 1
    pose: NDArray[np.float32]  # (n,) yaw in standard deviations, negative is left
    age: NDArray[np.float32]  # (n,) difference to the person's mean age, in standard deviations
    years: NDArray[np.float32]  # (n,) age in years
    variation: NDArray[np.float32]  # (p,) the person's noise relative to others', median 1
    family: NDArray[np.int64]  # (p,) number of the person's family; -1 without kin in the gallery


def block_bounds(config: SynthConfig) -> NDArray[np.int64]:
    """Give the first row of each block, and the number of faces at the end: int64 `(blocks + 1,)`.

    Blocks differ by one face at most, and several hold at least twice as many faces as the largest
    person each.
    """
    blocks = -(-config.faces // max(BLOCK_FACES, 4 * config.largest_identity))
    return np.arange(blocks + 1, dtype=np.int64) * config.faces // blocks


def random_stream(config: SynthConfig, purpose: Purpose, block: int) -> np.random.Generator:
    """Give the generator of one purpose in one block, at its start."""
    return np.random.Generator(np.random.Philox(key=[config.seed, purpose], counter=[0, 0, 0, block]))


def draw_factors(config: SynthConfig, block: int, faces: int) -> Factors:
    """Draw all faces of a block of so many faces."""
    sizes = draw_sizes(config, block, faces)
    person = np.repeat(np.arange(len(sizes)), sizes)
    stream = random_stream(config, Purpose.FACTORS, block)
    root = _burst_roots(config, person, stream)
    quality = _qualities(config, faces, stream)[root]
    pose = stream.standard_normal(faces, np.float32)[root]
    age = stream.uniform(-np.sqrt(3), np.sqrt(3), faces).astype(np.float32)[root]
    means = stream.normal(_ADULT_YEARS, _YEARS_BETWEEN_PEOPLE, len(sizes))[person]
    years = np.clip(means + _YEARS_WITHIN_PERSON * age, 1, 99).astype(np.float32)
    variation = np.exp(config.person_spread * stream.standard_normal(len(sizes))).astype(np.float32)
    family = _families(config, len(sizes))
    photo = _photos(config, block, person)
    order = random_stream(config, Purpose.ORDER, block).permutation(faces)
    place = np.argsort(order)
    rows = person[order], photo[order], place[root[order]], quality[order], pose[order], age[order]
    return Factors(*rows, years[order], variation, family)


def draw_sizes(config: SynthConfig, block: int, faces: int) -> NDArray[np.int64]:
    """Draw the number of faces of each person of a block, `(p,)`, which add up to `faces`.

    P(size >= s) = (1 + (s - 1) / scale)^-tail, a shifted Pareto law (Lomax 1954) cut at the largest
    size, its scale chosen for the mean. A small gallery has nobody with more than a quarter of it.
    The last person takes what is left.
    """
    above = _exceedance(_scale(config), config)
    above = above[: max(1, min(config.largest_identity, config.faces // 4))]
    below = 1.0 - np.append(above[1:], 0.0)  # P(size <= s); what the cut leaves over counts as the largest
    uniform = random_stream(config, Purpose.SIZES, block).random(faces)
    ends = np.cumsum(1 + np.searchsorted(below, uniform, side="right"))
    people = int(np.searchsorted(ends, faces)) + 1
    ends[people - 1] = faces
    return np.diff(ends[:people], prepend=0)


def _exceedance(scale: float, config: SynthConfig) -> NDArray[np.float64]:
    """Give P(size >= s) for s = 1..largest, given that no size is larger."""
    steps = np.arange(config.largest_identity + 1, dtype=np.float64)
    law = (1.0 + steps / scale) ** -config.identity_size_tail
    return np.asarray((law[:-1] - law[-1]) / (1.0 - law[-1]), np.float64)


def _scale(config: SynthConfig) -> float:
    """Find the scale at which the mean size, the sum of P(size >= s), is the wanted one."""
    low, high = 1e-9, 1e9
    for _ in range(80):
        middle = float(np.sqrt(low * high))
        short = _exceedance(middle, config).sum() < config.mean_identity_size
        low, high = (middle, high) if short else (low, middle)
    return high


def _burst_roots(
    config: SynthConfig, person: NDArray[np.int64], stream: np.random.Generator
) -> NDArray[np.int64]:
    """Give for each face, persons in a row, the face that it repeats; most repeat themselves."""
    rows = np.arange(len(person))
    later = np.diff(person, prepend=-1) == 0  # all but a person's first face
    chance = config.burst_share * len(person) / max(1, later.sum())
    copies = later & (stream.random(len(person)) < chance)
    return np.maximum.accumulate(np.where(copies, 0, rows))


def _qualities(config: SynthConfig, faces: int, stream: np.random.Generator) -> NDArray[np.float32]:
    blurred = stream.random(faces) < config.blurred_share
    low = stream.uniform(0.0, BLURRED_BELOW, faces)
    mean = (USUAL_QUALITY - BLURRED_BELOW) / (1.0 - BLURRED_BELOW)
    usual = BLURRED_BELOW + (1.0 - BLURRED_BELOW) * stream.beta(4.0, 4.0 * (1.0 - mean) / mean, faces)
    return np.where(blurred, low, usual).astype(np.float32)


def _families(config: SynthConfig, people: int) -> NDArray[np.int64]:
    """Give each person's family: the first persons, whose sizes are as random as all, have kin."""
    with_kin = round(config.kin_share * people)
    with_kin -= with_kin % config.family_size
    family = np.full(people, -1)
    family[:with_kin] = np.arange(with_kin) // config.family_size
    return family


def _photos(config: SynthConfig, block: int, person: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give each face its photo, which shows any number of persons, but each of them once.

    Faces are dealt at random to photos of 1 + Poisson faces. A person's second face in a photo leaves
    it; those who left are dealt again to further photos, and in the end get one each.
    """
    stream = random_stream(config, Purpose.PHOTOS, block)
    photo, rows, used = np.empty_like(person), np.arange(len(person)), 0
    for _ in range(_DEALS):
        dealt = stream.permutation(_slots(config, len(rows), stream))
        photo[rows] = used + dealt
        used += int(dealt.max(initial=-1)) + 1
        _, first = np.unique(dealt * len(person) + person[rows], return_index=True)
        rows = np.delete(rows, first)
    photo[rows] = used + np.arange(len(rows))
    return photo


def _slots(config: SynthConfig, faces: int, stream: np.random.Generator) -> NDArray[np.int64]:
    """Give the photo of each of so many places for faces."""
    sizes = 1 + stream.poisson(config.faces_per_photo - 1.0, faces)
    return np.repeat(np.arange(faces), sizes)[:faces]
