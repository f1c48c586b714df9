from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from faceclust_spark.config import CellsConfig, NeighboursConfig
from faceclust_spark.kernels import cells as cells_kernel
from faceclust_spark.kernels.cells import Cells, train_cells
from faceclust_spark.kernels.grid import normalise, pack_vectors, quantise
from faceclust_spark.kernels.ids import sample_rows
from faceclust_spark.kernels.neighbours import NeighbourLists, find_neighbours, search_faces
from faceclust_spark.kernels.recall import NO_FLOOR, SAMPLE, audit_recall
from faceclust_spark.stages.cells import cells, cells_frame, cells_from_frame
from faceclust_spark.stages.neighbours import neighbours, shard_count
from faceclust_spark.stages.output import stage_schema
from faceclust_spark.stages.recall import recall_audit
from faceclust_spark.tables import columns as c
from faceclust_spark.tables import schemas

FACES, DIMENSION, FLOOR = 3_000, 32, 0.45


def make_gallery(faces: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(4)
    people = generator.normal(size=(400, DIMENSION))
    raw = people[generator.integers(0, 400, faces)] + 0.9 * generator.normal(size=(faces, DIMENSION))
    raw[-50:] = raw[:50]
    face_ids = generator.integers(0, 2**62, faces)
    return np.sort(face_ids), quantise(normalise(raw))


@pytest.fixture(scope="module")
def gallery() -> tuple[np.ndarray, np.ndarray]:
    return make_gallery(FACES)


def frame(spark, gallery, partitions: int):
    face_ids, vectors = gallery
    order = np.random.default_rng(partitions).permutation(len(face_ids))
    rows = pa.table({c.FACE_ID: face_ids[order], c.VECTOR: pack_vectors(vectors[order])})
    return spark.createDataFrame(rows).repartition(partitions)


def as_lists(rows) -> NeighbourLists:
    table = rows.toArrow().sort_by(c.FACE_ID)
    values = [table[name].to_pylist() for name in (c.NEIGHBOURS, c.COSINES)]
    return NeighbourLists(
        table[c.FACE_ID].to_numpy(),
        np.cumsum([0, *(len(one) for one in values[0])]),
        np.array([x for one in values[0] for x in one], np.int64),
        np.array([x for one in values[1] for x in one], np.float32),
    )


def assert_equal_lists(found: NeighbourLists, expected: NeighbourLists) -> None:
    for left, right in zip(found, expected, strict=True):
        np.testing.assert_array_equal(left, right)


def assert_fulfils(rows, table: schemas.Table) -> None:
    wanted = stage_schema(table)
    assert [(f.name, f.dataType) for f in rows.schema] == [(f.name, f.dataType) for f in wanted]


@pytest.mark.parametrize(("partitions", "shards"), [(1, 1), (3, 5), (7, 64)])
def test_spark_equals_the_kernel(spark, gallery, partitions: int, shards: int) -> None:
    config = NeighboursConfig(k=6, probes=3)
    trained = train_cells(gallery[1], FACES, CellsConfig(cells=24))
    rows = neighbours(frame(spark, gallery, partitions), trained, FLOOR, config, shards)
    assert_fulfils(rows, schemas.NEIGHBOURS)
    assert_equal_lists(as_lists(rows), find_neighbours(*gallery, trained, FLOOR, config))


def test_cells_in_parts_equal_those_of_the_kernel(spark) -> None:
    crowd = make_gallery(20_000)
    trained, config = train_cells(crowd[1], 20_000, CellsConfig(cells=2)), NeighboursConfig(k=6, probes=1)
    expected = find_neighbours(*crowd, trained, FLOOR, config)
    whole = find_neighbours(*crowd, trained, FLOOR, config.model_copy(update={"largest_cell": 20_000}))
    assert (expected.neighbours != whole.neighbours).any()
    assert_equal_lists(as_lists(neighbours(frame(spark, crowd, 3), trained, FLOOR, config, 2)), expected)


@pytest.mark.parametrize("shards", [1, 3])
def test_one_cell_equals_exact_search(spark, gallery, shards: int) -> None:
    config = NeighboursConfig(k=6)
    whole = Cells(np.zeros((1, DIMENSION), np.int16), np.zeros(1, np.int32))
    rows = neighbours(frame(spark, gallery, 3), whole, FLOOR, config, shards)
    expected = search_faces(gallery[0], gallery[1], *gallery, FLOOR, 6)
    assert_equal_lists(as_lists(rows), expected)


def test_two_faces_and_more_shards_than_faces(spark, gallery) -> None:
    few = gallery[0][:2], gallery[1][:2]
    whole = Cells(np.zeros((1, DIMENSION), np.int16), np.zeros(1, np.int32))
    found = as_lists(neighbours(frame(spark, few, 1), whole, -1.0, NeighboursConfig(), 5))
    assert found.neighbours.tolist() == few[0][::-1].tolist()


def test_cells_do_not_depend_on_partitions(spark, gallery) -> None:
    config = CellsConfig(cells=16, sample_per_cell=20)
    expected = train_cells(gallery[1][sample_rows(gallery[0], 320, cells_kernel.SAMPLE)], FACES, config)
    for partitions in (1, 5):
        found = cells(frame(spark, gallery, partitions), FACES, config)
        np.testing.assert_array_equal(found.centroids, expected.centroids)
    stored = cells_frame(spark, expected)
    assert_fulfils(stored, schemas.CELLS)
    read = cells_from_frame(stored.repartition(3))
    np.testing.assert_array_equal(read.centroids, expected.centroids)
    np.testing.assert_array_equal(read.shards, expected.shards)


def test_audit_equals_the_kernel(spark, gallery) -> None:
    config = NeighboursConfig(k=6, probes=1, audit=200)
    trained = train_cells(gallery[1], FACES, CellsConfig(cells=24))
    vectors = frame(spark, gallery, 3)
    rows = recall_audit(vectors, neighbours(vectors, trained, FLOOR, config, 3), FLOOR, config)
    assert_fulfils(rows, schemas.RECALL_AUDIT)
    some = np.sort(sample_rows(gallery[0], 200, SAMPLE))
    exact = search_faces(gallery[0][some], gallery[1][some], *gallery, NO_FLOOR, 6)
    all_lists = find_neighbours(*gallery, trained, FLOOR, config)
    entries = [slice(all_lists.offsets[row], all_lists.offsets[row + 1]) for row in some]
    found = NeighbourLists(
        gallery[0][some],
        np.cumsum([0, *(e.stop - e.start for e in entries)]),
        np.concatenate([all_lists.neighbours[e] for e in entries]),
        np.concatenate([all_lists.cosines[e] for e in entries]),
    )
    expected = audit_recall(exact, found, FLOOR)
    assert rows.collect()[0].asDict() == expected._asdict()
    assert expected.edge_recall is not None and 0.2 < expected.edge_recall < 1.0


def test_shards_follow_cores_and_faces() -> None:
    assert shard_count(1_000, 1_000) == 1  # small work does not pay for a large session
    assert shard_count(20_000, 1_000) == 8
    assert shard_count(200_000, 4) == 4
    assert shard_count(1_000_000, 4) == 16
