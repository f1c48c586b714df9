"""What a stage's Arrow function has to give back, from the schema of its table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StructType

from faceclust_spark.tables import columns as c

if TYPE_CHECKING:
    import pyarrow as pa

    from faceclust_spark.tables.schemas import Table

__all__ = ["arrow_output", "stage_schema", "to_arrow_schema"]


def stage_schema(table: Table) -> StructType:
    """Give the table's schema as a stage fulfils it: `run_id` is added when it is written."""
    return StructType([field for field in table.schema if field.name != c.RUN_ID])


def arrow_output(table: Table) -> pa.Schema:
    """Give the same as an Arrow schema: record batches with other types than these fail in Spark."""
    return to_arrow_schema(stage_schema(table))
