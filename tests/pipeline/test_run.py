"""From a source to clusters in Delta tables, in one call."""

import json

import deltalake
import numpy as np
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from galleries import CONFIG, cluster_rows, rows_of, write_gallery
from pyspark.sql import functions as F

import faceclust_spark
from faceclust_spark.config import Config, load_config
from faceclust_spark.errors import ConfigError, DataError, QuarantineError, ResumeError
from faceclust_spark.kernels.synth import draw_gallery
from faceclust_spark.tables import columns as c
from faceclust_spark.tables import schemas
from faceclust_spark.tables.storage import TableStore
from faceclust_spark.verbs import demo

RUN = "first"
KEPT = load_config(
    None,
    ["similarities.keep=true", "neighbours.audit=50", "spark.driver_faces=0"],
    CONFIG.model_dump(exclude_unset=True),
)


@pytest.fixture(scope="module")
def drawn():
    return draw_gallery(CONFIG.synth)


@pytest.fixture(scope="module")
def finished(shared_session, drawn, tmp_path_factory):
    """One whole run: its summary and its tables."""
    folder = tmp_path_factory.mktemp("run")
    source = write_gallery(drawn, folder / "gallery.parquet")
    summary = faceclust_spark.run(shared_session, source, str(folder / "tables"), KEPT, run_id=RUN)
    return summary, TableStore(shared_session, str(folder / "tables")), folder


def test_every_face_ends_in_one_cluster(finished, drawn):
    summary, store, _ = finished
    rows = store.read(schemas.CLUSTERS).toArrow().to_pylist()
    assert sorted(row[c.IMAGE_ID] for row in rows) == sorted(drawn.image_ids)
    sizes = {}
    for row in rows:
        sizes[row[c.CLUSTER_ID]] = sizes.get(row[c.CLUSTER_ID], 0) + 1
        assert 0.0 <= row[c.CONFIDENCE] <= 1.0
    for row in rows:
        assert (row[c.STATUS] == "member") == (sizes[row[c.CLUSTER_ID]] > 1)
    assert summary.faces == len(rows)
    assert summary.clusters == len(sizes)
    assert summary.singletons == sum(size == 1 for size in sizes.values())
    described = store.read(schemas.CLUSTER_SUMMARY).toArrow().to_pylist()
    assert {row[c.CLUSTER_ID]: row[c.SIZE] for row in described} == sizes


def test_the_clusters_are_those_of_the_call_without_spark(finished, drawn):
    _, store, _ = finished
    alone = faceclust_spark.cluster(
        drawn.embeddings, drawn.attributes, KEPT, image_ids=drawn.image_ids, photo_ids=drawn.photo_ids
    )
    assert cluster_rows(store) == rows_of(drawn.image_ids, alone)
    coarse = store.read(schemas.COARSE_GROUPS).toArrow().to_pylist()
    by_threshold = {}
    for row in coarse:
        by_threshold.setdefault(row[c.THRESHOLD], {})[row[c.FACE_ID]] = row[c.GROUP_KEY]
    assert tuple(sorted(by_threshold)) == alone.thresholds.groups
    faces = {r[c.IMAGE_ID]: r[c.FACE_ID] for r in store.read(schemas.FACES).toArrow().to_pylist()}
    for threshold, keys in zip(alone.thresholds.groups, alone.group_keys, strict=True):
        of_image = dict(zip(drawn.image_ids, keys.tolist(), strict=True))
        assert {image: by_threshold[threshold][faces[image]] for image in of_image} == of_image


def test_the_clusters_resemble_the_people(finished, drawn):
    rows = faceclust_spark.evaluate(finished[0].tables and finished[1]._spark, finished[0].tables, KEPT)
    (overall,) = rows
    assert overall["faces"] == len(drawn.labels)
    assert overall["identities"] == len(set(drawn.labels))
    assert overall["bcubed_f"] > 0.75
    assert {row[c.RUN_ID] for row in finished[1].read(schemas.EVALUATION).toArrow().to_pylist()} == {RUN}


def test_every_table_fulfils_its_schema_and_names_its_run(finished):
    _, store, _ = finished
    for table in schemas.ALL_TABLES:
        if table is schemas.EVALUATION:
            continue
        rows = store.read(table)
        wanted = [(f.name, f.dataType.simpleString()) for f in table.schema]
        assert [(f.name, f.dataType.simpleString()) for f in rows.schema] == wanted, table.name
        if table is not schemas.QUARANTINE:
            runs = rows.where(~F.col(c.RUN_ID).startswith("evaluate-")).select(c.RUN_ID).distinct().toArrow()
            assert runs[c.RUN_ID].to_pylist() == [RUN], table.name


def test_the_ledger_tells_what_ran(finished):
    summary, store, folder = finished
    own = store.read(schemas.RUNS).where(F.col(c.RUN_ID) == RUN).orderBy(c.STARTED_AT)
    rows = own.toArrow().to_pylist()
    names = [
        "ingest",
        "thresholds",
        "cells",
        "neighbours",
        "coarse_groups",
        "similarities",
        "confidences",
        "clusters",
    ]
    assert [row[c.STAGE] for row in rows] == names == list(summary.seconds)
    assert {row[c.STATUS] for row in rows} == {"finished"}
    config = json.loads(rows[0][c.CONFIG])
    assert config["source"] == str(folder / "gallery.parquet")
    packages = dict(rows[0][c.PACKAGES])
    assert {"pyspark", "torch", "faiss-cpu", "delta-spark"} <= set(packages)
    by_stage = {row[c.STAGE]: row for row in rows}
    assert set(dict(by_stage["neighbours"][c.INPUTS])) == {"vectors", "cells", "thresholds"}
    assert by_stage["clusters"][c.ROWS] == summary.faces
    sizes = store.read(schemas.COARSE_GROUPS).groupBy(c.THRESHOLD, c.GROUP_KEY).count()
    largest = sizes.agg(F.max("count").alias("most")).toArrow()["most"][0].as_py()
    assert by_stage["coarse_groups"][c.LARGEST_GROUP] == largest
    assert summary.recall["edge_recall"] == 1.0  # one cell: exact
    assert 0 < summary.recall["recall_at_k"] < 1  # what lies below the floor is not kept


def test_other_readers_open_the_published_tables(finished):
    summary, store, folder = finished
    faceclust_spark.evaluate(store._spark, summary.tables, KEPT)
    for table in (t for t in schemas.ALL_TABLES if t.published):
        opened = deltalake.DeltaTable(str(folder / "tables" / table.name))
        assert opened.protocol().min_reader_version == 1, table.name
        assert opened.to_pyarrow_table().num_rows == store.read(table).count()
    by_polars = polars.read_delta(str(folder / "tables" / "clusters"))
    assert by_polars.height == summary.faces
    assert by_polars["image_id"].n_unique() == summary.faces


def test_the_similarities_kept_are_those_refined(finished):
    _, store, _ = finished
    roots = store.read(schemas.REFINEMENTS).where(F.size(c.FACE_IDS) > 1)
    assert store.read(schemas.SIMILARITIES).count() == roots.count() > 0


def test_images_are_explained_by_the_settings_that_clustered_them(finished, drawn):
    summary, store, _ = finished
    members = store.read(schemas.CLUSTERS).toArrow().to_pylist()
    of_cluster = {}
    for row in members:
        of_cluster.setdefault(row[c.CLUSTER_ID], []).append(row[c.IMAGE_ID])
    a, b = next(images for images in of_cluster.values() if len(images) > 2)[:2]
    told = faceclust_spark.explain(store._spark, summary.tables, a, b)
    assert told.together
    assert told.compared.bias == KEPT.clusters.bias
    assert len(told.groups) == 3


def test_a_finished_run_is_not_done_again_and_other_settings_are_refused(finished):
    summary, store, folder = finished
    before = {table.name: store.version(table) for table in schemas.ALL_TABLES if store.exists(table)}
    source = str(folder / "gallery.parquet")
    again = faceclust_spark.run(store._spark, source, summary.tables, KEPT, run_id=RUN)
    assert again.seconds == {}
    assert (again.faces, again.clusters, again.coarse_groups) == (
        summary.faces,
        summary.clusters,
        summary.coarse_groups,
    )
    assert {name: store.version(_table(name)) for name in before} == before
    other = load_config(None, ["neighbours.k=7"], KEPT.model_dump(exclude_unset=True))
    with pytest.raises(ResumeError, match=r"neighbours\.k: 40 then, 7 now"):
        faceclust_spark.run(store._spark, source, summary.tables, other, run_id=RUN)


def _table(name):
    return next(table for table in schemas.ALL_TABLES if table.name == name)


def test_too_many_bad_rows_stop_the_run_and_leave_everything_intact(spark, drawn, tmp_path):
    good = write_gallery(drawn, tmp_path / "good.parquet", rows=slice(0, 40))
    tables = str(tmp_path / "tables")
    faceclust_spark.ingest(spark, good, tables, CONFIG)
    spoilt = drawn.embeddings[40:80].copy()
    spoilt[:20, 0] = np.nan
    bad = write_gallery(
        drawn._replace(embeddings=np.concatenate([drawn.embeddings[:40], spoilt])),
        tmp_path / "bad.parquet",
        rows=slice(40, 80),
    )
    with pytest.raises(QuarantineError, match=r"20 of 40 rows \(50.0%\) cannot be used"):
        faceclust_spark.run(spark, bad, tables, CONFIG)
    store = TableStore(spark, tables)
    assert store.read(schemas.FACES).count() == store.read(schemas.VECTORS).count() == 40
    assert store.read(schemas.QUARANTINE).count() == 20
    assert not list((tmp_path / "tables").glob("_scratch*"))
    failed = store.read(schemas.RUNS).where(F.col(c.STATUS) == "failed").toArrow().to_pylist()
    assert [row[c.STAGE] for row in failed] == ["ingest"]
    assert "20 of 40 rows" in failed[0][c.MESSAGE]


def test_a_model_that_is_not_there_is_told_before_the_work(spark, tmp_path):
    config = Config.model_validate({"confidences": {"model": str(tmp_path / "nowhere")}})
    with pytest.raises(ConfigError, match="nowhere"):
        faceclust_spark.run(spark, str(tmp_path / "no.parquet"), str(tmp_path / "tables"), config)
    assert not (tmp_path / "tables").exists()


def test_a_source_that_is_not_there_is_told(spark, tmp_path):
    with pytest.raises(DataError, match="cannot read the source") as told:
        faceclust_spark.run(spark, str(tmp_path / "no.parquet"), str(tmp_path / "tables"))
    assert "SQLSTATE" not in str(told.value)
    assert not (tmp_path / "tables").exists()  # a name typed wrong leaves nothing behind


def test_the_demo_deletes_nobodys_files(spark, tmp_path):
    (tmp_path / "gallery.parquet").mkdir()
    with pytest.raises(ConfigError, match="not a demo's folder"):
        demo(spark, tmp_path, CONFIG)
    assert (tmp_path / "gallery.parquet").is_dir()


def test_a_gallery_of_one_face(spark, drawn, tmp_path):
    source = write_gallery(drawn, tmp_path / "one.parquet", rows=slice(0, 1))
    summary = faceclust_spark.run(spark, source, str(tmp_path / "tables"))
    rows = TableStore(spark, summary.tables).read(schemas.CLUSTERS).toArrow().to_pylist()
    assert [(row[c.IMAGE_ID], row[c.STATUS]) for row in rows] == [(drawn.image_ids[0], "singleton")]


def test_bare_columns_and_no_attributes_are_enough(spark, drawn, tmp_path):
    few = pa.table({"image_id": drawn.image_ids[:30], "embedding": list(drawn.embeddings[:30])})
    pq.write_table(few, tmp_path / "bare.parquet")
    summary = faceclust_spark.run(spark, str(tmp_path / "bare.parquet"), str(tmp_path / "tables"))
    assert summary.faces == 30
    alone = faceclust_spark.cluster(drawn.embeddings[:30], image_ids=drawn.image_ids[:30])
    found = dict(row[:2] for row in cluster_rows(TableStore(spark, summary.tables)))
    assert [found[image] for image in drawn.image_ids[:30]] == alone.cluster_ids.tolist()
