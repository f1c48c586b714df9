"""What kin, blur, bursts, quality, pose and age do to synthetic embeddings and attributes."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic_blocks import PLAIN, one_block, row_cosines, unit

from faceclust_spark.config import SynthConfig
from faceclust_spark.kernels.synth import (
    FACTORS,
    draw_attributes,
    draw_directions,
    draw_gallery,
    draw_people,
    mixing_matrix,
)
from faceclust_spark.kernels.synth_factors import BLURRED_BELOW


def test_kin_have_the_wanted_cosine() -> None:
    config, factors, _ = one_block(
        faces=10_000, dimension=256, kin_cosine=0.6, kin_share=0.4, family_size=4, mean_identity_size=4.0
    )
    centres, family = draw_people(config, 0, factors.family).centres, factors.family
    assert (family >= 0).mean() == pytest.approx(0.4, abs=0.01)
    assert set(np.bincount(family[family >= 0])) == {4}
    same = family[:, None] == family[None, :]
    kin = np.triu(same & (family >= 0)[:, None], 1)
    cosines = centres @ centres.T
    assert cosines[kin].mean() == pytest.approx(0.6, abs=0.01)
    assert abs(cosines[np.triu(~same, 1)].mean()) < 0.01


def test_blurred_faces_move_to_the_attractor() -> None:
    config, factors, vectors = one_block(**PLAIN | {"attractor_pull": 0.8, "blurred_share": 0.2})
    blurred = factors.quality < BLURRED_BELOW
    assert blurred.mean() == pytest.approx(0.2, abs=0.015)
    weight = 0.8 * (1.0 - factors.quality[blurred] / BLURRED_BELOW)
    expected = weight / np.sqrt(weight**2 + (1.0 - weight) ** 2)
    found = unit(vectors) @ draw_directions(config).attractor
    # Centre and attractor are not quite at right angles: 1/sqrt(128) = 0.09.
    assert np.abs(found[blurred] - expected).mean() < 0.08
    assert abs((found[blurred] - expected).mean()) < 0.02
    assert abs(found[~blurred].mean()) < 0.02
    assert found[factors.quality < 0.03].mean() > 0.9


@pytest.mark.parametrize("cosine", [0.9, 0.98])
def test_bursts_are_near_duplicates_in_other_photos(cosine: float) -> None:
    _, factors, vectors = one_block(burst_cosine=cosine, burst_share=0.25, dimension=256)
    rows = np.arange(len(vectors))
    copies = factors.repeats != rows
    root = factors.repeats[copies]
    assert copies.mean() == pytest.approx(0.25, abs=0.015)
    assert (factors.repeats[root] == root).all()
    assert (factors.person[root] == factors.person[copies]).all()
    assert (factors.photo[root] != factors.photo[copies]).all()
    assert (factors.quality[root] == factors.quality[copies]).all()
    cosines = row_cosines(vectors[copies], vectors[root])
    assert cosines.mean() == pytest.approx(cosine, abs=0.005) and cosines.min() > cosine - 0.15


def test_noise_grows_as_quality_falls() -> None:
    config, factors, vectors = one_block(
        **PLAIN | {"noise": 0.7, "quality_effect": 1.5, "person_spread": 0.0, "dimension": 512}
    )
    own = row_cosines(vectors, draw_people(config, 0, factors.family).centres[factors.person])
    expected = 1.0 / np.sqrt(1.0 + (0.7 * np.exp(1.5 * (0.7 - factors.quality))) ** 2)
    assert np.abs(own - expected).mean() < 0.03
    assert np.corrcoef(own, factors.quality)[0, 1] > 0.8


def test_some_persons_vary_more_than_others() -> None:
    spreads = []
    for spread in (0.0, 0.4):
        config, factors, vectors = one_block(**PLAIN | {"noise": 0.7, "person_spread": spread})
        own = row_cosines(vectors, draw_people(config, 0, factors.family).centres[factors.person])
        totals, counts = np.bincount(factors.person, own), np.bincount(factors.person)
        spreads.append((totals / counts)[counts >= 20].std())
    assert spreads[1] > 2.5 * spreads[0]


@pytest.mark.parametrize("name", ["pose", "age"])
def test_pose_and_age_shift_along_the_persons_direction(name: str) -> None:
    config, factors, vectors = one_block(**PLAIN | {f"{name}_noise": 0.5}, dimension=512)
    people = draw_people(config, 0, factors.family)
    directions = {"pose": people.poses, "age": people.ages}[name]
    # Without other noise, a face is (centre + 0.5 t direction) / length: its part across the centre.
    centre, direction, t = people.centres[factors.person], directions[factors.person], getattr(factors, name)
    expected = unit(centre + (0.5 * t)[:, None] * direction)
    assert row_cosines(vectors, expected).min() > 0.9999
    assert t.std() == pytest.approx(1.0, abs=0.03)
    shared = directions @ directions.T
    assert shared[np.triu_indices(len(shared), 1)].mean() == pytest.approx(config.shared_variation, abs=0.01)


def test_attributes_follow_their_factors() -> None:
    config, factors, _ = one_block(attributes=20, missing_attribute_share=0.1, attribute_noise=0.5)
    attributes, mixing = draw_attributes(config, 0, factors), mixing_matrix(config)
    missing = np.isnan(attributes)
    assert missing.mean() == pytest.approx(0.1, abs=0.005)
    scales = np.nanstd(attributes, axis=0)
    assert scales.max() > 20 * scales.min()
    known = {"age": factors.years, "pose": factors.pose, "quality": factors.quality}
    for name, factor in known.items():
        column = FACTORS.index(name)
        for attribute in range(20):
            seen = ~missing[:, attribute]
            found = np.corrcoef(attributes[seen, attribute], factor[seen])[0, 1]
            expected = mixing[attribute, column] / np.sqrt(1.0 + 0.5**2)
            assert found == pytest.approx(expected, abs=0.1)
        assert mixing[column, column] > 0.7
    # Gender and complexion are the person's: most of such an attribute lies between persons.
    for attribute in (0, 1):
        assert _share_between_persons(attributes[:, attribute], factors.person) > 0.5
    assert _share_between_persons(attributes[:, FACTORS.index("pose")], factors.person) < 0.35


def _share_between_persons(values: np.ndarray, person: np.ndarray) -> float:
    """Estimate the variance between persons over all of it, from pairs of one person's faces."""
    seen = np.isfinite(values)
    values, person = values[seen], person[seen]
    order = np.argsort(person, kind="stable")
    values, person = (values - values.mean())[order] / values.std(), person[order]
    pairs = np.flatnonzero(person[1:] == person[:-1])
    return float(1.0 - ((values[pairs] - values[pairs + 1]) ** 2).mean() / 2.0)


def test_raw_vectors_are_longer_where_quality_is_high() -> None:
    gallery = draw_gallery(SynthConfig(embedding_norm=20.0, norm_spread=0.1))
    norms = np.linalg.norm(gallery.embeddings, axis=1)
    assert np.median(norms) == pytest.approx(20.0, rel=0.02)
    assert np.log(norms).std() == pytest.approx(0.1, rel=0.2)
    assert np.corrcoef(norms, gallery.quality)[0, 1] > 0.5
