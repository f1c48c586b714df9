"""Evaluation on Spark against the kernel in one process, the worked example and scikit-learn."""

import math

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import normalized_mutual_info_score

from faceclust_spark.errors import DataError
from faceclust_spark.kernels.metrics import score, score_confidences
from faceclust_spark.stages.evaluation import evaluation
from faceclust_spark.stages.output import stage_schema
from faceclust_spark.tables import columns as c
from faceclust_spark.tables import schemas

CLOSE = {"rel": 1e-12, "abs": 1e-12}
EXAMPLE = ([0, 0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 1, 2, 3])


def images(count):
    return [f"image-{number}" for number in range(count)]


def confidences_of(count):
    return np.random.default_rng(count).beta(5, 1, count).astype(np.float32)


def clusters_frame(spark, clusters):
    names, sure = [f"c{cluster}" for cluster in clusters], confidences_of(len(clusters))
    columns = {c.IMAGE_ID: images(len(clusters)), c.CLUSTER_ID: names, c.CONFIDENCE: sure}
    return spark.createDataFrame(pa.table(columns))


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


def check(row, labels, clusters, inside=None):
    """Compare a row with the kernel's scores of the faces inside, those without a label left out."""
    inside = range(len(labels)) if inside is None else inside
    rows = [number for number in inside if labels[number] is not None]
    sure = confidences_of(len(labels))[rows]
    labels, clusters = np.array([f"person-{labels[i]}" for i in rows]), np.array([clusters[i] for i in rows])
    _, sizes = np.unique(clusters, return_counts=True)
    counts = (len(labels), len(set(labels.tolist())), len(sizes), int((sizes == 1).sum()))
    assert tuple(row[name] for name in schemas.EVALUATION_COUNTS) == counts
    for name, value in zip(schemas.EVALUATION_METRICS, score(labels, clusters), strict=True):
        assert row[name] == (None if math.isnan(value) else pytest.approx(value, **CLOSE)), name
    worth = score_confidences(labels, clusters, sure)
    for name, value in zip(schemas.EVALUATION_RELIABILITY, worth, strict=True):
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


def test_confidences_of_the_worked_example(spark):
    """Faces 2 and 4 are not of their cluster's main person, face 5 is alone."""
    labels, clusters = [1, 1, 2, 2, 3, 3], [0, 0, 0, 1, 1, 2]
    rows = pa.table(
        {
            c.IMAGE_ID: images(6),
            c.CLUSTER_ID: [f"c{cluster}" for cluster in clusters],
            c.CONFIDENCE: pa.array([1.0, 0.5, 0.25, 0.75, 0.5, 0.125], pa.float32()),
        }
    )
    (row,) = evaluation(spark.createDataFrame(rows), labels_frame(spark, labels), ()).toArrow().to_pylist()
    assert (row["members"], row["mean_confidence"], row["share_right"]) == (5, 0.6, 0.6)
    assert row["brier"] == pytest.approx((0 + 0.25 + 0.0625 + 0.0625 + 0.25) / 5)


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
        check(row, labels, clusters, [number for number in range(300) if source[number] == value])


def test_identity_size_is_always_there(spark):
    sizes = [1, 1, 2, 4, 5, 11, 12, 39, 40, 70]
    labels = np.repeat(np.arange(len(sizes)), sizes)
    clusters = np.arange(len(labels)) // 7
    rows = evaluate(spark, labels, clusters, [c.IDENTITY_SIZE])
    assert names_of(rows, c.IDENTITY_SIZE) == ["1", "2-4", "5-11", "12-39", "40+"]
    assert [row["identities"] for row in rows] == [10, 2, 2, 2, 2, 2]
    for row, (low, high) in zip(rows[1:], ((1, 1), (2, 4), (5, 11), (12, 39), (40, 99)), strict=True):
        check(row, labels, clusters, [i for i, label in enumerate(labels) if low <= sizes[label] <= high])


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
        check(row, labels, clusters, np.flatnonzero(inside))


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
