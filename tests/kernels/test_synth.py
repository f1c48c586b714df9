from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from faceclust_spark.config import SynthConfig
from faceclust_spark.kernels.synth import (
    BAND_EDGES,
    FACTORS,
    count_blocks,
    draw_attributes,
    draw_block,
    draw_directions,
    draw_embeddings,
    draw_gallery,
    draw_people,
    mixing_matrix,
)
from faceclust_spark.kernels.synth_factors import BLURRED_BELOW, block_bounds, draw_factors, draw_sizes

PLAIN = {
    "attractor_pull": 0.0,
    "kin_share": 0.0,
    "burst_share": 0.0,
    "pose_noise": 0.0,
    "age_noise": 0.0,
    "noise": 0.0,
}


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def row_cosines(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    return (unit(rows) * unit(others)).sum(axis=1)


def common_rows(rows: np.ndarray, others: np.ndarray) -> set[bytes]:
    return {row.tobytes() for row in rows} & {row.tobytes() for row in others}


def one_block(**values):
    """Give config, factors and embeddings of a gallery of one block."""
    config = SynthConfig(**values)
    assert count_blocks(config) == 1
    factors = draw_factors(config, 0, config.faces)
    return config, factors, draw_embeddings(config, 0, factors)


def assert_equal_faces(found, expected) -> None:
    for left, right in zip(found, expected, strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("faces", [10, 11, 999, 10_000, 10_001, 25_003])
def test_the_gallery_has_exactly_the_faces_asked_for(faces: int) -> None:
    gallery = draw_gallery(SynthConfig(faces=faces, dimension=8, attributes=2))
    assert {len(column) for column in gallery} == {faces}
    assert len(set(gallery.image_ids)) == faces
    assert gallery.embeddings.shape == (faces, 8) and gallery.embeddings.dtype == np.float32
    assert gallery.attributes.shape == (faces, 2) and gallery.attributes.dtype == np.float32
    assert np.isfinite(gallery.embeddings).all()


def test_the_smallest_gallery_has_several_persons() -> None:
    for seed in range(20):
        gallery = draw_gallery(SynthConfig(faces=10, seed=seed))
        assert np.unique(gallery.labels, return_counts=True)[1].max() <= 2
        assert len(set(zip(gallery.photo_ids, gallery.labels, strict=True))) == 10


def test_a_seed_means_one_gallery() -> None:
    config = SynthConfig(faces=1_500, dimension=16)
    first, other = draw_gallery(config), draw_gallery(config.model_copy(update={"seed": 1}))
    assert_equal_faces(first, draw_gallery(config))
    assert not common_rows(first.embeddings, other.embeddings)
    assert not np.array_equal(np.unique(first.labels), np.unique(other.labels))


def test_a_block_does_not_depend_on_those_before_it() -> None:
    config = SynthConfig(faces=25_003, dimension=8)
    bounds, gallery = block_bounds(config), draw_gallery(config)
    assert np.diff(bounds).tolist() == [8_334, 8_334, 8_335]
    for block in (2, 0, 1):
        rows = slice(bounds[block], bounds[block + 1])
        assert_equal_faces(draw_block(config, block), [column[rows] for column in gallery])
    assert not set(gallery.labels[: bounds[1]]) & set(gallery.labels[bounds[1] :])
    assert not common_rows(gallery.embeddings[: bounds[1]], gallery.embeddings[bounds[1] :])


def test_a_block_beyond_the_gallery_is_refused() -> None:
    with pytest.raises(ValueError, match="blocks 0 to 0"):
        draw_block(SynthConfig(), 1)


def test_blocks_of_the_largest_galleries_are_cheap_to_find() -> None:
    config = SynthConfig(faces=10**8, dimension=8, attributes=0)
    assert count_blocks(config) == 10_000
    last = draw_block(config, 9_999)
    assert last.image_ids[-1] == "face-0099999999" and len(last.image_ids) == 10_000
    assert np.diff(block_bounds(SynthConfig(largest_identity=25_000, faces=123_457))).min() >= 50_000


def test_identity_sizes_have_a_long_tail_and_the_wanted_mean() -> None:
    config = SynthConfig(faces=2_000_000, largest_identity=1_500)
    sizes = np.concatenate([draw_sizes(config, block, 10_000) for block in range(count_blocks(config))])
    assert sizes.sum() == config.faces and sizes.min() == 1
    assert sizes.mean() == pytest.approx(config.mean_identity_size, rel=0.02)
    assert 1_000 < sizes.max() <= 1_500
    assert np.median(sizes) < sizes.mean() / 2
    # Far out P(size >= s) falls as s^-tail.
    tail = np.log((sizes >= 40).mean() / (sizes >= 160).mean()) / np.log(4)
    assert tail == pytest.approx(config.identity_size_tail, abs=0.2)


def test_a_longer_tail_is_a_larger_largest_person() -> None:
    largest = [
        max(draw_sizes(SynthConfig(identity_size_tail=tail), block, 10_000).max() for block in range(20))
        for tail in (1.3, 3.0)
    ]
    assert largest[0] > 2 * largest[1]


def test_everybody_may_be_alone() -> None:
    gallery = draw_gallery(SynthConfig(faces=500, mean_identity_size=1.0))
    assert len(set(gallery.labels)) == 500


@pytest.mark.parametrize("per_photo", [1.0, 1.6, 6.0])
def test_a_photo_shows_each_person_once(per_photo: float) -> None:
    gallery = draw_gallery(SynthConfig(faces=12_000, dimension=8, faces_per_photo=per_photo))
    faces, photos = len(gallery.photo_ids), len(set(gallery.photo_ids))
    assert len(set(zip(gallery.photo_ids, gallery.labels, strict=True))) == faces
    assert faces / photos == pytest.approx(per_photo, rel=0.05)


def test_row_order_and_ids_do_not_tell_the_person() -> None:
    gallery = draw_gallery(SynthConfig(faces=5_000, dimension=8))
    chosen = np.random.default_rng(0).permutation(5_000)[:500]
    persons = [len(set(gallery.labels[rows])) for rows in (slice(0, 500), chosen)]
    assert persons[0] == pytest.approx(persons[1], rel=0.2)
    person = np.unique(gallery.labels, return_inverse=True)[1]
    assert (person[1:] == person[:-1]).mean() < 0.05
    assert abs(np.corrcoef(np.arange(5_000), person)[0, 1]) < 0.06


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


def test_no_attributes_are_an_empty_matrix() -> None:
    assert draw_gallery(SynthConfig(faces=50, attributes=0)).attributes.shape == (50, 0)


def test_raw_vectors_are_longer_where_quality_is_high() -> None:
    gallery = draw_gallery(SynthConfig(embedding_norm=20.0, norm_spread=0.1))
    norms = np.linalg.norm(gallery.embeddings, axis=1)
    assert np.median(norms) == pytest.approx(20.0, rel=0.02)
    assert np.log(norms).std() == pytest.approx(0.1, rel=0.2)
    assert np.corrcoef(norms, gallery.quality)[0, 1] > 0.5


def test_bands_follow_quality() -> None:
    gallery = draw_gallery(SynthConfig(faces=3_000, dimension=8))
    for band, (low, high) in {
        "low": (0.0, BAND_EDGES[0]),
        "middle": BAND_EDGES,
        "high": (BAND_EDGES[1], 1.0),
    }.items():
        quality = gallery.quality[gallery.quality_bands == band]
        assert len(quality) > 200 and quality.min() >= low and quality.max() <= high


@pytest.mark.parametrize(
    "values",
    [
        {"faces": 9},
        {"seed": -1},
        {"dimension": 4},
        {"mean_identity_size": 0.5},
        {"identity_size_tail": 1.0},
        {"largest_identity": 30_000},
        {"mean_identity_size": 8.0, "largest_identity": 14},
        {"noise": -0.1},
        {"blurred_share": 1.1},
        {"kin_cosine": -0.2},
        {"family_size": 1},
        {"burst_cosine": 1.2},
        {"faces_per_photo": 0.5},
        {"embedding_norm": 0.0},
        {"attributes": -1},
        {"missing_attribute_share": 2.0},
        {"twins": 3},
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=next(iter(values))):
        SynthConfig(**values)
