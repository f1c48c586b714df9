"""Reads and writes of Delta tables, in a folder, under a URI or in a catalogue."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from pyspark.errors import AnalysisException
from pyspark.sql import functions as F

from faceclust_spark.errors import TableError
from faceclust_spark.tables import columns as c
from faceclust_spark.tables.schemas import ALL_TABLES, Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

_SCRATCH = "_scratch"
_CATALOGUE_NAME = re.compile(r"[A-Za-z_]\w*\.[A-Za-z_]\w*")


class TableStore:
    """The tables of one gallery.

    base: a folder, a URI such as `s3a://bucket/faces`, or `catalog.schema`. One writer a table; every
    write is one commit, whose user metadata is the run id.
    """

    def __init__(self, spark: SparkSession, base: str) -> None:
        self._spark = spark
        self._in_catalogue = bool(_CATALOGUE_NAME.fullmatch(base))
        is_folder = not self._in_catalogue and "://" not in base
        self._folder = Path(base).absolute() if is_folder else None
        self.base = str(self._folder) if self._folder else base.rstrip("/")

    def exists(self, table: Table) -> bool:
        """Tell whether the table has been written."""
        return self._exists(table.name)

    def read(self, table: Table) -> DataFrame:
        """Read a table's newest version. Raises TableError where it has not been written."""
        if not self.exists(table):
            raise TableError(
                f"there is no table `{table.name}` in {self.base}: run `faceclust run` with these tables first, "
                "or correct --tables"
            )
        return self._load(table.name)

    def version(self, table: Table) -> int:
        """Give the table's newest Delta version."""
        history = self._spark.sql(f"DESCRIBE HISTORY {self._sql_name(table.name)} LIMIT 1")
        return int(history.select("version").toArrow()["version"][0].as_py())

    def replace(self, table: Table, rows: DataFrame, run_id: str) -> None:
        """Write rows as the table's whole content, in one commit. Raises TableError for a wrong schema."""
        self._save(table.name, _checked(table, rows, run_id), "overwrite", run_id)

    def append(self, table: Table, rows: DataFrame, run_id: str) -> None:
        """Add rows. Raises TableError for a wrong schema."""
        self._save(table.name, _checked(table, rows, run_id), "append", run_id)

    def merge(self, table: Table, rows: DataFrame, run_id: str) -> None:
        """Insert rows with new keys and replace those whose content differs; others stay untouched.

        Merging the same rows twice changes nothing. Raises TableError for a wrong schema.
        """
        checked = _checked(table, rows, run_id)
        if not self.exists(table):
            self._save(table.name, checked, "overwrite", run_id)
            return
        same_key = " AND ".join(f"kept.{_quote(key)} <=> new.{_quote(key)}" for key in table.keys)
        content = _quote(c.CONTENT_HASH)
        view = f"faceclust_merge_{table.name}"
        checked.createOrReplaceTempView(view)
        try:
            self._spark.sql(
                f"MERGE INTO {self._sql_name(table.name)} AS kept USING {view} AS new ON {same_key} "
                f"WHEN MATCHED AND NOT kept.{content} <=> new.{content} THEN UPDATE SET * "
                "WHEN NOT MATCHED THEN INSERT *"
            )
        finally:
            self._spark.catalog.dropTempView(view)

    def materialise(self, rows: DataFrame, name: str) -> DataFrame:
        """Write rows to a scratch table and read them back: cuts the lineage, computes once."""
        self._save(f"{_SCRATCH}_{name}", rows, "overwrite", "scratch")
        return self._load(f"{_SCRATCH}_{name}")

    def clear_scratch(self, *names: str) -> None:
        """Delete scratch tables."""
        for name in names:
            self._drop(f"{_SCRATCH}_{name}")

    def drop_all(self) -> None:
        """Delete every table of the gallery, and nothing else that lives in the same place."""
        for table in ALL_TABLES:
            self._drop(table.name)

    def _exists(self, name: str) -> bool:
        if self._folder:
            return (self._folder / name / "_delta_log").is_dir()
        if self._in_catalogue:
            return bool(self._spark.catalog.tableExists(f"{self.base}.{name}"))
        try:
            return len(self._load(name).columns) > 0
        except AnalysisException:
            return False

    def _load(self, name: str) -> DataFrame:
        if self._in_catalogue:
            return self._spark.read.table(f"{self.base}.{name}")
        return self._spark.read.format("delta").load(f"{self.base}/{name}")

    def _save(self, name: str, rows: DataFrame, mode: str, run_id: str) -> None:
        writer = rows.write.format("delta").mode(mode).option("userMetadata", run_id)
        if mode == "overwrite":
            writer = writer.option("overwriteSchema", "true")
        if self._in_catalogue:
            writer.saveAsTable(f"{self.base}.{name}")
        else:
            writer.save(f"{self.base}/{name}")

    def _drop(self, name: str) -> None:
        if self._folder:
            shutil.rmtree(self._folder / name, ignore_errors=True)
        elif not self._exists(name):
            return
        elif self._in_catalogue:
            self._spark.sql(f"DROP TABLE IF EXISTS {self._sql_name(name)}")
        else:
            # Object storage has no portable delete in the DataFrame API: an emptied table stays.
            self._spark.sql(f"DELETE FROM {self._sql_name(name)}")

    def _sql_name(self, name: str) -> str:
        if self._in_catalogue:
            return ".".join(_quote(part) for part in (*self.base.split("."), name))
        return f"delta.{_quote(f'{self.base}/{name}')}"


def _quote(identifier: str) -> str:
    return "`" + identifier.replace("`", "``") + "`"


def _checked(table: Table, rows: DataFrame, run_id: str) -> DataFrame:
    """Add the run id and put the columns in the schema's order. Raises TableError with all faults."""
    complete = rows.withColumn(c.RUN_ID, F.lit(run_id))
    faults = _schema_faults(table.schema, complete.schema)
    if faults:
        raise TableError(f"rows for table `{table.name}` do not fit its schema: " + "; ".join(faults))
    return complete.select(*table.schema.names)


def _schema_faults(wanted: StructType, found: StructType) -> list[str]:
    types = {field.name: field.dataType.simpleString() for field in found}
    faults = [f"column {name} is missing" for name in wanted.names if name not in types]
    faults += [f"column {name} is unknown" for name in types if name not in wanted.names]
    return faults + [
        f"column {field.name} is {types[field.name]}, not {field.dataType.simpleString()}"
        for field in wanted
        if field.name in types and types[field.name] != field.dataType.simpleString()
    ]
