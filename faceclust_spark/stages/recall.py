"""The recall audit: a sample of faces is searched exactly, and compared with what was found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import functions as F

from faceclust_spark.arrow import vectors_from_arrow
from faceclust_spark.kernels.neighbours import NeighbourLists, join_lists, merge_lists, search_faces
from faceclust_spark.kernels.recall import NO_FLOOR, SAMPLE, audit_recall
from faceclust_spark.kernels.threads import one_thread
from faceclust_spark.stages.neighbours import ArrowFunction, lists_from_batch, lists_to_batches
from faceclust_spark.stages.output import arrow_output, stage_schema
from faceclust_spark.stages.vectors import sample_vectors, sampling_order
from faceclust_spark.tables import columns as c
from faceclust_spark.tables import schemas

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame

    from faceclust_spark.config import NeighboursConfig

_EXACT = "_exact"  # a column that no one else sees: the row comes from the exact search


def recall_audit(
    vectors: DataFrame, neighbours: DataFrame, floor: float, config: NeighboursConfig
) -> DataFrame:
    """Search the exact neighbours of `config.audit` faces, chosen by hash, and count those found.

    One row. Fulfils RECALL_AUDIT.
    """
    face_ids, sample = sample_vectors(vectors, config.audit, SAMPLE, None)
    exact = vectors.select(c.FACE_ID, c.VECTOR).mapInArrow(
        _exact_searcher(face_ids, sample, config.k), stage_schema(schemas.NEIGHBOURS)
    )
    columns = (c.FACE_ID, c.NEIGHBOURS, c.COSINES)
    found = neighbours.select(*columns).orderBy(sampling_order(SAMPLE)).limit(len(face_ids))
    both = exact.select(*columns, F.lit(True).alias(_EXACT)).unionByName(
        found.select(*columns, F.lit(False).alias(_EXACT))
    )
    return both.repartition(1).mapInArrow(_auditor(floor, config.k), stage_schema(schemas.RECALL_AUDIT))


def _exact_searcher(face_ids: NDArray[np.int64], sample: NDArray[np.int16], k: int) -> ArrowFunction:
    def search(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        best: list[NeighbourLists] = []
        with one_thread():
            for batch in batches:
                some = batch[c.FACE_ID].to_numpy(), vectors_from_arrow(batch[c.VECTOR])
                if batch.num_rows:
                    best = [merge_lists([*best, search_faces(face_ids, sample, *some, NO_FLOOR, k)], k)]
        for lists in best:
            yield from lists_to_batches(lists)

    return search


def _auditor(floor: float, k: int) -> ArrowFunction:
    def audit(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        searched: list[NeighbourLists] = []
        listed: list[NeighbourLists] = []
        for batch in batches:
            for exact, lists in ((True, searched), (False, listed)):
                rows = batch.filter(pc.equal(batch[_EXACT], exact))
                if rows.num_rows:
                    lists.append(lists_from_batch(rows))
        if searched:
            recall = audit_recall(merge_lists(searched, k), join_lists(listed), floor)
            columns = {name: [value] for name, value in recall._asdict().items()}
            yield pa.RecordBatch.from_pydict(columns, arrow_output(schemas.RECALL_AUDIT))

    return audit
