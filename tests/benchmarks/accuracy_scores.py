"""Scores of one clustering: as a whole, by source, by size of identity."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from faceclust_spark.kernels.metrics import score
from faceclust_spark.training.validation import mean_f

SIZES = {"1": (1, 1), "2-5": (2, 5), "6-20": (6, 20), "21+": (21, 1 << 62)}


def measure(labels: ArrayLike, clusters: ArrayLike) -> dict[str, Any]:
    """Give all scores, mean F, and the numbers of faces, people and clusters; None where undefined."""
    scores = score(labels, clusters)
    values = {name: None if math.isnan(value) else value for name, value in scores._asdict().items()}
    return {
        "faces": len(np.asarray(labels)),
        "people": len(np.unique(labels)),
        "clusters": len(np.unique(clusters)),
        "mean_f": mean_f(scores),
        **values,
    }


def measure_all(labels: ArrayLike, clusters: ArrayLike, sources: ArrayLike) -> dict[str, Any]:
    """Give `measure` of the whole, in `sources` of the rows of each source, and `sizes` by `by_size`."""
    labels, clusters, sources = np.asarray(labels), np.asarray(clusters), np.asarray(sources)
    parts = {str(name): sources == name for name in np.unique(sources)}
    return {
        **measure(labels, clusters),
        "sources": {name: measure(labels[rows], clusters[rows]) for name, rows in parts.items()},
        "sizes": by_size(labels, clusters),
    }


def by_size(labels: ArrayLike, clusters: ArrayLike) -> dict[str, dict[str, Any]]:
    """Give BCubed precision, recall and F of the images whose person has so many images.

    An image's precision is the share of its cluster that is of its person, its recall the share of its
    person that is in its cluster: both over the whole gallery, averaged over the images of one size.
    """
    precision, recall = bcubed_of_images(labels, clusters)
    person = np.unique(np.asarray(labels), return_inverse=True)[1]
    size = np.bincount(person)[person]
    found = {}
    for name, (least, most) in SIZES.items():
        rows = (size >= least) & (size <= most)
        if rows.any():
            p, r = float(precision[rows].mean()), float(recall[rows].mean())
            values = {"bcubed_precision": p, "bcubed_recall": r, "bcubed_f": 2 * p * r / (p + r)}
            found[name] = {"faces": int(rows.sum()), **values}
    return found


def bcubed_of_images(
    labels: ArrayLike, clusters: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give each image's BCubed precision and recall, `(n,)` each, above 0 up to 1."""
    person = np.unique(np.asarray(labels), return_inverse=True)[1]
    cluster = np.unique(np.asarray(clusters), return_inverse=True)[1]
    cell = np.unique(person * (int(cluster.max(initial=0)) + 1) + cluster, return_inverse=True)[1]
    together = np.bincount(cell)[cell]
    return together / np.bincount(cluster)[cluster], together / np.bincount(person)[person]
