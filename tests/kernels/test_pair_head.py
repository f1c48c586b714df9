"""The pair head by shared blocks of joined rows, against `Network.log_odds` on whole tensors."""

import numpy as np
import pytest
import torch

from faceclust_spark.kernels.graph_convolution import PAIR_EXTRAS, Network, all_rows, pair_extras
from faceclust_spark.kernels.pair_head import GroupPairs, Images, pair_head, pair_log_odds

HIDDEN, PAIRS = 12, 5
SIZES = [1, 2, 9, 1, 14, 3]


@pytest.fixture(autouse=True)
def inference():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield
    torch.set_num_threads(before)


@pytest.fixture(params=[True, False])
def with_onednn(request, monkeypatch):
    if not request.param:
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    return request.param


def network(seed=0):
    torch.manual_seed(seed)
    made = Network(4, PAIRS, HIDDEN, 1).eval()
    for name, buffer in made.named_buffers():
        buffer.copy_(torch.rand_like(buffer) + (0.5 if name.endswith("scale") else 0))
    return made


def batch(thresholds=3, sizes=SIZES):
    generator = np.random.default_rng(thresholds)
    count, starts = sum(sizes), np.cumsum([0, *sizes])
    keys = np.repeat(np.arange(len(sizes)), sizes)[None]
    for _ in range(thresholds - 1):
        keys = np.concatenate([keys, 2 * keys[-1:] + generator.integers(2, size=count)])
    images = Images(
        generator.normal(size=(count, HIDDEN)).astype(np.float32),
        generator.random((thresholds, count)).astype(np.float32),
        keys,
    )
    groups = []
    for start, size in zip(starts, sizes, strict=False):
        first, second = np.triu_indices(size, 1)
        inputs = generator.normal(size=(len(first), PAIRS)).astype(np.float32)
        groups.append(GroupPairs(start, first, second, inputs))
    return images, groups


@pytest.mark.parametrize("thresholds", [1, 2, 4])
@pytest.mark.parametrize("block", [1, 7, 64, 1024])
def test_log_odds_in_blocks_are_those_of_the_network(thresholds, block, with_onednn):
    net = network()
    images, groups = batch(thresholds)
    found = pair_log_odds(net, images, groups, block)
    pairs = torch.from_numpy(np.concatenate([np.stack([g.first, g.second]) + g.start for g in groups], 1))
    hidden, confidences, keys = (torch.from_numpy(part) for part in images)
    inputs = torch.from_numpy(np.concatenate([group.inputs for group in groups]))
    expected = net.log_odds(hidden, pairs, inputs, pair_extras(confidences, keys, pairs), all_rows)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6)
    assert (found.shape, found.dtype) == ((pairs.shape[1],), np.float32)


def test_the_joined_rows_are_bit_for_bit_those_of_training(monkeypatch):
    # A head that gives one column of its rows back shows what was written there.
    net, (images, groups) = network(), batch()
    seen = []
    monkeypatch.setattr(
        "faceclust_spark.kernels.pair_head.pair_head",
        lambda _: lambda rows: seen.append(rows.clone()) or rows[:, 0],
    )
    count = len(pair_log_odds(net, images, groups, 16))
    pairs = torch.from_numpy(np.concatenate([np.stack([g.first, g.second]) + g.start for g in groups], 1))
    inputs = torch.from_numpy(np.concatenate([group.inputs for group in groups]))
    hidden, confidences, keys = (torch.from_numpy(part) for part in images)
    expected = []
    net.log_odds(
        hidden,
        pairs,
        inputs,
        pair_extras(confidences, keys, pairs),
        lambda _, rows: expected.append(rows) or rows,
    )
    torch.testing.assert_close(torch.cat(seen)[:count], expected[0], rtol=0, atol=0)


@pytest.mark.parametrize("block", [16, 1024])
def test_a_pair_has_the_same_bits_in_any_company(block, with_onednn):
    net, (images, groups) = network(), batch()
    whole = pair_log_odds(net, images, groups, block)
    counts = np.cumsum([len(group.first) for group in groups])
    for at, group in enumerate(groups):
        own = pair_log_odds(net, images, [group], block)
        np.testing.assert_array_equal(own, whole[counts[at] - len(group.first) : counts[at]])
    backwards = np.concatenate([pair_log_odds(net, images, groups[::-1], block)])
    ends = np.cumsum([len(group.first) for group in groups[::-1]])
    np.testing.assert_array_equal(np.concatenate(np.split(backwards, ends[:-1])[::-1]), whole)


@pytest.mark.parametrize("width", [3 * HIDDEN + PAIRS + PAIR_EXTRAS, 175])
def test_a_row_has_the_same_bits_at_any_place_of_a_block(width, with_onednn):
    torch.manual_seed(0)
    net = Network(4, PAIRS if width < 175 else 27, HIDDEN if width < 175 else 48, 1)
    head, rows = pair_head(net), torch.randn(1024, width)
    mixed = torch.randperm(1024)
    torch.testing.assert_close(head(rows[mixed]), head(rows)[mixed], rtol=0, atol=0)


def test_no_pairs_have_no_log_odds():
    images, groups = batch(sizes=[1, 1])
    assert pair_log_odds(network(), images, groups, 8).shape == (0,)


def test_a_network_without_pair_head_is_refused():
    with pytest.raises(ValueError, match="no pair head"):
        pair_head(Network(4, 0, HIDDEN, 1))
