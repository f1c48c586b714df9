"""Evaluation on Spark against the kernel in one process, the worked example and scikit-learn."""

import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import normalized_mutual_info_score

from faceclust_spark.config import ColumnsConfig
from faceclust_spark.errors import DataError
from faceclust_spark.kernels.metrics import score
from faceclust_spark.stages.evaluation import evaluation
from faceclust_spark.stages.labels import labels_of
from faceclust_spark.stages.output import stage_schema
from faceclust_spark.tables import columns as c
from faceclust_spark.tables import schemas

CLOSE = {"rel": 1e-12, "abs": 1e-12}
EXAMPLE = ([0, 0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 1, 2, 3])


def images(count):
    return [f"image-{number}" for number in range(count)]


def clusters_frame(spark, clusters):
    names = [f"c{cluster}" for cluster in clusters]
    return spark.createDataFrame(pa.table({c.IMAGE_ID: images(len(clusters)), c.CLUSTER_ID: names}))


def labels_frame(spark, labels, **columns):
    names = [None if label is None else f"person-{label}" for label in labels]
    return spark.createDataFrame(
        pa.table({c.IMAGE_ID: images(len(labels)), c.LABEL: pa.array(names, pa.string()), **columns})
    )


def evaluate(spark, labels, clusters, slices=(), **columns):
    found = evaluation(clusters_frame(spark, clusters), labels_frame(spark, labels, **columns), slices)
    expected = [(f.name, f.dataType.simpleString()) for f in stage_schema(schemas.EVALUATION)]
    assert [(f.name, f.dataType.simpleString()) for f in found.schema] == expected
    return found.toArrow().to_pylist()


def check(row, labels, clusters):
    """Compare a row with the kernel's scores of the faces given, those without a label left out."""
    pairs = [(a, b) for a, b in zip(labels, clusters, strict=True) if a is not None]
    labels, clusters = (np.array(side) for side in zip(*pairs, strict=True))
    _, sizes = np.unique(clusters, return_counts=True)
    counts = (len(labels), len(set(labels.tolist())), len(sizes), int((sizes == 1).sum()))
    assert tuple(row[name] for name in schemas.EVALUATION_COUNTS) == counts
    for name, value in zip(schemas.EVALUATION_METRICS, score(labels, clusters), strict=True):
        assert row[name] == (None if math.isnan(value) else pytest.approx(value, **CLOSE)), name


def names_of(rows, column):
    return [row[c.SLICE_VALUE] for row in rows if row[c.SLICE_COLUMN] == column]


def messy(seed, faces):
    """Give labels of skewed sizes, and clusters that agree with most of them."""
    generator = np.random.default_rng(seed)
    labels = (generator.pareto(0.7, faces) * 3).astype(np.int64) % (faces // 3)
    clusters = np.where(generator.random(faces) < 0.7, labels, generator.integers(0, faces, faces))
    return labels, clusters


def test_the_worked_example(spark):
    (row,) = evaluate(spark, *EXAMPLE)
    assert (row[c.SLICE_COLUMN], row[c.SLICE_VALUE]) == ("all", "all")
    assert [row[name] for name in schemas.EVALUATION_COUNTS] == [7, 3, 4, 2]
    expected = (0.5, 0.285714, 0.363636, 0.809524, 0.571429, 0.669951, 0.611724)
    assert [row[name] for name in schemas.EVALUATION_METRICS] == pytest.approx(expected, abs=5e-7)


@pytest.mark.parametrize(("seed", "faces"), [(0, 10), (1, 80), (2, 1_500)])
def test_random_clusterings(spark, seed, faces):
    labels, clusters = messy(seed, faces)
    (row,) = evaluate(spark, labels, clusters)
    check(row, labels, clusters)
    assert row["nmi"] == pytest.approx(normalized_mutual_info_score(labels, clusters), **CLOSE)


@pytest.mark.parametrize(
    ("labels", "clusters"),
    [
        ([0, 0, 1, 1], [0, 1, 2, 3]),  # all alone: no pair found
        ([0, 1, 2, 3], [0, 0, 1, 1]),  # no pair wanted
        ([0, 1, 2], [0, 1, 2]),
        ([0, 1, 1, 2, 2, 2], [7] * 6),  # one cluster
        ([0] * 5, [0, 1, 1, 2, 2]),  # one person
        ([0, 0], [4, 4]),
        ([0], [0]),
        ([0, 0, 1, 2], [0, 1, 1, 2]),  # no pair in common
    ],
)
def test_extremes(spark, labels, clusters):
    (row,) = evaluate(spark, labels, clusters)
    check(row, labels, clusters)


def test_nobody_scored_gives_no_rows(spark):
    assert evaluate(spark, [None, None], [0, 1], [c.IDENTITY_SIZE]) == []


def test_faces_without_a_label_are_not_scored(spark):
    labels, clusters = [0, 0, None, 1, None], [0, 0, 0, 1, 2]
    (row,) = evaluate(spark, labels, clusters)
    assert row["singletons"] == 1
    check(row, labels, clusters)


def test_slices_hold_their_own_faces_only(spark):
    labels, clusters = messy(3, 300)
    labels = [None if number % 11 == 0 else int(label) for number, label in enumerate(labels)]
    source = [("web", "id card", None)[number % 3] for number in range(300)]
    rows = evaluate(spark, labels, clusters, ["source", "source"], source=source)
    assert [row[c.SLICE_COLUMN] for row in rows] == ["all", "source", "source", "source"]
    assert names_of(rows, "source") == ["id card", "web", "(none)"]
    check(rows[0], labels, clusters)
    for row, value in zip(rows[1:], ("id card", "web", None), strict=True):
        inside = [number for number in range(300) if source[number] == value]
        check(row, [labels[i] for i in inside], [clusters[i] for i in inside])


def test_identity_size_is_always_there(spark):
    sizes = [1, 1, 2, 4, 5, 11, 12, 39, 40, 70]
    labels = np.repeat(np.arange(len(sizes)), sizes)
    clusters = np.arange(len(labels)) // 7
    rows = evaluate(spark, labels, clusters, [c.IDENTITY_SIZE])
    assert names_of(rows, c.IDENTITY_SIZE) == ["1", "2-4", "5-11", "12-39", "40+"]
    assert [row["identities"] for row in rows] == [10, 2, 2, 2, 2, 2]
    for row, (low, high) in zip(rows[1:], ((1, 1), (2, 4), (5, 11), (12, 39), (40, 99)), strict=True):
        inside = [i for i, label in enumerate(labels) if low <= sizes[label] <= high]
        check(row, labels[inside], clusters[inside])


def test_a_column_called_identity_size_wins(spark):
    rows = evaluate(spark, [0, 0, 1], [0, 0, 1], [c.IDENTITY_SIZE], identity_size=["small", "small", "big"])
    assert names_of(rows, c.IDENTITY_SIZE) == ["big", "small"]


def test_few_numbers_are_values_and_sort_as_numbers(spark):
    rows = evaluate(
        *(spark, [0] * 6, [0] * 6, ["decade", "text", "rate", "flag"]),
        decade=[20, 100, 20, 3, None, 100],
        text=["20", "100", "n/a", "3", None, "100"],
        rate=pa.array([0.1, 0.1, 0.5, math.nan, None, 0.5], pa.float32()),
        flag=[True, False, True, None, True, False],
    )
    assert names_of(rows, "decade") == ["3", "20", "100", "(none)"]
    assert names_of(rows, "text") == ["3", "20", "100", "n/a", "(none)"]
    assert names_of(rows, "rate") == ["0.1", "0.5", "(none)"]
    assert names_of(rows, "flag") == ["false", "true", "(none)"]


@pytest.mark.parametrize("as_text", [False, True])
def test_many_numbers_are_cut_at_their_quartiles(spark, as_text):
    labels, clusters = messy(5, 400)
    age = np.random.default_rng(5).permutation(400) % 80
    values = pa.array(age.astype(str).tolist() if as_text else age)
    rows = evaluate(spark, labels, clusters, ["age"], age=values)
    assert names_of(rows, "age") == ["up to 19", "19 to 39", "39 to 59", "over 59"]
    for row, (low, high) in zip(rows[1:], ((-1, 19), (19, 39), (39, 59), (59, 79)), strict=True):
        inside = (age > low) & (age <= high)
        assert inside.sum() == 100
        check(row, labels[inside], clusters[inside])


def test_numbers_with_few_quartiles(spark):
    quality = [*([0.0] * 60), *np.linspace(0.1234567, 0.9, 25).tolist(), None, math.nan]
    count = len(quality)
    rows = evaluate(spark, [0] * count, [0] * count, ["quality"], quality=quality)
    assert names_of(rows, "quality") == ["up to 0", "0 to 0.2205", "over 0.2205", "(none)"]
    assert [row["faces"] for row in rows[1:]] == [60, 3, 22, 2]


def test_too_many_values_are_refused(spark):
    photos = [f"photo {number}" for number in range(1_200)]
    with pytest.raises(DataError, match="more than 1,000 values: photo"):
        evaluate(spark, range(1_200), range(1_200), ["flag", "photo"], photo=photos, flag=[True] * 1_200)


def test_bits_do_not_depend_on_partitions(spark):
    labels, clusters = messy(8, 3_000)
    quality = np.random.default_rng(8).random(3_000)
    left, right = clusters_frame(spark, clusters), labels_frame(spark, labels, quality=quality)
    shuffle, results = spark.conf.get("spark.sql.shuffle.partitions"), []
    try:
        for partitions in (1, 7):
            spark.conf.set("spark.sql.shuffle.partitions", str(partitions))
            parts = left.repartition(partitions), right.repartition(partitions)
            results.append(evaluation(*parts, ["quality", c.IDENTITY_SIZE]).toArrow().to_pylist())
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", shuffle)
    assert len(results[0]) == 10
    assert results[0] == results[1]


# The door: where labels come from.


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
    labels_frame(spark, [0, 1]).write.format("delta").save(str(tmp_path / "labels"))
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
