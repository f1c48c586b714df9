"""Every column name of every table, written once."""

from __future__ import annotations

# keys
RUN_ID = "run_id"
FACE_ID = "face_id"  # BIGINT: 63 bits of SHA-256 of image_id
IMAGE_ID = "image_id"
PHOTO_ID = "photo_id"
LABEL = "label"
QUALITY = "quality"
QUALITY_BAND = "quality_band"  # of synthetic galleries: `low`, `middle`, `high`
EMBEDDING_MODEL = "embedding_model"
EXTRA = "extra"
SOURCE = "source"
CONTENT_HASH = "content_hash"  # of the row as ingested: tells a changed face from a repeated one

# source, and ingest's work in between
EMBEDDING = "embedding"  # raw
PACKED = "packed"  # the raw embedding as bytes: a list costs Spark several steps for each number
WIDTH = "width"  # components of the embedding; -1 where it is null
ATTRIBUTE_WIDTH = "attribute_width"
OUTCOME = "outcome"  # what becomes of an image: `new`, `replaced`, `unchanged`, or a reason code

# vectors
VECTOR = "vector"  # BINARY: int16 grid components, little-endian
ATTRIBUTES = "attributes"  # ARRAY<FLOAT>: standardised; null element = missing
NORM = "norm"  # FLOAT: length of the raw embedding

# quarantine
REASON = "reason"
DETAIL = "detail"
ROW = "row"

# attribute_statistics, thresholds
VERSION = "version"
POSITION = "position"
NAME = "name"
MEAN = "mean"
STANDARD_DEVIATION = "standard_deviation"
NORM_CENTRE = "norm_centre"  # of the logarithms of norms
NORM_SPREAD = "norm_spread"  # 0: norms tell nothing
CLOSENESS_WEIGHTS = "closeness_weights"  # of attributes, in what predicts similarity (kernels.readings)
FAILURE_WEIGHTS = "failure_weights"  # of what tells that an image failed, such as a detector's score
COUNT = "count"
THRESHOLD = "threshold"
KIND = "kind"
CHOSEN_BY = "chosen_by"

# cells, neighbours
CELL = "cell"
SHARD = "shard"
CENTROID = "centroid"
PROBED_CELLS = "probed_cells"  # nearest first: the home cell, then those that the face visits
NEIGHBOURS = "neighbours"  # ARRAY<BIGINT>: face ids, nearest first
COSINES = "cosines"  # ARRAY<FLOAT>: same order
EDGE_RECALL = "edge_recall"
RECALL_AT_K = "recall_at_k"
SAMPLED_FACES = "sampled_faces"
TRUE_EDGES = "true_edges"

# forest, coarse_groups
FACE_A = "face_a"
FACE_B = "face_b"
COSINE = "cosine"
GROUP_KEY = "group_key"  # smallest face_id of the group
ROOT_KEY = "root_key"  # group_key of the root group that holds it
LEVEL = "level"  # cosine of the weakest link that holds the group together
SIZE = "size"

# similarities, refinements, confidences
FACE_IDS = "face_ids"
FACE_SIMILARITY = "face_similarity"  # ARRAY<FLOAT>: upper triangle, row by row, diagonal left out
ATTRIBUTE_SIMILARITY = "attribute_similarity"
FUSED_SIMILARITY = "fused_similarity"
THRESHOLDS = "thresholds"
GROUP_KEYS = "group_keys"  # ARRAY<ARRAY<BIGINT>>: per threshold, per face of face_ids
CONFIDENCES = "confidences"  # ARRAY<ARRAY<FLOAT>>: per threshold, per face
PAIR_FIRST = "pair_first"  # BINARY int32: rows in face_ids; empty where every pair is present
PAIR_SECOND = "pair_second"
PAIR_LOG_ODDS = "pair_log_odds"  # BINARY int16: log-odds of `same person` in steps of 1/256
CONFIDENCE = "confidence"

# clusters, rounds
CLUSTER_KEY = "cluster_key"  # smallest face_id of the cluster, which its id is made of
ROUND = "round"
VISITOR = "visitor"  # cluster_key of a small cluster
HOST = "host"  # cluster_key of the larger one that it most likely belongs to
VISITOR_SIZE = "visitor_size"
SECOND_HOST = "second_host"  # cluster_key of the next best one
SECOND_LOG_ODDS = "second_log_odds"
LOG_ODDS = "log_odds"  # that both are one person
TOGETHER = "together"  # the same as a probability, and that they are two
APART = "apart"
JOINED = "joined"
RUNNER_UP_KEY = "runner_up_key"  # cluster_key of the next best cluster of a face
RUNNER_UP = "runner_up"  # its id
MARGIN = "margin"  # log-odds by which the own cluster is ahead of it
CLUSTER_ID = "cluster_id"
STATUS = "status"
MEDOID = "medoid_image_id"
MEAN_CONFIDENCE = "mean_confidence"
LOWEST_SIMILARITY = "lowest_similarity"

# evaluation
SLICE_COLUMN = "slice_column"
SLICE_VALUE = "slice_value"
IDENTITY_SIZE = "identity_size"  # a slice that is always there: labelled images of the face's identity

# runs
STAGE = "stage"
STARTED_AT = "started_at"
SECONDS = "seconds"
ROWS = "rows"
LARGEST_GROUP = "largest_group"
CONFIG = "config"
CONFIG_HASH = "config_hash"
PACKAGES = "packages"
INPUTS = "inputs"
MESSAGE = "message"

# lease
TOKEN = "token"  # of one process: tells two starts of the same run apart
HOLDER = "holder"
SINCE = "since"
EXPIRES_AT = "expires_at"
