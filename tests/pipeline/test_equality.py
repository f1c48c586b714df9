"""The same gallery and config give the same clusters, however the work is divided."""

import json

import numpy as np
import pytest
from divided import BY_TASKS, DIVIDED
from galleries import cluster_rows, rows_of, write_gallery

import faceclust_spark
from faceclust_spark.config import load_config
from faceclust_spark.kernels.synth import draw_gallery
from faceclust_spark.pipeline import STAGES
from faceclust_spark.tables import schemas
from faceclust_spark.tables.storage import TableStore

SETTINGS = ["synth.faces=600", "synth.dimension=48", *DIVIDED]
CONFIG = load_config(None, SETTINGS)


@pytest.fixture(scope="module")
def drawn():
    return draw_gallery(CONFIG.synth)


@pytest.fixture(scope="module")
def in_process(drawn):
    """The clusters of the call without Spark."""
    found = faceclust_spark.cluster(
        drawn.embeddings, drawn.attributes, CONFIG, image_ids=drawn.image_ids, photo_ids=drawn.photo_ids
    )
    rows = rows_of(drawn.image_ids, found)
    assert len({row[4] for row in rows}) > 10  # runner-ups there are
    return rows


@pytest.fixture(scope="module")
def by_tasks(shared_session, drawn, tmp_path_factory):
    """The tables of a run on two cores, with another number of partitions and rows in another order."""
    folder, spark = tmp_path_factory.mktemp("tasks"), shared_session
    order = np.random.default_rng(3).permutation(len(drawn.image_ids)).tolist()
    source = write_gallery(drawn, folder / "gallery.parquet", order)
    name = "spark.sql.shuffle.partitions"
    before = spark.conf.get(name)
    spark.conf.set(name, "7")
    try:
        summary = faceclust_spark.run(
            spark, source, str(folder / "tables"), load_config(None, [*SETTINGS, BY_TASKS])
        )
    finally:
        spark.conf.set(name, before)
    return TableStore(spark, summary.tables)


def test_two_cores_other_partitions_and_rows_in_another_order(by_tasks, in_process):
    assert cluster_rows(by_tasks) == in_process
    assert by_tasks.read(schemas.CELLS).count() == 6
    assert max(len(cosines) for cosines in _lists(by_tasks)) == CONFIG.neighbours.k


def test_a_gallery_in_the_driver_has_the_same_tables(spark, drawn, by_tasks, tmp_path):
    source = write_gallery(drawn, tmp_path / "gallery.parquet")
    summary = faceclust_spark.run(spark, source, str(tmp_path / "tables"), CONFIG)
    store = TableStore(spark, summary.tables)
    merged = [schemas.FACES, schemas.VECTORS, schemas.ATTRIBUTE_STATISTICS]
    replaced = [table for stage in STAGES for table in stage.replaces if stage.name != "similarities"]
    for table in (*merged, *replaced):
        rows = _rows(store, table)
        assert rows == _rows(by_tasks, table), table.name
        assert rows, table.name
    assert _ledger(store) == _ledger(by_tasks)
    assert store.read(schemas.CLUSTERS).where("threshold IS NULL").count()  # across root groups
    assert len(store.read(schemas.NEIGHBOURS).inputFiles()) <= 2  # few faces, few files


def _rows(store, table):
    """Give a table's rows in an order of their own; keys are numbers or texts, the rest may be null."""
    rows = store.read(table).drop("run_id").toArrow().to_pylist()
    return sorted(rows, key=lambda row: str(list(row.values())))


def _ledger(store):
    """Give what each stage has told of its work."""
    rows = store.read(schemas.RUNS).toArrow().to_pylist()
    told = {row["stage"]: (row["rows"], row["largest_group"], row["message"]) for row in rows}
    return {stage: (*told[stage][:2], json.loads(told[stage][2] or "{}")) for stage in told}


def _lists(store):
    return store.read(schemas.NEIGHBOURS).select("cosines").toArrow()["cosines"].to_pylist()
