"""Training of one network, with validation on people that it has not seen."""

from __future__ import annotations

import copy
import logging
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from faceclust_spark.config import ClustersConfig, Config
from faceclust_spark.errors import DataError
from faceclust_spark.kernels.graph_convolution import Network, all_rows, pair_extras
from faceclust_spark.kernels.metrics import Scores, score
from faceclust_spark.kernels.model import FORMAT, Model
from faceclust_spark.kernels.recluster import recluster
from faceclust_spark.kernels.refine import (
    Group,
    GroupInputs,
    describe,
    node_width,
    refine_groups,
    to_tensors,
)
from faceclust_spark.kernels.relations import PAIR_INPUTS
from faceclust_spark.training.galleries import (
    RECIPES,
    Composition,
    LabelledGallery,
    Recipe,
    draw,
    split_identities,
    take,
)

log = logging.getLogger(__name__)

PAIRS_PER_COMPOSITION = 100_000
PAIRS_PER_STEP = 16_000
CONFIDENCE_LOSS = 0.1  # weight of the images' loss beside the pairs'
VALIDATION = (
    Recipe("as it is"),
    Recipe("few and large", people=30, images=(40, 80), least=4, off_centre=0.25),
    Recipe("many and middling", people=120, images=(12, 40), least=3, noise=0.2, attributes="some"),
)


class Example(NamedTuple):
    """A root group ready for training."""

    group: Group
    inputs: GroupInputs
    same: NDArray[np.float32]  # (p,) 1 where both images show one person
    belongs: NDArray[np.float32]  # (t, n) 1 where the identity is the group's most frequent


class Trained(NamedTuple):
    """A model, and a row of the log for each validation: step, loss, F."""

    model: Model
    log: list[dict[str, float]]


def train(
    galleries: Sequence[LabelledGallery],
    config: Config,
    description: Mapping[str, Any] | None = None,
    recipes: Sequence[Recipe] = RECIPES,
) -> Trained:
    """Train a network on labelled galleries, of one or several embeddings.

    Identities are divided once; the held-out ones are for validation, which decides when to stop and
    which state is kept. The same seed on the same machine gives the same model. description goes into
    the card. Raises DataError where there is too little to learn from.
    """
    kind, generator = config.train.kind, np.random.default_rng(config.train.seed)
    _check_galleries(galleries, kind)
    torch.manual_seed(config.train.seed)
    torch.set_num_threads(1)
    learning, held = [], []
    for gallery in galleries:
        is_held = split_identities(gallery.labels, config.train.validation_share, generator)
        # A bound or literal model needs the embedding as it is: no shift of its centre.
        drawn = [r if kind == "relations" else r._replace(off_centre=0.0) for r in recipes]
        learning += [draw(take(gallery, ~is_held), r, config, generator) for r in drawn]
        held += [draw(take(gallery, is_held), r, config, generator) for r in _own(VALIDATION, kind)]
    # A composition of few faces may consist of images that met nobody.
    drawn_examples = [_examples(one, kind, config, generator) for one in learning]
    examples = [some for some in drawn_examples if some]
    if not examples:
        raise DataError(
            "no coarse group of the labelled galleries holds two images: lower coarse_groups.thresholds, "
            "or set them to auto"
        )
    dimension = galleries[0].vectors.shape[1]
    network = Network(
        inputs=node_width(kind, dimension),
        pair_inputs=0 if kind == "literal" else PAIR_INPUTS,
        hidden=config.train.hidden,
        layers=config.train.layers,
    )
    _fit_scales(network, [one for composition in examples for one in composition])
    card = _card(config, dimension, description or {}, galleries)
    return _optimise(network, card, examples, held, config, generator)


def pair_targets(labels: NDArray[np.int64], inputs: GroupInputs) -> NDArray[np.float32]:
    """Give 1 where both images of a pair have one identity, else 0."""
    same: NDArray[np.bool_] = labels[inputs.first] == labels[inputs.second]
    return same.astype(np.float32)


def confidence_targets(labels: NDArray[np.int64], keys: NDArray[np.int64]) -> NDArray[np.float32]:
    """Give 1 where an image's identity is its group's most frequent one (ties: the smaller), else 0.

    Shapes: `(n,)`, `(t, n)` to `(t, n)`.
    """
    targets = np.zeros(keys.shape, np.float32)
    for row, own in enumerate(keys):
        for key in np.unique(own):
            members = own == key
            people, counts = np.unique(labels[members], return_counts=True)
            targets[row, members] = labels[members] == people[counts.argmax()]
    return targets


def evaluate(model: Model, composition: Composition, config: Config) -> Scores:
    """Cluster a composition and compare with its labels."""
    rule = "confidence" if model.kind == "literal" else config.clusters.rule
    clusters = config.clusters.model_copy(update={"rule": rule})
    predicted = [
        _labels_of(group, refined, clusters)
        for group, refined in zip(composition.groups, _refine_all(model, composition, config), strict=True)
    ]
    return score(np.concatenate(composition.labels), np.concatenate(predicted))


def _labels_of(group: Group, refined: Any, config: ClustersConfig) -> NDArray[np.int64]:
    return recluster(group.face_ids, group.keys, refined, config).labels


def _refine_all(model: Model, composition: Composition, config: Config) -> list[Any]:
    results = []
    for start in range(0, len(composition.groups), 200):
        part = composition.groups[start : start + 200]
        results += refine_groups(part, model, config.confidences, config.similarities, composition.scale)
    return results


def _own(recipes: Sequence[Recipe], kind: str) -> list[Recipe]:
    return [r if kind == "relations" else r._replace(off_centre=0.0) for r in recipes]


def _check_galleries(galleries: Sequence[LabelledGallery], kind: str) -> None:
    widths = sorted({gallery.vectors.shape[1] for gallery in galleries})
    if kind != "relations" and len(widths) > 1:
        raise DataError(
            f"a {kind} model is bound to one embedding, and the galleries have widths {widths}: train it "
            "on one, or set train.kind=relations"
        )
    if not galleries:
        raise DataError("there is no labelled gallery to train on")
    for number, gallery in enumerate(galleries, 1):
        people, sizes = np.unique(gallery.labels, return_counts=True)
        if (sizes >= 2).sum() < 10:
            raise DataError(
                f"labelled gallery {number} has {len(people)} people, {(sizes >= 2).sum()} of them with two "
                "or more images; training needs at least 10 such people"
            )


def _examples(
    composition: Composition, kind: str, config: Config, generator: np.random.Generator
) -> list[Example]:
    """Draw root groups up to the pairs of a composition, each with inputs and targets."""
    examples, pairs = [], 0
    for place in generator.permutation(len(composition.groups)):
        group, labels = composition.groups[place], composition.labels[place]
        if len(labels) == 1:
            continue
        inputs = describe(group, kind, config.confidences, config.similarities, composition.scale)
        same = pair_targets(labels, inputs)
        examples.append(Example(group, inputs, same, confidence_targets(labels, group.keys)))
        pairs += max(len(same), len(labels))
        if pairs >= PAIRS_PER_COMPOSITION:
            break
    return examples


def _fit_scales(network: Network, examples: Sequence[Example]) -> None:
    """Set the network's input means and scales."""
    for name, columns in (
        ("node", [one.inputs.nodes for one in examples]),
        ("pair", [one.inputs.pairs for one in examples]),
    ):
        values = np.concatenate(columns)
        if values.shape[1] and getattr(network, f"{name}_mean").numel():
            getattr(network, f"{name}_mean").copy_(torch.from_numpy(values.mean(0)))
            getattr(network, f"{name}_scale").copy_(torch.from_numpy(values.std(0) + 1e-3))


def _optimise(
    network: Network,
    card: dict[str, Any],
    examples: list[list[Example]],
    held: list[Composition],
    config: Config,
    generator: np.random.Generator,
) -> Trained:
    settings = config.train
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=settings.steps, pct_start=0.1
    )
    best, best_state, rows, losses = -1.0, copy.deepcopy(network.state_dict()), [], []
    for step in range(1, settings.steps + 1):
        batch = _draw_batch(examples[generator.integers(len(examples))], generator)
        loss = _loss(network, batch, generator)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if step % settings.validate_every and step != settings.steps:
            continue
        f, scores = _validate(Model(network, card), held, config)
        rows.append({"step": step, "loss": float(np.mean(losses)), "validation_f": f})
        log.info("step %d: loss %.4f, validation F %.4f", step, rows[-1]["loss"], f)
        losses.clear()
        if f > best:
            best, best_state = f, copy.deepcopy(network.state_dict())
            card["metrics"] = {"validation_f": f, "step": step, **scores}
        elif len(rows) - max(range(len(rows)), key=lambda i: rows[i]["validation_f"]) > settings.patience:
            break
    network.load_state_dict(best_state)
    network.eval()
    return Trained(Model(network, card), rows)


def _validate(model: Model, held: list[Composition], config: Config) -> tuple[float, dict[str, float]]:
    """Give the mean of pairwise and BCubed F over the held-out compositions, and each one's."""
    model.network.eval()
    each = {}
    for number, composition in enumerate(held):
        scores = evaluate(model, composition, config)
        # Where every image is left alone the share of right pairs is undefined, and worth nothing.
        each[f"{number + 1}: {composition.name}"] = (
            float(np.nan_to_num(scores.pairwise_f)) + scores.bcubed_f
        ) / 2
    model.network.train()
    return float(np.mean(list(each.values()))), each


def _draw_batch(examples: list[Example], generator: np.random.Generator) -> list[Example]:
    """Draw groups of one composition until they hold the pairs of a step."""
    batch, pairs = [], 0
    for place in generator.permutation(len(examples)):
        batch.append(examples[place])
        pairs += max(len(examples[place].same), len(examples[place].belongs[0]))
        if pairs >= PAIRS_PER_STEP:
            break
    return batch


def _loss(network: Network, batch: list[Example], generator: np.random.Generator) -> torch.Tensor:
    """Give the cross-entropy of pairs, plus a share of that of the images' confidences."""
    tensors = to_tensors([one.group for one in batch], [one.inputs for one in batch])
    hidden = network.embed(tensors, all_rows)
    logits = network.confidences(hidden, tensors, all_rows)
    belongs = torch.from_numpy(np.concatenate([one.belongs for one in batch], 1))
    node_loss = functional.binary_cross_entropy_with_logits(logits, belongs)
    if network.pair is None:
        return node_loss
    starts = np.concatenate([[0], np.cumsum([len(one.group.face_ids) for one in batch])])
    first = np.concatenate([one.inputs.first + s for one, s in zip(batch, starts, strict=False)])
    second = np.concatenate([one.inputs.second + s for one, s in zip(batch, starts, strict=False)])
    inputs = np.concatenate([one.inputs.pairs for one in batch])
    same = np.concatenate([one.same for one in batch])
    if len(first) > 2 * PAIRS_PER_STEP:
        kept = generator.choice(len(first), 2 * PAIRS_PER_STEP, replace=False)
        first, second, inputs, same = first[kept], second[kept], inputs[kept], same[kept]
    pairs = torch.from_numpy(np.stack([first, second]))
    extras = pair_extras(torch.sigmoid(logits), tensors.keys, pairs)
    answer = network.log_odds(hidden, pairs, torch.from_numpy(inputs), extras, all_rows)
    pair_loss = functional.binary_cross_entropy_with_logits(answer, torch.from_numpy(same))
    return pair_loss + CONFIDENCE_LOSS * node_loss


def _card(
    config: Config, dimension: int, description: Mapping[str, Any], galleries: Sequence[LabelledGallery]
) -> dict[str, Any]:
    kind = config.train.kind
    bound = kind != "relations"
    names = config.ingest.attribute_names
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
        "embedding": {"width": dimension, "model": config.ingest.embedding_model} if bound else None,
        "attributes": list(names) if bound and names else None,
        "config": config.model_dump(mode="json", exclude={"spark", "synth", "tables"}),
        "data": {
            "galleries": [
                {
                    "faces": len(gallery.labels),
                    "people": len(np.unique(gallery.labels)),
                    "embedding_width": gallery.vectors.shape[1],
                    "attributes": gallery.attributes.shape[1],
                }
                for gallery in galleries
            ],
            **description,
        },
    }
