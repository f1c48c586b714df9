"""What a run tells its user: summaries as data, and as text of a screen's width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

_METRICS = (
    ("pairwise", "pairwise_precision", "pairwise_recall", "pairwise_f"),
    ("BCubed", "bcubed_precision", "bcubed_recall", "bcubed_f"),
)
_SLICE_WIDTH = 24


@dataclass(frozen=True)
class GroupCount:
    """Coarse groups at one first threshold."""

    threshold: float
    groups: int
    largest: int  # faces


@dataclass(frozen=True)
class RunSummary:
    """What a run did. `seconds` has an entry for each stage that ran, none for one resumed over."""

    run_id: str
    tables: str
    faces: int
    ingested: Mapping[str, int] = field(default_factory=dict)
    quarantined: Mapping[str, int] = field(default_factory=dict)
    coarse_groups: Sequence[GroupCount] = ()
    recall: Mapping[str, float] = field(default_factory=dict)  # where an audit was asked for
    clusters: int | None = None
    singletons: int | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Give the summary as JSON-ready values."""
        return asdict(self)


@dataclass(frozen=True)
class DemoResult:
    """A run on a synthetic gallery, and its comparison with the truth."""

    gallery: str
    run: RunSummary
    evaluation: Sequence[Mapping[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Give the result as JSON-ready values."""
        return asdict(self)


def summarise_run(
    run_id: str, tables: str, details: Mapping[str, Mapping[str, int]], seconds: Mapping[str, float]
) -> RunSummary:
    """Build a run's summary from the counts that its stages left in the ledger."""
    read = details.get("ingest", {})
    groups = details.get("coarse_groups", {})
    clusters = details.get("clusters", {})
    quarantined = "quarantined "
    at = "groups at "
    return RunSummary(
        run_id=run_id,
        tables=tables,
        faces=read.get("faces", 0),
        ingested={name: read.get(name, 0) for name in ("read", "new", "replaced", "unchanged", "duplicates")},
        quarantined={k.removeprefix(quarantined): n for k, n in read.items() if k.startswith(quarantined)},
        coarse_groups=[
            GroupCount(float(name.removeprefix(at)), count, groups[f"largest at {name.removeprefix(at)}"])
            for name, count in groups.items()
            if name.startswith(at)
        ],
        recall={
            name.removesuffix(" ppm"): count / 1e6
            for name, count in details.get("neighbours", {}).items()
            if name.endswith(" ppm")
        },
        clusters=clusters.get("clusters"),
        singletons=clusters.get("singletons"),
        seconds=seconds,
    )


def describe_run(summary: RunSummary) -> str:
    """Give a run's summary as a short table."""
    rows = [("run", summary.run_id), ("faces in the gallery", f"{summary.faces:,}")]
    rows += [(f"  {name}", f"{count:,}") for name, count in summary.ingested.items() if count]
    rows += [(f"  quarantined: {reason}", f"{count:,}") for reason, count in summary.quarantined.items()]
    rows += [
        (f"coarse groups at {g.threshold:.3f}", f"{g.groups:,} (largest {g.largest:,})")
        for g in summary.coarse_groups
    ]
    rows += [(f"audit: {name}", f"{value:.4f}") for name, value in summary.recall.items()]
    if summary.clusters is not None and summary.singletons is not None:
        rows.append(("clusters of two or more", f"{summary.clusters - summary.singletons:,}"))
        rows.append(("faces alone", f"{summary.singletons:,}"))
    rows += [(f"seconds: {stage}", f"{took:.1f}") for stage, took in summary.seconds.items()]
    rows.append(("tables in", summary.tables))
    return _align(rows)


def describe_evaluation(rows: Sequence[Mapping[str, Any]]) -> str:
    """Give precision, recall and F as a table: all faces first, then the slices under their column."""
    width = max([9, *(len(f"{row['faces']:,}") + 1 for row in rows)])
    header = (
        f"{'':{_SLICE_WIDTH}}{'faces':>{width}}{'people':>{width}}{'clusters':>{width}}{'alone':>{width}}"
    )
    header += "".join(f"  {name + ' P / R / F':^22}" for name, *_ in _METRICS) + f"{'NMI':>8}"
    lines, column = [header], "all"
    for row in rows:
        if row["slice_column"] != column:
            column = row["slice_column"]
            lines.append(f"by {column}")
        name = "all" if column == "all" else f"  {row['slice_value']}"
        line = f"{_cut(name):{_SLICE_WIDTH}}{row['faces']:>{width},}{row['identities']:>{width},}"
        line += f"{row['clusters']:>{width},}{row['singletons']:>{width},}"
        for _, *keys in _METRICS:
            line += "  " + " / ".join(_share(row[key]) for key in keys).center(22)
        lines.append(line + f"{_share(row['nmi']):>8}")
    return "\n".join([*lines, *_reliability(rows[:1])])


def _reliability(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Tell what the confidences of all scored faces are worth, where some have company."""
    return [
        f"confidences of the {row['members']:,} faces that are not alone: {row['mean_confidence']:.3f} "
        f"in the mean, {row['share_right']:.3f} are right; Brier score {row['brier']:.4f}"
        for row in rows
        if row["members"]
    ]


def describe_demo(result: DemoResult) -> str:
    """Give the demo's run and evaluation, and what to try next."""
    tables = result.run.tables
    return "\n".join(
        [
            describe_run(result.run),
            "",
            describe_evaluation(result.evaluation),
            "",
            f"gallery: {result.gallery}",
            "Next, your own gallery (columns image_id, embedding; attributes where you have them):",
            "  .venv/bin/faceclust run --source YOUR.parquet --tables out",
            "or look closer at this one:",
            f"  .venv/bin/faceclust evaluate --tables {tables} --slice identity_size",
        ]
    )


def describe_model(card: Mapping[str, Any], folder: Path) -> str:
    """Give the essentials of a trained model's card."""
    rows = [(name, _short(value)) for name, value in card.get("metrics", {}).items()]
    rows += [("model", str(folder)), ("use it with", f"--set confidences.model={folder}")]
    return _align(rows)


def _align(rows: Sequence[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows) + 2
    return "\n".join(f"{name:<{width}}{value}" for name, value in rows)


def _share(value: float | None) -> str:
    return "  -  " if value is None else f"{value:.3f}"


def _cut(name: str) -> str:
    return name if len(name) < _SLICE_WIDTH else name[: _SLICE_WIDTH - 2] + "…"


def _short(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
