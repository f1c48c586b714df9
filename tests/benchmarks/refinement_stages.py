"""The Spark side of refinement.py: two stages, and what in them is not kernels."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from common import EVENT_LOG, Span, Work, matrix_to_arrow, read_events

from faceclust_spark.arrow import vectors_to_arrow
from faceclust_spark.config import Config, SparkConfig
from faceclust_spark.kernels.model import Model, model_bytes, model_from_bytes
from faceclust_spark.kernels.nearest import Scale
from faceclust_spark.kernels.refine import Group
from faceclust_spark.tables import columns as c
from faceclust_spark.tables import schemas

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from faceclust_spark.tables.storage import TableStore

FEW = 50  # groups of the first run, which starts the workers and compiles


TableRows = tuple[schemas.Table, dict[str, Any]]


class Refining(NamedTuple):
    """What the stages refine with."""

    model: bytes
    config: Config
    scale: Scale


def run_stages(
    groups: Sequence[Group], thresholds: np.ndarray, model: Model, config: Config, scale: Scale, cores: int
) -> dict[str, dict[str, float]]:
    """Take groups through the two stages on `local[cores]`, from Delta to Delta; gives a row a stage."""
    from faceclust_spark.session import get_session
    from faceclust_spark.tables.storage import TableStore

    refining = Refining(model_bytes(model), config, scale)
    with tempfile.TemporaryDirectory(prefix="faceclust-refinement-") as name:
        folder = Path(name)
        (folder / "events").mkdir()
        settings = {**EVENT_LOG, "spark.eventLog.dir": f"file:{folder}/events"}
        spark = get_session(SparkConfig(master=f"local[{cores}]", settings=settings))
        store = TableStore(spark, str(folder / "tables"))
        for what, some in (("first", groups[:FEW]), ("timed", groups)):
            (folder / what).mkdir()
            write_tables(store, spark, tables_of(some, thresholds), folder / what)
            spans = time_stages(store, refining, folder / what)
        spark.stop()
        (log,) = (folder / "events").iterdir()
        with log.open(encoding="utf-8") as lines:
            work = read_events(lines, spans)
        return {
            span.stage: transfer_row(span, work[span.stage], kernel_seconds(folder / "timed" / span.stage))
            for span in spans
        }


def transfer_row(span: Span, work: Work, kernels: float) -> dict[str, float]:
    """Divide the tasks' time of a Spark stage into its kernels and all else."""
    return {
        "seconds": span.seconds,
        "task_seconds": work.task_seconds,
        "kernels_seconds": kernels,
        "transfer_seconds": work.task_seconds - kernels,
        "transfer_share": (work.task_seconds - kernels) / work.task_seconds,
        "shuffle_bytes": work.shuffle_write_bytes,
    }


def time_stages(store: TableStore, refining: Refining, folder: Path) -> list[Span]:
    """Run the two stages on stored groups; the workers leave the seconds of their kernels in a folder."""
    from faceclust_spark.stages import clusters, confidences
    from faceclust_spark.stages.root_groups import root_groups

    config = refining.config
    coarse, vectors, faces = (
        store.read(table) for table in (schemas.COARSE_GROUPS, schemas.VECTORS, schemas.FACES)
    )
    with _timed_in_workers(confidences, "refine_groups", folder / schemas.REFINEMENTS.name):
        refined = confidences.refinements(
            root_groups(coarse, vectors, config.confidences),
            refining.model,
            config.confidences,
            config.similarities,
            refining.scale,
        )
        first = _timed_write(store, schemas.REFINEMENTS, refined)
    # The stage's own function around the kernel: what it calls is looked up in the workers' own module.
    with _timed_in_workers(clusters, "_assigned", folder / schemas.CLUSTERS.name):
        calibration = model_from_bytes(refining.model).calibration
        everyone = clusters.placed(store.read(schemas.REFINEMENTS), faces, config.clusters, calibration)
        found = clusters.clusters(everyone, faces)
        second = _timed_write(store, schemas.CLUSTERS, found)
    return [first, second]


def tables_of(groups: Sequence[Group], thresholds: np.ndarray) -> list[TableRows]:
    """Give the groups as rows of the tables that the stages read."""
    ids = np.concatenate([group.face_ids for group in groups])
    keys = np.concatenate([group.keys for group in groups], axis=1)
    attributes = np.concatenate([group.attributes for group in groups])
    coarse = {
        c.THRESHOLD: np.repeat(thresholds, len(ids)),
        c.GROUP_KEY: keys.ravel(),
        c.ROOT_KEY: np.tile(keys[0], len(keys)),
        c.FACE_ID: np.tile(ids, len(keys)),
        c.LEVEL: np.repeat(thresholds, len(ids)),
    }
    vectors = {
        c.FACE_ID: ids,
        c.VECTOR: vectors_to_arrow(np.concatenate([group.vectors for group in groups])),
        c.ATTRIBUTES: matrix_to_arrow(attributes),
        c.NORM: np.concatenate([group.norms for group in groups]),
    }
    faces = {c.FACE_ID: ids, c.IMAGE_ID: [f"image-{face}" for face in ids]}
    return [(schemas.COARSE_GROUPS, coarse), (schemas.VECTORS, vectors), (schemas.FACES, faces)]


def write_tables(store: TableStore, spark: SparkSession, tables: Sequence[TableRows], folder: Path) -> None:
    """Write rows into Delta tables by way of Parquet: Spark takes large tables from files only."""
    for table, rows in tables:
        path = folder / f"{table.name}.parquet"
        pq.write_table(_arrow(rows, table), path, row_group_size=20_000)
        store.replace(table, spark.read.parquet(str(path)), "benchmark")


def _arrow(rows: Mapping[str, Any], table: schemas.Table) -> pa.Table:
    """Give rows as the table's Arrow schema has them: nulls or empty text in columns that are not given."""
    from faceclust_spark.stages.output import arrow_output

    count = len(rows[c.FACE_ID])
    columns = [
        rows[field.name]
        if field.name in rows
        else pa.nulls(count, field.type)
        if field.nullable
        else pa.repeat(pa.scalar("", field.type), count)
        for field in arrow_output(table)
    ]
    return pa.table(columns, schema=arrow_output(table))


def _timed_write(store: TableStore, table: schemas.Table, rows: Any) -> Span:
    started, start = time.time(), time.perf_counter()
    store.replace(table, rows, "benchmark")
    return Span(table.name, started, time.perf_counter() - start)


@contextlib.contextmanager
def _timed_in_workers(stage: Any, function: str, folder: Path) -> Iterator[None]:
    """Let the UDFs that are made inside leave the seconds of each call of a function in a folder."""
    folder.mkdir()
    work = getattr(stage, function)

    def leave_seconds(*args: Any) -> Any:
        start = time.perf_counter()
        result = work(*args)
        with (folder / f"{os.getpid()}.txt").open("a") as file:
            file.write(f"{time.perf_counter() - start}\n")
        return result

    setattr(stage, function, leave_seconds)
    try:
        yield
    finally:
        setattr(stage, function, work)


def kernel_seconds(folder: Path) -> float:
    return sum(float(line) for path in folder.iterdir() for line in path.read_text().split())
