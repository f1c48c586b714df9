"""Readings: what a gallery's attributes tell of its images, whichever they are and in any order."""

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import Ridge

from faceclust_spark.kernels.grid import cosine_matrix, normalise, quantise
from faceclust_spark.kernels.norms import NormScale, norm_scale, standardise_norms
from faceclust_spark.kernels.readings import (
    QUALITIES,
    READINGS,
    AttributeWeights,
    describe_qualities,
    read_attributes,
    weigh_attributes,
)

FACES = 600
SURE = 0.3  # cosine of two images that show one person, of 64 components


@pytest.fixture(scope="module")
def gallery():
    """Vectors, norms, attributes: how sharp (goes with closeness), a score (one-sided), pose, and noise.

    Sharp images lie nearer to their person's centre; those that a detector found by a whisker have short
    norms.
    """
    generator = np.random.default_rng(3)
    sharp, failed = generator.normal(size=FACES), generator.exponential(size=FACES)
    people = np.repeat(generator.normal(size=(FACES // 20, 64)), 20, axis=0)
    raw = people + np.exp(-0.4 * sharp)[:, None] * generator.normal(size=(FACES, 64))
    norms = np.exp(2.5 - 0.1 * failed + 0.05 * generator.normal(size=FACES)).astype(np.float32)
    score = -failed + 0.3 * generator.normal(size=FACES)
    attributes = np.column_stack([sharp, score, *generator.normal(size=(3, FACES)), np.zeros(FACES)])
    attributes[:, :-1] = (attributes[:, :-1] - attributes[:, :-1].mean(0)) / attributes[:, :-1].std(0)
    return quantise(normalise(raw)), attributes.astype(np.float32), norms


def weigh(gallery, columns=None, rows=slice(None)):
    vectors, attributes, norms = (part[rows] for part in gallery)
    attributes = attributes if columns is None else attributes[:, columns]
    return weigh_attributes(vectors, attributes, norms, norm_scale(norms), SURE)


def reference(gallery):
    """The weights by scipy and scikit-learn: correlations beyond chance, by ridge regression and by tails."""
    vectors, attributes, norms = gallery
    cosines = cosine_matrix(vectors, vectors).astype(np.float64)
    nearest = np.array([np.delete(row, place).max() for place, row in enumerate(cosines)])
    sure, known = nearest >= SURE, np.isfinite(norms).all()
    beyond = []
    for values, rows in ((nearest, sure), (norms, np.full(FACES, known))):
        told = np.zeros(attributes.shape[1])
        for place, column in enumerate(attributes[rows].T.astype(np.float64)):
            if rows.any() and column.std() > 0:
                r = stats.pearsonr(column, stats.rankdata(values[rows], "ordinal")).statistic
                told[place] = np.sign(r) * max(abs(r) - 2 / np.sqrt(rows.sum()), 0)
        beyond.append(told)
    tails = -np.nan_to_num(stats.skew(attributes.astype(np.float64))) * np.sign(beyond[1])
    failure = beyond[1] * np.clip(tails, 0.0, 2.0)
    closeness, kept = np.zeros(attributes.shape[1]), beyond[0] != 0
    own = attributes[sure][:, kept].astype(np.float64)
    centred = own - own.mean(axis=0)
    # With targets y = X (X'X)^-1 n b the regression's right-hand side X'y / n is b, what is beyond chance.
    targets = centred @ np.linalg.inv(centred.T @ centred) @ (beyond[0][kept] * own.std(axis=0)) * len(own)
    closeness[kept] = Ridge(alpha=0.2 * len(own), fit_intercept=False).fit(centred, targets).coef_
    return closeness, failure / (np.abs(failure).sum() + 0.03)


@pytest.mark.parametrize("known", [True, False])
def test_weights_equal_the_reference(gallery, known):
    vectors, attributes, norms = gallery
    gallery = vectors, attributes, norms if known else np.full(FACES, np.nan, np.float32)
    found = weigh(gallery)
    assert found.closeness[0] > 0.5
    for own, expected in zip(found, reference(gallery), strict=True):
        np.testing.assert_allclose(own, expected, atol=1e-4)


def test_what_goes_with_closeness_and_what_fails_are_found_among_others(gallery):
    closeness, failure = (np.array(own) for own in weigh(gallery))
    assert closeness[0] > 0.5  # the size of a correlation
    assert closeness[0] > 0.8 * abs(closeness).sum() and abs(closeness[1:]).max() < 0.1
    assert failure[1] > 0.8 and abs(np.delete(failure, 1)).max() < 0.1
    for own in (closeness, failure):
        assert abs(own).sum() < 1.0


def test_an_attribute_that_one_face_made_the_same_for_all_others_counts_next_to_nothing(gallery):
    """As where one estimate of a pose has gone wrong: among those that surely have another it is the same."""
    vectors, attributes, norms = gallery
    squashed = 1e-4 * attributes[:, :1]
    squashed[int(np.argmin(cosine_matrix(vectors, vectors).mean(axis=1)))] = 6.0
    weights = weigh((vectors, np.column_stack([attributes, squashed]), norms))
    assert abs(weights.closeness[-1]) < 0.01
    np.testing.assert_allclose(weights.closeness[:-1], weigh(gallery).closeness, atol=0.01)


def test_attributes_that_tell_the_same_count_once(gallery):
    vectors, attributes, norms = gallery
    weights = weigh((vectors, attributes[:, [0, 0, 0, 1, 2, 3]], norms))
    assert weights.closeness[0] == weights.closeness[1] == weights.closeness[2]
    assert sum(weights.closeness[:3]) == pytest.approx(weigh(gallery).closeness[0], rel=0.2)


def test_what_tells_of_look_alikes_is_not_read():
    """Half of the people are alike, and each image has one other of its person."""
    found = []
    for seed in range(10):
        generator = np.random.default_rng(seed)
        alike = np.arange(FACES // 2) % 2
        people = normalise(generator.normal(size=(FACES // 2, 64)))
        people = normalise(people + 0.7 * alike[:, None] * np.eye(64)[0])
        vectors = normalise(np.repeat(people, 2, 0) + 0.05 * generator.normal(size=(FACES, 64)))
        sample, kind = quantise(vectors), np.repeat(2.0 * alike - 1.0, 2).astype(np.float32)[:, None]
        assert abs(np.corrcoef(cosine_matrix(sample, sample).mean(axis=1), kind[:, 0])[0, 1]) > 0.9
        unknown = np.full(FACES, np.nan, np.float32)
        found += weigh_attributes(sample, kind, unknown, NormScale(), 0.8).closeness
    assert np.median(np.abs(found)) == 0.0 and np.abs(found).max() < 0.1


def test_few_faces_that_surely_have_another_tell_nothing(gallery):
    vectors, attributes, norms = gallery
    nearest = np.sort([np.delete(row, i).max() for i, row in enumerate(cosine_matrix(vectors, vectors))])
    weights = weigh_attributes(vectors, attributes, norms, norm_scale(norms), float(nearest[-17]))
    assert set(weights.closeness) == {0.0} and weights.failure == weigh(gallery).failure


def test_neither_order_nor_sign_nor_useless_attributes_change_the_readings(gallery):
    _, attributes, _ = gallery
    expected = read_attributes(attributes, weigh(gallery))
    turned = [4, 1, 5, 0, 2, 3]
    np.testing.assert_allclose(
        read_attributes(attributes[:, turned], weigh(gallery, turned)), expected, atol=1e-5
    )
    flipped = (gallery[0], -attributes, gallery[2])
    np.testing.assert_allclose(read_attributes(-attributes, weigh(flipped)), expected, atol=1e-5)
    few = read_attributes(attributes[:, :2], weigh(gallery, [0, 1]))
    for place in range(READINGS):
        assert np.corrcoef(few[:, place], expected[:, place])[0, 1] > 0.99


def test_random_attributes_tell_next_to_nothing(gallery):
    vectors, _, norms = gallery
    noise = np.random.default_rng(5).normal(size=(FACES, 30)).astype(np.float32)
    weights = weigh_attributes(vectors, noise, norms, norm_scale(norms), SURE)
    spread = read_attributes(noise, weights).std(axis=0)
    own = read_attributes(gallery[1], weigh(gallery)).std(axis=0)
    assert (spread < own / 3).all()


def test_constant_and_missing_attributes_have_no_weight(gallery):
    vectors, attributes, norms = gallery
    holes = attributes.copy()
    holes[:, 2] = np.nan
    holes[::3, 0] = np.nan
    weights = weigh((vectors, holes, norms))
    assert [own[place] for own in weights for place in (2, 5)] == [0.0] * 4
    found = read_attributes(holes, weights)
    assert np.isfinite(found).all()
    alone = np.full((1, 6), np.nan, np.float32)
    assert read_attributes(alone, weights).tolist() == [[0.0, 0.0]]


def test_what_few_faces_have_counts_little_and_what_a_handful_have_nothing(gallery):
    vectors, attributes, norms = gallery
    weights = []
    for known in (19, 60, FACES):
        some = attributes.copy()
        some[known:, 0] = np.nan
        weights.append(weigh((vectors, some, norms)).closeness[0])
    assert weights[0] == 0.0 and 0.0 <= weights[1] < weights[2]


def test_unknown_norms_are_as_those_in_the_middle(gallery):
    vectors, attributes, norms = gallery
    scale = norm_scale(norms)
    unknown, middle = norms.copy(), norms.copy()
    unknown[::10], middle[::10] = np.nan, np.exp(scale.centre)
    found, expected = (weigh_attributes(vectors, attributes, some, scale, SURE) for some in (unknown, middle))
    np.testing.assert_allclose(found.failure, expected.failure, atol=0.02)


def test_the_layout_in_memory_does_not_matter(gallery):
    vectors, attributes, norms = gallery
    assert weigh((vectors, np.asfortranarray(attributes), norms)) == weigh(gallery)


@pytest.mark.parametrize("width", [5, 7])
def test_weights_of_another_gallery_are_refused(gallery, width):
    with pytest.raises(ValueError, match=f"{width} attributes and weights of 6"):
        read_attributes(np.zeros((3, width), np.float32), weigh(gallery))


@pytest.mark.parametrize("rows", [slice(0), slice(1), slice(19)])
def test_a_handful_of_faces_tells_nothing(gallery, rows):
    assert weigh(gallery, rows=rows) == AttributeWeights()


def test_few_faces_give_small_weights(gallery):
    few, many = ([np.abs(own).sum() for own in weigh(gallery, rows=slice(n))] for n in (40, FACES))
    assert few[0] < many[0]


def test_without_norms_the_second_reading_is_silent(gallery):
    vectors, attributes, norms = gallery
    weights = weigh_attributes(vectors, attributes, np.ones_like(norms), NormScale(), SURE)
    assert set(weights.failure) == {0.0}
    assert weights.closeness == weigh(gallery).closeness


@pytest.mark.parametrize("width", [0, 4])
def test_a_gallery_without_attributes_has_no_weights(gallery, width):
    vectors, _, norms = gallery
    nothing = np.full((FACES, width), np.nan, np.float32)
    weights = weigh_attributes(vectors, nothing, norms, norm_scale(norms), SURE)
    assert weights == AttributeWeights()
    assert (read_attributes(nothing, weights) == 0).all()


def test_readings_are_the_weighted_sums_of_each_row_by_itself(gallery):
    _, attributes, _ = gallery
    weights = weigh(gallery)
    found = read_attributes(attributes, weights)
    assert (found.dtype, found.shape) == (np.float32, (FACES, READINGS))
    expected = attributes.astype(np.float64) @ np.array(weights).T
    np.testing.assert_allclose(found, expected, atol=1e-6)
    alone = np.concatenate([read_attributes(row[None], weights) for row in attributes[:50]])
    assert alone.tobytes() == found[:50].tobytes()
    bare = read_attributes(attributes[:, :0], weights)  # a group of which no image has any
    assert bare.tolist() == [[0.0, 0.0]] * FACES


def test_qualities_are_the_norm_and_the_readings(gallery):
    _, attributes, norms = gallery
    scale, weights = norm_scale(norms), weigh(gallery)
    found = describe_qualities(norms, attributes, scale, weights)
    assert found.shape == (FACES, QUALITIES)
    np.testing.assert_array_equal(found[:, 0], standardise_norms(norms, scale))
    np.testing.assert_array_equal(found[:, 1:], read_attributes(attributes, weights))
