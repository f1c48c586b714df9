"""A plan as text: for the screen, and as a config file."""

from __future__ import annotations

from faceclust_spark.planning.choices import to_yaml
from faceclust_spark.planning.plan import Plan

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def describe_plan(plan: Plan) -> str:
    """Give what a run will take, stage by stage, and the settings with their reasons."""
    counts = plan.counts
    lines = [*heading(plan), ""]
    lines.append(f"{'stage':<15}{'time':>10}{'shuffle':>12}{'a task holds':>15}")
    for stage in plan.stages:
        held = size_of(stage.task_bytes) if stage.task_bytes else "-"
        moved = size_of(stage.shuffle_bytes) if stage.shuffle_bytes else "-"
        lines.append(f"{stage.stage:<15}{time_of(stage.seconds):>10}{moved:>12}{held:>15}")
    moved = size_of(sum(stage.shuffle_bytes for stage in plan.stages))
    lines += [
        f"{'all':<15}{time_of(plan.seconds):>10}{moved:>12}",
        "",
        f"thresholds      {', '.join(f'{level:.3f}' for level in plan.thresholds)}; floor {plan.floor:.3f}",
        f"search          {counts.cells:,} cells, {counts.shards:,} shards, {counts.visits:.1f} visits a "
        f"face, {counts.compared:.2g} pairs compared",
        f"root groups     {plan.pairs_per_face:.0f} pairs a face, {counts.refined:.2g} in all; the largest "
        f"group about {plan.largest_group:,} faces",
        f"tables          {size_of(sum(plan.tables.values()))}: "
        + ", ".join(f"{name} {size_of(size)}" for name, size in _largest(plan)),
        "",
        "settings",
    ]
    lines += [f"  {c.section}.{c.key} = {c.value}: {c.reason}" for c in plan.choices]
    return "\n".join(lines)


def plan_file(plan: Plan) -> str:
    """Give the plan as a config file for `faceclust run --config`, with the reasons as comments."""
    return to_yaml(plan.config, plan.choices, heading(plan))


def heading(plan: Plan) -> list[str]:
    """Say what was planned, from what, and by which assumptions."""
    lines = [
        f"{plan.faces:,} faces on {plan.cores:,} cores: {time_of(plan.seconds)}, "
        f"{size_of(sum(plan.tables.values()))} of tables",
        f"from {plan.sampled:,} of {plan.source_rows:,} faces, with this machine's speed for each core; "
        "what Spark adds is a rough estimate",
    ]
    if plan.faces <= plan.driver_faces:
        lines.append(
            f"no more than spark.driver_faces = {plan.driver_faces:,} faces: "
            f"{'' if plan.checked_in_driver else 'after ingest '}the driver works by itself, on its own cores"
        )
    if plan.faces > plan.source_rows:
        lines.append("the larger gallery is taken to hold more people, each with as many faces as here")
    return lines


def size_of(size: float) -> str:
    """Give a number of bytes to three digits."""
    for unit in _UNITS[:-1]:
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} {_UNITS[-1]}"


def time_of(seconds: float) -> str:
    """Give a time in the unit that suits it."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _largest(plan: Plan) -> list[tuple[str, float]]:
    return sorted(plan.tables.items(), key=lambda entry: -entry[1])[:4]
