"""What is measured on a sample, against counting by hand and against the whole gallery."""

import numpy as np
import pytest

from faceclust_spark.config import CellsConfig, ConfidencesConfig, Config, SynthConfig
from faceclust_spark.kernels.cells import Cells, cell_parts, probe_cells, train_cells
from faceclust_spark.kernels.faces import prepare_faces
from faceclust_spark.kernels.grid import cosine_matrix
from faceclust_spark.kernels.neighbours import find_neighbours
from faceclust_spark.kernels.synth import count_blocks, draw_block
from faceclust_spark.kernels.thresholds import choose_thresholds
from faceclust_spark.local import group_faces
from faceclust_spark.planning.rates import time_search
from faceclust_spark.planning.routing import edge_recall, gallery_visits, routed_cells, visits_per_face
from faceclust_spark.planning.structure import group_gallery, pairs_per_face, structure_of

CONFIG = Config(cells=CellsConfig(exact_below=500))


@pytest.fixture(scope="module")
def gallery():
    config = SynthConfig(faces=12_000, dimension=64, mean_identity_size=12)
    blocks = [draw_block(config, number) for number in range(count_blocks(config))]
    ids = [image_id for block in blocks for image_id in block.image_ids]
    return prepare_faces(np.concatenate([block.embeddings for block in blocks]), None, ids)


@pytest.fixture(scope="module")
def part(gallery):
    """A part of the gallery, its faces by ascending id, its cells and thresholds."""
    rows = np.sort(np.argsort(gallery.face_ids)[:3_000])
    order = rows[np.argsort(gallery.face_ids[rows])]
    vectors = gallery.vectors[order]
    cells = train_cells(vectors, len(vectors), CONFIG.cells)
    assert len(cells.centroids) > 8
    chosen = choose_thresholds(vectors[:2_000], len(vectors), CONFIG.neighbours, CONFIG.coarse_groups)
    return gallery.face_ids[order], vectors, cells, chosen


def test_the_timed_search_is_the_real_one(part):
    face_ids, vectors, cells, chosen = part
    found, per_pair, per_entry = time_search(face_ids, vectors, cells, chosen.floor, CONFIG)
    expected = find_neighbours(face_ids, vectors, cells, chosen.floor, CONFIG.neighbours)
    assert all(np.array_equal(one, other) for one, other in zip(found.lists, expected, strict=True))
    assert found.partial_entries > 1
    assert min(per_pair, per_entry) > 0
    probed = probe_cells(vectors, cells, CONFIG.neighbours.probes)
    visitors = [(probed == cell).any(axis=1).sum() for cell in range(len(cells.centroids))]
    pairs = sum(int(count) * (int(count) + 1) // 2 for count in visitors)
    assert found.pairs == pytest.approx(pairs / len(vectors))
    even = CONFIG.neighbours.probes**2 * len(vectors) / (2 * len(cells.centroids))
    assert found.imbalance == pytest.approx(found.pairs / even)


def test_exact_search_compares_each_with_each(part):
    face_ids, vectors, _, chosen = part
    exact = Cells(np.zeros((1, vectors.shape[1]), np.int16), np.zeros(1, np.int32))
    found, *_ = time_search(face_ids[:300], vectors[:300], exact, chosen.floor, CONFIG)
    assert (found.pairs, found.imbalance, found.partial_entries) == (300, 1, 1)
    assert edge_recall(found.lists, vectors[:300], chosen.floor, CONFIG) == 1


def test_recall_is_the_share_of_true_links_that_are_listed(part):
    face_ids, vectors, cells, chosen = part
    few = CONFIG.model_copy(update={"neighbours": CONFIG.neighbours.model_copy(update={"probes": 1})})
    lists = find_neighbours(face_ids, vectors, cells, chosen.floor, few.neighbours)
    lowest = np.float32(chosen.groups[0])
    found = true = 0
    some = np.linspace(0, len(face_ids) - 1, 500).astype(np.int64)
    for row in some.tolist():
        cosines = cosine_matrix(vectors[row : row + 1], vectors)[0]
        cosines[row] = -2
        nearest = np.lexsort((face_ids, -cosines))[: few.neighbours.k]
        links = face_ids[nearest[cosines[nearest] >= lowest]]
        true += len(links)
        found += np.isin(links, lists.neighbours[lists.offsets[row] : lists.offsets[row + 1]]).sum()
    assert 0.2 < found / true < 0.98
    assert edge_recall(lists, vectors, chosen.groups[0], few) == pytest.approx(found / true)


@pytest.mark.parametrize("shards", [1, 3, 8])
def test_visits_are_the_tasks_that_a_face_is_sent_to(part, shards):
    _, vectors, cells, _ = part
    tasks = cell_parts(cells, shards)
    visited = [len({int(tasks[cell]) for cell in probed}) for probed in probe_cells(vectors, cells, 8)]
    assert visits_per_face(vectors, cells, shards, 8) == pytest.approx(np.mean(visited))


@pytest.mark.parametrize("shards", [4, 16, 64])
def test_visits_are_told_from_fewer_cells_than_the_gallery_has(gallery, shards):
    mixed = np.random.default_rng(0).permutation(gallery.vectors)
    many, few = (
        train_cells(mixed[: 20 * cells], 20 * cells, CellsConfig(cells=cells)) for cells in (512, 96)
    )
    true = visits_per_face(mixed, many, shards, 8)
    assert gallery_visits(mixed, few, 512, shards, 8) == pytest.approx(true, rel=0.25)


def test_with_one_cell_every_face_visits_every_task(part):
    _, vectors, _, _ = part
    exact = Cells(np.zeros((1, vectors.shape[1]), np.int16), np.zeros(1, np.int32))
    assert visits_per_face(vectors, exact, 5, 8) == 5


def test_the_sample_is_routed_by_no_more_cells_than_it_can_train():
    assert routed_cells(300, 300, CONFIG) == 1
    assert routed_cells(10**6, 3_200, CONFIG) == 100
    assert routed_cells(10**9, 100, CONFIG) == 3


def test_pairs_a_face_are_those_of_its_group():
    # Groups of up to 200 have all pairs: 10 * 9 / 2; a larger one scores 64 + 32 a face.
    assert pairs_per_face(np.array([10, 1, 1]), CONFIG) == pytest.approx(45 / 12)
    assert pairs_per_face(np.array([200]), CONFIG) == pytest.approx(199 / 2)
    assert pairs_per_face(np.array([201]), CONFIG) == 96


def test_a_sample_that_is_the_gallery_is_not_extrapolated(part):
    face_ids, vectors, _, chosen = part
    sampled = group_gallery(face_ids, vectors, chosen, CONFIG)
    found = structure_of(vectors, 1.0, len(vectors), sampled, CONFIG)
    sizes = np.unique(sampled.coarse.keys[0], return_counts=True)[1]
    assert found.people is None
    pairs = np.where(sizes <= 200, sizes * (sizes - 1) / 2, sizes * (64 + 32))
    assert found.pairs == pytest.approx(pairs.sum() / len(vectors))
    assert (found.groups, found.largest) == (len(sizes) / len(vectors), sizes.max())
    assert found.alone == (sizes == 1).sum() / len(vectors)


def test_pairs_of_the_gallery_are_told_from_a_quarter_of_its_faces(gallery, part):
    face_ids, vectors, _, chosen = part
    all_pairs = ConfidencesConfig(dense_size=3_000)  # of which a part of the gallery tells least
    config = CONFIG.model_copy(update={"confidences": all_pairs})
    order = np.argsort(gallery.face_ids)
    parts = (gallery.face_ids, gallery.vectors, gallery.norms, gallery.attributes)
    keys = group_faces(*(part[order] for part in parts), config).coarse.keys[0]
    true = pairs_per_face(np.unique(keys, return_counts=True)[1], config)
    sampled = group_gallery(face_ids, vectors, chosen, config)
    mixed = np.random.default_rng(0).permutation(vectors)
    found = structure_of(mixed, 0.25, len(gallery.face_ids), sampled, config)
    thinned = pairs_per_face(np.unique(sampled.coarse.keys[0], return_counts=True)[1], config)
    assert true > 1.3 * thinned  # what the sample itself shows would mislead
    assert 1 / 1.5 < found.pairs / true < 1.5
