"""Training of calibrations: images of people that a network had not learned, in clusters and alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from faceclust_spark.kernels.calibration import alone_inputs, calibration_inputs, fit_curve
from faceclust_spark.kernels.metrics import judge_members
from faceclust_spark.kernels.rounds import Placed


class Judged(NamedTuple):
    """Images of one composition, and whether they are where they belong."""

    inputs: NDArray[np.float64]  # (n, 4) of members of clusters, (n, 3) of those alone
    right: NDArray[np.bool_]  # (n,) the image shows the person whom most of its cluster show; or has no like


def judge(placed: Placed, people: NDArray[np.int64], counts: NDArray[np.bool_]) -> Judged:
    """Judge the members of clusters of two or more that count. placed: without a calibration."""
    is_member, is_right = judge_members(people, placed.labels)
    kept = counts & is_member
    cluster = np.unique(placed.labels, return_inverse=True)[1]
    sure = placed.confidences[kept].astype(np.float64)
    with np.errstate(divide="ignore"):  # they are limited later
        own = np.log(sure) - np.log1p(-sure)
    inputs = calibration_inputs(own, placed.margins[kept], np.bincount(cluster)[cluster[kept]])
    return Judged(inputs, is_right[kept])


def judge_alone(placed: Placed, people: NDArray[np.int64], counts: NDArray[np.bool_]) -> Judged:
    """Judge the images that are alone after the rounds and count: right are those of people of one image."""
    _, cluster, sizes = np.unique(placed.labels, return_inverse=True, return_counts=True)
    _, person, images = np.unique(people, return_inverse=True, return_counts=True)
    kept = counts & (sizes[cluster] == 1)
    inputs = alone_inputs(placed.confidences[kept], int((sizes == 1).sum()), len(sizes))
    return Judged(inputs, images[person][kept] == 1)


def fit_judged(judged: Sequence[Judged]) -> Sequence[float]:
    """Fit the weights of a calibration. Compositions count by the square root of their images."""
    share = np.concatenate([np.full(len(some.right), len(some.right) ** -0.5) for some in judged])
    inputs = np.concatenate([some.inputs for some in judged])
    return fit_curve(inputs, np.concatenate([some.right for some in judged]), share)
