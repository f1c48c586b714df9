"""What settings are worth: every change is one, and the table from end to end."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import settings
from accuracy_faces import Faces

from faceclust_spark.config import Config, SynthConfig, load_config
from faceclust_spark.kernels.grid import normalise
from faceclust_spark.kernels.model import SHIPPED
from faceclust_spark.kernels.norms import feature_norms, norm_scale
from faceclust_spark.kernels.synth import draw_gallery


def synthetic(name: str) -> Faces:
    drawn = draw_gallery(SynthConfig(faces=600, dimension=48 if name.endswith("512") else 32, seed=3))
    sources = np.full(len(drawn.labels), "studio", object)
    return Faces(drawn.image_ids, drawn.embeddings, drawn.attributes, drawn.labels, sources)


@pytest.mark.parametrize("name", [name for name in settings.CHANGES if name != "defaults"])
def test_a_change_is_one_of_settings_attributes_or_embeddings(name):
    change, faces = settings.CHANGES[name], synthetic("dev")
    attributes, embeddings = change.attributes(faces.attributes), change.embeddings(faces.embeddings)
    others = (
        load_config(None, list(change.settings)).hash() != Config().hash(),
        not np.array_equal(attributes, faces.attributes, equal_nan=True),
        not np.array_equal(embeddings, faces.embeddings),
    )
    assert sum(others) == 1


def test_attributes_in_another_order_are_the_same_ones_and_shuffled_ones_the_same_values():
    values = synthetic("dev").attributes
    missing = np.isnan(values).mean()
    for name, axis in (("other_order", 1), ("shuffled_attributes", 0)):
        changed = settings.CHANGES[name].attributes(values)
        assert np.array_equal(np.sort(changed, axis=axis), np.sort(values, axis=axis), equal_nan=True)
    some = settings.CHANGES["half_attributes"].attributes(values)
    assert some.shape[1] == values.shape[1] // 2 and missing + 0.05 < np.isnan(some).mean() < missing + 0.2


def test_embeddings_off_centre_are_alike_for_all_people():
    vectors = normalise(settings.CHANGES["off_centre"].embeddings(synthetic("dev_512").embeddings))
    assert np.median(vectors @ vectors.T) == pytest.approx(0.8, abs=0.03)


def test_norms_are_changed_and_nothing_else():
    values = synthetic("dev").embeddings
    norms = feature_norms(values)
    assert norm_scale(norms).spread > 0.05
    changed = {name: settings.CHANGES[name].embeddings(values) for name in ("no_norms", "shuffled_norms")}
    for one in changed.values():
        np.testing.assert_allclose(normalise(one), normalise(values), atol=1e-6)
    assert norm_scale(feature_norms(changed["no_norms"])).spread == 0
    shuffled = feature_norms(changed["shuffled_norms"])
    np.testing.assert_allclose(np.sort(shuffled), np.sort(norms), rtol=1e-5)
    assert abs(np.corrcoef(shuffled, norms)[0, 1]) < 0.1
    kept = feature_norms(settings.CHANGES["off_centre"].embeddings(values))
    np.testing.assert_allclose(kept, norms, rtol=1e-5)


def test_the_table_of_three_changes(monkeypatch, capsys):
    monkeypatch.setattr(settings, "read_faces", synthetic)
    names = ["defaults", "no_rounds", "no_attributes"]
    monkeypatch.setattr(
        sys, "argv", ["settings.py", "--model", next(iter(SHIPPED)), "--only", ",".join(names)]
    )
    settings.main()
    printed = capsys.readouterr()
    rows = json.loads(printed.out.splitlines()[-1])["results"]
    assert [(row["set"], row["change"]) for row in rows] == [(s, n) for s in settings.DEV_SETS for n in names]
    assert len({row["mean_f"] for row in rows}) > 2 and all(0 < row["mean_f"] <= 1 for row in rows)
    assert "| without rounds | 0." in printed.err
