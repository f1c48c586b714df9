"""Face clustering on Apache Spark and Delta Lake.

    import faceclust_spark
    result = faceclust_spark.cluster(embeddings, attributes)       # arrays in, labels out, no Spark
    faceclust_spark.run(spark, "gallery.parquet", "out", config)   # Delta tables

Names are loaded when they are first used: importing the package imports neither Spark nor torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from faceclust_spark.config import Config, load_config
    from faceclust_spark.local import Clustering, cluster
    from faceclust_spark.pipeline import ingest, run
    from faceclust_spark.planning.verb import plan
    from faceclust_spark.session import get_session
    from faceclust_spark.verbs import evaluate, explain, synthesise, train_model

_HOMES = {
    "Clustering": "local",
    "Config": "config",
    "cluster": "local",
    "evaluate": "verbs",
    "explain": "verbs",
    "get_session": "session",
    "ingest": "pipeline",
    "load_config": "config",
    "plan": "planning.verb",
    "run": "pipeline",
    "synthesise": "verbs",
    "train_model": "verbs",
}

__all__ = [
    "Clustering",
    "Config",
    "cluster",
    "evaluate",
    "explain",
    "get_session",
    "ingest",
    "load_config",
    "plan",
    "run",
    "synthesise",
    "train_model",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
