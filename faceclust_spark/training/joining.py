"""Training of the joiner: meetings of clusters that a network made of people it had not learned from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from faceclust_spark.config import Config, TrainConfig
from faceclust_spark.kernels.joiner import Joiner
from faceclust_spark.kernels.metrics import main_identities
from faceclust_spark.kernels.rounds import describe_meetings
from faceclust_spark.training.galleries import Composition

MEETINGS_PER_STEP = 2_048
_LEARNING_RATE = 3e-3


class Examples(NamedTuple):
    """Meetings of one composition."""

    inputs: NDArray[np.float32]  # (p, MEETING_INPUTS)
    same: NDArray[np.float32]  # (p,) 1 where most images of both clusters show one person


def draw_meetings(
    composition: Composition,
    labels: NDArray[np.int64],
    people: NDArray[np.int64],
    counts: NDArray[np.bool_],
    config: Config,
) -> Examples:
    """Describe the meetings of a composition's clusters whose visitor counts.

    Shapes: `(n,)`, rows as the composition's gallery. counts: images of people that the model behind the
    clusters has not learned; a visitor counts by the person whom most of its images show.
    """
    described = describe_meetings(
        composition.gallery, labels, composition.links, composition.scale, config.rounds
    )
    keys, main = main_identities(labels, people)
    one, other = (main[np.searchsorted(keys, ends)] for ends in described[:2])
    kept = np.isin(one, people[counts])
    return Examples(described.inputs[kept], (one == other)[kept].astype(np.float32))


def fit_joiner(examples: Sequence[Examples], settings: TrainConfig) -> Joiner:
    """Fit a joiner, in `join_steps` steps. Compositions count by the square root of their meetings."""
    torch.manual_seed(settings.seed)
    generator = np.random.default_rng(settings.seed)
    inputs = np.concatenate([some.inputs for some in examples])
    same = np.concatenate([some.same for some in examples])
    share = np.concatenate([np.full(len(some.same), len(some.same) ** -0.5) for some in examples])
    joiner, steps = Joiner(), settings.join_steps
    joiner.mean.copy_(torch.from_numpy(inputs.mean(0)))
    joiner.scale.copy_(torch.from_numpy(inputs.std(0) + 1e-3))
    optimiser = torch.optim.AdamW(joiner.parameters(), lr=_LEARNING_RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _LEARNING_RATE, total_steps=steps)
    for _ in range(steps):
        rows = generator.choice(len(same), MEETINGS_PER_STEP, p=share / share.sum())
        answers = joiner(torch.from_numpy(inputs[rows]))
        targets = torch.from_numpy(same[rows])[:, None].expand_as(answers)
        loss = functional.binary_cross_entropy_with_logits(answers, targets)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return joiner.eval()
