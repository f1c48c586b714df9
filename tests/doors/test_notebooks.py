"""Every notebook is executed as a user would, and holds neither outputs nor definitions."""

import ast
import re
import sys

import nbformat
import polars
import pytest
from commands import ROOT
from ipykernel.kernelspec import write_kernel_spec
from matplotlib import pyplot
from nbclient import NotebookClient

from faceclust_spark.config import SynthConfig
from faceclust_spark.kernels.synth import draw_gallery

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SECONDS = 600  # for one cell on a busy machine; the whole tour takes a minute on an idle one
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
ABSOLUTE = re.compile(r"(?:^|[\s\"'`(=])(?:file:/|~?/\w|[A-Za-z]:\\)")


def read(path):
    return nbformat.read(path, as_version=4)


def code_of(notebook):
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=lambda path: path.stem)
def executed(request, tmp_path_factory):
    """The name of a notebook, and its outputs from a fresh kernel of this very Python in an empty folder."""
    folder = tmp_path_factory.mktemp(request.param.stem)
    write_kernel_spec(folder / "jupyter" / "kernels" / "python3")
    notebook = read(request.param)
    notebook.cells.append(nbformat.v4.new_code_cell("import sys; print(sys.executable)"))
    place = folder / "work"
    place.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(folder / "jupyter"))
        patch.setenv("TMPDIR", str(folder))
        patch.delenv("MPLBACKEND", raising=False)
        client = NotebookClient(
            notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": str(place)}}
        )
        client.execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return request.param.stem, outputs, place


def test_there_is_a_tour():
    assert "tour" in [path.stem for path in NOTEBOOKS]


def test_notebooks_run_by_themselves(executed):
    _, outputs, place = executed
    assert outputs[-1].text.strip() == sys.executable
    assert list(place.iterdir()) == [], "a notebook leaves nothing where its user stands"


def test_the_tour_shows_what_it_says(executed):
    name, outputs, _ = executed
    if name != "tour":
        pytest.skip("about the tour only")
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    texts = "\n".join(output.get("data", {}).get("text/plain", "") for output in outputs)
    printed = "\n".join(output.get("text", "") for output in outputs)
    assert len(pictures) == 5
    assert re.search(r"same .*│ 1\.0 ", texts, re.DOTALL), "Spark gives the clusters of the process"
    assert "null_embedding" in texts
    assert "by quality_band" in printed
    assert "Together:" in printed
    assert "Apart:" in printed


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_as_the_repository_keeps_them(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        assert cell.id
        assert not ABSOLUTE.search(cell.source), cell.source
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
            assert not [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, DEFINITIONS)]


def test_absolute_paths_are_recognised():
    for text in ('"/home/me/x"', "`~/x`", "open('C:\\\\x')", "(/data/y)", "file:///x"):
        assert ABSOLUTE.search(text), text
    for text in ("../README.md", 'folder / "x"', 'f"{tables}/runs"', "n / d", "https://x.org/y", "[a](../b)"):
        assert not ABSOLUTE.search(text), text


def test_the_tour_takes_a_gallery_of_ones_own(tmp_path, monkeypatch):
    """Lists instead of arrays of fixed width, neither labels nor photos nor attributes; up to Spark."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    faces = draw_gallery(SynthConfig(faces=60, dimension=32))
    own = {"image_id": faces.image_ids.tolist(), "embedding": faces.embeddings.tolist()}
    polars.DataFrame(own).write_parquet(tmp_path / "own.parquet")
    before = pyplot.get_backend()
    pyplot.switch_backend("agg")
    names = {}
    for code in code_of(read(NOTEBOOKS[0].parent / "tour.ipynb")):
        if "get_session" in code:
            break
        exec(code.replace("source = None", f"source = {str(tmp_path / 'own.parquet')!r}"), names)
    assert len(pyplot.get_fignums()) == 2
    pyplot.close("all")
    pyplot.switch_backend(before)
    assert len(names["found"].labels) == 60
