import itertools

import numpy as np
import pytest

from faceclust_spark.config import ClustersConfig
from faceclust_spark.errors import ConfigError
from faceclust_spark.kernels import contraction as kernel
from faceclust_spark.kernels.contraction import contract
from faceclust_spark.kernels.recluster import recluster
from faceclust_spark.kernels.refine import PairLogOdds, Refinement
from faceclust_spark.kernels.standing import mean_log_odds, move_to_nearer

NOBODY = (np.empty(0, np.int64), np.empty(0, np.int64))
EMPTY = np.empty(0, np.int32)
SEEDS = range(25)


def random_links(seed, size=None):
    """Draw a signed graph of small integer weights, so that ties and sums of zero abound."""
    generator = np.random.default_rng(seed)
    size = size or int(generator.integers(2, 30))
    first, second = np.triu_indices(size, 1)
    kept = generator.random(len(first)) < generator.uniform(0.1, 1)
    first, second = first[kept], second[kept]
    weight = generator.integers(-4, 4 + seed % 2, size=len(first))
    apart = np.sort(generator.integers(size, size=(2, size // 4)), axis=0)
    return size, first, second, weight, tuple(apart[:, apart[0] != apart[1]])


def greedy(size, first, second, weight, apart):
    """Contract with a dictionary of sums: the largest first, then the smallest rows."""
    sums, members = {}, {row: {row} for row in range(size)}
    for a, b, w in zip(first.tolist(), second.tolist(), weight.tolist(), strict=True):
        sums[frozenset((a, b))] = sums.get(frozenset((a, b)), 0) + w
    for a, b in zip(*(side.tolist() for side in apart), strict=True):
        sums[frozenset((a, b))] = -(10**15)
    while sums:
        best = min(sums, key=lambda pair: (-sums[pair], sorted(pair)))
        if sums[best] <= 0:
            break
        low, high = sorted(best)
        members[low] |= members.pop(high)
        joined = {}
        for pair, value in sums.items():
            renamed = frozenset(low if row == high else row for row in pair)
            if len(renamed) == 2:
                joined[renamed] = joined.get(renamed, 0) + value
        sums = joined
    labels = np.empty(size, np.int64)
    for rows in members.values():
        labels[list(rows)] = min(rows)
    return labels


@pytest.mark.parametrize("seed", range(60))
def test_contraction_equals_a_slow_greedy(seed):
    size, *links, apart = random_links(seed)
    np.testing.assert_array_equal(contract(size, *links, apart), greedy(size, *links, apart))
    np.testing.assert_array_equal(contract(size, *links, NOBODY), greedy(size, *links, NOBODY))


@pytest.mark.parametrize("seed", SEEDS)
def test_several_components_are_contracted_each_by_itself(seed):
    parts = [random_links(10 * seed + part) for part in range(3)]
    starts = np.cumsum([0, *(part[0] for part in parts)])
    size = int(starts[-1])
    first, second = (
        np.concatenate([part[side] + start for part, start in zip(parts, starts, strict=False)])
        for side in (1, 2)
    )
    mixed = np.random.default_rng(seed).permutation(size)
    renamed = [mixed[first], mixed[second], np.concatenate([part[3] for part in parts])]
    found = contract(size, *renamed, NOBODY)
    np.testing.assert_array_equal(found, greedy(size, *renamed, NOBODY))


@pytest.mark.parametrize("seed", SEEDS)
def test_contraction_does_not_depend_on_the_order_of_links(seed):
    size, first, second, weight, apart = random_links(seed)
    expected = contract(size, first, second, weight, apart)
    mixed = np.random.default_rng(seed).permutation(len(first))
    turned = np.random.default_rng(seed).random(len(first)) < 0.5
    a, b = np.where(turned, second, first)[mixed], np.where(turned, first, second)[mixed]
    np.testing.assert_array_equal(contract(size, a, b, weight[mixed], apart[::-1]), expected)


def sums_between(labels, first, second, weight):
    sums = {}
    for a, b, w in zip(labels[first].tolist(), labels[second].tolist(), weight.tolist(), strict=True):
        if a != b:
            sums[min(a, b), max(a, b)] = sums.get((min(a, b), max(a, b)), 0) + w
    return sums


@pytest.mark.parametrize("dense", [4_000, 0])
@pytest.mark.parametrize("seed", range(60))
def test_both_ways_end_where_no_pair_of_clusters_gains(monkeypatch, seed, dense):
    monkeypatch.setattr(kernel, "DENSE_COMPONENT", dense)
    size, first, second, weight, apart = random_links(seed)
    labels = contract(size, first, second, weight, apart)
    assert (labels[labels] == labels).all() and (labels <= np.arange(size)).all()
    assert (labels[apart[0]] != labels[apart[1]]).all()
    never = {tuple(sorted(pair)) for pair in labels[np.stack(apart)].T.tolist()}
    gains = sums_between(labels, first, second, weight)
    assert all(gain <= 0 or pair in never for pair, gain in gains.items())
    inside = weight[labels[first] == labels[second]].sum()
    assert inside >= 0  # each merge added a positive sum


@pytest.mark.parametrize("seed", SEEDS)
def test_both_ways_find_the_clusters_that_are_clear(monkeypatch, seed):
    generator = np.random.default_rng(seed)
    people = np.sort(generator.integers(5, size=40))
    first, second = np.triu_indices(40, 1)
    weight = np.where(people[first] == people[second], 1, -1) * generator.integers(1, 100, len(first))
    expected = np.searchsorted(people, people)
    for dense in (4_000, 0):
        monkeypatch.setattr(kernel, "DENSE_COMPONENT", dense)
        np.testing.assert_array_equal(contract(40, first, second, weight, NOBODY), expected)


@pytest.mark.parametrize("seed", range(60))
def test_large_components_equal_the_slow_greedy_too(monkeypatch, seed):
    monkeypatch.setattr(kernel, "DENSE_COMPONENT", 0)
    size, *links, apart = random_links(seed)
    np.testing.assert_array_equal(contract(size, *links, apart), greedy(size, *links, apart))
    np.testing.assert_array_equal(contract(size, *links, NOBODY), greedy(size, *links, NOBODY))


@pytest.mark.parametrize("seed", range(5))
def test_both_ways_agree_on_many_images_of_few_people(monkeypatch, seed):
    generator = np.random.default_rng(seed)
    size = 1_500
    people = generator.integers(4, size=size) * (generator.random(size) < 0.8)
    first, second = np.sort(generator.integers(size, size=(2, 40 * size)), axis=0)
    first, second = first[first != second], second[first != second]
    same = people[first] == people[second]
    weight = np.clip(
        np.where(same, 300, -300) + generator.normal(0, 400, len(first)).astype(int), -1024, 1024
    )
    expected = contract(size, first, second, weight, NOBODY)
    assert np.bincount(expected).max() > 100
    monkeypatch.setattr(kernel, "DENSE_COMPONENT", 10)
    np.testing.assert_array_equal(contract(size, first, second, weight, NOBODY), expected)


def pair_up(seed, size, dense):
    generator = np.random.default_rng(seed)
    first, second = np.triu_indices(size, 1)
    steps = generator.integers(-2_000, 2_000, size=len(first)).astype(np.int16)
    if dense:
        return PairLogOdds(EMPTY, EMPTY, steps), first, second, steps
    kept = generator.random(len(first)) < 0.4
    first, second, steps = first[kept], second[kept], steps[kept]
    return PairLogOdds(first.astype(np.int32), second.astype(np.int32), steps), first, second, steps


def refinement(pairs, size, thresholds=2, confidences=None):
    if confidences is None:
        confidences = np.full((thresholds, size), 0.5, np.float32)
    return Refinement(confidences, pairs)


@pytest.mark.parametrize("same_photo", ["apart", "allowed"])
@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("lead", [None, 0.5])
@pytest.mark.parametrize("seed", range(10))
def test_correlation_equals_the_slow_greedy_on_clipped_log_odds(seed, lead, dense, same_photo):
    size = 18
    pairs, first, second, steps = pair_up(seed, size, dense)
    face_ids = np.sort(np.random.default_rng(seed).choice(2**62, size, replace=False))
    photos = np.random.default_rng(seed).integers(-1, 6, size=size)
    config = ClustersConfig(bias=0.75, clip=3.0, same_photo=same_photo, move_lead=lead)
    found = recluster(face_ids, np.zeros((2, size), np.int64), refinement(pairs, size), config, photos)
    weight = np.clip(steps.astype(int) - 192, -768, 768)
    together = [(a, b) for a, b in itertools.combinations(range(size), 2) if photos[a] == photos[b] >= 0]
    never = np.array(together).T.reshape(2, -1) if same_photo == "apart" else NOBODY
    labels = greedy(size, first, second, weight, never)
    if lead is not None:
        apart = photos if same_photo == "apart" else None
        labels = move_to_nearer(labels, mean_log_odds(labels, pairs, size), pairs, lead, apart)
    np.testing.assert_array_equal(found.labels, face_ids[labels])
    own, best, rival = mean_log_odds(face_ids[labels], pairs, size)
    np.testing.assert_array_equal(found.runner_ups, rival)
    np.testing.assert_allclose(found.margins, np.nan_to_num(own) - best, rtol=1e-6)
    logit = [-b if np.isnan(o) else o for o, b in zip(own, best, strict=True)]
    np.testing.assert_allclose(found.confidences, 1 / (1 + np.exp(-np.array(logit))), rtol=1e-5)
    assert found.confidences.dtype == np.float32


def test_an_image_without_any_known_pair_is_alone_and_sure():
    one = PairLogOdds(np.array([0], np.int32), np.array([1], np.int32), np.array([900], np.int16))
    ids = np.array([3, 5, 9])
    found = recluster(ids, np.zeros((1, 3), np.int64), refinement(one, 3, 1), ClustersConfig())
    assert found.labels.tolist() == [3, 3, 9]
    assert found.confidences[2] == pytest.approx(1)


def test_correlation_without_refined_similarities_is_refused():
    literal = refinement(PairLogOdds(EMPTY, EMPTY, np.empty(0, np.int16)), 3)
    with pytest.raises(ConfigError, match=r"clusters\.rule=confidence"):
        recluster(np.arange(3), np.zeros((2, 3), np.int64), literal, ClustersConfig())


@pytest.mark.parametrize("rule", ["correlation", "confidence"])
@pytest.mark.parametrize("photos", [None, np.array([4])])
def test_a_group_of_one(rule, photos):
    none = PairLogOdds(EMPTY, EMPTY, np.empty(0, np.int16))
    sure = np.ones((2, 1), np.float32)
    found = recluster(
        np.array([7]), np.array([[7], [7]]), Refinement(sure, none), ClustersConfig(rule=rule), photos
    )
    assert found.labels.tolist() == [7] and found.confidences.tolist() == [1.0]
