"""The same gallery and config give the same clusters, however the work is divided."""

import subprocess
import sys

import numpy as np
import pytest
from galleries import cluster_rows, rows_of, write_gallery

import faceclust_spark
from faceclust_spark.config import load_config
from faceclust_spark.kernels.synth import draw_gallery
from faceclust_spark.tables import schemas
from faceclust_spark.tables.storage import TableStore

# Several cells, small tasks, groups in blocks: whatever could differ with the division is in use.
SETTINGS = [
    "synth.faces=600",
    "synth.dimension=48",
    "cells.cells=6",
    "neighbours.probes=3",
    "coarse_groups.max_size=80",
    "confidences.dense_size=40",
    "confidences.block_neighbours=16",
    "confidences.block_negatives=8",
    "confidences.pairs_per_task=300",
]
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


def test_two_cores_other_partitions_and_rows_in_another_order(spark, drawn, in_process, tmp_path):
    order = np.random.default_rng(3).permutation(len(drawn.image_ids)).tolist()
    source = write_gallery(drawn, tmp_path / "gallery.parquet", order)
    name = "spark.sql.shuffle.partitions"
    before = spark.conf.get(name)
    spark.conf.set(name, "7")
    try:
        summary = faceclust_spark.run(spark, source, str(tmp_path / "tables"), CONFIG)
    finally:
        spark.conf.set(name, before)
    store = TableStore(spark, summary.tables)
    assert cluster_rows(store) == in_process
    assert store.read(schemas.CELLS).count() == 6
    assert max(len(cosines) for cosines in _lists(store)) == CONFIG.neighbours.k


def _lists(store):
    return store.read(schemas.NEIGHBOURS).select("cosines").toArrow()["cosines"].to_pylist()


def test_one_core(spark, drawn, in_process, tmp_path):
    source = write_gallery(drawn, tmp_path / "gallery.parquet")
    command = [sys.executable, "-m", "faceclust_spark.cli", "run", "--source", source]
    command += ["--tables", str(tmp_path / "tables"), "--set", "spark.master=local[1]"]
    command += [part for setting in SETTINGS for part in ("--set", setting)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert cluster_rows(TableStore(spark, str(tmp_path / "tables"))) == in_process
