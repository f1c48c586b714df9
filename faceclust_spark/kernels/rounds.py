"""Rounds over clusters as nodes: small clusters join larger ones, across coarse groups.

What a coarse group could not decide: of the images left alone in a real gallery of 128-d embeddings nearly
all that had images of their person elsewhere had them in another coarse group. A small cluster joins at most
one host and nobody joins it in the same round, so a blurred face never bridges two large clusters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from faceclust_spark.kernels.assignment import MEMBER
from faceclust_spark.kernels.calibration import AloneCalibration, alone_inputs, calibrate
from faceclust_spark.kernels.encounters import Links, find_meetings, photo_partners
from faceclust_spark.kernels.meetings import (
    SAMPLE,
    Clusters,
    Meetings,
    meeting_inputs,
    places_in_runs,
    rank_hosts,
    take_census,
)
from faceclust_spark.kernels.standing import NO_CLUSTER

if TYPE_CHECKING:
    from faceclust_spark.config import RoundsConfig
    from faceclust_spark.kernels.joiner import Joiner
    from faceclust_spark.kernels.nearest import Scale

_STEPS = 256.0  # of log-odds in one unit: kernels.refine.LOG_ODDS_STEPS, without torch


class Gallery(NamedTuple):
    """Faces with what a round looks at."""

    face_ids: NDArray[np.int64]  # (n,) ascending
    vectors: NDArray[np.int16]  # (n, d) on the grid
    attributes: NDArray[np.float32]  # (n, a) standardised, NaN = missing
    norms: NDArray[np.float32]  # (n,) of the raw embeddings; NaN: unknown
    photos: NDArray[np.int64]  # (n,) number of the photo, -1 = none

    def take(self, rows: NDArray[np.int64]) -> Gallery:
        """Give some of the faces, in the order of the rows."""
        return Gallery(
            self.face_ids[rows],
            self.vectors[rows],
            self.attributes[rows],
            self.norms[rows],
            self.photos[rows],
        )


class Placed(NamedTuple):
    """Where each face stands: its cluster's smallest face id, how sure that is, its status, what else."""

    labels: NDArray[np.int64]  # (n,)
    confidences: NDArray[np.float32]  # (n,)
    statuses: NDArray[np.str_]  # (n,)
    runner_ups: NDArray[np.int64]  # (n,) label of the next best cluster, or NO_CLUSTER
    margins: NDArray[np.float32]  # (n,) log-odds by which the own cluster is ahead of it, or NaN


class Hosts(NamedTuple):
    """The best two hosts of each visitor that met one, by labels of clusters; ascending by visitor."""

    visitor: NDArray[np.int64]  # (v,)
    host: NDArray[np.int64]  # (v,)
    log_odds: NDArray[np.float32]  # (v,) that they are one person
    joins: NDArray[np.bool_]  # (v,)
    second: NDArray[np.int64]  # (v,) the next best host, or NO_CLUSTER
    second_log_odds: NDArray[np.float32]  # (v,) or NaN


class Round(NamedTuple):
    """What one round saw: each visitor's hosts, and how many images it had."""

    hosts: Hosts
    sizes: NDArray[np.int64]  # (v,)


class Played(NamedTuple):
    """Where faces stand after the rounds, and what was seen in each."""

    placed: Placed
    rounds: list[Round]


class Described(NamedTuple):
    """The meetings of a round, by labels of clusters, and their inputs."""

    visitor: NDArray[np.int64]  # (p,)
    host: NDArray[np.int64]  # (p,)
    inputs: NDArray[np.float32]  # (p, MEETING_INPUTS)


def join_clusters(
    gallery: Gallery,
    placed: Placed,
    links: Links,
    joiner: Joiner,
    scale: Scale,
    config: RoundsConfig,
    calibration: AloneCalibration | None = None,
) -> Played:
    """Let small clusters join larger ones, in up to `config.count` rounds.

    Faces of one photo, where the gallery tells of photos, never come into one cluster. calibration: the
    model's, of those that are alone after the rounds.
    """
    from faceclust_spark.kernels.joiner import join_log_odds

    rounds: list[Round] = []
    for _ in range(config.count):
        described = describe_meetings(gallery, placed.labels, links, scale, config)
        hosts = choose_hosts(described, join_log_odds(joiner, described.inputs), config.least_log_odds)
        hosts = part_rivals(hosts, placed.labels, gallery.photos)
        keys, sizes = np.unique(placed.labels, return_counts=True)
        rounds.append(Round(hosts, sizes[np.searchsorted(keys, hosts.visitor)]))
        placed = settle(placed, hosts)
        if not hosts.joins.any():
            break
    return Played(sure_alone(placed, calibration) if calibration and rounds else placed, rounds)


def sure_alone(placed: Placed, calibration: AloneCalibration) -> Placed:
    """Say of the images that are alone after the rounds how sure it is that their person has no other."""
    _, cluster, sizes = np.unique(placed.labels, return_inverse=True, return_counts=True)
    alone, confidences = sizes[cluster] == 1, placed.confidences.copy()
    inputs = alone_inputs(confidences[alone], int(alone.sum()), len(sizes))
    confidences[alone] = calibrate(calibration, inputs)
    return placed._replace(confidences=confidences)


def describe_meetings(
    gallery: Gallery, labels: NDArray[np.int64], links: Links, scale: Scale, config: RoundsConfig
) -> Described:
    """Find who meets whom, and describe it."""
    keys, inverse, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    meetings = find_meetings(inverse, sizes, links, config)
    shared = photo_partners(inverse, gallery.photos, len(keys))
    if len(shared):
        kept = ~np.isin(meetings.visitor * len(keys) + meetings.host, shared)
        meetings = Meetings(*(column[kept] for column in meetings))
    order = np.argsort(inverse, kind="stable")
    order = order[places_in_runs(inverse[order]) < SAMPLE]
    starts = np.concatenate([[0], np.cumsum(np.minimum(sizes, SAMPLE))])
    clusters = Clusters(
        starts, sizes, gallery.vectors[order], gallery.attributes[order], gallery.norms[order]
    )
    inputs = meeting_inputs(clusters, meetings, scale, take_census(sizes))
    rank_hosts(meetings.visitor, meetings.host, inputs)
    return Described(keys[meetings.visitor], keys[meetings.host], inputs)


def choose_hosts(described: Described, log_odds: NDArray[np.int16], least: float) -> Hosts:
    """Give each visitor its two most likely hosts (ties: the smaller label), and say who joins the first.

    Those whose log-odds exceed `least`, unless their host joins another one itself.
    """
    order = np.lexsort((described.host, -log_odds.astype(np.int64), described.visitor))
    places = places_in_runs(described.visitor[order])
    best, next_best = order[places == 0], order[places == 1]
    visitor, host = described.visitor[best], described.host[best]
    odds = log_odds.astype(np.float32) / np.float32(_STEPS)
    wants = odds[best] > np.float32(least)
    second, second_odds = np.full(len(best), NO_CLUSTER), np.full(len(best), np.nan, np.float32)
    place = np.searchsorted(visitor, described.visitor[next_best])
    second[place], second_odds[place] = described.host[next_best], odds[next_best]
    return Hosts(visitor, host, odds[best], wants & ~np.isin(host, visitor[wants]), second, second_odds)


def part_rivals(hosts: Hosts, labels: NDArray[np.int64], photos: NDArray[np.int64]) -> Hosts:
    """Of the visitors that show one photo and join the same host, leave all but the most likely out."""
    place = np.searchsorted(hosts.visitor, labels)
    place[place == len(hosts.visitor)] = 0
    if not len(place) or not len(hosts.visitor):
        return hosts
    rows = np.flatnonzero((hosts.visitor[place] == labels) & hosts.joins[place] & (photos >= 0))
    own = place[rows]
    order = np.lexsort((own, -hosts.log_odds[own], photos[rows], hosts.host[own]))
    own, shown = own[order], photos[rows][order]
    same = (hosts.host[own][1:] == hosts.host[own][:-1]) & (shown[1:] == shown[:-1]) & (own[1:] != own[:-1])
    joins = hosts.joins.copy()
    joins[own[1:][same]] = False
    return hosts._replace(joins=joins)


def settle(placed: Placed, hosts: Hosts) -> Placed:
    """Give clusters their new labels, and say how sure their images are now, and what else they might be.

    A joined image is as sure as the join, and as it was of its own small cluster; one that was alone and is
    joined, as the surest of those that join it. One that stays alone is no surer of that than of its best
    host being another person; this host is its runner-up, and that of images of small clusters that knew of
    none. A runner-up that came to be in the same cluster is none.
    """
    keys, inverse, sizes = np.unique(placed.labels, return_inverse=True, return_counts=True)
    place, host = np.searchsorted(keys, hosts.visitor), np.searchsorted(keys, hosts.host)
    target = np.arange(len(keys))
    target[place[hosts.joins]] = host[hosts.joins]
    smallest = keys.copy()
    np.minimum.at(smallest, target, keys)
    renamed, alone = smallest[target], sizes == 1
    arrived = np.full(len(keys), -np.inf, np.float32)  # log-odds of the surest visitor
    np.maximum.at(arrived, host[hosts.joins], hosts.log_odds[hosts.joins])
    has_company = (alone & (arrived > -np.inf))[inverse]
    runner_ups, margins = _next_best(placed, hosts, alone, inverse)
    margins = np.where(has_company, margins + arrived[inverse], margins)
    known = runner_ups != NO_CLUSTER
    runner_ups[known] = renamed[np.searchsorted(keys, runner_ups[known])]
    labels = renamed[inverse]
    known &= runner_ups != labels
    _, now, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    confidences = _confidences_after(placed.confidences, hosts, place, alone, inverse)
    return Placed(
        labels,
        np.where(has_company, sigmoid(arrived)[inverse], confidences).astype(np.float32),
        np.where(sizes[now] > 1, MEMBER, placed.statuses),
        np.where(known, runner_ups, NO_CLUSTER),
        np.where(known, margins, np.float32(np.nan)),
    )


def _confidences_after(
    confidences: NDArray[np.float32],
    hosts: Hosts,
    place: NDArray[np.int64],
    alone: NDArray[np.bool_],
    cluster: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Give each image's confidence after a round, but for those that were alone and are joined.

    place: of each visitor among the clusters. alone: of clusters. cluster: of each image.
    """
    odds, joins = np.full(len(alone), np.nan, np.float32), np.zeros(len(alone), bool)
    odds[place], joins[place] = hosts.log_odds, hosts.joins
    one, is_alone = sigmoid(odds)[cluster], alone[cluster]
    joined = np.where(is_alone, one, confidences * one)
    stays = np.where(is_alone, np.fmin(confidences, sigmoid(-odds)[cluster]), confidences)
    return np.where(joins[cluster], joined, stays)


def _next_best(
    placed: Placed, hosts: Hosts, alone: NDArray[np.bool_], cluster: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Give each image's runner-up and margin after a round, by labels from before it.

    alone: of clusters. cluster: of each image. To stay apart from a host is worth log-odds of 0.
    """
    keys = np.unique(placed.labels)
    place = np.full(len(keys), len(hosts.visitor))
    place[np.searchsorted(keys, hosts.visitor)] = np.arange(len(hosts.visitor))
    place = place[cluster]
    met, place = place < len(hosts.visitor), np.minimum(place, len(hosts.visitor) - 1)
    if not met.any():
        return placed.runner_ups.copy(), placed.margins.copy()
    joins = met & hosts.joins[place]
    stays = met & ~joins & (alone[cluster] | (placed.runner_ups == NO_CLUSTER))
    runner_ups = np.where(stays, hosts.host[place], placed.runner_ups)
    margins = np.where(stays, -hosts.log_odds[place], placed.margins)
    ahead = hosts.log_odds - hosts.second_log_odds
    return np.where(joins, hosts.second[place], runner_ups), np.where(joins, ahead[place], margins)


def sigmoid(log_odds: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give probabilities, in double precision rounded to single: the same bits for any length."""
    wide: NDArray[np.float32] = (1.0 / (1.0 + np.exp(-log_odds.astype(np.float64)))).astype(np.float32)
    return wide
