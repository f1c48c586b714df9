import numpy as np
import pytest
from scipy.stats import poisson

from faceclust_spark.config import CoarseGroupsConfig, NeighboursConfig
from faceclust_spark.kernels.grid import normalise, quantise
from faceclust_spark.kernels.people import (
    Likeness,
    People,
    count_links,
    find_people,
    fit_shares,
    person_sizes,
)
from faceclust_spark.kernels.stand_in import draw_stand_in
from faceclust_spark.kernels.thresholds import choose_thresholds, random_pairs

LIKENESS = Likeness(mean=0.8, spread=0.08, linked=1.0)


def test_links_are_those_of_all_pairs():
    generator = np.random.default_rng(0)
    vectors = quantise(normalise(generator.normal(size=(5_000, 8))))
    levels = np.array([0.3, 0.6, 0.9])
    wide = vectors[:40].astype(np.int64) @ vectors.astype(np.int64).T
    cosines = (wide / (4096 - 2) ** 2).astype(np.float32)
    cosines[np.arange(40), np.arange(40)] = -2
    expected = (cosines[:, :, None] >= levels.astype(np.float32)).sum(axis=1)
    assert np.array_equal(count_links(vectors, 40, levels), expected)


@pytest.mark.parametrize("seed", [0, 1])
def test_shares_are_the_most_likely_ones(seed):
    generator = np.random.default_rng(seed)
    true, means = np.array([0.7, 0.0, 0.3]), np.array([0.5, 6.0, 40.0])
    counts = generator.poisson(means[generator.choice(3, 3_000, p=true)])
    shares = fit_shares(counts, means)
    assert shares.sum() == pytest.approx(1)
    assert shares == pytest.approx(true, abs=0.03)

    def likelihood(of):
        return np.log(poisson.pmf(counts[:, None], means) @ of).sum()

    others = generator.dirichlet([1, 1, 1], 200)
    assert likelihood(shares) >= max(likelihood(other) for other in [*others, true]) - 1e-6


@pytest.mark.parametrize(("size", "share"), [(4, 1.0), (30, 0.25), (200, 0.1)])
def test_the_size_of_people_is_found_from_a_share_of_their_faces(size, share):
    people = draw_stand_in(np.full(12_000 // size, size), LIKENESS, 128, seed=1)
    sample = people[: round(share * len(people))]
    chosen = choose_thresholds(sample[:2_000], len(people), NeighboursConfig(), CoarseGroupsConfig())
    found = find_people(sample, share, len(people), chosen)
    assert (found.shares * found.sizes).sum() == pytest.approx(size, rel=0.35)
    assert found.likeness.mean == pytest.approx(LIKENESS.mean, abs=0.08)


def test_faces_that_resemble_nobody_are_people_of_one():
    vectors = draw_stand_in(np.ones(3_000, np.int64), LIKENESS, 64, seed=0)
    chosen = choose_thresholds(vectors[:2_000], 3_000, NeighboursConfig(), CoarseGroupsConfig())
    found = find_people(vectors, 1.0, 3_000, chosen)
    assert found.shares[0] > 0.9
    assert random_pairs(vectors[:1_000]).spread == pytest.approx(1 / 8, rel=0.05)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("faces", [1, 50, 9_999])
def test_the_people_of_a_gallery_have_all_its_faces(seed, faces):
    generator = np.random.default_rng(seed)
    sizes = np.unique(generator.integers(1, 400, 20))
    people = People(sizes, generator.dirichlet(np.ones(len(sizes))), LIKENESS)
    drawn = person_sizes(people, faces)
    assert drawn.sum() == faces
    assert set(drawn.tolist()) <= {1, *sizes.tolist()}
    assert (np.diff(drawn) >= 0).all()
    if faces > 5_000:
        of_each = np.array([drawn[drawn == size].sum() for size in sizes]) / faces
        assert np.abs(np.cumsum(of_each - people.shares))[1:].max() < 2 * sizes.max() / faces
