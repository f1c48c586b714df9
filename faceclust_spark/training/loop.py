"""Training of one network, with validation on people that it has not seen."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from faceclust_spark.config import Config
from faceclust_spark.errors import DataError
from faceclust_spark.kernels.graph_convolution import Network, all_rows, pair_extras
from faceclust_spark.kernels.model import Model
from faceclust_spark.kernels.refine import to_tensors
from faceclust_spark.training import validation
from faceclust_spark.training.card import write_card
from faceclust_spark.training.examples import PAIRS_PER_STEP, Example, draw_batch, draw_examples
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

CONFIDENCE_LOSS = 0.1  # weight of the images' loss beside the pairs'


class Trained(NamedTuple):
    """A model, and a row of the log for each validation: step, loss, F."""

    model: Model
    log: list[dict[str, float]]


class _Data(NamedTuple):
    """Examples of people to learn from, by composition, and compositions of others."""

    examples: list[list[Example]]
    held: dict[str, Composition]


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
    generator = np.random.default_rng(config.train.seed)
    _check_galleries(galleries, config.train.kind)
    torch.manual_seed(config.train.seed)
    torch.set_num_threads(1)
    data = _draw_data(galleries, config, recipes, generator)
    card = write_card(config, galleries, description or {})
    network = Network(**card["network"])
    _fit_scales(network, [one for composition in data.examples for one in composition])
    return _optimise(network, card, data, config, generator)


def _draw_data(
    galleries: Sequence[LabelledGallery],
    config: Config,
    recipes: Sequence[Recipe],
    generator: np.random.Generator,
) -> _Data:
    """Divide the people and draw all compositions."""
    kind, learning, held = config.train.kind, [], {}
    for number, gallery in enumerate(galleries, 1):
        is_held = split_identities(gallery.labels, config.train.validation_share, generator)
        for recipe in _for_kind(recipes, kind):
            learning.append(draw(take(gallery, ~is_held), recipe, config, generator))
        for recipe in _for_kind(validation.RECIPES, kind):
            name = f"gallery {number}, {recipe.name}"
            held[name] = draw(take(gallery, is_held), recipe, config, generator)
    drawn = [draw_examples(one, kind, config, generator) for one in learning]
    examples = [some for some in drawn if some]
    if not examples:
        raise DataError(
            "no coarse group of the labelled galleries holds two images: lower coarse_groups.thresholds, "
            "or set them to auto"
        )
    return _Data(examples, held)


def _for_kind(recipes: Sequence[Recipe], kind: str) -> list[Recipe]:
    """Leave the embedding as it is for models that are bound to it: no shift of its centre."""
    return [recipe if kind == "relations" else recipe._replace(off_centre=0.0) for recipe in recipes]


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


def _fit_scales(network: Network, examples: Sequence[Example]) -> None:
    """Set the network's input means and scales."""
    nodes = np.concatenate([one.inputs.nodes for one in examples])
    network.node_mean.copy_(torch.from_numpy(nodes.mean(0)))
    network.node_scale.copy_(torch.from_numpy(nodes.std(0) + 1e-3))
    if network.pair is not None:
        pairs = np.concatenate([one.inputs.pairs for one in examples])
        network.pair_mean.copy_(torch.from_numpy(pairs.mean(0)))
        network.pair_scale.copy_(torch.from_numpy(pairs.std(0) + 1e-3))


def _optimise(
    network: Network, card: dict[str, Any], data: _Data, config: Config, generator: np.random.Generator
) -> Trained:
    settings = config.train
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=settings.steps, pct_start=0.1
    )
    best_state = copy.deepcopy(network.state_dict())
    rows: list[dict[str, float]] = []
    losses: list[float] = []
    for step in range(1, settings.steps + 1):
        batch = draw_batch(data.examples[generator.integers(len(data.examples))], generator)
        losses.append(_step(network, batch, optimiser, generator))
        schedule.step()
        if step % settings.validate_every and step != settings.steps:
            continue
        each = validation.validate(Model(network, card), data.held, config)
        f = float(np.mean(list(each.values())))
        rows.append({"step": step, "loss": float(np.mean(losses)), "validation_f": f})
        log.info("step %d: loss %.4f, validation F %.4f", step, rows[-1]["loss"], f)
        losses.clear()
        stale = validation.stale_for([row["validation_f"] for row in rows])
        if not stale:
            best_state = copy.deepcopy(network.state_dict())
            card["metrics"] = {"validation_f": f, "step": step, **each}
        elif stale >= settings.patience:
            break
    network.load_state_dict(best_state)
    network.eval()
    card["log"] = rows
    return Trained(Model(network, card), rows)


def _step(
    network: Network,
    batch: Sequence[Example],
    optimiser: torch.optim.Optimizer,
    generator: np.random.Generator,
) -> float:
    """Take one step of the optimiser and give the loss before it."""
    loss = _loss(network, batch, generator)
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimiser.step()
    return float(loss.detach())


def _loss(network: Network, batch: Sequence[Example], generator: np.random.Generator) -> torch.Tensor:
    """Give the cross-entropy of pairs, plus a share of that of the images' confidences."""
    tensors = to_tensors([one.group for one in batch], [one.inputs for one in batch])
    hidden = network.embed(tensors, all_rows)
    logits = network.confidences(hidden, tensors, all_rows)
    belongs = torch.from_numpy(np.concatenate([one.belongs for one in batch], 1))
    node_loss = functional.binary_cross_entropy_with_logits(logits, belongs)
    if network.pair is None:
        return node_loss
    starts = np.cumsum([0, *(len(one.group.face_ids) for one in batch)])
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
