"""Whether confidences keep their word: what is judged how, and the table from end to end."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import calibration
import numpy as np
import pytest
from accuracy_faces import Faces

from faceclust_spark.config import SynthConfig
from faceclust_spark.kernels.model import SHIPPED
from faceclust_spark.kernels.synth import draw_gallery


def judged(told, right):
    return calibration.Judged(np.array(told, np.float64), np.array(right, bool))


def test_members_are_judged_by_their_cluster_and_others_by_having_no_like():
    labels = np.array(["ann", "ann", "bob", "ann", "eve", "bob"], object)
    told = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4], np.float32)
    members, alone = calibration.judge(labels, np.array([4, 4, 4, 7, 8, 9]), told)
    assert members.told == pytest.approx([0.9, 0.8, 0.7]) and members.right.tolist() == [True, True, False]
    assert alone.told == pytest.approx([0.6, 0.5, 0.4]) and alone.right.tolist() == [False, True, False]


def test_what_confidences_are_worth():
    found = calibration.worth(judged([1.0, 0.75, 0.96, 0.97], [True, True, True, False]))
    assert (found["images"], found["right"], found["brier_of_share"]) == (4, 0.75, 0.75 * 0.25)
    assert found["told"] == pytest.approx(0.92)
    assert found["brier"] == pytest.approx((0.25**2 + 0.04**2 + 0.97**2) / 4)
    assert found["gap"] == pytest.approx((0.0 + 0.25 + 2 * (0.965 - 0.5)) / 4)
    assert calibration.worth(judged([], []))["brier"] is None


def test_a_curve_has_a_bin_for_what_was_told():
    curve = calibration.curve_of(judged([0.2, 0.5, 0.95, 0.979, 1.0], [True, False, True, True, True]))
    bins = [(one["from"], one["to"], one["images"], one["right"]) for one in curve]
    assert bins == [(0.0, 0.5, 1, 1.0), (0.5, 0.7, 1, 0.0), (0.95, 0.98, 2, 1.0), (0.99, 1.0, 1, 1.0)]
    assert [one["told"] for one in curve] == pytest.approx([0.2, 0.5, 0.9645, 1.0])


def synthetic(name: str, quick: bool = False) -> Faces:
    drawn = draw_gallery(SynthConfig(faces=800, dimension=48 if name.endswith("512") else 32, seed=3))
    sources = np.full(len(drawn.labels), "studio", object)
    return Faces(drawn.image_ids, drawn.embeddings, drawn.attributes, drawn.labels, sources)


def test_the_table_of_both_halves(monkeypatch, capsys):
    monkeypatch.setattr(calibration, "read_faces", synthetic)
    monkeypatch.setattr(calibration, "learn", lambda *_: None)
    monkeypatch.setattr(calibration, "model_folder", lambda *_: Path(next(iter(SHIPPED))))
    monkeypatch.setattr(sys, "argv", ["calibration.py", "--cases", "halves"])
    calibration.main()
    printed = capsys.readouterr()
    found = json.loads(printed.out.splitlines()[-1])
    rows, pooled = found["results"], found["pooled"]["halves"]
    assert [(row["case"], row["fold"]) for row in rows] == [
        (f"{name}, as it is", fold) for fold in ("A to B", "B to A") for name in ("dev", "dev_512")
    ]
    assert sum(row[kind]["images"] for row in rows for kind in ("members", "alone")) == 1_600
    for kind in ("members", "alone"):
        assert pooled[kind]["images"] == sum(row[kind]["images"] for row in rows)
        assert 0 < pooled[kind]["brier"] < 1
    assert sum(one["images"] for one in pooled["curve"]) == pooled["members"]["images"]
    assert "| 0.99 to 1.00 |" in printed.err
