"""Reads and writes of Delta tables, in a folder, under a URI or in a catalogue."""

from __future__ import annotations

import contextlib
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import delta.exceptions  # noqa: F401  (in any session, Delta's conflicts are PySpark's exceptions then)
from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import functions as F
from pyspark.sql.utils import is_remote

from faceclust_spark.errors import TableError
from faceclust_spark.session import set_for_now
from faceclust_spark.tables import columns as c
from faceclust_spark.tables.delta_log import Written, last_written, log_of, newest_version
from faceclust_spark.tables.fitting import checked, missing_columns
from faceclust_spark.tables.schemas import ALL_TABLES, LEASE, Table
from faceclust_spark.tables.scratch import FOREST_SCRATCH, INGEST_SCRATCH, replaced_here, rounds_scratch

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_SCRATCH = "_scratch"
_USER_METADATA = "spark.databricks.delta.commitInfo.userMetadata"
_NULLS = re.compile(r"column \w+ of table `\w+` must be set in every row, and is null in some")
_CONFLICT = re.compile(r"DELTA_(CONCURRENT_\w+|METADATA_CHANGED|PROTOCOL_CHANGED)")
# Whatever the session's defaults are: readers other than Spark open tables of reader version 1 only.
_PUBLISHED = {"delta.enableDeletionVectors": "false", "delta.columnMapping.mode": "none"}
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # of two letters or more: not a drive
_CATALOGUE_NAME = re.compile(r"[A-Za-z_]\w*\.[A-Za-z_]\w*")


class TableStore:
    """The tables of one gallery.

    base: a folder (`./a.b` where it holds a dot), a URI such as `s3a://bucket/faces`, or
    `catalog.schema`. One writer a table; every write is one commit, whose user metadata is the run id.
    """

    def __init__(self, spark: SparkSession, base: str) -> None:
        self._spark = spark
        self._in_catalogue = bool(_CATALOGUE_NAME.fullmatch(base))
        is_folder = not self._in_catalogue and not _URI.match(base)
        self._folder = Path(base).absolute() if is_folder else None
        self.base = str(self._folder) if self._folder else base.rstrip("/")

    def exists(self, table: Table) -> bool:
        """Tell whether the table has been written."""
        return self._exists(table.name)

    def read(self, table: Table, version: int | None = None, run_id: str | None = None) -> DataFrame:
        """Read a table's newest version, an older one, or the one that a run left behind.

        Raises TableError where there is none, and where another version of the package has written it.
        """
        if not self.exists(table):
            raise TableError(
                f"there is no table `{table.name}` in {self.base}: run `faceclust run` with these tables "
                "first, or correct --tables"
            )
        version = version if run_id is None else self._version_of(table, run_id)
        try:
            rows = self._load(table.name, version)
            missing = missing_columns(table, rows)
        except AnalysisException as error:
            if error.getCondition() != "DELTA_VERSION_NOT_FOUND":
                raise
            newest = self.version(table)
            raise TableError(
                f"table `{table.name}` in {self.base} has no version {version} (any more); newest: {newest}"
            ) from None
        if missing:
            raise TableError(self._outdated(table, missing))
        return rows

    def version(self, table: Table) -> int:
        """Give the table's newest Delta version."""
        log = self._log_here(table.name)
        version = newest_version(log) if log else None
        if version is not None:
            return version
        history = self._spark.sql(f"DESCRIBE HISTORY {self.sql_name(table)} LIMIT 1")
        return int(history.select("version").toArrow()["version"][0].as_py())

    def written(self, table: Table) -> Written | None:
        """Give the table's newest version and the run that its content comes from; None where it is not.

        Maintenance, such as OPTIMIZE, makes versions and leaves the content as it is.
        """
        if not self.exists(table):
            return None
        log = self._log_here(table.name)
        if log:
            return last_written(log)
        commits = self._spark.sql(f"DESCRIBE HISTORY {self.sql_name(table)}")
        labelled = F.when(F.col("userMetadata").isNotNull(), F.col("version"))
        newest = commits.agg(F.max("version"), F.max_by("userMetadata", labelled)).toArrow()
        return Written(*(column[0].as_py() for column in newest.columns))

    def drop(self, table: Table) -> None:
        """Delete a table, if it is there; under a URI, its rows."""
        if self._drop(table.name) and missing_columns(table, self._load(table.name)):
            # Emptied where it cannot be removed: what is merged into it later needs today's columns.
            empty = self._spark.createDataFrame([], table.schema)
            self._save(table.name, empty, "overwrite", "drop", table.published)

    def replace(self, table: Table, rows: DataFrame, run_id: str) -> None:
        """Write rows as the table's whole content, in one commit. Raises TableError for a wrong schema."""
        self._save(table.name, checked(table, rows, run_id), "overwrite", run_id, table.published)

    def create(self, table: Table, rows: DataFrame, run_id: str) -> bool:
        """Write a new table; gives False, and writes nothing, where another writer was first."""
        try:
            self._save(table.name, checked(table, rows, run_id), "error", run_id, table.published)
        except (AnalysisException, TableError):
            if self.exists(table):
                return False
            raise
        return True

    def append(self, table: Table, rows: DataFrame, run_id: str) -> None:
        """Add rows. Raises TableError for a wrong schema."""
        self._save(table.name, checked(table, rows, run_id), "append", run_id, table.published)

    def merge(self, table: Table, rows: DataFrame, run_id: str) -> None:
        """Insert rows with new keys and replace those whose content differs; others stay untouched.

        Merging the same rows twice changes nothing. Raises TableError for a wrong schema.
        """
        fitted = checked(table, rows, run_id)
        if not self.exists(table):
            self._save(table.name, fitted, "overwrite", run_id, table.published)
            return
        missing = missing_columns(table, self._load(table.name))
        if missing:  # MERGE would leave these columns out, and say nothing
            raise TableError(self._outdated(table, missing))
        same_key = " AND ".join(f"kept.{_quote(key)} <=> new.{_quote(key)}" for key in table.keys)
        content = _quote(c.CONTENT_HASH)
        self._merge(
            table,
            fitted,
            f"{same_key} WHEN MATCHED AND NOT kept.{content} <=> new.{content} THEN UPDATE SET * "
            "WHEN NOT MATCHED THEN INSERT *",
            run_id,
        )

    def delete(self, table: Table, keys: DataFrame, run_id: str) -> None:
        """Delete the rows whose keys are those of `keys`, in one commit."""
        same_key = " AND ".join(f"kept.{_quote(key)} = new.{_quote(key)}" for key in table.keys)
        self._merge(table, keys.select(*table.keys), f"{same_key} WHEN MATCHED THEN DELETE", run_id)

    def materialise(self, rows: DataFrame, name: str) -> DataFrame:
        """Write rows to scratch and read them back: cuts the lineage, computes once.

        Frames that were read by the same name before are not to be used again. A Delta table; where all is
        on this machine, files of Parquet: commits took a fifth of the time of 1,000 faces by Spark's tasks.
        Files that other machines write need Delta, which is told their names and does not list them.
        """
        scratch = f"{_SCRATCH}_{name}"
        if not self._is_here():
            self._save(scratch, rows, "overwrite", "scratch")
            return self._load(scratch)
        return replaced_here(rows, Path(self.base) / scratch)

    def clear_scratch(self, *names: str) -> None:
        """Delete what was materialised by these names."""
        for name in names:
            self._drop(f"{_SCRATCH}_{name}")

    def drop_all(self) -> None:
        """Delete every table of the gallery, and nothing else that lives in the same place."""
        for table in ALL_TABLES:
            self.drop(table)
        self.clear_scratch(*INGEST_SCRATCH, *FOREST_SCRATCH, *rounds_scratch(10))

    def sql_name(self, table: Table) -> str:
        """Give the table's name, quoted for a SQL statement."""
        return self._quoted(table.name)

    def _merge(self, table: Table, rows: DataFrame, rule: str, run_id: str) -> None:
        """Merge `new` rows into the `kept` ones by a rule; other galleries may do so in the same session."""
        view = f"faceclust_merge_{secrets.token_hex(8)}"
        rows.createOrReplaceTempView(view)
        try:
            # A statement has no option for the label of its commit.
            with _faults_told(table.name), set_for_now(self._spark, {_USER_METADATA: run_id}):
                self._spark.sql(f"MERGE INTO {self.sql_name(table)} AS kept USING {view} AS new ON {rule}")
        finally:
            self._spark.catalog.dropTempView(view)

    def _is_here(self) -> bool:
        """Tell whether tasks run in this process's JVM, and the gallery lies here, with its lease."""
        master = self._spark.conf.get("spark.master", None) or ""
        return not is_remote() and master.startswith("local") and self._log_here(LEASE.name) is not None

    def _log_here(self, name: str) -> Path | None:
        """Give the log of a table in a folder of this machine, if it is there."""
        return log_of(self._folder / name) if self._folder else None

    def _exists(self, name: str) -> bool:
        if self._log_here(name):
            return True
        if self._log_here(LEASE.name):
            return False  # the gallery's tables are on this machine, where every run leaves a lease
        if self._in_catalogue:
            return bool(self._spark.catalog.tableExists(f"{self.base}.{name}"))
        try:  # a folder that is not on this machine may be where the cluster keeps its files
            return len(self._load(name).columns) > 0
        except AnalysisException:
            return False

    def _load(self, name: str, version: int | None = None) -> DataFrame:
        reader = self._spark.read.format("delta")
        if version is not None:
            reader = reader.option("versionAsOf", version)
        if self._in_catalogue:
            return reader.table(f"{self.base}.{name}")
        return reader.load(f"{self.base}/{name}")

    def _version_of(self, table: Table, run_id: str) -> int:
        commits = self._spark.sql(f"DESCRIBE HISTORY {self.sql_name(table)}")
        of_run = commits.where(F.col("userMetadata") == run_id).agg(F.max("version").alias("newest"))
        version = of_run.toArrow()["newest"][0].as_py()
        if version is None:
            raise TableError(f"run {run_id} has not written table `{table.name}` in {self.base}")
        return int(version)

    def _save(self, name: str, rows: DataFrame, mode: str, run_id: str, published: bool = False) -> None:
        writer = rows.write.format("delta").mode(mode).option("userMetadata", run_id)
        if mode == "overwrite":
            writer = writer.option("overwriteSchema", "true")
        if published:
            writer = writer.options(**_PUBLISHED)
        with _faults_told(name):
            if self._in_catalogue:
                writer.saveAsTable(f"{self.base}.{name}")
            else:
                writer.save(f"{self.base}/{name}")

    def _outdated(self, table: Table, missing: list[str]) -> str:
        remedy = "start a new run, without the --run-id of an earlier one: it writes the table anew"
        if table.keys:
            remedy = (
                "ingest all sources again, elsewhere (--tables) or after --fresh, which deletes the tables"
            )
        return (
            f"table `{table.name}` in {self.base} has no column {', '.join(missing)}: another version of "
            f"faceclust wrote it; {remedy}"
        )

    def _drop(self, name: str) -> bool:
        """Delete a table, and tell whether it is still there, empty."""
        if self._folder and (self._folder / name).is_dir():
            shutil.rmtree(self._folder / name)
        elif not self._exists(name):
            return False
        elif self._in_catalogue:
            self._spark.sql(f"DROP TABLE IF EXISTS {self._quoted(name)}")
        else:
            # Object storage has no portable delete in the DataFrame API: an emptied table stays.
            self._spark.sql(f"DELETE FROM {self._quoted(name)}")
            return True
        return False

    def _quoted(self, name: str) -> str:
        if self._in_catalogue:
            return ".".join(_quote(part) for part in (*self.base.split("."), name))
        return f"delta.{_quote(f'{self.base}/{name}')}"


def _quote(identifier: str) -> str:
    return "`" + identifier.replace("`", "``") + "`"


@contextlib.contextmanager
def _faults_told(name: str) -> Iterator[None]:
    """Turn what Delta says of a write's faults into TableError."""
    try:
        yield
    except PySparkException as error:
        nulls = _NULLS.search(str(error))
        if nulls:
            raise TableError(nulls.group()) from None
        if _CONFLICT.search(str(error)):
            raise TableError(
                f"another writer changed table `{name}` during this write, of which nothing was kept: let "
                "the other end, then start again with the same --run-id"
            ) from None
        raise
