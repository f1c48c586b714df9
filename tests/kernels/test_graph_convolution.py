"""The sparse convolution against dense matrices, and its blocks against each other."""

import numpy as np
import pytest
import torch

from faceclust_spark.kernels.graph_convolution import (
    PAIR_EXTRAS,
    GraphConvolution,
    GroupTensors,
    Network,
    all_rows,
    fixed_blocks,
    gather,
    pair_extras,
)

INPUTS, PAIRS, HIDDEN = 7, 5, 12


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield
    torch.set_num_threads(before)


def network(layers=2, pair_inputs=PAIRS, seed=0):
    torch.manual_seed(seed)
    made = Network(INPUTS, pair_inputs, HIDDEN, layers)
    for name, buffer in made.named_buffers():
        buffer.copy_(torch.rand_like(buffer) + (0.5 if name.endswith("scale") else 0))
    return made.eval()


def group(size, seed=0, links=4, thresholds=3, start=0, key=0):
    """Give the tensors of one group, and its normalised similarity matrix as a dense one."""
    generator = np.random.default_rng(seed)
    edges, weights = np.full((size, links + 1), start), np.zeros((size, links + 1))
    edges[:, 0] = start + np.arange(size)
    weights[:, 0] = 1
    for row in range(size):
        others = generator.permutation(np.delete(np.arange(size), row))[:links]
        edges[row, 1 : len(others) + 1] = others + start
        weights[row, 1 : len(others) + 1] = generator.random(len(others)) * (
            generator.random(len(others)) < 0.7
        )
    weights /= weights.sum(axis=1, keepdims=True)
    keys = np.full((thresholds, size), key)
    for row in range(1, thresholds):
        keys[row] = 2 * keys[row - 1] + generator.integers(2, size=size)
    matrix = np.zeros((size, size))
    np.add.at(matrix, (np.repeat(np.arange(size), links + 1), (edges - start).ravel()), weights.ravel())
    tensors = GroupTensors(
        torch.from_numpy(generator.normal(size=(size, INPUTS)).astype(np.float32)),
        torch.from_numpy(edges),
        torch.from_numpy(weights.astype(np.float32)),
        torch.from_numpy(keys),
        int(keys.max()) + 1,
    )
    return tensors, torch.from_numpy(matrix)


def dense_layer(layer, hidden, matrix):
    """H + relu(LayerNorm(W [H, A H] + b)), in double precision."""
    both = torch.cat([hidden, matrix @ hidden], 1)
    out = both @ layer.linear.weight.double().T + layer.linear.bias.double()
    centred = out - out.mean(1, keepdim=True)
    out = centred / torch.sqrt((centred**2).mean(1, keepdim=True) + layer.norm.eps)
    return hidden + torch.relu(out * layer.norm.weight.double() + layer.norm.bias.double())


def dense_embed(net, tensors, matrix):
    nodes = (tensors.nodes.double() - net.node_mean) / net.node_scale
    hidden = torch.relu(nodes @ net.enter.weight.double().T + net.enter.bias.double())
    for layer in net.convolutions:
        hidden = dense_layer(layer, hidden, matrix)
    return hidden


def dense_confidences(net, hidden, matrix, keys):
    """Each group by itself: the block of the matrix, the mean of its members, its size."""
    answers = torch.empty(keys.shape, dtype=torch.float64)
    first, _, last = net.confidence
    for row, own in enumerate(keys):
        for key in own.unique():
            members = torch.nonzero(own == key)[:, 0]
            block = matrix[members][:, members]
            block = block / block.sum(1, keepdim=True)
            inside = hidden[members]
            count = torch.full((len(members), 1), min(float(np.log(len(members))), 6.0) / 3)
            inputs = torch.cat([inside, block @ inside, inside.mean(0).expand_as(inside), count.double()], 1)
            middle = torch.relu(inputs @ first.weight.double().T + first.bias.double())
            answers[row, members] = (middle @ last.weight.double().T + last.bias.double())[:, 0]
    return answers


def assert_close(found, expected):
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 9, 50])
def test_a_layer_equals_dense_matrices(size):
    torch.manual_seed(size)
    layer = GraphConvolution(HIDDEN)
    layer.norm.weight.uniform_(0.5, 2)
    layer.norm.bias.uniform_(-1, 1)
    tensors, matrix = group(size)
    hidden = torch.randn(size, HIDDEN)
    assert_close(gather(hidden, tensors.edges, tensors.weights), matrix @ hidden.double())
    assert_close(layer(hidden, tensors, all_rows), dense_layer(layer, hidden.double(), matrix))


@pytest.mark.parametrize("layers", [0, 1, 3])
@pytest.mark.parametrize("size", [1, 2, 60])
def test_hidden_features_and_confidences_equal_dense_matrices(size, layers):
    net = network(layers)
    tensors, matrix = group(size, seed=size)
    hidden = net.embed(tensors, all_rows)
    expected = dense_embed(net, tensors, matrix)
    assert_close(hidden, expected)
    found = net.confidences(hidden, tensors, all_rows)
    assert found.shape == (3, size)
    assert_close(found, dense_confidences(net, expected, matrix, tensors.keys))


def join(parts):
    columns = [torch.cat(column) for column in zip(*(p[:3] for p in parts), strict=True)]
    keys = torch.cat([p.keys for p in parts], 1)
    return GroupTensors(*columns, keys, int(keys.max()) + 1)


def test_nothing_flows_between_groups():
    net = network()
    one, one_matrix = group(20, seed=1)
    other, other_matrix = group(31, seed=2, start=20, key=1)
    both = join([one, other])
    hidden = net.embed(both, all_rows)
    matrix = torch.block_diag(one_matrix, other_matrix)
    expected = dense_embed(net, both, matrix)
    assert_close(hidden, expected)
    found = net.confidences(hidden, both, all_rows)
    assert_close(found, dense_confidences(net, expected, matrix, both.keys))


@pytest.mark.parametrize("size", [16, 64, 1024])
def test_in_fixed_blocks_a_row_has_the_same_bits_in_any_company(size):
    net = network()
    rows = torch.randn(400, 3 * HIDDEN + PAIRS + PAIR_EXTRAS)
    apply = fixed_blocks(size)
    whole = apply(net.pair, rows)
    for count in (1, 2, 15, 16, 17, 333):
        torch.testing.assert_close(apply(net.pair, rows[:count]), whole[:count], rtol=0, atol=0)
    mixed = torch.randperm(400)
    torch.testing.assert_close(apply(net.pair, rows[mixed]), whole[mixed], rtol=0, atol=0)
    torch.testing.assert_close(whole, net.pair(rows), rtol=1e-5, atol=1e-6)


def test_fixed_blocks_of_no_rows():
    assert fixed_blocks(8)(torch.nn.Linear(3, 2), torch.empty(0, 3)).shape == (0, 2)


@pytest.mark.parametrize("wider", [5, 12, 64, 200])
def test_padding_of_links_changes_no_bit(wider):
    # A group's links are padded to the widest group of its batch.
    net, rows = network(), fixed_blocks(64)
    tensors, _ = group(40, links=5)
    extra = torch.arange(40)[:, None].expand(40, wider)
    padded = tensors._replace(
        edges=torch.cat([tensors.edges, extra], 1),
        weights=torch.cat([tensors.weights, torch.zeros(40, wider)], 1),
    )
    hidden, other = net.embed(tensors, rows), net.embed(padded, rows)
    torch.testing.assert_close(hidden, other, rtol=0, atol=0)
    torch.testing.assert_close(
        net.confidences(hidden, tensors, rows), net.confidences(other, padded, rows), rtol=0, atol=0
    )


def pairs_of(size):
    return torch.from_numpy(np.stack(np.triu_indices(size, 1)))


def test_log_odds_equal_double_precision_and_are_symmetric():
    net, pairs = network(), pairs_of(15)
    hidden = torch.randn(15, HIDDEN)
    inputs, extras = torch.randn(pairs.shape[1], PAIRS), torch.rand(pairs.shape[1], PAIR_EXTRAS)
    found = net.log_odds(hidden, pairs, inputs, extras, all_rows)
    a, b = hidden.double()[pairs[0]], hidden.double()[pairs[1]]
    scaled = (inputs.double() - net.pair_mean) / net.pair_scale
    state = torch.cat([a + b, abs(a - b), a * b, scaled, extras.double()], 1)
    for layer in net.pair:
        state = torch.relu(state) if isinstance(layer, torch.nn.ReLU) else layer.double()(state)
    assert_close(found, state[:, 0])
    net.float()
    torch.testing.assert_close(
        net.log_odds(hidden, pairs.flip(0), inputs, extras, all_rows), found, rtol=0, atol=0
    )


def test_a_network_without_pair_head_has_no_log_odds():
    net, pairs = network(pair_inputs=0), pairs_of(3)
    with pytest.raises(ValueError, match="no pair head"):
        net.log_odds(torch.randn(3, HIDDEN), pairs, torch.empty(3, 0), torch.empty(3, 4), all_rows)


@pytest.mark.parametrize("thresholds", [1, 2, 4])
def test_extras_describe_the_smallest_common_group(thresholds):
    tensors, _ = group(12, seed=3, thresholds=thresholds)
    confidences, pairs = torch.rand(thresholds, 12), pairs_of(12)
    found = pair_extras(confidences, tensors.keys, pairs)
    for row, (i, j) in enumerate(pairs.T.tolist()):
        depth = max(t for t in range(thresholds) if tensors.keys[t, i] == tensors.keys[t, j])
        low, high = sorted([float(confidences[depth, i]), float(confidences[depth, j])])
        expected = [depth / max(thresholds - 1, 1), low, high, low * high]
        assert found[row].tolist() == pytest.approx(expected, rel=1e-6)
