"""Galleries drawn from labelled faces that are unlike them: few people, albums, poor images, distractors."""

from __future__ import annotations

import numpy as np
from accuracy_faces import Faces
from numpy.typing import NDArray

from faceclust_spark.config import Config, SynthConfig
from faceclust_spark.kernels.grid import grid_scale, normalise, quantise
from faceclust_spark.kernels.norms import feature_norms, norm_scale, standardise_norms
from faceclust_spark.kernels.synth import draw_gallery
from faceclust_spark.kernels.thresholds import random_pairs
from faceclust_spark.training.galleries import Recipe, draw

FEW_LARGE = Recipe("32 drawn", people=32, images=(60, 100), least=5, off_centre=0.25)
HUGE = Recipe("5 of 1,000 beside all", images=(950, 1_050), upsampled=5, least=10)
LESS_SHARP = Recipe("all less sharp", noise=0.4)
THIRD_ALIKE = Recipe("a third alike", blurred=1 / 3, alike=True)
OTHERS = 4  # times that each other person of an album has fewer images, at least
PAIRED = 2_000  # faces, of whose pairs the spread of cosines is taken
DISTRACTOR = "distractor"  # the source of a face that is not scored
SEED = 2_024  # of what is drawn


def draw_large(faces: Faces, recipe: Recipe) -> Faces:
    """Draw people with many images each from faces, as the training's recipes do."""
    drawn = draw(faces.labelled(), recipe, Config(), np.random.default_rng(SEED))
    vectors = np.concatenate([group.vectors for group in drawn.groups])
    attributes = np.concatenate([group.attributes for group in drawn.groups])
    labels = np.concatenate(drawn.labels).astype(object)
    ids = np.array([f"drawn-{row:06d}" for row in range(len(labels))], object)
    norms = np.concatenate([group.norms for group in drawn.groups])
    embeddings = norms[:, None] * vectors.astype(np.float32) / np.float32(grid_scale(vectors.shape[1]))
    return Faces(ids, embeddings, attributes, labels, np.full(len(labels), "drawn", object))


def draw_few(faces: Faces, people: int, images: int, generator: np.random.Generator) -> Faces:
    """Take some people who have so many images, or those who have most, and so many images of each."""
    _, person, sizes = np.unique(faces.labels, return_inverse=True, return_counts=True)
    enough = max(people, int((sizes >= images).sum()))
    able = np.argsort(-sizes, kind="stable")[:enough]
    rows = [
        generator.permutation(np.flatnonzero(person == one))[:images]
        for one in generator.choice(able, people, replace=False)
    ]
    return faces.take(np.sort(np.concatenate(rows)))


def draw_album(faces: Faces, share: float) -> Faces:
    """Take all images of the largest person, and whole other people, who have at most a quarter as many."""
    _, person, sizes = np.unique(faces.labels, return_inverse=True, return_counts=True)
    main = int(np.argmax(sizes))
    others = np.random.default_rng(SEED).permutation(np.flatnonzero(sizes * OTHERS <= sizes[main]))
    room = sizes[main] / share - sizes[main]
    return faces.take(np.isin(person, [main, *others[np.cumsum(sizes[others]) <= room]]))


def take_largest(faces: Faces, count: int) -> Faces:
    """Take all images of the people who have most."""
    people, sizes = np.unique(faces.labels, return_counts=True)
    return faces.take(np.isin(faces.labels, people[np.argsort(-sizes, kind="stable")[:count]]))


def some_people(faces: Faces, least: int) -> Faces:
    """Draw whole people until there are at least so many faces, or all."""
    people, person, sizes = np.unique(faces.labels, return_inverse=True, return_counts=True)
    order = np.random.default_rng(SEED).permutation(len(people))
    count = int(np.searchsorted(np.cumsum(sizes[order]), least)) + 1
    return faces.take(np.isin(person, order[:count]))


def hide(faces: Faces, times: int) -> Faces:
    """Add synthetic faces that fit in: cosines of random pairs, norms, attributes spread as real ones' do.

    Cosines of random directions spread by one over the root of the components, those of a real model less
    fast: 0.09 in 128 and in 512. So the faces are drawn in as many components as this means, and turned into
    the model's space.
    """
    width = faces.embeddings.shape[1]
    of_pairs = random_pairs(quantise(faces.vectors()[:PAIRED])).spread
    components = int(np.clip(round(of_pairs**-2), 8, width))
    turn = np.linalg.qr(np.random.default_rng(SEED).normal(size=(width, components)))[0].T
    config = SynthConfig(
        faces=times * len(faces.labels),
        dimension=components,
        attributes=faces.attributes.shape[1],
        seed=SEED,
    )
    drawn = draw_gallery(config)
    mean_of_real, spread = np.nanmean(faces.attributes, axis=0), np.nanstd(faces.attributes, axis=0)
    own = (drawn.attributes - np.nanmean(drawn.attributes, axis=0)) / np.nanstd(drawn.attributes, axis=0)
    strangers = Faces(
        np.array([f"{DISTRACTOR}-{image_id}" for image_id in drawn.image_ids], object),
        as_long_as(faces.embeddings, drawn.embeddings @ turn),
        (mean_of_real + spread * own).astype(np.float32),
        drawn.labels,
        np.full(len(drawn.labels), DISTRACTOR, object),
    )
    return Faces(*(np.concatenate(parts) for parts in zip(faces, strangers, strict=True)))


def as_long_as(like: NDArray[np.float32], embeddings: NDArray[np.floating]) -> NDArray[np.float32]:
    """Give embeddings lengths that are spread as those of others are, in the order that theirs have."""
    own, other = norm_scale(feature_norms(embeddings)), norm_scale(feature_norms(like))
    scores = standardise_norms(feature_norms(embeddings), own)
    norms = np.exp(other.centre + other.spread * scores)
    return (norms[:, None] * normalise(embeddings)).astype(np.float32)
