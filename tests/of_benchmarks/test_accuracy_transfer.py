"""The accuracy on unlike galleries: what is drawn, who may see whom, and the table from end to end."""

from __future__ import annotations

import json
import re
import sys

import accuracy_transfer as transfer
import numpy as np
import pytest
import unlike_galleries as unlike
from accuracy_faces import Faces, half
from accuracy_faces import synthetic as drawn_faces
from accuracy_methods import Training
from commands import ROOT

from faceclust_spark.config import SynthConfig
from faceclust_spark.kernels.grid import quantise
from faceclust_spark.kernels.model import SHIPPED
from faceclust_spark.kernels.norms import feature_norms, norm_scale
from faceclust_spark.kernels.synth import draw_gallery
from faceclust_spark.kernels.thresholds import random_pairs


def synthetic(name: str, quick: bool = False) -> Faces:
    """Draw faces of two sources; the same people in all sets, at another width."""
    width = 48 if name.endswith("512") else 32
    drawn = draw_gallery(SynthConfig(faces=1_000, dimension=width, mean_identity_size=6))
    sources = np.where(np.arange(len(drawn.labels)) % 3 > 0, "street", "studio").astype(object)
    return Faces(drawn.image_ids, drawn.embeddings, drawn.attributes, drawn.labels, sources)


@pytest.fixture
def halves() -> transfer.Halves:
    galleries = {name: synthetic(name) for name in transfer.DEV_SETS}
    return transfer.Halves(("A", "B"), *({n: half(g, h) for n, g in galleries.items()} for h in "AB"))


@pytest.mark.parametrize("part", [part for part in transfer.CASES if part != "synthetic"])
def test_no_case_knows_a_person_that_it_is_scored_on(part, halves, monkeypatch):
    monkeypatch.setattr(transfer, "TIMES", (2,))
    monkeypatch.setattr(transfer, "SCORED", 100)
    people, drawn_from = set(synthetic("dev").labels), []

    def draw(faces, recipe):
        drawn_from.append(faces)
        return unlike.draw_large(faces, recipe)

    monkeypatch.setattr(transfer, "draw_large", draw)
    for case in transfer.CASES[part](halves):
        known = {label for faces in case.known.values() for label in faces.labels}
        scored = case.test.labels[case.test.sources != transfer.DISTRACTOR]
        if case.test.sources[0] == "drawn":
            own = sorted(set(drawn_from[-1].labels))  # whom `draw` numbers
            scored = [own[number] for number in scored]
        assert len(set(scored)) > 0 and set(scored) <= people and not known & set(scored)
        assert all(half(faces, "A").labels.size == faces.labels.size for faces in case.known.values())
        assert len(set(case.test.image_ids)) == len(case.test.image_ids)


def test_a_left_out_source_is_neither_known_nor_mixed(halves, monkeypatch):
    cases = list(transfer.other_source(halves))
    names = [f"without {source}{part}" for source in ("street", "studio") for part in ("", ", 40 largest")]
    assert [case.name for case in cases] == names
    monkeypatch.setattr(transfer, "LARGEST", 7)
    sizes = [len(set(case.test.labels)) for case in transfer.other_source(halves)]
    assert sizes[1] == sizes[3] == 7 < min(sizes[0], sizes[2])
    for case in cases:
        source = case.name.removeprefix("without ").partition(",")[0]
        assert set(case.test.sources) == {source} and len(case.known) == len(transfer.DEV_SETS)
        for name, known in case.known.items():
            assert source in name and source not in known.sources and len(known.labels)


def test_the_largest_people_are_taken_whole(halves):
    faces = halves.unseen["dev"]
    taken = unlike.take_largest(faces, 5)
    own, every = (dict(zip(*np.unique(f.labels, return_counts=True), strict=True)) for f in (taken, faces))
    assert len(own) == 5 and all(every[person] == images for person, images in own.items())
    assert min(own.values()) >= sorted(every.values())[-5]


def test_less_sharp_images_are_less_alike_and_hubs_are_alike(halves):
    faces = halves.unseen["dev"]
    same = [
        (drawn.vectors() @ drawn.vectors().T)[drawn.labels[:, None] == drawn.labels].mean()
        for drawn in (
            unlike.draw_large(faces, recipe)
            for recipe in (unlike.LESS_SHARP._replace(noise=0.0), unlike.LESS_SHARP)
        )
    ]
    assert same[1] < same[0] - 0.05
    hub = unlike.draw_large(faces, unlike.THIRD_ALIKE)
    cosines = hub.vectors() @ hub.vectors().T
    alike = (cosines > 0.25).mean(1) > 0.25  # to a quarter of the gallery
    assert 0.28 < alike.mean() < 0.38 and len(set(hub.labels[alike])) > 10
    assert np.median(feature_norms(hub.embeddings)[alike]) < np.median(feature_norms(hub.embeddings)[~alike])


def test_synthetic_galleries_are_of_their_seed():
    one, same, other = (drawn_faces(seed, 200) for seed in (1, 1, 2))
    assert np.array_equal(one.embeddings, same.embeddings) and len(one.labels) == 200
    assert not np.array_equal(one.embeddings, other.embeddings)


def test_synthetic_cases_hold_drawn_faces_only(halves, monkeypatch):
    monkeypatch.setattr(transfer, "SYNTHETIC", 200)
    cases = list(transfer.synthetic_galleries(halves))
    assert len(cases) == len(transfer.SYNTHETIC_SEEDS)
    for case in cases:
        assert set(case.test.sources) == {"synthetic"} and len(case.test.labels) == 200
        assert list(case.known) == ["dev-A", "dev_512-A"]


def test_the_most_mixed_cluster():
    labels = np.array(["a", "a", "b", "c", "c", "c", "b"], object)
    assert transfer.most_mixed(labels, np.array([0, 0, 0, 1, 1, 1, 2])) == 2
    assert transfer.most_mixed(labels, np.arange(7)) == 1
    assert transfer.most_mixed(labels, np.zeros(7, np.int64)) == 3


def test_distractors_are_many_and_alike_in_their_attributes(halves):
    faces = halves.unseen["dev"]
    hidden = unlike.hide(faces, 5)
    added = hidden.sources == transfer.DISTRACTOR
    assert added.sum() == 5 * len(faces.labels) and not added[: len(faces.labels)].any()
    assert np.allclose(np.nanmean(hidden.attributes[added], 0), np.nanmean(faces.attributes, 0), atol=1e-4)
    assert np.allclose(np.nanstd(hidden.attributes[added], 0), np.nanstd(faces.attributes, 0), atol=1e-4)


def test_distractors_are_as_far_from_each_other_as_the_real_faces(halves):
    """A model's cosines of random pairs spread as if its embeddings had fewer components than they have."""
    faces = halves.unseen["dev"]
    turn = np.linalg.qr(np.random.default_rng(4).normal(size=(96, 32)))[0].T
    wide = faces._replace(embeddings=(faces.embeddings @ turn).astype(np.float32))
    hidden = unlike.hide(wide, 2)
    assert hidden.embeddings.shape[1] == 96
    real = random_pairs(quantise(wide.vectors())).spread
    added = random_pairs(quantise(hidden.vectors()[len(faces.labels) :][:1_000])).spread
    assert added == pytest.approx(real, rel=0.1) and real > 1.3 * 96**-0.5


def test_a_handful_of_people_is_drawn_with_equal_numbers_of_images(halves):
    faces = halves.unseen["dev"]
    few = unlike.draw_few(faces, 3, 5, np.random.default_rng(1))
    sizes = np.unique(few.labels, return_counts=True)[1]
    assert sizes.tolist() == [5, 5, 5] and len(set(few.image_ids)) == 15
    others = [set(unlike.draw_few(faces, 3, 5, np.random.default_rng(seed)).labels) for seed in range(9)]
    assert len(set().union(*others)) > 3
    everyone, every = np.unique(faces.labels, return_counts=True)
    largest = set(everyone[np.argsort(-every)[:2]])  # nobody has so many
    assert set(unlike.draw_few(faces, 2, 10_000, np.random.default_rng(1)).labels) == largest


@pytest.mark.parametrize("share", [0.3, 0.75])
def test_an_album_is_mainly_of_one_person(halves, share):
    faces = halves.unseen["dev"]
    album = unlike.draw_album(faces, share)
    every, album_sizes = (
        dict(zip(*np.unique(f.labels, return_counts=True), strict=True)) for f in (faces, album)
    )
    main, *others = sorted(album_sizes, key=album_sizes.get, reverse=True)
    assert album_sizes == {person: every[person] for person in album_sizes}  # whole people
    assert every[main] == max(every.values())
    assert others and all(4 * every[person] <= every[main] for person in others)
    assert every[main] / len(album.labels) >= share > every[main] / (len(album.labels) + every[main] / 4)


def test_whole_people_are_drawn_until_there_are_enough(halves):
    faces = halves.unseen["dev"]
    some = unlike.some_people(faces, 100)
    largest = np.unique(faces.labels, return_counts=True)[1].max()
    assert 100 <= len(some.labels) < 100 + largest
    for label in set(some.labels):
        assert (some.labels == label).sum() == (faces.labels == label).sum()


def test_few_large_people_keep_their_likeness(halves):
    drawn = unlike.draw_large(halves.unseen["dev"], unlike.FEW_LARGE)
    people, sizes = np.unique(drawn.labels, return_counts=True)
    assert len(people) <= 32 and sizes.min() >= 5 and np.median(sizes) >= 60
    vectors = drawn.vectors()
    same = drawn.labels[:, None] == drawn.labels
    cosines = vectors @ vectors.T
    assert cosines[same].mean() > cosines[~same].mean() + 0.2


def test_huge_people_are_drawn_beside_all_others(halves):
    faces = halves.unseen["dev"]
    drawn = unlike.draw_large(faces, unlike.HUGE)
    before, after = (np.sort(np.unique(one.labels, return_counts=True)[1]) for one in (faces, drawn))
    grown = min(5, int((before >= 10).sum()))
    assert len(before) == len(after) and grown > 0
    assert (after[-grown:] >= 950).all() and (after[:-grown] <= before.max()).all()


def test_distractors_are_as_long_as_the_faces_that_they_hide(halves):
    faces = halves.unseen["dev"]._replace(embeddings=0.2 * halves.unseen["dev"].embeddings ** 3)
    hidden = unlike.hide(faces, 2)
    distractors = hidden.embeddings[hidden.sources == unlike.DISTRACTOR]
    own, theirs = (norm_scale(feature_norms(part)) for part in (faces.embeddings, distractors))
    assert theirs == pytest.approx(own, rel=0.1)
    plain = faces._replace(embeddings=faces.vectors())
    alike = unlike.hide(plain, 2)
    assert norm_scale(feature_norms(alike.embeddings)).spread == 0


def test_who_is_with_a_distractor():
    clusters, is_scored = np.array([0, 0, 1, 2, 1, 3]), np.array([1, 1, 1, 1, 0, 0], bool)
    assert transfer.share_together(clusters, is_scored) == 0.25


def run(monkeypatch, capsys, *options: str) -> list[dict]:
    monkeypatch.setattr(transfer, "read_faces", synthetic)
    monkeypatch.setattr(transfer, "TIMES", (2,))
    monkeypatch.setattr(sys, "argv", ["accuracy_transfer.py", *options])
    transfer.main()
    return json.loads(capsys.readouterr().out.splitlines()[-1])["results"]


def test_the_table_of_a_peer(monkeypatch, capsys):
    monkeypatch.setattr(transfer, "DENSE_LIMIT", 1_000)
    rows = run(monkeypatch, capsys, "--methods", "components,average_linkage", "--cases", "model,distractors")
    cases = ["dev to dev_512", "dev_512 to dev", "dev, 2x distractors", "dev_512, 2x distractors"]
    one = [(row["fold"], row["case"]) for row in rows if row["method"] == "components"]
    assert one == [(fold, case) for fold in ("A to B", "B to A") for case in cases]
    dense = [row for row in rows if row["method"] == "average_linkage"]
    assert dense and all(row["gallery"] <= 1_000 for row in dense)
    for row in rows:
        assert row["gallery"] == (3 if row["part"] == "distractors" else 1) * row["faces"]
        assert (row["with_distractors"] == 0) or row["part"] == "distractors"


def test_one_half_is_fitted_on_where_one_is_asked_for(monkeypatch, capsys):
    rows = run(monkeypatch, capsys, "--methods", "components", "--cases", "model", "--fit", "B")
    assert [row["fold"] for row in rows] == ["B to A", "B to A"]


def test_settings_reach_our_clustering(halves, tmp_path):
    case = list(transfer.few_large(halves))[1]._replace(known=halves.named("dev"))
    # Hardly trained, so every pair of a root group counts as one person, and K decides the root groups.
    few = ("train.steps=2", "train.half_steps=2", "train.join_steps=2", "train.draws=1")
    training = Training(tmp_path, (*few, "clusters.bias=-4"))
    rows = list(transfer.score_case(case, "relations", 0, training, {}))
    assert [row["method"] for row in rows] == [f"relations neighbours.k={k}" for k in transfer.NEIGHBOURS]
    assert len({row["mean_f"] for row in rows}) > 1 and all(0 < row["mean_f"] <= 1 for row in rows)


def test_models_bound_to_an_embedding_are_refused(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, capsys, "--methods", "literal")
    assert "literal cannot be scored on another embedding" in capsys.readouterr().err


def test_the_page_names_options_methods_and_cases_that_there_are():
    page = (ROOT / "docs" / "accuracy.md").read_text(encoding="utf-8")
    folder = ROOT / "tests" / "benchmarks"
    source = "".join((folder / name).read_text() for name in ("accuracy.py", "accuracy_transfer.py"))
    commands = re.findall(r"make (?:bench-)?accuracy(?:_transfer)?(?: ARGS='([^']*)')?", page)
    assert len(commands) >= 3
    for options in commands:
        for option in re.findall(r"--[\w-]+", options):
            assert f'"{option}"' in source
    named = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    assert named == {*transfer.PEERS, *transfer.OURS, *transfer.CASES, *SHIPPED}
