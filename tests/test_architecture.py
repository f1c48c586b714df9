"""The rules that hold the parts apart, read from the imports and calls of the source itself."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import LONGEST

from faceclust_spark.config import Config, Section

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "faceclust_spark"
MODULES = sorted(PACKAGE.rglob("*.py"))
DATAFRAMES = {"pyspark", "pandas", "pyarrow", "delta", "polars"}


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}


def _running_code(node: ast.AST, in_functions: bool = True) -> Iterator[ast.AST]:
    """Give the nodes that run: all but those under TYPE_CHECKING, and on wish but function bodies."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        if not in_functions and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        yield child
        yield from _running_code(child, in_functions)


def _imports(module: str, in_functions: bool = True) -> set[str]:
    """Give the full names that a module imports: modules, and names out of modules."""
    found = set()
    for node in _running_code(TREES[module], in_functions):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _reached(module: str, in_functions: bool = True) -> set[str]:
    """Give everything that is imported by a module, by what it imports, and so on."""
    reached, waiting = set(), [module]
    while waiting:
        for name in _imports(waiting.pop(), in_functions) - reached:
            reached.add(name)
            home = name if name in TREES else name.rpartition(".")[0]
            if home in TREES and home not in reached:
                reached.add(home)
                waiting.append(home)
    return reached


def _tops(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def _of(*places: str) -> list[str]:
    return [m for m in TREES if any(f"{m}.".startswith(f"faceclust_spark.{place}.") for place in places)]


def _attributes(module: str) -> set[str]:
    return {node.attr for node in ast.walk(TREES[module]) if isinstance(node, ast.Attribute)}


@pytest.mark.parametrize("module", _of("kernels"))
def test_kernels_know_arrays_only(module):
    reached = _reached(module)
    assert not _tops(reached) & DATAFRAMES
    own = {name for name in reached if name.startswith("faceclust_spark")}
    assert not [n for n in own if not n.startswith(("faceclust_spark.kernels", *_foundations()))]


def _foundations() -> tuple[str, ...]:
    return ("faceclust_spark.config", "faceclust_spark.errors")


# Who may import whom: each layer those before it, and itself.
LAYERS = (
    ("config", "config_values", "errors", "log", "options"),
    ("kernels", "java", "prepared", "failures", "interrupts"),
    (
        "arrow",
        "local",
        "training",
        "views.explanation",
        "tables.columns",
        "tables.schemas",
        "tables.scratch",
        "tables.delta_log",
    ),
    ("views.pictures", "views.group_view"),
    ("views.group_pictures",),
    ("session_settings",),
    ("stages", "session", "running.driver_limit"),
    (
        "tables.fitting",
        "tables.storage",
        "tables.ledger",
        "tables.lease",
        "tables.maintenance",
        "views.evidence",
        "report",
    ),
    ("planning",),
    ("running.held",),
    ("running.run_state",),
    ("running.driver_ingest", "running.driver_steps", "running.mending"),
    ("running.steps",),
    ("pipeline",),
    ("verbs",),
    ("command", "prepare"),
    ("cli",),
)


@pytest.mark.parametrize("rank", range(len(LAYERS)))
def test_imports_point_one_way(rank):
    above = tuple(f"faceclust_spark.{place}" for layer in LAYERS[rank + 1 :] for place in layer)
    for module in _of(*LAYERS[rank]):
        wrong = [name for name in _imports(module) if f"{name}.".startswith(tuple(f"{a}." for a in above))]
        assert not wrong, f"{module} imports {wrong}"


def test_every_module_has_a_layer():
    placed = {module for layer in LAYERS for module in _of(*layer)}
    rooms = {f"faceclust_spark.{room}" for room in ("kernels", "running", "stages", "tables", "views")}
    assert set(TREES) - placed - rooms == {"faceclust_spark"}


@pytest.mark.parametrize("module", _of("stages"))
def test_stages_do_not_write(module):
    assert not _attributes(module) & {"write", "writeTo", "saveAsTable", "insertInto", "save"}
    assert not [name for name in _reached(module) if name.startswith("faceclust_spark.tables.storage")]


@pytest.mark.parametrize(
    "module", [f"faceclust_spark.{name}" for name in ("local", "views.group_view", "views.group_pictures")]
)
def test_arrays_are_clustered_and_drawn_without_spark(module):
    assert not _tops(_reached(module)) & {"pyspark", "delta"}


@pytest.mark.parametrize("module", ["faceclust_spark", "faceclust_spark.cli"])
def test_the_first_import_is_light(module):
    assert not _tops(_reached(module, in_functions=False)) & {*DATAFRAMES, "torch", "numba", "faiss"}


def test_importing_the_package_loads_neither_spark_nor_torch():
    code = (
        "import sys, faceclust_spark, faceclust_spark.cli, faceclust_spark.config\n"
        "heavy = {'pyspark', 'torch', 'numba', 'faiss', 'pandas', 'pyarrow'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.stderr == ""


DATAFRAME_MODULES = _of("stages", "tables", "running", "pipeline", "verbs", "views.evidence")
FORBIDDEN = {
    "rdd": "not on Spark Connect",
    "sparkContext": "not on Spark Connect",
    "_sc": "not on Spark Connect",
    "_jvm": "not on Spark Connect",
    "_jsc": "not on Spark Connect",
    "_jdf": "not on Spark Connect",
    "checkpoint": "fails on a session that we did not set up; use `materialise`",
    "localCheckpoint": "lost with an executor; use `materialise`",
    "cache": "what is used twice is a table; use `materialise`",
    "persist": "what is used twice is a table; use `materialise`",
    "toPandas": "use `toArrow`",
    "collect": "use `toArrow`, and only for small results",
    "udf": "row by row; use `mapInArrow`",
    "monotonically_increasing_id": "depends on partitions",
    "spark_partition_id": "depends on partitions",
}


@pytest.mark.parametrize(
    "module",
    [*DATAFRAME_MODULES, *_of("session", "report", "planning")],
)
def test_dataframes_are_used_as_every_platform_allows(module):
    found = {attribute: FORBIDDEN[attribute] for attribute in _attributes(module) & set(FORBIDDEN)}
    assert not found


def test_sessions_are_built_in_one_place():
    builders = {
        module
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "SparkSession.builder"
    }
    assert builders == {"faceclust_spark.session"}


def _config_keys(section: type[Section] = Config) -> set[str]:
    keys = set()
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            keys |= _config_keys(field.annotation)
        else:
            keys.add(name)
    return keys


@pytest.mark.parametrize(
    "module", _of("kernels", "stages", "running", "pipeline", "verbs", "local", "training")
)
def test_a_default_stands_in_the_config_only(module):
    keys, repeated = _config_keys(), []
    for node in ast.walk(TREES[module]):
        if not isinstance(node, ast.FunctionDef):
            continue
        arguments = node.args
        positional = [*arguments.posonlyargs, *arguments.args]
        defaults = [*zip(reversed(positional), reversed(arguments.defaults), strict=False)]
        defaults += zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        repeated += [
            f"{node.name}({argument.arg})"
            for argument, value in defaults
            if argument.arg in keys and value is not None and ast.unparse(value) != "None"
        ]
    assert not repeated


def _column_names() -> set[str]:
    tree = TREES["faceclust_spark.tables.columns"]
    return {ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)}


@pytest.mark.parametrize("module", DATAFRAME_MODULES)
def test_column_names_are_written_once(module):
    if module == "faceclust_spark.tables.columns":
        names = [ast.unparse(n.value) for n in TREES[module].body if isinstance(n, ast.Assign)]
        assert len(names) == len(set(names))
        return
    # Names of one word are words of other sentences as well: `source`, `version`.
    compound = {name for name in _column_names() if "_" in name}
    literals = {n.value for n in ast.walk(TREES[module]) if isinstance(n, ast.Constant)}
    assert not {value for value in literals if isinstance(value, str)} & compound


def test_the_longest_test_files_are_there_under_their_names():
    assert set(LONGEST) <= {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
