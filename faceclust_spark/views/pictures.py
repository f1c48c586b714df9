"""Pictures of a clustering: arrays in, matplotlib axes out. They need the extra `notebook`.

    found = faceclust_spark.cluster(embeddings)
    similarity_histogram(embeddings, found.thresholds, labels)
    cluster_sizes(found.labels, labels)

Labels may be None, or NaN, for faces whose person is unknown: such faces are left out where persons count.
With `ax` a picture is drawn there, else on a new figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from faceclust_spark.config import Config
from faceclust_spark.errors import InfrastructureError
from faceclust_spark.kernels import diagnostics
from faceclust_spark.kernels.diagnostics import UNKNOWN, number_labels
from faceclust_spark.kernels.faces import quantise_faces
from faceclust_spark.kernels.metrics import Scores, score

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray

    from faceclust_spark.kernels.thresholds import Thresholds

# Okabe and Ito's colours, which the colour-blind tell apart.
_BLUE, _VERMILION, _GREEN, _GREY = "#0072B2", "#D55E00", "#009E73", "#8C8C8C"
_SIZE = (7.0, 4.6)  # inches
_BIN = 0.02  # of cosine
_SWEEP = 41  # thresholds of the curve
_HIGHEST = 0.95  # cosine at which the curve ends
_BINS = 10  # of confidence


def similarity_histogram(
    embeddings: NDArray[np.floating],
    thresholds: Thresholds,
    labels: Sequence[Any] | None = None,
    *,
    config: Config | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw how often each cosine occurs, beside the floor and the first thresholds.

    Shown are pairs of random faces, pairs of a face and its K nearest and, with labels, pairs of one person
    and of two. Counts, on a log axis: where two curves cross, either kind of pair is as likely. At most
    500 faces are compared with all.

    Shapes: raw embeddings `(n, d)` with n >= 2, labels `(n,)`. config: K is its `neighbours.k`.
    """
    ax, count = _axes(ax), len(embeddings)
    person = np.full(count, UNKNOWN) if labels is None else number_labels(labels, count)
    k = min((config or Config()).neighbours.k, count - 1)
    pairs = diagnostics.sample_pairs(quantise_faces(embeddings).vectors, person, k)
    _stairs(ax, pairs.random, "random pairs", color=_GREY, fill=True, alpha=0.35)
    _stairs(ax, pairs.nearest, f"a face and its {k} nearest", color=_GREEN, linewidth=1.6)
    lowest = thresholds.groups[0]
    told = f"{_above(pairs.random, lowest)} of random pairs"
    if labels is not None:
        _stairs(ax, pairs.same, "same person", color=_BLUE, linewidth=1.6)
        _stairs(ax, pairs.different, "two persons", color=_VERMILION, linewidth=1.6, linestyle="--")
        told = (
            f"{_above(pairs.same, lowest)} of same-person pairs, {_above(pairs.different, lowest)} of others"
        )
    ax.set_yscale("log")
    ax.set_ylim(bottom=0.7)
    _mark_thresholds(ax, thresholds)
    ax.set_title(f"{told} lie above {lowest:.2f}", fontsize="medium")
    ax.set_xlabel("cosine of two faces (higher is closer)")
    ax.set_ylabel(f"pairs in a bin of {_BIN} (log scale)")
    ax.legend(
        frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3
    )  # curves may be anywhere
    return ax


def cluster_sizes(
    clusters: ArrayLike, labels: Sequence[Any] | None = None, *, ax: Axes | None = None
) -> Axes:
    """Draw how many clusters have at least so many faces, beside the true persons; both axes log.

    The curves lie on each other where clusters are as large as persons. Clusters above persons at one face
    and below them further on tell of persons who are in pieces.

    Shapes: `(n,)`, labels `(n,)`.
    """
    ax = _axes(ax)
    sizes = np.unique(np.asarray(clusters), return_counts=True)[1]
    told = f"{len(sizes):,} clusters, {np.count_nonzero(sizes == 1):,} of one face"
    if labels is not None:
        person = number_labels(labels, int(sizes.sum()))
        people = np.unique(person[person != UNKNOWN], return_counts=True)[1]
        style = {"color": _VERMILION, "linestyle": "--", "marker": "s", "markerfacecolor": "none"}
        _at_least(ax, people, "true persons", **style)
        told += f"; {len(people):,} persons, {np.count_nonzero(people == 1):,} with one face"
    _at_least(ax, sizes, "clusters", color=_BLUE, marker="o")
    for axis, scale in ((ax.xaxis, ax.set_xscale), (ax.yaxis, ax.set_yscale)):
        scale("log")
        axis.set_major_formatter("{x:,.0f}")
    ax.set_title(told, fontsize="medium")
    ax.set_xlabel("faces (log scale)")
    ax.set_ylabel("clusters, or persons, of at least that size (log scale)")
    ax.legend(frameon=False)
    return ax


def precision_recall(
    embeddings: NDArray[np.floating],
    labels: Sequence[Any],
    clusters: ArrayLike,
    thresholds: Thresholds,
    *,
    config: Config | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw pairwise precision against recall: the clusters' point, and connected components at every cosine.

    The curve is what a single threshold can do: components of the graph of each face's K nearest, from the
    floor up to 0.95. Squares are the first thresholds, the circle is where F is best: a threshold that only
    labels can find. Above and to the right is better.

    Shapes: raw embeddings `(n, d)`, labels and clusters `(n,)`. config: its `cells` and `neighbours`.
    """
    ax, person = _axes(ax), number_labels(labels, len(embeddings))
    first = thresholds.groups
    levels = np.linspace(thresholds.floor, max(_HIGHEST, *first), _SWEEP).tolist()
    vectors = quantise_faces(embeddings).vectors
    scores = diagnostics.score_components(vectors, person, [*levels, *first], config or Config())
    curve, marks = scores[:_SWEEP], scores[_SWEEP:]
    known = person != UNKNOWN
    own = score(person[known], np.asarray(clusters)[known])
    best = int(np.nanargmax([at.pairwise_f for at in curve]))
    ax.plot(*_rates(curve), color=_VERMILION, marker=".", label="components, one threshold each")
    shown = ", ".join(f"{level:.2f}" for level in reversed(first))
    _points(ax, marks, f"components at the first thresholds {shown}", marker="s", color=_VERMILION)
    ring = {"marker": "o", "markersize": 11, "color": _VERMILION, "markerfacecolor": "none"}
    _points(ax, [curve[best]], f"components at the best threshold {levels[best]:.2f}", **ring)
    _points(ax, [own], "clusters", marker="*", markersize=16, color=_BLUE)
    ax.set_xlim(0.0, 1.02)
    ax.set_ylim(0.0, 1.05)
    told = f"Clusters: pairwise F {own.pairwise_f:.2f}"
    ax.set_title(f"{told}; the best single threshold: {curve[best].pairwise_f:.2f}", fontsize="medium")
    ax.set_xlabel("recall: share of one person's pairs that are together")
    ax.set_ylabel("precision: share of pairs together\nthat are of one person")
    ax.legend(frameon=False, loc="lower left")
    return ax


def calibration(
    labels: Sequence[Any], clusters: ArrayLike, confidences: ArrayLike, *, ax: Axes | None = None
) -> Axes:
    """Draw how many of the faces of each confidence are in the right cluster.

    Right is a face whose person is its cluster's most frequent one (of equals the smaller label). Faces
    alone in their cluster are left out, as are faces without a label. Bars are 95 % intervals, numbers are
    faces.

    Shapes: `(n,)` each; confidences 0 to 1. Raises DataError where no cluster has two labelled faces.
    """
    ax, cluster = _axes(ax), np.unique(np.asarray(clusters), return_inverse=True)[1]
    person = number_labels(labels, len(cluster))
    found = diagnostics.calibrate(person, cluster, np.asarray(confidences, np.float64), _BINS)
    ax.plot([0, 1], [0, 1], color=_GREY, linestyle="--", label="as often right as sure")
    ax.vlines(found.confidence, found.low, found.high, color=_BLUE, alpha=0.5)
    ax.plot(found.confidence, found.share, "o", color=_BLUE, label="faces in clusters of two or more")
    for x, y, faces in zip(found.confidence, found.high, found.faces, strict=True):
        ax.annotate(f"{faces:,}", (x, y), (0, 6), textcoords="offset points", ha="center", fontsize="small")
    ax.set_xlim(0.0, 1.05)
    ax.set_ylim(-0.03, 1.1)
    right, sure = (np.average(of, weights=found.faces) for of in (found.share, found.confidence))
    ax.set_title(f"{right:.1%} of members are right, {sure:.1%} is their mean confidence", fontsize="medium")
    ax.set_xlabel("confidence of a face (mean of a bin)")
    ax.set_ylabel("share of faces in the right cluster")
    ax.legend(frameon=False, loc="lower right")
    return ax


def _axes(ax: Axes | None) -> Axes:
    return pyplot().subplots(figsize=_SIZE, layout="constrained")[1] if ax is None else ax


def pyplot() -> ModuleType:
    """Give matplotlib's pyplot. Raises InfrastructureError where it is not installed."""
    try:
        from matplotlib import pyplot as drawn
    except ImportError as error:
        raise InfrastructureError(
            f"pictures need matplotlib: pip install 'faceclust-spark[notebook]' ({error})"
        ) from None
    return drawn


def _stairs(ax: Axes, cosines: NDArray[np.float32], label: str, **style: Any) -> None:
    edges = np.linspace(-1.0, 1.0, round(2.0 / _BIN) + 1)
    # A near-duplicate's cosine may pass 1 by a step of the grid.
    counts = np.histogram(np.clip(cosines, -1.0, 1.0), edges)[0]
    filled = np.flatnonzero(counts)
    first, end = (filled[0], filled[-1] + 1) if len(filled) else (0, 1)
    ax.stairs(counts[first:end], edges[first : end + 1], label=label, **style)


def _mark_thresholds(ax: Axes, thresholds: Thresholds) -> None:
    """Draw the floor, named on its left, and the first thresholds, named on their right."""
    ax.axvline(thresholds.floor, color="black", linewidth=1.0, linestyle=":", label="floor")
    label = "first thresholds"
    for level in thresholds.groups:
        ax.axvline(level, color="black", linewidth=0.9, label=label)
        label = "_"  # named once in the legend
    for level, side in ((thresholds.floor, "right"), *((level, "left") for level in thresholds.groups)):
        place: dict[str, Any] = {
            "transform": ax.get_xaxis_transform(),
            "rotation": 90,
            "ha": side,
            "va": "top",
        }
        ax.text(level, 0.98, f"{level:.2f}", fontsize="small", **place)


def _above(cosines: NDArray[np.float32], level: float) -> str:
    share = float((cosines >= np.float32(level)).mean()) if cosines.size else 0.0
    return f"{share:.0%}" if share >= 0.1 else f"{share:.2%}"


def _at_least(ax: Axes, sizes: NDArray[np.int64], label: str, **style: Any) -> None:
    """Draw a point for each size that occurs: how many are of that size or larger."""
    values, counts = np.unique(sizes, return_counts=True)
    ax.plot(values, counts[::-1].cumsum()[::-1], label=label, markersize=5, linewidth=1.2, **style)


def _points(ax: Axes, scores: Sequence[Scores], label: str, **style: Any) -> None:
    ax.plot(*_rates(scores), linestyle="none", label=label, **style)


def _rates(scores: Sequence[Scores]) -> tuple[list[float], list[float]]:
    return [at.pairwise_recall for at in scores], [at.pairwise_precision for at in scores]
