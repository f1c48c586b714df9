"""What `python -m faceclust_spark.prepare` has left for the sessions of this machine.

In `$XDG_CACHE_HOME/faceclust`, else `~/.cache/faceclust`: a list of Delta's jars, and an archive of the
classes that Spark and Delta load. Each belongs to one installation of Spark, one version of Delta, one Java.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple


class Prepared(NamedTuple):
    """Files that are there, or would be."""

    jars: Path  # the installation in the first line, then a jar a line, as on the class path
    archive: Path

    def jar_list(self) -> list[str]:
        """Give Delta's jars; none where they have not been prepared, or one is there no more."""
        if not self.jars.exists():
            return []
        owner, jars = self._lines()
        return jars if owner == installation() and all(Path(jar).exists() for jar in jars) else []

    def is_left_over(self) -> bool:
        """Tell whether the installation that they belong to is there no more."""
        owner, _ = self._lines()
        return not (owner and Path(owner).exists())

    def _lines(self) -> tuple[str, list[str]]:
        owner, *jars = self.jars.read_text(encoding="utf-8").splitlines() or [""]
        return owner, jars


def prepared() -> Prepared:
    """Name the files that belong to this installation."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=str(Path(home) / "bin") if home else None) or ""
    belongs = f"{Path(java).resolve()} {installation()} {version('pyspark')} {version('delta-spark')}"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "faceclust"
    name = hashlib.sha256(belongs.encode()).hexdigest()[:12]
    return Prepared(cache / f"{name}.jars", cache / f"{name}.jsa")


def installation() -> str:
    """Give the file that the installation of Spark is known by."""
    spark = find_spec("pyspark")
    return str(spark.origin if spark else None)
