"""Where the labels of an evaluation come from, and what is refused."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from faceclust_spark.config import ColumnsConfig
from faceclust_spark.errors import DataError
from faceclust_spark.stages.evaluation import evaluation
from faceclust_spark.stages.labels import labels_of
from faceclust_spark.stages.output import stage_schema
from faceclust_spark.tables import columns as c
from faceclust_spark.tables import schemas


def images(count):
    return [f"image-{number}" for number in range(count)]


def clusters_frame(spark, clusters):
    names = [f"c{cluster}" for cluster in clusters]
    columns = {c.IMAGE_ID: images(len(clusters)), c.CLUSTER_ID: names, c.CONFIDENCE: [0.5] * len(clusters)}
    return spark.createDataFrame(pa.table(columns))


def faces_frame(spark, labels, qualities=None, extra=None):
    count = len(labels)
    fields = stage_schema(schemas.FACES).fields
    columns = {field.name: [None] * count for field in fields}
    columns |= {c.FACE_ID: list(range(count)), c.IMAGE_ID: images(count), c.LABEL: list(labels)}
    columns |= {c.QUALITY: qualities or [0.5] * count, c.CONTENT_HASH: ["-"] * count}
    columns |= {c.EXTRA: extra or [None] * count}
    rows = list(zip(*(columns[field.name] for field in fields), strict=True))
    return spark.createDataFrame(rows, stage_schema(schemas.FACES))


def find(spark, labels, place=None, slices=(), columns=None, **of_faces):
    clusters = clusters_frame(spark, range(len(labels)))
    faces = faces_frame(spark, labels, **of_faces)
    return labels_of(
        clusters, faces, None if place is None else str(place), slices, columns or ColumnsConfig()
    )


def rows_of(found):
    return found.rows.orderBy(c.IMAGE_ID).toArrow().to_pylist()


def written(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


def test_labels_of_the_faces_themselves(spark):
    extra = [{"decade": "20", "camera": None}, {"decade": "30", "camera": "x"}, None]
    found = find(
        *(spark, ["a", None, "b"], None, ["quality", "decade", c.IDENTITY_SIZE, "decade", "label"]),
        extra=extra,
    )
    assert (found.scored, found.unscored) == (2, 1)
    assert rows_of(found) == [
        {"image_id": "image-0", "label": "a", "quality": 0.5, "decade": "20"},
        {"image_id": "image-2", "label": "b", "quality": 0.5, "decade": None},
    ]


def test_labels_from_a_file(spark, tmp_path):
    place = written(
        tmp_path / "labels.parquet",
        image_id=["image-0", "image-2", "image-2", "elsewhere", "image-1", None],
        label=[7, 8, 8, 9, None, 5],
        band=["low", None, None, "low", "low", "low"],
        note=["x", "repeated", "but not asked for", "", "", ""],
    )
    found = find(
        spark, ["own", None, None], place, ["band", "quality", "decade"], extra=[{"decade": "1"}] * 3
    )
    assert (found.scored, found.unscored) == (2, 1)
    assert rows_of(found)[1:] == [
        {"image_id": "image-0", "label": "7", "band": "low", "quality": 0.5, "decade": "1"},
        {"image_id": "image-2", "label": "8", "band": None, "quality": 0.5, "decade": "1"},
    ]
    rows = evaluation(clusters_frame(spark, [0, 0, 0]), found.rows, ["band"]).toArrow().to_pylist()
    assert [row["faces"] for row in rows] == [2, 1, 1]


def test_labels_under_the_names_of_the_source(spark, tmp_path):
    place = written(tmp_path / "gallery.parquet", file=["image-0"], person=["a"])
    columns = ColumnsConfig(image_id="file", label="person")
    assert rows_of(find(spark, [None], place, columns=columns)) == [{"image_id": "image-0", "label": "a"}]
    plain = written(tmp_path / "labels.parquet", image_id=["image-0"], label=["b"])
    assert rows_of(find(spark, [None], plain, columns=columns)) == [{"image_id": "image-0", "label": "b"}]


def test_labels_from_delta(spark, tmp_path):
    labels = spark.createDataFrame(pa.table({c.IMAGE_ID: images(2), c.LABEL: ["a", "b"]}))
    labels.write.format("delta").save(str(tmp_path / "labels"))
    assert find(spark, [None] * 3, tmp_path / "labels")[1:] == (2, 1)


def test_missing_slices_are_told_at_once_with_what_is_there(spark):
    with pytest.raises(DataError) as error:
        find(spark, ["a"], None, ["wild", "quality", "age"], extra=[{"decade": "20"}])
    assert "'wild'" in str(error.value)
    assert "'age'" in str(error.value)
    assert "quality, label, embedding_model, content_hash, decade; identity_size" in str(error.value)


def test_all_faults_of_a_file_are_told_at_once(spark, tmp_path):
    place = written(tmp_path / "odd.parquet", image_id=[0.5], person=["a"], vector=[[1, 2]])
    with pytest.raises(DataError) as error:
        find(spark, ["a"], place, ["vector", "age"])
    told = str(error.value)
    for fault in (
        "image_id: column 'image_id' is double",
        "column 'label' is missing",
        "'vector' is array<bigint>",
        "no column 'age'",
        "found: image_id, person, vector;",
    ):
        assert fault in told


def test_nothing_to_score_is_an_error_with_its_remedy(spark, tmp_path):
    with pytest.raises(DataError, match=r"none of the 2 clustered faces has a label: .*--labels"):
        find(spark, [None, None])
    strangers = written(tmp_path / "strangers.parquet", image_id=["a.jpg"], label=["a"])
    with pytest.raises(DataError, match=r"cover none of the 2 .*'a\.jpg'.*'image-0'"):
        find(spark, ["a", "b"], strangers)
    empty = written(tmp_path / "empty.parquet", image_id=["image-0"], label=pa.array([None], pa.string()))
    with pytest.raises(DataError, match="no row of the labels"):
        find(spark, ["a", "b"], empty)
    with pytest.raises(DataError, match="cannot read the source"):
        find(spark, ["a"], tmp_path / "absent.parquet")
    (tmp_path / "embeddings.npy").touch()
    with pytest.raises(DataError, match=r"ids\.parquet"):
        find(spark, ["a"], tmp_path)


def test_contradicting_labels_are_refused(spark, tmp_path):
    twice = [*images(2), *images(2)]
    labels = written(tmp_path / "labels.parquet", image_id=twice, label=["a", "b", "a", "c"])
    with pytest.raises(DataError, match="about 1 images, such as 'image-1' with the labels 'b' and 'c'"):
        find(spark, [None] * 2, labels)
    bands = written(tmp_path / "bands.parquet", image_id=twice, label=list("abab"), band=list("lhhh"))
    assert find(spark, [None] * 2, bands).scored == 2
    with pytest.raises(DataError, match="such as 'image-0' with several values to slice by"):
        find(spark, [None] * 2, bands, ["band"])
