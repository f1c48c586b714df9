"""Train the default model that is shipped: on all people of the real sets.

    FACECLUST_DATA=FOLDER python tests/benchmarks/train_default.py --model faceclust_spark/models/default

About ten minutes on one free core. What the shipped model reaches on people that it has not seen is told from
models of one half of them (--half A; make accuracy).

Two synthetic galleries of 4,000 faces beside the real ones (--synthetic) did not pay: 0.004 more on other
synthetic galleries, 0.002 less on held-out people of half A, and a collapse to 0.77 on one of 900 faces.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

import torch
from dev_halves import DEV_SETS, read_half, synthetic

from faceclust_spark.config import load_config
from faceclust_spark.kernels.model import save_model
from faceclust_spark.training.loop import train

SYNTHETIC = ((1, 4_000, 128), (2, 4_000, 512))  # seed, faces, dimension
# Every validation clusters six galleries.
SETTINGS = ["train.steps=1500", "train.validate_every=500"]
DESCRIPTION = {
    "title": "default model of faceclust-spark: relations only, for any embedding",
    "sources": [
        {
            "source": "LFW (deep-funneled) and CelebA",
            "embedding": "128-d, MobileFaceNet, 99.32 % on the LFW pairs",
        },
        {
            "source": "the part of the same people in LFW and CelebA in the wild",
            "embedding": "512-d, a weaker model, 98.88 % on the LFW pairs",
        },
    ],
    "split": "what it reaches on others was measured with models of one half of the people",
    "licence_of_the_data": (
        "CelebA is for non-commercial research only. The weights were derived from embeddings of it, so they "
        "are for research and evaluation. For commercial use train a model on data of your own: faceclust "
        "train --source YOUR_LABELLED_GALLERY --model FOLDER."
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder to write to")
    parser.add_argument("--half", choices=["A", "B", "both"], default="both", help="of the people")
    parser.add_argument("--synthetic", action="store_true", help="also on synthetic galleries")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    galleries = [read_half(name, arguments.half) for name in DEV_SETS]
    if arguments.synthetic:
        galleries += [synthetic(*what) for what in SYNTHETIC]
    description = {**DESCRIPTION, "people": f"by a hash of the label: {arguments.half}"}
    trained = train(galleries, load_config(None, SETTINGS + arguments.overrides), description)
    save_model(trained.model, arguments.model)
    print(json.dumps(trained.model.card["metrics"]))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
