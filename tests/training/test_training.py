"""Training on small synthetic galleries: targets, seeds, people, errors; quality above chance only."""

import copy
import json

import numpy as np
import pytest
import torch

from faceclust_spark.config import load_config
from faceclust_spark.errors import DataError, ModelMismatchError
from faceclust_spark.kernels.assignment import MEMBER
from faceclust_spark.kernels.calibration import calibrate, calibration_inputs
from faceclust_spark.kernels.grid import normalise
from faceclust_spark.kernels.metrics import score
from faceclust_spark.kernels.model import load_model, save_model
from faceclust_spark.kernels.recluster import NO_CLUSTER
from faceclust_spark.kernels.refine import GroupInputs, describe, refine_groups
from faceclust_spark.kernels.rounds import Placed
from faceclust_spark.training import validation
from faceclust_spark.training.calibrating import judge
from faceclust_spark.training.examples import confidence_targets, pair_targets
from faceclust_spark.training.galleries import (
    KEPT,
    RECIPES,
    LabelledGallery,
    Recipe,
    draw,
    redraw,
    split_identities,
    take,
)
from faceclust_spark.training.loop import train
from faceclust_spark.training.validation import CHANCE, evaluate, stale_for

SMALL = (Recipe("as it is"), Recipe("few and large", people=8, images=(8, 15), least=3, attributes="some"))
STEPS = [
    f"train.{setting}"
    for setting in ("half_steps=30", "steps=60", "validate_every=20", "hidden=16", "draws=1")
]


def make_gallery(people=40, seed=0, width=32, noise=0.9, images=(2, 9)):
    generator = np.random.default_rng(seed)
    person = np.repeat(np.arange(people), generator.integers(*images, size=people))
    centres = normalise(generator.normal(size=(people, width)))
    raw = centres[person] + noise * normalise(generator.normal(size=(len(person), width)))
    attributes = generator.normal(size=(len(person), 3)).astype(np.float32)
    attributes[generator.random(attributes.shape) < 0.1] = np.nan
    return LabelledGallery(normalise(raw).astype(np.float32), attributes, 7 * person + 3)


def settings(*overrides):
    return load_config(None, [*STEPS, *overrides])


@pytest.fixture(scope="module")
def trained():
    """Train each kind once, for all tests that look at the result."""
    made = {}

    def get(kind):
        if kind not in made:
            made[kind] = train([make_gallery()], settings(f"train.kind={kind}"), {"note": "test"}, SMALL)
        return made[kind]

    return get


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
    assert [len(column) for column in part] == [held.sum()] * 3


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_compositions_hold_every_drawn_image_once_with_its_person(recipe):
    gallery = make_gallery(people=60, images=(5, 9))
    drawn = draw(gallery, recipe, settings(), np.random.default_rng(0))
    ids = np.concatenate([group.face_ids for group in drawn.groups])
    assert len(ids) == len(set(ids.tolist())) == sum(len(labels) for labels in drawn.labels)
    people, sizes = np.unique(np.concatenate(drawn.labels), return_counts=True)
    assert set(people.tolist()) <= set(gallery.labels.tolist())
    of_each = np.unique(gallery.labels, return_counts=True)[1]
    eligible = int((of_each >= min(recipe.least, of_each.max())).sum())
    assert len(people) == min(recipe.people or round(recipe.share * eligible), eligible)
    if recipe.images:
        assert recipe.images[0] <= sizes.min() and sizes.max() < recipe.images[1]
    width = {"none": 0, "some": 1}.get(recipe.attributes, 3)
    assert {group.attributes.shape[1] for group in drawn.groups} <= {width, 0}
    if not recipe.noise:  # the images still show their person: nearest to its centre
        vectors = np.concatenate([group.vectors for group in drawn.groups]).astype(np.float64)
        centred = normalise(vectors - vectors.mean(axis=0))
        labels = np.concatenate(drawn.labels)
        centres = normalise(np.stack([centred[labels == label].mean(axis=0) for label in people]))
        assert (people[(centred @ centres.T).argmax(axis=1)] == labels).mean() > 0.9


def test_the_same_seed_gives_the_same_weights(trained):
    first = trained("relations")
    torch.rand(5)  # whatever was drawn before does not matter
    again = train([make_gallery()], settings(), {"note": "test"}, SMALL)
    assert again.log == first.log
    assert dict(again.model.card) == dict(first.model.card)
    for name, value in first.model.network.state_dict().items():
        torch.testing.assert_close(again.model.network.state_dict()[name], value, rtol=0, atol=0)
    other = train([make_gallery()], settings("train.seed=1", "train.steps=2"), recipes=SMALL)
    assert not torch.equal(other.model.network.enter.weight, first.model.network.enter.weight)


def kept_row(log):
    """Give the last row of a log that is not clearly below the best one."""
    best = max(row["validation_f"] for row in log)
    return [row for row in log if row["validation_f"] >= best - CHANCE][-1]


def test_validations_clearly_below_the_best_are_counted():
    assert stale_for([0.9]) == stale_for([0.9, 0.95]) == stale_for([0.95, 0.9, 0.946]) == 0
    assert stale_for([0.95, 0.94]) == 1
    assert stale_for([0.95, 0.94, 0.951, 0.9, 0.93]) == 2


def test_the_last_state_is_kept_that_is_not_clearly_worse(monkeypatch):
    told, states = [0.8, 0.9, 0.896, 0.7], []

    def validate(model, *_):
        states.append(copy.deepcopy(model.network.state_dict()))
        return {"all": told[len(states) - 1]}

    monkeypatch.setattr(validation, "validate", validate)
    made = train([make_gallery()], settings("train.steps=40", "train.validate_every=10"), recipes=SMALL)
    assert made.model.card["metrics"] == {"validation_f": 0.896, "step": 30, "all": 0.896}
    for name, value in made.model.network.state_dict().items():
        torch.testing.assert_close(value, states[2][name], rtol=0, atol=0)


def test_further_draws_of_a_composition_take_a_part_of_the_images():
    generator = np.random.default_rng(0)
    recipe = Recipe("large", least=10)
    first, *others = redraw(recipe, 5, generator)
    assert first == recipe and len(others) == 4
    assert all(KEPT[0] <= one.kept <= KEPT[1] and one.least == 6 for one in others)
    gallery = make_gallery(people=100)
    for one in redraw(Recipe("as it is"), 3, generator):
        faces = len(draw(gallery, one, settings(), generator).gallery.face_ids)
        assert faces == pytest.approx(one.kept * len(gallery.labels), rel=0.15)
    tiny = make_gallery(people=1, images=(2, 3))
    assert len(draw(tiny, Recipe("as it is", kept=1e-9), settings(), generator).gallery.face_ids) == 2


@pytest.mark.parametrize("kind", ["relations", "bound", "literal"])
def test_the_log_and_the_card_tell_of_the_training(trained, kind):
    made = trained(kind)
    assert [row["step"] for row in made.log] == [20, 40, 60]
    assert made.log[-1]["loss"] < made.log[0]["loss"]
    kept = kept_row(made.log)
    assert made.model.card["metrics"]["validation_f"] == kept["validation_f"]
    assert made.model.card["metrics"]["step"] == kept["step"]
    assert made.model.card["data"]["note"] == "test"
    assert made.model.card["data"]["galleries"][0]["people"] == 40
    assert made.model.card["log"] == made.log
    assert "gallery 1, few and large" in made.model.card["metrics"]
    assert not made.model.network.training
    json.dumps(made.model.card)  # the card is a file


@pytest.mark.parametrize("kind", ["relations", "bound", "literal"])
def test_the_model_that_is_given_is_the_one_that_was_measured_and_survives_a_file(trained, kind, tmp_path):
    model = trained(kind).model
    save_model(model, tmp_path)
    loaded = load_model(str(tmp_path))
    drawn = draw(make_gallery(), Recipe("as it is"), settings(), np.random.default_rng(0))
    config = settings()
    for one in (model, loaded):
        refined = refine_groups(drawn.groups[:3], one, config.confidences, config.similarities, drawn.scale)
        expected = refine_groups(
            drawn.groups[:3], model, config.confidences, config.similarities, drawn.scale
        )
        for found, other in zip(refined, expected, strict=True):
            np.testing.assert_array_equal(found.confidences, other.confidences)
            np.testing.assert_array_equal(found.pairs.log_odds, other.pairs.log_odds)


@pytest.mark.parametrize("kind", ["relations", "bound"])
def test_a_trained_model_beats_chance_on_other_people(trained, kind):
    drawn = draw(make_gallery(seed=99), Recipe("as it is"), settings(), np.random.default_rng(0))
    labels = np.concatenate(drawn.labels)
    found = evaluate(trained(kind).model, drawn, settings())
    alone, together = score(labels, np.arange(len(labels))), score(labels, np.zeros(len(labels)))
    assert found.bcubed_f > max(alone.bcubed_f, together.bcubed_f) + 0.1
    refined = refine_groups(
        drawn.groups, trained(kind).model, settings().confidences, settings().similarities, drawn.scale
    )
    log_odds = np.concatenate([one.pairs.log_odds for one in refined])
    same = np.concatenate(
        [
            pair_targets(
                own, describe(group, kind, settings().confidences, settings().similarities, drawn.scale)
            )
            for own, group in zip(drawn.labels, drawn.groups, strict=True)
        ]
    )
    assert np.median(log_odds[same == 1]) > np.median(log_odds[same == 0]) + 128  # in steps of 1/256


def test_the_literal_model_gives_confidences_and_no_pairs(trained):
    model = trained("literal").model
    assert model.network.pair is None
    drawn = draw(make_gallery(), Recipe("as it is"), settings(), np.random.default_rng(0))
    found = evaluate(model, drawn, settings())  # by the rule `confidence`, whatever the config says
    labels = np.concatenate(drawn.labels)
    assert found.bcubed_f > score(labels, np.arange(len(labels))).bcubed_f


@pytest.mark.parametrize("kind", ["bound", "literal"])
def test_a_model_bound_to_an_embedding_refuses_another(trained, kind):
    model = trained(kind).model
    model.check(32)
    with pytest.raises(ModelMismatchError, match="width 64"):
        model.check(64)


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


@pytest.mark.parametrize("kind", ["relations", "bound"])
def test_the_card_holds_a_calibration_by_which_surer_is_righter(trained, kind):
    calibration = trained(kind).model.calibration
    assert np.isfinite(calibration).all()
    surer = calibration_inputs(np.array([-1.0, 5.0]), np.array([-1, 6], np.float32), np.array([5, 5]))
    low, high = calibrate(calibration, surer)
    assert low < high
    assert trained("literal").model.calibration is None


def test_a_relations_model_learns_from_several_widths_and_serves_any():
    galleries = [make_gallery(), make_gallery(seed=1, width=48)]
    made = train(galleries, settings("train.steps=4"), recipes=SMALL[:1])
    made.model.check(512)
    assert [row["embedding_width"] for row in made.model.card["data"]["galleries"]] == [32, 48]


def test_galleries_of_two_embeddings_do_not_make_a_bound_model():
    galleries = [make_gallery(), make_gallery(width=48)]
    with pytest.raises(DataError, match=r"widths \[32, 48\]"):
        train(galleries, settings("train.kind=bound"))


@pytest.mark.parametrize(
    ("galleries", "told"),
    [
        ([], "no labelled gallery"),
        ([make_gallery(people=9)], "gallery 1 has 9 people, 9 of them"),
        ([make_gallery(), make_gallery(people=50, images=(1, 2))], "gallery 2 has 50 people, 0 of them"),
    ],
)
def test_too_little_to_learn_from_is_refused(galleries, told):
    with pytest.raises(DataError, match=told):
        train(galleries, settings())


def test_galleries_whose_images_never_meet_are_refused():
    config = settings("coarse_groups.thresholds=[0.999]")
    with pytest.raises(DataError, match="lower coarse_groups"):
        train([make_gallery()], config, recipes=SMALL[:1])


@pytest.mark.parametrize("kind", ["relations", "bound", "literal"])
def test_hopeless_galleries_end_with_numbers(kind):
    # Noise drowns the people: everything is left alone, and the share of right pairs is undefined.
    made = train(
        [make_gallery(people=12, noise=8.0)],
        settings("train.steps=8", "train.validate_every=1", "train.patience=3", f"train.kind={kind}"),
        recipes=SMALL[:1],
    )
    measured = [row["validation_f"] for row in made.log]
    assert np.isfinite(measured).all()
    assert made.model.card["metrics"]["validation_f"] == kept_row(made.log)["validation_f"]
    assert stale_for(measured) == 3 or (stale_for(measured) < 3 and len(measured) == 8)


@pytest.mark.parametrize("share", [0.01, 0.95])
def test_any_share_for_validation_leaves_both_sides_with_people(share):
    made = train([make_gallery(people=12)], settings("train.steps=2", f"train.validation_share={share}"))
    assert len(made.log) == 1
