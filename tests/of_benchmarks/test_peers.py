"""The peers of the accuracy table: known answers, independent oracles, and the scores themselves."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import accuracy
import accuracy_scores
import numpy as np
import peers
import pytest
from accuracy_faces import Faces
from commands import ROOT
from sklearn.cluster import DBSCAN, AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score

from faceclust_spark.config import SynthConfig
from faceclust_spark.kernels.grid import normalise
from faceclust_spark.kernels.metrics import score
from faceclust_spark.kernels.synth import draw_gallery

PACKAGES = {
    "hdbscan": "hdbscan",
    "chinese_whispers": "chinese_whispers",
    "infomap": "infomap",
    "fc_es": "infomap",
}


def needs(name: str) -> None:
    package = PACKAGES.get(name)
    if package and not importlib.util.find_spec(package):
        pytest.skip(f"{package} is not installed: it comes with the extra `bench`")


def gallery(people: int, images: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw people around random centres, as many images each, and as many people of one image."""
    generator = np.random.default_rng(seed)
    labels = np.r_[np.repeat(np.arange(people), images), people + np.arange(people)]
    centres = normalise(generator.normal(size=(2 * people, 64)))
    spread = noise * normalise(generator.normal(size=(len(labels), 64)))
    order = generator.permutation(len(labels))
    return normalise(centres[labels] + spread)[order].astype(np.float32), labels[order]


def is_same(one: np.ndarray, other: np.ndarray) -> bool:
    return len(one) == len(other) and adjusted_rand_score(one, other) == 1


CLEAR = {
    "components": {"threshold": 0.6},
    "dbscan": {"threshold": 0.6, "min_samples": 3},
    "hdbscan": {"min_samples": 2, "threshold": 0.6},
    "average_linkage": {"threshold": 0.6},
    "chinese_whispers": {"threshold": 0.6},
    "infomap": {"threshold": 0.6},
    "fc_es": {"floor": 0.6, "threshold": 0.5},
    "second_order": {"floor": 0.6, "threshold": 0.5},
}


def test_every_peer_has_a_known_answer():
    assert set(CLEAR) == set(peers.PEERS)


@pytest.mark.parametrize("name", CLEAR)
def test_clear_people_are_found_and_strangers_left_alone(name):
    needs(name)
    vectors, labels = gallery(people=12, images=9, noise=0.3)
    found = peers.PEERS[name].run(vectors, **CLEAR[name])
    assert found.shape == labels.shape and found.dtype == np.int64
    if (
        name == "hdbscan"
    ):  # two strangers that are nearer to each other than to all others are a cluster to it
        labels, found = labels[labels < 12], found[labels < 12]
    assert is_same(labels, found)


@pytest.mark.parametrize("name", CLEAR)
def test_unlike_faces_are_all_alone(name):
    needs(name)
    found = peers.PEERS[name].run(np.eye(20, dtype=np.float32), **CLEAR[name])
    assert len(set(found.tolist())) == 20


@pytest.mark.parametrize("name", CLEAR)
def test_the_first_and_last_parameters_of_each_grid_run(name):
    needs(name)
    vectors, labels = gallery(people=5, images=4, noise=0.9, seed=3)
    for parameters in (peers.PEERS[name].grid[0], peers.PEERS[name].grid[-1]):
        assert peers.PEERS[name].run(vectors, **parameters).shape == labels.shape


@pytest.mark.parametrize("seed", range(3))
def test_components_are_those_of_a_flood(seed):
    vectors, _ = gallery(people=15, images=6, noise=1.1, seed=seed)
    links = vectors.astype(np.float64) @ vectors.T.astype(np.float64) >= 0.5
    labels = np.full(len(vectors), -1)
    for face in range(len(vectors)):
        waiting = [face] if labels[face] < 0 else []
        while waiting:
            one = waiting.pop()
            labels[one] = face
            waiting += [other for other in np.flatnonzero(links[one]).tolist() if labels[other] < 0]
    assert len(set(labels.tolist())) < len(labels) - 5
    assert is_same(labels, peers.components(vectors, 0.5))


@pytest.mark.parametrize("seed", range(3))
def test_dbscan_on_sparse_pairs_is_dbscan_on_all_pairs(seed):
    vectors, _ = gallery(people=15, images=6, noise=0.95, seed=seed)
    dense = DBSCAN(eps=0.45, min_samples=3, metric="cosine").fit_predict(vectors.astype(np.float64))
    assert (dense < 0).any() and dense.max() > 3
    assert is_same(peers.alone(dense), peers.dbscan(vectors, 0.55, 3))


@pytest.mark.parametrize("seed", range(3))
def test_average_linkage_is_that_of_scikit_learn(seed):
    vectors, _ = gallery(people=15, images=6, noise=1.1, seed=seed)
    other = AgglomerativeClustering(None, metric="cosine", linkage="average", distance_threshold=0.6)
    expected = other.fit_predict(vectors.astype(np.float64))
    assert 3 < expected.max() < len(vectors) - 3
    assert is_same(expected, peers.average_linkage(vectors, 0.4))


def test_blocks_do_not_change_what_is_near(monkeypatch):
    vectors, _ = gallery(people=15, images=6, noise=0.8)
    whole, pairs = peers.nearest(vectors, 7), peers.similar_pairs(vectors, 0.3)
    cosines = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    np.fill_diagonal(cosines, 2)
    assert np.array_equal(whole.faces, np.argsort(-cosines, axis=1)[:, :7])
    assert pairs.nnz == (cosines >= 0.3).sum() - len(vectors)
    monkeypatch.setattr(peers, "_BLOCK", 11)
    assert np.array_equal(peers.nearest(vectors, 7).faces, whole.faces)
    assert (peers.similar_pairs(vectors, 0.3) != 0).nnz == pairs.nnz


def test_second_order_similarity_by_hand(monkeypatch):
    monkeypatch.setattr(peers, "_EDGES", 13)
    vectors, _ = gallery(people=6, images=5, noise=0.9)
    near, floor = peers.nearest(vectors, 8), 0.4
    lists = []
    for faces, cosines in zip(near.faces.tolist(), near.cosines.tolist(), strict=True):
        kept = {
            f: c for place, (f, c) in enumerate(zip(faces, cosines, strict=True)) if c >= floor or not place
        }
        weights = {face: np.exp(-min(max(2 - 2 * cosine, 0), 1) / 0.5) for face, cosine in kept.items()}
        lists.append({face: weight / sum(weights.values()) for face, weight in weights.items()})
    found = peers.second_order(near, floor)
    for one, faces in enumerate(near.faces.tolist()):
        for place, other in enumerate(faces):
            common = lists[one].keys() & lists[other].keys() if other in lists[one] else ()
            expected = sum(lists[one][h] + lists[other][h] for h in common) / 2
            assert found[one, place] == pytest.approx(expected, abs=1e-6)
    assert np.allclose(found[:, 0], 1) and 0 < (found == 0).sum() < found.size / 2


def test_infomap_answers_in_a_process_that_has_loaded_faiss():
    needs("infomap")
    code = (
        "import infomap, faiss, numpy, peers\n"
        "faiss.Kmeans(8, 2, niter=1).train(numpy.eye(100, 8, dtype='f4'))\n"
        "vectors = numpy.repeat(numpy.eye(3, dtype='f4'), 3, axis=0)\n"
        "print(len(set(peers.infomap(vectors, 0.5).tolist())))"
    )
    folder = ROOT / "tests" / "benchmarks"
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert ended.stdout.splitlines()[-1:] == ["3"], ended.stderr


def test_noise_is_alone_and_clusters_stay():
    assert peers.alone(np.array([-1, 0, -1, 0, 2])).tolist() == [3, 0, 4, 0, 2]


def test_bcubed_by_size_is_what_counting_image_by_image_gives():
    generator = np.random.default_rng(5)
    labels = np.repeat(np.arange(20), [1] * 8 + [2, 3, 4, 5] + [6, 9, 14, 20] + [21, 25, 30, 40])
    clusters = np.where(generator.random(len(labels)) < 0.7, labels, generator.integers(0, 30, len(labels)))
    found = accuracy_scores.by_size(labels, clusters)
    assert {name: part["faces"] for name, part in found.items()} == {
        "1": 8,
        "2-5": 14,
        "6-20": 49,
        "21+": 116,
    }
    for name, (least, most) in accuracy_scores.SIZES.items():
        rates = []
        for label, cluster in zip(labels, clusters, strict=True):
            if least <= (labels == label).sum() <= most:
                both = ((labels == label) & (clusters == cluster)).sum()
                rates.append((both / (clusters == cluster).sum(), both / (labels == label).sum()))
        precision, recall = np.mean(rates, axis=0)
        assert found[name]["bcubed_precision"] == pytest.approx(precision)
        assert found[name]["bcubed_recall"] == pytest.approx(recall)


def test_a_source_is_scored_as_if_it_were_alone():
    labels, clusters = [0, 0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 1, 2, 3]
    found = accuracy_scores.measure_all(labels, clusters, ["a"] * 4 + ["b"] * 3)
    assert found["pairwise_f"] == pytest.approx(0.363636, abs=1e-6) and found["clusters"] == 4
    assert found["sources"]["a"]["bcubed_f"] == score([0] * 4, [0, 0, 1, 1]).bcubed_f
    assert found["sources"]["b"]["pairwise_precision"] is None and found["sources"]["b"]["clusters"] == 3


def synthetic(name: str, quick: bool = False) -> Faces:
    """Draw faces of two sources with labels, as the files have them."""
    drawn = draw_gallery(SynthConfig(faces=1_000, dimension=32, seed=len(name), mean_identity_size=4))
    sources = np.where(np.arange(len(drawn.labels)) % 3 > 0, "street", "studio").astype(object)
    return Faces(drawn.image_ids, drawn.embeddings, drawn.attributes, drawn.labels, sources)


def run(monkeypatch, capsys, *options: str) -> dict:
    monkeypatch.setattr(accuracy, "read_faces", synthetic)
    monkeypatch.setattr(sys, "argv", ["accuracy.py", "--sets", "dev", *options])
    accuracy.main()
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_the_table_scores_each_half_once(monkeypatch, capsys, tmp_path):
    options = ("--methods", "components,relations,literal", "--models", str(tmp_path), "--steps", "2")
    options += tuple(f"--set=train.{few}" for few in ("half_steps=2", "join_steps=2", "draws=1"))
    found = run(monkeypatch, capsys, *options)
    keys = [(row["fold"], row["method"]) for row in found["results"]]
    methods = ("components", "relations", "literal")
    assert keys == [(fold, method) for fold in ("A to B", "B to A") for method in methods]
    first, last = found["results"][0], found["results"][3]
    assert first["faces"] + last["faces"] == 1_000 and first["people"] > 50
    for row in found["results"]:
        assert sum(part["faces"] for part in row["sources"].values()) == row["faces"]
        assert sum(part["faces"] for part in row["sizes"].values()) == row["faces"]
    means = {one["method"]: one for one in found["means"]}
    assert means["components"]["mean_f"] == pytest.approx((first["mean_f"] + last["mean_f"]) / 2)
    assert means["components"]["mean_f"] > 0.3 and means["relations"]["mean_f"] > 0
    assert means["components"]["spread"] == pytest.approx(abs(first["mean_f"] - last["mean_f"]))
    assert found["margins"]["dev"]["best_peer"] == "components"
    ahead = found["margins"]["dev"]["ahead"]
    assert ahead["relations"] == means["relations"]["mean_f"] - means["components"]["mean_f"]
    again = run(monkeypatch, capsys, *options)
    assert all(row["fit_seconds"] == 0 for row in again["results"] if row["method"] != "components")
    assert [row["bcubed_f"] for row in again["results"]] == [row["bcubed_f"] for row in found["results"]]


def test_a_method_that_there_is_not_is_refused(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, capsys, "--methods", "components,magic")
    assert "no method magic: there are components" in capsys.readouterr().err
