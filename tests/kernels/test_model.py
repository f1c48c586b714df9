import ast
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import faceclust_spark
from faceclust_spark.errors import ConfigError, ModelMismatchError
from faceclust_spark.kernels.calibration import AloneCalibration, Calibration
from faceclust_spark.kernels.graph_convolution import Network
from faceclust_spark.kernels.model import (
    CARD,
    FORMAT,
    WEIGHTS,
    Model,
    load_model,
    model_bytes,
    model_from_bytes,
    model_from_parts,
    save_model,
)

PACKAGE = Path(faceclust_spark.__file__).parent


def make_model(kind="relations", pair_inputs=5, **card):
    torch.manual_seed(3)
    arguments = {"inputs": 7, "pair_inputs": pair_inputs, "hidden": 8, "layers": 2}
    network = Network(**arguments)
    for buffer in network.buffers():
        buffer.copy_(torch.rand_like(buffer))
    return Model(network.eval(), {"format": FORMAT, "kind": kind, "network": arguments, **card})


def bound(attributes=None, name="arc", kind="bound"):
    return make_model(kind, embedding={"width": 128, "model": name}, attributes=attributes)


def assert_equal(one, other):
    assert dict(one.card) == dict(other.card)
    mine, theirs = one.network.state_dict(), other.network.state_dict()
    assert list(mine) == list(theirs)
    for key in mine:
        torch.testing.assert_close(mine[key], theirs[key], rtol=0, atol=0)


@pytest.mark.parametrize("pair_inputs", [5, 0])
def test_a_saved_model_comes_back(tmp_path, pair_inputs):
    model = make_model(pair_inputs=pair_inputs, data={"people": "Ä"})
    folder = tmp_path / "new" / "folder"
    save_model(model, folder)
    assert sorted(path.name for path in folder.iterdir()) == [CARD, WEIGHTS]
    loaded = load_model(str(folder))
    assert_equal(loaded, model)
    assert not loaded.network.training


def test_saving_again_replaces(tmp_path):
    save_model(make_model(note="first"), tmp_path)
    save_model(make_model(note="second"), tmp_path)
    assert load_model(str(tmp_path)).card["note"] == "second"


def test_equal_models_are_equal_files(tmp_path):
    for name in ("one", "other"):
        save_model(make_model(), tmp_path / name)
    for file in (CARD, WEIGHTS):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes()


def test_a_packed_model_comes_back():
    model = make_model(data={"people": "Ä"})
    packed = model_bytes(model)
    assert_equal(model_from_bytes(packed), model)
    assert packed == model_bytes(make_model(data={"people": "Ä"}))


def test_the_shipped_model_serves_any_embedding():
    model = load_model("default")
    assert model.kind == "relations"
    model.check(width=17, embedding_model="whatever", attributes=["a"])


@pytest.mark.parametrize("present", [[], [CARD], [WEIGHTS]])
def test_missing_files_are_all_named(tmp_path, present):
    for file in present:
        (tmp_path / file).write_bytes(b"")
    with pytest.raises(ConfigError) as error:
        load_model(str(tmp_path))
    for file in (CARD, WEIGHTS):
        assert (f"no {file}" in str(error.value)) == (file not in present)
    assert "give `default`, `lfw_synthetic`, or a folder that `faceclust train" in str(error.value)


def test_a_folder_that_is_not_there_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match="nowhere has no"):
        load_model(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("key", "value"), [("format", 99), ("format", None), ("kind", "magic"), ("kind", None)]
)
def test_other_formats_and_kinds_are_refused(tmp_path, key, value):
    save_model(make_model(**{key: value}) if key == "format" else make_model(value), tmp_path)
    with pytest.raises(ConfigError, match=re.escape(str(value))) as error:
        load_model(str(tmp_path))
    assert "train it again" in str(error.value)


def damage_card(folder):
    (folder / CARD).write_text("{not json", encoding="utf-8")


def list_card(folder):
    (folder / CARD).write_text("[1]", encoding="utf-8")


def drop_network(folder):
    card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    del card["network"]
    (folder / CARD).write_text(json.dumps(card), encoding="utf-8")


def widen_network(folder):
    card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    card["network"]["hidden"] = 9
    (folder / CARD).write_text(json.dumps(card), encoding="utf-8")


def halve_calibration_of_those_alone(folder):
    card = json.loads((folder / CARD).read_text())
    card["calibration_alone"] = {"constant": 1.0, "kind": 0.5}
    (folder / CARD).write_text(json.dumps(card))


def halve_calibration(folder):
    card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    card["calibration"] = {"constant": 1.0, "own": 0.5}
    (folder / CARD).write_text(json.dumps(card), encoding="utf-8")


def cut_weights(folder):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-20])


@pytest.mark.parametrize(
    "damage",
    [
        damage_card,
        list_card,
        drop_network,
        widen_network,
        halve_calibration,
        halve_calibration_of_those_alone,
        cut_weights,
    ],
)
def test_a_damaged_model_is_a_config_error_that_names_it(tmp_path, damage):
    save_model(make_model(), tmp_path)
    damage(tmp_path)
    with pytest.raises(ConfigError, match=re.escape(str(tmp_path))):
        load_model(str(tmp_path))


def test_a_calibration_travels_with_the_card(tmp_path):
    calibration, alone = Calibration(0.1, 0.2, 0.3, 1 / 3), AloneCalibration(0.1, 0.2, 1 / 7)
    made = make_model(calibration=calibration._asdict(), calibration_alone=alone._asdict())
    save_model(made, tmp_path)
    stored = load_model(str(tmp_path))
    for model in (stored, model_from_bytes(model_bytes(stored))):
        assert (model.calibration, model.alone) == (calibration, alone)
    assert (make_model().calibration, make_model().alone) == (None, None)


@pytest.mark.parametrize("kind", ["bound", "literal"])
def test_a_bound_model_accepts_what_it_was_trained_on(kind):
    model = bound(["age", "glasses"], kind=kind)
    model.check(128)
    model.check(128, "arc", ["age", "glasses"])
    model.check(128, None, None)
    bound(name=None).check(128, "anything", ["any"])


def test_every_mismatch_is_told_at_once():
    with pytest.raises(ModelMismatchError) as error:
        bound(["age", "glasses"]).check(512, "cos", ["glasses", "age"])
    message = str(error.value)
    for told in ("width 512", "width 128", "cos", "arc", "other attributes", "faceclust train", "default"):
        assert told in message


@pytest.mark.parametrize(
    ("arguments", "told"),
    [((127,), "width 127"), ((128, "cos"), "cos"), ((128, "arc", ["age"]), "attributes")],
)
def test_each_mismatch_alone_is_refused(arguments, told):
    with pytest.raises(ModelMismatchError, match=told):
        bound(["age", "glasses"]).check(*arguments)


def test_nothing_in_the_package_unpickles():
    sources = sorted(PACKAGE.rglob("*.py"))
    assert len(sources) > 20
    found = []
    for path in sources:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in getattr(node, "names", []) if isinstance(alias, ast.alias)]
            names.append(str(getattr(node, "module", "")))
            if isinstance(node, ast.Attribute):
                names.append(ast.unparse(node))
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                names.append(f"allow_pickle={ast.unparse(node.value)}")
            unsafe = r"(cloud)?pickle|dill|joblib|shelve|marshal|torch\.(load|save)|allow_pickle=(?!False$).*"
            found += [(path.name, name) for name in names if re.fullmatch(rf"({unsafe})(\..*)?", name)]
    assert not found


def test_files_hold_numbers_only(tmp_path):
    save_model(make_model(), tmp_path)
    weights = (tmp_path / WEIGHTS).read_bytes()
    header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    assert {entry["dtype"] for entry in header.values()} == {"F32"}
    count = sum(int(np.prod(entry["shape"])) for entry in header.values())
    assert count == sum(value.numel() for value in make_model().network.state_dict().values())


def test_parts_of_another_network_are_refused():
    model = make_model()
    weights = model_bytes(make_model(pair_inputs=0))
    length = int.from_bytes(weights[:8], "little")
    with pytest.raises(ConfigError, match="do not fit"):
        model_from_parts(weights[8 + length :], model.card)
