"""Whether rows fit the schemas of their tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from faceclust_spark.errors import TableError
from faceclust_spark.tables import columns as c

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame
    from pyspark.sql.types import StructField, StructType

    from faceclust_spark.tables.schemas import Table


def missing_columns(table: Table, rows: DataFrame) -> list[str]:
    """Name the columns that stored rows lack, because another version of the package wrote them."""
    stored = set(rows.columns)  # asked once: of a remote session it is a request
    return [name for name in table.schema.names if name not in stored]


def checked(table: Table, rows: DataFrame, run_id: str) -> DataFrame:
    """Add the run id, and fit the columns to the schema in order and in nulls.

    Raises TableError with all faults of the schema; nulls in required columns are found while writing.
    """
    complete = rows.withColumn(c.RUN_ID, F.lit(run_id))
    faults = _schema_faults(table.schema, complete.schema)
    if faults:
        raise TableError(f"rows for table `{table.name}` do not fit its schema: " + "; ".join(faults))
    nullable = {field.name: field.nullable for field in complete.schema}
    return complete.select(*(_required(table, field, nullable[field.name]) for field in table.schema))


def _required(table: Table, field: StructField, nullable: bool) -> Column:
    """Give a column that fails the write at a null which the schema excludes: Delta would store it."""
    if field.nullable or not nullable:
        return F.col(field.name)
    fault = f"column {field.name} of table `{table.name}` must be set in every row, and is null in some"
    return F.coalesce(F.col(field.name), F.raise_error(F.lit(fault))).alias(field.name)


def _schema_faults(wanted: StructType, found: StructType) -> list[str]:
    types = {field.name: field.dataType.simpleString() for field in found}
    faults = [f"column {name} is missing" for name in wanted.names if name not in types]
    faults += [f"column {name} is unknown" for name in types if name not in wanted.names]
    return faults + [
        f"column {field.name} is {types[field.name]}, not {field.dataType.simpleString()}"
        for field in wanted
        if field.name in types and types[field.name] != field.dataType.simpleString()
    ]
