"""Thresholds, forest and coarse groups on Spark against the kernels in one process."""

import numpy as np
import pyarrow as pa
import pytest

from faceclust_spark.config import CoarseGroupsConfig, NeighboursConfig
from faceclust_spark.kernels import thresholds as thresholds_kernel
from faceclust_spark.kernels.cells import Cells
from faceclust_spark.kernels.forest import edges_of_lists, maximum_spanning_forest
from faceclust_spark.kernels.grid import normalise, pack_vectors, quantise
from faceclust_spark.kernels.groups import cut_forest, mean_cosine
from faceclust_spark.kernels.ids import sample_rows
from faceclust_spark.kernels.neighbours import NeighbourLists, find_neighbours
from faceclust_spark.kernels.thresholds import choose_thresholds
from faceclust_spark.stages.coarse_groups import coarse_groups
from faceclust_spark.stages.forest import forest
from faceclust_spark.stages.neighbours import lists_to_batches
from faceclust_spark.stages.output import stage_schema
from faceclust_spark.stages.thresholds import thresholds, thresholds_frame, thresholds_from_frame
from faceclust_spark.tables import columns as c
from faceclust_spark.tables import schemas
from faceclust_spark.tables.scratch import FOREST_SCRATCH

LEVELS = (0.5, 0.58, 0.66)
CAPPED = CoarseGroupsConfig(max_size=20)  # people of 60 and 40 faces, dense and not
FREE = CoarseGroupsConfig(max_size=10_000)


@pytest.fixture(scope="module")
def gallery() -> tuple[np.ndarray, np.ndarray, NeighbourLists]:
    return draw(150)


def draw(others):
    """Draw people of 60 and 40 faces, and others of up to 8; search their neighbours."""
    generator = np.random.default_rng(11)
    sizes = [60, 40, *generator.integers(1, 9, others).tolist()]
    noise = np.repeat([0.4, 1.1, *[0.8] * others], sizes)
    people = normalise(generator.normal(size=(len(sizes), 48)))
    raw = np.repeat(people, sizes, axis=0)
    raw = raw + noise[:, None] * generator.normal(size=raw.shape) / np.sqrt(48)
    vectors = quantise(normalise(raw))
    face_ids = np.sort(generator.choice(2**62, len(vectors), replace=False))
    one_cell = Cells(np.zeros((1, 48), np.int16), np.zeros(1, np.int32))
    return face_ids, vectors, find_neighbours(face_ids, vectors, one_cell, 0.45, NeighboursConfig(k=15))


def norms_of(gallery):
    return np.exp(np.random.default_rng(1).normal(2.8, 0.12, len(gallery[0]))).astype(np.float32)


def attributes_of(gallery):
    """One that goes with norms, one that does not, and holes."""
    generator = np.random.default_rng(2)
    norms = np.log(norms_of(gallery))
    attributes = np.column_stack([np.minimum((norms - 2.8) / 0.12, 0.3), generator.normal(size=len(norms))])
    attributes[generator.random(attributes.shape) < 0.1] = np.nan
    return attributes.astype(np.float32)


def vectors_frame(spark, gallery, partitions=3):
    columns = {c.FACE_ID: gallery[0], c.VECTOR: pack_vectors(gallery[1]), c.NORM: norms_of(gallery)}
    lists = [[None if np.isnan(x) else x for x in row] for row in attributes_of(gallery).tolist()]
    rows = pa.table(columns | {c.ATTRIBUTES: pa.array(lists, pa.list_(pa.float32()))})
    return spark.createDataFrame(rows).repartition(partitions)


def lists_frame(spark, gallery, partitions):
    return spark.createDataFrame(pa.Table.from_batches(lists_to_batches(gallery[2]))).repartition(partitions)


def never(rows, name):
    """Materialise nothing: what fits one task needs no scratch table."""
    pytest.fail(f"{name} was materialised")


def check_schema(frame, table):
    expected = [(f.name, f.dataType.simpleString()) for f in stage_schema(table)]
    assert [(f.name, f.dataType.simpleString()) for f in frame.schema] == expected


def rows_of(frame):
    rows = frame.toArrow()
    return sorted(zip(*(rows[name].to_pylist() for name in rows.schema.names), strict=True))


@pytest.mark.parametrize(("partitions", "tasks"), [(1, 1), (7, 20)])
def test_one_forest_from_any_partitioning(spark, gallery, partitions, tasks):
    expected = maximum_spanning_forest(edges_of_lists(gallery[2]))
    found = forest(lists_frame(spark, gallery, partitions), len(gallery[0]), FREE, tasks, never)
    check_schema(found.edges, schemas.FOREST)
    assert found.rounds == 0
    assert rows_of(found.edges) == sorted(zip(*(part.tolist() for part in expected), strict=True))


@pytest.mark.parametrize("config", [FREE, CAPPED], ids=["free", "capped"])
def test_groups_equal_those_of_one_process(spark, gallery, config):
    found = coarse_groups(
        forest(lists_frame(spark, gallery, 4), len(gallery[0]), config, 4, never).edges.repartition(3),
        vectors_frame(spark, gallery),
        LEVELS,
        config,
        4,
        never,
    )
    check_schema(found, schemas.COARSE_GROUPS)
    expected = groups_of_one_process(gallery, LEVELS, config)
    assert rows_of(found) == expected_rows(expected)
    largest = max(np.unique(expected.keys[0], return_counts=True)[1])
    assert largest > 20 if config is FREE else largest >= 60  # the dense person of 60 stays whole
    assert (np.unique(expected.keys[0], return_counts=True)[1] == 1).any()


def test_groups_of_a_forest_beyond_one_task_equal_those_of_one_process(spark, scratch):
    # No task holds the two largest components, of 60 and 30 faces: one is dense, one is cut at the ladder.
    levels = (0.46, 0.52, 0.58)
    config = CoarseGroupsConfig(max_size=20, max_forest_edges=29, dense_cosine=0.6)
    (materialise, written), gallery = scratch, draw(20)
    spanned = forest(lists_frame(spark, gallery, 4), len(gallery[0]), FREE, 4, never)
    edges = materialise(spanned.edges, "forest_chosen_0")
    found = coarse_groups(edges, vectors_frame(spark, gallery), levels, config, 4, materialise)
    check_schema(found, schemas.COARSE_GROUPS)
    expected = groups_of_one_process(gallery, levels, config)
    assert rows_of(found) == expected_rows(expected)
    assert {"groups_cores_1", "groups_edges_0", "groups_joined_0"} <= set(written) <= set(FOREST_SCRATCH)


def groups_of_one_process(gallery, levels, config):
    face_ids, vectors, lists = gallery
    edges = maximum_spanning_forest(edges_of_lists(lists))

    def density(ids):
        return mean_cosine(vectors[np.searchsorted(face_ids, ids)])

    return cut_forest(face_ids, edges, np.array(levels, np.float32), config, density)


def expected_rows(groups):
    """Give the rows of COARSE_GROUPS, sorted."""
    roots, faces = groups.keys[0].tolist(), groups.face_ids.tolist()
    return sorted(
        (float(threshold), key, root, face, level)
        for threshold, keys, levels in zip(groups.thresholds, groups.keys, groups.levels, strict=True)
        for key, root, face, level in zip(keys.tolist(), roots, faces, levels.tolist(), strict=True)
    )


def test_a_gallery_without_neighbours_is_all_alone(spark, gallery):
    few = vectors_frame(spark, gallery).limit(5)
    empty = forest(lists_frame(spark, gallery, 2).limit(0), 5, FREE, 2, never).edges
    rows = coarse_groups(empty, few, LEVELS, FREE, 2, never).toArrow().to_pylist()
    assert len(rows) == 5 * len(LEVELS)
    assert all(row[c.GROUP_KEY] == row[c.ROOT_KEY] == row[c.FACE_ID] and row[c.LEVEL] == 1 for row in rows)


def test_thresholds_equal_those_of_one_process_and_are_kept(spark, gallery):
    face_ids, vectors, _ = gallery
    neighbours, groups = NeighboursConfig(), CoarseGroupsConfig(random_pairs_sample=200)
    rows = sample_rows(face_ids, 200, thresholds_kernel.SAMPLE)
    others = norms_of(gallery)[rows], attributes_of(gallery)[rows]
    expected = choose_thresholds(vectors[rows], len(face_ids), neighbours, groups, *others)
    assert expected.norms.spread > 0.1 and expected.attributes.failure[0] > 0.5
    for partitions in (1, 5):
        frame = vectors_frame(spark, gallery, partitions)
        assert thresholds(frame, len(face_ids), neighbours, groups) == expected
    stored = thresholds_frame(spark, expected)
    check_schema(stored, schemas.THRESHOLDS)
    assert thresholds_from_frame(stored.repartition(3)) == expected
