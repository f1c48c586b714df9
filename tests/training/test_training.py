"""Training on small synthetic galleries: seeds, states, errors; quality above chance only."""

import copy
import json

import numpy as np
import pytest
import torch
from labelled_people import SMALL, make_gallery, settings

from faceclust_spark.errors import DataError, ModelMismatchError
from faceclust_spark.kernels.calibration import alone_inputs, calibrate, calibration_inputs
from faceclust_spark.kernels.metrics import score
from faceclust_spark.kernels.model import load_model, save_model
from faceclust_spark.kernels.refine import describe, refine_groups
from faceclust_spark.kernels.rounds import Placed
from faceclust_spark.training import validation
from faceclust_spark.training.calibrating import judge_alone
from faceclust_spark.training.examples import pair_targets
from faceclust_spark.training.galleries import (
    Recipe,
    draw,
)
from faceclust_spark.training.loop import _mean_and_deviation, train
from faceclust_spark.training.validation import CHANCE, evaluate, stale_for


@pytest.fixture(scope="module")
def trained():
    """Train each kind once, for all tests that look at the result."""
    made = {}

    def get(kind):
        if kind not in made:
            made[kind] = train([make_gallery()], settings(f"train.kind={kind}"), {"note": "test"}, SMALL)
        return made[kind]

    return get


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
    of_same, of_others = (np.median(log_odds[same == value]) for value in (1, 0))
    assert of_same > of_others + 128  # in steps of 1/256
    if kind == "relations":  # one that is bound to 40 people takes others for each other
        assert of_same > 0 > of_others


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


@pytest.mark.parametrize("kind", ["relations", "bound"])
def test_the_card_holds_a_calibration_by_which_surer_is_righter(trained, kind):
    calibration = trained(kind).model.calibration
    assert np.isfinite(calibration).all()
    surer = calibration_inputs(np.array([-1.0, 5.0]), np.array([-1, 6], np.float32), np.array([5, 5]))
    low, high = calibrate(calibration, surer)
    assert low < high
    assert trained("literal").model.calibration is None


@pytest.mark.parametrize("kind", ["relations", "bound"])
def test_the_card_holds_what_the_confidence_of_images_alone_means(trained, kind):
    alone = trained(kind).model.alone
    assert np.isfinite(alone).all()
    assert trained("literal").model.alone is None


def test_images_alone_are_judged_by_their_person_having_no_other():
    labels = np.array([0, 0, 2, 3, 4, 5])
    people = np.array([7, 7, 8, 9, 7, 9])
    sure = np.array([0.9, 0.8, 0.75, 0.5, 0.5, 0.25], np.float32)
    none, unknown = np.full(6, -1), np.full(6, np.nan, np.float32)
    placed = Placed(labels, sure, np.full(6, "member"), none, unknown)
    counts = np.array([1, 1, 1, 1, 1, 0], bool)
    judged = judge_alone(placed, people, counts)
    assert judged.right.tolist() == [True, False, False]
    np.testing.assert_allclose(judged.inputs, alone_inputs(sure[2:5], 4, 5))


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


def test_scales_of_inputs_are_those_of_all_rows_in_double_precision():
    generator = np.random.default_rng(0)
    parts = [generator.normal(7, 0.01, (rows, 3)).astype(np.float32) for rows in (400_000, 1, 300_000)]
    mean, deviation = _mean_and_deviation(parts)
    rows = np.concatenate(parts).astype(np.float64)
    np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(deviation, rows.std(0), rtol=1e-9)
    assert abs(np.concatenate(parts).mean(0) - mean).max() > 1e-6  # single ones are not enough
