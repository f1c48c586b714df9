"""The attribute statistics of a gallery: taken once from a sample, stored, and applied ever after."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyspark.sql import functions as F

from faceclust_spark.arrow import attributes_from_arrow
from faceclust_spark.errors import DataError
from faceclust_spark.kernels.attributes import (
    STATISTICS_PURPOSE,
    AttributeStatistics,
    attribute_statistics,
)
from faceclust_spark.stages.output import stage_schema
from faceclust_spark.stages.vectors import sampling_order
from faceclust_spark.tables import columns as c
from faceclust_spark.tables import schemas

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from faceclust_spark.config import IngestConfig

_VERSION = 1


def sampled_statistics(accepted: DataFrame, width: int, size: int) -> AttributeStatistics:
    """Take the statistics from the faces with the smallest `face_id XOR mask`, in this order.

    `width` is the number of attributes; a row without any misses them all.
    """
    sample = (
        accepted.select(c.FACE_ID, c.ATTRIBUTES)
        .orderBy(sampling_order(STATISTICS_PURPOSE))
        .limit(size)
        .toArrow()
    )
    attributes = attributes_from_arrow(sample[c.ATTRIBUTES])
    return attribute_statistics(attributes if attributes.size else np.empty((0, width), np.float32))


def stored_statistics(stored: DataFrame | None) -> AttributeStatistics | None:
    """Read the statistics back, the latest version; None where the gallery has none yet."""
    if stored is None:
        return None
    rows = stored.orderBy(F.desc(c.VERSION), c.POSITION).toArrow()
    if not rows.num_rows:
        return None
    versions = rows[c.VERSION].to_numpy()
    latest = rows.filter(pa.array(versions == versions[0]))
    return AttributeStatistics(
        latest[c.MEAN].to_numpy(),
        latest[c.STANDARD_DEVIATION].to_numpy(),
        latest[c.COUNT].to_numpy(),
    )


def statistics_rows(spark: SparkSession, statistics: AttributeStatistics, config: IngestConfig) -> DataFrame:
    """Give the statistics as rows. Fulfils ATTRIBUTE_STATISTICS."""
    count = len(statistics.means)
    check_attribute_names(count, config)
    names = config.attribute_names or [f"attribute_{position}" for position in range(count)]
    columns = {
        c.VERSION: pa.array([_VERSION] * count, pa.int32()),
        c.POSITION: pa.array(range(count), pa.int32()),
        c.NAME: pa.array(names, pa.string()),
        c.MEAN: pa.array(statistics.means),
        c.STANDARD_DEVIATION: pa.array(statistics.standard_deviations),
        c.COUNT: pa.array(statistics.counts),
    }
    schema = stage_schema(schemas.ATTRIBUTE_STATISTICS)
    return spark.createDataFrame(pa.table(columns), schema)


def check_attribute_names(count: int, config: IngestConfig) -> None:
    """Raise DataError if the config names another number of attributes than the faces have."""
    names = config.attribute_names
    if names is not None and count and len(names) != count:
        raise DataError(
            f"ingest.attribute_names holds {len(names)} names, the faces have {count} attributes: "
            "give one name for each, in their order"
        )
