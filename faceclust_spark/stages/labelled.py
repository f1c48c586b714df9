"""Labelled galleries for training: the usable rows of a source whose people are known, as arrays."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pyspark.sql import functions as F

from faceclust_spark.arrow import attributes_from_arrow, vectors_from_arrow
from faceclust_spark.errors import DataError
from faceclust_spark.kernels.grid import normalise
from faceclust_spark.stages.ingest import Gallery, IngestCounts, ingested
from faceclust_spark.stages.sources import read_source
from faceclust_spark.tables import columns as c
from faceclust_spark.training.galleries import LabelledGallery

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import Column, DataFrame, SparkSession

    from faceclust_spark.config import Config

log = logging.getLogger(__name__)

_BUCKETS = 65_536  # of identities, by hash: what a gallery that is too large is cut by


class Labelled(NamedTuple):
    """A labelled gallery, and what the model's card tells of it."""

    gallery: LabelledGallery
    description: dict[str, Any]


def labelled_galleries(
    spark: SparkSession, sources: Sequence[str], config: Config
) -> tuple[list[LabelledGallery], dict[str, Any]]:
    """Read labelled sources, of one or several embeddings, and describe them for the model's card.

    Raises DataError where a source cannot be used, or where a model that is to be bound to an embedding
    would meet several.
    """
    labelled = [labelled_gallery(spark, source, config) for source in sources]
    models = {one.description[c.EMBEDDING_MODEL] for one in labelled}
    if len(models) > 1 and config.train.kind != "relations":
        raise DataError(
            f"a {config.train.kind} model is bound to one embedding, and the sources have those of "
            f"{', '.join(sorted(map(str, models)))}: train it on one, or set train.kind=relations"
        )
    only = models.pop() if len(models) == 1 else None
    description = {c.EMBEDDING_MODEL: only, "sources": [one.description for one in labelled]}
    return [one.gallery for one in labelled], description


def labelled_gallery(spark: SparkSession, source: str, config: Config) -> Labelled:
    """Read a source into arrays, by ascending face id: rows that ingest accepts and that have a label.

    A gallery of more than `train.max_faces` such rows is cut to whole identities, chosen by hash, so that
    the driver can hold it. Raises DataError where no usable row has a label.
    """
    rows = read_source(spark, source, config.ingest)
    usable = ingested(rows, source, Gallery(), config.ingest, lambda frame, _: frame)
    labelled = usable.faces.where(F.col(c.LABEL) != "")
    buckets, model = _count_labelled(labelled)
    faces = int(buckets.sum())
    if not faces:
        raise DataError(
            f"no usable face of {source} has a label ({usable.counts.read:,} rows read): training needs to "
            "know the people; name their column with --set ingest.columns.label=COLUMN"
        )
    kept = int((np.cumsum(buckets) <= config.train.max_faces).sum())
    gallery = _collect(usable.vectors, labelled.where(_bucket() < kept)) if kept else None
    if gallery is None or not len(gallery.labels):
        raise DataError(
            f"train.max_faces = {config.train.max_faces:,} leaves no identity of {source}, which has "
            f"{faces:,} labelled faces: raise it"
        )
    description = _describe(source, usable.counts, model, faces, gallery)
    _tell(description, config.train.max_faces)
    return Labelled(gallery, description)


def _bucket() -> Column:
    return F.pmod(F.xxhash64(c.LABEL), F.lit(_BUCKETS))


def _count_labelled(labelled: DataFrame) -> tuple[NDArray[np.int64], str | None]:
    """Count the faces of each bucket of identities, `(_BUCKETS,)`, and give their embedding model."""
    found = (
        labelled.groupBy(_bucket().alias(c.POSITION))
        .agg(F.count(F.lit(1)).alias(c.COUNT), F.min(c.EMBEDDING_MODEL).alias(c.EMBEDDING_MODEL))
        .toArrow()
    )
    counts = np.zeros(_BUCKETS, np.int64)
    counts[found[c.POSITION].to_numpy()] = found[c.COUNT].to_numpy()
    return counts, next(iter(found[c.EMBEDDING_MODEL].to_pylist()), None)


def _collect(vectors: DataFrame, kept: DataFrame) -> LabelledGallery:
    # Equal keys stand in equal order whatever order the rows come in: training is to be repeatable.
    rows = vectors.join(kept.select(c.FACE_ID, c.LABEL), c.FACE_ID).select(
        c.FACE_ID, c.VECTOR, c.ATTRIBUTES, c.NORM, c.LABEL
    )
    table = rows.toArrow().sort_by(c.FACE_ID)
    labels = np.unique(np.array(table[c.LABEL].to_pylist(), object), return_inverse=True)[1]
    return LabelledGallery(
        normalise(vectors_from_arrow(table[c.VECTOR]).astype(np.float32)).astype(np.float32),
        attributes_from_arrow(table[c.ATTRIBUTES]),
        table[c.NORM].to_numpy(),
        labels.astype(np.int64),
    )


def _describe(
    source: str, counts: IngestCounts, model: str | None, faces: int, gallery: LabelledGallery
) -> dict[str, Any]:
    left_out = dict(counts.quarantined)
    left_out["duplicate"] = counts.duplicates
    left_out["no_label"] = counts.accepted - faces
    left_out["beyond_max_faces"] = faces - len(gallery.labels)
    return {
        c.SOURCE: Path(source).name,  # a card is handed on: no one's folders in it
        c.EMBEDDING_MODEL: model,
        "rows": counts.read,
        "faces": len(gallery.labels),
        "people": len(np.unique(gallery.labels)),
        "left_out": {reason: rows for reason, rows in left_out.items() if rows},
    }


def _tell(description: dict[str, Any], max_faces: int) -> None:
    reasons = ", ".join(f"{reason} {rows:,}" for reason, rows in description["left_out"].items())
    log.info(
        "labelled       %s: %s faces of %s people; left out: %s",
        description[c.SOURCE],
        f"{description['faces']:,}",
        f"{description['people']:,}",
        reasons or "none",
    )
    if cut := description["left_out"].get("beyond_max_faces"):
        log.info("labelled       train.max_faces = %s: %s faces are not used", f"{max_faces:,}", f"{cut:,}")
