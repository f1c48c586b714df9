"""The configuration: one frozen section a stage, every default in this file.

    config = load_config("conf/local.yaml", ["neighbours.k=80", "clusters.rule=confidence"])

Order of precedence: defaults here < a YAML file < `--set section.key=value`. Unknown keys and values
out of range are refused when the config is loaded, all of them in one `ConfigError`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from faceclust_spark.config_values import merge, parse_override, read_yaml
from faceclust_spark.errors import ConfigError

Cosine = Annotated[float, Field(ge=-1.0, le=1.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]
Auto = Literal["auto"]


class Section(BaseModel):
    """A part of the config: immutable, and without room for unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class ColumnsConfig(Section):
    """Which column of the source holds what. Optional ones may be absent, unless named here."""

    image_id: str = "image_id"
    embedding: str = "embedding"
    attributes: str | None = "attributes"
    photo_id: str | None = "photo_id"
    quality: str | None = "quality"
    label: str | None = "label"
    embedding_model: str | None = "embedding_model"


class SynthConfig(Section):
    """A synthetic gallery. Noise is relative to the signal: 1 means noise as long as the person's centre."""

    faces: Annotated[int, Field(ge=10, le=10**9)] = 10_000  # rows, exactly
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0  # another seed, other people
    dimension: Annotated[int, Field(ge=8, le=4096)] = 128  # components of an embedding
    mean_identity_size: Annotated[float, Field(ge=1.0)] = 8.0  # faces a person
    identity_size_tail: Annotated[float, Field(gt=1.0, le=10.0)] = 1.8  # Pareto exponent; lower: longer
    largest_identity: Annotated[int, Field(ge=1, le=25_000)] = 2_000  # faces; or a quarter of the gallery
    noise: Annotated[float, Field(ge=0.0, le=10.0)] = 0.72  # length of a face's random part, at quality 0.7
    quality_effect: Annotated[float, Field(ge=0.0, le=5.0)] = 1.0  # noise grows e^this from quality 1 to 0
    person_spread: Annotated[float, Field(ge=0.0, le=2.0)] = 0.3  # s.d. of log noise between persons
    pose_noise: Annotated[float, Field(ge=0.0, le=10.0)] = 0.35  # s.d. along the person's pose direction
    age_noise: Annotated[float, Field(ge=0.0, le=10.0)] = 0.35  # s.d. along the person's age direction
    shared_variation: Share = 0.3  # cosine between the pose directions of two persons; of ages likewise
    blurred_share: Share = 0.08  # faces of quality below 0.25; the others average 0.7
    attractor_pull: Share = 0.58  # how far a face moves to the common attractor, at quality 0
    kin_share: Share = 0.3  # persons who belong to a family
    family_size: Annotated[int, Field(ge=2, le=100)] = 3  # persons of a family
    kin_cosine: Share = 0.65  # cosine between the centres of two members of a family
    burst_share: Share = 0.1  # faces that are near-duplicates of the person's face before, where it has one
    burst_cosine: Share = 0.95  # cosine of a near-duplicate with that face
    faces_per_photo: Annotated[float, Field(ge=1.0, le=50.0)] = 1.6  # of different persons
    embedding_norm: Annotated[float, Field(gt=0.0, le=1e6)] = 16.0  # median length of the raw vectors
    norm_spread: Annotated[float, Field(ge=0.0, le=1.0)] = 0.12  # s.d. of its logarithm
    attributes: Annotated[int, Field(ge=0, le=256)] = 12  # values of an attribute vector; 0: none
    attribute_noise: Annotated[float, Field(ge=0.0, le=10.0)] = 0.6  # an attribute's signal has length 1
    missing_attribute_share: Share = 0.02  # single values that are null

    @model_validator(mode="after")
    def _mean_is_reachable(self) -> Self:
        # Sizes are uniform in 1..largest at the most, where the law has no tail left.
        if self.mean_identity_size > (self.largest_identity + 1) / 2:
            raise ValueError(
                f"mean_identity_size {self.mean_identity_size:g} needs a largest_identity of at least "
                f"{2 * self.mean_identity_size - 1:g}, which is {self.largest_identity}"
            )
        return self


class IngestConfig(Section):
    """How a source is read and checked."""

    columns: ColumnsConfig = ColumnsConfig()  # their names in the source
    extra: tuple[str, ...] = ()  # further columns to keep with each face, to slice evaluations by
    embedding_model: str | None = None  # the model's name, for sources without such a column
    attribute_names: tuple[str, ...] | None = None  # in the order of the attribute vector
    max_quarantined_share: Share = 0.1  # more unusable rows stop the run
    statistics_sample: Positive = 100_000  # faces that attribute statistics are taken from


class CellsConfig(Section):
    """The k-means cells that divide the gallery for the search of neighbours."""

    cells: Positive | Auto = "auto"  # auto: 1 (exact) up to `exact_below` faces, then n / 50
    exact_below: Annotated[int, Field(ge=0)] = 20_000  # faces up to which search is exact, by `auto`
    sample_per_cell: Positive = 128  # faces a cell that k-means sees, up to a million in all
    iterations: Positive = 6  # of k-means
    seed: int = 0  # of k-means


class NeighboursConfig(Section):
    """The approximate search of each face's nearest neighbours."""

    k: Annotated[int, Field(ge=1, le=1_000)] = 40  # neighbours kept for each face
    floor: Cosine | Auto = "auto"  # lowest cosine kept; auto: from the distribution of random pairs
    probes: Positive = 10  # cells that a face visits: it meets all other visitors there
    largest_cell: Positive = 8_192  # visitors; of more, those near in the cell meet, if that saves half
    audit: Annotated[int, Field(ge=0)] = 0  # faces whose neighbours are checked by exact search


class CoarseGroupsConfig(Section):
    """Components of the neighbour graph at several first thresholds, and their size cap."""

    # cosines, the lowest makes the root groups; auto: from the distribution of random pairs
    thresholds: Annotated[tuple[Cosine, ...], Field(min_length=1)] | Auto = "auto"
    random_links: Annotated[float, Field(gt=0.0)] = 1.5  # auto: chance links a face at the lowest
    # auto: each threshold above the lowest, in s.d. of random pairs
    spread: Annotated[tuple[float, ...], Field(min_length=1)] = (0.0, 1.1, 2.2)
    # centre and spread of the cosines of two people's faces; auto: from the gallery, which needs two people
    random_pairs: tuple[Cosine, Annotated[float, Field(gt=0.0, le=1.0)]] | Auto = "auto"
    random_pairs_sample: Annotated[int, Field(ge=50)] = 2_000  # faces that random pairs come from
    max_size: Annotated[int, Field(ge=2)] = 300  # faces of a group, unless it grew from a large core
    core_growth: Annotated[float, Field(ge=1.0)] = 1.5  # a core may grow by this factor, beyond max_size too
    ladder_step: Annotated[float, Field(gt=0.0, le=0.5)] = 0.01  # in cosine, where too large a core is cut
    dense_cosine: Cosine | Auto = "auto"  # mean cosine that keeps a component whole; auto: lowest threshold
    max_forest_edges: Positive = 100_000_000  # that a task may hold, at 300 bytes each

    @field_validator("thresholds")
    @classmethod
    def _ascending(cls, value: tuple[float, ...] | Auto) -> tuple[float, ...] | Auto:
        if value == "auto":
            return value
        if len(set(value)) != len(value):
            raise ValueError("each threshold may be given once")
        return tuple(sorted(value))


class SimilaritiesConfig(Section):
    """The similarity matrices of a root group, and how face and attributes are fused.

    Fused matrices are what `literal` models see, and what is kept; others do not compare attributes.
    """

    fusion: Literal["weighted_sum", "product"] = "weighted_sum"  # of face and attribute similarity
    face_weight: Share = 0.9  # weighted_sum: of the face; the attributes have the rest
    keep: bool = False  # also store the matrices: half as many pairs a face as its root group has faces
    max_size: Annotated[int, Field(ge=2, le=5_000)] = 3_000  # larger root groups are not stored


class ConfidencesConfig(Section):
    """The graph convolution over each root group."""

    model: str = "default"  # or lfw_synthetic, shipped too; or the path of one that `train` wrote
    dense_size: Annotated[int, Field(ge=2)] = 200  # of larger groups, some pairs are scored in place of all
    block_neighbours: Positive = 64  # of those: each face with so many of its nearest members
    block_negatives: Positive = 32  # and with so many further ones, drawn
    pairs_per_task: Positive = 4_000_000  # scored at most, so that memory is bounded


class ClustersConfig(Section):
    """The re-clustering of root groups into clusters."""

    # by the refined similarities, or by the confidences alone (the patent's letter)
    rule: Literal["correlation", "confidence"] = "correlation"
    bias: Annotated[float, Field(ge=-20, le=20)] = 1.75  # in joining, log-odds speak for one person above it
    clip: Annotated[float, Field(gt=0, le=30)] = 4.0  # in joining no link counts for more than this
    # an image moves to another person's cluster that is nearer by more than this, in log-odds; null: none
    move_lead: Annotated[float, Field(ge=0, le=60)] | None = 1.5
    min_confidence: Share = 0.5  # rule `confidence`: a face below it leaves its group
    same_photo: Literal["apart", "allowed"] = "apart"  # two faces of one photo in one cluster


class RoundsConfig(Section):
    """Rounds over clusters as nodes, in which small ones may join larger ones, across coarse groups."""

    count: Annotated[int, Field(ge=0, le=10)] = 1  # rounds at most; 0: none
    largest_visitor: Annotated[int, Field(ge=1, le=64)] = 8  # faces of a cluster that may join another
    hosts: Annotated[int, Field(ge=1, le=64)] = 4  # larger clusters that a small one is compared with
    least_log_odds: Annotated[float, Field(ge=-20, le=20)] = 0.25  # of one person, to join


class EvaluateConfig(Section):
    """Comparison with labels."""

    slices: tuple[str, ...] = ()  # columns: each of their values is also evaluated by itself


class TrainConfig(Section):
    """Training of the graph convolution on a labelled gallery."""

    # what the network sees: relations only (any embedding), face features too, or face features only
    kind: Literal["relations", "bound", "literal"] = "relations"
    seed: int = 0  # of everything that is drawn
    steps: Positive = 1_500  # of the optimiser, at most
    half_steps: Positive = 600  # of each of two networks, whose clusters teach to join clusters
    join_steps: Positive = 1_500  # of what learns to join clusters from these
    learning_rate: Annotated[float, Field(gt=0.0)] = 3e-3  # the highest of its schedule
    draws: Positive = 3  # of each composition: of all images, of a random part, of one with noise, ...
    max_faces: Positive = 200_000  # of a gallery, in whole identities: the driver holds them all
    validation_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2  # of identities
    validate_every: Positive = 150  # steps
    patience: Positive = 4  # validations in a row clearly below the best before training stops
    layers: Annotated[int, Field(ge=1, le=8)] = 2  # graph convolutions
    hidden: Positive = 48  # features of an image in each


class SparkConfig(Section):
    """The session that is built where none exists. Does not change results."""

    master: str | None = None  # None: what spark-submit or SPARK_REMOTE says, else local[*]
    jars: str | None = None  # folder with Delta's jars, for machines without network
    driver_memory: str = "4g"  # local mode: driver and tasks share it; a third may be a source to be checked
    shuffle_partitions: Positive | Auto = "auto"  # auto: twice the cores of a local session
    # Galleries of up to so many faces are clustered in the driver's process, which Spark's tasks would keep
    # waiting; 0: never. auto: 200,000; on a local session up to 1,000,000, if half of the memory holds them.
    driver_faces: Annotated[int, Field(ge=0)] | Auto = "auto"
    settings: dict[str, str] = {}  # further ones, by their Spark names


class Config(Section):
    """Everything that a run can be told; see each section."""

    ingest: IngestConfig = IngestConfig()
    synth: SynthConfig = SynthConfig()
    cells: CellsConfig = CellsConfig()
    neighbours: NeighboursConfig = NeighboursConfig()
    coarse_groups: CoarseGroupsConfig = CoarseGroupsConfig()
    similarities: SimilaritiesConfig = SimilaritiesConfig()
    confidences: ConfidencesConfig = ConfidencesConfig()
    clusters: ClustersConfig = ClustersConfig()
    rounds: RoundsConfig = RoundsConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    train: TrainConfig = TrainConfig()
    spark: SparkConfig = SparkConfig()
    source: str | None = None  # path, URI or catalogue name of the gallery
    tables: str | None = None  # folder, URI or `catalog.schema` of the tables

    def hash(self) -> str:
        """Give a short hash of all that can change a result: everything but the session's settings."""
        content = self.model_dump(mode="json", exclude={"spark", "source", "tables"})
        canonical = json.dumps(content, sort_keys=True).encode()
        return hashlib.sha256(canonical).hexdigest()[:16]


def load_config(
    path: str | Path | None = None,
    overrides: Sequence[str] = (),
    values: Mapping[str, Any] | None = None,
) -> Config:
    """Build the config from defaults, a YAML file, nested values and `section.key=value` overrides.

    Raises ConfigError that lists every unknown key and every value out of range.
    """
    merged: dict[str, Any] = {}
    if path is not None:
        merge(merged, read_yaml(Path(path)))
    merge(merged, dict(values or {}))
    for override in overrides:
        merge(merged, parse_override(override))
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(_describe(error)) from None


def _describe(error: ValidationError) -> str:
    lines = []
    for fault in error.errors():
        place = ".".join(str(part) for part in fault["loc"] if not _is_branch(part))
        if fault["type"] == "extra_forbidden":
            lines.append(f"  {place}: unknown key; {_known_keys(fault['loc'])}")
        else:
            lines.append(f"  {place}: {fault['msg']} (found {fault['input']!r})")
    unique = list(dict.fromkeys(lines))
    return "the config has faults:\n" + "\n".join(unique)


def _is_branch(part: str | int) -> bool:
    """Tell whether pydantic named a branch of a union here, which means nothing to a user."""
    if not isinstance(part, str):
        return False
    return any(sign in part for sign in "[(|") or part == "literal" or part.startswith("constrained-")


def _known_keys(location: tuple[str | int, ...]) -> str:
    section: type[BaseModel] = Config
    for part in location[:-1]:
        annotation = section.model_fields[str(part)].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            break
        section = annotation
    return "known here: " + ", ".join(section.model_fields)
