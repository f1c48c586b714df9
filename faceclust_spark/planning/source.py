"""The sample of a source, read by Spark."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pyspark.sql import functions as F

from faceclust_spark.planning.sample import GallerySample, sample_size, usable
from faceclust_spark.stages.sources import read_source
from faceclust_spark.tables import columns as c

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa
    from numpy.typing import NDArray
    from pyspark.sql import SparkSession

    from faceclust_spark.config import IngestConfig

_BITS = 31  # of the hash: 2 * 10^9 steps of the share that is read


def sample_source(
    spark: SparkSession, source: str, config: IngestConfig, asked: int | None, faces: int | None
) -> GallerySample:
    """Read some rows of a source, chosen by the hash of their id: the same for any partitioning.

    The number of rows comes from the files' metadata. The source is read once, and only what is chosen
    leaves it. Arguments and errors as `sample.sample_size`, and DataError as `read_source`.
    """
    rows = read_source(spark, source, config)
    count = rows.count()
    size = sample_size(count, asked, faces)
    # A hash keeps a binomial number of rows: four s.d. more are read, and cut off again.
    share = min(1.0, (size + 4.0 * size**0.5 + 10.0) / count)
    order = F.shiftrightunsigned(F.xxhash64(c.IMAGE_ID), 64 - _BITS)
    chosen = (
        rows.where(order < F.lit(int(share * 2**_BITS)))
        .select(order.alias(c.POSITION), c.IMAGE_ID, c.EMBEDDING, c.ATTRIBUTES)
        .toArrow()
        .sort_by([(c.POSITION, "ascending"), (c.IMAGE_ID, "ascending")])
        .slice(0, size)
    )
    kept = usable(
        chosen[c.IMAGE_ID].to_pylist(),
        _rows_of(chosen[c.EMBEDDING], None),
        _rows_of(chosen[c.ATTRIBUTES], np.float32),
    )
    return GallerySample(count, *kept)


def _rows_of(lists: pa.ChunkedArray, dtype: type | None) -> Sequence[NDArray[np.floating]]:
    """Give each list as an array, NaN for a null element; empty for a null list."""
    found: list[NDArray[np.floating]] = []
    for chunk in lists.chunks:
        values = chunk.values.to_numpy(zero_copy_only=False)
        offsets = chunk.offsets.to_numpy()
        values = values if dtype is None else values.astype(dtype)
        valid = chunk.is_valid().to_numpy(zero_copy_only=False)
        ends = zip(offsets[:-1], offsets[1:], valid, strict=True)
        found += [values[start : end if there else start] for start, end, there in ends]
    return found
