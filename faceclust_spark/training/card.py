"""The card of a trained model: what it is, how it was made, of what, and how it did."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from faceclust_spark.config import Config
from faceclust_spark.kernels.model import FORMAT
from faceclust_spark.kernels.refine import node_width
from faceclust_spark.kernels.relations import PAIR_INPUTS
from faceclust_spark.training.galleries import LabelledGallery

# Of no account to training, or places on the machine that it ran on.
_LEFT_OUT = {"spark", "synth", "evaluate", "source", "tables"}


def write_card(
    config: Config, galleries: Sequence[LabelledGallery], description: Mapping[str, Any]
) -> dict[str, Any]:
    """Give the card of a network that is about to be trained; metrics and log are added by the loop.

    description: what else is known of the data; its `embedding_model` counts where the config names none.
    `network` holds the network's arguments; `embedding` and `attributes` what a bound or literal model is
    bound to.
    """
    kind, dimension = config.train.kind, galleries[0].vectors.shape[1]
    bound, names = kind != "relations", config.ingest.attribute_names
    embedding_model = config.ingest.embedding_model or description.get("embedding_model")
    settings = config.model_dump(mode="json", exclude=_LEFT_OUT)
    settings["confidences"].pop("model")
    return {
        "format": FORMAT,
        "kind": kind,
        "faceclust_version": version("faceclust-spark"),
        "torch_version": version("torch"),
        "machine": platform.machine(),
        "network": {
            "inputs": node_width(kind, dimension),
            "pair_inputs": 0 if kind == "literal" else PAIR_INPUTS,
            "hidden": config.train.hidden,
            "layers": config.train.layers,
        },
        "embedding": {"width": dimension, "model": embedding_model} if bound else None,
        "attributes": list(names) if bound and names else None,
        "config": settings,
        "data": {"galleries": [_describe(gallery) for gallery in galleries], **description},
    }


def _describe(gallery: LabelledGallery) -> dict[str, int]:
    return {
        "faces": len(gallery.labels),
        "people": len(np.unique(gallery.labels)),
        "embedding_width": gallery.vectors.shape[1],
        "attributes": gallery.attributes.shape[1],
    }
