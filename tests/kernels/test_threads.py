import threading
import time

import numpy as np  # noqa: F401  # loads its BLAS
import pytest
from threadpoolctl import threadpool_info

from faceclust_spark.kernels.threads import map_parts, one_thread


def blas_threads():
    # OpenMP counts by itself for each calling thread; numpy's products are what runs in the parts.
    loaded = threadpool_info()
    return [one["num_threads"] for one in loaded if one.get("threading_layer", "openmp") != "openmp"]


def test_results_come_in_the_order_of_the_parts():
    def work(part):
        time.sleep(0.02 if part == 0 else 0)  # the first one ends last
        return part * part

    assert map_parts(work, range(20)) == [part * part for part in range(20)]
    assert map_parts(work, []) == []


def test_the_error_of_a_part_reaches_the_caller():
    with pytest.raises(ZeroDivisionError):
        map_parts(lambda part: 1 // part, [1, 0])


def test_libraries_are_held_to_one_thread_and_let_go():
    before = blas_threads()
    assert before
    with one_thread():
        assert set(blas_threads()) == {1}
    assert blas_threads() == before
    seen = map_parts(lambda part: max(blas_threads()), range(4))
    assert seen == [1] * 4
    assert blas_threads() == before


def test_one_part_needs_one_thread():
    names = set(map_parts(lambda part: threading.current_thread().name, [0]))
    assert len(names) == 1 and names != {threading.current_thread().name}
