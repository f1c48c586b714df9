"""The graph convolution over a group's similarity matrix, and its two answers [claim 1].

Groups are handed over one after the other in the same tensors; nothing flows between them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

Rows = Callable[[nn.Module, Tensor], Tensor]

PAIR_EXTRAS = 4  # depth of the smallest common group, both confidences in it, their product


class GroupTensors(NamedTuple):
    """Some groups as tensors: n images, e edges an image (the first one to itself), t thresholds."""

    nodes: Tensor  # float (n, inputs)
    edges: Tensor  # long (n, e): rows that an image is linked to
    weights: Tensor  # float (n, e): preprocessed similarity, 0 where cut
    keys: Tensor  # long (t, n): number of the image's group at each threshold, unique over all groups
    group_count: int


class GraphConvolution(nn.Module):
    r"""One residual layer of graph convolution (after Kipf & Welling 2017).

    .. math:: H' = H + relu(LayerNorm(W [H, \hat{A} H] + b))

    Args:
        width: number of hidden features.

    Shapes:
        input `(n, width)`, edges and weights `(n, e)` with rows of weights that sum to 1 (the
        normalised matrix, self-similarity kept), output `(n, width)`.

    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, hidden: Tensor, groups: GroupTensors, rows: Rows) -> Tensor:
        """Give the next hidden features."""
        both = torch.cat([hidden, gather(hidden, groups.edges, groups.weights)], 1)
        return hidden + functional.relu(rows(nn.Sequential(self.linear, self.norm), both))


class Network(nn.Module):
    """Inputs to hidden features, graph convolutions, then a confidence and refined log-odds.

    Args:
        inputs: width of an image's inputs: relations, face features or both.
        pair_inputs: width of a pair's inputs; 0 for a network without refined similarities.
        hidden, layers: width and number (0 or more) of the convolutions.

    """

    node_mean: Tensor
    node_scale: Tensor
    pair_mean: Tensor
    pair_scale: Tensor

    def __init__(self, inputs: int, pair_inputs: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.register_buffer("node_mean", torch.zeros(inputs))
        self.register_buffer("node_scale", torch.ones(inputs))
        self.register_buffer("pair_mean", torch.zeros(pair_inputs))
        self.register_buffer("pair_scale", torch.ones(pair_inputs))
        self.enter = nn.Linear(inputs, hidden)
        self.convolutions = nn.ModuleList(GraphConvolution(hidden) for _ in range(layers))
        self.confidence = nn.Sequential(nn.Linear(3 * hidden + 1, 32), nn.ReLU(), nn.Linear(32, 1))
        self.pair = (
            nn.Sequential(
                nn.Linear(3 * hidden + pair_inputs + PAIR_EXTRAS, 128),
                nn.ReLU(),
                nn.Linear(128, 64),
                nn.ReLU(),
                nn.Linear(64, 1),
            )
            if pair_inputs
            else None
        )

    def embed(self, groups: GroupTensors, rows: Rows) -> Tensor:
        """Give the hidden features of each image, `(n, hidden)`."""
        nodes = (groups.nodes - self.node_mean) / self.node_scale
        hidden = functional.relu(rows(self.enter, nodes))
        for convolution in self.convolutions:
            hidden = convolution(hidden, groups, rows)
        return hidden

    def confidences(self, hidden: Tensor, groups: GroupTensors, rows: Rows) -> Tensor:
        """Give the logit that each image belongs to each of its groups, `(t, n)`.

        A last convolution over the block of the similarity matrix that the group is, beside the
        mean of the group and its size.
        """
        answers = []
        for keys in groups.keys:
            inside = groups.weights * (keys[groups.edges] == keys[:, None])
            # A running sum adds in the order of the links, so the padding that a wider group in the same
            # batch brings changes nothing; a plain sum's tree, and so its last bit, follows the width.
            inside = inside / inside.cumsum(1)[:, -1:]
            local = gather(hidden, groups.edges, inside)
            total = hidden.new_zeros(groups.group_count, hidden.shape[1]).index_add_(0, keys, hidden)
            size = hidden.new_zeros(groups.group_count).index_add_(0, keys, hidden.new_ones(len(keys)))
            mean = (total / size.clamp(min=1)[:, None])[keys]
            # In double precision: rounded to single, the vector and the scalar logarithm agree.
            scale = torch.log(size[keys].double()).float().clamp(max=6.0)[:, None] / 3
            answers.append(rows(self.confidence, torch.cat([hidden, local, mean, scale], 1))[:, 0])
        return torch.stack(answers)

    def log_odds(self, hidden: Tensor, pairs: Tensor, inputs: Tensor, extras: Tensor, rows: Rows) -> Tensor:
        """Give the log-odds that each pair is one person, `(p,)`; symmetric in the pair.

        Shapes: pairs `(2, p)`, inputs `(p, pair_inputs)`, extras `(p, PAIR_EXTRAS)`.
        """
        if self.pair is None:
            raise ValueError("this network has no pair head")
        one, other = hidden[pairs[0]], hidden[pairs[1]]
        scaled = (inputs - self.pair_mean) / self.pair_scale
        joined = torch.cat([one + other, (one - other).abs(), one * other, scaled, extras], 1)
        return rows(self.pair, joined)[:, 0]


def gather(hidden: Tensor, edges: Tensor, weights: Tensor) -> Tensor:
    """Give the weighted sum over each image's edges: the sparse product of matrix and features."""
    return functional.embedding_bag(edges, hidden, mode="sum", per_sample_weights=weights)


def pair_extras(confidences: Tensor, keys: Tensor, pairs: Tensor) -> Tensor:
    """Describe the smallest coarse group that holds both images of a pair, `(p, PAIR_EXTRAS)`.

    Its depth among the thresholds (0 to 1), the lower and the higher confidence in it, and their
    product, the chance that both are the group's person.

    Shapes: confidences (probabilities) and keys `(t, n)`, pairs `(2, p)`.
    """
    same = keys[:, pairs[0]] == keys[:, pairs[1]]
    depth = same.sum(0) - 1  # groups nest: equal at one threshold means equal at all lower ones
    one, other = confidences[depth, pairs[0]], confidences[depth, pairs[1]]
    share = depth.to(confidences.dtype) / max(len(keys) - 1, 1)
    return torch.stack([share, torch.minimum(one, other), torch.maximum(one, other), one * other], 1)


@contextlib.contextmanager
def one_torch_thread() -> Iterator[None]:
    """Hold torch to one thread until the end of the block: sums in one order, and a caller a core.

    The number is torch's own for the whole process. Who runs several refining threads holds it around
    all of them, so that none of them finds another number to go back to.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)  # the caller's own, in a notebook


def all_rows(module: nn.Module, inputs: Tensor) -> Tensor:
    """Apply a module to all rows at once, as training does."""
    result: Tensor = module(inputs)
    return result


def fixed_blocks(size: int) -> Rows:
    """Give a way to apply modules in blocks of exactly `size` rows, the last one padded.

    A matrix product's bits depend on its shape: over concatenated groups 0.6 % of values changed
    against each group alone. In one fixed shape a row's result does not depend on its company.
    """

    def apply(module: nn.Module, inputs: Tensor) -> Tensor:
        results = []
        for start in range(0, len(inputs), size):
            block = inputs[start : start + size]
            padded = functional.pad(block, (0, 0, 0, size - len(block)))
            results.append(module(padded)[: len(block)])
        return torch.cat(results) if results else module(inputs)

    return apply
