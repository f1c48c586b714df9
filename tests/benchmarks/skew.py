"""What one huge identity and a hub of blurred faces do: a gallery with them beside the same one without.

    python tests/benchmarks/skew.py             # 200,000 x 256: a person of 50,000 faces, 20,000 blurred ones
    python tests/benchmarks/skew.py --faces 20000 --identity 5000 --hub 2000

--faces counts all faces of the skewed gallery; the plain one lacks the identity and the hub, so it is
smaller: `ratio` compares seconds, `ratio_per_face` seconds a face. Each runs in a fresh process, after a run
of 1,000 faces that is not counted. The benchmark fails where a face is lost or quarantined. `slowest_ratio`
at the top level is the highest `ratio` of a stage. The last line on stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import deltalake
import numpy as np
from common import (
    Child,
    answer,
    run_pipelines,
    say,
    synthetic_blocks,
    table_of,
    write_gallery,
    write_warm_up,
)
from options import make_parser

from faceclust_spark.config import SynthConfig
from faceclust_spark.kernels.grid import normalise
from faceclust_spark.kernels.synth import SyntheticFaces, draw_directions

CHUNK = 10_000
IDENTITY, HUB = "identity", "hub"  # how image ids begin, and the identity's label


def draw_identity(faces: int, config: SynthConfig) -> Iterator[SyntheticFaces]:
    """Draw many images of one person: the centre and Gaussian noise of the config's length."""
    generator = np.random.default_rng([config.seed, 50])
    centre = normalise(generator.standard_normal((1, config.dimension)))
    for first, count in _chunks(faces):
        noise = generator.standard_normal((count, config.dimension)) * config.dimension**-0.5
        quality = generator.uniform(0.5, 0.9, count)
        labels = np.full(count, IDENTITY, object)
        yield _faces(IDENTITY, first, centre + config.noise * noise, quality, labels, config)


def draw_hub(faces: int, config: SynthConfig) -> Iterator[SyntheticFaces]:
    """Draw blurred faces of as many people, all pulled to the gallery's common attractor."""
    generator = np.random.default_rng([config.seed, 20])
    attractor = draw_directions(config).attractor
    for first, count in _chunks(faces):
        own = normalise(generator.standard_normal((count, config.dimension)))
        mixed = (1 - config.attractor_pull) * own + config.attractor_pull * attractor
        labels = np.array([f"{HUB}-person-{row}" for row in range(first, first + count)], object)
        yield _faces(HUB, first, mixed, generator.uniform(0.0, 0.05, count), labels, config)


def _chunks(faces: int) -> Iterator[tuple[int, int]]:
    return ((first, min(CHUNK, faces - first)) for first in range(0, faces, CHUNK))


def _faces(
    name: str, first: int, vectors: np.ndarray, quality: np.ndarray, labels: np.ndarray, config: SynthConfig
) -> SyntheticFaces:
    """Give rows of a source; without a photo or attributes of their own, which would decide nothing here."""
    rows = range(first, first + len(vectors))
    return SyntheticFaces(
        image_ids=np.array([f"{name}-{row:08d}" for row in rows], object),
        embeddings=(config.embedding_norm * normalise(vectors)).astype(np.float32),
        attributes=np.full((len(vectors), config.attributes), np.nan, np.float32),
        photo_ids=np.full(len(vectors), None, object),
        quality=quality.astype(np.float32),
        quality_bands=np.full(len(vectors), "", object),
        labels=labels,
    )


def measure(faces: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the gallery with and without its identity and hub, each in a process of its own."""
    plain_faces = faces - arguments.identity - arguments.hub
    config = SynthConfig(faces=plain_faces, dimension=arguments.dimension, seed=4)
    with tempfile.TemporaryDirectory(prefix="faceclust-skew-") as name:
        folder = Path(name)
        extra = chain(draw_identity(arguments.identity, config), draw_hub(arguments.hub, config))
        sources = {
            "plain": write_gallery(synthetic_blocks(config), folder / "plain.parquet"),
            "skewed": write_gallery(chain(synthetic_blocks(config), extra), folder / "skewed.parquet"),
        }
        plain, skewed = (
            run_pipelines(
                [write_warm_up(arguments, folder / f"before-{what}"), (source, str(folder / what))],
                arguments.cores,
                arguments,
                by_tasks=True,
            )
            for what, source in sources.items()
        )
        require_all(skewed, faces)
        require_all(plain, plain_faces)
        ended = where_ended(skewed.runs[-1].tables)
    row = {**row_of(plain, skewed), **ended}
    say(describe(row))
    return row


def require_all(child: Child, faces: int) -> None:
    """Raise RuntimeError where a face is not in `clusters`, or in the quarantine."""
    ran = child.runs[-1]
    if ran.faces != faces or ran.quarantined:
        raise RuntimeError(f"of {faces:,} faces {ran.faces:,} are clustered, {ran.quarantined:,} quarantined")


def where_ended(tables: str) -> dict[str, int]:
    """Give how many clusters the identity and the hub ended in, and the largest part of each."""
    rows = deltalake.DeltaTable(f"{tables}/clusters").to_pyarrow_table(columns=["image_id", "cluster_id"])
    found: dict[str, Counter[str]] = {IDENTITY: Counter(), HUB: Counter()}
    for image, cluster in zip(rows["image_id"].to_pylist(), rows["cluster_id"].to_pylist(), strict=True):
        kind = image.partition("-")[0]
        if kind in found:
            found[kind][cluster] += 1
    return {
        f"{kind}_{what}": value
        for kind, counts in found.items()
        for what, value in (("clusters", len(counts)), ("largest", max(counts.values(), default=0)))
    }


def row_of(plain: Child, skewed: Child) -> dict[str, Any]:
    """Give what the skew costs: a row of the results."""
    before, after = plain.runs[-1], skewed.runs[-1]
    growth = after.faces / before.faces
    stages = {
        stage: {
            "plain_seconds": before.stages[stage],
            "seconds": seconds,
            "ratio": seconds / before.stages[stage],
            "ratio_per_face": seconds / before.stages[stage] / growth,
        }
        for stage, seconds in after.stages.items()
    }
    return {
        "faces": after.faces,
        "plain_faces": before.faces,
        "seconds": after.seconds,
        "plain_seconds": before.seconds,
        "ratio": after.seconds / before.seconds,
        "slowest_ratio": max(stage["ratio"] for stage in stages.values()),
        "peak_gib": skewed.memory.peak_gib,
        "plain_peak_gib": plain.memory.peak_gib,
        "largest_groups": list(after.largest_groups),
        "plain_largest_groups": list(before.largest_groups),
        "stages": stages,
    }


def describe(row: Mapping[str, Any]) -> str:
    stages = row["stages"]
    columns = {
        "without s": lambda stage: f"{stages[stage]['plain_seconds']:.1f}",
        "with s": lambda stage: f"{stages[stage]['seconds']:.1f}",
        "ratio": lambda stage: f"{stages[stage]['ratio']:.2f}",
        "a face": lambda stage: f"{stages[stage]['ratio_per_face']:.2f}",
    }
    sizes = ", ".join(f"{size:,}" for size in row["largest_groups"])
    return (
        f"{row['faces']:,} faces with the skew: {row['seconds']:.1f} s, peak {row['peak_gib']:.2f} GiB; "
        f"{row['plain_faces']:,} without: {row['plain_seconds']:.1f} s, {row['plain_peak_gib']:.2f} GiB; "
        f"no face lost\nlargest root groups {sizes}; the identity in {row['identity_clusters']:,} clusters "
        f"(largest {row['identity_largest']:,}), the hub in {row['hub_clusters']:,} (largest "
        f"{row['hub_largest']:,})\n{table_of(list(stages), columns)}\n"
    )


def main() -> None:
    parser = make_parser(__doc__, "200000")
    parser.add_argument(
        "--identity", type=int, default=50_000, help="faces of the one person; default 50,000"
    )
    parser.add_argument("--hub", type=int, default=20_000, help="blurred faces; default 20,000")
    parser.add_argument("--cores", type=int, default=2, help="of the local session; default 2")
    arguments = parser.parse_args()
    if min(arguments.faces) < arguments.identity + arguments.hub + 10:
        parser.error("--faces counts the identity and the hub too: at least 10 more are needed")
    rows = [measure(faces, arguments) for faces in arguments.faces]
    slowest, peak = max(row["slowest_ratio"] for row in rows), max(row["peak_gib"] for row in rows)
    say(f"slowest stage {slowest:.2f} times the gallery without them; peak {peak:.2f} GiB")
    answer(rows, slowest_ratio=slowest, peak_gib=peak)


if __name__ == "__main__":
    main()
