import itertools

import numpy as np
import pyarrow as pa
import pytest

from faceclust_spark.errors import InfrastructureError
from faceclust_spark.stages.root_groups import whole_groups


def placed_rows(sizes):
    keys = np.repeat(np.arange(len(sizes)) * 10, sizes)
    return pa.RecordBatch.from_pydict(
        {"key": keys, "face_id": np.arange(len(keys)), "size": np.repeat(sizes, sizes)}
    )


def cut(rows, ends):
    edges = [0, *sorted(ends), rows.num_rows]
    return iter([rows.slice(a, b - a) for a, b in itertools.pairwise(edges)])


@pytest.mark.parametrize("seed", range(30))
def test_any_cut_into_batches_gives_whole_groups_in_order(seed):
    generator = np.random.default_rng(seed)
    sizes = generator.integers(1, 9, size=generator.integers(1, 12))
    rows = placed_rows(sizes)
    ends = generator.integers(0, rows.num_rows + 1, size=generator.integers(0, 15))
    found = list(whole_groups(cut(rows, ends), "key"))
    assert pa.Table.from_batches(found) == pa.Table.from_batches([rows])
    for earlier, later in itertools.pairwise(found):
        assert earlier["key"][-1] != later["key"][0]


def test_no_batches_and_empty_batches_give_nothing():
    assert list(whole_groups(iter([]), "key")) == []
    assert list(whole_groups(iter([placed_rows([2]).slice(0, 0)]), "key")) == []


def test_a_group_in_parts_is_refused():
    rows = placed_rows([3, 4, 2])
    with pytest.raises(InfrastructureError, match="3 of its 4 members"):
        list(whole_groups(iter([rows.slice(0, 6)]), "key"))
