"""What refining and re-clustering root groups costs: groups and pairs a second, and where the time goes.

    python tests/benchmarks/refinement.py               # groups of 10 to 1,000 faces, 20,000 x 256 each size
    python tests/benchmarks/refinement.py --sizes 300 --faces 5000 --no-spark

In process, on one thread as in a Spark worker: `similarity` is the similarity matrices and what the network
is given (numpy, numba), `torch` the graph convolution and the pair head, `recluster` the clusters (numba),
`packing` the rest: tensors, rows of pairs (numba), rounding.
On Spark: the stages `refinements` and `clusters` from Delta to Delta; `kernels` is measured inside the
workers, and `transfer` is what is left of the tasks' time: reading, shuffle, Arrow, writing. The last line on
stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from common import answer, say
from options import numbers
from refinement_stages import run_stages
from threadpoolctl import threadpool_limits

from faceclust_spark.config import Config
from faceclust_spark.kernels import pair_head, refine
from faceclust_spark.kernels.assignment import assign_faces
from faceclust_spark.kernels.grid import normalise, quantise
from faceclust_spark.kernels.grouping import batch_groups
from faceclust_spark.kernels.in_memory import PAIRS_PER_BATCH
from faceclust_spark.kernels.model import Model, load_model
from faceclust_spark.kernels.nearest import Scale
from faceclust_spark.kernels.refine import Group, refine_groups
from faceclust_spark.kernels.refined import batch_refined, join_refined, refined_groups

THRESHOLDS = np.array([0.2, 0.35, 0.5], np.float32)
PERSON, ATTRIBUTES = 8, 12  # faces of a person, values of an attribute vector


def make_groups(faces: int, size: int, dimension: int, seed: int = 0) -> list[Group]:
    """Draw root groups of one size: people of 8 faces around directions that lean to their group's own."""
    generator = np.random.default_rng([seed, size])
    count = max(1, faces // size)
    ids = np.sort(generator.choice(2**40, count * size, replace=False)).reshape(count, size)
    ids += size << 40  # none that groups of another size have
    person = np.arange(size) // PERSON
    groups = []
    for own in ids:
        centre = normalise(generator.standard_normal((1, dimension)))
        people = normalise(generator.standard_normal((person[-1] + 1, dimension))) + 0.6 * centre
        noise = 0.7 * normalise(generator.standard_normal((size, dimension)))
        attributes = generator.standard_normal((size, ATTRIBUTES)).astype(np.float32)
        attributes[generator.random(attributes.shape) < 0.02] = np.nan
        keys = np.stack([own[parts] for parts in (0 * person, person // 4 * 4 * PERSON, person * PERSON)])
        norms = np.exp(generator.normal(2.8, 0.12, size)).astype(np.float32)
        groups.append(Group(own, quantise(normalise(people[person] + noise)), attributes, norms, keys))
    return groups


class Stopwatch:
    """Adds up the seconds that functions take, by replacing them while `timing` lasts."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def timing(self, name: str, owner: Any, *functions: str, made: bool = False) -> Iterator[None]:
        """Count the calls of some functions of a module or object under one name; they must not nest.

        made: the functions make functions, and the calls of those count.
        """
        kept = {function: getattr(owner, function) for function in functions}
        self.seconds.setdefault(name, 0.0)
        for function, work in kept.items():
            setattr(owner, function, self._maker(name, work) if made else self._timed(name, work))
        try:
            yield
        finally:
            for function, work in kept.items():
                setattr(owner, function, work)

    def _maker(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **options: self._timed(name, work(*args, **options))

    def _timed(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return work(*args, **options)
            finally:
                self.seconds[name] += time.perf_counter() - start

        return timed


def profile(groups: list[Group], model: Model, config: Config, scale: Scale) -> tuple[int, dict[str, float]]:
    """Refine and re-cluster in this process, on one thread: pairs scored, and seconds of each part."""
    watch = Stopwatch()
    with (
        threadpool_limits(1),
        watch.timing("similarity", refine, "describe"),
        watch.timing("torch", model.network, "embed", "confidences"),
        watch.timing("torch", pair_head, "pair_head", made=True),
    ):
        start = time.perf_counter()
        refined = [
            one
            for batch in batch_groups(groups, config.confidences, PAIRS_PER_BATCH)
            for one in refined_groups(
                batch,
                refine_groups(batch, model, config.confidences, config.similarities, scale),
                THRESHOLDS,
            )
        ]
        between = time.perf_counter()
        for part in batch_refined(refined, PAIRS_PER_BATCH):
            group = join_refined(part)
            assign_faces(group.face_ids, THRESHOLDS, group.keys, group.refinement, config.clusters)
        end = time.perf_counter()
    found = dict(watch.seconds)
    found["packing"] = between - start - sum(found.values())
    scored = sum(len(one.refinement.pairs.log_odds) for one in refined)
    return scored, {**found, "recluster": end - between, "seconds": end - start}


def row_of(groups: Sequence[Group], pairs: int, parts: Mapping[str, float]) -> dict[str, Any]:
    """Give what one size of groups took in process, with so many pairs scored: a row of the results."""
    size = len(groups[0].face_ids)
    return {
        "size": size,
        "groups": len(groups),
        "faces": len(groups) * size,
        "pairs": pairs,
        "groups_per_second": len(groups) / parts["seconds"],
        "pairs_per_second": pairs / parts["seconds"],
        **{name if name == "seconds" else f"{name}_seconds": value for name, value in parts.items()},
    }


def describe(rows: Sequence[Mapping[str, Any]], spark: Mapping[str, Mapping[str, float]]) -> str:
    parts = ("similarity", "torch", "packing", "recluster")
    lines = [
        f"{'faces a group':>14}{'groups/s':>12}{'pairs/s':>12}" + "".join(f"{part:>12}" for part in parts)
    ]
    for row in rows:
        shares = "".join(f"{row[f'{part}_seconds'] / row['seconds']:>12.1%}" for part in parts)
        lines.append(
            f"{row['size']:>14,}{row['groups_per_second']:>12,.1f}{row['pairs_per_second']:>12,.0f}{shares}"
        )
    for stage, row in spark.items():
        lines.append(
            f"{stage}: {row['seconds']:.1f} s, in tasks {row['task_seconds']:.1f} s, of them kernels "
            f"{row['kernels_seconds']:.1f}, transfer {row['transfer_seconds']:.1f} "
            f"({row['transfer_share']:.0%})"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=numbers, default=[10, 30, 100, 300, 1_000], help="faces of a group")
    parser.add_argument("--faces", type=int, default=20_000, help="of each size, together")
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--cores", type=int, default=2, help="of the local session; default 2")
    parser.add_argument("--no-spark", action="store_true", help="in process only")
    arguments = parser.parse_args()
    config, scale = Config(), Scale(0.0, arguments.dimension**-0.5)
    model = load_model(config.confidences.model)
    profile(make_groups(2_000, 100, arguments.dimension, seed=1), model, config, scale)  # compiles
    rows, everything = [], []
    for size in arguments.sizes:
        groups = make_groups(arguments.faces, size, arguments.dimension)
        rows.append(row_of(groups, *profile(groups, model, config, scale)))
        everything += groups
    spark = {}
    if not arguments.no_spark:
        spark = run_stages(everything, THRESHOLDS, model, config, scale, arguments.cores)
    say(describe(rows, spark))
    answer(rows, spark=spark)


if __name__ == "__main__":
    main()
