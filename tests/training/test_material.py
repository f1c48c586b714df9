"""What a training learns from: targets, people held out, compositions, judged members."""

import numpy as np
import pytest
from labelled_people import SMALL, make_gallery, settings

from faceclust_spark.kernels.assignment import MEMBER
from faceclust_spark.kernels.attributes import attribute_statistics
from faceclust_spark.kernels.grid import normalise
from faceclust_spark.kernels.refine import GroupInputs
from faceclust_spark.kernels.rounds import Placed
from faceclust_spark.kernels.standing import NO_CLUSTER
from faceclust_spark.training.calibrating import judge
from faceclust_spark.training.examples import confidence_targets, pair_targets
from faceclust_spark.training.galleries import (
    KEPT,
    RECIPES,
    UNSHARP,
    Recipe,
    _blur,
    draw,
    redraw,
    split_identities,
    take,
)
from faceclust_spark.training.material import draw_material


def test_targets_of_pairs_by_hand():
    pairs = np.array([0, 0, 1]), np.array([1, 2, 2])
    inputs = GroupInputs(None, None, *pairs, None, True)
    assert pair_targets(np.array([4, 9, 4]), inputs).tolist() == [0, 1, 0]


def test_targets_of_confidences_by_hand():
    labels = np.array([5, 5, 2, 2, 8, 1])
    keys = np.array([[0] * 6, [0, 0, 0, 0, 4, 4], [0, 0, 2, 2, 4, 5]])
    targets = confidence_targets(labels, keys)
    assert targets.tolist() == [
        [0, 0, 1, 1, 0, 0],  # 5 and 2 are equally frequent: the smaller label
        [0, 0, 1, 1, 0, 1],
        [1, 1, 1, 1, 1, 1],
    ]
    assert targets.dtype == np.float32


@pytest.mark.parametrize("seed", range(5))
def test_targets_of_confidences_equal_counting(seed):
    generator = np.random.default_rng(seed)
    labels, keys = generator.integers(4, size=30), generator.integers(5, size=(2, 30))
    targets = confidence_targets(labels, keys)
    for row in range(2):
        for image in range(30):
            group = labels[keys[row] == keys[row, image]].tolist()
            winner = min(set(group), key=lambda label: (-group.count(label), label))
            assert targets[row, image] == (labels[image] == winner)


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.99])
def test_people_are_either_held_out_or_learned(share):
    labels = make_gallery().labels
    held = split_identities(labels, share, np.random.default_rng(0))
    assert not set(labels[held].tolist()) & set(labels[~held].tolist())
    count = len(set(labels[held].tolist()))
    assert count == min(max(1, round(share * 40)), 39)
    other = split_identities(labels, share, np.random.default_rng(1))
    assert (held != other).any()
    part = take(make_gallery(), held)
    assert [len(column) for column in part] == [held.sum()] * 4


def check_norms(gallery, drawn, recipe):
    """Norms are those of the images, of others, or unknown; an image is found again by its vector."""
    norms = np.concatenate([group.norms for group in drawn.groups])
    if recipe.norms == "none":
        assert np.isnan(norms).all()
        return
    assert set(norms.tolist()) <= set(gallery.norms.tolist())
    if recipe.images or recipe.noise or recipe.off_centre or recipe.blurred:
        return
    vectors = np.concatenate([group.vectors for group in drawn.groups]).astype(np.float64)
    own = gallery.norms[(normalise(vectors) @ gallery.vectors.T).argmax(axis=1)]
    assert (norms == own).all() == (recipe.norms == "own")


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_compositions_hold_every_drawn_image_once_with_its_person(recipe):
    gallery = make_gallery(people=60, images=(5, 9))
    drawn = draw(gallery, recipe, settings(), np.random.default_rng(0))
    ids = np.concatenate([group.face_ids for group in drawn.groups])
    assert len(ids) == len(set(ids.tolist())) == sum(len(labels) for labels in drawn.labels)
    people, sizes = np.unique(np.concatenate(drawn.labels), return_counts=True)
    assert set(people.tolist()) <= set(gallery.labels.tolist())
    everybody, of_each = np.unique(gallery.labels, return_counts=True)
    is_large = of_each >= min(recipe.least, of_each.max())
    eligible = int(is_large.sum()) if recipe.upsampled is None else len(of_each)
    assert len(people) == min(recipe.people or round(recipe.share * eligible), eligible)
    if recipe.images and recipe.upsampled is None:
        assert recipe.images[0] <= sizes.min() and sizes.max() < recipe.images[1]
    if recipe.images and recipe.upsampled:
        place = np.searchsorted(everybody, people)
        grew = sizes != of_each[place]
        assert grew.sum() == recipe.upsampled and is_large[place[grew]].all()
        assert recipe.images[0] <= sizes[grew].min() and sizes.max() < recipe.images[1]
    width = {"none": 0, "some": 1}.get(recipe.attributes, 3)
    assert {group.attributes.shape[1] for group in drawn.groups} <= {width, 0}
    check_norms(gallery, drawn, recipe)
    if not recipe.noise:  # the images still show their person: nearest to its centre
        vectors = np.concatenate([group.vectors for group in drawn.groups]).astype(np.float64)
        centred = normalise(vectors - vectors.mean(axis=0))
        labels = np.concatenate(drawn.labels)
        centres = normalise(np.stack([centred[labels == label].mean(axis=0) for label in people]))
        assert (people[(centred @ centres.T).argmax(axis=1)] == labels).mean() > 0.9


def test_further_draws_of_a_composition_take_a_part_of_the_images():
    generator = np.random.default_rng(0)
    recipe = Recipe("large", least=10)
    first, *others = redraw(recipe, 5, generator)
    assert first == recipe and len(others) == 4
    assert all(KEPT[0] <= one.kept <= KEPT[1] and one.least == 6 for one in others)
    assert [one.noise > 0 for one in others] == [False, True, False, True]
    assert all(UNSHARP[0] <= one.noise <= UNSHARP[1] for one in others[1::2])
    noisier = redraw(Recipe("noisy", noise=0.9), 3, generator)
    assert [one.noise for one in noisier] == [0.9] * 3
    gallery = make_gallery(people=100)
    for one in redraw(Recipe("as it is"), 3, generator):
        faces = len(draw(gallery, one, settings(), generator).gallery.face_ids)
        assert faces == pytest.approx(one.kept * len(gallery.labels), rel=0.15)
    tiny = make_gallery(people=1, images=(2, 3))
    assert len(draw(tiny, Recipe("as it is", kept=1e-9), settings(), generator).gallery.face_ids) == 2


def test_what_stands_beside_the_network_learns_from_sharp_images_and_from_less_sharp_ones():
    material = draw_material([make_gallery(people=60)], settings(), SMALL, np.random.default_rng(0))
    assert [whole.composition.name for whole in material.whole] == [recipe.name for recipe in SMALL] * 2
    nearest = []
    for whole in material.whole:
        vectors = normalise(whole.composition.gallery.vectors.astype(np.float64))
        cosines = vectors @ vectors.T
        np.fill_diagonal(cosines, -1)
        nearest.append(np.median(cosines.max(axis=1)))
    assert nearest[2] < nearest[0] - 0.01 and nearest[3] < nearest[1] - 0.01


def test_blurred_images_look_alike_and_have_norms_and_attributes_of_the_poorest():
    gallery = make_gallery(people=400, seed=3)
    rows = np.arange(len(gallery.labels))
    gallery = gallery._replace(attributes=rows[:, None].astype(np.float32))
    drawn = draw(gallery, Recipe("alike", blurred=0.1), settings(), np.random.default_rng(0)).gallery
    vectors = normalise(drawn.vectors.astype(np.float64))
    scale = attribute_statistics(gallery.attributes)
    gave = np.rint(scale.means + scale.standard_deviations * drawn.attributes[:, 0]).astype(int)
    cosines = (vectors @ gallery.vectors.T).max(axis=1)
    moved = cosines < 0.999  # all others are on the grid where they were
    assert moved.sum() == round(0.1 * len(rows))
    both = vectors[moved] @ vectors[moved].T
    apart = vectors[~moved] @ vectors[~moved].T
    assert np.median(both) > 0.2 and abs(np.median(apart)) < 0.02
    np.testing.assert_array_equal(drawn.norms, gallery.norms[gave])  # both of one image
    poorest = np.sort(gallery.norms)[: round(0.1 * len(rows))]
    assert set(drawn.norms[moved].tolist()) <= set(poorest.tolist())
    assert not set(drawn.norms[~moved].tolist()) <= set(poorest.tolist())


def test_attributes_are_on_the_scale_of_the_gallery_that_is_drawn():
    gallery = make_gallery(people=300)
    by_person = (gallery.labels % 2)[:, None] * 4.0 + np.random.default_rng(2).normal(
        size=(len(gallery.labels), 2)
    )
    gallery = gallery._replace(attributes=by_person.astype(np.float32))
    drawn = draw(gallery, Recipe("some", share=0.3), settings(), np.random.default_rng(0)).gallery.attributes
    inner = np.sort(drawn, axis=0)[1:-1]  # the statistics leave one out at each end
    np.testing.assert_allclose(inner.mean(axis=0), 0.0, atol=1e-5)
    np.testing.assert_allclose(inner.std(axis=0), 1.0, atol=1e-5)


@pytest.mark.parametrize("known", [True, False])
def test_blurred_images_keep_a_part_of_their_own_face(known):
    gallery = make_gallery(people=200)
    norms = gallery.norms if known else np.full(len(gallery.norms), np.nan, np.float32)
    before = gallery.vectors.astype(np.float64)
    none = gallery.attributes[:, :0]
    recipe = Recipe("alike", blurred=0.2)
    vectors, lent, attributes = _blur(before, norms, none, recipe, np.random.default_rng(1))
    cosines = (normalise(vectors) * before).sum(axis=1)
    moved = cosines < 0.999
    assert moved.sum() == round(0.2 * len(before))
    # Of two directions at right angles, the own one has a weight of .35 to .7: a cosine of .47 to .92.
    assert abs(np.quantile(cosines[moved], 0.05) - 0.47) < 0.15
    assert abs(np.quantile(cosines[moved], 0.95) - 0.92) < 0.1
    assert attributes.shape == none.shape and np.isnan(lent).all() != known
    np.testing.assert_array_equal(before, gallery.vectors.astype(np.float64))


@pytest.mark.parametrize("seed", range(5))
def test_images_that_are_alike_are_all_moved_as_far_and_look_like_one_person(seed):
    gallery = make_gallery(people=200)
    before = gallery.vectors.astype(np.float64)
    recipe = Recipe("alike", blurred=0.2, alike=True)
    moved, *_ = _blur(before, gallery.norms, gallery.attributes, recipe, np.random.default_rng(seed))
    moved = normalise(moved)
    rows = (moved * before).sum(axis=1) < 0.999
    _, first = np.unique(gallery.labels[rows], return_index=True)  # one image a person
    cosines = (moved[rows][first] @ moved[rows][first].T)[np.triu_indices(len(first), 1)]
    # By a weight w all the way, and directions at right angles: w^2 / (w^2 + (1 - w)^2), .31 to .66.
    assert 0.25 < np.median(cosines) < 0.72
    assert cosines.std() < 1.6 * before.shape[1] ** -0.5
    assert rows.sum() == round(0.2 * len(before))


def test_a_gallery_too_small_for_blurred_images_has_none():
    gallery = make_gallery(people=1, images=(4, 5))
    drawn = draw(gallery, Recipe("alike", blurred=0.1), settings(), np.random.default_rng(0)).gallery
    own = normalise(drawn.vectors.astype(np.float64)) @ gallery.vectors.T
    assert (own.max(axis=1) > 0.999).all()


def test_members_are_judged_by_the_person_whom_most_of_their_cluster_show():
    labels = np.array([3, 3, 3, 7, 7, 9, 10, 10])
    people = np.array([1, 1, 2, 5, 6, 4, 8, 8])
    none = np.full(8, NO_CLUSTER)
    margins = np.arange(8, dtype=np.float32)
    placed = Placed(labels, np.full(8, 0.75, np.float32), np.full(8, MEMBER), none, margins)
    counts = np.array([True] * 6 + [False] * 2)
    found = judge(placed, people, counts)
    assert found.right.tolist() == [True, True, False, True, False]  # of two equals the smaller identity
    assert found.inputs[:, 1] == pytest.approx([np.log(3)] * 5)
    assert found.inputs[:, 2].tolist() == [0, 1, 2, 3, 4]
    assert np.exp(found.inputs[:, 3]) == pytest.approx([3, 3, 3, 2, 2])
