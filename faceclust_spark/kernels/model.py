"""A trained network with its card, stored as safetensors and JSON. Nothing is ever unpickled."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from faceclust_spark.errors import ConfigError, ModelMismatchError
from faceclust_spark.kernels.calibration import AloneCalibration, Calibration
from faceclust_spark.kernels.graph_convolution import Network
from faceclust_spark.kernels.joiner import Joiner
from faceclust_spark.kernels.recluster import NEEDS_PAIRS

WEIGHTS, CARD = "model.safetensors", "card.json"
SHIPPED = ("default", "lfw_synthetic")  # folders of the package
FORMAT = 5
_JOINER = "joiner."  # what the names of its weights start with
KINDS = ("relations", "bound", "literal")


@dataclass(frozen=True)
class Model:
    """A network, and the card that says what it is, what it was made of and for.

    The card's `network` holds the network's arguments, `kind` one of KINDS; a bound or literal
    model's `embedding` holds width and, where known, name, and `attributes` their names.
    """

    network: Network
    card: Mapping[str, Any]
    joiner: Joiner | None = None  # a literal model has none: it takes no part in rounds

    @property
    def calibration(self) -> Calibration | None:
        """Give what a member's confidence means, where the training could tell."""
        weights = self.card.get("calibration")
        return Calibration(**weights) if weights else None

    @property
    def alone(self) -> AloneCalibration | None:
        """Give what the confidence of an image alone means after the rounds, where the training told."""
        weights = self.card.get("calibration_alone")
        return AloneCalibration(**weights) if weights else None

    @property
    def kind(self) -> str:
        """Give what the network sees: relations only, face features too, or face features only."""
        return str(self.card["kind"])

    def check(
        self, width: int, embedding_model: str | None = None, attributes: Sequence[str] | None = None
    ) -> None:
        """Raise ModelMismatchError where a model bound to an embedding meets another one."""
        if self.kind == "relations":
            return
        faults = []
        own = self.card["embedding"]
        if own["width"] != width:
            faults.append(f"embeddings of width {width}; it was trained on width {own['width']}")
        if own.get("model") and embedding_model and own["model"] != embedding_model:
            faults.append(f"embeddings of {embedding_model}; it was trained on those of {own['model']}")
        names = self.card.get("attributes")
        if names and attributes and list(names) != list(attributes):
            faults.append("other attributes, or in another order, than it was trained on")
        if faults:
            raise ModelMismatchError(
                f"this {self.kind} model is bound to its embedding and met "
                + "; ".join(faults)
                + ". Train one on these embeddings (faceclust train), or use confidences.model=default"
            )

    def check_rule(self, rule: str) -> None:
        """Raise ConfigError where the rule of re-clustering needs what this model does not give."""
        if rule == "correlation" and self.network.pair is None:
            raise ConfigError(NEEDS_PAIRS)


def load_model(name: str) -> Model:
    """Load a shipped model (`default`, `lfw_synthetic`) or one from the folder that `train` wrote.

    Raises ConfigError where there is none, or where its files are damaged.
    """
    path = resources.files("faceclust_spark") / "models" / name if name in SHIPPED else Path(name)
    missing = [file for file in (WEIGHTS, CARD) if not (path / file).is_file()]
    if missing:
        raise ConfigError(
            f"confidences.model: {name} has no {' and no '.join(missing)}; give `{'`, `'.join(SHIPPED)}`, or "
            "a folder that `faceclust train --model FOLDER` wrote"
        )
    try:
        card = json.loads((path / CARD).read_text(encoding="utf-8"))
        return model_from_parts((path / WEIGHTS).read_bytes(), card)
    except (ConfigError, ValueError) as error:
        raise ConfigError(f"confidences.model: {name} cannot be used: {error}") from None


def save_model(model: Model, folder: Path) -> None:
    """Write weights and card into a folder, which is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).write_bytes(_weights(model))
    (folder / CARD).write_text(json.dumps(model.card, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def model_bytes(model: Model) -> bytes:
    """Pack a model for the way to the executors: length of the card, card, weights."""
    card = json.dumps(model.card, sort_keys=True).encode("utf-8")
    return struct.pack("<q", len(card)) + card + _weights(model)


def model_from_bytes(packed: bytes) -> Model:
    """Unpack what `model_bytes` gives."""
    (length,) = struct.unpack_from("<q", packed)
    return model_from_parts(packed[8 + length :], json.loads(packed[8 : 8 + length]))


def model_from_parts(weights: bytes, card: Mapping[str, Any]) -> Model:
    """Build the network that the card describes and fill in its weights."""
    own_format, kind = (card.get(key) if isinstance(card, Mapping) else None for key in ("format", "kind"))
    if own_format != FORMAT or kind not in KINDS:
        raise ConfigError(
            f"the model is of format {own_format}, kind {kind!r}; this version reads format {FORMAT}, kinds "
            f"{', '.join(KINDS)}: train it again"
        )
    try:
        network, tensors = Network(**card["network"]), load_tensors(weights)
        own = {name: tensor for name, tensor in tensors.items() if not name.startswith(_JOINER)}
        network.load_state_dict(own)
        if card.get("calibration"):
            Calibration(**card["calibration"])
        if card.get("calibration_alone"):
            AloneCalibration(**card["calibration_alone"])
        joiner = Joiner(**card["joiner"]) if card.get("joiner") else None
        if joiner is not None:
            joining = {name: tensor for name, tensor in tensors.items() if name.startswith(_JOINER)}
            joiner.load_state_dict({name[len(_JOINER) :]: tensor for name, tensor in joining.items()})
            joiner.eval()
    # What is missing in the card, or does not fit it; and what is no safetensors file.
    except (KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:150]
        raise ConfigError(f"{WEIGHTS} and {CARD} do not fit each other ({reason}): train it again") from None
    network.eval()
    return Model(network, card, joiner)


def _weights(model: Model) -> bytes:
    tensors = dict(model.network.state_dict())
    if model.joiner is not None:
        tensors |= {_JOINER + name: tensor for name, tensor in model.joiner.state_dict().items()}
    return bytes(save_tensors({name: tensor.contiguous() for name, tensor in tensors.items()}))
