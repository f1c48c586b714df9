"""Small synthetic galleries to learn from, and settings for trainings of seconds."""

import numpy as np

from faceclust_spark.config import load_config
from faceclust_spark.kernels.grid import normalise
from faceclust_spark.training.galleries import LabelledGallery, Recipe

SMALL = (Recipe("as it is"), Recipe("few and large", people=8, images=(8, 15), least=3, attributes="some"))
FEW = ("half_steps=30", "join_steps=100", "steps=60", "validate_every=20", "hidden=16", "draws=1")
STEPS = [f"train.{setting}" for setting in FEW]


def make_gallery(people=40, seed=0, width=32, noise=0.9, images=(2, 9)):
    generator = np.random.default_rng(seed)
    person = np.repeat(np.arange(people), generator.integers(*images, size=people))
    centres = normalise(generator.normal(size=(people, width)))
    raw = centres[person] + noise * normalise(generator.normal(size=(len(person), width)))
    attributes = generator.normal(size=(len(person), 3)).astype(np.float32)
    attributes[generator.random(attributes.shape) < 0.1] = np.nan
    norms = np.exp(generator.normal(2.8, 0.12, size=len(person))).astype(np.float32)
    return LabelledGallery(normalise(raw).astype(np.float32), attributes, norms, 7 * person + 3)


def settings(*overrides):
    return load_config(None, [*STEPS, *overrides])
