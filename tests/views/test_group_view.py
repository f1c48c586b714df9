"""What decides about one root group, shown in arrays and in a picture."""

import re
import struct
from pathlib import Path

import numpy as np
import pytest

from faceclust_spark.config import SynthConfig, load_config
from faceclust_spark.errors import DataError
from faceclust_spark.kernels.synth import draw_gallery
from faceclust_spark.local import cluster
from faceclust_spark.views.group_pictures import draw_group
from faceclust_spark.views.group_view import view_group

pytestmark = pytest.mark.usefixtures("headless")

PAGE = Path(__file__).parents[2] / "docs" / "how-it-decides.md"
CONFIG = load_config(None, ["rounds.count=0", "confidences.dense_size=60"])


@pytest.fixture(scope="module")
def faces():
    return draw_gallery(SynthConfig(faces=600, dimension=64, seed=4))


@pytest.fixture(scope="module")
def found(faces):
    return cluster(faces.embeddings, faces.attributes, CONFIG, **named(faces))


def named(faces):
    return {"image_ids": faces.image_ids, "photo_ids": faces.photo_ids}


def row_of_size(found, low, high):
    _, first, sizes = np.unique(found.group_keys[0], return_index=True, return_counts=True)
    return int(first[(sizes >= low) & (sizes <= high)][0])


@pytest.mark.parametrize(("low", "high"), [(8, 60), (61, 600)])
def test_the_view_is_what_the_clustering_saw(faces, found, low, high):
    row = row_of_size(found, low, high)
    view = view_group(faces.embeddings, row, faces.attributes, CONFIG, **named(faces))
    members = np.flatnonzero(found.group_keys[0] == found.group_keys[0][row])
    assert sorted(view.rows.tolist()) == members.tolist()
    assert (view.group_keys == found.group_keys[:, view.rows]).all()
    assert tuple(view.thresholds.tolist()) == found.thresholds.groups
    pairs = set(zip(view.clusters.tolist(), found.labels[view.rows].tolist(), strict=True))
    assert len(pairs) == len(set(view.clusters.tolist())) == len(set(found.labels[view.rows].tolist()))
    sizes = np.bincount(view.clusters)
    assert (np.diff(view.clusters) >= 0).all() and (np.diff(sizes) <= 0).all()
    unit = faces.embeddings[view.rows] / np.linalg.norm(faces.embeddings[view.rows], axis=1, keepdims=True)
    assert view.cosines == pytest.approx(unit @ unit.T, abs=2e-3)
    assert view.attributes.shape == view.cosines.shape
    assert ((view.confidences >= 0) & (view.confidences <= 1)).all() and view.confidences.shape[0] == 3
    scored = ~np.isnan(view.probabilities)
    assert scored.all() == (high == 60)  # beyond dense_size a part of the pairs is scored
    assert (view.probabilities[scored] == view.probabilities.T[scored]).all()
    same = view.clusters[:, None] == view.clusters
    assert view.probabilities[same & scored].mean() > 0.5 > view.probabilities[~same & scored].mean()


def test_a_row_alone_or_not_there_is_told(faces, found):
    alone = row_of_size(found, 1, 1)
    with pytest.raises(DataError, match=f"row {alone} is alone in its root group"):
        view_group(faces.embeddings, alone, faces.attributes, CONFIG, **named(faces))
    with pytest.raises(DataError, match="row 600 of a gallery of 600 faces: give one from 0 to 599"):
        view_group(faces.embeddings, 600, faces.attributes, CONFIG, **named(faces))


@pytest.mark.parametrize("labelled", [True, False])
def test_the_picture_has_four_panels_and_a_line_at_each_cut(faces, found, labelled):
    row = row_of_size(found, 20, 60)
    view = view_group(faces.embeddings, row, faces.attributes if labelled else None, CONFIG, **named(faces))
    figure = draw_group(view, faces.labels if labelled else None)
    figure.draw_without_rendering()
    panels = figure.axes[:4]
    assert [bool(ax.images) for ax in panels] == [True, labelled, True, False]
    assert panels[0].images[0].get_array().tolist() == view.cosines.tolist()
    assert panels[2].images[0].get_array().tolist() == view.probabilities.tolist()
    cuts = len(np.unique(view.clusters)) - 1
    assert len(panels[2].lines) == 2 * cuts and len(panels[3].lines) == 3 + cuts
    assert f"{len(view.rows)} faces and the {cuts + 1} clusters" in figure.get_suptitle()
    assert bool(panels[0].child_axes) == labelled  # the strip of persons


@pytest.mark.parametrize(("low", "high", "told"), [(20, 60, ""), (61, 600, "; white: not scored")])
def test_the_picture_tells_of_pairs_without_a_score(faces, found, low, high, told):
    row = row_of_size(found, low, high)
    view = view_group(faces.embeddings, row, faces.attributes, CONFIG, **named(faces))
    assert draw_group(view).axes[2].get_title() == f"refined: probability of one person{told}"


def test_the_page_shows_what_its_code_gives(tmp_path, monkeypatch, capsys):
    page = PAGE.read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (told,) = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert capsys.readouterr().out == told
    drawn, kept = (path.read_bytes() for path in (tmp_path / "group.png", PAGE.parent / "pictures/group.png"))
    assert struct.unpack(">2I", drawn[16:24]) == struct.unpack(">2I", kept[16:24])  # width, height
