"""Errors that a user of faceclust_spark may meet.

FaceclustError
├── ConfigError            exit code 2: an unknown key, a value out of range, options that do not fit
├── DataError              exit code 3: the input cannot be used
│   ├── QuarantineError        more bad rows than the config allows
│   └── ModelMismatchError     the model was made for another embedding
└── InfrastructureError    exit code 4: Java, jars, storage, another run in the way
    ├── JavaError
    ├── DeltaUnavailableError
    ├── TableError
    ├── LeaseHeldError
    └── ResumeError

Every message says what is wrong, what was found, what is allowed, and what to do.
"""

from __future__ import annotations

__all__ = [
    "ConfigError",
    "DataError",
    "DeltaUnavailableError",
    "FaceclustError",
    "InfrastructureError",
    "JavaError",
    "LeaseHeldError",
    "ModelMismatchError",
    "QuarantineError",
    "ResumeError",
    "TableError",
]


class FaceclustError(Exception):
    """Base of every error that faceclust_spark raises on purpose."""

    exit_code = 1


class ConfigError(FaceclustError):
    """Raised when the configuration cannot be used; the message lists every fault found."""

    exit_code = 2


class DataError(FaceclustError):
    """Raised when the input cannot be used: a missing column, no usable face, no labels."""

    exit_code = 3


class QuarantineError(DataError):
    """Raised when the share of quarantined rows exceeds `ingest.max_quarantined_share`."""


class ModelMismatchError(DataError):
    """Raised when a bound model meets an embedding, or attributes, that it was not made for."""


class InfrastructureError(FaceclustError):
    """Raised when the surroundings fail: Java, jars, storage, concurrent runs."""

    exit_code = 4


class JavaError(InfrastructureError):
    """Raised when no suitable Java runtime is found, before Spark is started."""


class DeltaUnavailableError(InfrastructureError):
    """Raised when the session has no Delta Lake and its jars cannot be had."""


class TableError(InfrastructureError):
    """Raised when a table is missing, of another schema, or cannot be written."""


class LeaseHeldError(InfrastructureError):
    """Raised when another run holds the lease on the same tables."""


class ResumeError(InfrastructureError):
    """Raised when a run cannot be continued, because its config or its input has changed."""
