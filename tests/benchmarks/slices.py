"""Scores of our clusters by source, gender, age and quality of the images, with intervals.

    FACECLUST_DATA=FOLDER python tests/benchmarks/slices.py --model MODEL --half B

A half of the people of both real sets is clustered whole, by a model of the other half
(`train_shipped.py --half`), and each image's BCubed precision and recall are averaged over the images of a
slice. Intervals hold 95 % of 1,000 draws of as many people, with replacement: the people are the sample, not
their images. Gender, age and quality are outputs of other models, with their errors. The last line on stdout
is one JSON object.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from accuracy_faces import DEV_SETS, Faces, half, read_faces
from accuracy_scores import SIZES, bcubed_of_images
from common import say
from numpy.typing import NDArray
from options import parser_of_model

import faceclust_spark

AGES = {"below 25": (0, 25), "25 to 40": (25, 40), "40 to 60": (40, 60), "60 and more": (60, 200)}
_THIRDS = ("lowest", "middle", "highest")
_DRAWS = 1_000


class Interval(NamedTuple):
    """A figure, and the middle 95 % of it over draws of people."""

    value: float
    low: float
    high: float


def slices_of(faces: Faces, names: list[str]) -> dict[str, NDArray[np.bool_]]:
    """Give which images each slice holds. names: of the attributes, in their order."""
    attribute = dict(zip(names, faces.attributes.T, strict=True))
    male, age = attribute["gender_male_prob"], attribute["age_years"]
    found = {f"source {name}": faces.sources == name for name in np.unique(faces.sources.astype(str))}
    found |= {"gender female": male < 0.5, "gender male": male >= 0.5}
    found |= {f"age {name}": (age >= low) & (age < high) for name, (low, high) in AGES.items()}
    for what, values in (("sharpness", "blur_log_lapvar"), ("size of face", "log_interocular_px")):
        edges = np.nanquantile(attribute[values], (1 / 3, 2 / 3))
        third = np.where(np.isnan(attribute[values]), -1, np.searchsorted(edges, attribute[values]))
        found |= {
            f"{what}, {name} third": third == rank
            for rank, name in enumerate(("lowest", "middle", "highest"))
        }
    person = np.unique(faces.labels.astype(str), return_inverse=True)[1]
    size = np.bincount(person)[person]
    return found | {f"images a person {name}": (size >= a) & (size <= b) for name, (a, b) in SIZES.items()}


def score_slice(
    precision: NDArray[np.float64],
    recall: NDArray[np.float64],
    person: NDArray[np.int64],
    draws: NDArray[np.int64],
) -> dict[str, Interval]:
    """Give BCubed precision, recall and F over some images, with intervals.

    precision, recall, person: `(m,)`, of each image. draws: `(d, people)`, how often each person was drawn.
    """
    count = draws.shape[1]
    sums = np.stack(
        [np.bincount(person, values, count) for values in (np.ones(len(person)), precision, recall)]
    )
    images, hits, found = draws @ sums[0], draws @ sums[1], draws @ sums[2]
    drawn = images > 0
    p, r = hits[drawn] / images[drawn], found[drawn] / images[drawn]
    own = (precision.mean(), recall.mean())
    values = {"precision": (own[0], p), "recall": (own[1], r), "f": (_f(*own), _f(p, r))}
    return {
        name: Interval(float(value), *np.quantile(drawn_values, (0.025, 0.975)).tolist())
        for name, (value, drawn_values) in values.items()
    }


def _f(precision: Any, recall: Any) -> Any:
    return 2 * precision * recall / (precision + recall)


def measure(name: str, which: str, model: Path) -> list[dict[str, Any]]:
    """Cluster one half of one set; a row a slice."""
    faces = half(read_faces(name), which)
    config = faceclust_spark.load_config(values={"confidences": {"model": str(model)}})
    found = faceclust_spark.cluster(
        faces.embeddings, faces.attributes, config, image_ids=[str(image) for image in faces.image_ids]
    )
    precision, recall = bcubed_of_images(faces.labels.astype(str), found.labels)
    person = np.unique(faces.labels.astype(str), return_inverse=True)[1]
    people = int(person.max()) + 1
    draws = np.random.default_rng(0).multinomial(people, np.full(people, 1 / people), _DRAWS)
    names = json.loads((Path(os.environ["FACECLUST_DATA"]) / "attribute_names.json").read_text())
    parts = {"all": np.ones(len(person), bool)} | slices_of(faces, names)
    return [
        {
            "set": name,
            "slice": slice_name,
            "faces": int(rows.sum()),
            "people": len(np.unique(person[rows])),
            **score_slice(precision[rows], recall[rows], person[rows], draws),
        }
        for slice_name, rows in parts.items()
        if rows.any()
    ]


def describe(rows: list[dict[str, Any]]) -> str:
    """Give the rows as a table, as the model's card has it."""
    lines = ["| slice | images | people | BCubed F | precision | recall |", "|---|---|---|---|---|---|"]
    for row in rows:
        told = (
            f"{row[name].value:.3f} ({row[name].low:.3f} to {row[name].high:.3f})"
            for name in ("f", "precision", "recall")
        )
        lines.append(f"| {row['slice']} | {row['faces']:,} | {row['people']:,} | {' | '.join(told)} |")
    return "\n".join(lines)


def main() -> None:
    parser = parser_of_model(__doc__)
    parser.add_argument("--sets", type=lambda text: text.split(","), default=list(DEV_SETS))
    arguments = parser.parse_args()
    rows = []
    for name in arguments.sets:
        own = measure(name, arguments.half, arguments.model)
        say(f"{name}, half {arguments.half}\n{describe(own)}\n")
        rows += own
    values = [
        {key: list(part) if isinstance(part, Interval) else part for key, part in row.items()} for row in rows
    ]
    print(json.dumps({"results": values}))


if __name__ == "__main__":
    sys.exit(main())
