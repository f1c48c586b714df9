"""The settings that a plan chooses, each with its reason, and the file that a run takes them from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import yaml

from faceclust_spark.config import Config, load_config
from faceclust_spark.kernels.grouping import scored_pairs
from faceclust_spark.planning.laws import EDGE_BYTES, Counts, Gallery, task_memory
from faceclust_spark.planning.structure import Structure

TASKS_PER_CORE = 3  # tasks differ in length: with three the last one is a small part of all
USED = 0.6  # of a core's memory: the rest is the JVM's and Arrow's
_SMALLEST_PACK = 100_000  # pairs: a task of less costs more than it spreads


class Cluster(NamedTuple):
    """What a run may use."""

    cores: int
    memory: float  # bytes that a core may use
    partitions: int  # tasks of a shuffle


class Choice(NamedTuple):
    """A setting, its value and why."""

    section: str
    key: str
    value: Any
    reason: str


def choose_settings(
    gallery: Gallery,
    counts: Counts,
    structure: Structure,
    config: Config,
    cluster: Cluster,
    recall: float,
) -> list[Choice]:
    """Choose what depends on the gallery's size, its structure and the cluster.

    config: with the probes to be used. recall: edge recall with them, on the sample.
    """
    cores, memory = cluster.cores, cluster.memory
    cap = config.coarse_groups.max_size
    visitors = round(gallery.faces * counts.visits / counts.shards)
    chosen = [
        Choice("cells", "cells", counts.cells, _why_cells(gallery, counts)),
        Choice(
            "neighbours",
            "probes",
            config.neighbours.probes,
            f"{recall:.1%} of the sample's true links at the middle threshold are found; a face visits "
            f"{counts.visits:.1f} of {counts.shards:,} tasks",
        ),
        Choice(
            "coarse_groups",
            "max_size",
            cap,
            f"{structure.pairs:.0f} pairs a face are refined, {_most_pairs(config):.0f} at most",
        ),
        _pack(counts, gallery, config, cluster),
        Choice(
            "spark",
            "shuffle_partitions",
            cluster.partitions,
            f"{cluster.partitions / cores:.1f} tasks a core; a task that searches holds {visitors:,} faces",
        ),
    ]
    edges = int(USED * memory / EDGE_BYTES)
    if min(gallery.faces, config.coarse_groups.max_forest_edges) > edges:
        reason = f"one task holds {EDGE_BYTES:.0f} bytes an edge; more are merged in rounds"
        chosen.append(Choice("coarse_groups", "max_forest_edges", max(edges, 1), reason))
    return chosen


def _most_pairs(config: Config) -> float:
    """Give the pairs a face of the group that has most of them, of groups of any size."""
    largest = max(config.confidences.dense_size, 2)
    return max(scored_pairs(size, config.confidences) / size for size in (largest, largest**2))


def _why_cells(gallery: Gallery, counts: Counts) -> str:
    if counts.cells == 1:
        return f"{gallery.faces:,} faces: every pair is compared"
    return f"{gallery.faces / counts.cells:,.0f} faces a cell; trained on {counts.trained_on:,} faces"


def _pack(counts: Counts, gallery: Gallery, config: Config, cluster: Cluster) -> Choice:
    cores, memory = cluster.cores, cluster.memory
    share = counts.refined / (TASKS_PER_CORE * cores)
    most = config.confidences.pairs_per_task
    pairs = int(min(most, max(_SMALLEST_PACK, share)))
    tasks = max(1, round(counts.refined / pairs))
    held = task_memory(gallery, counts, config)["confidences"]
    reason = f"{tasks:,} tasks for {cores:,} cores; each holds about {held / 2**30:.1f} GiB"
    if held > memory:
        remedy = "give it more, or lower block_neighbours"
        reason += f", more than the {memory / 2**30:.1f} GiB of a core: {remedy}"
    return Choice("confidences", "pairs_per_task", pairs, reason)


def with_choices(config: Config, choices: Sequence[Choice]) -> Config:
    """Give the config of a run by the plan."""
    return load_config(None, (), _merged(config, choices))


def to_yaml(config: Config, choices: Sequence[Choice], heading: Sequence[str]) -> str:
    """Give a config file: what the config sets itself, and what was chosen, with the reasons as comments."""
    reasons = {(choice.section, choice.key): choice.reason for choice in choices}
    lines = [f"# {line}".rstrip() for line in heading]
    for section, values in _merged(config, choices).items():
        if not isinstance(values, dict):
            lines.append(f"{section}: {_inline(values)}")
            continue
        lines.append(f"{section}:")
        for key, value in values.items():
            if (section, key) in reasons:
                lines.append(f"  # {reasons[section, key]}")
            lines.append(f"  {key}: {_inline(value)}")
    return "\n".join(lines) + "\n"


def _inline(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("...\n").rstrip()


def _merged(config: Config, choices: Sequence[Choice]) -> dict[str, Any]:
    values: dict[str, Any] = config.model_dump(mode="json", exclude_unset=True)
    for choice in choices:
        values.setdefault(choice.section, {})[choice.key] = choice.value
    return values
