"""Training of one network, with validation on people that it has not seen."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from faceclust_spark.config import Config
from faceclust_spark.kernels.graph_convolution import Network, all_rows, pair_extras
from faceclust_spark.kernels.meetings import MEETING_INPUTS
from faceclust_spark.kernels.model import Model
from faceclust_spark.kernels.refine import to_tensors
from faceclust_spark.training import validation
from faceclust_spark.training.card import write_card
from faceclust_spark.training.examples import PAIRS_PER_STEP, Example, draw_batch
from faceclust_spark.training.galleries import RECIPES, Composition, LabelledGallery, Recipe
from faceclust_spark.training.halves import Learned, learn_from_halves
from faceclust_spark.training.material import Material, all_examples, check_galleries, draw_material

log = logging.getLogger(__name__)

CONFIDENCE_LOSS = 0.1  # weight of the images' loss beside the pairs'


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

    Identities are divided once. The held-out ones are for validation, before rounds are played: the last
    state of the network is kept that is not clearly worse than an earlier one, and training stops when
    none has been for a while. The same seed on the same machine gives the same model. description goes
    into the card. Raises DataError where there is too little to learn from.
    """
    generator = np.random.default_rng(config.train.seed)
    check_galleries(galleries, config.train.kind)
    torch.manual_seed(config.train.seed)
    torch.set_num_threads(1)
    material = draw_material(galleries, config, recipes, generator)
    card = write_card(config, galleries, description or {})
    learned = Learned(None, None, None)
    if card["network"]["pair_inputs"]:
        learned = learn_beside(material, card, config, generator)
    if learned.joiner is not None:
        card["joiner"] = {"inputs": MEETING_INPUTS}
    if learned.calibration is not None:
        card["calibration"] = learned.calibration._asdict()
    if learned.alone is not None:
        card["calibration_alone"] = learned.alone._asdict()
    examples = all_examples(material.lessons, config)
    network = new_network(card["network"], examples)
    trained = optimise(Model(network, card), examples, material.held, config, generator)
    return trained._replace(model=replace(trained.model, joiner=learned.joiner))


def learn_beside(
    material: Material, card: dict[str, Any], config: Config, generator: np.random.Generator
) -> Learned:
    """Train a network on each half of the people, and learn from what it makes of the other half."""
    models = [_train_on_half(all_examples(half, config), card, config, generator) for half in material.halves]
    return learn_from_halves(material.whole, models, config)


def _train_on_half(
    examples: list[list[Example]],
    card: dict[str, Any],
    config: Config,
    generator: np.random.Generator,
) -> Model | None:
    """Train a network on half of the people, without validation; None where they have no examples."""
    if not examples:
        return None
    network = new_network(card["network"], examples)
    optimiser, schedule = _optimiser(network, config, config.train.half_steps)
    for _ in range(config.train.half_steps):
        batch = draw_batch(examples[generator.integers(len(examples))], generator)
        _step(network, batch, optimiser, generator)
        schedule.step()
    return Model(network.eval(), card)


def new_network(arguments: Mapping[str, Any], examples: Sequence[Sequence[Example]]) -> Network:
    """Make a network that has learned nothing but the means and scales of its inputs."""
    network = Network(**arguments)
    _fit_scales(network, [one for composition in examples for one in composition])
    return network


def _optimiser(
    network: Network, config: Config, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    rate = config.train.learning_rate
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.01)
    return optimiser, torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.1)


def _fit_scales(network: Network, examples: Sequence[Example]) -> None:
    """Set the network's input means and scales."""
    mean, deviation = _mean_and_deviation([one.inputs.nodes for one in examples])
    network.node_mean.copy_(torch.from_numpy(mean))
    network.node_scale.copy_(torch.from_numpy(deviation + 1e-3))
    if network.pair is not None:
        mean, deviation = _mean_and_deviation([one.inputs.pairs for one in examples])
        network.pair_mean.copy_(torch.from_numpy(mean))
        network.pair_scale.copy_(torch.from_numpy(deviation + 1e-3))


def _mean_and_deviation(
    parts: Sequence[NDArray[np.float32]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the mean and the standard deviation of each column over the rows of all parts, `(n, c)` each.

    In double precision: over millions of rows single ones were off by .01.
    """
    count = sum(len(part) for part in parts)
    mean = sum(part.sum(0, dtype=np.float64) for part in parts) / count
    squares = sum(np.square(part - mean).sum(0) for part in parts)
    return mean, np.sqrt(squares / count)


def optimise(
    model: Model,
    examples: list[list[Example]],
    held: Mapping[str, Composition],
    config: Config,
    generator: np.random.Generator,
) -> Trained:
    """Train a model's network, and keep the last state that is not clearly worse than an earlier one."""
    network, card, settings = model.network, dict(model.card), config.train
    optimiser, schedule = _optimiser(network, config, settings.steps)
    kept_state = copy.deepcopy(network.state_dict())
    rows: list[dict[str, float]] = []
    losses: list[float] = []
    for step in range(1, settings.steps + 1):
        batch = draw_batch(examples[generator.integers(len(examples))], generator)
        losses.append(_step(network, batch, optimiser, generator))
        schedule.step()
        if step % settings.validate_every and step != settings.steps:
            continue
        each = validation.validate(model, held, config)
        f = float(np.mean(list(each.values())))
        rows.append({"step": step, "loss": float(np.mean(losses)), "validation_f": f})
        log.info("step %d: loss %.4f, validation F %.4f", step, rows[-1]["loss"], f)
        losses.clear()
        stale = validation.stale_for([row["validation_f"] for row in rows])
        if not stale:
            kept_state = copy.deepcopy(network.state_dict())
            card["metrics"] = {"validation_f": f, "step": step, **each}
        elif stale >= settings.patience:
            break
    network.load_state_dict(kept_state)
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
