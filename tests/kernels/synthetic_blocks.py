"""Blocks of synthetic faces, and how their vectors compare."""

from __future__ import annotations

import numpy as np

from faceclust_spark.config import SynthConfig
from faceclust_spark.kernels.synth import (
    count_blocks,
    draw_embeddings,
)
from faceclust_spark.kernels.synth_factors import draw_factors

PLAIN = {
    "attractor_pull": 0.0,
    "kin_share": 0.0,
    "burst_share": 0.0,
    "pose_noise": 0.0,
    "age_noise": 0.0,
    "noise": 0.0,
}


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def row_cosines(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    return (unit(rows) * unit(others)).sum(axis=1)


def common_rows(rows: np.ndarray, others: np.ndarray) -> set[bytes]:
    return {row.tobytes() for row in rows} & {row.tobytes() for row in others}


def one_block(**values):
    """Give config, factors and embeddings of a gallery of one block."""
    config = SynthConfig(**values)
    assert count_blocks(config) == 1
    factors = draw_factors(config, 0, config.faces)
    return config, factors, draw_embeddings(config, 0, factors)
