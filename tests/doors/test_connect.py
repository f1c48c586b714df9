"""Session, tables and Arrow functions on Spark Connect: in a process of its own, with a quiet screen."""

import os
import subprocess
import sys

CODE = """
import sys
import numpy as np
from pyspark.sql import functions as F
from faceclust_spark.arrow import vectors_from_arrow, vectors_to_arrow
from faceclust_spark.config import SparkConfig
from faceclust_spark.errors import LeaseHeldError, TableError
from faceclust_spark.session import get_session
from faceclust_spark.tables.lease import Lease
from faceclust_spark.tables.schemas import VECTORS
from faceclust_spark.tables.storage import TableStore

def doubled(batches):
    import pyarrow as pa
    for batch in batches:
        vectors = vectors_to_arrow(vectors_from_arrow(batch["vector"]) * np.int16(2))
        yield pa.RecordBatch.from_arrays([batch["face_id"], vectors], ["face_id", "vector"])

spark = get_session(SparkConfig(driver_memory="1g"))
assert "connect" in type(spark).__module__, type(spark)
assert get_session() is spark
store = TableStore(spark, sys.argv[1])
rows = spark.sql("SELECT id AS face_id, X'01000200' AS vector, CAST(NULL AS ARRAY<FLOAT>) AS attributes, "
                 "CAST(1.5 AS FLOAT) AS norm, 'hash' AS content_hash FROM range(5)")
with Lease(spark, store, "one") as lease:
    store.merge(VECTORS, rows, "one")
    store.merge(VECTORS, rows.withColumn("content_hash", F.lit("other")), "two")
    lease.confirm()
    try:
        Lease(spark, store, "two").__enter__()
        sys.exit("let in twice")
    except LeaseHeldError:
        pass
assert store.read(VECTORS, run_id="one").count() == 5
assert {row["run_id"] for row in store.read(VECTORS).toArrow().to_pylist()} == {"two"}
mapped = store.read(VECTORS).mapInArrow(doubled, "face_id long, vector binary").toArrow()
assert vectors_from_arrow(mapped["vector"]).tolist() == [[2, 4]] * 5
try:
    store.replace(VECTORS, rows.withColumn("vector", F.lit(None).cast("binary")), "three")
    sys.exit("nulls let in")
except TableError:
    pass
spark.stop()
"""


def test_tables_and_arrow_functions_work_on_spark_connect(tmp_path):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SPARK_")}
    ended = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path / "tables")],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=environment | {"SPARK_REMOTE": "local[2]"},
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tables"]
