"""Accuracy on galleries that are unlike those that were tuned or trained on.

    FACECLUST_DATA=FOLDER python tests/benchmarks/accuracy_transfer.py
    FACECLUST_DATA=FOLDER python tests/benchmarks/accuracy_transfer.py --cases model,source --fit A --quick

Always fitted on one half of the people and scored on the other, both ways:

- model: fitted on dev, scored on dev_512, and the reverse; the other half of the people, another embedding.
- source: fitted on both sets without one source, scored on it alone, and on its 40 largest people alone.
- large: the 40 largest people, as they are; 32 drawn with 60 to 100 images each, off centre; and five drawn
  with 1,000 each, beside all others. Ours with 20, 40 and 80 neighbours.
- few: two to ten people of 8 to 20 images each, as they are; several draws of each.
- album: one person with 15 to 90 % of the images, and others with few, as they are.
- poor: all images less sharp; and a third of them moved to one direction, until they look alike. Ours has
  learned from such galleries, the peers' parameters are tuned on those that they have.
- synthetic: galleries of 10,000 drawn faces; of shipped models `lfw_synthetic` has learned from two others.
- distractors: 1,000 faces among 10 and 50 times as many synthetic ones; scored on the 1,000.

Ours is the relations model alone: it is the one that serves any embedding. `mixed` is the highest number of
people in one cluster. The last line on stdout is one
JSON object: a row for each case, fold, method and seed in `results`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from accuracy import make_parser, make_training, mean
from accuracy_faces import DEV_SETS, FOLDS, Faces, half, read_faces, synthetic
from accuracy_methods import OURS, Fitted, Training, by_model, learn, model_folder, timed, tune, warm_up
from accuracy_scores import measure
from common import answer, say
from numpy.typing import NDArray
from options import add_names
from peers import PEERS
from unlike_galleries import (
    DISTRACTOR,
    FEW_LARGE,
    HUGE,
    LESS_SHARP,
    THIRD_ALIKE,
    draw_album,
    draw_few,
    draw_large,
    hide,
    some_people,
    take_largest,
)

LARGEST = 40  # people
NEIGHBOURS = (20, 40, 80)  # of ours
ALBUM_SHARES = (0.15, 0.3, 0.5, 0.75, 0.9)  # of an album's main person
FEW, DRAWS = ((2, 12), (2, 20), (3, 8), (10, 8)), 20  # people, images of each; and how often
SYNTHETIC, SYNTHETIC_SEEDS = 10_000, (11, 12, 13)  # faces; no seed of a training
SCORED, TIMES = 1_000, (10, 50)  # real faces, and distractors to each
DENSE_LIMIT = 20_000  # faces of which a matrix of all pairs is held


class Case(NamedTuple):
    """A gallery to cluster, and what may be seen before."""

    name: str
    known: dict[str, Faces]  # by name, for our training; peers are tuned on the first
    test: Faces
    settings: tuple[tuple[str, ...], ...] = ((),)  # of our clustering, each its own row


class Halves(NamedTuple):
    """All sets of one fold."""

    fold: tuple[str, str]
    known: dict[str, Faces]  # by set
    unseen: dict[str, Faces]

    def named(self, *names: str) -> dict[str, Faces]:
        """Give known halves by the names that models are kept under."""
        return {f"{name}-{self.fold[0]}": self.known[name] for name in names}

    def both(self, first: str) -> dict[str, Faces]:
        """Give the known halves of both sets, that of `first` first: peers are tuned on it alone."""
        return self.named(first, *(other for other in DEV_SETS if other != first))


def other_model(halves: Halves) -> Iterator[Case]:
    """Fit on one embedding, score on the other."""
    for known, unseen in (DEV_SETS, DEV_SETS[::-1]):
        yield Case(f"{known} to {unseen}", halves.named(known), halves.unseen[unseen])


def other_source(halves: Halves) -> Iterator[Case]:
    """Fit without a source, score on it."""
    unseen = halves.unseen["dev"]
    for source in np.unique(unseen.sources).tolist():
        rest = {
            f"{name}-without-{source}-{halves.fold[0]}": known.take(known.sources != source)
            for name, known in halves.known.items()
        }
        own = unseen.take(unseen.sources == source)
        yield Case(f"without {source}", rest, own)
        yield Case(f"without {source}, {LARGEST} largest", rest, take_largest(own, LARGEST))


def few_large(halves: Halves) -> Iterator[Case]:
    """Keep the largest people, and draw larger ones."""
    settings = tuple((f"neighbours.k={k}",) for k in NEIGHBOURS)
    for name, unseen in halves.unseen.items():
        known = halves.both(name)
        yield Case(f"{name}, {LARGEST} largest", known, take_largest(unseen, LARGEST), settings)
        for recipe in (FEW_LARGE, HUGE):
            yield Case(f"{name}, {recipe.name}", known, draw_large(unseen, recipe), settings)


def few_people(halves: Halves) -> Iterator[Case]:
    """Take a handful of people, several times."""
    for name, unseen in halves.unseen.items():
        known = halves.both(name)
        for people, images in FEW:
            for number in range(DRAWS):
                test = draw_few(unseen, people, images, np.random.default_rng(number))
                yield Case(f"{name}, {people} people of {images}", known, test)


def albums(halves: Halves) -> Iterator[Case]:
    """Take the largest person, and as many images of people with few as leave that one a share."""
    for name, unseen in halves.unseen.items():
        known = halves.both(name)
        for share in ALBUM_SHARES:
            yield Case(f"{name}, {share:.0%} of one person", known, draw_album(unseen, share))


def poor_images(halves: Halves) -> Iterator[Case]:
    """Make all images less sharp, or a third of them alike."""
    for name, unseen in halves.unseen.items():
        known = halves.both(name)
        for recipe in (LESS_SHARP, THIRD_ALIKE):
            yield Case(f"{name}, {recipe.name}", known, draw_large(unseen, recipe))


def synthetic_galleries(halves: Halves) -> Iterator[Case]:
    """Draw galleries from nothing; what is known of real people has no part in them."""
    for seed in SYNTHETIC_SEEDS:
        yield Case("synthetic", halves.both(DEV_SETS[0]), synthetic(seed, SYNTHETIC))


def many_distractors(halves: Halves) -> Iterator[Case]:
    """Hide faces among synthetic ones."""
    for name, unseen in halves.unseen.items():
        known = halves.both(name)
        for times in TIMES:
            yield Case(f"{name}, {times}x distractors", known, hide(some_people(unseen, SCORED), times))


CASES: dict[str, Callable[[Halves], Iterator[Case]]] = {
    "model": other_model,
    "source": other_source,
    "large": few_large,
    "few": few_people,
    "album": albums,
    "poor": poor_images,
    "synthetic": synthetic_galleries,
    "distractors": many_distractors,
}


def score_case(case: Case, method: str, seed: int, training: Training, tuned: dict) -> Iterator[dict]:
    """Fit a method on what a case knows, cluster its gallery and score it, with each of the settings.

    tuned: the fitted peers so far, by their name and that of the gallery; added to.
    """
    if method in OURS:
        fitted = learn(method, case.known, seed, training)
        folder = model_folder(method, case.known, seed, training)
        ways = {
            " ".join([method, *setting]): fitted._replace(
                cluster=lambda faces, setting=setting: by_model(faces, folder, training, *setting).labels
            )
            for setting in case.settings
        }
    else:
        key = (method, next(iter(case.known)))
        tuned[key] = tuned.get(key) or tune(method, case.known[key[1]])
        ways = {method: tuned[key]}
    for name, way in ways.items():
        yield {"method": name, **score_way(way, case.test)}


def score_way(fitted: Fitted, test: Faces) -> dict[str, Any]:
    """Cluster a gallery and score all faces but distractors."""
    warm_up(fitted, test)
    clusters, seconds = timed(fitted, test)
    is_scored = test.sources != DISTRACTOR
    return {
        "gallery": len(test.labels),
        "parameters": fitted.parameters,
        "seconds": round(seconds, 2),
        "with_distractors": share_together(clusters, is_scored),
        "mixed": most_mixed(test.labels, clusters),
        **measure(test.labels[is_scored], clusters[is_scored]),
    }


def share_together(clusters: NDArray[np.int64], is_scored: NDArray[np.bool_]) -> float:
    """Give the share of scored faces in whose cluster there is a face that is not."""
    return float(np.isin(clusters[is_scored], clusters[~is_scored]).mean())


def most_mixed(labels: NDArray[np.object_], clusters: NDArray[np.int64]) -> int:
    """Give the highest number of people in one cluster."""
    person = np.unique(labels, return_inverse=True)[1]
    pairs = np.unique(np.stack([clusters, person]), axis=1)
    return int(np.unique(pairs[0], return_counts=True)[1].max())


def run_fold(fold: tuple[str, str], arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Run all cases of one fold."""
    galleries = {name: read_faces(name, arguments.quick) for name in DEV_SETS}
    halves = Halves(fold, *({name: half(g, which) for name, g in galleries.items()} for which in fold))
    training, tuned = make_training(arguments), {}
    for part in arguments.cases:
        for case in CASES[part](halves):
            say(f"half {fold[0]} to {fold[1]}, {case.name}: {len(case.test.labels)} faces")
            for method in arguments.methods:
                if method in PEERS and PEERS[method].dense and len(case.test.labels) > DENSE_LIMIT:
                    say(f"  {method}: left out above {DENSE_LIMIT} faces")
                    continue
                for seed in range(arguments.seeds if method in OURS else 1):
                    for row in score_case(case, method, seed, training, tuned):
                        say(f"  {row['method']}: mean F {row['mean_f']:.4f}, {row['seconds']:.1f} s")
                        yield {"part": part, "case": case.name, "fold": f"{fold[0]} to {fold[1]}", **row}


def describe(rows: Sequence[dict[str, Any]]) -> str:
    """Give the table as text: means over folds and seeds."""
    columns = (
        "pairwise_precision",
        "pairwise_recall",
        "pairwise_f",
        "bcubed_f",
        "mean_f",
        "with_distractors",
        "mixed",
    )
    lines = [f"{'':34}" + "".join(f"{column:>20}" for column in columns)]
    for case in dict.fromkeys(row["case"] for row in rows):
        lines.append(case)
        for method in dict.fromkeys(row["method"] for row in rows if row["case"] == case):
            own = [row for row in rows if (row["case"], row["method"]) == (case, method)]
            values = [mean([row[column] for row in own]) for column in columns]
            cells = "".join(f"{'-' if value is None else f'{value:.4f}':>20}" for value in values)
            lines.append(f"  {method:32}{cells}")
    return "\n".join(lines)


def main() -> None:
    parser = make_parser(__doc__, sets=False)
    add_names(parser, "--cases", "case", CASES)
    parser.add_argument("--fit", choices=["A", "B", "both"], default="both", help="half to fit on, or each")
    parser.set_defaults(methods=[*PEERS, "relations"])
    arguments = parser.parse_args()
    bound = [method for method in arguments.methods if method in OURS and method != "relations"]
    if bound:
        parser.error(f"{', '.join(bound)} cannot be scored on another embedding: only relations can")
    folds = [fold for fold in FOLDS if arguments.fit in (fold[0], "both")]
    rows = [row for fold in folds for row in run_fold(fold, arguments)]
    say(describe(rows))
    answer(rows, quick=arguments.quick)


if __name__ == "__main__":
    main()
