"""A first batch that the driver's process checks: the very rows that Spark's tasks make of it."""

import numpy as np
import pytest

import faceclust_spark
from faceclust_spark.config import load_config
from faceclust_spark.errors import DataError
from faceclust_spark.running import driver_ingest, steps
from faceclust_spark.running.driver_ingest import ingested_here
from faceclust_spark.running.held import Held
from faceclust_spark.running.run_state import Run
from faceclust_spark.stages.ingest import Gallery, ingested
from faceclust_spark.stages.sources import count_rows, read_source
from faceclust_spark.tables import schemas

SOURCE = (
    "image_id string, embedding array<{}>, attributes array<float>, photo_id string, "
    "quality float, label string, embedding_model string, extra map<string,string>"
)
NAN = float("nan")


def row(number, embedding=None, attributes=None, model=None, image_id=None):
    face = np.random.default_rng(number).normal(size=6).tolist() if embedding is None else embedding
    name = f"image-{number}" if image_id is None else image_id
    extra = {"camera": str(number), "place": None} if number % 2 else None
    photo = f"photo-{number // 3}" if number % 4 else None
    return (
        name,
        face,
        attributes,
        photo,
        number / 40 if number % 5 else None,
        f"p{number % 7}",
        model,
        extra,
    )


def with_attributes(number):
    known = [float(number), NAN if number % 3 else -1.0, None, 7.0]
    return (None, [], known)[number % 3 if number < 6 else 2]


GOOD = {
    "bare": [row(n) for n in range(30)],
    "attributes, some missing": [row(n, attributes=with_attributes(n), model="m") for n in range(40)],
    "one face": [row(3, attributes=[1.0, 2.0])],
}
REFUSED = [  # by themselves, whatever the others are like
    row(1, image_id=""),
    (None, *row(2)[1:]),
    (None, None, *row(3)[2:]),
    row(4, embedding=[]),
    row(5, embedding=[0.0] * 6),
    row(6, embedding=[NAN, 1.0, float("inf"), 1.0, 1.0, 1.0]),
    row(7, embedding=[0.0] * 3),
    row(8, embedding=[0.0] * 6, model="m"),
    row(9, embedding=[NAN] * 6, attributes=[1.0, 2.0]),
    row(11, attributes=[1.0, NAN], image_id=""),
]
GOOD["some refused, the first ones too"] = [
    *REFUSED,
    *(row(n, attributes=with_attributes(n)) for n in range(20, 50)),
]
GOOD["some refused, and no attributes"] = [*map(row, range(20, 40)), *REFUSED]
BAD = {
    "no row": [],
    "no face in the first rows": [*(row(n, embedding=[]) for n in range(25)), *map(row, range(25, 40))],
    "no usable row": [row(0, embedding=[0.0] * 6)],
    "an image twice, once refused": [row(0), row(1), row(2, image_id="image-1", embedding=[0.0] * 6)],
    "another width": [row(0), row(1, embedding=[1.0, 2.0])],
    "another model": [row(0, model="a"), row(1, model="b")],
    "a model of some": [row(0, model="a"), row(1)],
    "another number of attributes": [row(0, attributes=[1.0]), row(1, attributes=[1.0, 2.0])],
    "a row twice": [row(0), row(1), row(1)],
    "an image twice": [row(0), row(1), row(2, image_id="image-1")],
}


def run_of(spark, store, *settings):
    return Run(spark, store, None, load_config(None, settings), "one", "s")


def frame(spark, rows, number="float"):
    return spark.createDataFrame(rows, SOURCE.format(number))


def content(rows):
    return sorted(map(str, rows.toArrow().to_pylist()))


@pytest.mark.parametrize("number", ["float", "double"])
@pytest.mark.parametrize("name", GOOD)
def test_a_batch_of_rows_that_stand_alone_gives_the_rows_of_the_tasks(
    spark, store, scratch, monkeypatch, name, number
):
    monkeypatch.setattr(driver_ingest, "_AT_ONCE", 7)
    source, materialise = frame(spark, GOOD[name], number), scratch[0]
    run = run_of(spark, store, "ingest.statistics_sample=25")
    here = ingested_here(run, source)
    tasks = ingested(source, "s", Gallery(), run.config.ingest, materialise)
    assert here.counts == tasks.counts
    assert (here.statistics is None) == (tasks.statistics is None)
    assert bool(here.counts.quarantined) == name.startswith("some refused")
    for own, other in zip(here[:4], tasks[:4], strict=True):
        if own is not None:
            assert own.schema.simpleString() == other.schema.simpleString()
            assert content(own) == content(other)
    tables = {schemas.FACES.name: here.faces, schemas.VECTORS.name: here.vectors}
    for one, other in zip(run.held.gallery, Held(lambda table: tables[table.name]).gallery, strict=True):
        np.testing.assert_array_equal(one, other)
    assert run.held.image_ids.to_pylist() == Held(lambda table: tables[table.name]).image_ids.to_pylist()


@pytest.mark.parametrize("name", BAD)
def test_a_batch_with_a_fault_is_left_to_the_tasks(spark, store, name):
    run = run_of(spark, store)
    assert ingested_here(run, frame(spark, BAD[name])) is None
    assert run.known.held is None


def test_stored_faces_too_many_and_settings_leave_a_batch_to_the_tasks(spark, store, monkeypatch):
    source = frame(spark, GOOD["bare"])
    assert ingested_here(run_of(spark, store, "spark.driver_faces=29"), source) is None
    assert ingested_here(run_of(spark, store, "spark.driver_faces=0"), source) is None
    with monkeypatch.context() as patch:
        patch.setattr(
            "faceclust_spark.running.driver_ingest.may_be_sent", lambda size, place: size < 30 * 6 * 4
        )
        assert ingested_here(run_of(spark, store), source) is None
    assert ingested_here(run_of(spark, store, "spark.driver_faces=30"), source) is not None
    store.merge(schemas.FACES, ingested_here(run_of(spark, store), source).faces, "other")
    assert ingested_here(run_of(spark, store), source) is None


def test_rows_without_a_face_tell_nothing_of_the_size_of_the_others(spark, store, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "faceclust_spark.running.driver_ingest.may_be_sent", lambda size, place: asked.append(size)
    )
    nobody = [(f"x{number}", None, *row(0)[2:]) for number in range(19)]
    assert (
        ingested_here(run_of(spark, store), frame(spark, [*nobody, *map(row, range(181))]).coalesce(1))
        is None
    )
    assert asked[0] >= 200 * 6 * 4


def test_numpy_files_are_counted_without_reading_them(spark, store, tmp_path):
    rows = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    np.save(tmp_path / "embeddings.npy", rows)
    (tmp_path / "ids.txt").write_text("".join(f"image-{row}\n" for row in range(50)))
    run = Run(spark, store, None, load_config(), "one", str(tmp_path))
    source = read_source(spark, run.source, run.config.ingest)
    assert count_rows(run.source, source) == source.count() == 50
    assert ingested_here(run, source).counts.new == 50


def test_names_that_do_not_fit_the_attributes_are_told(spark, store):
    source = frame(spark, GOOD["attributes, some missing"])
    with pytest.raises(DataError, match=r"3 names, the faces have 4 attributes"):
        ingested_here(run_of(spark, store, "ingest.attribute_names=[a, b, c]"), source)


def test_an_ingest_asks_the_tasks_only_where_it_must(spark, tmp_path, monkeypatch):
    asked = []
    by_tasks = steps._ingested_by_tasks
    monkeypatch.setattr(steps, "_ingested_by_tasks", lambda *given: asked.append(1) or by_tasks(*given))
    for name, rows, expected in (("first", GOOD["bare"], 0), ("second", [row(50), row(51)], 1)):
        path = str(tmp_path / f"{name}.parquet")
        frame(spark, rows).write.parquet(path)
        summary = faceclust_spark.ingest(spark, path, str(tmp_path / "tables"))
        assert (summary.ingested["new"], len(asked)) == (len(rows), expected)
