from __future__ import annotations

import numpy as np
import pytest

from faceclust_spark.config import CellsConfig
from faceclust_spark.kernels import cells as cells_kernel
from faceclust_spark.kernels.cells import Cells, cell_count, cell_parts, probe_cells, sample_size, train_cells
from faceclust_spark.kernels.grid import normalise, quantise


def make_vectors(count: int, dimension: int = 24, seed: int = 0, people: int = 40) -> np.ndarray:
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(people, dimension))
    raw = centres[generator.integers(0, people, count)] + 0.5 * generator.normal(size=(count, dimension))
    return quantise(normalise(raw))


@pytest.mark.parametrize(
    ("faces", "cells"),
    [(1, 1), (20_000, 1), (20_001, 512), (200_000, 4_096), (1_000_000, 16_384), (10**9, 65_536)],
)
def test_cell_count_follows_the_gallery(faces: int, cells: int) -> None:
    assert cell_count(faces, CellsConfig()) == cells


def test_given_cell_count_is_kept_but_never_above_the_faces() -> None:
    assert cell_count(10**6, CellsConfig(cells=7)) == 7
    assert cell_count(3, CellsConfig(cells=7)) == 3
    assert cell_count(1, CellsConfig(exact_below=0)) == 1
    assert sample_size(10**6, CellsConfig(cells=7, sample_per_cell=10)) == 70
    assert sample_size(15, CellsConfig(cells=7, sample_per_cell=10)) == 15
    assert sample_size(10**9, CellsConfig()) == 2**20


def test_training_is_deterministic_and_ordered() -> None:
    vectors = make_vectors(3_000)
    config = CellsConfig(cells=64)
    first, second = (train_cells(vectors, 3_000, config) for _ in range(2))
    assert np.array_equal(first.centroids, second.centroids)
    assert first.centroids.dtype == np.int16
    assert len(np.unique(first.centroids, axis=0)) == len(first.centroids)
    assert (np.diff(first.shards) >= 0).all()
    assert first.shards[0] == 0 and set(np.diff(first.shards)) <= {0, 1}
    assert np.bincount(first.shards).max() <= 9


def test_neighbouring_cells_stand_together() -> None:
    cells = train_cells(make_vectors(6_000, people=500), 6_000, CellsConfig(cells=64))
    probed = probe_cells(make_vectors(1_000, people=500), cells, 4)
    ordered = cell_parts(cells, 8)[probed]
    shuffled = np.random.default_rng(0).permutation(cell_parts(cells, 8))[probed]
    visits = [np.mean([len(set(row)) for row in parts.tolist()]) for parts in (ordered, shuffled)]
    assert visits[0] < visits[1] - 0.3


@pytest.mark.parametrize("count", [1, 2, 5])
def test_tiny_and_repeated_samples_train(count: int) -> None:
    sample = np.repeat(make_vectors(1), count, axis=0)
    cells = train_cells(sample, 1_000_000, CellsConfig(cells=4))
    assert 1 <= len(cells.centroids) <= 4
    assert len(np.unique(probe_cells(sample, cells, 3), axis=0)) == 1


@pytest.mark.parametrize("block", [1, 13, 10_000])
@pytest.mark.parametrize("probes", [1, 3, 50])
def test_probing_equals_a_sort(block: int, probes: int) -> None:
    vectors = make_vectors(200)
    centroids = np.concatenate([vectors[:20], vectors[:5], vectors[50:65]])  # with equal ones
    cells = Cells(centroids, np.zeros(len(centroids), np.int32))
    dots = vectors.astype(np.int64) @ centroids.astype(np.int64).T
    expected = np.argsort(-dots, axis=1, kind="stable")[:, :probes]
    assert np.array_equal(probe_cells(vectors, cells, probes, block), expected)


@pytest.mark.parametrize("probes", [1, 4, 40, 300])
def test_probing_by_shards(monkeypatch: pytest.MonkeyPatch, probes: int) -> None:
    vectors = make_vectors(4_000, people=1_000)
    cells = train_cells(vectors, 4_000, CellsConfig(cells=256))
    flat = probe_cells(vectors, cells, probes)
    monkeypatch.setattr(cells_kernel, "FLAT_PROBED", 128)
    by_shards = probe_cells(vectors, cells, probes)
    assert by_shards.min() >= 0
    assert (by_shards[:, 0] == flat[:, 0]).mean() > 0.9
    assert np.array_equal(by_shards, probe_cells(vectors, cells, probes, block=77))
    monkeypatch.setattr(cells_kernel, "FLAT_PROBED", len(cells.centroids) - 1)
    assert np.array_equal(probe_cells(vectors, cells, probes), flat)


def test_training_by_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = make_vectors(4_000, people=1_000)
    monkeypatch.setattr(cells_kernel, "FLAT_TRAINED", 100)
    first, second = (train_cells(vectors, 4_000, CellsConfig(cells=128)) for _ in range(2))
    assert np.array_equal(first.centroids, second.centroids)
    assert abs(len(first.centroids) - 128) < 8
    assert set(np.diff(first.shards)) == {0, 1} and first.shards[0] == 0
    cosines = np.take_along_axis(vectors @ first.centroids.T.astype(float), probe_cells(vectors, first, 1), 1)
    monkeypatch.setattr(cells_kernel, "FLAT_TRAINED", 128)
    flat = train_cells(vectors, 4_000, CellsConfig(cells=128))
    best = np.take_along_axis(vectors @ flat.centroids.T.astype(float), probe_cells(vectors, flat, 1), 1)
    assert cosines.mean() > 0.95 * best.mean()


def test_no_vectors() -> None:
    vectors = make_vectors(100)
    cells = train_cells(vectors, 100, CellsConfig(cells=8))
    assert probe_cells(vectors[:0], cells, 3).shape == (0, 3)


def test_parts_cover_all_cells() -> None:
    cells = Cells(make_vectors(10), np.zeros(10, np.int32))
    assert np.array_equal(np.unique(cell_parts(cells, 4)), np.arange(4))
    assert np.array_equal(cell_parts(cells, 99), np.arange(10))
