"""Labelled galleries, and the compositions that training draws from them.

Compositions decide whether a model transfers: trained on one gallery's composition only, a model fell
to 0.854 on a gallery of few, large identities; with such galleries among the training's, to 0.968.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from faceclust_spark.config import Config
from faceclust_spark.kernels.assignment import NO_PHOTO
from faceclust_spark.kernels.attributes import attribute_statistics, standardise
from faceclust_spark.kernels.encounters import Links
from faceclust_spark.kernels.grid import normalise, quantise
from faceclust_spark.kernels.grouping import gather_groups
from faceclust_spark.kernels.in_memory import scale_of
from faceclust_spark.kernels.nearest import Scale
from faceclust_spark.kernels.refine import Group
from faceclust_spark.kernels.rounds import Gallery
from faceclust_spark.local import group_faces


class LabelledGallery(NamedTuple):
    """A gallery whose people are known: unit vectors, not yet on the grid."""

    vectors: NDArray[np.float32]  # (n, d)
    attributes: NDArray[np.float32]  # (n, a) on any scale, NaN = missing; a may be 0
    norms: NDArray[np.float32]  # (n,) of the raw embeddings; NaN: unknown
    labels: NDArray[np.int64]  # (n,) identity


class Recipe(NamedTuple):
    """How a composition differs from the gallery that it is drawn from."""

    name: str
    people: int | None = None  # number of identities, None: a share of all of them
    share: float = 1.0
    kept: float = 1.0  # share of the images to draw from
    images: tuple[int, int] | None = None  # upsample each to this many images, from .. to
    upsampled: int | None = None  # so many only, beside others as they are
    least: int = 1  # images that an identity must have to be drawn; or to be one of those `upsampled`
    noise: float = 0.0  # length of noise added to each image
    off_centre: float = 0.0  # length of a common direction added to each image
    attributes: str = "own"  # own, none, noise, shuffled, some
    norms: str = "own"  # own, none, noise
    blurred: float = 0.0  # share of images that are blurred until they look alike
    alike: bool = False  # these all by nearly the same weight, as an image is that shows next to nothing
    k: int = 40


class Composition(NamedTuple):
    """The root groups of one drawn gallery, with each group's labels; and the gallery, for rounds."""

    name: str
    gallery: Gallery
    links: Links
    groups: list[Group]
    labels: list[NDArray[np.int64]]
    scale: Scale
    lowest: float  # cosine: the first threshold that made the root groups


KEPT = (0.4, 0.9)  # share of images that a further draw takes, from .. to
UNSHARP = (0.1, 0.45)  # length of the noise of draws that are less sharp, from .. to
RECIPES = (
    Recipe("as it is"),
    Recipe("as it is, no attributes", attributes="none"),
    Recipe("as it is, no norms", norms="none"),
    Recipe("half of the people", share=0.5, k=20),
    Recipe("fifth of the people", share=0.2, attributes="none", norms="none"),
    Recipe("few and large", people=32, images=(60, 100), least=5, off_centre=0.25),
    Recipe("few and middling", people=60, images=(25, 60), least=4, attributes="some"),
    Recipe("many and middling", people=200, images=(12, 40), least=3, noise=0.25, attributes="some"),
    Recipe("few, large, unsharp", people=24, images=(40, 80), least=5, noise=0.35, attributes="none"),
    Recipe("large beside all", share=0.7, off_centre=0.15, k=80, attributes="shuffled"),
    Recipe("useless attributes", share=0.6, attributes="noise", norms="noise"),
    Recipe("large as they are", least=18),
    Recipe("few as they are", people=30, least=6),
    Recipe("tenth of the people", share=0.1),
    Recipe(
        "large and off centre",
        people=40,
        images=(50, 80),
        least=5,
        off_centre=0.35,
        attributes="noise",
        norms="none",
    ),
    Recipe("blurred and alike", share=0.6, blurred=0.05),
    Recipe("huge beside others", share=0.5, images=(200, 1_000), upsampled=5, least=8, blurred=0.05),
    Recipe("many alike", share=0.6, blurred=0.15, alike=True),
)
BLUR = (0.3, 0.65)  # weight of what blurred images have in common, from .. to
ALIKE, JITTER = (0.4, 0.58), 0.04  # the same weight for all, from .. to, and what it varies by
POOREST = 0.1  # share of images, those of the shortest norms, that lend theirs to blurred ones


def draw(
    gallery: LabelledGallery, recipe: Recipe, config: Config, generator: np.random.Generator
) -> Composition:
    """Draw a composition and group it with the pipeline's own kernels."""
    gallery = _drop_images(gallery, recipe.kept, generator)
    rows, weights, partners = _draw_rows(gallery.labels, recipe, generator)
    vectors = gallery.vectors[rows].astype(np.float64)
    vectors = weights[:, None] * vectors + (1 - weights[:, None]) * gallery.vectors[partners]
    vectors = normalise(vectors) + recipe.noise * _directions(vectors.shape, generator)
    vectors = normalise(vectors) + recipe.off_centre * _directions((1, vectors.shape[1]), generator)
    attributes = gallery.attributes[rows]  # on the scale of another gallery: that of all faces
    attributes = standardise(attributes, attribute_statistics(attributes))
    attributes = _vary_attributes(attributes, recipe.attributes, generator)
    norms = _vary_norms(gallery.norms[rows], recipe.norms, generator)
    if recipe.blurred:
        vectors, norms, attributes = _blur(vectors, norms, attributes, recipe, generator)
    face_ids = np.sort(generator.choice(2**62, len(rows), replace=False))
    settings = config.model_copy(update={"neighbours": config.neighbours.model_copy(update={"k": recipe.k})})
    grid = quantise(normalise(vectors))
    grouped = group_faces(face_ids, grid, norms, attributes, settings)
    groups = gather_groups(grouped.coarse, grid, attributes, norms)
    labels = [gallery.labels[rows][np.searchsorted(face_ids, group.face_ids)] for group in groups]
    drawn = Gallery(face_ids, grid, attributes, norms, np.full(len(rows), NO_PHOTO))
    scale, lowest = scale_of(grouped.thresholds), grouped.thresholds.groups[0]
    return Composition(recipe.name, drawn, grouped.links, groups, labels, scale, lowest)


def redraw(recipe: Recipe, draws: int, generator: np.random.Generator) -> list[Recipe]:
    """Give a recipe, and variants of it that take a random part of the images only, every second less sharp.

    A network sees the relations of an image differently where other images are missing. With three draws of
    each composition in place of one, all of them sharp, mean F on other people rose by 0.002 to 0.005.
    """
    variants = [recipe]
    for number in range(draws - 1):
        kept = float(generator.uniform(*KEPT))
        variant = recipe._replace(kept=kept, least=max(1, int(recipe.least * 0.6)))
        variants.append(unsharpen(variant, generator) if number % 2 else variant)
    return variants


def unsharpen(recipe: Recipe, generator: np.random.Generator) -> Recipe:
    """Give a recipe with noise of a random length at least.

    Of a source that was not learned from, images may resemble each other less than any that were.
    """
    return recipe._replace(noise=max(recipe.noise, float(generator.uniform(*UNSHARP))))


def split_identities(
    labels: NDArray[np.int64], share: float, generator: np.random.Generator
) -> NDArray[np.bool_]:
    """Mark the images of a random share of the identities: at least one, and never all of them."""
    people = np.unique(labels)
    count = min(max(1, round(share * len(people))), len(people) - 1)
    held = generator.permutation(people)[:count]
    return np.isin(labels, held)


def take(gallery: LabelledGallery, kept: NDArray[np.bool_]) -> LabelledGallery:
    """Give the part of a gallery that is marked."""
    return LabelledGallery(
        gallery.vectors[kept], gallery.attributes[kept], gallery.norms[kept], gallery.labels[kept]
    )


def _drop_images(gallery: LabelledGallery, kept: float, generator: np.random.Generator) -> LabelledGallery:
    """Give a random part of the images; a gallery too small for that as it is."""
    drawn = generator.random(len(gallery.labels)) < kept
    return take(gallery, drawn) if drawn.sum() >= 2 else gallery


def _draw_rows(
    labels: NDArray[np.int64], recipe: Recipe, generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Give rows, partners of the same person, and the weight of the row against its partner.

    An upsampled image lies between two images of its person.
    """
    people, sizes = np.unique(labels, return_counts=True)
    is_large = sizes >= min(recipe.least, sizes.max())
    eligible = people[is_large] if recipe.upsampled is None else people
    count = recipe.people or max(1, round(recipe.share * len(eligible)))
    chosen = generator.permutation(eligible)[:count]
    if recipe.images is None:
        rows = generator.permutation(np.flatnonzero(np.isin(labels, chosen)))
        return rows, np.ones(len(rows)), rows
    own_sizes = sizes[np.searchsorted(people, chosen)]
    grows = np.isin(chosen, people[is_large]) & (own_sizes > 1)
    if recipe.upsampled is not None:
        grows &= np.cumsum(grows) <= recipe.upsampled
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], chosen)
    own_rows, partners, weights = [], [], []
    for start, size, upsample in zip(starts, own_sizes, grows, strict=True):
        own = order[start : start + size]
        extra = max(0, int(generator.integers(*recipe.images)) - len(own)) if upsample else 0
        own_rows += [own, generator.choice(own, extra)]
        partners += [own, generator.choice(own, extra)]
        weights += [np.ones(len(own)), generator.uniform(0.5, 0.9, extra)]
    mixed = generator.permutation(sum(len(part) for part in own_rows))
    return np.concatenate(own_rows)[mixed], np.concatenate(weights)[mixed], np.concatenate(partners)[mixed]


def _directions(shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[np.float64]:
    return normalise(generator.normal(size=shape))


def _blur(
    vectors: NDArray[np.float64],
    norms: NDArray[np.float32],
    attributes: NDArray[np.float32],
    recipe: Recipe,
    generator: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.float32]]:
    """Move a share of the images towards one direction, and give them norms and attributes of poor ones.

    Faces of many people that are alike for want of detail are what a model takes for one person, surely,
    where it has met none in training. Where norms are unknown nobody knows the poor ones: then of any.
    """
    rows = generator.permutation(len(vectors))[: round(recipe.blurred * len(vectors))]
    if not len(rows):
        return vectors, norms, attributes
    vectors, norms, attributes = normalise(vectors), norms.copy(), attributes.copy()
    weights = generator.uniform(*BLUR, (len(rows), 1))
    if recipe.alike:
        weights = generator.uniform(*ALIKE) + generator.uniform(-JITTER, JITTER, (len(rows), 1))
    common = _directions((1, vectors.shape[1]), generator)
    vectors[rows] = (1 - weights) * vectors[rows] + weights * common
    poorest = np.argsort(norms, kind="stable")[: max(1, round(POOREST * len(norms)))]
    lenders = generator.choice(poorest, len(rows))
    norms[rows], attributes[rows] = norms[lenders], attributes[lenders]
    return vectors, norms, attributes


def _vary_attributes(
    attributes: NDArray[np.float32], way: str, generator: np.random.Generator
) -> NDArray[np.float32]:
    """Change attributes so that useless, missing or reordered ones are nothing new to a model."""
    count, width = attributes.shape
    if way == "none" or not width:
        return attributes[:, :0]
    if way == "noise":
        return generator.normal(size=(count, width)).astype(np.float32)
    if way == "shuffled":
        return attributes[:, generator.permutation(width)]
    if way == "some":
        kept = attributes[:, generator.permutation(width)[: max(1, width // 2)]].copy()
        kept[generator.random(kept.shape) < 0.1] = np.nan
        return kept
    return attributes


def _vary_norms(norms: NDArray[np.float32], way: str, generator: np.random.Generator) -> NDArray[np.float32]:
    """Change norms so that unknown ones, and those of a model whose norms tell nothing, are nothing new."""
    if way == "none":
        return np.full(len(norms), np.nan, np.float32)
    return generator.permutation(norms) if way == "noise" else norms
