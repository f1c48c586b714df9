"""What the log of a Delta table in a folder of this machine tells, read without Spark.

A session takes a third of a second or more to say so; a resumed run asks of a dozen tables.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

_ENTRY = re.compile(r"(\d{20})\.(?:json|checkpoint)")  # a commit, or what all up to one come to


class Written(NamedTuple):
    """The newest version of a table, and the run that its content comes from."""

    version: int
    run_id: str | None


def log_of(table: Path) -> Path | None:
    """Give the folder of a table's log, if it is there."""
    log = table / "_delta_log"
    return log if log.is_dir() else None


def newest_version(log: Path) -> int | None:
    """Give the newest version; None while the first commit is being written."""
    return max(
        (int(found[1]) for entry in log.iterdir() if (found := _ENTRY.match(entry.name))), default=None
    )


def last_written(log: Path) -> Written | None:
    """Give the newest version, and the label of the newest commit that has one; None before the first."""
    newest = newest_version(log)
    if newest is None:
        return None
    labels = (_label(log / f"{version:020}.json") for version in range(newest, -1, -1))
    return Written(newest, next((label for label in labels if label is not None), None))


def _label(commit: Path) -> str | None:
    """Give the user's metadata of a commit; None also where old commits have been cleaned away."""
    if not commit.exists():
        return None
    with commit.open(encoding="utf-8") as actions:
        for line in actions:
            told = json.loads(line).get("commitInfo")
            if told is not None:  # the first line, as Spark writes it
                label: str | None = told.get("userMetadata")
                return label
    return None
