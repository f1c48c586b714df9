"""Where values of the config come from: YAML files, and overrides of the command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from faceclust_spark.errors import ConfigError


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a config file: a mapping of sections, empty for an empty file. Raises ConfigError."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the config file {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds a {type(content).__name__}; expected sections such as `neighbours:`")
    return content


def parse_override(override: str) -> dict[str, Any]:
    """Give `section.key=value` as nested values; the value is YAML. Raises ConfigError."""
    name, separator, text = override.partition("=")
    if not separator or not name.strip():
        raise ConfigError(f"--set {override!r}: expected section.key=value, such as neighbours.k=80")
    try:
        nested: Any = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"--set {override!r}: the value is not valid YAML; quote it") from None
    for key in reversed(name.strip().split(".")):
        nested = {key: nested}
    return dict(nested)


def merge(target: dict[str, Any], addition: Mapping[str, Any]) -> None:
    """Put nested values over those that are there, key by key. In place."""
    for key, value in addition.items():
        present = target.get(key)
        if isinstance(present, dict) and isinstance(value, Mapping):
            merge(present, value)
        else:
            target[key] = dict(value) if isinstance(value, Mapping) else value
