"""The vectors of faces: prepared from raw features, and sampled for one process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import functions as F

from faceclust_spark.arrow import (
    attributes_from_arrow,
    unpack_lists,
    vectors_from_arrow,
    vectors_to_arrow,
)
from faceclust_spark.kernels.attributes import AttributeStatistics, standardise
from faceclust_spark.kernels.faces import quantise_faces
from faceclust_spark.kernels.ids import ID_BITS, sample_mask, sure_sample
from faceclust_spark.stages.output import arrow_output, stage_schema
from faceclust_spark.tables import columns as c
from faceclust_spark.tables import schemas

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame


def prepared_vectors(accepted: DataFrame, statistics: AttributeStatistics | None) -> DataFrame:
    """Put usable face features on the grid and standardise the attributes. Fulfils VECTORS.

    Without statistics the gallery has no attributes, and the column is null.
    """
    raw = accepted.select(c.FACE_ID, c.PACKED, c.WIDTH, c.ATTRIBUTES, c.CONTENT_HASH)
    return raw.mapInArrow(_preparer(statistics), stage_schema(schemas.VECTORS))


def _preparer(
    statistics: AttributeStatistics | None,
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def prepare(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if batch.num_rows:
                yield prepare_batch(batch, statistics)

    return prepare


def prepare_batch(batch: pa.RecordBatch, statistics: AttributeStatistics | None) -> pa.RecordBatch:
    """Give rows of VECTORS for a batch of usable rows, one or more."""
    faces = unpack_lists(batch.column(c.PACKED), batch.column(c.WIDTH)[0].as_py())
    vectors, norms = quantise_faces(faces)
    columns = {
        c.FACE_ID: batch.column(c.FACE_ID),
        c.VECTOR: vectors_to_arrow(vectors),
        c.ATTRIBUTES: _standardised(batch.column(c.ATTRIBUTES), statistics),
        c.NORM: pa.array(norms),
        c.CONTENT_HASH: batch.column(c.CONTENT_HASH),
    }
    return pa.RecordBatch.from_pydict(columns, arrow_output(schemas.VECTORS))


def _standardised(raw: pa.ListArray, statistics: AttributeStatistics | None) -> pa.Array:
    """Give a list column with a null element for each missing attribute."""
    if statistics is None:
        return pa.nulls(len(raw), pa.list_(pa.float32()))
    width = len(statistics.means)
    attributes = attributes_from_arrow(raw)
    if not attributes.size:
        attributes = np.full((len(raw), width), np.nan, np.float32)
    scores = standardise(attributes, statistics).reshape(-1)
    offsets = np.arange(len(raw) + 1, dtype=np.int32) * np.int32(width)
    return pa.ListArray.from_arrays(offsets, pa.array(scores, mask=np.isnan(scores)))


def sampling_order(purpose: str) -> Column:
    """Give the key that orders faces for one purpose: `face_id XOR mask`, the same on any machine."""
    return F.col(c.FACE_ID).bitwiseXOR(F.lit(sample_mask(purpose)))


class Sample(NamedTuple):
    """Some faces of a gallery, in the order of their purpose."""

    face_ids: NDArray[np.int64]  # (m,)
    vectors: NDArray[np.int16]  # (m, d) on the grid


class SampledFaces(NamedTuple):
    """Some faces with all that `thresholds` describes, in the order of their purpose."""

    vectors: NDArray[np.int16]  # (m, d) on the grid
    norms: NDArray[np.float32]  # (m,) of the raw embeddings
    attributes: NDArray[np.float32]  # (m, a) standardised, NaN = missing; a = 0 where none of them has any


def sample_vectors(vectors: DataFrame, size: int, purpose: str, faces: int | None) -> Sample:
    """Collect the vectors of the purpose's sample, in its order: m = min(size, faces).

    faces: of the gallery, about; None: unknown. Where they are known, hardly more than the sample travels.
    """
    rows = _sample_rows(vectors.select(c.FACE_ID, c.VECTOR), size, purpose, faces)
    return Sample(rows[c.FACE_ID].to_numpy(), vectors_from_arrow(rows[c.VECTOR]))


def sample_faces(vectors: DataFrame, size: int, purpose: str, faces: int | None) -> SampledFaces:
    """Collect the faces of the purpose's sample, in its order: m = min(size, faces). faces: see above."""
    rows = _sample_rows(vectors.select(c.FACE_ID, c.VECTOR, c.NORM, c.ATTRIBUTES), size, purpose, faces)
    return SampledFaces(
        vectors_from_arrow(rows[c.VECTOR]),
        rows[c.NORM].to_numpy(),
        attributes_from_arrow(rows[c.ATTRIBUTES]),
    )


def _sample_rows(rows: DataFrame, size: int, purpose: str, faces: int | None) -> pa.Table:
    """Collect the same rows in the same order as `kernels.ids.sample_rows` gives, for any partitioning.

    Spark keeps the `size` smallest of each partition and merges those. Ids are hashes, so that a bound tells
    which rows of a large gallery may be among them; if that was too strict, all rows are looked at.
    """
    enough = sure_sample(size)
    if faces is not None and faces > 2 * enough:
        bound = (enough << ID_BITS) // faces
        sample = _smallest(rows.where(sampling_order(purpose) < F.lit(bound)), size, purpose)
        if sample.num_rows == size:
            return sample
    return _smallest(rows, size, purpose)


def _smallest(rows: DataFrame, size: int, purpose: str) -> pa.Table:
    sample = rows.orderBy(sampling_order(purpose)).limit(size).toArrow()
    # toArrow may hand back its chunks in any order within the limit: the key decides again.
    keys = sample[c.FACE_ID].to_numpy() ^ np.int64(sample_mask(purpose))
    return sample.take(np.argsort(keys, kind="stable"))
