import sys

import numpy as np
import pytest
from matplotlib import pyplot

from faceclust_spark.config import Config, SynthConfig
from faceclust_spark.errors import DataError, InfrastructureError
from faceclust_spark.kernels.diagnostics import calibrate, number_labels, sample_pairs, score_components
from faceclust_spark.kernels.faces import quantise_faces
from faceclust_spark.kernels.metrics import score
from faceclust_spark.kernels.synth import draw_gallery
from faceclust_spark.kernels.thresholds import Thresholds
from faceclust_spark.views import pictures

pytestmark = pytest.mark.usefixtures("headless")

THRESHOLDS = Thresholds(0.25, (0.31, 0.42, 0.53), 0.0, 0.09, "given", "given")


@pytest.fixture(scope="module")
def gallery():
    """A labelled gallery, and clusters that are its persons with every seventh face astray."""
    faces = draw_gallery(SynthConfig(faces=600, dimension=64))
    clusters = np.unique(faces.labels, return_inverse=True)[1]
    clusters[::7] = np.roll(clusters, 1)[::7]
    return faces, clusters


def lines(ax):
    return {line.get_label(): line for line in ax.lines}


def verticals(ax):
    return [line.get_xdata()[0] for line in ax.lines if line.get_xdata()[0] == line.get_xdata()[-1]]


def stairs(ax):
    return {patch.get_label(): patch.get_data() for patch in ax.patches}


def assert_readable(ax):
    assert ax.get_title()
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    assert ax.get_legend()
    ax.figure.draw_without_rendering()
    edges = ax.figure.bbox
    for text in (ax.title, ax.xaxis.label, ax.yaxis.label):
        box = text.get_window_extent()
        assert box.x0 >= edges.x0
        assert box.x1 <= edges.x1, text


def test_the_histogram_has_a_line_at_each_threshold(gallery):
    faces, _ = gallery
    ax = pictures.similarity_histogram(faces.embeddings, THRESHOLDS, faces.labels)
    assert verticals(ax) == [0.25, 0.31, 0.42, 0.53]
    assert [text.get_text() for text in ax.texts] == ["0.25", "0.31", "0.42", "0.53"]
    assert ax.get_yscale() == "log"
    assert_readable(ax)


def test_the_histogram_holds_every_pair_once(gallery):
    faces, _ = gallery
    config = Config.model_validate({"neighbours": {"k": 9}})
    ax = pictures.similarity_histogram(faces.embeddings, THRESHOLDS, faces.labels, config=config)
    pairs = sample_pairs(quantise_faces(faces.embeddings).vectors, number_labels(faces.labels, 600), 9)
    drawn = stairs(ax)
    kinds = ("random pairs", "a face and its 9 nearest", "same person", "two persons")
    assert tuple(drawn) == kinds
    for kind, cosines in zip(kinds, pairs, strict=True):
        assert drawn[kind].values.sum() == len(cosines)
        inside = (cosines >= 0.5) & (cosines < 0.52)
        place = np.flatnonzero(np.isclose(drawn[kind].edges, 0.5))[0]
        assert drawn[kind].values[place] == inside.sum()
    share = (pairs.same >= np.float32(0.31)).mean()
    assert ax.get_title().startswith(f"{share:.0%} of same-person pairs")


def test_the_histogram_does_without_labels(gallery):
    faces, _ = gallery
    ax = pictures.similarity_histogram(faces.embeddings, THRESHOLDS)
    assert list(stairs(ax)) == ["random pairs", "a face and its 40 nearest"]
    assert "of random pairs lie above 0.31" in ax.get_title()


def test_sizes_are_counted_from_the_largest_down():
    clusters = ["a"] * 4 + ["b"] * 2 + ["c"] * 2 + ["d"]
    ax = pictures.cluster_sizes(clusters, ["x"] * 6 + ["y", None, "z"])
    drawn = lines(ax)
    assert drawn["clusters"].get_xydata().tolist() == [[1, 4], [2, 3], [4, 1]]
    assert drawn["true persons"].get_xydata().tolist() == [[1, 3], [6, 1]]
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert ax.get_title() == "4 clusters, 1 of one face; 3 persons, 2 with one face"
    assert_readable(ax)


def test_sizes_do_without_labels(gallery):
    assert list(lines(pictures.cluster_sizes(gallery[1]))) == ["clusters"]


def test_precision_and_recall_are_those_of_the_metrics(gallery):
    faces, clusters = gallery
    ax = pictures.precision_recall(faces.embeddings, faces.labels, clusters, THRESHOLDS)
    curve, first, best, own = ax.lines
    person, vectors = number_labels(faces.labels, 600), quantise_faces(faces.embeddings).vectors
    levels = np.linspace(0.25, 0.95, 41)
    assert len(curve.get_xydata()) == 41
    for place in (0, 20, 40):
        (expected,) = score_components(vectors, person, [levels[place]], Config())
        at = expected.pairwise_recall, expected.pairwise_precision
        np.testing.assert_array_equal(curve.get_xydata()[place], at)
    marks = [
        (s.pairwise_recall, s.pairwise_precision)
        for s in score_components(vectors, person, THRESHOLDS.groups, Config())
    ]
    np.testing.assert_array_equal(first.get_xydata(), marks)
    expected = score(faces.labels, clusters)
    assert own.get_xydata().tolist() == [[expected.pairwise_recall, expected.pairwise_precision]]
    recall, precision = curve.get_data()
    top = np.nanargmax(2 * recall * precision / (recall + precision))
    assert best.get_xydata().tolist() == [[recall[top], precision[top]]]
    assert f"threshold {levels[top]:.2f}" in best.get_label()
    assert ax.get_title().startswith(f"Clusters: pairwise F {expected.pairwise_f:.2f}")
    assert_readable(ax)


def test_faces_without_a_label_are_not_scored(gallery):
    faces, clusters = gallery
    labels = faces.labels.copy()
    labels[:200] = None
    own = pictures.precision_recall(faces.embeddings, labels, clusters, THRESHOLDS).lines[-1]
    expected = score(faces.labels[200:], clusters[200:])
    assert own.get_xydata().tolist() == [[expected.pairwise_recall, expected.pairwise_precision]]


def test_calibration_has_a_point_and_a_number_for_each_filled_bin(gallery):
    faces, clusters = gallery
    confidences = np.random.default_rng(0).uniform(0.35, 1.0, 600)
    ax = pictures.calibration(faces.labels, clusters, confidences)
    found = calibrate(number_labels(faces.labels, 600), clusters, confidences, 10)
    points = lines(ax)["faces in clusters of two or more"].get_xydata()
    np.testing.assert_array_equal(points, np.stack([found.confidence, found.share], axis=1))
    assert len(points) == 7
    assert [text.get_text() for text in ax.texts] == [str(n) for n in found.faces]
    assert_readable(ax)


def test_a_picture_is_drawn_where_it_is_told(gallery):
    faces, clusters = gallery
    _, places = pyplot.subplots(2, 2)
    at = places.ravel()
    assert pictures.similarity_histogram(faces.embeddings, THRESHOLDS, ax=at[0]) is at[0]
    assert pictures.cluster_sizes(clusters, ax=at[1]) is at[1]
    assert pictures.precision_recall(faces.embeddings, faces.labels, clusters, THRESHOLDS, ax=at[2]) is at[2]
    assert pictures.calibration(faces.labels, clusters, np.ones(600), ax=at[3]) is at[3]


def test_faults_of_labels_are_told(gallery):
    faces, clusters = gallery
    with pytest.raises(DataError, match="5 labels for 600 faces"):
        pictures.precision_recall(faces.embeddings, faces.labels[:5], clusters, THRESHOLDS)


def test_a_missing_matplotlib_is_told_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InfrastructureError, match=r"pip install 'faceclust-spark\[notebook\]'"):
        pictures.cluster_sizes([1, 1, 2])
