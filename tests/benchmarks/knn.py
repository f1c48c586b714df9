"""Neighbours of a synthetic gallery: our two Spark stages beside faiss and hnswlib at equal edge recall.

    python tests/benchmarks/knn.py                  # 200,000 and 1,000,000 x 256, local[2], two threads each
    python tests/benchmarks/knn.py --faces 200000 --peers faiss
    python tests/benchmarks/knn.py --faces 100000 --cells 8 --probes 4 --peers ''   # cells of huge galleries

Ours is timed from the vectors table to the neighbours table, training of the cells and all reading and
writing included; the peers are timed in memory: train, add, search. Their effort is raised until their edge
recall reaches ours, against exact search of 2,000 faces. Only the ratios carry over to other machines. With
--cells, which are so few that they are divided again, the same search without dividing them stands beside: it
is `whole`. At the top level `ratio_to_faiss` and `edge_recall` are the worst of all sizes. The last line on
stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from common import answer, say
from options import numbers

from faceclust_spark.arrow import vectors_to_arrow
from faceclust_spark.config import CellsConfig, NeighboursConfig, SparkConfig
from faceclust_spark.kernels.cells import cell_count
from faceclust_spark.kernels.grid import normalise, quantise
from faceclust_spark.kernels.ids import sample_rows
from faceclust_spark.kernels.neighbours import NeighbourLists, search_faces
from faceclust_spark.kernels.recall import SAMPLE
from faceclust_spark.tables import columns as c

FLOOR, K, THREADS, AUDITED = 0.4, 40, 2, 2_000
EFFORTS = (4, 8, 12, 16, 24, 32, 40, 48, 56, 64, 72, 80, 96, 128, 192, 256, 384, 512)


class Gallery(NamedTuple):
    face_ids: np.ndarray
    vectors: np.ndarray  # on the grid
    sample: np.ndarray  # rows that recall is measured on
    exact: NeighbourLists  # their true K nearest at or above the floor


class Measured(NamedTuple):
    way: str
    seconds: float
    edge_recall: float


def make_gallery(faces: int, dimension: int, seed: int = 0) -> Gallery:
    """Draw people of Pareto sizes around random directions, with noise that differs from face to face."""
    generator = np.random.default_rng(seed)
    sizes = np.minimum(1 + generator.pareto(1.2, faces) * 3, 2_000).astype(int)
    people = int(np.searchsorted(np.cumsum(sizes), faces)) + 1
    person = np.repeat(np.arange(people), sizes[:people])[:faces]
    generator.shuffle(person)
    centres = generator.standard_normal((people, dimension), np.float32)
    vectors = np.empty((faces, dimension), np.int16)
    for start in range(0, faces, 20_000):
        rows = slice(start, start + 20_000)
        noise = generator.standard_normal((len(person[rows]), dimension), np.float32)
        strength = generator.lognormal(np.log(0.8), 0.2, (len(noise), 1)).astype(np.float32)
        vectors[rows] = quantise(normalise(centres[person[rows]] + strength * noise))
    face_ids = generator.integers(0, 2**62, faces)
    sample = sample_rows(face_ids, AUDITED, SAMPLE)
    exact = search_faces(face_ids[sample], vectors[sample], face_ids, vectors, FLOOR, K)
    return Gallery(face_ids, vectors, sample, exact)


def edge_recall(gallery: Gallery, found: np.ndarray) -> float:
    """Give the share of the sample's true edges among the found rows `(m, k)`, -1 where there is none."""
    ids = np.where(found < 0, -1, gallery.face_ids[found])
    hits = [
        np.isin(gallery.exact.neighbours[a:b], row).sum()
        for a, b, row in zip(gallery.exact.offsets, gallery.exact.offsets[1:], ids, strict=False)
    ]
    return float(np.sum(hits) / len(gallery.exact.neighbours))


def run_ours(
    gallery: Gallery, folder: Path, config: NeighboursConfig, cells: CellsConfig, shards: int | None
) -> Measured:
    """Time the stages on Spark, after a small run has loaded the workers."""
    from faceclust_spark.session import get_session

    spark = get_session(SparkConfig(master=f"local[{THREADS}]", driver_memory="4g"))
    norms = np.ones(len(gallery.face_ids), np.float32)
    columns = {c.FACE_ID: gallery.face_ids, c.VECTOR: vectors_to_arrow(gallery.vectors), c.NORM: norms}
    table = pa.table(columns)
    for name, rows in (("warm", table.slice(0, 10_000)), ("all", table)):
        pq.write_table(rows, folder / f"{name}.parquet")
        source = spark.read.parquet(str(folder / f"{name}.parquet")).repartition(2 * THREADS)
        source.write.format("delta").save(str(folder / name))
    _write_neighbours(spark, folder / "warm", 10_000, CellsConfig(cells=64), config, shards)
    seconds = _write_neighbours(spark, folder / "all", len(gallery.face_ids), cells, config, shards)
    recall = _audit(spark, folder / "all", config)
    spark.stop()
    return Measured("faceclust, Spark local[2]", seconds, recall)


def _write_neighbours(spark, folder: Path, faces: int, cells_config, config, shards) -> float:
    from faceclust_spark.stages.cells import cells, cells_frame, cells_from_frame
    from faceclust_spark.stages.neighbours import neighbours, shard_count

    start = time.perf_counter()
    vectors = spark.read.format("delta").load(str(folder))
    trained = cells(vectors, faces, cells_config)
    cells_frame(spark, trained).write.format("delta").save(f"{folder}-cells")
    between = time.perf_counter()
    stored = cells_from_frame(spark.read.format("delta").load(f"{folder}-cells"))
    rows = neighbours(vectors, stored, FLOOR, config, shards or shard_count(faces, THREADS))
    rows.write.format("delta").save(f"{folder}-neighbours")
    end = time.perf_counter()
    say(f"  {faces} faces: cells {between - start:.1f} s, neighbours {end - between:.1f} s")
    return end - start


def _audit(spark, folder: Path, config: NeighboursConfig) -> float:
    from faceclust_spark.stages.recall import recall_audit

    vectors, found = (spark.read.format("delta").load(f"{folder}{suffix}") for suffix in ("", "-neighbours"))
    return float(recall_audit(vectors, found, FLOOR, config).collect()[0][c.EDGE_RECALL])


def run_faiss(gallery: Gallery, goal: float) -> Measured:
    """Train, add, search with IndexIVFFlat; as many lists as we have cells."""
    import faiss

    faiss.omp_set_num_threads(THREADS)
    unit = normalise(gallery.vectors).astype(np.float32)
    start = time.perf_counter()
    lists = cell_count(len(unit), CellsConfig())
    index = faiss.IndexIVFFlat(
        faiss.IndexFlatIP(unit.shape[1]), unit.shape[1], lists, faiss.METRIC_INNER_PRODUCT
    )
    index.train(unit)
    index.add(unit)
    built = time.perf_counter() - start

    def search(rows: np.ndarray, effort: int) -> np.ndarray:
        index.nprobe = effort
        return index.search(rows, K + 1)[1]

    return _raise_effort("faiss IndexIVFFlat", gallery, unit, built, search, goal)


def run_hnswlib(gallery: Gallery, goal: float) -> Measured:
    """Add and search with hnswlib's usual M = 16, ef_construction = 200."""
    import hnswlib

    unit = normalise(gallery.vectors).astype(np.float32)
    start = time.perf_counter()
    index = hnswlib.Index(space="ip", dim=unit.shape[1])
    index.init_index(max_elements=len(unit), ef_construction=200, M=16, random_seed=0)
    index.set_num_threads(THREADS)
    index.add_items(unit)
    built = time.perf_counter() - start

    def search(rows: np.ndarray, effort: int) -> np.ndarray:
        index.set_ef(max(effort, K + 1))
        return index.knn_query(rows, K + 1)[0].astype(np.int64)

    return _raise_effort("hnswlib", gallery, unit, built, search, goal)


def _raise_effort(
    name: str,
    gallery: Gallery,
    unit: np.ndarray,
    built: float,
    search: Callable[[np.ndarray, int], np.ndarray],
    goal: float,
) -> Measured:
    """Find the least effort that reaches the goal on the sample, then time the whole search with it."""
    for effort in EFFORTS:
        recall = edge_recall(gallery, search(unit[gallery.sample], effort))
        if recall >= goal:
            break
    start = time.perf_counter()
    search(unit, effort)
    seconds = time.perf_counter() - start
    say(
        f"  {name}: built in {built:.1f} s, searched in {seconds:.1f} s, effort {effort}, recall {recall:.4f}"
    )
    return Measured(f"{name}, effort {effort}", built + seconds, recall)


def measure(faces: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure ours, then each peer at our edge recall."""
    gallery = make_gallery(faces, arguments.dimension)
    say(f"{faces:,} faces, {len(gallery.exact.neighbours) / AUDITED:.1f} true edges a face")
    config = NeighboursConfig(k=K, probes=arguments.probes, audit=AUDITED)
    cells, peers = CellsConfig(cells=arguments.cells or "auto"), {"faiss": run_faiss, "hnswlib": run_hnswlib}

    def run(own: NeighboursConfig) -> Measured:
        with tempfile.TemporaryDirectory(prefix="faceclust-knn-") as folder:
            return run_ours(gallery, Path(folder), own, cells, arguments.shards)

    ours = run(config)
    found = {name: peers[name](gallery, ours.edge_recall) for name in arguments.peers}
    if arguments.cells:
        whole = run(config.model_copy(update={"largest_cell": faces}))
        found["whole"] = whole._replace(way="the same, cells not divided")
    return row_of(faces, ours, found)


def row_of(faces: int, ours: Measured, peers: Mapping[str, Measured]) -> dict[str, Any]:
    """Give what one size took: a row of the results. A ratio below 1 means that we are faster."""
    row: dict[str, Any] = {"faces": faces, "seconds": ours.seconds, "edge_recall": ours.edge_recall}
    for name, peer in peers.items():
        row |= {
            f"ratio_to_{name}": ours.seconds / peer.seconds,
            f"{name}_seconds": peer.seconds,
            f"{name}_edge_recall": peer.edge_recall,
        }
    for one in (ours, *peers.values()):
        say(
            f"{one.way:36} {one.seconds:8.1f} s   edge recall {one.edge_recall:.4f}   "
            f"ours / it {ours.seconds / one.seconds:.2f}"
        )
    return row


def summary_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Give the worst ratio, None where faiss was left out, and the worst recall of all sizes."""
    ratios = [row["ratio_to_faiss"] for row in rows if "ratio_to_faiss" in row]
    return {
        "ratio_to_faiss": max(ratios, default=None),
        "edge_recall": min(row["edge_recall"] for row in rows),
    }


def _peers(text: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    if set(names) - {"faiss", "hnswlib"}:
        raise argparse.ArgumentTypeError(f"{text!r}: expected faiss, hnswlib, both or nothing")
    return names


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faces", type=numbers, default=[200_000, 1_000_000], help="200000,1000000")
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--probes", type=int, default=NeighboursConfig().probes)
    parser.add_argument("--cells", type=int, help="of ours, in place of one for 50 faces")
    parser.add_argument("--shards", type=int)
    parser.add_argument("--peers", type=_peers, default=["faiss", "hnswlib"], help="faiss,hnswlib")
    arguments = parser.parse_args()
    for name in arguments.peers:
        importlib.import_module(name)  # one that is missing fails now, and not after our own search
    rows = [measure(faces, arguments) for faces in arguments.faces]
    answer(rows, **summary_of(rows))


if __name__ == "__main__":
    main()
