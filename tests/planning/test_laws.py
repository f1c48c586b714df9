import pytest

from faceclust_spark.config import Config, NeighboursConfig
from faceclust_spark.kernels.crowds import visitor_work
from faceclust_spark.kernels.relations import PAIR_INPUTS
from faceclust_spark.planning.laws import (
    STAGES,
    Gallery,
    count_work,
    moved_bytes,
    shuffle_bytes,
    table_bytes,
    task_memory,
    training_cost,
)
from faceclust_spark.planning.rates import Rates
from faceclust_spark.planning.structure import Structure
from faceclust_spark.planning.timing import OVERHEADS, Seconds, kernel_seconds, stage_seconds
from faceclust_spark.stages.neighbours import shard_count

RATES = Rates(3e-6, 2e-7, 1e-8, 4e-9, 2e-8, 2e-7, 5e-7, 1e-6, 5e-8)
SIZES = (1_000, 20_000, 50_000, 10**6, 3 * 10**7, 10**9)


def structure(pairs=100.0):
    return Structure(
        pairs=pairs, groups=0.1, alone=0.05, entries=30.0, largest=300, uncorrected=pairs, people=None,
        grouped=None,
    )  # fmt: skip


def work(faces, pairs=100.0, config=None):
    config = config or Config()
    gallery = Gallery(faces, 256, 12, 4, 3)
    shards = shard_count(faces, 12)
    counts = count_work(gallery, structure(pairs), min(3.0, shards), shards, 1.4, 1.3, config)
    return gallery, counts


def seconds(faces, cores, pairs=100.0):
    gallery, counts = work(faces, pairs)
    tables = table_bytes(gallery, counts, counts.refined)
    moved = moved_bytes(gallery, tables, shuffle_bytes(gallery, counts, structure(pairs), 12))
    return stage_seconds(kernel_seconds(RATES, gallery, counts, Config()), moved, cores)


def test_cells_of_huge_galleries_are_divided():
    gallery, counts = work(10**9)
    visitors = 10**9 * 10 / counts.cells
    within = visitor_work(visitors, Config().neighbours.largest_cell)
    assert counts.compared == pytest.approx(counts.cells * visitors * within.pairs)
    assert counts.divided == pytest.approx(counts.cells * visitors * within.parts)
    whole = Config().model_copy(update={"neighbours": NeighboursConfig(largest_cell=10**9)})
    _, undivided = work(10**9, config=whole)
    assert (undivided.divided, undivided.compared) == (0, pytest.approx(0.7 * counts.cells * visitors**2))
    searched = [
        kernel_seconds(RATES, gallery, one, Config())["neighbours"].kernels for one in (counts, undivided)
    ]
    assert searched[0] < searched[1] / 5
    assert work(10**6)[1].divided == 0


def test_small_galleries_compare_each_with_each():
    _, counts = work(20_000)
    assert (counts.cells, counts.compared, counts.partial_entries) == (1, 20_000**2, 0)


def test_pairs_compared_are_those_of_the_visitors_of_each_cell():
    _, counts = work(10**6)
    visitors = 10**6 * 10 / counts.cells
    assert counts.cells == 16_384
    assert counts.compared == pytest.approx(1.4 * counts.cells * visitors**2 / 2)


@pytest.mark.parametrize("stage", STAGES)
def test_a_larger_gallery_takes_longer_and_more_cores_never_do(stage):
    of_size = [seconds(faces, 12)[stage] for faces in SIZES[1:]]
    assert of_size == sorted(of_size)
    of_cores = [seconds(10**7, cores)[stage] for cores in (1, 4, 100, 10_000)]
    assert of_cores == sorted(of_cores, reverse=True)
    assert of_cores[-1] >= OVERHEADS[stage].seconds


def test_bytes_grow_with_the_gallery():
    rows = [work(faces) for faces in SIZES]
    stored = [sum(table_bytes(*row, row[1].refined).values()) for row in rows]
    sent = [sum(shuffle_bytes(*row, structure(), 12).values()) for row in rows]
    assert stored == sorted(stored)
    assert sent == sorted(sent)
    assert stored[-1] / stored[-2] == pytest.approx(10**9 / (3 * 10**7), rel=1e-6)


def test_more_pairs_cost_more_of_refining_and_reclustering_only():
    few, many = seconds(10**6, 8, 50.0), seconds(10**6, 8, 500.0)
    assert {stage for stage in STAGES if many[stage] > few[stage]} == {"confidences", "clusters"}


def test_what_one_core_does_alone_is_not_divided():
    assert Seconds(100.0, 7.0, 1_000).on(10) == 17
    assert Seconds(100.0, 7.0, 5).on(10) == 27


def test_a_task_holds_its_shard_whatever_the_gallery():
    held = [task_memory(*work(faces), Config())["neighbours"] for faces in SIZES[3:]]
    assert max(held[:2]) / min(held[:2]) < 1.2
    crowd = 10**9 * 10 / 65_536
    assert crowd * 2 * 256 < held[2] - held[1] < crowd * (2 * 256 + 200)  # divided cells: visitors again
    one, two = (task_memory(*work(faces), Config())["coarse_groups"] for faces in (10**6, 10**9))
    limited = task_memory(*work(10**10), Config())["coarse_groups"]
    assert one < two == limited


def test_a_task_that_refines_holds_its_largest_group():
    gallery, counts = work(10**6)
    assert counts.refined_of_one == 300 * 96
    held = task_memory(gallery, counts, Config())["confidences"]
    of_large = task_memory(gallery, counts._replace(refined_of_one=10**6), Config())["confidences"]
    assert of_large - held == 4 * (PAIR_INPUTS + 8) * (10**6 - 300 * 96)


def test_training_is_done_in_two_levels_beyond_256_cells():
    assert training_cost(1, 1) == 0
    assert training_cost(256, 1_000) == 256_000 + 256 * 2_500
    assert training_cost(1_024, 1_000) == 64_000 + 1_024 * 2_500
