"""Validation: compositions of people that training has not seen, clustered and scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from faceclust_spark.config import Config
from faceclust_spark.kernels.assignment import MEMBER
from faceclust_spark.kernels.grouping import batch_groups
from faceclust_spark.kernels.metrics import Scores, score
from faceclust_spark.kernels.model import Model
from faceclust_spark.kernels.recluster import Clustering, recluster
from faceclust_spark.kernels.refine import refine_groups
from faceclust_spark.kernels.rounds import Placed, join_clusters
from faceclust_spark.training.galleries import Composition, Recipe

RECIPES = (
    Recipe("as it is"),
    Recipe("few and large", people=30, images=(40, 80), least=4, off_centre=0.25),
    Recipe("many and middling", people=120, images=(12, 40), least=3, noise=0.2, attributes="some"),
)
_PAIRS_AT_ONCE = 500_000
CHANCE = 0.005  # of F on a few hundred people: what is ahead by less is not better for it


def evaluate(model: Model, composition: Composition, config: Config) -> Scores:
    """Cluster a composition, rounds included, and compare with its labels.

    A literal model is clustered by its confidences, whatever the config says: it has nothing else.
    """
    placed = place_faces(model, composition, config)
    if model.joiner is not None:
        placed = join_clusters(
            composition.gallery, placed, composition.links, model.joiner, composition.scale, config.rounds
        ).placed
    return score(identities(composition), placed.labels)


def place_faces(model: Model, composition: Composition, config: Config) -> Placed:
    """Cluster each root group of a composition, without rounds. Rows as the composition's gallery."""
    rule = "confidence" if model.kind == "literal" else config.clusters.rule
    clusters = config.clusters.model_copy(update={"rule": rule})
    found, ids = [], []
    for batch in batch_groups(composition.groups, config.confidences, _PAIRS_AT_ONCE):
        refined = refine_groups(batch, model, config.confidences, config.similarities, composition.scale)
        ids += [group.face_ids for group in batch]
        found += [
            recluster(group.face_ids, group.keys, one, clusters)
            for group, one in zip(batch, refined, strict=True)
        ]
    order = np.argsort(np.concatenate(ids))
    all_of = Clustering(*(np.concatenate(column)[order] for column in zip(*found, strict=True)))
    statuses = np.full(len(order), MEMBER)
    return Placed(all_of.labels, all_of.confidences, statuses, all_of.runner_ups, all_of.margins)


def identities(composition: Composition) -> NDArray[np.int64]:
    """Give the identity of each face. Rows as the composition's gallery."""
    order = np.argsort(np.concatenate([group.face_ids for group in composition.groups]))
    people: NDArray[np.int64] = np.concatenate(composition.labels)[order]
    return people


def validate(model: Model, held: Mapping[str, Composition], config: Config) -> dict[str, float]:
    """Give the mean of pairwise and BCubed F on each held-out composition."""
    model.network.eval()
    measured = {name: mean_f(evaluate(model, composition, config)) for name, composition in held.items()}
    model.network.train()
    return measured


def mean_f(scores: Scores) -> float:
    """Give the mean of pairwise and BCubed F.

    Where every image is left alone the share of right pairs is undefined, and counts as 0.
    """
    return (float(np.nan_to_num(scores.pairwise_f)) + scores.bcubed_f) / 2


def stale_for(measured: Sequence[float]) -> int:
    """Give the number of last validations that fell short of the best one, beyond what chance explains."""
    behind = np.array(measured) < max(measured) - CHANCE
    return int(np.argmin(behind[::-1]))
