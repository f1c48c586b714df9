"""The calibration of confidences: what it is fitted to, its limits, and what re-clustering makes of it."""

import numpy as np
import pytest

from faceclust_spark.config import ClustersConfig
from faceclust_spark.kernels.calibration import (
    AloneCalibration,
    Calibration,
    alone_inputs,
    calibrate,
    calibration_inputs,
    fit_curve,
)
from faceclust_spark.kernels.recluster import recluster
from faceclust_spark.kernels.refine import PairLogOdds, Refinement
from faceclust_spark.kernels.standing import mean_log_odds

TRUE = Calibration(0.5, 0.6, 0.25, -0.3)


def members(count, seed=0):
    generator = np.random.default_rng(seed)
    margins = generator.normal(4, 5, count).astype(np.float32)
    margins[generator.random(count) < 0.2] = np.nan
    return generator.normal(2, 4, count), margins, generator.integers(2, 400, count)


def test_inputs_are_limited_and_a_margin_before_nobody_is_the_largest():
    own, margins = np.array([3.0, 40.0, -np.inf]), np.array([np.nan, -50, 2], np.float32)
    inputs = calibration_inputs(own, margins, np.array([1, 2, 8]))
    expected = [[1, 3, 12, 0], [1, 8, -12, np.log(2)], [1, -8, 2, np.log(8)]]
    np.testing.assert_allclose(inputs, expected)


def test_inputs_of_those_alone_are_log_odds_and_how_many_clusters_are_alone():
    inputs = alone_inputs(np.array([0.5, 0.75, 1.0, 0.0], np.float32), 3, 10)
    odds, kind = [0, np.log(3), 8, -8], np.log(4 / 8)
    np.testing.assert_allclose(inputs, [[1, one, kind] for one in odds])
    assert alone_inputs(np.ones(1, np.float32), 1, 1).tolist() == [[1, 8, np.log(2)]]
    total = 0.5 + 2 * np.log(3) - kind
    found = calibrate(AloneCalibration(0.5, 2.0, -1.0), inputs)
    assert found[1] == pytest.approx(1 / (1 + np.exp(-total)))


def test_the_fit_finds_the_curve_that_the_answers_came_from():
    inputs = calibration_inputs(*members(100_000))
    right = np.random.default_rng(1).random(len(inputs)) < calibrate(TRUE, inputs)
    found = fit_curve(inputs, right, np.ones(len(inputs)))
    assert found == pytest.approx(TRUE, abs=0.1)
    chance = calibrate(found, inputs)
    for low in np.arange(0, 1, 0.2):  # of those with a chance of 70 % 70 % are right
        some = (chance >= low) & (chance < low + 0.2)
        assert right[some].mean() == pytest.approx(chance[some].mean(), abs=0.02)


def test_what_counts_more_weighs_more():
    inputs = calibration_inputs(np.zeros(2), np.zeros(2, np.float32), np.array([2, 2]))
    found = fit_curve(inputs, np.array([True, False]), np.array([3.0, 1.0]))
    assert calibrate(found, inputs) == pytest.approx([0.75, 0.75], abs=0.01)


@pytest.mark.parametrize("answer", [True, False])
def test_all_right_or_all_wrong_is_no_infinity(answer):
    inputs = calibration_inputs(*members(50))
    found = fit_curve(inputs, np.full(50, answer), np.ones(50))
    assert np.isfinite(found).all()
    assert (calibrate(found, inputs).mean() > 0.5) == answer


def test_a_row_does_not_depend_on_the_others():
    inputs = calibration_inputs(*members(1_000))
    whole = calibrate(TRUE, inputs)
    assert whole.dtype == np.float32 and ((whole > 0) & (whole <= 1)).all()
    for row in (0, 1, 17, 999):
        assert calibrate(TRUE, inputs[row : row + 1])[0] == whole[row]


def test_members_are_calibrated_and_those_alone_are_not():
    size, generator = 12, np.random.default_rng(4)
    people = np.array([0] * 5 + [1] * 4 + [2, 3, 4])
    first, second = np.triu_indices(size, 1)
    steps = np.where(people[first] == people[second], 700, -900) + generator.integers(-300, 300, len(first))
    empty = np.empty(0, np.int32)
    pairs = PairLogOdds(empty, empty, steps.astype(np.int16))
    ids = np.arange(size) * 10
    refinement = Refinement(np.full((1, size), 0.5, np.float32), pairs)
    group = (ids, np.zeros((1, size), np.int64), refinement, ClustersConfig())
    raw, found = recluster(*group), recluster(*group, calibration=TRUE)
    np.testing.assert_array_equal(found.labels, raw.labels)
    assert len(set(found.labels.tolist())) == 5
    standing = mean_log_odds(found.labels, pairs, size)
    for row in range(size):
        members = int((people == people[row]).sum())
        if members == 1:
            assert found.confidences[row] == raw.confidences[row]
            continue
        own, margin = min(standing.own[row], 8), min(standing.own[row] - standing.best[row], 12)
        total = TRUE.constant + TRUE.own * own + TRUE.margin * margin + TRUE.size * np.log(members)
        assert found.confidences[row] == pytest.approx(1 / (1 + np.exp(-total)), abs=1e-6)
