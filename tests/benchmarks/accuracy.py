"""Accuracy on people that nothing was tuned or trained on: peers and ours, side by side.

    FACECLUST_DATA=FOLDER python tests/benchmarks/accuracy.py                    # peers, and ours trained
    FACECLUST_DATA=FOLDER python tests/benchmarks/accuracy.py --methods infomap,relations --sets dev
    FACECLUST_DATA=FOLDER python tests/benchmarks/accuracy.py --quick            # a sixth of the people

The people of dev.parquet and dev_512.parquet are halved by a hash of their label. Everything is tuned or
trained on one half and scored on the other, both ways. Models are kept in the folder --models and used
again by a rerun: give another, or remove it, where the training has changed. The last line on stdout is
one JSON object: a row for each set, fold, method and seed in `results`, means over folds and seeds in
`means`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accuracy_faces import DEV_SETS, FOLDS, Faces, half, read_faces
from accuracy_methods import METHODS, OURS, Fitted, Training, learn, timed, tune, warm_up
from accuracy_scores import SIZES, measure_all
from common import answer, say
from options import add_names

COLUMNS = {
    "pairwise_precision": "pair P",
    "pairwise_recall": "pair R",
    "pairwise_f": "pair F",
    "bcubed_precision": "BC P",
    "bcubed_recall": "BC R",
    "bcubed_f": "BC F",
    "mean_f": "mean F",
    "nmi": "NMI",
    "clusters": "clusters",
    "seconds": "s",
}
QUICK_STEPS = 60


def main() -> None:
    arguments = make_parser(__doc__).parse_args()
    training = make_training(arguments)
    galleries = {name: read_faces(name, arguments.quick) for name in arguments.sets}
    rows = []
    for fold in FOLDS:
        rows += list(score_fold(galleries, fold, arguments.methods, range(arguments.seeds), training))
    means = summarise(rows)
    beside = margins(means)
    say(describe(means))
    for name, one in beside.items():
        ahead = "".join(f", {method} {value:+.4f}" for method, value in one["ahead"].items())
        say(f"{name}: best peer {one['best_peer']}, mean F {one['mean_f']:.4f}{ahead}")
    answer(rows, means=means, margins=beside, quick=arguments.quick)


def score_fold(
    galleries: dict[str, Faces],
    fold: tuple[str, str],
    methods: Sequence[str],
    seeds: Sequence[int],
    training: Training,
) -> Iterator[dict[str, Any]]:
    """Fit on one half and score on the other; relations learns from all sets, the rest from each."""
    known, unseen = fold
    learned = {f"{name}-{known}": half(faces, known) for name, faces in galleries.items()}
    for name, faces in galleries.items():
        say(f"{name}: fitted on half {known}, scored on half {unseen}")
        test, own = half(faces, unseen), {f"{name}-{known}": learned[f"{name}-{known}"]}
        for method in methods:
            for fitted in fit(method, learned if method == "relations" else own, seeds, training):
                row = {"set": name, "fold": f"{known} to {unseen}", **score_method(fitted, test)}
                say(f"  {method}: mean F {row['mean_f']:.4f}, {row['clusters']} clusters")
                yield row


def fit(
    method: str, galleries: dict[str, Faces], seeds: Sequence[int], training: Training
) -> Iterator[Fitted]:
    """Train ours with each seed; tune a peer once, on its one gallery."""
    if method in OURS:
        for seed in seeds:
            yield learn(method, galleries, seed, training)
    else:
        (faces,) = galleries.values()
        yield tune(method, faces)


def score_method(fitted: Fitted, test: Faces) -> dict[str, Any]:
    """Cluster the unseen half, and score it."""
    warm_up(fitted, test)
    clusters, seconds = timed(fitted, test)
    return {
        "method": fitted.name,
        "parameters": fitted.parameters,
        "fit_seconds": round(fitted.fit_seconds, 2),
        "seconds": round(seconds, 2),
        **measure_all(test.labels, clusters, test.sources),
    }


def summarise(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give, for each set and method, means over folds and seeds, and the spread of F: highest - lowest."""
    found = []
    for name, method in dict.fromkeys((row["set"], row["method"]) for row in rows):
        own = [row for row in rows if (row["set"], row["method"]) == (name, method)]
        one = {column: mean([row[column] for row in own]) for column in COLUMNS}
        spread = max(row["mean_f"] for row in own) - min(row["mean_f"] for row in own)
        parts = {
            "sources": _means(own, "sources", ("pairwise_f", "bcubed_f", "mean_f")),
            "sizes": _means(own, "sizes", ("bcubed_precision", "bcubed_recall", "bcubed_f")),
        }
        found.append({"set": name, "method": method, "runs": len(own), **one, "spread": spread, **parts})
    return found


def margins(means: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Tell, for each set, the best peer by mean F, and by how much each of ours is ahead of it."""
    found = {}
    for name in dict.fromkeys(one["set"] for one in means):
        own = {one["method"]: one["mean_f"] for one in means if one["set"] == name}
        others = [method for method in own if method not in OURS]
        if others:
            best = max(others, key=lambda method: own[method])
            ahead = {method: own[method] - own[best] for method in own if method in OURS}
            found[name] = {"best_peer": best, "mean_f": own[best], "ahead": ahead}
    return found


def mean(values: Sequence[float | None]) -> float | None:
    """Give the mean of what is defined."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def _means(rows: Sequence[dict[str, Any]], part: str, columns: Sequence[str]) -> dict[str, dict[str, Any]]:
    names = dict.fromkeys(name for row in rows for name in row[part])
    return {
        name: {
            column: mean([row[part][name][column] for row in rows if name in row[part]]) for column in columns
        }
        for name in names
    }


def describe(means: Sequence[dict[str, Any]]) -> str:
    """Give the tables as text: the whole, then mean F by source and BCubed F by size of identity."""
    lines = []
    for name in dict.fromkeys(one["set"] for one in means):
        own = [one for one in means if one["set"] == name]
        lines += ["", f"{name:18}" + "".join(f"{head:>9}" for head in COLUMNS.values()) + f"{'spread':>9}"]
        for one in own:
            cells = "".join(f"{_show(one[column], column):>9}" for column in COLUMNS)
            lines.append(f"{one['method']:18}{cells}{one['spread']:>9.4f}")
        sources = list(own[0]["sources"])
        heads = [f"{source} F" for source in sources] + [f"size {size}" for size in SIZES]
        lines.append(f"{'':18}" + "".join(f"{head:>17}" for head in heads))
        for one in own:
            values = [one["sources"][source]["mean_f"] for source in sources]
            values += [one["sizes"].get(size, {}).get("bcubed_f") for size in SIZES]
            lines.append(f"{one['method']:18}" + "".join(f"{_show(value):>17}" for value in values))
    return "\n".join(lines)


def _show(value: float | None, column: str = "") -> str:
    if value is None:
        return "-"
    return {"clusters": f"{value:.0f}", "seconds": f"{value:.1f}"}.get(column, f"{value:.4f}")


def make_training(arguments: argparse.Namespace) -> Training:
    """Give the settings of our trainings; quick ones, and others than the defaults, have their own folder."""
    steps = arguments.steps or (QUICK_STEPS if arguments.quick else None)
    overrides = (*([f"train.steps={steps}"] if steps else []), *arguments.overrides)
    name = "-".join(["quick"] * arguments.quick + [one.replace("/", "_") for one in overrides]) or "defaults"
    return Training(arguments.models / name, overrides)


def make_parser(description: str | None, sets: bool = True, methods: bool = True) -> argparse.ArgumentParser:
    """Give the options that the tables of accuracy share; sets, methods: also those that choose of them."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if sets:
        add_names(parser, "--sets", "set", DEV_SETS)
    if methods:
        add_names(parser, "--methods", "method", METHODS)
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each model of ours; default 1")
    parser.add_argument("--models", type=Path, default=Path("build/accuracy"), help="default build/accuracy")
    parser.add_argument("--steps", type=int, help="of every training, instead of the config's")
    parser.add_argument("--quick", action="store_true", help="a sixth of the people, short trainings")
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE",
        help="a setting of our trainings and clusterings",
    )  # fmt: skip
    return parser


if __name__ == "__main__":
    main()
