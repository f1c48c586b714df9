"""The order of the stages, and how a run resumes.

    source -> faces, vectors, quarantine -> thresholds -> cells -> neighbours -> forest, coarse_groups
           -> similarities (on request), refinements, confidences -> rounds, clusters, cluster_summary

Every stage replaces its tables in one commit each (ingest merges) and is recorded in `runs`. A run that was
cut short and is started again with the same id goes on after the last stage whose work still stands.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from faceclust_spark.config import Config
from faceclust_spark.interrupts import cancelling_on_interrupt, raising_on_interrupt
from faceclust_spark.report import RunSummary, summarise_run
from faceclust_spark.running import steps
from faceclust_spark.running.mending import mend_vectors
from faceclust_spark.running.run_state import Run, load_model_of
from faceclust_spark.stages.sources import read_source
from faceclust_spark.tables import schemas
from faceclust_spark.tables.lease import Lease
from faceclust_spark.tables.ledger import Ledger, Outcome
from faceclust_spark.tables.storage import TableStore

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from faceclust_spark.tables.delta_log import Written
    from faceclust_spark.tables.schemas import Table

log = logging.getLogger(__name__)


class Stage(NamedTuple):
    """A step of the pipeline: its name in the ledger, the tables it reads and replaces, what it does."""

    name: str
    reads: tuple[Table, ...]
    replaces: tuple[Table, ...]
    work: Callable[[Run], Outcome]


def run(
    spark: SparkSession,
    source: str,
    tables: str,
    config: Config | None = None,
    *,
    run_id: str | None = None,
    fresh: bool = False,
) -> RunSummary:
    """Cluster a gallery: from a source of embeddings to Delta tables.

    On tables that hold a gallery already, the source's faces are added, or replace those of the same
    image_id, and the whole gallery is clustered anew. Labels are carried along and never looked at.

    source: Parquet, Delta or numpy folder as path or URI, or a catalogue table. tables: folder, URI or
    `catalog.schema`. run_id: that of a run that was cut short resumes it. fresh: delete the tables first.

    Raises ConfigError, DataError (QuarantineError, ModelMismatchError) and InfrastructureError
    (LeaseHeldError, ResumeError, TableError).
    """
    config = config or Config()
    kept = (stage for stage in STAGES if config.similarities.keep or stage.name != "similarities")
    return _run(spark, source, tables, config, tuple(kept), run_id, fresh)


def ingest(
    spark: SparkSession, source: str, tables: str, config: Config | None = None, *, run_id: str | None = None
) -> RunSummary:
    """Check a source and merge its faces into the tables, without clustering. Arguments as `run`."""
    return _run(spark, source, tables, config or Config(), STAGES[:1], run_id, False)


def new_run_id() -> str:
    """Give a run id that sorts by time."""
    return f"{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def _run(
    spark: SparkSession,
    source: str,
    tables: str,
    config: Config,
    stages: tuple[Stage, ...],
    run_id: str | None,
    fresh: bool,
) -> RunSummary:
    config = config.model_copy(update={"source": source, "tables": tables})
    new, run_id = run_id is None, run_id or new_run_id()
    store = TableStore(spark, tables)
    with ThreadPoolExecutor(1) as pool:
        # A source that cannot be read costs no tables, and makes none.
        first = fresh or not store.exists(schemas.RUNS)
        looked = pool.submit(read_source, spark, source, config.ingest) if first else None
        if len(stages) > 1:
            load_model_of(config)  # a model that is not there is found out before the work, not after it
        if looked:
            looked.result()
    log.info("run %s: %s into %s", run_id, source, store.base)
    with raising_on_interrupt(), Lease(spark, store, run_id) as lease:
        if fresh:
            store.drop_all()
        this = Run(spark, store, lease, config, run_id, source)
        with contextlib.closing(Ledger(spark, store, config, run_id, new)) as ledger:
            mend_vectors(this)
            standing = _Standing(this, ledger, stages)
            for stage in stages:
                if standing.holds(stage):
                    log.info("%-14s done before", stage.name)
                    continue
                standing.forget(stage)
                outputs = stage.replaces or schemas.ALL_TABLES
                recorded = ledger.stage(stage.name, stage.reads, outputs)
                with recorded as record, cancelling_on_interrupt(spark):
                    record.outcome = stage.work(this)
        details = {stage.name: ledger.details(stage.name) for stage in stages}
        return summarise_run(run_id, store.base, details, ledger.seconds)


class _Standing:
    """Which stages an earlier start of this run has done, and nobody has changed since.

    Another run may have come in between: then what a stage read has another version, or what it wrote is
    another run's. All tables are asked at once, and once only: to ask Delta takes longer than to answer.
    """

    def __init__(self, run: Run, ledger: Ledger, stages: tuple[Stage, ...]) -> None:
        self._run, self._ledger = run, ledger
        done = [stage for stage in stages if ledger.finished(stage.name) and stage.replaces]
        asked = {table.name: table for stage in done for table in (*stage.reads, *stage.replaces)}
        with ThreadPoolExecutor(4) as pool:
            self._written = dict(zip(asked, pool.map(run.store.written, asked.values()), strict=True))

    def holds(self, stage: Stage) -> bool:
        """Tell whether the stage need not be done again."""
        if not self._ledger.finished(stage.name):
            return False
        read = self._ledger.inputs(stage.name)
        found = [self._of(table) for table in stage.reads]
        versions = [written.version if written else -1 for written in found]
        own = [self._of(table) for table in stage.replaces]
        return versions == [read.get(table.name) for table in stage.reads] and all(
            written and written.run_id == self._run.run_id for written in own
        )

    def forget(self, stage: Stage) -> None:
        """Ask again for the tables of a stage that is about to be done."""
        for table in stage.replaces or schemas.ALL_TABLES:
            self._written.pop(table.name, None)

    def _of(self, table: Table) -> Written | None:
        if table.name not in self._written:
            self._written[table.name] = self._run.store.written(table)
        return self._written[table.name]


STAGES = (
    Stage("ingest", (), (), steps.write_ingest),
    Stage("thresholds", (schemas.FACES, schemas.VECTORS), (schemas.THRESHOLDS,), steps.write_thresholds),
    Stage("cells", (schemas.FACES, schemas.VECTORS), (schemas.CELLS,), steps.write_cells),
    Stage(
        "neighbours",
        (schemas.VECTORS, schemas.CELLS, schemas.THRESHOLDS),
        (schemas.NEIGHBOURS,),
        steps.write_neighbours,
    ),
    Stage(
        "coarse_groups",
        (schemas.VECTORS, schemas.NEIGHBOURS, schemas.THRESHOLDS),
        (schemas.FOREST, schemas.COARSE_GROUPS),
        steps.write_coarse_groups,
    ),
    Stage(
        "similarities",
        (schemas.VECTORS, schemas.COARSE_GROUPS),
        (schemas.SIMILARITIES,),
        steps.write_similarities,
    ),
    Stage(
        "confidences",
        (schemas.VECTORS, schemas.COARSE_GROUPS, schemas.THRESHOLDS),
        (schemas.REFINEMENTS, schemas.CONFIDENCES),
        steps.write_confidences,
    ),
    Stage(
        "clusters",
        (schemas.FACES, schemas.VECTORS, schemas.THRESHOLDS, schemas.NEIGHBOURS, schemas.REFINEMENTS),
        (schemas.ROUNDS, schemas.CLUSTERS, schemas.CLUSTER_SUMMARY),
        steps.write_clusters,
    ),
)
