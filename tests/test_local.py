import os
import subprocess
import sys

import networkx as nx
import numpy as np
import pytest
import torch

from faceclust_spark.config import Config, SynthConfig, load_config
from faceclust_spark.errors import ConfigError, DataError, ModelMismatchError
from faceclust_spark.kernels.graph_convolution import Network
from faceclust_spark.kernels.grid import cosine_matrix, normalise, quantise
from faceclust_spark.kernels.ids import hash_image_ids
from faceclust_spark.kernels.metrics import score
from faceclust_spark.kernels.model import FORMAT, Model, save_model
from faceclust_spark.kernels.synth import draw_gallery
from faceclust_spark.local import Clustering, cluster
from tests.grouped_gallery import cosine_model

PEOPLE = [9, 7, 6, 5, 4, 3, 1, 1]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A config whose model takes two faces for one person above a cosine of about 0.5."""
    folder = tmp_path_factory.mktemp("model")
    save_model(cosine_model(), folder)
    return load_config(
        None,
        ["coarse_groups.thresholds=[0.3,0.45,0.6]", "clusters.bias=0"],
        {"confidences": {"model": str(folder)}},
    )


def gallery(seed=0, noise=0.55):
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(PEOPLE)), PEOPLE)
    centres = normalise(generator.normal(size=(len(PEOPLE), 64)))
    raw = centres[labels] + noise * normalise(generator.normal(size=(len(labels), 64)))
    attributes = generator.normal(size=(len(labels), 3)).astype(np.float32)
    attributes[generator.random(attributes.shape) < 0.2] = np.nan
    ids = [f"image-{seed}-{row}" for row in range(len(labels))]
    return raw.astype(np.float32) * generator.uniform(5, 30), attributes, ids, labels


def assert_same(one: Clustering, other: Clustering, order=slice(None)):
    for name in ("labels", "cluster_ids", "confidences", "statuses"):
        np.testing.assert_array_equal(getattr(one, name)[order], getattr(other, name))
    np.testing.assert_array_equal(one.group_keys[:, order], other.group_keys)
    assert one.thresholds == other.thresholds


def test_people_are_found(config):
    embeddings, attributes, ids, labels = gallery()
    found = cluster(embeddings, attributes, config, image_ids=ids)
    assert score(labels, found.labels).bcubed_f > 0.95


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_rows_does_not_matter(config, seed):
    embeddings, attributes, ids, _ = gallery(seed, noise=0.9)
    photos = [f"photo-{row // 3}" if row % 4 else None for row in range(len(ids))]
    found = cluster(embeddings, attributes, config, image_ids=ids, photo_ids=photos)
    order = np.random.default_rng(seed).permutation(len(ids))
    mixed = cluster(
        embeddings[order],
        attributes[order],
        config,
        image_ids=[ids[row] for row in order],
        photo_ids=[photos[row] for row in order],
    )
    assert_same(found, mixed, order)


def test_batches_of_groups_change_no_bit(config, monkeypatch):
    embeddings, attributes, ids, _ = gallery(noise=0.9)
    found = cluster(embeddings, attributes, config, image_ids=ids)
    monkeypatch.setattr("faceclust_spark.kernels.in_memory.PAIRS_PER_BATCH", 1)
    assert_same(found, cluster(embeddings, attributes, config, image_ids=ids))


def test_cores_change_no_bit_and_torch_keeps_its_threads(config, monkeypatch):
    galleries = [gallery(seed, noise=0.8) for seed in range(6)]
    embeddings, attributes = (np.concatenate([one[part] for one in galleries]) for part in (0, 1))
    ids = [image for one in galleries for image in one[2]]
    monkeypatch.setattr("faceclust_spark.kernels.in_memory.PAIRS_PER_BATCH", 20)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = []
        for cores in ({0}, set(range(8))):
            monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: cores, raising=False)
            found.append(cluster(embeddings, attributes, config, image_ids=ids))
            assert torch.get_num_threads() == 2
        assert_same(*found)
    finally:
        torch.set_num_threads(before)


def test_labels_ids_and_statuses_say_the_same(config):
    embeddings, attributes, ids, _ = gallery(noise=1.0)
    found = cluster(embeddings, attributes, config, image_ids=ids)
    assert sorted(set(found.labels.tolist())) == list(range(found.labels.max() + 1))
    face_ids = hash_image_ids(ids)
    for label in range(found.labels.max() + 1):
        members = found.labels == label
        assert set(found.cluster_ids[members]) == {f"c{face_ids[members].min():016x}"}
        sizes = (found.group_keys[0] == found.group_keys[0][members][0]).sum()
        alone = "singleton" if sizes == 1 else "left"
        assert set(found.statuses[members]) == {"member" if members.sum() > 1 else alone}
    order = np.argsort(found.labels, kind="stable")
    assert found.cluster_ids[order].tolist() == sorted(found.cluster_ids.tolist())
    assert found.confidences.shape == (len(ids),) and found.confidences.dtype == np.float32
    assert (found.confidences >= 0).all() and (found.confidences <= 1).all()
    assert {"member", "left"} <= set(found.statuses.tolist())


def test_groups_are_the_components_at_each_threshold(config):
    embeddings, _, ids, _ = gallery(noise=0.9)
    found = cluster(embeddings, None, config, image_ids=ids)
    assert found.thresholds.groups == pytest.approx((0.3, 0.45, 0.6))
    vectors, face_ids = quantise(normalise(embeddings)), hash_image_ids(ids)
    cosines = cosine_matrix(vectors, vectors)
    for row, threshold in enumerate(found.thresholds.groups):
        for component in nx.connected_components(nx.from_numpy_array(cosines >= threshold)):
            members = sorted(component)
            assert set(found.group_keys[row, members].tolist()) == {face_ids[members].min()}


def test_attributes_may_be_absent(config):
    embeddings, attributes, ids, labels = gallery()
    without = cluster(embeddings, None, config, image_ids=ids)
    unknown = cluster(embeddings, np.full_like(attributes, np.nan), config, image_ids=ids)
    assert_same(without, unknown)
    assert_same(without, cluster(embeddings, attributes[:, :0], config, image_ids=ids))
    assert score(labels, without.labels).bcubed_f > 0.95


def test_attributes_count_whatever_their_order_and_useless_ones_do_not():
    drawn = draw_gallery(SynthConfig(faces=800, seed=3))
    width = drawn.attributes.shape[1]
    others = np.full((800, 2), [7.0, np.nan], np.float32)  # one is constant, one nobody has
    mixed = np.concatenate([drawn.attributes, others], 1)[:, np.random.default_rng(0).permutation(width + 2)]
    given = (drawn.attributes, mixed, np.random.default_rng(1).permutation(drawn.attributes))
    own, again, strange = (cluster(drawn.embeddings, some, image_ids=drawn.image_ids) for some in given)
    assert np.abs(own.thresholds.attributes.failure).max() > 0.1
    np.testing.assert_array_equal(again.labels, own.labels)
    np.testing.assert_allclose(again.confidences, own.confidences, atol=0.01)
    assert np.abs(strange.confidences - own.confidences).max() > 0.01
    without = cluster(drawn.embeddings, None, image_ids=drawn.image_ids)
    assert (strange.cluster_ids == without.cluster_ids).mean() > 0.98


def test_without_ids_the_row_numbers_are_the_ids(config):
    embeddings, _, ids, _ = gallery()
    numbers = [str(row) for row in range(len(ids))]
    assert_same(cluster(embeddings, config=config), cluster(embeddings, config=config, image_ids=numbers))


@pytest.mark.parametrize("nothing", ["", float("nan")])
def test_photos_without_a_name_keep_nobody_apart(config, nothing):
    embeddings, _, ids, _ = gallery()
    known = cluster(embeddings, None, config, image_ids=ids)
    found = cluster(embeddings, None, config, image_ids=ids, photo_ids=[nothing] * len(ids))
    np.testing.assert_array_equal(found.labels, known.labels)
    assert len(set(known.labels.tolist())) < len(ids)


def test_faces_of_one_photo_are_kept_apart(config):
    embeddings, _, ids, labels = gallery()
    photos = [f"photo-{row % 11}" for row in range(len(ids))]
    photos[0] = None
    apart = cluster(embeddings, None, config, image_ids=ids, photo_ids=photos)
    for label in range(apart.labels.max() + 1):
        known = [photos[row] for row in np.flatnonzero(apart.labels == label) if photos[row]]
        assert len(known) == len(set(known))
    together = [photos[row] for row in np.flatnonzero(labels == 0)]
    photos = [photo if label else "photo-0" for photo, label in zip(photos, labels, strict=True)]
    assert len(set(together)) > 1
    one = cluster(embeddings, None, config, image_ids=ids, photo_ids=photos)
    assert len(set(one.labels[labels == 0].tolist())) == PEOPLE[0]
    allowed = load_config(None, ["clusters.same_photo=allowed"], config.model_dump())
    free = cluster(embeddings, None, allowed, image_ids=ids, photo_ids=photos)
    assert_same(free, cluster(embeddings, None, config, image_ids=ids))


def test_photo_names_do_not_matter(config):
    embeddings, _, ids, _ = gallery(noise=0.8)
    photos = [f"photo-{row // 2}" for row in range(len(ids))]
    renamed = [str(hash_image_ids([photo])[0]) for photo in photos]
    one, other = (cluster(embeddings, None, config, image_ids=ids, photo_ids=p) for p in (photos, renamed))
    assert_same(one, other)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("attributes", [None, 2])
def test_tiny_galleries(config, count, attributes):
    embeddings = np.eye(3, 64)[:count]
    own = None if attributes is None else np.ones((count, attributes))
    found = cluster(embeddings, own, config)
    assert sorted(found.labels.tolist()) == list(range(count))
    assert set(found.statuses.tolist()) == {"singleton"}
    np.testing.assert_array_equal(found.confidences, 1)


@pytest.mark.parametrize("others", [0, 1])
@pytest.mark.parametrize("count", [2, 19])
def test_copies_of_one_face_are_one_cluster(config, count, others):
    one = np.random.default_rng(9).normal(size=(1, 64))
    embeddings = np.concatenate([np.repeat(one, count, axis=0), gallery()[0][: others * 36]])
    found = cluster(embeddings, None, config)
    assert len(set(found.labels[:count].tolist())) == 1
    assert not set(found.labels[:count].tolist()) & set(found.labels[count:].tolist())
    assert set(found.statuses[:count].tolist()) == {"member"}


def test_the_shipped_model_and_config_run_as_they_are():
    embeddings, attributes, _, _ = gallery()
    found = cluster(embeddings, attributes)
    assert found.labels.shape == (len(embeddings),)


def test_all_bad_rows_are_told_at_once(config):
    embeddings, _, ids, _ = gallery()
    embeddings[2], embeddings[4, 1], ids[6] = 0, np.nan, ids[5]
    with pytest.raises(DataError) as error:
        cluster(embeddings, None, config, image_ids=ids)
    for told in ("row 2", "row 4", "row 6"):
        assert told in str(error.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"image_ids": ["a"]}, "1 image ids"),
        ({"photo_ids": ["a", "b"]}, r"2 photo ids for 36 faces"),
        ({"attributes": np.ones((3, 2))}, "3 rows of attributes"),
    ],
)
def test_wrong_lengths_are_refused(config, changes, told):
    embeddings, _, _, _ = gallery()
    with pytest.raises(DataError, match=told):
        cluster(embeddings, config=config, **changes)


def test_a_bound_model_refuses_another_width(tmp_path):
    model = cosine_model()
    card = {**model.card, "kind": "bound", "embedding": {"width": 512, "model": None}, "attributes": None}
    save_model(Model(model.network, card), tmp_path)
    with pytest.raises(ModelMismatchError, match="width 64"):
        cluster(gallery()[0], config=load_config(values={"confidences": {"model": str(tmp_path)}}))


def test_an_absent_model_is_a_config_error():
    with pytest.raises(ConfigError, match="nowhere"):
        cluster(gallery()[0], config=Config.model_validate({"confidences": {"model": "nowhere"}}))


def test_no_spark_is_loaded_and_no_java_started():
    code = (
        "import sys, subprocess, numpy, faceclust_spark\n"
        "class Refused(Exception): pass\n"
        "def refuse(event, arguments):\n"
        "    if event in ('subprocess.Popen', 'os.exec', 'os.posix_spawn', 'os.fork'):\n"
        "        if 'java' in str(arguments): raise Refused(str(arguments))\n"
        "sys.addaudithook(refuse)\n"
        "found = faceclust_spark.cluster(numpy.random.default_rng(0).normal(size=(30, 32)))\n"
        "assert len(found.labels) == 30\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'pyspark', 'py4j', 'delta'}))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.stdout.strip(), ended.returncode) == ("[]", 0), ended.stderr


def test_a_model_without_refined_similarities_is_refused_before_the_work(tmp_path, monkeypatch):
    network = Network(inputs=64, pair_inputs=0, hidden=4, layers=1)
    card = {"format": FORMAT, "kind": "literal", "attributes": None}
    card["embedding"] = {"width": 64, "model": None}
    card["network"] = {"inputs": 64, "pair_inputs": 0, "hidden": 4, "layers": 1}
    save_model(Model(network, card), tmp_path)
    values = {"confidences": {"model": str(tmp_path)}}
    found = cluster(gallery()[0], config=load_config(None, ["clusters.rule=confidence"], values))
    assert len(found.labels) == sum(PEOPLE)
    monkeypatch.setattr("faceclust_spark.local.group_faces", None)
    with pytest.raises(ConfigError, match=r"set clusters\.rule=confidence"):
        cluster(gallery()[0], config=load_config(values=values))


def test_a_gallery_of_one_person_is_doubted_and_clustered_once_it_is_said_how_different_people_are(caplog):
    generator = np.random.default_rng(3)
    person = normalise(generator.normal(size=(1, 128)))
    faces = person + 0.7 * normalise(generator.normal(size=(60, 128)))
    alone = cluster(faces)
    assert "coarse_groups.random_pairs=[0.0,0.1]" in caplog.text
    caplog.clear()
    told = cluster(faces, config=load_config(None, ["coarse_groups.random_pairs=[0.0,0.1]"]))
    assert not caplog.text
    assert len(set(told.labels)) <= 3
    assert len(set(alone.labels)) > 30
