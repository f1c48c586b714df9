"""What a benchmark lets a fresh process do, so that its memory and its first run are its own.

    python tests/benchmarks/child.py REQUEST.json ANSWER.json

Written for common.run_child, not for people. `pipelines` runs sources through the pipeline in one session;
`arrays` clusters a gallery in memory.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from faceclust_spark.config import Config

LARGEST = 10  # root groups whose sizes are told


def run_pipelines(request: dict[str, Any]) -> dict[str, Any]:
    """Start a session, and run each job in it."""
    from faceclust_spark.config import SparkConfig, load_config
    from faceclust_spark.log import configure_logging
    from faceclust_spark.session import get_session

    configure_logging()
    config = load_config(None, request["overrides"])
    if request["processors"]:  # for this process and all that it starts
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: request["processors"]])
    start = time.perf_counter()
    spark = get_session(
        SparkConfig(
            master=request["master"], driver_memory=request["driver_memory"], settings=request["settings"]
        ),
        quick=request["quick"],
    )
    session_seconds = time.perf_counter() - start
    runs = [run_pipeline(spark, source, tables, config) for source, tables in request["jobs"]]
    spark.stop()
    return {"session_seconds": session_seconds, "runs": runs}


def run_pipeline(spark: SparkSession, source: str, tables: str, config: Config) -> dict[str, Any]:
    """Time one run; then read from its tables what it did, which is not timed."""
    from pyspark.sql import functions as F

    from faceclust_spark import pipeline
    from faceclust_spark.tables import columns as c
    from faceclust_spark.tables import schemas
    from faceclust_spark.tables.storage import TableStore

    start = time.perf_counter()
    summary = pipeline.run(spark, source, tables, config)
    seconds = time.perf_counter() - start
    store = TableStore(spark, tables)
    ledger = store.read(schemas.RUNS).where(F.col(c.RUN_ID) == summary.run_id)
    entries = ledger.select(c.STAGE, F.col(c.STARTED_AT).cast("double"), c.SECONDS)
    sizes = store.read(schemas.REFINEMENTS).select(F.size(c.FACE_IDS).alias(c.SIZE))
    largest = sizes.orderBy(F.desc(c.SIZE)).limit(LARGEST).toArrow()[c.SIZE].to_pylist()
    return {
        "faces": store.read(schemas.CLUSTERS).count(),
        "seconds": seconds,
        "stages": dict(summary.seconds),
        "spans": [list(row.values()) for row in entries.toArrow().to_pylist()],
        "largest_groups": largest,
        "quarantined": store.read(schemas.QUARANTINE).count(),
        "tables": tables,
    }


def cluster_arrays(request: dict[str, Any]) -> dict[str, Any]:
    """Load a source, cluster a tiny part of it to compile what is compiled, then time the whole."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    import faceclust_spark

    config = faceclust_spark.load_config(None, request["overrides"])
    table = pq.read_table(request["source"])
    ids, photos = table["image_id"].to_pylist(), table["photo_id"].to_pylist()
    embeddings, attributes = _matrix(table["embedding"]), _matrix(table["attributes"])
    del table
    few = slice(0, request["warm_up"])
    start = time.perf_counter()
    faceclust_spark.cluster(
        embeddings[few], attributes[few], config, image_ids=ids[few], photo_ids=photos[few]
    )
    warm_up = time.perf_counter() - start
    start = time.perf_counter()
    found = faceclust_spark.cluster(embeddings, attributes, config, image_ids=ids, photo_ids=photos)
    seconds = time.perf_counter() - start
    rows = pa.table({"image_id": ids, "cluster_id": np.asarray(found.cluster_ids, object)})
    pq.write_table(rows, request["clusters"])
    return {"seconds": seconds, "warm_up_seconds": warm_up}


def _matrix(column: Any) -> Any:
    """Give a column of lists of equal length as a float32 matrix, NaN where a value is null."""
    import numpy as np

    return np.concatenate(
        [
            chunk.flatten()
            .to_numpy(zero_copy_only=False)
            .astype(np.float32, copy=False)
            .reshape(len(chunk), -1)
            for chunk in column.chunks
            if len(chunk)
        ]
    )


def main() -> None:
    asked, told = map(Path, sys.argv[1:])
    request = json.loads(asked.read_text())
    work = {"pipelines": run_pipelines, "arrays": cluster_arrays}[request["kind"]]
    told.write_text(json.dumps(work(request)))


if __name__ == "__main__":
    main()
