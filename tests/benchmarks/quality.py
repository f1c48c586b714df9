"""Quality on people that no model has seen: trained models, the patent's letter, connected components.

    FACECLUST_DATA=FOLDER python tests/benchmarks/quality.py            # trains five models: 15 minutes
    FACECLUST_DATA=FOLDER python tests/benchmarks/quality.py --steps 50 # a quick look

The people of dev.parquet and dev_512.parquet are halved by a hash of their label. Half A trains; half B is
clustered, as it is and drawn anew with few, large people; a synthetic gallery comes last. Components have
the advantage that their threshold is the best one for the very answer. The last line on stdout is one JSON
object.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence

import numpy as np
from dev_halves import DEV_SETS, best_components, count_cut_people, read_half, synthetic

from faceclust_spark.config import Config, load_config
from faceclust_spark.kernels.metrics import Scores
from faceclust_spark.kernels.model import Model, load_model
from faceclust_spark.training.galleries import Composition, LabelledGallery, Recipe, draw
from faceclust_spark.training.loop import train
from faceclust_spark.training.validation import evaluate, mean_f

SEED = 2_024  # of the test galleries: another than any training's
FEW_LARGE = Recipe("few, large", people=32, images=(60, 100), least=5, off_centre=0.25)
SYNTHETIC = {"synthetic 128": (128, 10_000), "synthetic 512": (512, 10_000)}


def test_sets(config: Config) -> dict[str, Composition]:
    """Draw the galleries that are clustered, grouped by the pipeline's kernels."""
    generator = np.random.default_rng(SEED)
    sets = {}
    for name in DEV_SETS:
        half = read_half(name, "B")
        sets[f"{name} B"] = draw(half, Recipe("as it is"), config, generator)
        sets[f"{name} B, {FEW_LARGE.name}"] = draw(half, FEW_LARGE, config, generator)
    for name, (dimension, faces) in SYNTHETIC.items():
        sets[name] = draw(synthetic(SEED, faces, dimension), Recipe("as it is"), config, generator)
    return sets


def train_kind(kind: str, galleries: Sequence[LabelledGallery], steps: int | None) -> Model:
    """Train one kind on half A, with the defaults of the config."""
    config = load_config(None, [f"train.kind={kind}", *([f"train.steps={steps}"] if steps else [])])
    start = time.perf_counter()
    trained = train(galleries, config)
    best = trained.model.card["metrics"]
    say(
        f"  {kind}: {time.perf_counter() - start:.0f} s, validation F {best['validation_f']:.4f} at step "
        f"{best['step']}"
    )
    return trained.model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, help="of every training, instead of the config's")
    parser.add_argument("--default-only", action="store_true", help="train nothing: default and components")
    arguments = parser.parse_args()
    config = Config()
    sets = test_sets(config)
    rows: dict[str, dict[str, Scores]] = {name: {} for name in sets}
    thresholds = {}
    say("connected components ...")
    for name, composition in sets.items():
        thresholds[name], rows[name]["components, best threshold"] = best_components(composition)
    score_model("default", load_model("default"), sets, rows, config)
    if not arguments.default_only:
        relations = train_kind("relations", [read_half("dev", "A")], arguments.steps)
        score_model("relations, dev A", relations, sets, rows, config)
        for name in DEV_SETS:
            own = {key: sets[key] for key in sets if key.startswith(f"{name} B")}
            for kind in ("bound", "literal"):
                model = train_kind(kind, [read_half(name, "A")], arguments.steps)
                score_model(f"{kind}, own A", model, own, rows, config)
    grouping = {name: count_cut_people(composition) for name, composition in sets.items()}
    say(describe(rows, thresholds, grouping))
    print(json.dumps(summary(rows, thresholds, grouping)))


def score_model(
    title: str,
    model: Model,
    sets: dict[str, Composition],
    rows: dict[str, dict[str, Scores]],
    config: Config,
) -> None:
    for name, composition in sets.items():
        rows[name][title] = evaluate(model, composition, config)


def describe(rows, thresholds, grouping) -> str:
    lines = [f"{'':30}{'pairwise P / R / F':^24}{'BCubed P / R / F':^24}{'mean F':>8}"]
    for name, methods in rows.items():
        cost = grouping[name]
        lines.append(
            f"{name}: best threshold {thresholds[name]:.2f}; {cost['cut_people']:.1%} of people cut, ceiling "
            f"{cost['ceiling_f']:.3f}, largest root group {cost['largest_root_group']} faces, largest person "
            f"{cost['largest_person']}"
        )
        for title, s in methods.items():
            pairwise = f"{s.pairwise_precision:.3f} / {s.pairwise_recall:.3f} / {s.pairwise_f:.3f}"
            bcubed = f"{s.bcubed_precision:.3f} / {s.bcubed_recall:.3f} / {s.bcubed_f:.3f}"
            lines.append(f"  {title:28}{pairwise:^24}{bcubed:^24}{mean_f(s):>8.4f}")
    return "\n".join(lines)


def summary(rows, thresholds, grouping) -> dict:
    return {
        name: {
            "best_threshold": thresholds[name],
            **grouping[name],
            "methods": {title: {**s._asdict(), "mean_f": mean_f(s)} for title, s in methods.items()},
        }
        for name, methods in rows.items()
    }


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
