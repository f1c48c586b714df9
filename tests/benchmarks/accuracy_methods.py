"""What the accuracy tables compare: peers, whose parameters are tuned, and ours, whose models are trained.

Both are fitted on one half of the people, and then cluster any gallery.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from accuracy_faces import Faces
from common import say
from numpy.typing import NDArray
from peers import PEERS

from faceclust_spark import Clustering, cluster
from faceclust_spark.config import load_config
from faceclust_spark.errors import ConfigError
from faceclust_spark.kernels.metrics import score
from faceclust_spark.kernels.model import load_model, save_model
from faceclust_spark.training.loop import train
from faceclust_spark.training.validation import mean_f

OURS = ("literal", "bound", "relations")
METHODS = (*PEERS, *OURS)


class Fitted(NamedTuple):
    """A method with all that it learned or was tuned to."""

    name: str
    parameters: dict[str, Any]  # chosen ones, or the seed of a training
    fit_seconds: float  # 0 where the model was there already
    cluster: Callable[[Faces], NDArray[np.int64]]


class Training(NamedTuple):
    """How our models are trained, and where they are kept."""

    folder: Path
    overrides: tuple[str, ...] = ()  # of the config, for training and clustering


def tune(name: str, faces: Faces) -> Fitted:
    """Choose a peer's parameters: the best mean of pairwise and BCubed F on these faces."""
    peer, vectors, start = PEERS[name], faces.vectors(), time.perf_counter()
    found = [mean_f(score(faces.labels, peer.run(vectors, **one))) for one in peer.grid]
    best = dict(peer.grid[int(np.argmax(found))])
    seconds = time.perf_counter() - start
    say(f"  {name}: {best}, F {max(found):.4f} on the half for tuning, {seconds:.0f} s")
    return Fitted(name, best, seconds, lambda gallery: peer.run(gallery.vectors(), **best))


def learn(kind: str, galleries: dict[str, Faces], seed: int, training: Training) -> Fitted:
    """Train a model of ours on the named galleries, or load the one that is kept for these names.

    It clusters by `faceclust_spark.cluster`, as the product does.
    """
    folder = model_folder(kind, galleries, seed, training)
    seconds = 0.0
    if not _is_kept(folder):
        config = load_config(None, [*training.overrides, f"train.kind={kind}", f"train.seed={seed}"])
        start = time.perf_counter()
        trained = train([faces.labelled() for faces in galleries.values()], config)
        seconds = time.perf_counter() - start
        save_model(trained.model, folder)
        say(f"  {folder.name}: trained in {seconds:.0f} s")
    return Fitted(kind, {"seed": seed}, seconds, lambda gallery: by_model(gallery, folder, training).labels)


def model_folder(kind: str, galleries: Iterable[str], seed: int, training: Training) -> Path:
    """Give where the model of these galleries is kept."""
    return training.folder / "_".join([kind, *sorted(galleries), f"seed{seed}"])


def by_model(faces: Faces, folder: Path, training: Training, *further: str) -> Clustering:
    """Cluster with a model of a folder; a literal one by its confidences, since it has nothing else."""
    rule = ["clusters.rule=confidence"] if load_model(str(folder)).kind == "literal" else []
    config = load_config(None, [*training.overrides, *rule, f"confidences.model={folder}", *further])
    return cluster(faces.embeddings, faces.attributes, config, image_ids=faces.image_ids.tolist())


def timed(fitted: Fitted, faces: Faces) -> tuple[NDArray[np.int64], float]:
    """Cluster, and give the seconds that it took from raw embeddings to labels."""
    start = time.perf_counter()
    labels = fitted.cluster(faces)
    return labels, time.perf_counter() - start


def warm_up(fitted: Fitted, faces: Faces) -> None:
    """Compile and import what the first clustering would otherwise be timed with."""
    fitted.cluster(faces.take(np.arange(min(400, len(faces.labels)))))


def _is_kept(folder: Path) -> bool:
    try:
        load_model(str(folder))
    except ConfigError:  # not there, or of another format
        return False
    return True
