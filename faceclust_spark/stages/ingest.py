"""From a source's rows to faces, vectors and quarantine.

The frames are read from two materialised ones, so that a source is read once. To survive a kill at any
moment they are written in the order statistics, quarantine, vectors, faces: a face counts as ingested
once it stands in `faces`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from pyspark.sql import Window
from pyspark.sql import functions as F

from faceclust_spark.errors import DataError, QuarantineError
from faceclust_spark.kernels.ids import ID_BITS
from faceclust_spark.stages.attribute_statistics import (
    check_attribute_names,
    sampled_statistics,
    statistics_rows,
    stored_statistics,
)
from faceclust_spark.stages.output import stage_schema
from faceclust_spark.stages.row_checks import (
    NEW,
    REPLACED,
    UNCHANGED,
    Expected,
    checked_rows,
    image_outcomes,
    judged_rows,
)
from faceclust_spark.stages.vectors import prepared_vectors
from faceclust_spark.tables import columns as c
from faceclust_spark.tables import schemas

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from faceclust_spark.config import IngestConfig

Materialise = Callable[["DataFrame", str], "DataFrame"]

_SOURCE_COLUMNS = (
    c.IMAGE_ID,
    c.EMBEDDING,
    c.ATTRIBUTES,
    c.PHOTO_ID,
    c.QUALITY,
    c.LABEL,
    c.EMBEDDING_MODEL,
    c.EXTRA,
)


class Gallery(NamedTuple):
    """What is stored so far; empty tables at the first ingest."""

    faces: DataFrame
    vectors: DataFrame
    statistics: DataFrame


class IngestCounts(NamedTuple):
    """Rows of a batch: read = new + replaced + unchanged + duplicates + all quarantined.

    duplicates are rows that repeat another of the batch exactly. quarantined: rows for each reason
    code; examples: the first image id and its detail for each.
    """

    read: int
    new: int
    replaced: int
    unchanged: int
    duplicates: int
    quarantined: dict[str, int]
    examples: dict[str, str]

    @property
    def accepted(self) -> int:
        """Give the number of faces of the batch that are in the gallery afterwards."""
        return self.new + self.replaced + self.unchanged


class Ingested(NamedTuple):
    """The result of an ingest, to be merged on the keys of each table.

    faces and vectors hold what is new or replaced; statistics is None where the stored ones stay.
    """

    faces: DataFrame
    vectors: DataFrame
    quarantine: DataFrame
    statistics: DataFrame | None
    counts: IngestCounts


def ingested(
    source: DataFrame,
    source_name: str,
    gallery: Gallery,
    config: IngestConfig,
    materialise: Materialise,
    id_bits: int = ID_BITS,
) -> Ingested:
    """Check the rows of a source against each other and the gallery, and prepare the usable ones.

    Raises DataError if the attribute names do not fit the attributes.
    """
    checked = materialise(checked_rows(source, id_bits), "ingest_checked")
    statistics = stored_statistics(gallery.statistics)
    expected = expected_of(checked, gallery, len(statistics.means) if statistics else 0)
    check_attribute_names(expected.attribute_width, config)
    judged = judged_rows(checked, expected)
    outcomes = materialise(image_outcomes(judged, gallery.faces), "ingest_outcomes")
    rejected = quarantined_rows(judged, outcomes, source_name)
    accepted = accepted_rows(judged, outcomes)
    fresh = None
    if statistics is None and expected.attribute_width:
        statistics = sampled_statistics(accepted, expected.attribute_width, config.statistics_sample)
        fresh = statistics_rows(source.sparkSession, statistics, config)
    return Ingested(
        faces=accepted.select(stage_schema(schemas.FACES).names),
        vectors=prepared_vectors(accepted, statistics),
        quarantine=rejected,
        statistics=fresh,
        counts=count_rows(outcomes, rejected),
    )


def expected_of(checked: DataFrame, gallery: Gallery, attribute_width: int) -> Expected:
    """Give the widths and the embedding model of the gallery; `attribute_width` 0 is unknown.

    What the tables do not tell is what most of the batch's usable rows have; at a tie the smaller.
    """
    usable = checked.where(F.col(c.REASON).isNull())
    components = (F.length(c.VECTOR) / 2).cast("int").alias(c.WIDTH)
    width, model = c.WIDTH, c.EMBEDDING_MODEL
    known = _first_row(gallery.vectors.select(components))
    known |= _first_row(gallery.faces.select(model))
    for name, value in known.items():
        usable = usable.where(F.col(name).eqNullSafe(F.lit(value)))
    if len(known) < 2:
        known = _most_frequent(usable, width, model) | known
    if not attribute_width:
        fitting = usable.where(F.col(c.ATTRIBUTE_WIDTH) > 0)
        for name, value in known.items():
            fitting = fitting.where(F.col(name).eqNullSafe(F.lit(value)))
        attribute_width = _most_frequent(fitting, c.ATTRIBUTE_WIDTH).get(c.ATTRIBUTE_WIDTH, 0)
    return Expected(known.get(width), known.get(model), attribute_width)


def accepted_rows(judged: DataFrame, outcomes: DataFrame) -> DataFrame:
    """Give one row for each image that is new or replaces the stored one."""
    changed = outcomes.where(F.col(c.OUTCOME).isin(NEW, REPLACED)).select(c.FACE_ID, c.IMAGE_ID)
    usable = judged.where(F.col(c.REASON).isNull())
    # Further rows of such an image are equal to the first, or it would be a conflict.
    return usable.join(changed, [c.FACE_ID, c.IMAGE_ID], "left_semi").dropDuplicates([c.FACE_ID, c.IMAGE_ID])


def quarantined_rows(judged: DataFrame, outcomes: DataFrame, source_name: str) -> DataFrame:
    """Give the rows that are not used, with reason and detail. Fulfils QUARANTINE.

    Equal rows are kept apart by a number behind their content hash, so that none is lost in a merge
    and the same batch gives the same keys again.
    """
    outcome_detail = "outcome_detail"
    unusable = outcomes.where(~F.col(c.OUTCOME).isin(NEW, REPLACED, UNCHANGED)).select(
        c.FACE_ID, c.IMAGE_ID, c.OUTCOME, F.col(c.DETAIL).alias(outcome_detail)
    )
    rows = judged.join(unusable, [c.FACE_ID, c.IMAGE_ID], "left").where(
        F.col(c.REASON).isNotNull() | F.col(c.OUTCOME).isNotNull()
    )
    repeat = F.row_number().over(Window.partitionBy(c.CONTENT_HASH).orderBy(c.CONTENT_HASH))
    key = F.when(repeat == 1, F.col(c.CONTENT_HASH)).otherwise(
        F.concat_ws("-", c.CONTENT_HASH, repeat.cast("string"))
    )
    as_json = F.to_json(F.struct(*_SOURCE_COLUMNS), {"ignoreNullFields": "false"})
    return rows.select(
        c.IMAGE_ID,
        F.coalesce(c.REASON, c.OUTCOME).alias(c.REASON),
        F.coalesce(c.DETAIL, outcome_detail).alias(c.DETAIL),
        F.lit(source_name).alias(c.SOURCE),
        as_json.alias(c.ROW),
        key.alias(c.CONTENT_HASH),
    )


def count_rows(outcomes: DataFrame, rejected: DataFrame) -> IngestCounts:
    """Count what became of the rows of a batch."""
    kinds = outcomes.groupBy(c.OUTCOME).agg(F.count(F.lit(1)).alias(c.SIZE), F.sum(c.ROWS).alias(c.ROWS))
    images = {row[c.OUTCOME]: row for row in kinds.toArrow().to_pylist()}
    kept = [images[kind] for kind in (NEW, REPLACED, UNCHANGED) if kind in images]
    example = F.min(F.struct(c.IMAGE_ID, c.DETAIL)).alias(c.DETAIL)
    reasons = rejected.groupBy(c.REASON).agg(F.count(F.lit(1)).alias(c.ROWS), example)
    bad = sorted(reasons.toArrow().to_pylist(), key=lambda row: (-row[c.ROWS], row[c.REASON]))
    quarantined = {row[c.REASON]: row[c.ROWS] for row in bad}
    usable = sum(row[c.ROWS] for row in kept)
    return IngestCounts(
        read=usable + sum(quarantined.values()),
        **{kind: images.get(kind, {c.SIZE: 0})[c.SIZE] for kind in (NEW, REPLACED, UNCHANGED)},
        duplicates=usable - sum(row[c.SIZE] for row in kept),
        quarantined=quarantined,
        examples={row[c.REASON]: _example(row[c.DETAIL]) for row in bad},
    )


def check_quarantined_share(counts: IngestCounts, config: IngestConfig) -> None:
    """Raise QuarantineError if too large a share of the rows is bad, DataError if there is no row."""
    if counts.read == 0:
        raise DataError("the source holds no row: give one with faces")
    bad = sum(counts.quarantined.values())
    if bad <= config.max_quarantined_share * counts.read:
        return
    listing = "\n".join(
        f"  {reason}: {rows:,} rows, such as {counts.examples[reason]}"
        for reason, rows in counts.quarantined.items()
    )
    raise QuarantineError(
        f"{bad:,} of {counts.read:,} rows ({bad / counts.read:.1%}) cannot be used, more than "
        f"ingest.max_quarantined_share = {config.max_quarantined_share:.1%}:\n{listing}\n"
        "The table `quarantine` holds them all. No face of this batch was added. Mend the source, or "
        "allow more with --set ingest.max_quarantined_share=SHARE."
    )


def _first_row(rows: DataFrame) -> dict[str, Any]:
    """Give one row, of a frame whose rows are all equal; nothing for an empty frame."""
    return next(iter(rows.limit(1).toArrow().to_pylist()), {})


def _most_frequent(rows: DataFrame, *names: str) -> dict[str, Any]:
    """Give the most frequent values of some columns together; at a tie the smaller, null first."""
    counted = rows.groupBy(*names).agg(F.count(F.lit(1)).alias(c.ROWS))
    first = _first_row(counted.orderBy(F.desc(c.ROWS), *(F.asc_nulls_first(n) for n in names)))
    return {name: first[name] for name in names if first}


def _example(found: dict[str, str | None]) -> str:
    image = found[c.IMAGE_ID]
    return f"{'a row without id' if not image else repr(image)}: {found[c.DETAIL]}"
