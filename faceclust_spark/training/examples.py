"""Root groups as training takes them: inputs beside the targets, drawn by composition and by step.

Inputs are many times as large as the groups that they describe. So what is drawn is only an order of groups,
and inputs are computed when a network is about to learn from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from faceclust_spark.config import Config
from faceclust_spark.kernels.nearest import Scale
from faceclust_spark.kernels.refine import Group, GroupInputs, describe
from faceclust_spark.training.galleries import Composition

PAIRS_PER_COMPOSITION = 100_000
PAIRS_PER_STEP = 16_000


class Example(NamedTuple):
    """A root group ready for training."""

    group: Group
    inputs: GroupInputs
    same: NDArray[np.float32]  # (p,) 1 where both images show one person
    belongs: NDArray[np.float32]  # (t, n) 1 where the identity is the group's most frequent


class Lesson(NamedTuple):
    """The root groups of a composition, with each group's labels, in the order that was drawn."""

    groups: list[Group]
    labels: list[NDArray[np.int64]]
    scale: Scale
    order: NDArray[np.int64]


def pair_targets(labels: NDArray[np.int64], inputs: GroupInputs) -> NDArray[np.float32]:
    """Give 1 where both images of a pair have one identity, else 0."""
    same: NDArray[np.bool_] = labels[inputs.first] == labels[inputs.second]
    return same.astype(np.float32)


def confidence_targets(labels: NDArray[np.int64], keys: NDArray[np.int64]) -> NDArray[np.float32]:
    """Give 1 where an image's identity is its group's most frequent one (ties: the smaller), else 0.

    Shapes: `(n,)`, `(t, n)` to `(t, n)`.
    """
    targets = np.zeros(keys.shape, np.float32)
    for row, own in enumerate(keys):
        for key in np.unique(own):
            members = own == key
            people, counts = np.unique(labels[members], return_counts=True)
            targets[row, members] = labels[members] == people[counts.argmax()]
    return targets


def draw_lesson(composition: Composition, generator: np.random.Generator) -> Lesson:
    """Draw the order in which a composition's groups are learned from."""
    order = generator.permutation(len(composition.groups))
    return Lesson(composition.groups, composition.labels, composition.scale, order)


def examples_of(lesson: Lesson, config: Config) -> list[Example]:
    """Give root groups up to the pairs of a composition, each with inputs and targets.

    Images that met nobody teach nothing; a composition of few faces may consist of such images only.
    """
    examples: list[Example] = []
    pairs = 0
    for place in lesson.order:
        group, labels = lesson.groups[place], lesson.labels[place]
        if len(labels) == 1:
            continue
        inputs = describe(group, config.train.kind, config.confidences, config.similarities, lesson.scale)
        same = pair_targets(labels, inputs)
        examples.append(Example(group, inputs, same, confidence_targets(labels, group.keys)))
        pairs += max(len(same), len(labels))
        if pairs >= PAIRS_PER_COMPOSITION:
            break
    return examples


def draw_batch(examples: Sequence[Example], generator: np.random.Generator) -> list[Example]:
    """Draw groups of one composition until they hold the pairs of a step."""
    batch: list[Example] = []
    pairs = 0
    for place in generator.permutation(len(examples)):
        batch.append(examples[place])
        pairs += max(len(examples[place].same), len(examples[place].belongs[0]))
        if pairs >= PAIRS_PER_STEP:
            break
    return batch
