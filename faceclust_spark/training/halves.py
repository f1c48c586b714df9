"""What is learned from clusters of people whom the network behind them has not learned.

Among learned people clusters are better than they will ever be again. So two networks learn from half of the
people each, and cluster whole compositions; of these counts what concerns the other half. Among half of the
people hosts would be fewer: a joiner of half compositions lost 0.003 to 0.008 on whole galleries. People held
out for validation are among them: they are held out from the network that is kept.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from faceclust_spark.config import Config
from faceclust_spark.kernels.calibration import AloneCalibration, Calibration
from faceclust_spark.kernels.joiner import Joiner
from faceclust_spark.kernels.model import Model
from faceclust_spark.kernels.rounds import Placed, join_clusters
from faceclust_spark.training.calibrating import Judged, fit_judged, judge, judge_alone
from faceclust_spark.training.galleries import Composition
from faceclust_spark.training.joining import Examples, draw_meetings, fit_joiner
from faceclust_spark.training.material import Whole
from faceclust_spark.training.validation import identities, place_faces

log = logging.getLogger(__name__)

BIASES = (-0.75, 0.0)  # beside the config's own: clusters of laxer re-clustering too


class Learned(NamedTuple):
    """What stands beside the network in a model; None where there was nothing to learn from."""

    joiner: Joiner | None
    calibration: Calibration | None
    alone: AloneCalibration | None


def learn_from_halves(wholes: Sequence[Whole], models: Sequence[Model | None], config: Config) -> Learned:
    """Learn to join clusters, and what confidences mean before and after.

    models: of each half of the people, or None where it has no examples.
    """
    meetings: list[Examples] = []
    judged: list[Judged] = []
    clustered: list[tuple[Composition, Placed, NDArray[np.bool_]]] = []
    for number, model in enumerate(models):
        if model is None:
            continue
        for whole in wholes:
            people = identities(whole.composition)
            counts = np.isin(people, whole.first_half) == bool(number)
            for step in BIASES:
                placed = _cluster(model, whole.composition, step, config)
                meetings.append(draw_meetings(whole.composition, placed.labels, people, counts, config))
                if step == 0:
                    judged.append(judge(placed, people, counts))
                    clustered.append((whole.composition, placed, counts))
    meetings = [some for some in meetings if len(some.same)]
    judged = [some for some in judged if len(some.right)]
    log.info("%d meetings of clusters to learn to join from", sum(len(some.same) for some in meetings))
    joiner = fit_joiner(meetings, config.train) if meetings else None
    calibration = Calibration(*fit_judged(judged)) if judged else None
    return Learned(joiner, calibration, learn_alone(clustered, joiner, config) if joiner else None)


def learn_alone(
    clustered: Sequence[tuple[Composition, Placed, NDArray[np.bool_]]], joiner: Joiner, config: Config
) -> AloneCalibration | None:
    """Learn what the confidence of an image alone means, from those that the rounds leave alone."""
    judged = []
    for own, placed, counts in clustered:
        played = join_clusters(own.gallery, placed, own.links, joiner, own.scale, config.rounds)
        judged.append(judge_alone(played.placed, identities(own), counts))
    judged = [some for some in judged if len(some.right)]
    return AloneCalibration(*fit_judged(judged)) if judged and config.rounds.count else None


def _cluster(model: Model, composition: Composition, step: float, config: Config) -> Placed:
    """Cluster a composition with a bias that differs from the config's by `step`."""
    clusters = config.clusters.model_copy(update={"bias": config.clusters.bias + step})
    return place_faces(model, composition, config.model_copy(update={"clusters": clusters}))
