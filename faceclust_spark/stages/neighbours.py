"""The neighbours of every face [claim 2]: faces travel to shards of cells, lists travel back.

    vectors -> route: the cells that a face probes -> search: one task a shard -> merge: by face

With one cell every task gets all faces and searches for its share of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, BinaryType, IntegerType, LongType, StructField, StructType

from faceclust_spark.arrow import lists_from_arrow, lists_to_arrow, vectors_from_arrow
from faceclust_spark.kernels.cells import cell_parts, probe_cells
from faceclust_spark.kernels.neighbours import NeighbourLists, merge_lists, search_cells, search_slice
from faceclust_spark.kernels.threads import one_thread
from faceclust_spark.stages.output import arrow_output, stage_schema, to_arrow_schema
from faceclust_spark.tables import columns as c
from faceclust_spark.tables import schemas

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame

    from faceclust_spark.config import NeighboursConfig
    from faceclust_spark.kernels.cells import Cells

ArrowFunction = Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]

FACES_PER_SHARD = 65_536  # at most; about 2.6 times as many visit it
_SMALLEST_SHARD = 2_500  # faces: below it a further task costs more than it spreads
_ROWS_PER_BATCH = 10_000
_ROUTED = StructType(
    [
        StructField(c.FACE_ID, LongType(), False),
        StructField(c.VECTOR, BinaryType(), False),
        StructField(c.PROBED_CELLS, ArrayType(IntegerType(), False), False),
        StructField(c.SHARD, ArrayType(IntegerType(), False), False),  # tasks that search these cells
    ]
)


class _Visits(NamedTuple):
    """The faces of a partition, once for each shard that they visit."""

    face_ids: NDArray[np.int64]
    vectors: NDArray[np.int16]
    probed: NDArray[np.int32]
    shards: NDArray[np.int32]


def shard_count(faces: int, parallelism: int) -> int:
    """Give the number of shards for a gallery: tasks of bounded memory, and work for every core.

    parallelism: tasks that the session means a shuffle to have. Fewer shards are visited by fewer faces.
    """
    return max(-(-faces // FACES_PER_SHARD), min(parallelism, -(-faces // _SMALLEST_SHARD)))


def neighbours(
    vectors: DataFrame, cells: Cells, floor: float, config: NeighboursConfig, shards: int
) -> DataFrame:
    """Give each face's K nearest faces of cosine >= floor, among those that share a probed cell with it.

    Of a cell of more than `largest_cell` visitors, among those that share a part of it (kernels.crowds). One
    row a face, also where its list is empty; the same lists for any number of shards and as
    `kernels.neighbours.find_neighbours` gives. Fulfils NEIGHBOURS.
    """
    faces = vectors.select(c.FACE_ID, c.VECTOR)
    schema = stage_schema(schemas.NEIGHBOURS)
    if len(cells.centroids) == 1:
        everyone = F.sequence(F.lit(0), F.lit(shards - 1))
        copies = faces.withColumn(c.SHARD, F.explode(everyone)).repartitionById(shards, c.SHARD)
        return copies.mapInArrow(_slice_searcher(floor, config.k, shards), schema)
    shards = min(shards, len(cells.centroids))
    routed = faces.mapInArrow(_router(cells, config.probes, shards), _ROUTED)
    visits = routed.withColumn(c.SHARD, F.explode(c.SHARD)).repartitionById(shards, c.SHARD)
    lists = visits.mapInArrow(_cell_searcher(cell_parts(cells, shards), floor, config), schema)
    return lists.repartition(shards, c.FACE_ID).mapInArrow(_merger(config.k), schema)


def _router(cells: Cells, probes: int, shards: int) -> ArrowFunction:
    schema, part_of_cell = to_arrow_schema(_ROUTED), cell_parts(cells, shards)

    def route(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with one_thread():
            for batch in batches:
                if batch.num_rows:
                    probed = probe_cells(vectors_from_arrow(batch[c.VECTOR]), cells, probes)
                    added = [_equal_lists(probed), _distinct(part_of_cell[probed])]
                    yield pa.RecordBatch.from_arrays([*batch.columns, *added], schema=schema)

    return route


def _cell_searcher(part_of_cell: NDArray[np.int32], floor: float, config: NeighboursConfig) -> ArrowFunction:
    def search(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        visits = _gather(batches)
        if visits is None:
            return
        with one_thread():
            for part in np.unique(visits.shards):  # a platform may have joined partitions
                ids, vectors, probed = (column[visits.shards == part] for column in visits[:3])
                lists = search_cells(ids, vectors, probed, part_of_cell == part, floor, config)
                yield from lists_to_batches(lists)

    return search


def _slice_searcher(floor: float, k: int, shards: int) -> ArrowFunction:
    def search(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        copies = _gather(batches)
        if copies is None:
            return
        with one_thread():
            for part in np.unique(copies.shards):
                ids, vectors = (column[copies.shards == part] for column in copies[:2])
                yield from lists_to_batches(search_slice(ids, vectors, int(part), shards, floor, k))

    return search


def _merger(k: int) -> ArrowFunction:
    def merge(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        parts = [lists_from_batch(batch) for batch in batches if batch.num_rows]
        if parts:
            yield from lists_to_batches(merge_lists(parts, k))

    return merge


def lists_from_batch(batch: pa.RecordBatch) -> NeighbourLists:
    """Read rows of face_id, neighbours, cosines."""
    neighbours, offsets = lists_from_arrow(batch[c.NEIGHBOURS])
    cosines, _ = lists_from_arrow(batch[c.COSINES])
    return NeighbourLists(
        batch[c.FACE_ID].to_numpy(), offsets, neighbours.astype(np.int64), cosines.astype(np.float32)
    )


def lists_to_batches(lists: NeighbourLists) -> Iterator[pa.RecordBatch]:
    """Give lists as rows of face_id, neighbours, cosines."""
    for start in range(0, len(lists.face_ids), _ROWS_PER_BATCH):
        rows = slice(start, start + _ROWS_PER_BATCH)
        offsets = lists.offsets[start : start + _ROWS_PER_BATCH + 1]
        entries, own = slice(offsets[0], offsets[-1]), offsets - offsets[0]
        columns = [
            pa.array(lists.face_ids[rows]),
            lists_to_arrow(lists.neighbours[entries], own),
            lists_to_arrow(lists.cosines[entries], own),
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=arrow_output(schemas.NEIGHBOURS))


def _gather(batches: Iterable[pa.RecordBatch]) -> _Visits | None:
    """Read a whole partition; one shard is held in memory by design."""
    parts = [_visits(batch) for batch in batches if batch.num_rows]
    if not parts:
        return None
    return _Visits(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _visits(batch: pa.RecordBatch) -> _Visits:
    probed = np.zeros((batch.num_rows, 0), np.int32)
    if c.PROBED_CELLS in batch.schema.names:
        probed = lists_from_arrow(batch[c.PROBED_CELLS])[0].reshape(batch.num_rows, -1)
    vectors = vectors_from_arrow(batch[c.VECTOR])
    return _Visits(batch[c.FACE_ID].to_numpy(), vectors, probed, batch[c.SHARD].to_numpy())


def _distinct(parts: NDArray[np.int32]) -> pa.ListArray:
    """Give the distinct values of each row as a list column."""
    parts = np.sort(parts, axis=1)
    fresh = np.ones(parts.shape, bool)
    fresh[:, 1:] = parts[:, 1:] != parts[:, :-1]
    return lists_to_arrow(parts[fresh], np.concatenate([[0], np.cumsum(fresh.sum(axis=1))]))


def _equal_lists(values: NDArray[np.int32]) -> pa.ListArray:
    return lists_to_arrow(values.ravel(), np.arange(len(values) + 1) * values.shape[1])
