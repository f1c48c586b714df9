"""Options that several benchmarks have, and how their values are read."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from pathlib import Path


def add_names(parser: argparse.ArgumentParser, option: str, what: str, known: Collection[str]) -> None:
    """Add an option that takes some of what is known, such as `infomap,fc_es`, and all by default.

    what: one of them, in the singular, as a refusal calls it.
    """

    def read(text: str) -> list[str]:
        found = [name for name in text.split(",") if name]
        unknown = [name for name in found if name not in known]
        if unknown or not found:
            raise argparse.ArgumentTypeError(
                f"no {what} {', '.join(unknown) or repr(text)}: there are {', '.join(known)}"
            )
        return found

    parser.add_argument(option, type=read, default=list(known), help=",".join(known))


def parser_of_model(description: str | None) -> argparse.ArgumentParser:
    """Give a parser with the options of what scores a model of one half of the people on the other."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="folder of a model of the other half")
    parser.add_argument("--half", choices="AB", default="B", help="of the people, to be scored; default B")
    return parser


def numbers(text: str) -> list[int]:
    """Read an option such as `200000,1000000`."""
    try:
        found = [int(part.replace("_", "")) for part in text.split(",") if part]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected numbers such as 200000,1000000") from None
    if not found or min(found) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected at least one number, all above 0")
    return found


def make_parser(description: str | None, faces: str) -> argparse.ArgumentParser:
    """Give a parser with the options of every benchmark that runs the pipeline."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faces", type=numbers, default=numbers(faces), help=f"sizes; default {faces}")
    parser.add_argument("--dimension", type=int, default=256, help="of an embedding; default 256")
    parser.add_argument("--driver-memory", default="4g", help="heap of the driver; default 4g")
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE",
        help="a setting of the pipeline, as of `faceclust run`",
    )  # fmt: skip
    return parser
