"""A table's log read without Spark, beside what Delta itself tells of it."""

import pytest

from faceclust_spark.tables.delta_log import Written, last_written, log_of, newest_version
from faceclust_spark.tables.schemas import LEASE, VECTORS
from faceclust_spark.tables.storage import TableStore


@pytest.fixture
def asked(spark, store):
    """The same tables under a URI, of which Delta is asked."""
    return TableStore(spark, f"file://{store.base}")


def rows(spark, *ids):
    fields = [name for name in VECTORS.schema.names if name != "run_id"]
    kept = "face_id bigint, vector binary, attributes array<float>, norm float, content_hash string"
    return spark.createDataFrame([(number, b"12", None, 1.5, f"h{number}") for number in ids], kept).select(
        *fields
    )


def test_the_log_tells_what_delta_tells(spark, store, asked):
    assert log_of(store._folder / VECTORS.name) is None
    assert store.written(VECTORS) == asked.written(VECTORS) is None
    path = store._folder / VECTORS.name
    changes = [
        lambda: store.merge(VECTORS, rows(spark, 1, 2), "one"),
        lambda: store.merge(VECTORS, rows(spark, 2, 3), "two"),
        lambda: spark.sql(f"OPTIMIZE delta.`{path}`"),  # has no label
        lambda: store.replace(VECTORS, rows(spark, 4), "three"),
        lambda: store.delete(VECTORS, rows(spark, 4), "four"),
        lambda: spark.sql(f"ALTER TABLE delta.`{path}` SET TBLPROPERTIES ('delta.checkpointInterval' = '1')"),
        lambda: store.replace(VECTORS, rows(spark, 5), "five"),
    ]
    for change in changes:
        change()
        assert store.version(VECTORS) == asked.version(VECTORS)
        assert store.written(VECTORS) == asked.written(VECTORS)
    assert any("checkpoint" in entry.name for entry in log_of(path).iterdir())
    assert store.written(VECTORS).run_id == "five"


def test_a_table_whose_first_commit_is_being_written_has_no_version(store):
    (store._folder / LEASE.name / "_delta_log").mkdir(parents=True)
    log = log_of(store._folder / LEASE.name)
    assert newest_version(log) is None
    assert last_written(log) is None


def test_labels_of_old_commits_may_have_been_cleaned_away(tmp_path):
    (tmp_path / f"{7:020}.checkpoint.parquet").touch()
    (tmp_path / f"{8:020}.json").write_text('{"commitInfo":{"operation":"OPTIMIZE"}}\n{"add":{}}\n')
    (tmp_path / f"{8:020}.crc").touch()
    assert last_written(tmp_path) == Written(8, None)
    (tmp_path / f"{6:020}.json").write_text('{"commitInfo":{"userMetadata":"one"}}\n')
    assert last_written(tmp_path) == Written(8, "one")
