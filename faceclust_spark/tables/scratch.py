"""What stages materialise while they run, and clear away when they end: names, and files on this machine."""

from __future__ import annotations

import secrets
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from pyspark.sql import DataFrame

INGEST_SCRATCH = ("ingest_checked", "ingest_exceptions")  # what ingest materialises
# What a forest beyond one task and its groups materialise; a round reads what the one before it has written.
FOREST_SCRATCH = (
    *("contraction_best", "contraction_hooks", "contraction_labels_0", "contraction_labels_1"),
    *("contraction_edges_0", "contraction_edges_1", "contraction_followed_0", "contraction_followed_1"),
    *("forest_chosen_0", "forest_chosen_1", "groups_members", "groups_links", "groups_pieces"),
    *(f"groups_{name}_{number}" for name in ("cores", "edges", "joined") for number in (0, 1)),
)


def rounds_scratch(count: int) -> tuple[str, ...]:
    """Name what so many rounds materialise: who joined in one of them is read until the last has ended."""
    numbered = (f"round_{name}_{number}" for name in ("placed", "hosts") for number in range(1, count + 1))
    return ("round_meetings", "round_settled", *numbered)


def replaced_here(rows: DataFrame, folder: Path) -> DataFrame:
    """Write rows as Parquet files in place of what the folder holds, and read them back."""
    own = folder / secrets.token_hex(8)
    rows.write.parquet(str(own))
    for other in folder.iterdir():  # only now: the rows may have been read from there
        if other != own and other.is_dir():
            shutil.rmtree(other)
    # A name may hold [ or {, which would be patterns.
    reader = rows.sparkSession.read.schema(rows.schema).option("__globPaths__", "false")
    return reader.parquet(str(own))
