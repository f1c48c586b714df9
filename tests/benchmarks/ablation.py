"""What parts of the model are worth: networks trained again without them.

    FACECLUST_DATA=FOLDER python tests/benchmarks/ablation.py
    FACECLUST_DATA=FOLDER python tests/benchmarks/ablation.py --half B --variants everything,convolution

Each network learns from the same compositions of one half of the people of both real sets, with one part
taken away, and the other half is clustered by it. The joiner and the calibration are those of the whole
model, learned once, so that a difference after rounds is the network's as well. About four minutes a
variant on one free core, and ten before the first. The last line on stdout is one JSON object: a row for
each variant, set and seed in `results`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accuracy import mean
from accuracy_faces import DEV_SETS, Faces, half, read_faces
from accuracy_scores import measure
from common import answer, say
from options import add_names

import faceclust_spark
from faceclust_spark.config import Config, load_config
from faceclust_spark.kernels.graph_convolution import PAIR_EXTRAS, Network
from faceclust_spark.kernels.meetings import MEETING_INPUTS
from faceclust_spark.kernels.model import Model, save_model
from faceclust_spark.kernels.readings import QUALITIES, READINGS
from faceclust_spark.kernels.relations import NODE_INPUTS, PAIR_INPUTS
from faceclust_spark.training.card import write_card
from faceclust_spark.training.examples import Example
from faceclust_spark.training.galleries import RECIPES, Composition
from faceclust_spark.training.halves import Learned
from faceclust_spark.training.loop import learn_beside, new_network, optimise
from faceclust_spark.training.material import all_examples, draw_material

_NEVER = 1e30  # scale of an input that is not to be seen


class Variant(NamedTuple):
    """A network without a part. Columns are those of an image's inputs, of a pair's and of its extras."""

    what: str
    network: Mapping[str, Any] = {}
    unseen: tuple[int, ...] = ()  # of `kernels.relations.pair_inputs`
    unseen_extras: tuple[int, ...] = ()  # of `kernels.graph_convolution.pair_extras`
    unseen_nodes: tuple[int, ...] = ()  # of `kernels.relations.node_inputs`


def _without_last(what: str, qualities: int) -> Variant:
    """Take away the last of the qualities: the norm is the first, then come readings of attributes."""
    pairs = range(PAIR_INPUTS - 2 * qualities, PAIR_INPUTS)
    return Variant(
        what, unseen=tuple(pairs), unseen_nodes=tuple(range(NODE_INPUTS - 1 - qualities, NODE_INPUTS - 1))
    )


VARIANTS = {
    "everything": Variant("everything, two graph convolutions"),
    "convolution": Variant("no graph convolution", {"layers": 0}),
    "one_convolution": Variant("one graph convolution", {"layers": 1}),
    "three_convolutions": Variant("three graph convolutions", {"layers": 3}),
    "second_order": Variant("no overlap of neighbour lists", unseen=(1, 2, 3, 4, 7)),
    "attributes": _without_last("no readings of attributes", READINGS),
    "qualities": _without_last("neither norms nor readings of attributes", QUALITIES),
    "confidence": Variant("no confidences in the log-odds", unseen_extras=(1, 2, 3)),
}


class Prepared(NamedTuple):
    """What all variants of one seed share."""

    examples: list[list[Example]]
    held: dict[str, Composition]
    card: dict[str, Any]
    learned: Learned
    config: Config


def prepare(known: list[Faces], config: Config) -> Prepared:
    """Draw the compositions, and learn what stands beside the network."""
    generator = np.random.default_rng(config.train.seed)
    torch.manual_seed(config.train.seed)
    torch.set_num_threads(1)
    galleries = [faces.labelled() for faces in known]
    material = draw_material(galleries, config, RECIPES, generator)
    card = write_card(config, galleries, {})
    learned = learn_beside(material, card, config, generator)
    if learned.joiner is None or learned.calibration is None:
        raise SystemExit("there are too few people to learn from")
    card["joiner"] = {"inputs": MEETING_INPUTS}
    card["calibration"] = learned.calibration._asdict()
    return Prepared(all_examples(material.lessons, config), material.held, card, learned, config)


def train_variant(variant: Variant, prepared: Prepared) -> Model:
    """Train a network without a part, from the same start and in the same order for each."""
    torch.manual_seed(prepared.config.train.seed)
    generator = np.random.default_rng(prepared.config.train.seed)
    card = {**prepared.card, "network": {**prepared.card["network"], **variant.network}}
    network = new_network(card["network"], prepared.examples)
    blind(network, variant)
    trained = optimise(Model(network, card), prepared.examples, prepared.held, prepared.config, generator)
    return replace(trained.model, joiner=prepared.learned.joiner)


def blind(network: Network, variant: Variant) -> None:
    """Take inputs away for good: what is scaled by nearly nothing, and weights that stay 0."""
    network.node_scale[list(variant.unseen_nodes)] = _NEVER
    network.pair_scale[list(variant.unseen)] = _NEVER
    if not variant.unseen_extras or network.pair is None:
        return
    weight = network.pair[0].weight
    seen = torch.ones(weight.shape[1])
    seen[weight.shape[1] - PAIR_EXTRAS :][list(variant.unseen_extras)] = 0
    with torch.no_grad():
        weight.mul_(seen)
    weight.register_hook(lambda gradient: gradient * seen)


def score_variant(model: Model, unseen: dict[str, Faces]) -> Iterator[dict[str, Any]]:
    """Cluster each set's other half, without rounds and with the default's."""
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, Path(folder))
        for name, faces in unseen.items():
            row: dict[str, Any] = {"set": name, "faces": len(faces.labels)}
            for column, settings in (("without_rounds", ["rounds.count=0"]), ("mean_f", [])):
                config = load_config(None, [f"confidences.model={folder}", *settings])
                found = faceclust_spark.cluster(
                    faces.embeddings, faces.attributes, config, image_ids=faces.image_ids.tolist()
                )
                row[column] = measure(faces.labels.astype(str), found.labels)["mean_f"]
            yield row


def describe(rows: list[dict[str, Any]]) -> str:
    """Give the table: means over seeds."""
    sets = list(dict.fromkeys(row["set"] for row in rows))
    lines = [f"{'':36}" + "".join(f"{name + ', without rounds':>28}{'with':>8}" for name in sets)]
    for name in dict.fromkeys(row["variant"] for row in rows):
        line = f"{VARIANTS[name].what:36}"
        for one in sets:
            own = [row for row in rows if (row["variant"], row["set"]) == (name, one)]
            line += f"{mean([row['without_rounds'] for row in own]):28.4f}"
            line += f"{mean([row['mean_f'] for row in own]):8.4f}"
        lines.append(line)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_names(parser, "--variants", "variant", VARIANTS)
    parser.add_argument("--half", choices="AB", default="B", help="of the people, to be scored; default B")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE")
    arguments = parser.parse_args()
    galleries = {name: read_faces(name) for name in DEV_SETS}
    unseen = {name: half(faces, arguments.half) for name, faces in galleries.items()}
    known = [half(faces, "AB".replace(arguments.half, "")) for faces in galleries.values()]
    rows = []
    for seed in range(arguments.seeds):
        prepared = prepare(known, load_config(None, [*arguments.overrides, f"train.seed={seed}"]))
        for name in arguments.variants:
            for row in score_variant(train_variant(VARIANTS[name], prepared), unseen):
                say(f"{name}, {row['set']}: {row['without_rounds']:.4f}, with rounds {row['mean_f']:.4f}")
                rows.append({"variant": name, "seed": seed, **row})
    say(describe(rows))
    answer(rows)


if __name__ == "__main__":
    sys.exit(main())
