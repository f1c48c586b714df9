"""Feature norms: measured, described and standardised."""

import numpy as np
import pytest

from faceclust_spark.kernels.norms import NormScale, feature_norms, norm_scale, standardise_norms


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_norms_are_those_of_numpy(kind):
    rows = (np.random.default_rng(0).normal(size=(200, 33)) * 7).astype(kind)
    found = feature_norms(rows)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.linalg.norm(rows.astype(np.float64), axis=1), rtol=1e-6)


@pytest.mark.parametrize("size", [1e-30, 1e-18, 1e18, 1e30])
def test_huge_and_tiny_embeddings_have_their_norms(size):
    rows = np.full((1, 4), size)
    assert feature_norms(rows) == pytest.approx([2 * size], rel=1e-6)


def test_norms_beyond_single_precision_are_unknown():
    far = feature_norms(np.array([[1e300, 0.0], [3.0, 4.0]]))
    assert far.tolist() == [np.inf, 5.0]
    assert standardise_norms(far, NormScale(np.log(5.0), 0.1)).tolist() == [0.0, 0.0]


def test_each_norm_depends_on_its_row_only():
    rows = np.random.default_rng(1).normal(size=(50, 128)).astype(np.float32)
    alone = np.concatenate([feature_norms(row[None]) for row in rows])
    assert feature_norms(rows).tobytes() == alone.tobytes()
    assert feature_norms(np.asfortranarray(rows)).tobytes() == alone.tobytes()


def test_the_scale_is_that_of_the_logarithms():
    logarithms = np.random.default_rng(2).normal(2.8, 0.12, size=20_000)
    norms = np.exp(logarithms).astype(np.float32)
    norms[:200] = 1e6  # as many do not matter
    found = norm_scale(np.append(norms, np.float32(np.nan)))
    assert found.centre == pytest.approx(2.8, abs=0.01)
    assert found.spread == pytest.approx(0.12, rel=0.03)
    scores = standardise_norms(norms[200:], found)
    np.testing.assert_allclose(scores, np.clip((logarithms[200:] - 2.8) / 0.12, -4, 4), atol=0.15)
    assert standardise_norms(np.array([1e9, 1e-9, np.nan, 0.0], np.float32), found).tolist() == [4, -4, 0, 0]


@pytest.mark.parametrize("precision", [np.float16, np.float32, np.float64])
def test_norms_of_a_normalised_gallery_tell_nothing(precision):
    rows = np.random.default_rng(3).normal(size=(500, 128))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(precision)
    norms = feature_norms(rows)
    assert norm_scale(norms).spread == 0.0
    assert (standardise_norms(norms, norm_scale(norms)) == 0).all()


@pytest.mark.parametrize("count", [2, 5, 19])
def test_a_few_norms_tell_nothing(count):
    assert (
        norm_scale(np.exp(np.random.default_rng(count).normal(size=count)).astype(np.float32)) == NormScale()
    )


def test_less_than_sixty_norms_draw_the_spread_to_a_typical_one():
    generator = np.random.default_rng(5)

    def typical(count, spread):
        drawn = [np.exp(generator.normal(2, spread, count)).astype(np.float32) for _ in range(60)]
        return np.mean([norm_scale(norms).spread for norms in drawn])

    for spread, order in ((0.4, 1), (0.05, -1)):
        found = [typical(count, spread) for count in (20, 30, 45, 60)]
        assert (order * np.diff([0.12, *found]) > 0).all()
        assert found[-1] == pytest.approx(spread, rel=0.1)
    rounding = np.exp(generator.normal(0, 0.002, 30)).astype(np.float32)
    assert norm_scale(rounding) == NormScale()


def test_no_norm_at_all_tells_nothing():
    for norms in (np.empty(0, np.float32), np.full(9, np.nan, np.float32), np.zeros(3, np.float32)):
        assert norm_scale(norms) == NormScale()
