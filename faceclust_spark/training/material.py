"""What a training draws once, before its first step: people held out, compositions, lessons."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from faceclust_spark.config import Config
from faceclust_spark.errors import DataError
from faceclust_spark.training import validation
from faceclust_spark.training.examples import Example, Lesson, draw_lesson, examples_of
from faceclust_spark.training.galleries import (
    Composition,
    LabelledGallery,
    Recipe,
    draw,
    redraw,
    split_identities,
    take,
    unsharpen,
)


class Whole(NamedTuple):
    """A composition of all people of a gallery, and which of them are of the first half, ascending."""

    composition: Composition
    first_half: NDArray[np.int64]


class Material(NamedTuple):
    """People to learn from and others, in compositions; the joiner learns from all of them."""

    lessons: list[Lesson]  # by composition
    held: dict[str, Composition]  # of people whom the network does not learn from
    whole: list[Whole]
    halves: tuple[list[Lesson], list[Lesson]]  # of each half of all people


def draw_material(
    galleries: Sequence[LabelledGallery],
    config: Config,
    recipes: Sequence[Recipe],
    generator: np.random.Generator,
) -> Material:
    """Divide the people and draw all compositions. Raises DataError where there is nothing to learn."""
    held, whole = dict[str, Composition](), list[Whole]()
    lessons: list[Lesson] = []
    halves: tuple[list[Lesson], list[Lesson]] = ([], [])
    own, validating = (_for_kind(some, config.train.kind) for some in (recipes, validation.RECIPES))

    def several(part: LabelledGallery) -> Iterator[Lesson]:
        for recipe in own:
            for variant in redraw(recipe, config.train.draws, generator):
                yield draw_lesson(draw(part, variant, config, generator), generator)

    for number, gallery in enumerate(galleries, 1):
        is_held = split_identities(gallery.labels, config.train.validation_share, generator)
        lessons += several(take(gallery, ~is_held))
        for recipe in validating:
            name = f"gallery {number}, {recipe.name}"
            held[name] = draw(take(gallery, is_held), recipe, config, generator)
        if config.train.kind == "literal":  # it takes no part in rounds
            continue
        in_first = split_identities(gallery.labels, 0.5, generator)
        first = np.unique(gallery.labels[in_first])
        for recipe in chain(own, (unsharpen(recipe, generator) for recipe in own)):
            whole.append(Whole(draw(gallery, recipe, config, generator), first))
        halves[0].extend(several(take(gallery, in_first)))
        halves[1].extend(several(take(gallery, ~in_first)))
    if not any(len(labels) > 1 for lesson in lessons for labels in lesson.labels):
        raise DataError(
            "no coarse group of the labelled galleries holds two images: lower coarse_groups.thresholds, "
            "or set them to auto"
        )
    return Material(lessons, held, whole, halves)


def all_examples(lessons: Iterable[Lesson], config: Config) -> list[list[Example]]:
    """Give the examples of each composition that has some."""
    found = [examples_of(lesson, config) for lesson in lessons]
    return [some for some in found if some]


def _for_kind(recipes: Sequence[Recipe], kind: str) -> list[Recipe]:
    """Leave the embedding as it is for models that are bound to it: no shift of its centre."""
    return [recipe if kind == "relations" else recipe._replace(off_centre=0.0) for recipe in recipes]


def check_galleries(galleries: Sequence[LabelledGallery], kind: str) -> None:
    """Raise DataError where galleries cannot be trained on."""
    widths = sorted({gallery.vectors.shape[1] for gallery in galleries})
    if kind != "relations" and len(widths) > 1:
        raise DataError(
            f"a {kind} model is bound to one embedding, and the galleries have widths {widths}: train it "
            "on one, or set train.kind=relations"
        )
    if not galleries:
        raise DataError("there is no labelled gallery to train on")
    for number, gallery in enumerate(galleries, 1):
        people, sizes = np.unique(gallery.labels, return_counts=True)
        if (sizes >= 2).sum() < 10:
            raise DataError(
                f"labelled gallery {number} has {len(people)} people, {(sizes >= 2).sum()} of them with two "
                "or more images; training needs at least 10 such people"
            )
