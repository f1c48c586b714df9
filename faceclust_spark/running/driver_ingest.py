"""Ingest of a gallery's first batch, where the driver's process holds it and each row is judged by itself.

After a look at its first rows and their number, Spark reads the source once and writes the tables; the rows
are checked here, by the functions that its tasks call. A batch with several rows of an image, or usable rows
of several kinds, one that meets faces which are stored, and one that is too large are left to the tasks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from faceclust_spark.arrow import attributes_from_arrow
from faceclust_spark.kernels.attributes import STATISTICS_PURPOSE, attribute_statistics
from faceclust_spark.kernels.ids import sample_rows
from faceclust_spark.kernels.threads import map_parts
from faceclust_spark.running.driver_limit import may_be_sent, most_faces, place_of
from faceclust_spark.stages.attribute_statistics import statistics_rows
from faceclust_spark.stages.ingest import Ingested, count_new, quarantined_rows
from faceclust_spark.stages.output import arrow_output, frame_of, frame_of_rows
from faceclust_spark.stages.row_checks import Expected, check_batch, checked_rows, judged_rows
from faceclust_spark.stages.sources import count_rows
from faceclust_spark.stages.vectors import prepare_batch
from faceclust_spark.tables import columns as c
from faceclust_spark.tables import schemas

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from faceclust_spark.running.run_state import Run

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
    rows = source.toArrow()
    if not rows.num_rows:
        return None
    checked = _checked(rows)
    refused = pc.is_valid(checked[c.REASON])
    usable = checked.filter(pc.invert(refused)) if pc.any(refused).as_py() else checked
    if not usable.num_rows or not _apart(checked, usable):
        return None
    statistics, fresh = None, None
    attributes = attributes_from_arrow(usable[c.ATTRIBUTES])
    if attributes.shape[1]:
        sample = sample_rows(
            usable[c.FACE_ID].to_numpy(), config.ingest.statistics_sample, STATISTICS_PURPOSE
        )
        statistics = attribute_statistics(attributes[sample])
        fresh = statistics_rows(run.spark, statistics, config.ingest)
    batches = usable.to_batches()
    vectors = pa.Table.from_batches(map_parts(lambda batch: prepare_batch(batch, statistics), batches))
    schema = arrow_output(schemas.FACES)
    faces = usable.select(schema.names).cast(schema)
    run.held.hold(faces, vectors)
    quarantine = _quarantine(run, source, checked.filter(refused), usable)
    return Ingested(
        faces=frame_of(run.spark, schemas.FACES, faces.to_batches()),
        vectors=frame_of(run.spark, schemas.VECTORS, vectors.to_batches()),
        quarantine=quarantine,
        statistics=fresh,
        counts=count_new(checked.num_rows, usable.num_rows, quarantine),
    )


def _fits(run: Run, source: DataFrame) -> bool:
    """Tell whether the source's rows are few enough, and may be sent to the driver at once."""
    first = source.limit(_PEEKED).toArrow()
    widths = pc.fill_null(pc.list_value_length(first[c.EMBEDDING]), 0)
    whole = first.filter(pc.greater(widths, 0))
    if not whole.num_rows:
        return False  # no row, or none that tells of the others' size
    faces = first.num_rows if first.num_rows < _PEEKED else count_rows(run.source, source)
    place, width = place_of(run.spark), pc.max(widths).as_py()
    bytes_of_all = whole.nbytes * faces // whole.num_rows
    return faces <= most_faces(run.config.spark, width, place) and may_be_sent(bytes_of_all, place)


def _checked(rows: pa.Table) -> pa.Table:
    """Give rows of `stages.row_checks.checked_rows`."""
    return pa.Table.from_batches(map_parts(check_batch, rows.to_batches(max_chunksize=_AT_ONCE)))


def _apart(checked: pa.Table, usable: pa.Table) -> bool:
    """Tell whether all rows are of different images, refused ones too, and the usable ones fit together."""
    kinds: list[Any] = [pc.unique(usable[name]) for name in (c.WIDTH, c.EMBEDDING_MODEL)]
    named = checked[c.FACE_ID].drop_null()
    distinct = len(np.unique(named.to_numpy())) == len(named)
    return distinct and all(len(kind) == 1 for kind in kinds) and len(_attribute_widths(usable)) <= 1


def _attribute_widths(usable: pa.Table) -> list[int]:
    widths = usable[c.ATTRIBUTE_WIDTH]
    found: list[int] = pc.unique(widths.filter(pc.greater(widths, 0))).to_pylist()
    return found


def _quarantine(run: Run, source: DataFrame, refused: pa.Table, usable: pa.Table) -> DataFrame:
    """Give rows of QUARANTINE, of which Spark makes what its tasks make."""
    if not refused.num_rows:
        return frame_of(run.spark, schemas.QUARANTINE, [])
    width, model = usable[c.WIDTH][0].as_py(), usable[c.EMBEDDING_MODEL][0].as_py()
    expected = Expected(width, model, next(iter(_attribute_widths(usable)), 0))
    rows = frame_of_rows(run.spark, refused, checked_rows(source).schema)
    return quarantined_rows(judged_rows(rows, expected), run.source)
