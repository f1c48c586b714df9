"""Runs that are cut short at any point: resumed, abandoned, or followed by another run."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from galleries import CONFIG, cluster_rows, write_gallery
from pyspark.sql import functions as F

import faceclust_spark
from faceclust_spark.config import SparkConfig, load_config
from faceclust_spark.kernels.synth import draw_gallery
from faceclust_spark.pipeline import STAGES
from faceclust_spark.running import mending
from faceclust_spark.tables import columns as c
from faceclust_spark.tables import schemas
from faceclust_spark.tables.storage import TableStore

FEW = slice(0, 120)


class KilledError(Exception):
    """Stands for a process that ends here: nothing of the package catches it."""


@pytest.fixture(scope="module")
def drawn():
    return draw_gallery(CONFIG.synth)


@pytest.fixture(scope="module")
def source(drawn, tmp_path_factory):
    return write_gallery(drawn, tmp_path_factory.mktemp("source") / "gallery.parquet", FEW)


@pytest.fixture(scope="module")
def uncut(shared_session, source, tmp_path_factory):
    """The clusters of a run that nothing stopped."""
    tables = str(tmp_path_factory.mktemp("uncut"))
    faceclust_spark.run(shared_session, source, tables, CONFIG)
    return cluster_rows(TableStore(shared_session, tables))


def kill_at(monkeypatch, before: set[str], after: set[str]) -> None:
    """End the run at the first write to one of these tables, before it or right after its commit."""
    for verb in ("replace", "merge"):
        write = getattr(TableStore, verb)

        def cut(store, table, rows, run_id, write=write):
            if table.name in before:
                raise KilledError(f"before {table.name}")
            write(store, table, rows, run_id)
            if table.name in after:
                raise KilledError(f"after {table.name}")

        monkeypatch.setattr(TableStore, verb, cut)


def ends_of_run() -> list[str]:
    names = [table.name for stage in STAGES for table in stage.replaces if stage.name != "similarities"]
    # Quarantine and statistics are written beside vectors, and not again where they stand.
    return ["before vectors", *(f"after {name}" for name in ("vectors", "faces", *names))]


# By Spark's tasks only where something else lies about when the run ends: scratch tables.
@pytest.mark.parametrize(
    ("driver_faces", "ends"),
    [(1_000, ends_of_run()), (0, ["after vectors", "after forest", "after confidences", "after rounds"])],
)
def test_a_run_killed_at_every_write_ends_with_the_same_tables(
    spark, source, uncut, tmp_path, monkeypatch, driver_faces, ends
):
    tables = str(tmp_path / "tables")
    settings = [f"spark.driver_faces={driver_faces}"]
    config = load_config(None, settings, CONFIG.model_dump(exclude_unset=True))
    for end in ends:
        when, name = end.split()
        with monkeypatch.context() as patch, pytest.raises(KilledError, match=end):
            kill_at(patch, {name} if when == "before" else set(), {name} if when == "after" else set())
            faceclust_spark.run(spark, source, tables, config, run_id="cut")
    summary = faceclust_spark.run(spark, source, tables, config, run_id="cut")
    store = TableStore(spark, tables)
    assert cluster_rows(store) == uncut
    assert summary.faces == 120
    assert list(summary.seconds) == ["clusters"]  # all before had been finished
    entries = store.read(schemas.RUNS).groupBy(c.STAGE, c.STATUS).count().toArrow().to_pylist()
    finished = {row[c.STAGE]: row["count"] for row in entries if row[c.STATUS] == "finished"}
    assert finished == dict.fromkeys((s.name for s in STAGES if s.name != "similarities"), 1)
    assert not [path.name for path in (tmp_path / "tables").iterdir() if path.name.startswith("_scratch")]


def test_a_killed_process_is_resumed_by_another(spark, source, uncut, tmp_path):
    tables = tmp_path / "tables"
    command = [
        sys.executable,
        "-m",
        "faceclust_spark.cli",
        "run",
        "--source",
        source,
        "--tables",
        str(tables),
    ]
    command += ["--run-id", "cut", "--set", "spark.master=local[1]", "--set", "coarse_groups.max_size=60"]
    settings = ["synth.faces=400", "synth.dimension=64"]
    command += [part for setting in settings for part in ("--set", setting)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        for line in process.stderr:  # the log: one line as each stage ends
            if " neighbours " in line:
                break
        os.killpg(process.pid, signal.SIGKILL)
    store = TableStore(spark, str(tables))
    assert not store.exists(schemas.CLUSTERS)
    summary = faceclust_spark.run(spark, source, str(tables), CONFIG, run_id="cut")
    assert cluster_rows(store) == uncut
    assert {"ingest", "thresholds", "cells", "neighbours"}.isdisjoint(summary.seconds)


def test_what_another_run_has_changed_in_between_is_done_again(spark, source, uncut, tmp_path, monkeypatch):
    tables = str(tmp_path / "tables")
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        kill_at(patch, {"forest"}, set())
        faceclust_spark.run(spark, source, tables, CONFIG, run_id="cut")
    other = load_config(None, ["neighbours.k=2"], CONFIG.model_dump(exclude_unset=True))
    faceclust_spark.run(spark, source, tables, other)
    summary = faceclust_spark.run(spark, source, tables, CONFIG, run_id="cut")
    assert cluster_rows(TableStore(spark, tables)) == uncut
    assert "ingest" not in summary.seconds
    assert "neighbours" in summary.seconds


def test_an_ingest_that_was_cut_and_abandoned_leaves_nothing(spark, drawn, source, tmp_path, monkeypatch):
    tables = str(tmp_path / "tables")
    store = TableStore(spark, tables)
    others = write_gallery(drawn, tmp_path / "others.parquet", slice(200, 260))
    for run_id in ("first ever", "second"):
        with monkeypatch.context() as patch, pytest.raises(KilledError):
            kill_at(patch, {"faces"}, set())
            faceclust_spark.ingest(spark, others, tables, CONFIG, run_id=run_id)
        faceclust_spark.ingest(spark, source, tables, CONFIG)
        assert store.read(schemas.FACES).count() == store.read(schemas.VECTORS).count() == 120
    orphans = store.read(schemas.VECTORS).join(store.read(schemas.FACES), c.FACE_ID, "left_anti")
    assert orphans.isEmpty()
    assert store.read(schemas.RUNS).where(F.col(c.STATUS) == "failed").count() == 2


@pytest.fixture(scope="module")
def changed(drawn, tmp_path_factory):
    """The first 40 images of the source, and 20 others, all with embeddings of other images."""
    other = drawn._replace(embeddings=np.roll(drawn.embeddings, 7, axis=0))
    rows = [*range(40), *range(200, 220)]
    return write_gallery(other, tmp_path_factory.mktemp("changed") / "gallery.parquet", rows)


@pytest.mark.parametrize("vacuumed", [False, True])
def test_replaced_faces_of_an_abandoned_ingest_are_as_before(
    spark, source, changed, uncut, tmp_path, monkeypatch, caplog, vacuumed
):
    tables = str(tmp_path / "tables")
    store = TableStore(spark, tables)
    faceclust_spark.ingest(spark, source, tables, CONFIG)
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        kill_at(patch, {"faces"}, set())
        faceclust_spark.ingest(spark, changed, tables, CONFIG, run_id="b")
    assert store.read(schemas.VECTORS).count() == 140
    if vacuumed:
        monkeypatch.setattr(mending, "_VERSIONS", 0)
    by_tasks = vacuumed  # and the other in the driver
    config = CONFIG.model_copy(update={"spark": SparkConfig(driver_faces=0)}) if by_tasks else CONFIG
    faceclust_spark.run(spark, source, tables, config)
    assert cluster_rows(store) == uncut
    faces, vectors = (
        store.read(table).select(c.FACE_ID, c.CONTENT_HASH).toArrow().sort_by(c.FACE_ID).to_pydict()
        for table in (schemas.FACES, schemas.VECTORS)
    )
    assert faces == vectors and len(faces[c.FACE_ID]) == 120
    assert ("40 faces lost their vectors" in caplog.text) == vacuumed


def test_a_run_goes_on_though_another_one_was_cut_short_in_its_ingest(
    spark, source, changed, uncut, tmp_path, monkeypatch
):
    tables = str(tmp_path / "tables")
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        kill_at(patch, {"forest"}, set())
        faceclust_spark.run(spark, source, tables, CONFIG, run_id="a")
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        kill_at(patch, {"faces"}, set())
        faceclust_spark.ingest(spark, changed, tables, CONFIG, run_id="b")
    faceclust_spark.run(spark, source, tables, CONFIG, run_id="a")
    assert cluster_rows(TableStore(spark, tables)) == uncut


def test_a_cut_ingest_with_a_mended_source_is_begun_anew(
    spark, source, changed, uncut, tmp_path, monkeypatch
):
    tables = str(tmp_path / "tables")
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        kill_at(patch, {"faces"}, set())
        faceclust_spark.run(spark, changed, tables, CONFIG, run_id="a")
    faceclust_spark.run(spark, source, tables, CONFIG, run_id="a")
    assert cluster_rows(TableStore(spark, tables)) == uncut


def test_deleted_faces_do_not_come_back_under_a_uri(spark, drawn, source, tmp_path, monkeypatch):
    tables = (tmp_path / "tables").as_uri()  # where a table is emptied, not removed: as on object storage
    sources = [write_gallery(drawn, tmp_path / f"{n}.parquet", slice(n, n + 30)) for n in (150, 200, 250)]
    faceclust_spark.ingest(spark, sources[0], tables, CONFIG)
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        kill_at(patch, {"faces"}, set())
        faceclust_spark.ingest(spark, sources[1], tables, CONFIG)
    faceclust_spark.run(spark, sources[2], tables, CONFIG, fresh=True)
    store = TableStore(spark, tables)
    expected = set(drawn.image_ids[250:280])
    assert {row[0] for row in cluster_rows(store)} == expected
    assert store.read(schemas.VECTORS).count() == store.read(schemas.FACES).count() == 30
