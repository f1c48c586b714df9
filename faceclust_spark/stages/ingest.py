"""From a source's rows to faces, vectors and quarantine.

The frames are read from materialised ones, so that a source is read once. To survive a kill at any
moment they are written in the order statistics, quarantine, vectors, faces: a face counts as ingested
once it stands in `faces`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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
    unpacked_rows,
)
from faceclust_spark.stages.vectors import prepared_vectors
from faceclust_spark.tables import columns as c
from faceclust_spark.tables import schemas

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from faceclust_spark.config import IngestConfig

_KINDS = 100_000  # most kinds of rows that are compared for what most rows are like
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
    """What is stored so far; None for a table that the first ingest will write."""

    faces: DataFrame | None = None
    vectors: DataFrame | None = None
    statistics: DataFrame | None = None


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
    outcomes = image_outcomes(judged, gallery.faces)
    counts = count_rows(judged, outcomes)
    accepted = judged.where(F.col(c.REASON).isNull())
    rejected = quarantined_rows(judged, source_name)
    if counts.new < counts.read - sum(counts.quarantined.values()):
        exceptions = materialise(outcomes.where(_is_exception()), "ingest_exceptions")
        accepted = accepted_rows(accepted, exceptions)
        rejected = quarantined_rows(judged, source_name, exceptions)
        counts = _with_reasons(counts, rejected)
    if not counts.quarantined:
        rejected = source.sparkSession.createDataFrame([], stage_schema(schemas.QUARANTINE))
    fresh = None
    if statistics is None and expected.attribute_width:
        statistics = sampled_statistics(accepted, expected.attribute_width, config.statistics_sample)
        fresh = statistics_rows(source.sparkSession, statistics, config)
    return Ingested(
        faces=accepted.select(stage_schema(schemas.FACES).names),
        vectors=prepared_vectors(accepted, statistics),
        quarantine=rejected,
        statistics=fresh,
        counts=counts,
    )


def expected_of(checked: DataFrame, gallery: Gallery, attribute_width: int) -> Expected:
    """Give the widths and the embedding model of the gallery; `attribute_width` 0 is unknown.

    What the tables do not tell is what most of the batch's usable rows have; at a tie the smaller, null
    first.
    """
    components = (F.length(c.VECTOR) / 2).cast("int").alias(c.WIDTH)
    known = _first_row(gallery.vectors, components) | _first_row(gallery.faces, F.col(c.EMBEDDING_MODEL))
    kinds = checked.where(F.col(c.REASON).isNull()).groupBy(c.WIDTH, c.EMBEDDING_MODEL, c.ATTRIBUTE_WIDTH)
    counted = kinds.agg(F.count(F.lit(1)).alias(c.ROWS)).orderBy(F.desc(c.ROWS)).limit(_KINDS)
    usable = [row for row in counted.toArrow().to_pylist() if all(row[name] == known[name] for name in known)]
    if len(known) < 2:
        known = _most_frequent(usable, c.WIDTH, c.EMBEDDING_MODEL) | known
    if not attribute_width:
        fitting = [row for row in usable if all(row[name] == known[name] for name in known)]
        given = [row for row in fitting if row[c.ATTRIBUTE_WIDTH] > 0]
        attribute_width = _most_frequent(given, c.ATTRIBUTE_WIDTH).get(c.ATTRIBUTE_WIDTH, 0)
    return Expected(known.get(c.WIDTH), known.get(c.EMBEDDING_MODEL), attribute_width)


def accepted_rows(usable: DataFrame, exceptions: DataFrame) -> DataFrame:
    """Give one row for each image that is new or replaces the stored one.

    exceptions: the images that are not new, or have several rows. Most batches have few, so that the
    embeddings of all others need not travel to find them.
    """
    image = [c.FACE_ID, c.IMAGE_ID]
    changed = F.col(c.OUTCOME).isin(NEW, REPLACED)
    single = usable.join(exceptions.where(~changed | (F.col(c.ROWS) > 1)), image, "left_anti")
    # Further rows of an image are equal to the first, or it would be a conflict.
    several = usable.join(exceptions.where(changed & (F.col(c.ROWS) > 1)), image, "left_semi")
    return single.unionByName(several.dropDuplicates(image))


def quarantined_rows(judged: DataFrame, source_name: str, exceptions: DataFrame | None = None) -> DataFrame:
    """Give the rows that are not used, with reason and detail. Fulfils QUARANTINE.

    Equal rows are kept apart by a number behind their content hash, so that none is lost in a merge
    and the same batch gives the same keys again.
    """
    rows = judged.where(F.col(c.REASON).isNotNull())
    if exceptions is not None:
        outcome_detail = "outcome_detail"
        unusable = exceptions.where(~F.col(c.OUTCOME).isin(NEW, REPLACED, UNCHANGED)).select(
            c.FACE_ID, c.IMAGE_ID, c.OUTCOME, F.col(c.DETAIL).alias(outcome_detail)
        )
        told = {c.REASON: F.coalesce(c.REASON, c.OUTCOME), c.DETAIL: F.coalesce(c.DETAIL, outcome_detail)}
        rows = (
            judged.join(unusable, [c.FACE_ID, c.IMAGE_ID], "left")
            .where(F.col(c.REASON).isNotNull() | F.col(c.OUTCOME).isNotNull())
            .withColumns(told)
        )
    repeat = F.row_number().over(Window.partitionBy(c.CONTENT_HASH).orderBy(c.CONTENT_HASH))
    key = F.when(repeat == 1, F.col(c.CONTENT_HASH)).otherwise(
        F.concat_ws("-", c.CONTENT_HASH, repeat.cast("string"))
    )
    rows = unpacked_rows(rows)
    as_json = F.to_json(F.struct(*_SOURCE_COLUMNS), {"ignoreNullFields": "false"})
    return rows.select(
        c.IMAGE_ID,
        c.REASON,
        c.DETAIL,
        F.lit(source_name).alias(c.SOURCE),
        as_json.alias(c.ROW),
        key.alias(c.CONTENT_HASH),
    )


def count_rows(judged: DataFrame, outcomes: DataFrame) -> IngestCounts:
    """Count what became of the rows of a batch, as far as rows and images tell by themselves.

    Rows of an image that is refused are counted as quarantined, but their reasons are not told apart.
    """
    images = F.count(F.lit(1)).alias(c.SIZE), F.sum(c.ROWS).alias(c.ROWS)
    kinds = outcomes.groupBy(c.OUTCOME).agg(*images).withColumnRenamed(c.OUTCOME, c.REASON)
    both = kinds.unionByName(_reasons(judged.where(F.col(c.REASON).isNotNull())), allowMissingColumns=True)
    rows = both.toArrow().to_pylist()
    bad = [row for row in rows if row[c.SIZE] is None]
    found = {row[c.REASON]: row for row in rows if row[c.SIZE] is not None}
    kept = [found[kind] for kind in (NEW, REPLACED, UNCHANGED) if kind in found]
    usable = sum(row[c.ROWS] for row in kept)
    counts = IngestCounts(
        read=sum(row[c.ROWS] for row in rows),
        **{kind: found.get(kind, {c.SIZE: 0})[c.SIZE] for kind in (NEW, REPLACED, UNCHANGED)},
        duplicates=usable - sum(row[c.SIZE] for row in kept),
        quarantined={},
        examples={},
    )
    return _explained(counts, bad)


def count_new(read: int, new: int, rejected: DataFrame) -> IngestCounts:
    """Count a batch of different images on tables that hold nothing yet. rejected: of QUARANTINE."""
    counts = IngestCounts(read, new, 0, 0, 0, {}, {})
    return _with_reasons(counts, rejected) if new < read else counts


def _is_exception() -> Column:
    return (F.col(c.OUTCOME) != NEW) | (F.col(c.ROWS) > 1)


def _with_reasons(counts: IngestCounts, rejected: DataFrame) -> IngestCounts:
    """Count the rejected rows again, those of refused images included."""
    return _explained(counts, _reasons(rejected).toArrow().to_pylist())


def _reasons(rejected: DataFrame) -> DataFrame:
    example = F.min(F.struct(c.IMAGE_ID, c.DETAIL)).alias(c.DETAIL)
    return rejected.groupBy(c.REASON).agg(F.count(F.lit(1)).alias(c.ROWS), example)


def _explained(counts: IngestCounts, reasons: Sequence[Mapping[str, Any]]) -> IngestCounts:
    bad = sorted(reasons, key=lambda row: (-row[c.ROWS], row[c.REASON]))
    return counts._replace(
        quarantined={row[c.REASON]: row[c.ROWS] for row in bad},
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


def _first_row(rows: DataFrame | None, column: Column) -> dict[str, Any]:
    """Give a column that is equal in all rows from one of them; nothing where there is no row."""
    return next(iter(rows.select(column).limit(1).toArrow().to_pylist()), {}) if rows else {}


def _most_frequent(counted: Sequence[Mapping[str, Any]], *names: str) -> dict[str, Any]:
    """Give the most frequent values of some columns together; at a tie the smaller, null first."""
    votes: Counter[Any] = Counter()
    for row in counted:
        votes[tuple(row[name] for name in names)] += row[c.ROWS]

    def rank(values: Any) -> tuple[Any, ...]:
        return (-votes[values], *((value is not None, value) for value in values))

    return dict(zip(names, min(votes, key=rank), strict=True)) if votes else {}


def _example(found: dict[str, str | None]) -> str:
    image = found[c.IMAGE_ID]
    return f"{'a row without id' if not image else repr(image)}: {found[c.DETAIL]}"
