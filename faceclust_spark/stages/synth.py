"""Synthetic galleries of any size, made block by block on the executors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyspark.sql.types import ArrayType, FloatType, StringType, StructField, StructType

from faceclust_spark.kernels.synth import SyntheticFaces, count_blocks, draw_block
from faceclust_spark.stages.output import to_arrow_schema
from faceclust_spark.tables import columns as c

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame, SparkSession

    from faceclust_spark.config import SynthConfig

BLOCKS_PER_TASK = 16  # some 160,000 faces: a task that is repeated costs seconds
FEWEST_TASKS = 32  # where there are as many blocks, so that small clusters have work for all cores
BATCH_BYTES = 32 << 20  # of embeddings in one Arrow batch

SYNTHETIC_GALLERY = StructType(
    [
        StructField(c.IMAGE_ID, StringType(), False),
        StructField(c.EMBEDDING, ArrayType(FloatType(), False), False),
        StructField(c.ATTRIBUTES, ArrayType(FloatType(), True), True),
        StructField(c.PHOTO_ID, StringType(), False),
        StructField(c.QUALITY, FloatType(), False),
        StructField(c.QUALITY_BAND, StringType(), False),
        StructField(c.LABEL, StringType(), False),
        StructField(c.EMBEDDING_MODEL, StringType(), False),
    ]
)


def synthetic_gallery(spark: SparkSession, config: SynthConfig) -> DataFrame:
    """Make a gallery under the default names of source columns; exactly `config.faces` rows.

    The same rows for any number of tasks, and those of `kernels.synth.draw_gallery`. Attributes are
    null where the config asks for none, and have null elements where one is missing. `quality_band`
    is `low`, `middle` or `high`, to slice evaluations by.
    """
    blocks = count_blocks(config)
    tasks = min(blocks, max(FEWEST_TASKS, -(-blocks // BLOCKS_PER_TASK)))
    return spark.range(0, blocks, 1, tasks).mapInArrow(_drawer(config), SYNTHETIC_GALLERY)


def _drawer(config: SynthConfig) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    schema = to_arrow_schema(SYNTHETIC_GALLERY)
    rows = max(1, BATCH_BYTES // (4 * config.dimension))

    def draw(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for block in batch.column(0).to_pylist():
                faces = _to_arrow(draw_block(config, block), f"synthetic-{config.dimension}", schema)
                for start in range(0, faces.num_rows, rows):
                    yield faces.slice(start, rows)

    return draw


def _to_arrow(faces: SyntheticFaces, model: str, schema: pa.Schema) -> pa.RecordBatch:
    columns = {
        c.IMAGE_ID: pa.array(faces.image_ids),
        c.EMBEDDING: _matrix_to_arrow(faces.embeddings),
        c.ATTRIBUTES: _attributes_to_arrow(faces.attributes),
        c.PHOTO_ID: pa.array(faces.photo_ids),
        c.QUALITY: pa.array(faces.quality),
        c.QUALITY_BAND: pa.array(faces.quality_bands),
        c.LABEL: pa.array(faces.labels),
        c.EMBEDDING_MODEL: pa.repeat(model, len(faces.labels)),
    }
    return pa.RecordBatch.from_pydict(columns, schema)


def _attributes_to_arrow(attributes: NDArray[np.float32]) -> pa.Array:
    if not attributes.shape[1]:
        return pa.nulls(len(attributes), pa.list_(pa.float32()))
    return _matrix_to_arrow(attributes)


def _matrix_to_arrow(matrix: NDArray[np.float32]) -> pa.ListArray:
    """Give a list for each row, with a null element for each NaN."""
    count, width = matrix.shape
    offsets = np.arange(count + 1, dtype=np.int32) * np.int32(width)
    values = matrix.reshape(-1)
    return pa.ListArray.from_arrays(offsets, pa.array(values, mask=np.isnan(values)))
