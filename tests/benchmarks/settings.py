"""What settings and inputs are worth: a model's clusters with one thing changed, nothing trained again.

    FACECLUST_DATA=FOLDER python tests/benchmarks/settings.py --model MODEL --half B
    FACECLUST_DATA=FOLDER python tests/benchmarks/settings.py --model MODEL --only defaults,no_rounds

A half of the people of both real sets is clustered by a model of the other half (`train_shipped.py --half`),
once for each change. The last line on stdout is one JSON object: a row for each change and set in `results`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from accuracy_faces import DEV_SETS, Faces, half, read_faces
from accuracy_methods import Training, by_model
from accuracy_scores import measure
from common import answer, say
from numpy.typing import NDArray
from options import add_names, parser_of_model

from faceclust_spark.kernels.grid import normalise
from faceclust_spark.kernels.norms import feature_norms

SEED = 2_024  # of what is drawn

Values = NDArray[np.float32]  # (n, a) attributes, or (n, d) embeddings


def _same(values: Values) -> Values:
    return values


class Change(NamedTuple):
    """What is other than by default: settings, the attributes, or the embeddings."""

    what: str
    settings: tuple[str, ...] = ()
    attributes: Callable[[Values], Values] = _same
    embeddings: Callable[[Values], Values] = _same


def _random(values: Values) -> Values:
    return np.random.default_rng(SEED).normal(size=values.shape).astype(np.float32)


def _other_order(values: Values) -> Values:
    return values[:, np.random.default_rng(SEED).permutation(values.shape[1])]


def _shuffled(values: Values) -> Values:
    return np.random.default_rng(SEED).permuted(values, axis=0)


def _half_of_them(values: Values) -> Values:
    generator = np.random.default_rng(SEED)
    some = values[:, np.sort(generator.permutation(values.shape[1])[: values.shape[1] // 2])].copy()
    some[generator.random(some.shape) < 0.1] = np.nan
    return some


def _off_centre(values: Values) -> Values:
    """Add one direction to all, so that two people have a cosine of 0.8."""
    common = normalise(np.random.default_rng(SEED).normal(size=(1, values.shape[1])))
    return _with_norms(normalise(values) + 2 * common, feature_norms(values))


def _normalised(values: Values) -> Values:
    return normalise(values).astype(np.float32)


def _shuffled_norms(values: Values) -> Values:
    return _with_norms(values, np.random.default_rng(SEED).permutation(feature_norms(values)))


def _with_norms(values: NDArray[np.floating], norms: Values) -> Values:
    return (norms[:, None] * normalise(values)).astype(np.float32)


_LINKS_ALONE = ("confidences.dense_size=2", "confidences.block_neighbours=40")
CHANGES = {
    "defaults": Change("defaults"),
    "no_rounds": Change("without rounds", ("rounds.count=0",)),
    "no_moves": Change("no image moves to a nearer cluster", ("clusters.move_lead=null",)),
    "two_rounds": Change("two rounds", ("rounds.count=2",)),
    "one_threshold": Change("one first threshold", ("coarse_groups.spread=[0]",)),
    "k_20": Change("`neighbours.k` 20", ("neighbours.k=20",)),
    "k_80": Change("`neighbours.k` 80", ("neighbours.k=80",)),
    "k_160": Change("`neighbours.k` 160", ("neighbours.k=160",)),
    "max_size_800": Change("`coarse_groups.max_size` 800", ("coarse_groups.max_size=800",)),
    "all_pairs": Change("all pairs of groups of up to 3,000", ("confidences.dense_size=3000",)),
    "links": Change("in every group pairs of neighbours and 32 others a face only", _LINKS_ALONE),
    "links_only": Change("pairs of neighbours only", (*_LINKS_ALONE, "confidences.block_negatives=1")),
    "confidence": Change("`clusters.rule=confidence`", ("clusters.rule=confidence",)),
    "no_attributes": Change("no attributes", attributes=lambda values: values[:, :0]),
    "random_attributes": Change("random attributes", attributes=_random),
    "shuffled_attributes": Change("each attribute shuffled among the faces", attributes=_shuffled),
    "other_order": Change("attributes in another order", attributes=_other_order),
    "half_attributes": Change(
        "half of the attributes, a tenth of the rest missing", attributes=_half_of_them
    ),
    "no_norms": Change("embeddings that come normalised", embeddings=_normalised),
    "shuffled_norms": Change("norms shuffled among the faces", embeddings=_shuffled_norms),
    "off_centre": Change("embeddings off centre: two people at a cosine of .8", embeddings=_off_centre),
}


def score_change(change: Change, faces: Faces, model: Path) -> dict[str, float]:
    """Cluster with something changed, and score."""
    attributes, embeddings = change.attributes(faces.attributes), change.embeddings(faces.embeddings)
    changed = faces._replace(attributes=attributes, embeddings=embeddings)
    labels = by_model(changed, model, Training(model.parent), *change.settings).labels
    return measure(faces.labels.astype(str), labels)


def describe(rows: list[dict[str, Any]], sets: list[str]) -> str:
    """Give the rows as a table, as the docs have it."""
    lines = ["| | " + " | ".join(sets) + " |", "|---|" + "---|" * len(sets)]
    for name in dict.fromkeys(row["change"] for row in rows):
        own = {row["set"]: row["mean_f"] for row in rows if row["change"] == name}
        lines.append(f"| {CHANGES[name].what} | " + " | ".join(f"{own[one]:.4f}" for one in sets) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = parser_of_model(__doc__)
    add_names(parser, "--only", "change", CHANGES)
    add_names(parser, "--sets", "set", DEV_SETS)
    arguments = parser.parse_args()
    rows = []
    for name in arguments.sets:
        faces = half(read_faces(name), arguments.half)
        for key in arguments.only:
            scores = score_change(CHANGES[key], faces, arguments.model)
            say(f"{name}, {CHANGES[key].what}: mean F {scores['mean_f']:.4f}")
            rows.append({"set": name, "change": key, **scores})
    say(describe(rows, arguments.sets))
    answer(rows)


if __name__ == "__main__":
    sys.exit(main())
