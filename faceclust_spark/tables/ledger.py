"""The ledger: what ran, on which table versions, for how long, and with what result."""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from typing import TYPE_CHECKING, NamedTuple

from pyspark.sql import functions as F

from faceclust_spark.errors import ResumeError
from faceclust_spark.log import still_working
from faceclust_spark.tables import columns as c
from faceclust_spark.tables.schemas import ALL_TABLES, RUNS, Table

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from faceclust_spark.config import Config
    from faceclust_spark.tables.storage import TableStore

log = logging.getLogger(__name__)

FINISHED, FAILED = "finished", "failed"
_PACKAGES = ("faceclust-spark", "pyspark", "delta-spark", "numpy", "torch", "faiss-cpu", "pyarrow")


class Outcome(NamedTuple):
    """What a stage reports of itself."""

    rows: int
    largest_group: int | None = None
    unit: str = "faces"
    details: Mapping[str, int] = {}  # written to the ledger's message as JSON


class Record:
    """Filled in by the stage that a ledger entry is about."""

    outcome = Outcome(0)


class Ledger:
    """The entries of one run. Opening it checks that an earlier start of the same run fits this one.

    To be closed, so that the last entry is written. new: the run id has just been made, and has no entries.
    """

    def __init__(
        self, spark: SparkSession, store: TableStore, config: Config, run_id: str, new: bool = False
    ) -> None:
        self._spark, self._store, self._config, self._run_id = spark, store, config, run_id
        self._packages = _package_versions()
        self._faces: str | None = None  # how many, once a stage has said so
        self.seconds: dict[str, float] = {}
        self._inputs: dict[str, dict[str, int]] = {}
        self._versions: dict[str, int] = {}  # of tables that no stage has written since they were asked for
        self._finished = {} if new else self._earlier()
        # An entry is written while the next stage begins: killed meanwhile, a run does the stage again.
        self._writer = ThreadPoolExecutor(1, "faceclust-ledger")
        self._pending: Future[None] | None = None

    def finished(self, stage: str) -> bool:
        """Tell whether an earlier start of this run has finished the stage."""
        return stage in self._finished

    def details(self, stage: str) -> dict[str, int]:
        """Give the counts that a finished stage has reported."""
        return self._finished.get(stage, {})

    def inputs(self, stage: str) -> dict[str, int]:
        """Give the table versions that a stage read, which an earlier start has finished."""
        return self._inputs.get(stage, {})

    @contextlib.contextmanager
    def stage(
        self, name: str, inputs: tuple[Table, ...] = (), outputs: tuple[Table, ...] = ALL_TABLES
    ) -> Iterator[Record]:
        """Record a stage: seconds, rows and input versions when it ends, the error when it fails."""
        started, clock = datetime.datetime.now(datetime.UTC), time.monotonic()
        asked = self._writer.submit(self._versions_of, inputs, outputs)  # evaluations hold no lease: now
        record = Record()
        try:
            with still_working(name, self._faces):
                yield record
        except BaseException as error:
            took = time.monotonic() - clock
            with contextlib.suppress(Exception):  # the stage's own error is the one to tell
                self._wait()
            with contextlib.suppress(Exception):
                self._write(name, FAILED, started, took, Outcome(0), asked.result(), str(error)[:2000])
            raise
        took, outcome = time.monotonic() - clock, record.outcome
        message = json.dumps(dict(outcome.details)) if outcome.details else None
        self._finished[name], self.seconds[name] = dict(outcome.details), round(took, 2)
        if outcome.unit == "faces":
            self._faces = f"{outcome.rows:,} faces"

        def note() -> None:
            self._write(name, FINISHED, started, took, outcome, asked.result(), message)
            largest = "" if outcome.largest_group is None else f", largest group {outcome.largest_group:,}"
            unit = outcome.unit.removesuffix("s") if outcome.rows == 1 else outcome.unit
            log.info("%-14s %s %s%s, %.1f s", name, f"{outcome.rows:,}", unit, largest, took)

        self._wait()
        self._pending = self._writer.submit(note)

    def close(self) -> None:
        """Wait until the last entry is written. Raises what its write has raised."""
        try:
            self._wait()
        finally:
            self._writer.shutdown()

    def _wait(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _versions_of(self, tables: tuple[Table, ...], written: tuple[Table, ...]) -> dict[str, int]:
        """Give the versions of the tables that are there; asking Delta for one costs a tenth of a second.

        written: what the stage may change, so that a later one asks for it again.
        """
        for table in written:
            self._versions.pop(table.name, None)
        for table in tables:
            if table.name not in self._versions and self._store.exists(table):
                self._versions[table.name] = self._store.version(table)
        return {table.name: self._versions[table.name] for table in tables if table.name in self._versions}

    def _write(
        self,
        stage: str,
        status: str,
        started: datetime.datetime,
        seconds: float,
        outcome: Outcome,
        inputs: dict[str, int],
        message: str | None,
    ) -> None:
        row = {
            c.RUN_ID: self._run_id,
            c.STAGE: stage,
            c.STATUS: status,
            c.STARTED_AT: started,
            c.SECONDS: seconds,
            c.ROWS: outcome.rows,
            c.LARGEST_GROUP: outcome.largest_group,
            c.CONFIG: self._config.model_dump_json(),
            c.CONFIG_HASH: self._config.hash(),
            c.PACKAGES: self._packages,
            c.INPUTS: inputs,
            c.MESSAGE: message,
        }
        rows = self._spark.createDataFrame([tuple(row[name] for name in RUNS.schema.names)], RUNS.schema)
        self._store.append(RUNS, rows, self._run_id)

    def _earlier(self) -> dict[str, dict[str, int]]:
        """Give the finished stages of earlier starts of this run, with their counts."""
        if not self._store.exists(RUNS):
            return {}
        entries = (
            self._store.read(RUNS)
            .where(F.col(c.RUN_ID) == self._run_id)
            .orderBy(c.STARTED_AT)
            .select(c.STAGE, c.STATUS, c.CONFIG, c.CONFIG_HASH, c.INPUTS, c.MESSAGE)
            .toArrow()
            .to_pylist()
        )
        done = [entry for entry in entries if entry[c.STATUS] == FINISHED]
        for entry in done:  # a stage that failed may be tried again with other settings
            self._require_same(entry)
        self._inputs = {entry[c.STAGE]: dict(entry[c.INPUTS]) for entry in done}
        return {entry[c.STAGE]: json.loads(entry[c.MESSAGE] or "{}") for entry in done}

    def _require_same(self, entry: Mapping[str, str]) -> None:
        earlier = json.loads(entry[c.CONFIG])
        differences = []
        if entry[c.CONFIG_HASH] != self._config.hash():
            now = self._config.model_dump(mode="json")
            differences += [
                f"{section}.{key}: {earlier[section][key]!r} then, {value!r} now"
                for section, values in now.items()
                if isinstance(values, dict) and section != "spark"
                for key, value in values.items()
                if key in earlier.get(section, {}) and earlier[section][key] != value
            ] or ["settings that one of the two versions does not know"]
        if earlier.get("source") != self._config.source:
            differences.append(f"source: {earlier.get('source')!r} then, {self._config.source!r} now")
        if differences:
            raise ResumeError(
                f"run {self._run_id} was begun otherwise ({'; '.join(differences)}): continue it with what "
                "it was begun with, or start a new run without --run-id"
            )


def has_finished(store: TableStore, run_id: str, stage: str) -> bool:
    """Tell whether any run has finished a stage."""
    if not store.exists(RUNS):
        return False
    same = (F.col(c.RUN_ID) == run_id) & (F.col(c.STAGE) == stage) & (F.col(c.STATUS) == FINISHED)
    return not store.read(RUNS).where(same).isEmpty()


def config_of(store: TableStore, run_id: str) -> Config | None:
    """Give the config that a run was started with; None where the ledger does not know, or cannot read it."""
    from faceclust_spark.config import Config

    if not store.exists(RUNS):
        return None
    rows = store.read(RUNS).where(F.col(c.RUN_ID) == run_id).select(c.CONFIG).limit(1).toArrow()
    try:
        return Config.model_validate_json(rows[c.CONFIG][0].as_py()) if rows.num_rows else None
    except ValueError:  # another version's keys
        return None


def _package_versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):  # conda's faiss has another name
            found[name] = package_version(name)
    return found
