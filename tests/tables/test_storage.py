"""The table store: one commit a write, schemas held, published tables open to other readers."""

from pathlib import Path
from urllib.parse import unquote

import deltalake
import polars
import pytest
from pyspark.sql import functions as F

from faceclust_spark.errors import TableError
from faceclust_spark.tables import columns as c
from faceclust_spark.tables.lease import Lease
from faceclust_spark.tables.schemas import ALL_TABLES, CLUSTERS, FOREST, LEASE, QUARANTINE, VECTORS
from faceclust_spark.tables.storage import TableStore


def _forest(spark, *edges):
    return spark.createDataFrame(list(edges), "face_a long, face_b long, cosine float")


def _vectors(spark, rows):
    """Rows of face id and content hash; the vector tells which write a row is from."""
    frame = spark.createDataFrame(
        [(f, h, h.encode()) for f, h in rows], "face_id long, content_hash string, v binary"
    )
    empty = F.lit(None).cast("array<float>")
    norm = F.lit(1.0).cast("float").alias(c.NORM)
    return frame.select(
        c.FACE_ID, F.col("v").alias(c.VECTOR), empty.alias(c.ATTRIBUTES), norm, c.CONTENT_HASH
    )


def _rows(frame, *columns):
    return sorted(tuple(row.values()) for row in frame.select(*columns).toArrow().to_pylist())


def _clusters(spark, count=3):
    return spark.range(count).select(
        F.concat(F.lit("image-"), "id").alias(c.IMAGE_ID),
        F.lit("cluster-0").alias(c.CLUSTER_ID),
        F.lit(0.5).cast("float").alias(c.CONFIDENCE),
        F.lit("member").alias(c.STATUS),
        F.col("id").alias(c.FACE_ID),
        F.lit(0).cast("long").alias(c.ROOT_KEY),
        F.lit(0.4).cast("float").alias(c.THRESHOLD),
        F.lit(None).cast("string").alias(c.RUNNER_UP),
        F.lit(None).cast("float").alias(c.MARGIN),
    )


def test_replace_is_one_commit_that_carries_the_run(spark, store):
    assert not store.exists(FOREST)
    for run, edges in (("one", [(1, 2, 0.5)]), ("two", [(3, 4, 0.5), (4, 5, 0.75)]), ("three", [])):
        store.replace(FOREST, _forest(spark, *edges), run)
    assert store.exists(FOREST)
    assert store.version(FOREST) == 2
    assert _rows(store.read(FOREST), c.FACE_A) == []
    assert _rows(store.read(FOREST, version=0), c.FACE_A, c.RUN_ID) == [(1, "one")]
    assert _rows(store.read(FOREST, run_id="two"), c.FACE_A, c.RUN_ID) == [(3, "two"), (4, "two")]


def test_who_wrote_a_table_is_known_whatever_maintenance_has_done_since(spark, store):
    assert store.written(VECTORS) is None
    store.merge(VECTORS, _vectors(spark, [(1, "a")]), "one")
    store.merge(VECTORS, _vectors(spark, [(2, "a")]), "two")
    assert store.written(VECTORS) == (1, "two")
    spark.sql(f"OPTIMIZE {store.sql_name(VECTORS)}")
    assert store.written(VECTORS) == (2, "two")


def test_what_is_not_there_is_told_with_the_place(spark, store):
    with pytest.raises(TableError, match=f"no table `forest` in {store.base}: run `faceclust run`"):
        store.read(FOREST)
    store.replace(FOREST, _forest(spark, (1, 2, 0.5)), "one")
    with pytest.raises(TableError, match=r"no version 7 .*newest: 0"):
        store.read(FOREST, version=7)
    with pytest.raises(TableError, match="run two has not written table `forest`"):
        store.read(FOREST, run_id="two")


def test_a_table_of_another_version_is_told_with_a_remedy(spark, store):
    rows = spark.sql("SELECT 1L AS face_a, 2L AS face_b")
    rows.write.format("delta").save(f"{store.base}/forest")
    with pytest.raises(TableError) as raised:
        store.read(FOREST)
    assert str(raised.value).startswith(f"table `forest` in {store.base} has no column cosine, run_id: ")
    assert "start a new run, without the --run-id" in str(raised.value)
    store.replace(FOREST, _forest(spark, (1, 2, 0.5)), "one")
    assert store.read(FOREST).count() == 1


@pytest.mark.parametrize("as_uri", [False, True])
def test_faces_of_another_version_are_ingested_again_and_not_merged_into(spark, tmp_path, as_uri):
    base = tmp_path / "tables"
    store = TableStore(spark, base.as_uri() if as_uri else str(base))
    rows = _vectors(spark, [(1, "a")])
    rows.drop("norm").withColumn("run_id", F.lit("old")).write.format("delta").save(str(base / "vectors"))
    for attempt in (lambda: store.read(VECTORS), lambda: store.merge(VECTORS, rows, "new")):
        with pytest.raises(TableError, match=r"has no column norm: .* ingest all sources again.* --fresh"):
            attempt()
    store.drop_all()
    store.merge(VECTORS, rows, "new")
    assert store.read(VECTORS).select("norm", "run_id").toArrow()["run_id"].to_pylist() == ["new"]


def test_all_faults_of_a_schema_are_told_at_once(spark, store):
    rows = spark.sql("SELECT 1L AS face_a, 0.5D AS cosine, 1 AS weight")
    with pytest.raises(TableError) as raised:
        store.replace(FOREST, rows, "one")
    faults = ("face_b is missing", "weight is unknown", "cosine is double, not float")
    assert all(f"column {fault}" in str(raised.value) for fault in faults)
    assert not store.exists(FOREST)


@pytest.mark.parametrize("write", ["replace", "append", "merge"])
def test_a_null_in_a_required_column_stops_the_write(spark, store, write):
    store.replace(VECTORS, _vectors(spark, [(1, "a")]), "one")
    rows = _vectors(spark, [(2, "b"), (3, "c")]).withColumn(c.VECTOR, F.expr("nullif(vector, X'63')"))
    with pytest.raises(
        TableError, match=r"^column vector of table `vectors` must be set in every row, .* some$"
    ):
        getattr(store, write)(VECTORS, rows, "two")
    assert _rows(store.read(VECTORS), c.FACE_ID) == [(1,)]


def test_merge_touches_only_rows_whose_content_differs(spark, store):
    store.merge(VECTORS, _vectors(spark, [(1, "a"), (2, "b")]), "one")
    changes = _vectors(spark, [(2, "B"), (3, "c"), (1, "a")])
    expected = [(1, b"a", "one"), (2, b"B", "two"), (3, b"c", "two")]
    for run in ("two", "three"):
        store.merge(VECTORS, changes, run)
        assert _rows(store.read(VECTORS), c.FACE_ID, c.VECTOR, c.RUN_ID) == expected
    assert _rows(store.read(VECTORS, run_id="two"), c.FACE_ID) == [(1,), (2,), (3,)]
    assert _rows(store.read(VECTORS, run_id="one"), c.FACE_ID) == [(1,), (2,)]


def test_append_adds_rows(spark, store):
    for run in ("one", "two"):
        store.append(FOREST, _forest(spark, (1, 2, 0.5)), run)
    assert _rows(store.read(FOREST), c.FACE_A, c.RUN_ID) == [(1, "one"), (1, "two")]


def test_only_the_first_creates_a_table(spark, store):
    assert store.create(FOREST, _forest(spark, (1, 2, 0.5)), "one")
    assert not store.create(FOREST, _forest(spark, (3, 4, 0.5)), "two")
    assert _rows(store.read(FOREST), c.FACE_A) == [(1,)]


def test_published_tables_open_without_spark_whatever_the_defaults(spark, store):
    default = "spark.databricks.delta.properties.defaults.enableDeletionVectors"
    spark.conf.set(default, "true")
    try:
        store.replace(CLUSTERS, _clusters(spark), "one")
        store.replace(CLUSTERS, _clusters(spark, 5), "two")
        store.replace(FOREST, _forest(spark, (1, 2, 0.5)), "one")
    finally:
        spark.conf.unset(default)
    path = f"{store.base}/clusters"
    table = deltalake.DeltaTable(path)
    assert table.protocol().min_reader_version == 1
    assert deltalake.DeltaTable(f"{store.base}/forest").protocol().min_reader_version == 3  # the default held
    assert table.to_pyarrow_table().column_names == CLUSTERS.schema.names
    read = polars.read_delta(path)
    assert sorted(read[c.IMAGE_ID]) == [f"image-{row}" for row in range(5)]
    assert set(read[c.RUN_ID]) == {"two"}


@pytest.mark.parametrize("folder", ["tables", "a[1] {b"])
@pytest.mark.parametrize("leased", [True, False], ids=["all on this machine", "elsewhere"])
def test_materialised_rows_lose_their_lineage_and_go_when_told(spark, tmp_path, leased, folder):
    store = TableStore(spark, str(tmp_path / folder))
    if leased:
        with Lease(spark, store, "one"):
            pass
    kept = len(_folders(store)) if leased else 0
    rows = store.materialise(spark.range(3).withColumn("noise", F.rand()), "work")
    before = _rows(rows, "id", "noise")
    assert before == _rows(rows, "id", "noise")
    assert [file for file in rows.inputFiles() if store.base not in unquote(file)] == []
    again = store.materialise(rows.withColumn("id", F.col("id") + 5), "work")  # reads what it replaces
    assert [(row - 5, noise) for row, noise in _rows(again, "id", "noise")] == before
    assert store.materialise(again.where("id < 5"), "work").count() == 0
    if leased:
        assert len(list(Path(store.base, "_scratch_work").iterdir())) == 1  # what was replaced is gone
    assert (deltalake.DeltaTable.is_deltatable(f"{store.base}/_scratch_work")) is not leased
    store.clear_scratch("work", "never-written")
    assert len(_folders(store)) == kept


def _folders(store):
    return [path for path in Path(store.base).iterdir() if path.is_dir()]


def test_deleting_the_gallery_spares_what_is_not_its_own(spark, store, tmp_path):
    store.replace(FOREST, _forest(spark, (1, 2, 0.5)), "one")
    other = tmp_path / "tables" / "holiday"
    other.mkdir()
    (other / "photo.jpg").touch()
    store.drop_all()
    assert not store.exists(FOREST)
    assert (other / "photo.jpg").exists()
    assert LEASE not in ALL_TABLES


def test_names_are_quoted(spark, tmp_path):
    store = TableStore(spark, str(tmp_path / "it's `odd`; DROP TABLE x"))
    for run in ("one", "two"):
        store.merge(VECTORS, _vectors(spark, [(1, run)]), run)
    assert store.version(VECTORS) == 1
    assert _rows(store.read(VECTORS), c.VECTOR) == [(b"two",)]


def test_tables_live_in_a_catalogue_too(spark, tmp_path):
    # Sessions of one user share a warehouse, where a run that was killed leaves its tables.
    spark.sql(f"CREATE SCHEMA store_test LOCATION '{tmp_path / 'schema'}'")
    try:
        store = TableStore(spark, "spark_catalog.store_test")
        store.replace(CLUSTERS, _clusters(spark), "one")
        store.merge(VECTORS, _vectors(spark, [(1, "a")]), "one")
        store.merge(VECTORS, _vectors(spark, [(1, "b")]), "two")
        assert (store.version(CLUSTERS), store.version(VECTORS)) == (0, 1)
        assert _rows(store.read(VECTORS, run_id="one"), c.VECTOR) == [(b"a",)]
        assert not store.exists(QUARANTINE)
        store.drop_all()
        assert not store.exists(CLUSTERS)
    finally:
        spark.sql("DROP SCHEMA store_test CASCADE")


def test_beside_a_lease_in_the_folder_nobody_is_asked_for_a_table(spark, store, monkeypatch):
    assert not store.exists(FOREST)
    with Lease(spark, store, "one"):
        monkeypatch.setattr(TableStore, "_load", None)
        assert store.exists(LEASE)
        assert not store.exists(FOREST)
