import decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from faceclust_spark.config import ColumnsConfig, IngestConfig
from faceclust_spark.errors import DataError
from faceclust_spark.stages.sources import read_source


def write(path, **columns):
    pq.write_table(pa.table(columns), path)
    return str(path)


def read(spark, source, **settings):
    rows = read_source(spark, str(source), IngestConfig(**settings))
    assert rows.columns == [
        *("image_id", "embedding", "attributes", "photo_id"),
        *("quality", "label", "embedding_model", "extra"),
    ]
    return rows.orderBy("image_id").toArrow().to_pylist()


def test_columns_are_mapped_and_typed(spark, tmp_path):
    single = pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2))
    source = write(
        tmp_path / "mapped.parquet",
        **{
            "id": pa.array([2, 10], pa.int64()),
            "face.feature": single,
            "scores": pa.array([[1, None], None], pa.list_(pa.int16())),
            "person": pa.array([7, 8], pa.int32()),
            "quality": pa.array([decimal.Decimal("0.5"), None]),
            "source": pa.array(["wild", None]),
        },
    )
    columns = ColumnsConfig(image_id="id", embedding="face.feature", attributes="scores", label="person")
    rows = read(spark, source, columns=columns, extra=("source",), embedding_model="m")
    assert rows[1] == {
        "image_id": "2",
        "embedding": [1.0, 2.0],
        "attributes": [1.0, None],
        "photo_id": None,
        "quality": 0.5,
        "label": "7",
        "embedding_model": "m",
        "extra": [("source", "wild")],
    }
    assert rows[0]["attributes"] is None


def test_names_that_are_none_are_null(spark, tmp_path):
    source = write(
        tmp_path / "none.parquet",
        image_id=["a", "b", "c"],
        embedding=[[1.0]] * 3,
        photo_id=["", "p", None],
        label=pa.array([float("nan"), 2.0, None], pa.float64()),
        embedding_model=["", "m", None],
    )
    rows = read(spark, source)
    assert [row["photo_id"] for row in rows] == [None, "p", None]
    assert [row["label"] for row in rows] == [None, "2.0", None]
    assert [row["embedding_model"] for row in rows] == [None, "m", None]


def test_embeddings_keep_their_precision(spark, tmp_path):
    third = write(tmp_path / "double.parquet", image_id=["a"], embedding=[[1 / 3, 1.0]])
    assert read(spark, third)[0]["embedding"] == [1 / 3, 1.0]
    exact = pa.array([[decimal.Decimal("0.25")]], pa.list_(pa.decimal128(5, 2)))
    assert read(spark, write(tmp_path / "d.parquet", image_id=["a"], embedding=exact))[0]["embedding"] == [
        0.25
    ]
    whole = write(tmp_path / "whole.parquet", image_id=["a"], embedding=[[1, -2]])
    assert read(spark, whole)[0]["embedding"] == [1.0, -2.0]


def test_delta_is_read_by_path_and_by_name(spark, tmp_path):
    path = str(tmp_path / "gallery")
    rows = spark.createDataFrame([("a", [1.0, 2.0])], "image_id string, embedding array<float>")
    rows.write.format("delta").save(path)
    spark.sql(f"CREATE DATABASE source_test LOCATION '{tmp_path / 'schema'}'")
    spark.sql(f"CREATE TABLE source_test.gallery USING delta LOCATION '{path}'")
    try:
        for source in (path, f"file://{path}", "spark_catalog.source_test.gallery"):
            assert read(spark, source)[0]["image_id"] == "a"
    finally:
        spark.sql("DROP DATABASE source_test CASCADE")


def test_all_missing_columns_are_told_at_once(spark, tmp_path):
    source = write(tmp_path / "other.parquet", id=["a"], feature=[[1.0]])
    config = IngestConfig(columns=ColumnsConfig(label="person"), extra=("origin",))
    with pytest.raises(DataError) as error:
        read_source(spark, source, config)
    message = str(error.value)
    for column, setting in {
        "image_id": "ingest.columns.image_id",
        "embedding": "ingest.columns.embedding",
        "person": "ingest.columns.label",
        "origin": "ingest.extra",
    }.items():
        assert f"column {column!r} is missing ({setting})" in message
    assert "Columns found: id, feature." in message
    assert "--set ingest.columns." in message
    assert "photo_id" not in message


def test_all_wrong_types_are_told_at_once(spark, tmp_path):
    source = write(
        tmp_path / "types.parquet",
        image_id=[1.5],
        embedding=["0.1 0.2"],
        attributes=[["a"]],
        quality=["good"],
        label=[[1]],
    )
    with pytest.raises(DataError) as error:
        read_source(spark, source, IngestConfig())
    lines = str(error.value).splitlines()
    faults = {line.split(":")[0].strip() for line in lines if "; expected" in line}
    assert faults == {"image_id", "embedding", "attributes", "quality", "label"}


def test_sources_that_cannot_be_read_say_what_can(spark, tmp_path):
    (tmp_path / "faces.csv").write_text("image_id\n")
    (tmp_path / "empty").mkdir()
    for source in ("faces.csv", "empty", "nowhere"):
        with pytest.raises(DataError, match="A source is a Parquet file or folder"):
            read_source(spark, str(tmp_path / source), IngestConfig())
    with pytest.raises(DataError, match=r"no_such_catalog\.a\.b"):
        read_source(spark, "no_such_catalog.a.b", IngestConfig())


@pytest.fixture
def numpy_folder(tmp_path):
    rng = np.random.default_rng(0)
    arrays = rng.standard_normal((70_000, 3)).astype(np.float16), rng.standard_normal((70_000, 2))
    np.save(tmp_path / "embeddings.npy", arrays[0])
    np.save(tmp_path / "attributes.npy", arrays[1])
    return tmp_path, *arrays


def compare(rows, embeddings, attributes):
    order = np.argsort([f"face {i:06d}" for i in range(len(embeddings))])
    assert [row["image_id"] for row in rows] == [f"face {i:06d}" for i in order]
    np.testing.assert_array_equal([r["embedding"] for r in rows], embeddings.astype(np.float32))
    np.testing.assert_array_equal([r["attributes"] for r in rows], attributes.astype(np.float32))


def test_numpy_folders_with_ids_as_text_or_parquet(spark, numpy_folder):
    folder, embeddings, attributes = numpy_folder
    ids = [f"face {i:06d}" for i in range(len(embeddings))]
    (folder / "ids.txt").write_text("\n".join(ids), encoding="utf-8")
    compare(read(spark, folder), embeddings, attributes)
    table = pa.table({"image_id": ids, "label": np.arange(len(ids)), "other": [[1]] * len(ids)})
    pq.write_table(table, folder / "ids.parquet", row_group_size=7_001)
    rows = read(spark, folder)
    compare(rows, embeddings, attributes)
    assert [row["label"] for row in rows] == [str(i) for i in range(len(ids))]


def test_numpy_folders_that_do_not_fit_are_refused(spark, numpy_folder):
    folder, _, _ = numpy_folder
    with pytest.raises(DataError, match=r"neither ids\.txt .* nor ids\.parquet"):
        read(spark, folder)
    (folder / "ids.txt").write_text("a\nb\n")
    with pytest.raises(DataError, match=r"embeddings\.npy 70,000, attributes\.npy 70,000, ids\.txt 2"):
        read(spark, folder)
    np.save(folder / "embeddings.npy", np.zeros(3))
    with pytest.raises(DataError, match=r"shape \(3,\)"):
        read(spark, folder)
    with pytest.raises(DataError, match=r"is a \.npy file"):
        read(spark, folder / "embeddings.npy")
