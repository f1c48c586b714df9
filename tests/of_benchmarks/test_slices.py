"""Scores by slices of the images, and their intervals."""

from __future__ import annotations

import numpy as np
import pytest
import slices
from accuracy_faces import Faces

NAMES = ["gender_male_prob", "age_years", "blur_log_lapvar", "log_interocular_px"]


def test_a_slice_is_scored_by_its_images_and_its_interval_by_people():
    person = np.array([0, 0, 1, 2])
    precision, recall = np.array([1.0, 0.5, 1.0, 0.5]), np.array([0.5, 0.5, 1.0, 1.0])
    draws = np.array([[3, 0, 0], [0, 3, 0], [1, 1, 1], [0, 0, 0]])  # the last draws nobody of the slice
    found = slices.score_slice(precision, recall, person, draws)
    assert found["precision"].value == 0.75 and found["recall"].value == 0.75
    assert found["f"].value == 0.75
    one, two, all_of = 2 * 0.75 * 0.5 / 1.25, 1.0, 0.75
    assert found["f"][1:] == pytest.approx(np.quantile([one, two, all_of], (0.025, 0.975)))


def test_every_image_is_in_one_slice_of_each_kind_unless_it_is_unknown():
    generator = np.random.default_rng(1)
    attributes = generator.random((60, 4)).astype(np.float32) * [1, 90, 5, 3]
    attributes[0] = np.nan
    labels = generator.integers(25, size=60).astype(str).astype(object)
    sources = np.array(["lfw", "wild"] * 30, object)
    found = slices.slices_of(Faces(labels, attributes, attributes, labels, sources), NAMES)
    for kind in ("source", "gender", "age", "sharpness", "size of face", "images a person"):
        times = np.sum([rows for name, rows in found.items() if name.startswith(kind)], axis=0)
        assert (times[1:] == 1).all()
        assert times[0] == (kind in ("source", "images a person"))
