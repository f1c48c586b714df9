"""Connected components at a threshold: our forest, in one task and in rounds, beside Splink on Spark.

    python tests/benchmarks/components.py                            # 10^6 edges a shape, local[2]
    python tests/benchmarks/components.py --edges 1000000,10000000   # an hour

Shapes: chains of 10,000 faces, stars of 1,000, one random giant component. A tenth of the edges lies below
the threshold, and would join everything. All start from the same Delta table of edges and end with files
of every face's component, in one session. Ours spans the forest on the way, which holds the components at
every threshold; Splink's answer is for the one. "rounds" is ours with a limit of an eighth of the faces,
so that nothing fits one task at first. Each answer is compared with scipy's; the benchmark fails where ours
differs. Needs the extra `bench`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from common import EVENT_LOG, Span, answer, read_events, say
from options import numbers
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from faceclust_spark.config import SparkConfig
from faceclust_spark.kernels.forest import Edges
from faceclust_spark.session import get_session
from faceclust_spark.tables import columns as c
from faceclust_spark.tables.lease import Lease
from faceclust_spark.tables.storage import TableStore

THRESHOLD, THREADS = 0.5, 2
CHAIN, STAR = 10_000, 1_000
WARM_UP = 20_000  # edges
FACE, COMPONENT = "face_id", "component"


class Graph(NamedTuple):
    """Edges between faces, and the component of every face at the threshold by scipy."""

    shape: str
    ids: np.ndarray  # int64 (n,) ascending
    edges: Edges
    truth: np.ndarray  # (n,)


class Way(NamedTuple):
    """A way to find components: gives the rows of face and component, and the rounds it took, if it tells."""

    name: str
    find: Callable[[Any, TableStore, int], tuple[Any, int | None]]


def draw_graph(shape: str, count: int, seed: int = 0) -> Graph:
    """Draw about `count` edges: nine tenths at or above the threshold in the shape, the rest below it."""
    generator = np.random.default_rng(seed)
    strong = count - count // 10
    if shape == "chains":
        first = np.arange(strong)
        first = first[first % CHAIN != CHAIN - 1]
        second, faces = first + 1, strong + 1
    elif shape == "stars":
        second = np.arange(strong)
        second = second[second % STAR != 0]
        first, faces = second // STAR * STAR, strong + 1
    else:
        faces = strong // 2
        first, second = generator.integers(0, faces, size=(2, strong))
    weak = generator.integers(0, faces, size=(2, count - strong))
    cosine = np.concatenate([generator.uniform(THRESHOLD, 1, len(first)), np.full(len(weak[0]), 0.4)])
    ids = np.sort(generator.integers(0, 2**62, faces))
    number = generator.permutation(faces)  # a face's id says nothing of its place
    ends = number[np.hstack([np.stack([first, second]), weak])]
    low, high = ends.min(axis=0), ends.max(axis=0)
    kept = low < high
    edges = Edges(ids[low[kept]], ids[high[kept]], cosine[kept].astype(np.float32))
    strong_rows = edges.cosine >= THRESHOLD
    place = (low[kept][strong_rows], high[kept][strong_rows])
    matrix = coo_matrix((np.ones(len(place[0]), np.int8), place), shape=(faces, faces))
    return Graph(shape, ids, edges, connected_components(matrix, directed=False)[1])


def ours(share: int) -> Callable[[Any, TableStore, int], tuple[Any, int]]:
    """Give our way with a limit of `faces // share`; 0: no limit."""

    def find(edges: Any, store: TableStore, faces: int) -> tuple[Any, int]:
        from faceclust_spark.stages.contraction_rounds import COMPONENT as OURS
        from faceclust_spark.stages.contraction_rounds import components
        from faceclust_spark.stages.forest import forest_of_edges, merge_forests

        limit = faces // share if share else 1 << 40
        parts = edges.mapInArrow(forest_of_edges, edges.schema)
        spanned = merge_forests(parts, faces, limit, 2 * THREADS, store.materialise)
        forest = store.materialise(spanned.edges, "forest")
        strong = forest.where(forest[c.COSINE] >= THRESHOLD)
        found = components(strong, limit, 2 * THREADS, store.materialise)
        return found.withColumnRenamed(OURS, COMPONENT), spanned.rounds

    return find


def splink(edges: Any, store: TableStore, faces: int) -> tuple[Any, None]:
    """Cluster by Splink's public function, as its documentation shows it for Spark."""
    from pyspark.sql import functions as F
    from splink import SparkAPI
    from splink.clustering import cluster_pairwise_predictions_at_threshold

    both = F.explode(F.array(c.FACE_A, c.FACE_B)).alias(FACE)
    clustered = cluster_pairwise_predictions_at_threshold(
        nodes=edges.select(both).distinct(),
        edges=edges.withColumnRenamed(c.COSINE, "match_probability"),
        db_api=SparkAPI(spark_session=edges.sparkSession, break_lineage_method="parquet"),
        node_id_column_name=FACE,
        edge_id_column_name_left=c.FACE_A,
        edge_id_column_name_right=c.FACE_B,
        threshold_match_probability=THRESHOLD,
    )
    return clustered.as_spark_dataframe().select(FACE, F.col("cluster_id").alias(COMPONENT)), None


WAYS = (Way("one task", ours(0)), Way("rounds", ours(8)), Way("splink", splink))


def write_edges(spark: Any, graph: Graph, folder: Path) -> Any:
    """Write the edges as a Delta table of as many files as there are tasks."""
    rows = pa.table(dict(zip((c.FACE_A, c.FACE_B, c.COSINE), graph.edges, strict=True)))
    pq.write_table(rows, folder / "edges.parquet", row_group_size=100_000)
    source = spark.read.parquet(str(folder / "edges.parquet")).repartition(4 * THREADS)
    source.write.format("delta").save(str(folder / "edges"))
    return spark.read.format("delta").load(str(folder / "edges"))


def is_equal(graph: Graph, found: Any) -> bool:
    """Tell whether the components part the faces as scipy does; a face without a row is alone."""
    rows = found.toArrow()
    place = np.searchsorted(graph.ids, rows[FACE].to_numpy())
    if len(np.unique(place)) < len(place):
        return False
    named = np.unique(rows[COMPONENT].to_numpy(), return_inverse=True)[1]
    labels = len(place) + np.arange(len(graph.ids))
    labels[place] = named
    pairs = np.unique(np.stack([labels, graph.truth]), axis=1).shape[1]
    return bool(pairs == len(np.unique(labels)) == graph.truth.max() + 1)


def measure(spark: Any, graph: Graph) -> Iterator[tuple[dict[str, Any], Span]]:
    """Time each way on one graph."""
    with tempfile.TemporaryDirectory(prefix="faceclust-components-") as folder:
        edges = write_edges(spark, graph, Path(folder))
        for way in WAYS:
            store = TableStore(spark, f"{folder}/{way.name.replace(' ', '-')}")
            with Lease(spark, store, "benchmark"):  # every run leaves one: it tells where the gallery lies
                pass
            started, clock = time.time(), time.perf_counter()
            found, rounds = way.find(edges, store, len(graph.ids))
            stored = store.materialise(found, "answer")
            seconds = time.perf_counter() - clock
            row = {"edges": len(graph.edges.first), "shape": graph.shape, "way": way.name}
            row |= {"seconds": round(seconds, 2), "rounds": rounds, "equal": is_equal(graph, stored)}
            name = f"{graph.shape} {len(graph.edges.first)} {way.name}"
            say(f"  {name}: {seconds:.1f} s, {'equal' if row['equal'] else 'NOT EQUAL'}")
            yield row, Span(name, started, seconds)


def beside_splink(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Set each of our rows beside Splink's on the same graph."""
    peers = {(row["edges"], row["shape"]): row for row in rows if row["way"] == "splink"}
    for row in rows:
        if row["way"] != "splink":
            peer = peers[row["edges"], row["shape"]]
            theirs = {f"{name}_splink": peer[name] for name in ("seconds", "shuffle_bytes", "equal")}
            yield {**row, **theirs, "ours_to_splink": round(row["seconds"] / peer["seconds"], 4)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--edges", type=numbers, default=[1_000_000], help="sizes; default 1000000")
    parser.add_argument("--shapes", default="chains,stars,giant", help="default chains,stars,giant")
    parser.add_argument("--driver-memory", default="4g", help="heap of the driver; default 4g")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="faceclust-components-") as folder:
        events = f"{folder}/events"
        Path(events).mkdir()
        settings = {**EVENT_LOG, "spark.eventLog.dir": f"file:{events}"}
        spark = get_session(
            SparkConfig(master=f"local[{THREADS}]", driver_memory=arguments.driver_memory, settings=settings)
        )
        spark.sparkContext.setCheckpointDir(f"{folder}/splink")  # where Splink puts Parquet between rounds
        say("warming up")
        list(measure(spark, draw_graph("giant", WARM_UP)))
        shapes = arguments.shapes.split(",")
        measured = [
            one
            for count in arguments.edges
            for shape in shapes
            for one in measure(spark, draw_graph(shape, count))
        ]
        spark.stop()
        (log,) = Path(events).iterdir()
        with log.open(encoding="utf-8") as lines:
            work = read_events(lines, [span for _, span in measured])
    rows = [{**row, "shuffle_bytes": work[span.stage].shuffle_write_bytes} for row, span in measured]
    results = list(beside_splink(rows))
    say(table(results))
    answer(results)
    sys.exit(0 if all(row["equal"] for row in results) else 1)


def table(results: list[dict[str, Any]]) -> str:
    """Give the results as text."""
    heads = ("edges", "shape", "way", "s", "splink s", "ratio", "rounds", "MB", "splink MB", "equal")
    lines = ["".join(f"{head:>11}" for head in heads)]
    for row in results:
        cells = (
            *(row["edges"], row["shape"], row["way"], row["seconds"], row["seconds_splink"]),
            *(row["ours_to_splink"], row["rounds"]),
            *(round(row["shuffle_bytes"] / 1e6), round(row["shuffle_bytes_splink"] / 1e6), row["equal"]),
        )
        lines.append("".join(f"{cell!s:>11}" for cell in cells))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
