"""The pair head of a trained network over the pairs of many groups: `Network.log_odds` for inference.

Training applies the head to whole tensors. Here the rows that it takes are written by one pass over the
pairs, into blocks that pairs of all groups of a batch share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from faceclust_spark.kernels.graph_convolution import PAIR_EXTRAS, Network

Head = Callable[[Tensor], Tensor]


class Images(NamedTuple):
    """What the network says of the images of a batch, groups one after the other."""

    hidden: NDArray[np.float32]  # (n, hidden)
    confidences: NDArray[np.float32]  # (t, n)
    keys: NDArray[np.int64]  # (t, n) groups at each threshold


class GroupPairs(NamedTuple):
    """The pairs of one group, by rows of the batch counted from `start`."""

    start: int
    first: NDArray[np.int64]  # (p,)
    second: NDArray[np.int64]  # (p,)
    inputs: NDArray[np.float32]  # (p, pair_inputs)


def pair_log_odds(
    network: Network, images: Images, groups: Iterable[GroupPairs], block: int
) -> NDArray[np.float32]:
    """Give the log-odds that each pair is one person: float32 `(p,)` over all groups, in their order.

    Pairs go through in blocks of exactly `block` rows, the last one padded: in one fixed shape a pair's
    bits do not depend on its company (see `graph_convolution.fixed_blocks`). Call it within
    `torch.inference_mode`.
    """
    width = 3 * images.hidden.shape[1] + len(network.pair_mean) + PAIR_EXTRAS
    rows = np.zeros((block, width), np.float32)
    scaling = (network.pair_mean.numpy(), network.pair_scale.numpy())
    head, tensor = pair_head(network), torch.from_numpy(rows)
    answers: list[NDArray[np.float32]] = [np.empty(0, np.float32)]
    filled = 0
    for start, first, second, inputs in groups:
        at = 0
        while at < len(first):
            count = min(block - filled, len(first) - at)
            part = slice(at, at + count)
            own = rows[filled : filled + count]
            _join(own, start, first[part], second[part], inputs[part], scaling, images)
            filled, at = filled + count, at + count
            if filled == block:
                answers.append(head(tensor).numpy())
                filled = 0
    answers.append(head(tensor).numpy()[:filled] if filled else answers[0])
    return np.concatenate(answers)


def pair_head(network: Network) -> Head:
    """Give the head's layers as a function of joined rows: `(r, inputs)` to `(r,)`.

    Through oneDNN where torch has it: its products ran at 235 GFLOP/s on one core with AVX-512, those of
    a plain linear layer at 105. Both gave the same rounded log-odds for 400,000 pairs.
    """
    if network.pair is None:
        raise ValueError("this network has no pair head")
    first, second, last = (layer for layer in network.pair if isinstance(layer, torch.nn.Linear))
    packs = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]

    def pack(tensor: Tensor) -> Tensor:
        return tensor.detach().to_mkldnn() if packs else tensor

    weights = [pack(part) for layer in (first, second) for part in (layer.weight, layer.bias)]

    def apply(rows: Tensor) -> Tensor:
        state = pack(rows) if packs else rows
        state = functional.linear(state, weights[0], weights[1]).relu_()
        state = functional.linear(state, weights[2], weights[3]).relu_()
        result: Tensor = last(state.to_dense() if packs else state)
        return result[:, 0]

    return apply


@numba.njit(cache=True, nogil=True)
def _join(rows, start, first, second, inputs, scaling, images):  # type: ignore[no-untyped-def]
    """Write what `Network.log_odds` and `pair_extras` join: sum, distance, product, inputs, extras."""
    hidden, confidences, keys = images
    mean, scale = scaling
    width, pairs = hidden.shape[1], inputs.shape[1]
    steps = np.float32(max(len(keys) - 1, 1))
    for p in range(len(first)):
        i, j, row = first[p] + start, second[p] + start, rows[p]
        one, other, values = hidden[i], hidden[j], inputs[p]
        for k in range(width):
            row[k] = one[k] + other[k]
            row[width + k] = abs(one[k] - other[k])
            row[2 * width + k] = one[k] * other[k]
        for k in range(pairs):
            row[3 * width + k] = (values[k] - mean[k]) / scale[k]
        depth = -1
        for level in range(len(keys)):
            depth += keys[level, i] == keys[level, j]
        extras = row[3 * width + pairs :]
        low, high = confidences[depth, i], confidences[depth, j]
        extras[0] = np.float32(depth) / steps
        extras[1], extras[2] = min(low, high), max(low, high)
        extras[3] = low * high
