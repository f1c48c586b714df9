"""Ingest of a gallery's first batch, where the driver's process holds it and nothing is wrong with it.

After a look at its first rows and their number, Spark reads the source once and writes the tables; the rows
are checked here, by the functions that its tasks call. A batch with a row to be refused, one that meets faces
which are stored, and one that is too large are left to the tasks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from faceclust_spark.arrow import attributes_from_arrow
from faceclust_spark.driver_limit import may_be_sent, most_faces, place_of
from faceclust_spark.kernels.attributes import STATISTICS_PURPOSE, attribute_statistics
from faceclust_spark.kernels.ids import sample_rows
from faceclust_spark.kernels.threads import map_parts
from faceclust_spark.stages.attribute_statistics import statistics_rows
from faceclust_spark.stages.ingest import Ingested, all_new
from faceclust_spark.stages.output import arrow_output, frame_of
from faceclust_spark.stages.row_checks import check_batch
from faceclust_spark.stages.sources import count_rows
from faceclust_spark.stages.vectors import prepare_batch
from faceclust_spark.tables import columns as c
from faceclust_spark.tables import schemas

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from faceclust_spark.run_state import Run

_PEEKED = 20  # rows that tell how large a row is
_AT_ONCE = 5_000  # rows checked by a thread


def ingested_here(run: Run, source: DataFrame) -> Ingested | None:
    """Check a first batch in this process, and hold its gallery; None where that is the tasks' work.

    Raises DataError if the attribute names do not fit the attributes.
    """
    config = run.config
    stored = (schemas.FACES, schemas.VECTORS, schemas.ATTRIBUTE_STATISTICS)
    if config.spark.driver_faces == 0 or any(run.store.exists(table) for table in stored):
        return None
    if not _fits(run, source):
        return None
    checked = _checked(source.toArrow())
    if not checked.num_rows or not _faultless(checked):
        return None
    statistics, fresh = None, None
    attributes = attributes_from_arrow(checked[c.ATTRIBUTES])
    if attributes.shape[1]:
        sample = sample_rows(
            checked[c.FACE_ID].to_numpy(), config.ingest.statistics_sample, STATISTICS_PURPOSE
        )
        statistics = attribute_statistics(attributes[sample])
        fresh = statistics_rows(run.spark, statistics, config.ingest)
    batches = checked.to_batches()
    vectors = pa.Table.from_batches(map_parts(lambda batch: prepare_batch(batch, statistics), batches))
    schema = arrow_output(schemas.FACES)
    faces = checked.select(schema.names).cast(schema)
    run.held.hold(faces, vectors)
    return Ingested(
        faces=frame_of(run.spark, schemas.FACES, faces.to_batches()),
        vectors=frame_of(run.spark, schemas.VECTORS, vectors.to_batches()),
        quarantine=frame_of(run.spark, schemas.QUARANTINE, []),
        statistics=fresh,
        counts=all_new(checked.num_rows),
    )


def _fits(run: Run, source: DataFrame) -> bool:
    """Tell whether the source's rows are few enough, and may be sent to the driver at once."""
    first = source.limit(_PEEKED).toArrow()
    widths = pc.unique(pc.list_value_length(first[c.EMBEDDING])).to_pylist()
    if len(widths) != 1 or not widths[0]:
        return False  # no row, or some at fault, which tell nothing of the others' size
    faces = first.num_rows if first.num_rows < _PEEKED else count_rows(run.source, source)
    place, width = place_of(run.spark), widths[0]
    bytes_of_all = first.nbytes * faces // first.num_rows
    return faces <= most_faces(run.config.spark, width, place) and may_be_sent(bytes_of_all, place)


def _checked(rows: pa.Table) -> pa.Table:
    """Give rows of `stages.row_checks.checked_rows`; a source without rows stays as it is."""
    batches = rows.to_batches(max_chunksize=_AT_ONCE)
    return pa.Table.from_batches(map_parts(check_batch, batches)) if batches else rows


def _faultless(checked: pa.Table) -> bool:
    """Tell whether all rows can be used, fit together, and are of different images."""
    if checked[c.REASON].null_count < checked.num_rows:
        return False
    kinds: list[Any] = [pc.unique(checked[name]) for name in (c.WIDTH, c.EMBEDDING_MODEL)]
    given = pc.unique(checked[c.ATTRIBUTE_WIDTH].filter(pc.greater(checked[c.ATTRIBUTE_WIDTH], 0)))
    distinct = len(np.unique(checked[c.FACE_ID].to_numpy()))
    return all(len(kind) == 1 for kind in kinds) and len(given) <= 1 and distinct == checked.num_rows
