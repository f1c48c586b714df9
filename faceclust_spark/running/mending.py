"""Tables as they were before an ingest that was killed between its vectors and its faces."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pyspark.errors import PySparkException
from pyspark.sql import functions as F

from faceclust_spark.errors import TableError
from faceclust_spark.tables import columns as c
from faceclust_spark.tables import schemas
from faceclust_spark.tables.ledger import has_finished

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from faceclust_spark.running.run_state import Run

log = logging.getLogger(__name__)

_VERSIONS = 3  # of the vectors that are looked at, back from the one that was cut short


def mend_vectors(run: Run) -> None:
    """Undo what an ingest left behind that was killed before its faces were in, this run's own too.

    A face counts as ingested once it stands in `faces`. A vector without one would be clustered as well, and
    one that replaced another in place of it. Looked for where the last writer of the vectors is not known to
    have finished its ingest.
    """
    if not run.store.exists(schemas.FACES) or run.read(schemas.FACES).isEmpty():
        for table in (schemas.ATTRIBUTE_STATISTICS, schemas.VECTORS):
            if run.store.exists(table):
                run.store.drop(table)
        return
    written = run.store.written(schemas.VECTORS)
    if written is None or (written.run_id and has_finished(run.store, written.run_id, "ingest")):
        return
    if not _strangers(run).isEmpty():
        log.warning("run %s was cut short in its ingest: its faces are left out", written.run_id)
        _bring_back(run, written.version)
        run.store.delete(schemas.VECTORS, _strangers(run), run.run_id)
    _leave_out_faces(run)


def _strangers(run: Run) -> DataFrame:
    """Give the vectors that are of no stored face, or of another image of it."""
    return run.read(schemas.VECTORS).join(_known(run), [c.FACE_ID, c.CONTENT_HASH], "left_anti")


def _known(run: Run) -> DataFrame:
    return run.read(schemas.FACES).select(c.FACE_ID, c.CONTENT_HASH)


def _bring_back(run: Run, version: int) -> None:
    """Write the vectors again that were replaced, as far as older versions of the table are there."""
    for older in range(version - 1, max(version - 1 - _VERSIONS, -1), -1):
        replaced = _strangers(run).select(c.FACE_ID).join(_known(run), c.FACE_ID)
        if replaced.isEmpty():
            return
        try:
            before = run.store.read(schemas.VECTORS, older)
            found = before.join(replaced, [c.FACE_ID, c.CONTENT_HASH], "left_semi").select(before.columns)
            run.store.merge(schemas.VECTORS, run.store.materialise(found, "mended"), run.run_id)
        except (TableError, PySparkException):  # the version has been vacuumed
            return
        finally:
            run.store.clear_scratch("mended")


def _leave_out_faces(run: Run) -> None:
    """Forget the faces whose vectors are lost, so that they are new when they come again."""
    lost = run.read(schemas.FACES).join(run.read(schemas.VECTORS), c.FACE_ID, "left_anti")
    found = lost.agg(F.count(F.lit(1)).alias(c.ROWS), F.min(c.IMAGE_ID).alias(c.IMAGE_ID)).toArrow()
    count, example = found[c.ROWS][0].as_py(), found[c.IMAGE_ID][0].as_py()
    if count:
        log.warning(
            "%s faces lost their vectors and are left out until they are ingested again, such as %s",
            f"{count:,}",
            example,
        )
        run.store.delete(schemas.FACES, lost, run.run_id)
