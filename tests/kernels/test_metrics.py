"""Scores of a clustering against the worked example, scikit-learn and brute force."""

import math

import numpy as np
import pytest
from sklearn.metrics import normalized_mutual_info_score, pair_confusion_matrix

from faceclust_spark.kernels.metrics import (
    judge_members,
    main_identities,
    score,
    score_confidences,
    score_contingency,
)

CLOSE = {"rel": 1e-12, "abs": 1e-12}


def f_of(precision, recall):
    return 2 * precision * recall / (precision + recall)


def pairwise_by_sklearn(labels, clusters):
    (_, found_only), (wanted_only, both) = pair_confusion_matrix(labels, clusters)
    return both / (both + found_only), both / (both + wanted_only)


def bcubed_by_brute_force(labels, clusters):
    """Average over the faces, as Bagga & Baldwin define it."""
    same_label, same_cluster = labels[:, None] == labels, clusters[:, None] == clusters
    both = (same_label & same_cluster).sum(axis=1)
    return (both / same_cluster.sum(axis=1)).mean(), (both / same_label.sum(axis=1)).mean()


def test_the_worked_example():
    scores = score([0, 0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 1, 2, 3])
    expected = (0.5, 0.285714, 0.363636, 0.809524, 0.571429, 0.669951, 0.611724)
    assert scores == pytest.approx(expected, abs=5e-7)


@pytest.mark.parametrize("seed", range(6))
def test_random_clusterings_against_oracles(seed):
    generator = np.random.default_rng(seed)
    faces = int(generator.integers(20, 300))
    labels = generator.integers(0, generator.integers(2, faces), faces)
    clusters = np.where(
        generator.random(faces) < 0.6, labels, generator.integers(0, generator.integers(2, faces), faces)
    )
    scores = score([f"person {label}" for label in labels], clusters)
    precision, recall = pairwise_by_sklearn(labels, clusters)
    assert scores[:3] == pytest.approx((precision, recall, f_of(precision, recall)), **CLOSE)
    precision, recall = bcubed_by_brute_force(labels, clusters)
    assert scores[3:6] == pytest.approx((precision, recall, f_of(precision, recall)), **CLOSE)
    assert scores.nmi == pytest.approx(normalized_mutual_info_score(labels, clusters), **CLOSE)


def test_everybody_alone():
    scores = score([0, 0, 1, 1], [0, 1, 2, 3])
    assert math.isnan(scores.pairwise_precision)
    assert scores.pairwise_recall == 0
    assert math.isnan(scores.pairwise_f)
    assert (scores.bcubed_precision, scores.bcubed_recall) == (1.0, 0.5)
    assert scores.nmi == pytest.approx(normalized_mutual_info_score([0, 0, 1, 1], [0, 1, 2, 3]), **CLOSE)


def test_everybody_together():
    scores = score([0, 0, 1, 1], [5, 5, 5, 5])
    assert scores == pytest.approx((1 / 3, 1.0, 0.5, 0.5, 1.0, 2 / 3, 0.0), **CLOSE)


def test_no_pair_in_common_is_an_f_of_zero():
    assert score([0, 0, 1, 2], [0, 1, 1, 2])[:3] == (0.0, 0.0, 0.0)


def test_one_person_in_one_cluster():
    assert score(["a", "a"], [3, 3]) == (1.0,) * 7


def test_the_order_of_cells_does_not_matter():
    identity, cluster, count = np.array([[0, 0, 1, 2], [0, 1, 1, 2], [3, 2, 4, 1]])
    forward = score_contingency(identity, cluster, count)
    assert score_contingency(identity[::-1], cluster[::-1], count[::-1]) == pytest.approx(forward, **CLOSE)


def test_the_main_identity_of_equals_is_the_smaller():
    person = np.array([3, 1, 1, 3, 2, 0])
    keys, main = main_identities(np.array(["b", "b", "b", "b", "a", "c"]), person)
    assert (keys.tolist(), main.tolist()) == (["a", "b", "c"], [2, 1, 0])


@pytest.mark.parametrize("seed", range(4))
def test_confidences_against_brute_force(seed):
    generator = np.random.default_rng(seed)
    labels, clusters = generator.integers(0, 12, 60), generator.integers(0, 30, 60)
    sure = generator.random(60).astype(np.float32)
    misses, right, members = [], [], []
    for face in range(60):
        together = labels[clusters == clusters[face]].tolist()
        most = max(together.count(label) for label in together)
        main = min(label for label in together if together.count(label) == most)
        members.append(len(together) > 1)
        right.append(labels[face] == main)
        misses.append((float(sure[face]) - right[face]) ** 2)
    is_member, is_right = judge_members([f"{label:02d}" for label in labels], clusters)
    assert (is_member.tolist(), is_right.tolist()) == (members, right)
    found = score_confidences(labels, clusters, sure)
    assert 0 < found.members == sum(members) < 60
    assert found.mean_confidence == pytest.approx(np.mean(sure[members], dtype=np.float64))
    assert found.share_right == pytest.approx(np.mean(np.array(right)[members]))
    assert found.brier == pytest.approx(np.mean(np.array(misses)[members]))


def test_confidences_of_nobody_are_worth_nothing_known():
    found = score_confidences([0, 0, 1], [0, 1, 2], np.ones(3))
    assert found.members == 0
    assert all(math.isnan(value) for value in found[1:])
