from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from synthetic_blocks import common_rows

from faceclust_spark.config import SynthConfig
from faceclust_spark.kernels.synth import (
    BAND_EDGES,
    count_blocks,
    draw_block,
    draw_gallery,
)
from faceclust_spark.kernels.synth_factors import block_bounds, draw_sizes


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


def test_no_attributes_are_an_empty_matrix() -> None:
    assert draw_gallery(SynthConfig(faces=50, attributes=0)).attributes.shape == (50, 0)


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
