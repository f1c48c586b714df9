"""Rounds over clusters: who meets whom, who joins, and what becomes of photos, labels and confidences."""

import numpy as np
import pytest
import torch

from faceclust_spark.config import RoundsConfig
from faceclust_spark.kernels.assignment import LEFT, MEMBER
from faceclust_spark.kernels.calibration import AloneCalibration
from faceclust_spark.kernels.encounters import LINKS, Links, neighbour_links
from faceclust_spark.kernels.grid import normalise, quantise
from faceclust_spark.kernels.joiner import MEMBERS, Joiner, join_log_odds
from faceclust_spark.kernels.meetings import MEETING_INPUTS
from faceclust_spark.kernels.nearest import Scale
from faceclust_spark.kernels.neighbours import NeighbourLists
from faceclust_spark.kernels.rounds import (
    Described,
    Gallery,
    Hosts,
    Placed,
    choose_hosts,
    describe_meetings,
    join_clusters,
    part_rivals,
    settle,
    sure_alone,
)
from faceclust_spark.kernels.standing import NO_CLUSTER

SCALE = Scale(0.0, 0.1)


def links(*pairs):
    first, second, cosine = zip(*pairs, strict=True)
    return Links(np.array(first), np.array(second), np.array(cosine, np.float32))


def gallery(count, photos=None, seed=0):
    raw = np.random.default_rng(seed).normal(size=(count, 16))
    numbers = np.full(count, -1) if photos is None else np.array(photos)
    unknown = np.full(count, np.nan, np.float32)
    return Gallery(
        np.arange(count), quantise(normalise(raw)), np.zeros((count, 0), np.float32), unknown, numbers
    )


def met(labels, found, photos=None, **settings):
    labels = np.array(labels)
    described = describe_meetings(
        gallery(len(labels), photos), labels, found, SCALE, RoundsConfig(**settings)
    )
    return list(zip(described.visitor.tolist(), described.host.tolist(), strict=True))


def test_a_small_cluster_meets_the_larger_ones_that_its_links_lead_to():
    labels = [0, 0, 0, 3, 4, 4, 6]
    found = links((3, 0, 0.5), (3, 4, 0.6), (4, 2, 0.3), (0, 4, 0.9), (6, 3, 0.4), (3, 6, 0.4), (4, 5, 0.9))
    # 0 is the largest, so it visits nobody; of 3 and 6, both alone, the one of the smaller label is the host.
    assert met(labels, found) == [(3, 4), (3, 0), (4, 0), (6, 3)]
    assert met(labels, found, largest_visitor=1) == [(3, 4), (3, 0), (6, 3)]
    assert met(labels, found, hosts=1) == [(3, 4), (4, 0), (6, 3)]


def test_hosts_of_equal_links_go_by_their_number_then_by_label():
    found = links((6, 0, 0.5), (6, 2, 0.5), (6, 3, 0.4), (6, 4, 0.5), (6, 5, 0.5))
    assert met([0, 0, 2, 2, 4, 4, 6], found, hosts=2) == [(6, 2), (6, 4)]


def test_clusters_that_show_one_photo_do_not_meet():
    found = links((4, 0, 0.5), (4, 2, 0.4))
    assert met([0, 0, 2, 2, 4], found) == [(4, 0), (4, 2)]
    assert met([0, 0, 2, 2, 4], found, photos=[-1, 7, -1, -1, 7]) == [(4, 2)]
    assert met([0, 0, 2, 2, 4], found, photos=[7, 8, 8, 7, 7]) == []


def test_links_are_the_nearest_of_each_list():
    count = LINKS + 5
    ids = np.arange(10, 10 + count)
    lists = NeighbourLists(
        ids[[3, 1]],
        np.array([0, count - 1, count + 1]),
        np.r_[ids[1:], ids[[0, 2]]],
        np.linspace(1, 0, count + 1),
    )
    found = neighbour_links(ids, lists)
    assert found.first.tolist() == [3] * LINKS + [1, 1]
    assert found.second.tolist() == [*range(1, LINKS + 1), 0, 2]


def described(*pairs):
    visitor, host = (np.array(ends) for ends in zip(*pairs, strict=True))
    return Described(visitor, host, np.zeros((len(pairs), MEETING_INPUTS), np.float32))


def test_each_visitor_joins_its_best_host_unless_that_joins_another():
    meetings = described((5, 1), (5, 2), (7, 5), (8, 2), (9, 1), (9, 2))
    odds = np.array([300, 600, 900, 128, 256, 256], np.int16)
    hosts = choose_hosts(meetings, odds, least=0.5)
    assert hosts.visitor.tolist() == [5, 7, 8, 9]
    assert hosts.host.tolist() == [2, 5, 2, 1]  # of two equal ones the smaller label
    assert hosts.log_odds.tolist() == [600 / 256, 900 / 256, 0.5, 1.0]
    assert hosts.joins.tolist() == [True, False, False, True]  # 7: its host leaves; 8: not above the least
    assert hosts.second.tolist() == [1, NO_CLUSTER, NO_CLUSTER, 2]
    np.testing.assert_array_equal(hosts.second_log_odds, np.float32([300 / 256, np.nan, np.nan, 1.0]))


def hosts_of(*rows):
    visitor, host, odds = zip(*rows, strict=True)
    joins, nobody = np.ones(len(rows), bool), np.full(len(rows), NO_CLUSTER)
    odds = np.array(odds, np.float32)
    return Hosts(np.array(visitor), np.array(host), odds, joins, nobody, odds * np.nan)


def placed_in(labels, confidences, statuses, runner_ups=None):
    """Place faces, with a margin of 5 before each runner-up (label, NO_CLUSTER or None)."""
    none = np.full(len(labels), NO_CLUSTER)
    runner_ups = none if runner_ups is None else np.array(runner_ups)
    margins = np.where(runner_ups == NO_CLUSTER, np.nan, 5).astype(np.float32)
    return Placed(labels, np.array(confidences, np.float32), np.array(statuses), runner_ups, margins)


def test_of_two_that_show_one_photo_the_likelier_joins():
    labels = np.array([0, 0, 3, 3, 5, 6, 7])
    photos = np.array([1, 2, 9, 8, 9, 9, 8])
    hosts = hosts_of((3, 0, 2.0), (5, 0, 3.0), (6, 0, 3.0), (7, 0, 1.0))
    parted = part_rivals(hosts, labels, photos)
    assert parted.joins.tolist() == [False, True, False, False]
    elsewhere = hosts._replace(host=np.array([0, 1, 2, 3]))
    assert part_rivals(elsewhere, labels, photos).joins.all()


def test_labels_statuses_and_confidences_after_a_round():
    labels = np.array([4, 4, 2, 2, 2, 1, 9])
    placed = placed_in(labels, [0.8] * 7, [MEMBER] * 5 + [LEFT] * 2)
    hosts = hosts_of((1, 2, 2.0), (4, 2, 1.0), (9, 2, -1.0))
    hosts.joins[2] = False
    after = settle(placed, hosts)
    assert after.labels.tolist() == [1, 1, 1, 1, 1, 1, 9]  # the smallest face id, whoever was the host
    assert after.statuses.tolist() == [MEMBER] * 6 + [LEFT]
    p = 1 / (1 + np.exp(-np.array([1.0, 2.0, 1.0])))
    assert after.confidences == pytest.approx([0.8 * p[0], 0.8 * p[0], 0.8, 0.8, 0.8, p[1], p[2]], abs=1e-6)


def test_one_that_was_alone_is_as_sure_as_its_surest_visitor():
    placed = placed_in(np.array([0, 1, 2, 3]), [0.9, 0.9, 0.9, 0.9], [LEFT] * 4, [3, -1, -1, -1])
    hosts = hosts_of((0, 3, -1.0), (1, 0, 2.0), (2, 0, 1.0))
    hosts.joins[0] = False
    after = settle(placed, hosts)
    assert after.labels.tolist() == [0, 0, 0, 3]
    p = 1 / (1 + np.exp(-np.array([2.0, 2.0, 1.0])))
    assert after.confidences == pytest.approx([*p, 0.9], abs=1e-6)
    assert after.runner_ups.tolist() == [3, -1, -1, -1]
    assert after.margins[0] == 3.0  # 2 for its own cluster, 1 against the other


def test_one_that_stays_alone_is_never_surer_than_before():
    placed = placed_in(np.arange(2), [0.3, 1.0], [LEFT, LEFT])
    hosts = hosts_of((1, 0, -3.0))
    hosts.joins[0] = False
    assert settle(placed, hosts).confidences == pytest.approx([0.3, 1 / (1 + np.exp(-3))], abs=1e-6)


def test_runner_ups_after_a_round_by_hand():
    #           joins 2    stays       stays, alone  host of 3  knows of the joined  met nobody
    labels = [4, 4, 4, 6, 6, 9, 2, 2, 7]
    before = [8, 9, -1, 7, -1, 7, 4, 9, 4]
    labels, before = np.array([*labels, 8]), [*before, -1]
    placed = placed_in(labels, [0.8] * 10, [MEMBER] * 8 + [LEFT] * 2, before)
    hosts = hosts_of((4, 2, 3.0), (6, 4, -2.0), (9, 4, 0.5))
    hosts.joins[1:] = False
    hosts.second[0], hosts.second_log_odds[0] = 9, 0.25
    after = settle(placed, hosts)
    assert after.labels.tolist() == [2, 2, 2, 6, 6, 9, 2, 2, 7, 8]
    # A joined cluster's next best host; whom the own images knew of, else the host; the host for one alone;
    # what became the same cluster is forgotten, what was renamed is renamed.
    assert after.runner_ups.tolist() == [9, 9, 9, 7, 2, 2, -1, 9, 2, -1]
    expected = [2.75, 2.75, 2.75, 5, 2, -0.5, np.nan, 5, 5, np.nan]
    np.testing.assert_array_equal(after.margins, np.float32(expected))
    nobody = Hosts(*(column[:0] for column in hosts))
    same = settle(placed, nobody)
    for found, expected in zip(same, placed, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_those_who_are_alone_after_the_rounds_are_calibrated_by_their_number():
    placed = placed_in([0, 0, 2, 3, 3, 5], [0.9, 0.8, 0.75, 0.7, 0.6, 1.0], [MEMBER] * 6)
    found = sure_alone(placed, AloneCalibration(-0.5, 0.5, 2.0))
    kind = np.log((2 + 1) / (2 + 1))  # two clusters of four are alone
    expected = [1 / (1 + np.exp(0.5 - 0.5 * odds - 2 * kind)) for odds in (np.log(3), 8)]
    assert found.confidences[[2, 5]] == pytest.approx(expected)
    np.testing.assert_array_equal(found.confidences[[0, 1, 3, 4]], placed.confidences[[0, 1, 3, 4]])
    assert placed.confidences[2] == np.float32(0.75)  # what was given is left as it was


@pytest.mark.parametrize("seed", range(3))
def test_rounds_end_keep_photos_apart_and_only_ever_join(seed):
    generator = np.random.default_rng(seed)
    count = 80
    photos = np.where(generator.random(count) < 0.5, generator.integers(20, size=count), -1)
    labels = np.arange(count)
    nodes = gallery(count, photos, seed)
    first, second = generator.integers(count, size=(2, 600))
    found = Links(first, second, generator.random(600).astype(np.float32))
    torch.manual_seed(seed)
    joiner = Joiner().eval()
    start = placed_in(labels, np.ones(count), [LEFT] * count, generator.integers(count, size=count))
    config = RoundsConfig(count=6, least_log_odds=-20, hosts=8)
    after, rounds = join_clusters(nodes, start, found, joiner, SCALE, config)
    assert (rounds[0].sizes == 1).all() and len(rounds) > 1
    sizes = np.bincount(after.labels, minlength=count)
    assert sizes.max() > 2  # joins there were
    assert (after.labels <= np.arange(count)).all() and (after.labels[after.labels] == after.labels).all()
    shown = [(label, photo) for label, photo in zip(after.labels, photos, strict=True) if photo >= 0]
    assert len(shown) == len(set(shown))
    assert ((after.statuses == MEMBER) == (sizes[after.labels] > 1)).all()
    calibration = AloneCalibration(-0.5, 0.5, 2.0)
    told = join_clusters(nodes, start, found, joiner, SCALE, config, calibration).placed
    for one, other in zip(told, sure_alone(after, calibration), strict=True):
        np.testing.assert_array_equal(one, other)
    none = join_clusters(nodes, start, found, joiner, SCALE, RoundsConfig(count=0), calibration)
    assert none.rounds == []
    np.testing.assert_array_equal(none.placed.confidences, start.confidences)
    assert none.placed.labels.tolist() == labels.tolist()
    known = after.runner_ups != NO_CLUSTER
    assert known.any() and (np.isnan(after.margins) == ~known).all()
    assert set(after.runner_ups[known].tolist()) <= set(after.labels.tolist())
    assert (after.runner_ups != after.labels).all()


def test_log_odds_are_the_mean_of_the_members_whatever_the_company():
    torch.manual_seed(1)
    joiner = Joiner().eval()
    inputs = np.random.default_rng(1).normal(size=(2_500, MEETING_INPUTS)).astype(np.float32) * 5
    odds = join_log_odds(joiner, inputs)
    with torch.inference_mode():
        answers = joiner(torch.from_numpy(inputs))
    assert answers.shape == (2_500, MEMBERS)
    assert odds / 256 == pytest.approx(answers.mean(1).numpy(), abs=1 / 256)
    for rows in (slice(0, 1), slice(700, 1_900)):
        assert (join_log_odds(joiner, inputs[rows]) == odds[rows]).all()
