"""The shipped models: their cards, and that they are worth more than no model."""

import json
import re
from importlib import resources

import numpy as np
import pytest

from faceclust_spark.config import SynthConfig, load_config
from faceclust_spark.kernels.forest import component_keys
from faceclust_spark.kernels.grid import cosine_matrix, normalise, quantise
from faceclust_spark.kernels.metrics import score
from faceclust_spark.kernels.model import SHIPPED, load_model
from faceclust_spark.kernels.synth import draw_gallery
from faceclust_spark.local import cluster
from faceclust_spark.training.validation import CHANCE, mean_f

MODELS = resources.files("faceclust_spark") / "models"


def test_every_shipped_model_has_its_folder():
    assert sorted(path.name for path in MODELS.iterdir()) == sorted(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_card_tells_what_the_model_is_and_what_it_is_made_of(name):
    card = load_model(name).card
    assert (card["kind"], card["embedding"], card["attributes"]) == ("relations", None, None)
    assert {"config", "data", "faceclust_version", "torch_version", "metrics", "log", "network"} <= set(card)
    assert {"sources", "split", "licence_of_the_data", "galleries"} <= set(card["data"])
    assert ("CelebA is for non-commercial" in card["data"]["licence_of_the_data"]) == (name == "default")
    best = max(row["validation_f"] for row in card["log"])
    assert best - CHANCE <= card["metrics"]["validation_f"] <= best
    assert len(card["metrics"]) > 3  # each composition too


def test_no_image_of_celeba_taught_the_model_of_lfw():
    data = load_model("lfw_synthetic").card["data"]
    assert "CelebA" not in str(data["sources"])
    faces = [gallery["faces"] for gallery in data["galleries"]]
    assert len(faces) == len(data["sources"]) == 4
    assert faces[:2] != [gallery["faces"] for gallery in load_model("default").card["data"]["galleries"]]


@pytest.mark.parametrize("name", SHIPPED)
def test_the_card_names_no_place_on_a_machine(name):
    text = (MODELS / name / "card.json").read_text()
    assert not re.search(r'"(/|file:|s3:|[A-Z]:\\)', text)
    assert json.loads(text)["config"].keys().isdisjoint({"source", "tables", "spark"})


@pytest.mark.parametrize("name", SHIPPED)
def test_the_readme_of_the_model_names_its_data_and_its_limits(name):
    text = (MODELS / name / "README.md").read_text()
    for told in ("LFW", "CelebA", "non-commercial", "faceclust train", "half A", "half B"):
        assert told in text


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize(("dimension", "seed"), [(128, 11), (256, 12)])
def test_a_shipped_model_beats_components_at_their_best_threshold(name, dimension, seed):
    drawn = draw_gallery(SynthConfig(faces=1_500, seed=seed, dimension=dimension))
    config = load_config(None, [f"confidences.model={name}"])
    found = cluster(drawn.embeddings, drawn.attributes, config, image_ids=drawn.image_ids.tolist())
    vectors = quantise(normalise(drawn.embeddings))
    cosines = np.triu(cosine_matrix(vectors, vectors), 1)
    best = max(
        mean_f(score(drawn.labels, component_keys(*np.nonzero(cosines >= threshold), len(vectors))))
        for threshold in np.arange(0.2, 0.9, 0.02)
    )
    assert mean_f(score(drawn.labels, found.labels)) > best + 0.01
