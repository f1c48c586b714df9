"""What is wrong with a source's rows, and what becomes of its images.

Three steps: what a row tells by itself, what it tells beside the gallery's width and model, and what
the rows of an image tell together.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Window
from pyspark.sql import functions as F
from pyspark.sql.types import BinaryType, IntegerType, LongType, StringType, StructField, StructType

from faceclust_spark.arrow import pack_lists
from faceclust_spark.kernels import faces as kernel
from faceclust_spark.kernels.ids import ID_BITS, hash_image_ids
from faceclust_spark.tables import columns as c

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

NEW, REPLACED, UNCHANGED = "new", "replaced", "unchanged"

_TEXTS = (c.IMAGE_ID, c.PHOTO_ID, c.QUALITY, c.LABEL, c.EMBEDDING_MODEL, c.EXTRA)
_VERDICT = StructType(
    [
        StructField(c.FACE_ID, LongType()),
        StructField(c.WIDTH, IntegerType()),
        StructField(c.ATTRIBUTE_WIDTH, IntegerType()),
        StructField(c.CONTENT_HASH, StringType()),
        StructField(c.REASON, StringType()),
        StructField(c.DETAIL, StringType()),
        StructField(c.PACKED, BinaryType()),
    ]
)


class Expected(NamedTuple):
    """What every row must have. A width of None asks for nothing: no row of the batch is usable."""

    width: int | None
    embedding_model: str | None
    attribute_width: int  # 0: no attributes


def checked_rows(source: DataFrame, id_bits: int = ID_BITS) -> DataFrame:
    """Add to each row its face id, widths and content hash, and the fault it has by itself.

    Rows as `stages.sources.read_source` gives them, plus face_id, width, attribute_width,
    content_hash, reason, detail, packed. Where the row is usable, reason and detail are null, and the
    embedding has moved to `packed`; `unpacked_rows` moves it back.
    `id_bits` below 63 makes collisions likely, for tests.
    """
    schema = StructType(source.schema.fields + _VERDICT.fields)
    return source.mapInArrow(_row_checker(id_bits), schema)


def unpacked_rows(rows: DataFrame) -> DataFrame:
    """Give rows of `checked_rows` with their embeddings as lists again."""
    return rows.mapInArrow(_unpack, rows.schema)


def judged_rows(checked: DataFrame, expected: Expected) -> DataFrame:
    """Add to each row's fault that it does not fit the gallery: its widths, its embedding model."""
    width, attribute_width = F.col(c.WIDTH), F.col(c.ATTRIBUTE_WIDTH)
    stated = F.coalesce(c.EMBEDDING_MODEL, F.lit("not stated"))
    wanted = expected.embedding_model or "not stated"
    absent = F.col(c.REASON).isin(kernel.NULL_ID, kernel.NULL_EMBEDDING)
    other_width = F.lit(expected.width is not None) & (width != F.lit(expected.width or 0))
    other_model = ~F.col(c.EMBEDDING_MODEL).eqNullSafe(F.lit(expected.embedding_model))
    other_attributes = (attribute_width > 0) & (attribute_width != expected.attribute_width)

    def first_fault(present: str, *faults: Column) -> Column:
        kept = F.col(present)
        return (
            F.when(absent, kept)
            .when(other_width, faults[0])
            .when(F.col(c.REASON).isNotNull(), kept)
            .when(other_model, faults[1])
            .when(other_attributes, faults[2])
        )

    return checked.withColumns(
        {
            c.REASON: first_fault(
                c.REASON,
                F.lit(kernel.WRONG_WIDTH),
                F.lit(kernel.MIXED_MODEL),
                F.lit(kernel.WRONG_ATTRIBUTE_WIDTH),
            ),
            c.DETAIL: first_fault(
                c.DETAIL,
                F.format_string(f"%d components, the gallery has {expected.width}", width),
                F.concat(F.lit("embedding model "), stated, F.lit(f", the gallery's is {wanted}")),
                F.format_string(
                    f"%d attributes, the gallery has {expected.attribute_width}", attribute_width
                ),
            ),
        }
    )


def image_outcomes(judged: DataFrame, stored_faces: DataFrame | None) -> DataFrame:
    """Tell for each image with a usable row what becomes of it.

    Rows of one image that differ are a conflict, whatever else is wrong with some of them. Of images
    with one face id the stored one stays; where none is stored, the first by image_id.

    Columns face_id, image_id, rows (usable ones), outcome (`new`, `replaced`, `unchanged` or a reason
    code), detail (null unless a reason).
    """
    stored_image, stored_hash, least, greatest = "stored_image", "stored_hash", "least", "greatest"
    images = (
        judged.where(F.col(c.FACE_ID).isNotNull())
        .select(c.FACE_ID, c.IMAGE_ID, c.REASON, c.CONTENT_HASH)
        .repartition(c.FACE_ID)  # one shuffle for the grouping, the join and the window
        .groupBy(c.FACE_ID, c.IMAGE_ID)
        .agg(
            F.count_if(F.col(c.REASON).isNull()).alias(c.ROWS),
            F.min(c.CONTENT_HASH).alias(least),
            F.max(c.CONTENT_HASH).alias(greatest),
        )
        .where(F.col(c.ROWS) > 0)
    )
    if stored_faces is None:
        nobody = F.lit(None).cast("string")
        images = images.withColumns({stored_image: nobody, stored_hash: nobody})
    else:
        known = {stored_image: F.col(c.IMAGE_ID), stored_hash: F.col(c.CONTENT_HASH)}
        stored = stored_faces.select(c.FACE_ID, *(column.alias(name) for name, column in known.items()))
        images = images.join(stored, c.FACE_ID, "left")
    differ = F.col(least) != F.col(greatest)
    same_face = Window.partitionBy(c.FACE_ID)
    first_image = F.min(F.when(~differ, F.col(c.IMAGE_ID))).over(same_face)
    owner = F.coalesce(F.col(stored_image), first_image)
    collides = F.col(c.IMAGE_ID) != owner
    outcome = (
        F.when(differ, kernel.CONFLICTING_ROWS)
        .when(collides, kernel.ID_COLLISION)
        .when(F.col(stored_hash).isNull(), NEW)
        .when(F.col(stored_hash) == F.col(least), UNCHANGED)
        .otherwise(REPLACED)
    )
    detail = F.when(differ, F.lit("rows of this batch share the image id, but differ")).when(
        collides, F.concat(F.lit("the face id belongs to the image "), owner)
    )
    return images.select(c.FACE_ID, c.IMAGE_ID, c.ROWS, outcome.alias(c.OUTCOME), detail.alias(c.DETAIL))


def _row_checker(id_bits: int) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def check(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield check_batch(batch, id_bits)

    return check


def check_batch(batch: pa.RecordBatch, id_bits: int = ID_BITS) -> pa.RecordBatch:
    """Add to each row of a batch what `checked_rows` says of it."""
    image_ids = batch.column(c.IMAGE_ID).to_pylist()
    embeddings = ragged_from_arrow(batch.column(c.EMBEDDING))
    attributes = ragged_from_arrow(batch.column(c.ATTRIBUTES))
    faults = kernel.find_faults(image_ids, embeddings)
    texts = zip(*(batch.column(name).to_pylist() for name in _TEXTS), strict=True)
    hashes = kernel.hash_rows([_canonical(row) for row in texts], embeddings, attributes)
    face_ids = hash_image_ids((image_id or "" for image_id in image_ids), id_bits)
    anonymous = np.array([not image_id for image_id in image_ids], dtype=bool)
    usable = np.array([reason is None for reason in faults.reasons], dtype=bool)
    nowhere = pa.scalar(None, pa.binary())
    packed = pc.if_else(pa.array(usable), pack_lists(*embeddings), nowhere)
    verdict = [
        pa.array(face_ids, pa.int64(), mask=anonymous),
        pa.array(embeddings.widths, pa.int32()),
        pa.array(attributes.widths, pa.int32()),
        *(pa.array(part, pa.string()) for part in (hashes, *faults)),
        packed,
    ]
    kept = {name: batch.column(name) for name in batch.schema.names}
    kept[c.EMBEDDING] = kept[c.EMBEDDING].take(pa.array(np.arange(len(usable)), mask=usable))
    return pa.RecordBatch.from_arrays([*kept.values(), *verdict], names=[*kept, *_VERDICT.names])


def _unpack(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Move packed embeddings back into their column. Runs on the executors, for rows that are refused."""
    for batch in batches:
        at = batch.schema.get_field_index(c.EMBEDDING)
        kind = batch.schema.field(at).type
        number = kind.value_type.to_pandas_dtype()
        lists = [
            held.as_py() if packed is None else np.frombuffer(packed, number)
            for held, packed in zip(batch.column(at), batch.column(c.PACKED).to_pylist(), strict=True)
        ]
        yield batch.set_column(at, batch.schema.field(at), pa.array(lists, kind))


def _canonical(row: tuple[object, ...]) -> str:
    """Give a row's small columns as text that is the same for the same content everywhere."""
    *values, extra = row
    pairs = sorted(extra) if isinstance(extra, list) else None
    return json.dumps([*values, pairs])


def ragged_from_arrow(lists: pa.ListArray) -> kernel.Ragged:
    """Read a column of lists of floats or doubles; null elements become NaN, null lists width -1."""
    widths = pc.fill_null(pc.list_value_length(lists), -1).to_numpy(zero_copy_only=False)
    values = lists.flatten().to_numpy(zero_copy_only=False)
    return kernel.Ragged(values, widths.astype(np.int64))
