"""The ablation: what is taken away from a network stays away, and the table from end to end."""

from __future__ import annotations

import json
import sys

import ablation
import numpy as np
import pytest
import torch
from accuracy_faces import Faces

from faceclust_spark.config import SynthConfig
from faceclust_spark.kernels.graph_convolution import PAIR_EXTRAS, GroupTensors, Network, all_rows
from faceclust_spark.kernels.relations import NODE_INPUTS, PAIR_INPUTS
from faceclust_spark.kernels.synth import draw_gallery
from faceclust_spark.training import validation


def a_network() -> Network:
    torch.manual_seed(5)
    return Network(inputs=NODE_INPUTS, pair_inputs=PAIR_INPUTS, hidden=6, layers=1)


def answer(network: Network, nodes: torch.Tensor, inputs: torch.Tensor, extras: torch.Tensor) -> torch.Tensor:
    itself = GroupTensors(nodes, torch.tensor([[0], [1]]), torch.ones(2, 1), torch.zeros(1, 2, dtype=int), 1)
    pairs = torch.tensor([[0], [1]])
    return network.log_odds(network.embed(itself, all_rows), pairs, inputs, extras, all_rows)[0]


def something() -> list[torch.Tensor]:
    """Give inputs of two images, and of their pair with its extras."""
    return [torch.rand(2, NODE_INPUTS), torch.rand(1, PAIR_INPUTS), torch.rand(1, PAIR_EXTRAS)]


def sees(network: Network) -> list[set[int]]:
    """Give the columns of each kind of input that the answer depends on."""
    given = [one.requires_grad_() for one in something()]
    answer(network, *given).backward()
    return [set(np.flatnonzero((one.grad.abs() > 1e-20).any(0)).tolist()) for one in given]


@pytest.mark.parametrize("name", ablation.VARIANTS)
def test_a_variant_sees_all_but_what_is_taken_away_also_after_learning(name):
    variant, network = ablation.VARIANTS[name], a_network()
    ablation.blind(network, variant)
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.1, weight_decay=0.01)
    for _ in range(3):
        optimiser.zero_grad()
        (answer(network, *something()) - 1).square().backward()
        optimiser.step()
    nodes, inputs, extras = sees(network)
    assert nodes == set(range(NODE_INPUTS)) - set(variant.unseen_nodes)
    assert inputs == set(range(PAIR_INPUTS)) - set(variant.unseen)
    assert extras == set(range(PAIR_EXTRAS)) - set(variant.unseen_extras)


def synthetic(name: str) -> Faces:
    drawn = draw_gallery(SynthConfig(faces=500, dimension=48 if name.endswith("512") else 32, seed=3))
    sources = np.full(len(drawn.labels), "studio", object)
    return Faces(drawn.image_ids, drawn.embeddings, drawn.attributes, drawn.labels, sources)


def test_the_table_of_two_variants(monkeypatch, capsys):
    monkeypatch.setattr(ablation, "read_faces", synthetic)
    monkeypatch.setattr(ablation, "RECIPES", ablation.RECIPES[:2])
    monkeypatch.setattr(validation, "RECIPES", validation.RECIPES[:1])
    # Hardly trained, so every pair has to count as one person, that there be clusters to learn from.
    few = ("train.steps=2", "train.half_steps=2", "train.join_steps=2", "train.draws=1", "clusters.bias=-4")
    settings = [word for setting in few for word in ("--set", setting)]
    monkeypatch.setattr(sys, "argv", ["ablation.py", "--variants", "everything,convolution", *settings])
    ablation.main()
    printed = capsys.readouterr()
    rows = json.loads(printed.out.splitlines()[-1])["results"]
    assert [(row["variant"], row["set"]) for row in rows] == [
        (variant, name) for variant in ("everything", "convolution") for name in ablation.DEV_SETS
    ]
    assert all(0 <= row["without_rounds"] <= 1 and 0 <= row["mean_f"] <= 1 for row in rows)
    assert "no graph convolution" in printed.err


def test_an_unknown_variant_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ablation.py", "--variants", "everything,magic"])
    with pytest.raises(SystemExit):
        ablation.main()
    assert "no variant magic" in capsys.readouterr().err
