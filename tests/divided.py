"""Settings with which the smallest gallery is worked on as the largest: by Spark's tasks, in many parts."""

BY_TASKS = "spark.driver_faces=0"

# Several cells, small tasks, groups in blocks, joins across root groups: whatever could differ is in use.
DIVIDED = (
    "cells.cells=6",
    "neighbours.probes=3",
    "coarse_groups.max_size=80",
    "confidences.dense_size=40",
    "confidences.block_neighbours=16",
    "confidences.block_negatives=8",
    "confidences.pairs_per_task=300",
    "rounds.least_log_odds=-3",
)
