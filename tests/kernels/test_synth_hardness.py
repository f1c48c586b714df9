"""Synthetic galleries are hard on purpose: connected components must not be enough, better ways must be."""

from __future__ import annotations

import numpy as np
import pytest

from faceclust_spark.config import SynthConfig
from faceclust_spark.kernels.forest import Edges, component_keys, maximum_spanning_forest
from faceclust_spark.kernels.metrics import score
from faceclust_spark.kernels.synth import draw_gallery


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def row_cosines(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    return (unit(rows) * unit(others)).sum(axis=1)


def best_component_f(vectors: np.ndarray, labels: np.ndarray) -> float:
    """Give the best pairwise F that connected components over all pairs reach at any threshold."""
    cosines = vectors @ vectors.T
    first, second = np.nonzero(np.triu(cosines > 0.25, 1))
    forest = maximum_spanning_forest(Edges(first, second, cosines[first, second]))
    found = []
    for threshold in np.arange(0.25, 1.0, 0.01):
        strong = forest.cosine >= threshold
        keys = component_keys(forest.first[strong], forest.second[strong], len(vectors))
        found.append(score(labels, keys).pairwise_f)
    return max(found)


def left_out_accuracy(vectors: np.ndarray, person: np.ndarray) -> float:
    """Give the share of faces nearest to the mean of their person's other faces; persons of 2 and more."""
    sums = np.zeros((person.max() + 1, vectors.shape[1]))
    np.add.at(sums, person, vectors)
    several = np.flatnonzero(np.bincount(person)[person] > 1)
    vectors, person = vectors[several], person[several]
    own = row_cosines(vectors, sums[person] - vectors)
    others = vectors @ unit(sums).T
    others[np.arange(len(person)), person] = -1.0
    return float((own > others.max(axis=1)).mean())


@pytest.mark.parametrize(("faces", "seed"), [(2_000, 0), (2_000, 1), (2_000, 6), (8_000, 0)])
def test_defaults_are_hard_but_not_hopeless(faces: int, seed: int) -> None:
    gallery = draw_gallery(SynthConfig(faces=faces, seed=seed))
    vectors, person = unit(gallery.embeddings), np.unique(gallery.labels, return_inverse=True)[1]
    assert 0.5 < best_component_f(vectors, gallery.labels) < 0.93
    assert left_out_accuracy(vectors, person) > 0.95


def test_an_easy_gallery_is_solved_by_components() -> None:
    """So that the bound above speaks of the factors, not of the measurement."""
    gallery = draw_gallery(SynthConfig(faces=2_000, blurred_share=0.0, kin_share=0.0, person_spread=0.0))
    assert best_component_f(unit(gallery.embeddings), gallery.labels) > 0.97


def test_cosines_are_spread_like_those_of_real_models() -> None:
    gallery = draw_gallery(SynthConfig(faces=5_000))
    vectors, person = unit(gallery.embeddings), np.unique(gallery.labels, return_inverse=True)[1]
    cosines = vectors @ vectors.T
    same = person[:, None] == person[None, :]
    upper = np.triu(np.ones_like(same), 1)
    random, own = cosines[~same & upper], cosines[same & upper]
    assert abs(random.mean()) < 0.01 and 0.09 < random.std() < 0.12
    assert 0.45 < np.median(own) < 0.65
