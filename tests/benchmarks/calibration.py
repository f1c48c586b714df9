"""Whether confidences keep their word, on people that the model has not learned.

    FACECLUST_DATA=FOLDER python tests/benchmarks/calibration.py
    FACECLUST_DATA=FOLDER python tests/benchmarks/calibration.py --cases halves,poor,synthetic --fit A

Models of one half of the people, as accuracy.py trains and keeps them, cluster the other half as it is
(`halves`), and the galleries of accuracy_transfer.py. The confidence of an image that is not alone in its
cluster is compared with whether it shows the person whom most of the cluster show; that of one that is alone
with whether its person has no other image. `brier` is the mean squared difference, `brier_of_share` what the
share of right ones would reach if it were told for all; `gap` the mean distance of told and right over the
bins of `curve`, by their images. The last line on stdout is one JSON object: a row for each gallery and seed
in `results`, and `pooled` over those of a part.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from accuracy import make_parser, make_training
from accuracy_faces import DEV_SETS, FOLDS, half, read_faces
from accuracy_methods import Training, by_model, learn, model_folder
from accuracy_transfer import CASES, Case, Halves
from common import answer, say
from numpy.typing import NDArray
from options import add_names
from unlike_galleries import DISTRACTOR

from faceclust_spark.kernels.metrics import judge_members

EDGES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)  # of the bins of a curve


class Judged(NamedTuple):
    """Confidences, and whether they were right: `(n,)` each."""

    told: NDArray[np.float64]
    right: NDArray[np.bool_]


def as_they_are(halves: Halves) -> Iterator[Case]:
    """Take the other half of each set."""
    for name, unseen in halves.unseen.items():
        yield Case(f"{name}, as it is", halves.both(name), unseen)


PARTS = {"halves": as_they_are, **CASES}


def judge(
    labels: NDArray[np.object_], clusters: NDArray[np.int64], confidences: NDArray[np.float32]
) -> tuple[Judged, Judged]:
    """Judge the images that are not alone in their cluster, and those that are."""
    is_member, is_right = judge_members(labels, clusters)
    person = np.unique(labels, return_inverse=True)[1]
    told, has_no_other = confidences.astype(np.float64), np.bincount(person)[person] == 1
    return Judged(told[is_member], is_right[is_member]), Judged(told[~is_member], has_no_other[~is_member])


def worth(judged: Judged) -> dict[str, Any]:
    """Measure confidences; None where there are none."""
    told, right = judged
    if not len(told):
        return {"images": 0, "told": None, "right": None, "brier": None, "brier_of_share": None, "gap": None}
    share, curve = float(right.mean()), curve_of(judged)
    return {
        "images": len(told),
        "told": float(told.mean()),
        "right": share,
        "brier": float(((told - right) ** 2).mean()),
        "brier_of_share": share * (1 - share),
        "gap": sum(one["images"] * abs(one["told"] - one["right"]) for one in curve) / len(told),
    }


def curve_of(judged: Judged) -> list[dict[str, Any]]:
    """Compare what was told with what was right, bin by bin; bins of no image are left out."""
    place = np.searchsorted(EDGES, judged.told, side="right")
    bounds = [0.0, *EDGES, 1.0]
    return [
        {
            "from": bounds[bin_],
            "to": bounds[bin_ + 1],
            "images": int((place == bin_).sum()),
            "told": float(judged.told[place == bin_].mean()),
            "right": float(judged.right[place == bin_].mean()),
        }
        for bin_ in np.unique(place).tolist()
    ]


def measure_case(case: Case, seed: int, training: Training) -> tuple[Judged, Judged]:
    """Cluster a gallery by the model of what its case knows; distractors are not judged."""
    learn("relations", case.known, seed, training)
    found = by_model(case.test, model_folder("relations", case.known, seed, training), training)
    kept = case.test.sources != DISTRACTOR
    return judge(case.test.labels[kept], found.labels[kept], found.confidences[kept])


def summarise(members: Judged, alone: Judged) -> dict[str, Any]:
    """Give both kinds, and the curve of the first."""
    return {"members": worth(members), "alone": worth(alone), "curve": curve_of(members)}


def pool(rows: Sequence[tuple[str, Judged, Judged]]) -> dict[str, dict[str, Any]]:
    """Put the images of all galleries of a part together."""
    found = {}
    for part in dict.fromkeys(name for name, *_ in rows):
        kinds = zip(*(kinds for name, *kinds in rows if name == part), strict=True)
        found[part] = summarise(*(Judged(*map(np.concatenate, zip(*kind, strict=True))) for kind in kinds))
    return found


def describe(title: str, found: Mapping[str, Any]) -> str:
    """Give one gallery as two lines."""
    lines = [title]
    for kind in ("members", "alone"):
        one = found[kind]
        if one["images"]:
            told = ", ".join(
                f"{name} {one[name]:.4f}" for name in ("told", "right", "brier", "brier_of_share", "gap")
            )
            lines.append(f"  {one['images']:7,} {kind:8} {told}")
    return "\n".join(lines)


def describe_curve(curve: Sequence[Mapping[str, Any]]) -> str:
    """Give a curve as a table of the docs."""
    lines = ["| told | images | mean told | right |", "|---|---|---|---|"]
    for one in curve:
        bounds = f"{one['from']:.2f} to {one['to']:.2f}"
        lines.append(f"| {bounds} | {one['images']:,} | {one['told']:.3f} | {one['right']:.3f} |")
    return "\n".join(lines)


def run_fold(
    fold: tuple[str, str], arguments: argparse.Namespace
) -> Iterator[tuple[dict[str, Any], Judged, Judged]]:
    """Judge all galleries of one fold."""
    galleries = {name: read_faces(name, arguments.quick) for name in DEV_SETS}
    halves = Halves(fold, *({name: half(g, which) for name, g in galleries.items()} for which in fold))
    training = make_training(arguments)
    for part in arguments.cases:
        for case in PARTS[part](halves):
            for seed in range(arguments.seeds):
                both = measure_case(case, seed, training)
                row = {"part": part, "case": case.name, "fold": f"{fold[0]} to {fold[1]}", "seed": seed}
                row |= summarise(*both)
                say(describe(f"half {row['fold']}, {case.name}", row))
                yield row, *both


def main() -> None:
    parser = make_parser(__doc__, sets=False, methods=False)
    add_names(parser, "--cases", "case", PARTS)
    parser.add_argument("--fit", choices=["A", "B", "both"], default="both", help="half to fit on, or each")
    arguments = parser.parse_args()
    folds = [fold for fold in FOLDS if arguments.fit in (fold[0], "both")]
    found = [one for fold in folds for one in run_fold(fold, arguments)]
    pooled = pool([(row["part"], *both) for row, *both in found])
    for part, one in pooled.items():
        say(f"\n{describe(f'all of {part}', one)}\n{describe_curve(one['curve'])}")
    answer([row for row, *_ in found], pooled=pooled, quick=arguments.quick)


if __name__ == "__main__":
    main()
