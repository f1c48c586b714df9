"""Train the models that are shipped.

    FACECLUST_DATA=FOLDER python tests/benchmarks/train_shipped.py --name default
    FACECLUST_DATA=FOLDER python tests/benchmarks/train_shipped.py --name lfw_synthetic

`default` learns from all people of the real sets (the network from nine tenths of them), a quarter of an hour
on one free core; `lfw_synthetic` from those images of LFW among them, and from synthetic galleries. They are
written into the package, or into the folder --model. What a shipped model reaches on people that it has not
seen is told from models of one half of them: --half A (make accuracy).

Two synthetic galleries of 4,000 faces beside the real ones did not pay: 0.004 more on other synthetic
galleries, 0.002 less on held-out people of half A, and a collapse to 0.77 on one of 900 faces.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from accuracy_faces import DEV_SETS, half, read_faces, synthetic

import faceclust_spark
from faceclust_spark.config import load_config
from faceclust_spark.kernels.model import save_model
from faceclust_spark.training.galleries import LabelledGallery
from faceclust_spark.training.loop import train

# Every validation clusters a gallery of each kind.
SETTINGS = ["train.steps=1500", "train.validate_every=500", "train.validation_share=0.1"]
EMBEDDINGS = ("128-d, MobileFaceNet, 99.32 % on the LFW pairs", "512-d, a weaker model, 98.88 %")
SPLIT = "what it reaches on others was measured with models of one half of the people"


class Shipped(NamedTuple):
    """What a shipped model learns from, and what its card says of that."""

    title: str
    sources: tuple[str, ...]  # of the real sets; none: all
    synthetic: tuple[tuple[int, int, int], ...]  # seed, faces, dimension of each gallery
    data: tuple[str, str]  # of each embedding
    licence: str


SHIPPED = {
    "default": Shipped(
        "default model of faceclust-spark: relations only, for any embedding",
        (),
        (),
        ("LFW (deep-funneled) and CelebA", "the part of the same people in LFW and CelebA in the wild"),
        "CelebA is for non-commercial research only. The weights were derived from embeddings of it, so they "
        "are for research and evaluation. For commercial use take the model `lfw_synthetic`, or train one on "
        "data of your own: faceclust train --source YOUR_LABELLED_GALLERY --model FOLDER.",
    ),
    "lfw_synthetic": Shipped(
        "model of faceclust-spark from LFW and synthetic galleries: relations only, for any embedding",
        ("lfw",),
        ((1, 4_000, 128), (2, 4_000, 512)),
        ("LFW (deep-funneled)", "LFW (deep-funneled)"),
        "Derived from embeddings of LFW, a public benchmark, and from drawn vectors; nothing of CelebA. No "
        "image or embedding of LFW is in the weights or beside them.",
    ),
}


def galleries_of(what: Shipped, which: str) -> list[LabelledGallery]:
    """Read and draw what a model learns from. which: half A or B of the people, or both."""
    found = []
    for name in DEV_SETS:
        faces = read_faces(name)
        faces = faces if which == "both" else half(faces, which)
        kept = np.isin(faces.sources, what.sources) if what.sources else np.ones(len(faces.labels), bool)
        found.append(faces.take(kept).labelled())
    return found + [synthetic(*one).labelled() for one in what.synthetic]


def describe(what: Shipped, which: str) -> dict[str, object]:
    """Give what the card says of the data."""
    real = [
        {"source": data, "embedding": embedding}
        for data, embedding in zip(what.data, EMBEDDINGS, strict=True)
    ]
    drawn = [
        {"source": f"synthetic, seed {seed}", "embedding": f"{dimension}-d"}
        for seed, _, dimension in what.synthetic
    ]
    return {
        "title": what.title,
        "sources": real + drawn,
        "people": f"by a hash of the label: {which}",
        "split": SPLIT,
        "licence_of_the_data": what.licence,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--name", choices=list(SHIPPED), required=True)
    parser.add_argument("--model", type=Path, help="folder to write to; default: the package's own")
    parser.add_argument("--half", choices=["A", "B", "both"], default="both", help="of the people")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    what = SHIPPED[arguments.name]
    config = load_config(None, SETTINGS + arguments.overrides)
    trained = train(galleries_of(what, arguments.half), config, describe(what, arguments.half))
    package = Path(faceclust_spark.__file__).parent / "models" / arguments.name
    save_model(trained.model, arguments.model or package)
    print(json.dumps(trained.model.card["metrics"]))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
