"""Synthetic galleries: embeddings and attributes that follow known factors.

A face of person p, before blur, with c the person's unit centre, a unit pose and a unit age direction,
v the person's own variation, and e Gaussian noise of expected length 1:

    x = c_p + noise * v_p * exp(quality_effect * (0.7 - quality)) * e
          + pose_noise * pose * pose_direction_p + age_noise * age * age_direction_p

A blurred face then moves to one attractor that all persons share, the black hole of real models:

    y = (1 - w) x / |x| + w * attractor,    w = attractor_pull * (1 - quality / 0.25)

The vectors are handed out raw, with lengths that rise with quality, as those of real models do.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from faceclust_spark.config import SynthConfig
from faceclust_spark.kernels.synth_factors import (
    BLURRED_BELOW,
    USUAL_QUALITY,
    Factors,
    Purpose,
    block_bounds,
    draw_factors,
    random_stream,
)

FACTORS = ("gender", "complexion", "age", "pose", "quality")  # attribute j mostly follows FACTORS[j % 5]
BANDS = ("low", "middle", "high")
BAND_EDGES = (0.45, 0.75)  # quality at which the middle and the high band begin
_MAIN_LOADING, _OTHER_LOADING = 1.0, 0.25
_YEARS, _YEARS_SPREAD = 40.0, 14.4  # over all faces: sqrt(12^2 + 8^2)
_QUALITY_SPREAD = 0.2
_NORM_BY_QUALITY, _NORM_BY_CHANCE = 0.8, 0.6


class SyntheticFaces(NamedTuple):
    """Faces as a source holds them, and the truth about them."""

    image_ids: NDArray[np.object_]  # (n,) str
    embeddings: NDArray[np.float32]  # (n, d) raw: not of unit length
    attributes: NDArray[np.float32]  # (n, a) raw scales; NaN is missing
    photo_ids: NDArray[np.object_]  # (n,) str
    quality: NDArray[np.float32]  # (n,) 0 to 1, higher is better
    quality_bands: NDArray[np.object_]  # (n,) one of BANDS
    labels: NDArray[np.object_]  # (n,) str: the person


class Directions(NamedTuple):
    """Unit directions that all persons share, `(d,)` each."""

    attractor: NDArray[np.float32]
    pose: NDArray[np.float32]
    age: NDArray[np.float32]


class People(NamedTuple):
    """The persons of a block, unit rows `(p, d)` each."""

    centres: NDArray[np.float32]
    poses: NDArray[np.float32]
    ages: NDArray[np.float32]


def count_blocks(config: SynthConfig) -> int:
    """Give the number of blocks that the gallery is made of."""
    return len(block_bounds(config)) - 1


def draw_gallery(config: SynthConfig) -> SyntheticFaces:
    """Draw a whole gallery in this process, row for row what the Spark stage gives.

    Takes 4 bytes a component and face, and once more while it is put together.
    """
    blocks = [draw_block(config, block) for block in range(count_blocks(config))]
    return SyntheticFaces(*(np.concatenate(parts) for parts in zip(*blocks, strict=True)))


def draw_block(config: SynthConfig, block: int) -> SyntheticFaces:
    """Draw the faces of one block of the gallery, alike wherever that is done.

    Raises ValueError for a block that the gallery does not have.
    """
    bounds = block_bounds(config)
    if not 0 <= block < len(bounds) - 1:
        raise ValueError(f"block {block} of a gallery with blocks 0 to {len(bounds) - 2}")
    first, end = int(bounds[block]), int(bounds[block + 1])
    factors = draw_factors(config, block, end - first)
    bands = np.array(BANDS, object)[np.digitize(factors.quality, np.array(BAND_EDGES, np.float32))]
    return SyntheticFaces(
        np.array([f"face-{row:010d}" for row in range(first, end)], object),
        draw_embeddings(config, block, factors),
        draw_attributes(config, block, factors),
        np.array([f"photo-{block:06d}-{number:06d}" for number in factors.photo.tolist()], object),
        factors.quality,
        bands,
        np.array([f"person-{block:06d}-{number:06d}" for number in factors.person.tolist()], object),
    )


def draw_directions(config: SynthConfig) -> Directions:
    """Draw what the whole gallery shares."""
    stream = random_stream(config, Purpose.COMMON, 0)
    return Directions(*_unit_rows(stream.standard_normal((3, config.dimension), np.float32)))


def draw_people(config: SynthConfig, block: int, family: NDArray[np.int64]) -> People:
    """Draw the persons of a block, given the family of each, -1 for none.

    Kin share a direction, so that the cosine of their centres is `kin_cosine` on average; the pose
    and age directions of all persons share `shared_variation` of their squared length.
    """
    stream, shape = random_stream(config, Purpose.PEOPLE, block), (len(family), config.dimension)
    shared = draw_directions(config)
    centres, poses, ages = (_unit_rows(stream.standard_normal(shape, np.float32)) for _ in range(3))
    families = _unit_rows(stream.standard_normal((int(family.max()) + 1, shape[1]), np.float32))
    kin = family >= 0
    centres[kin] = _blend(centres[kin], families[family[kin]], config.kin_cosine)
    poses = _blend(poses, shared.pose, config.shared_variation)
    ages = _blend(ages, shared.age, config.shared_variation)
    return People(centres, poses, ages)


def draw_embeddings(config: SynthConfig, block: int, factors: Factors) -> NDArray[np.float32]:
    """Draw the raw face features of a block, float32 `(n, d)`."""
    people = draw_people(config, block, factors.family)
    stream, faces = random_stream(config, Purpose.EMBEDDINGS, block), len(factors.person)
    noise = stream.standard_normal((faces, config.dimension), np.float32)
    noise *= np.float32(config.dimension**-0.5)
    spread = config.noise * np.exp(config.quality_effect * (USUAL_QUALITY - factors.quality))
    spread *= factors.variation[factors.person]
    vectors = people.centres[factors.person]
    vectors += _column(spread) * noise
    vectors += _column(config.pose_noise * factors.pose) * people.poses[factors.person]
    vectors += _column(config.age_noise * factors.age) * people.ages[factors.person]
    vectors = _blur(config, _unit_rows(vectors), factors.quality)
    copies = np.flatnonzero(factors.repeats != np.arange(faces))
    cosine = config.burst_cosine
    vectors[copies] = np.float32(cosine) * vectors[factors.repeats[copies]]
    vectors[copies] += np.float32((1.0 - cosine * cosine) ** 0.5) * noise[copies]
    vectors = _unit_rows(vectors)
    vectors *= _column(_norms(config, factors.quality, stream.standard_normal(faces, np.float32)))
    return vectors


def mixing_matrix(config: SynthConfig) -> NDArray[np.float64]:
    """Give the loadings of each attribute on FACTORS, float64 `(a, 5)`, rows of unit length.

    The first in each five follows gender, the next complexion, and so on; the others mix in.
    """
    stream = random_stream(config, Purpose.ATTRIBUTES, 0)
    loadings = _OTHER_LOADING * stream.standard_normal((config.attributes, len(FACTORS)))
    rows = np.arange(config.attributes)
    loadings[rows, rows % len(FACTORS)] = _MAIN_LOADING
    return np.asarray(loadings / np.sqrt((loadings * loadings).sum(axis=1, keepdims=True)))


def draw_attributes(config: SynthConfig, block: int, factors: Factors) -> NDArray[np.float32]:
    """Draw the raw attributes of a block, float32 `(n, a)`, NaN where one is missing.

    offset + scale * (loadings of the factors + attribute_noise * Gaussian noise): the factors have
    variance 1 or so, scales lie between 0.1 and 30, and both differ between attributes.
    """
    shape = len(factors.person), config.attributes
    common = random_stream(config, Purpose.COMMON, 1)
    scales = 10.0 ** common.uniform(-1.0, 1.5, config.attributes)
    offsets = scales * common.uniform(-3.0, 3.0, config.attributes)
    # Block 0 of this purpose is the mixing matrix, the same for all.
    stream = random_stream(config, Purpose.ATTRIBUTES, block + 1)
    values = config.attribute_noise * stream.standard_normal(shape)
    for number, factor in enumerate(_attribute_factors(factors, stream)):
        values += factor[:, None] * mixing_matrix(config)[:, number]
    values = offsets + scales * values
    values[stream.random(shape) < config.missing_attribute_share] = np.nan
    return values.astype(np.float32)


def _attribute_factors(factors: Factors, stream: np.random.Generator) -> tuple[NDArray[np.float64], ...]:
    """Give each of FACTORS for each face, `(n,)`: gender is near -1 or 1, the others near normal."""
    people = len(factors.family)
    gender = stream.choice([-1.0, 1.0], people) + stream.normal(0.0, 0.2, people)
    complexion = stream.standard_normal(people)
    return (
        gender[factors.person],
        complexion[factors.person],
        (factors.years.astype(np.float64) - _YEARS) / _YEARS_SPREAD,
        factors.pose.astype(np.float64),
        (factors.quality.astype(np.float64) - USUAL_QUALITY) / _QUALITY_SPREAD,
    )


def _blur(
    config: SynthConfig, vectors: NDArray[np.float32], quality: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Move the unit vectors of blurred faces to the attractor, and to unit length again."""
    rows = np.flatnonzero(quality < BLURRED_BELOW)
    weight = _column(config.attractor_pull * (1.0 - quality[rows] / BLURRED_BELOW))
    vectors[rows] = _unit_rows((1 - weight) * vectors[rows] + weight * draw_directions(config).attractor)
    return vectors


def _norms(
    config: SynthConfig, quality: NDArray[np.float32], chance: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Give the lengths of raw face features, log-normal about `embedding_norm`."""
    by_quality = (quality - USUAL_QUALITY) / _QUALITY_SPREAD
    spread = config.norm_spread * (_NORM_BY_QUALITY * by_quality + _NORM_BY_CHANCE * chance)
    return np.asarray(config.embedding_norm * np.exp(spread), np.float32)


def _blend(own: NDArray[np.float32], shared: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    """Mix unit rows so that two of them have the cosine `share` on average."""
    return _unit_rows(np.float32((1.0 - share) ** 0.5) * own + np.float32(share**0.5) * shared)


def _column(values: NDArray[np.floating]) -> NDArray[np.float32]:
    return values.astype(np.float32)[:, None]


def _unit_rows(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    vectors /= np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None]
    return vectors
