"""What a stage's Arrow function has to give back, from the schema of its table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StructType

from faceclust_spark.session import set_for_now
from faceclust_spark.tables import columns as c

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyspark.sql import DataFrame, SparkSession

    from faceclust_spark.tables.schemas import Table

_BY_TASKS = {
    "spark.sql.execution.arrow.localRelationThreshold": "0",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "100000",
}

__all__ = ["arrow_output", "frame_of", "frame_of_rows", "stage_schema", "to_arrow_schema"]


def stage_schema(table: Table) -> StructType:
    """Give the table's schema as a stage fulfils it: `run_id` is added when it is written."""
    return StructType([field for field in table.schema if field.name != c.RUN_ID])


def arrow_output(table: Table) -> pa.Schema:
    """Give the same as an Arrow schema: record batches with other types than these fail in Spark."""
    return to_arrow_schema(stage_schema(table))


def frame_of(spark: SparkSession, table: Table, batches: Iterable[pa.RecordBatch]) -> DataFrame:
    """Give rows that this process holds, of the types of `arrow_output`, as a DataFrame."""
    return frame_of_rows(spark, pa.Table.from_batches(batches, arrow_output(table)), stage_schema(table))


def frame_of_rows(spark: SparkSession, rows: pa.Table, schema: StructType) -> DataFrame:
    """Give Arrow rows as a DataFrame, in tasks of many rows.

    By default rows travel in batches of 10,000, and become Java objects of the plan: four times as slow.
    """
    with set_for_now(spark, _BY_TASKS):
        return spark.createDataFrame(rows.combine_chunks(), schema)
