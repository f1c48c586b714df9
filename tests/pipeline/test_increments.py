"""A second source on the same tables, the same source again, and starting over."""

import numpy as np
import pytest
from galleries import CONFIG, cluster_rows, write_gallery

import faceclust_spark
from faceclust_spark.config import load_config
from faceclust_spark.kernels.synth import draw_gallery
from faceclust_spark.tables import columns as c
from faceclust_spark.tables import schemas
from faceclust_spark.tables.storage import TableStore


@pytest.fixture(scope="module")
def drawn():
    return draw_gallery(CONFIG.synth)


def images_by_table(store: TableStore) -> dict[str, set[str]]:
    found = {}
    for table in (schemas.FACES, schemas.CLUSTERS):
        images = store.read(table).select(c.IMAGE_ID).toArrow()[c.IMAGE_ID].to_pylist()
        assert len(images) == len(set(images))
        found[table.name] = set(images)
    return found


def test_a_second_source_adds_and_replaces_and_all_are_clustered_anew(spark, drawn, tmp_path):
    # Attributes stay on the scale of the first batch: without them, parts and whole must agree.
    config = load_config(None, ["ingest.columns.attributes=null"], CONFIG.model_dump(exclude_unset=True))
    parts, one = str(tmp_path / "parts"), str(tmp_path / "one")
    first = write_gallery(drawn, tmp_path / "first.parquet", slice(0, 100))
    faceclust_spark.run(spark, first, parts, config)
    moved = drawn.embeddings.copy()
    moved[90:100] = drawn.embeddings[110:120]  # the same images, with other faces in them
    changed = drawn._replace(embeddings=moved)
    second = write_gallery(changed, tmp_path / "second.parquet", slice(80, 150))
    summary = faceclust_spark.run(spark, second, parts, config)
    counts = {"read": 70, "new": 50, "replaced": 10, "unchanged": 10, "duplicates": 0}
    assert (summary.faces, summary.ingested) == (150, counts)
    store = TableStore(spark, parts)
    expected = set(np.asarray(drawn.image_ids)[:150].tolist())
    assert images_by_table(store) == {"faces": expected, "clusters": expected}
    at_once = write_gallery(changed, tmp_path / "all.parquet", slice(0, 150))
    faceclust_spark.run(spark, at_once, one, config)
    assert cluster_rows(store) == cluster_rows(TableStore(spark, one))


def test_the_same_batch_again_changes_nothing(spark, drawn, tmp_path):
    tables = str(tmp_path / "tables")
    source = write_gallery(drawn, tmp_path / "gallery.parquet", slice(0, 60))
    faceclust_spark.ingest(spark, source, tables, CONFIG)
    store = TableStore(spark, tables)
    kept = (schemas.FACES, schemas.VECTORS, schemas.QUARANTINE, schemas.ATTRIBUTE_STATISTICS)
    before = {table.name: store.read(table).toArrow().to_pylist() for table in kept}
    summary = faceclust_spark.ingest(spark, source, tables, CONFIG)
    assert summary.ingested == {"read": 60, "new": 0, "replaced": 0, "unchanged": 60, "duplicates": 0}
    for table in kept:
        after = store.read(table).toArrow().to_pylist()
        assert sorted(map(str, after)) == sorted(map(str, before[table.name]))


def test_fresh_starts_over(spark, drawn, tmp_path):
    tables = str(tmp_path / "tables")
    first = write_gallery(drawn, tmp_path / "first.parquet", slice(0, 50))
    second = write_gallery(drawn, tmp_path / "second.parquet", slice(50, 80))
    faceclust_spark.ingest(spark, first, tables, CONFIG)
    (tmp_path / "tables" / "mine").mkdir()  # whatever else lives there stays
    summary = faceclust_spark.run(spark, second, tables, CONFIG, fresh=True)
    expected = set(np.asarray(drawn.image_ids)[50:80].tolist())
    assert images_by_table(TableStore(spark, tables)) == {"faces": expected, "clusters": expected}
    assert summary.ingested["new"] == 30
    assert (tmp_path / "tables" / "mine").is_dir()


def test_sources_and_tables_of_a_catalogue(spark, drawn, tmp_path):
    source = write_gallery(drawn, tmp_path / "gallery.parquet", slice(0, 40))
    spark.sql(f"CREATE SCHEMA faceclust_it LOCATION '{tmp_path / 'schema'}'")
    try:
        spark.read.parquet(source).write.format("delta").saveAsTable("faceclust_it.gallery")
        summary = faceclust_spark.run(
            spark, "spark_catalog.faceclust_it.gallery", "spark_catalog.faceclust_it", CONFIG
        )
        assert summary.faces == 40
        assert spark.read.table("faceclust_it.clusters").count() == 40
        again = faceclust_spark.ingest(spark, "faceclust_it.gallery", "spark_catalog.faceclust_it", CONFIG)
        assert again.ingested["unchanged"] == 40
    finally:
        spark.sql("DROP SCHEMA faceclust_it CASCADE")
