"""All benchmarks, one after the other: their tables on stderr, one JSON object on stdout.

    python tests/benchmarks/all.py                        # hours: galleries of up to 1,000,000 faces
    python tests/benchmarks/all.py --only growth,skew

Each runs with its own defaults, in its own process. In the JSON object each benchmark's own object stands in
`results`, with its name as `benchmark`; one that failed has `failed` instead, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from common import answer, say
from options import add_names

FOLDER = Path(__file__).parent
NAMES = ("knn", "overhead", "growth", "cores", "skew", "components", "refinement", "plan")


def run(name: str) -> dict[str, Any]:
    """Run one benchmark; gives the JSON object of its last line."""
    say(f"== {name}")
    start = time.perf_counter()
    ended = subprocess.run(
        [sys.executable, str(FOLDER / f"{name}.py")], stdout=subprocess.PIPE, text=True, check=False
    )
    say(f"== {name} took {(time.perf_counter() - start) / 60:.1f} min\n")
    if ended.returncode:
        return {"benchmark": name, "failed": f"exit code {ended.returncode}"}
    return {"benchmark": name, **json.loads(ended.stdout.strip().splitlines()[-1])}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_names(parser, "--only", "benchmark", NAMES)
    found = [run(name) for name in parser.parse_args().only]
    failed = [one["benchmark"] for one in found if "failed" in one]
    if failed:
        say(f"failed: {', '.join(failed)}")
    answer(found)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
