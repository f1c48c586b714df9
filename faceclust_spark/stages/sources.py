"""Galleries as users have them: Parquet, Delta, catalogue tables and folders of numpy arrays.

`read_source` turns each into rows of one shape:

    image_id string, embedding array<float | double>, attributes array<float>, photo_id string,
    quality float, label string, embedding_model string, extra map<string, string>

where all may be null. What is in the rows is checked later, by `stages.ingest`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from pyspark.errors import AnalysisException
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    AtomicType,
    BinaryType,
    DataType,
    DecimalType,
    FloatType,
    IntegralType,
    NumericType,
    StringType,
)

from faceclust_spark.errors import DataError
from faceclust_spark.stages.numpy_source import EMBEDDINGS_FILE, numpy_rows, read_numpy_folder
from faceclust_spark.tables import columns as c

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

    from faceclust_spark.config import ColumnsConfig, IngestConfig

_TABLE_NAME = re.compile(r"^\w+(\.\w+){0,2}$")
_FORMATS = (
    "A source is a Parquet file or folder, a Delta table (path or catalog.schema.table), "
    f"or a folder with {EMBEDDINGS_FILE}"
)
_REQUIRED = (c.IMAGE_ID, c.EMBEDDING)
_LISTS = (c.EMBEDDING, c.ATTRIBUTES)


def read_source(spark: SparkSession, source: str, config: IngestConfig) -> DataFrame:
    """Give the rows of a source under the names and types that ingest expects.

    Raises DataError if the source cannot be found or read, or if columns are missing or of a type
    that cannot hold what they should; all such faults at once.
    """
    raw = _read_raw(spark, source, config)
    return _standard_columns(raw, source, config)


def count_rows(source: str, rows: DataFrame) -> int:
    """Count the rows that a source gave; those of numpy files without reading them."""
    local = _local(source)
    if (local / EMBEDDINGS_FILE).exists():
        return numpy_rows(local)
    return rows.count()


def _read_raw(spark: SparkSession, source: str, config: IngestConfig) -> DataFrame:
    local = _local(source)
    if (local / EMBEDDINGS_FILE).exists():
        return read_numpy_folder(spark, local, config)
    return read_rows(spark, source)


def read_rows(spark: SparkSession, source: str) -> DataFrame:
    """Give the rows of a Parquet file or folder, a Delta table or a catalogue table, as they are.

    Raises DataError if the source cannot be found or read.
    """
    local = _local(source)
    if (local / "_delta_log").exists():
        return _load(spark, "delta", source)
    if local.exists():
        if local.is_file() and local.suffix in (".npy", ".csv", ".json", ".npz"):
            raise DataError(f"{source} is a {local.suffix} file. {_FORMATS}: convert it to Parquet")
        return _load(spark, "parquet", source)
    if _TABLE_NAME.match(source) and _table_exists(spark, source):
        return spark.read.table(source)
    # Not on this machine: a URI, or a path that only the cluster sees. Its log tells a Delta table,
    # but only Spark can look for it there.
    try:
        return _load(spark, "delta", source)
    except DataError:
        return _load(spark, "parquet", source)


def _local(source: str) -> Path:
    return Path("/" + source[5:].lstrip("/")) if source.startswith("file:/") else Path(source)


def _table_exists(spark: SparkSession, name: str) -> bool:
    try:
        return spark.catalog.tableExists(name)
    except AnalysisException:  # a catalogue that is not there, or has fewer levels
        return False


def _load(spark: SparkSession, kind: str, source: str) -> DataFrame:
    try:
        rows = spark.read.format(kind).load(source)
        rows.columns  # noqa: B018  # on Spark Connect, nothing is read before this
    except AnalysisException as error:
        first_line = re.sub(r"^\[\w+\] | SQLSTATE: \w+$", "", str(error).splitlines()[0])
        raise DataError(f"cannot read the source {source}: {first_line}\n{_FORMATS}.") from None
    return rows


def _standard_columns(raw: DataFrame, source: str, config: IngestConfig) -> DataFrame:
    present = {field.name: field.dataType for field in raw.schema.fields}
    names = _column_names(present, config.columns)
    faults = _missing(present, config) + [
        fault
        for standard, name in names.items()
        if name in present and (fault := type_fault(standard, name, present[name]))
    ]
    if faults:
        listing = "\n".join(f"  {fault}" for fault in faults)
        raise DataError(
            f"the source {source} does not fit:\n{listing}\n"
            f"Columns found: {', '.join(present) or 'none'}. "
            "Name a column with --set ingest.columns.NAME=COLUMN."
        )
    stated_model = named(_text(names, c.EMBEDDING_MODEL))
    return raw.select(
        _text(names, c.IMAGE_ID).alias(c.IMAGE_ID),
        _embedding(names[c.EMBEDDING], present).alias(c.EMBEDDING),
        _optional(names, c.ATTRIBUTES).cast(ArrayType(FloatType())).alias(c.ATTRIBUTES),
        named(_text(names, c.PHOTO_ID)).alias(c.PHOTO_ID),
        _optional(names, c.QUALITY).cast("float").alias(c.QUALITY),
        named(_text(names, c.LABEL)).alias(c.LABEL),
        F.coalesce(stated_model, F.lit(config.embedding_model)).alias(c.EMBEDDING_MODEL),
        _extra(config.extra).cast("map<string,string>").alias(c.EXTRA),
    )


def _column_names(present: dict[str, DataType], columns: ColumnsConfig) -> dict[str, str]:
    """Give the source's column for each standard one; optional ones that are absent are left out."""
    named = {str(standard): name for standard, name in columns if name is not None}
    return {standard: name for standard, name in named.items() if name in present or standard in _REQUIRED}


def _missing(present: dict[str, DataType], config: IngestConfig) -> list[str]:
    """Tell of each column that is required, or named in the config, but not there."""
    columns = config.columns
    demanded = [s for s in type(columns).model_fields if s in {*_REQUIRED, *columns.model_fields_set}]
    named = [(standard, getattr(columns, standard)) for standard in demanded]
    faults = [
        f"column {name!r} is missing (ingest.columns.{standard})"
        for standard, name in named
        if name is not None and name not in present
    ]
    extra = [name for name in config.extra if name not in present]
    return faults + [f"column {name!r} is missing (ingest.extra)" for name in extra]


def type_fault(standard: str, name: str, found: DataType) -> str | None:
    """Tell what is wrong with a column's type, and what to do; None where it will do.

    standard: what the column is used as.
    """
    text = found.simpleString()
    if standard in _LISTS:
        if isinstance(found, ArrayType) and isinstance(found.elementType, NumericType):
            return None
        remedy = "vectors of Spark ML become arrays with vector_to_array"
        return f"{standard}: column {name!r} is {text}; expected an array of numbers ({remedy})"
    if standard == c.QUALITY:
        fits, expected = isinstance(found, NumericType), "a number"
    elif standard == c.IMAGE_ID:
        fits, expected = _is_id(found), "a string or a whole number"
    else:
        fits = isinstance(found, AtomicType) and not isinstance(found, BinaryType)
        expected = "a string or a number"
    if fits:
        return None
    return f"{standard}: column {name!r} is {text}; expected {expected}: cast it, or name another"


def _is_id(found: DataType) -> bool:
    whole = isinstance(found, DecimalType) and found.scale == 0
    return whole or isinstance(found, IntegralType | StringType)


def _embedding(name: str, present: dict[str, DataType]) -> Column:
    """Keep single precision as it is; everything else becomes double, which loses nothing."""
    found = present[name]
    single = isinstance(found, ArrayType) and isinstance(found.elementType, FloatType)
    return column_named(name).cast("array<float>" if single else "array<double>")


def _extra(names: tuple[str, ...]) -> Column:
    if not names:
        return F.lit(None)
    pairs = [part for name in names for part in (F.lit(name), column_named(name).cast("string"))]
    return F.create_map(*pairs)


def _text(names: dict[str, str], standard: str) -> Column:
    return _optional(names, standard).cast("string")


def named(column: Column) -> Column:
    """Give names as text, null where there is none: also for an empty text, and for NaN, as pandas has it."""
    text = column.cast("string")
    return F.when(~text.isin("", "NaN"), text)


def _optional(names: dict[str, str], standard: str) -> Column:
    return column_named(names[standard]) if standard in names else F.lit(None)


def column_named(name: str) -> Column:
    """Give the column of this very name, which may hold dots or backticks."""
    return F.col("`" + name.replace("`", "``") + "`")
