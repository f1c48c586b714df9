"""The labels that clusters are scored against: those of the ingested faces, or of a table given for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pyspark.sql import functions as F

from faceclust_spark.errors import DataError
from faceclust_spark.stages.numpy_source import EMBEDDINGS_FILE, IDS_PARQUET
from faceclust_spark.stages.sources import column_named, named, read_rows, type_fault
from faceclust_spark.tables import columns as c

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pyspark.sql import Column, DataFrame

    from faceclust_spark.config import ColumnsConfig


_LEAST, _MOST = "_least", "_most"


class Labels(NamedTuple):
    """The labels: image_id, label and the columns to slice by, one row an image; and what they cover."""

    rows: DataFrame
    scored: int  # clustered faces with a label
    unscored: int  # clustered faces without


def labels_of(
    clusters: DataFrame,
    faces: DataFrame,
    place: str | None,
    slices: Sequence[str],
    columns: ColumnsConfig,
) -> Labels:
    """Find labels, and what to slice by, and count the clustered faces that have a label.

    place: a Parquet file or folder, a Delta table or a catalogue table with the columns image_id and
    label, also under the names that `columns` gives them; the same row may come twice. None: the labels
    that the faces were ingested with. Slice columns are looked for there, then among the columns of
    `faces` and the keys of their `extra`.

    Raises DataError if a column is missing, or holds neither text nor numbers; if rows of one image
    differ; if no clustered face has a label.
    """
    wanted = [name for name in dict.fromkeys(slices) if name not in (c.IMAGE_ID, c.LABEL)]
    own = _own_columns(faces, wanted)
    if place is None:
        _refuse("the faces", _absent(wanted, own), own)
        rows = faces.select(c.IMAGE_ID, c.LABEL, *(own[name].alias(name) for name in wanted if name in own))
    else:
        rows = _given_rows(faces, own, place, wanted, columns)
    return _counted(clusters, rows.where(named(F.col(c.LABEL)).isNotNull()), place)


def _own_columns(faces: DataFrame, wanted: Sequence[str]) -> dict[str, Column]:
    """Give the columns of the faces; `extra` is read for its keys only where something else is wanted."""
    own = {name: F.col(name) for name in faces.columns if name != c.EXTRA}
    if set(wanted) - {*own, c.IDENTITY_SIZE}:
        keys = faces.select(F.explode(F.map_keys(c.EXTRA)).alias(c.NAME)).distinct().toArrow()
        for key in sorted(keys[c.NAME].to_pylist()):
            own.setdefault(key, F.try_element_at(c.EXTRA, F.lit(key)))
    return own


def _given_rows(
    faces: DataFrame, own: dict[str, Column], place: str, wanted: Sequence[str], columns: ColumnsConfig
) -> DataFrame:
    """Read the labels at a place; slice columns that it lacks come from the faces."""
    if (Path(place) / EMBEDDINGS_FILE).exists():
        raise DataError(f"{place} is a folder of numpy files: name its {IDS_PARQUET}, which has the labels")
    table = read_rows(faces.sparkSession, place)
    types = {field.name: field.dataType for field in table.schema.fields}
    image_id = columns.image_id if columns.image_id in types else c.IMAGE_ID
    label = columns.label if columns.label in types else c.LABEL
    here = [name for name in wanted if name in types]
    used = [(c.IMAGE_ID, image_id), (c.LABEL, label), *((f"slice {name}", name) for name in here)]
    faults = [f"column {name!r} is missing" for name in (image_id, label) if name not in types]
    faults += _absent(wanted, {**own, **types})
    faults += [
        fault for purpose, name in used if name in types and (fault := type_fault(purpose, name, types[name]))
    ]
    _refuse(f"the labels {place}", faults, types)
    rows = table.select(
        column_named(image_id).cast("string").alias(c.IMAGE_ID),
        column_named(label).cast("string").alias(c.LABEL),
        *(column_named(name) for name in here),
    ).where(F.col(c.IMAGE_ID).isNotNull() & F.col(c.LABEL).isNotNull())
    rows = rows.distinct()
    _refuse_contradictions(rows, place)
    of_faces = [own[name].alias(name) for name in wanted if name not in types and name in own]
    return rows.join(faces.select(c.IMAGE_ID, *of_faces), c.IMAGE_ID, "left") if of_faces else rows


def _absent(wanted: Sequence[str], found: Iterable[str]) -> list[str]:
    """Tell of each slice column that is not there; `identity_size` always is."""
    return [f"no column {name!r} to slice by" for name in wanted if name not in {*found, c.IDENTITY_SIZE}]


def _refuse(where: str, faults: Sequence[str], found: Iterable[str]) -> None:
    if faults:
        listing = "\n".join(f"  {fault}" for fault in faults)
        raise DataError(
            f"{where} cannot be used for this evaluation:\n{listing}\n"
            f"Columns found: {', '.join(found)}; {c.IDENTITY_SIZE} is always there to slice by. A column of "
            "the source is kept with --set ingest.extra=[NAME]; --labels PATH|TABLE may bring others."
        )


def _refuse_contradictions(rows: DataFrame, place: str) -> None:
    label = F.col(c.LABEL)
    several = rows.groupBy(c.IMAGE_ID).agg(
        F.count(label).alias(c.ROWS), F.min(label).alias(_LEAST), F.max(label).alias(_MOST)
    )
    image = F.struct(c.IMAGE_ID, _LEAST, _MOST)
    found = several.where(F.col(c.ROWS) > 1).agg(F.count(image).alias(c.ROWS), F.min(image).alias(c.ROW))
    row = found.toArrow().to_pylist()[0]
    if row[c.ROWS]:
        image_id, least, most = row[c.ROW].values()
        differ = f"the labels {least!r} and {most!r}" if least != most else "several values to slice by"
        raise DataError(
            f"the labels {place} contradict themselves about {row[c.ROWS]:,} images, such as {image_id!r} "
            f"with {differ}: leave one row an image"
        )


def _counted(clusters: DataFrame, rows: DataFrame, place: str | None) -> Labels:
    labelled = rows.select(c.IMAGE_ID, c.LABEL)
    counts = clusters.join(labelled, c.IMAGE_ID, "left").agg(
        F.count(F.lit(1)).alias(c.ROWS), F.count(c.LABEL).alias(c.LABEL), F.min(c.IMAGE_ID).alias(c.IMAGE_ID)
    )
    row = counts.toArrow().to_pylist()[0]
    if not row[c.LABEL] and place is None:
        raise DataError(
            f"none of the {row[c.ROWS]:,} clustered faces has a label: give labels with --labels PATH|TABLE "
            "(columns image_id and label), or ingest a source with a column of labels (`label`, or the one "
            "named by --set ingest.columns.label=COLUMN)"
        )
    if not row[c.LABEL]:
        theirs = labelled.agg(F.min(c.IMAGE_ID).alias(c.IMAGE_ID)).toArrow()[c.IMAGE_ID][0].as_py()
        raise DataError(
            f"the labels {place} cover none of the {row[c.ROWS]:,} clustered faces. "
            f"Their smallest image_id is {theirs!r}, that of the clusters {row[c.IMAGE_ID]!r}: both have to "
            "be the same text"
            if theirs is not None
            else f"no row of the labels {place} has both an image_id and a label"
        )
    return Labels(rows, row[c.LABEL], row[c.ROWS] - row[c.LABEL])
