import inspect
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from faceclust_spark import config as module
from faceclust_spark.config import Config, Section, load_config
from faceclust_spark.config_values import read_yaml
from faceclust_spark.errors import ConfigError

CONF = Path(__file__).parents[1] / "conf"
SECTIONS = {
    name: item for name, item in vars(module).items() if inspect.isclass(item) and issubclass(item, Section)
}


def write(folder, text):
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def faults(*overrides, path=None):
    with pytest.raises(ConfigError) as error:
        load_config(path, overrides)
    return str(error.value)


def test_without_anything_there_are_the_defaults():
    assert load_config() == Config()


def test_later_sources_overrule_earlier_ones(tmp_path):
    path = write(tmp_path, "neighbours: {k: 50, probes: 5, floor: 0.1}\nclusters: {bias: 1}\n")
    values = {"neighbours": {"k": 60, "probes": 6}}
    loaded = load_config(path, ["neighbours.k=70", "neighbours.audit=7", "neighbours.k=71"], values)
    own = loaded.neighbours
    assert (own.k, own.probes, own.floor, own.audit) == (71, 6, 0.1, 7)
    assert loaded.clusters.bias == 1
    assert loaded.clusters.clip == Config().clusters.clip
    assert load_config(path).neighbours.k == 50


def test_sources_are_left_as_they_were():
    values = {"neighbours": {"k": 60}}
    load_config(None, ["neighbours.k=70"], values)
    assert values == {"neighbours": {"k": 60}}


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("neighbours.floor=0.3", lambda c: c.neighbours.floor == 0.3),
        ("neighbours.floor=auto", lambda c: c.neighbours.floor == "auto"),
        ("coarse_groups.thresholds=[0.5, 0.3]", lambda c: c.coarse_groups.thresholds == (0.3, 0.5)),
        ("ingest.columns.quality=null", lambda c: c.ingest.columns.quality is None),
        ("clusters.move_lead=null", lambda c: c.clusters.move_lead is None),
        ("source=s3://a/b=c", lambda c: c.source == "s3://a/b=c"),
        ("ingest.extra=[source, camera]", lambda c: c.ingest.extra == ("source", "camera")),
        (" clusters.rule = confidence", lambda c: c.clusters.rule == "confidence"),
        ("spark.settings={spark.a.b: '1'}", lambda c: c.spark.settings == {"spark.a.b": "1"}),
    ],
)
def test_overrides_are_yaml(override, found):
    assert found(load_config(None, [override]))


@pytest.mark.parametrize("override", ["neighbours.k", "=5", " =5", ""])
def test_overrides_without_key_or_value_are_refused(override):
    assert "expected section.key=value" in faults(override)


def test_an_override_that_is_no_yaml_is_refused():
    assert "quote it" in faults("neighbours.k=[1")


@pytest.mark.parametrize(
    ("key", "known"),
    [
        ("nonsense=1", "neighbours, coarse_groups"),
        ("neighbours.kk=1", "known here: k, floor, probes, largest_cell, audit"),
        ("ingest.columns.face=x", "known here: image_id, embedding"),
    ],
)
def test_unknown_keys_are_refused_with_those_that_are_known(key, known):
    message = faults(key)
    assert f"{key.partition('=')[0]}: unknown key" in message
    assert known in message


OUT_OF_RANGE = [
    "neighbours.k=0",
    "neighbours.k=80.5",
    "neighbours.floor=1.01",
    "neighbours.floor=low",
    "cells.cells=0",
    "coarse_groups.thresholds=[]",
    "coarse_groups.thresholds=[0.3, 2]",
    "coarse_groups.thresholds=[0.5, 0.5]",
    "coarse_groups.spread=[]",
    "coarse_groups.core_growth=.inf",
    "coarse_groups.random_links=.nan",
    "coarse_groups.max_size=1",
    "similarities.fusion=sum",
    "similarities.face_weight=-0.1",
    "clusters.rule=magic",
    "clusters.clip=0",
    "clusters.move_lead=-1",
    "train.validation_share=1",
    "train.layers=0",
    "ingest.max_quarantined_share=nan",
    "spark.shuffle_partitions=none",
]


@pytest.mark.parametrize("override", OUT_OF_RANGE)
def test_values_out_of_range_are_refused(override):
    message = faults(override)
    key = override.partition("=")[0]
    lines = message.splitlines()[1:]
    assert lines and all(re.match(rf"  {re.escape(key)}(\.\d+)?: .*found", line) for line in lines), message


def test_all_faults_are_told_at_once(tmp_path):
    path = write(tmp_path, "neighbours: {k: 0, kk: 1}\nmagic: {}\n")
    message = faults(*OUT_OF_RANGE, path=path)
    for key in {override.partition("=")[0] for override in OUT_OF_RANGE} | {"neighbours.kk", "magic"}:
        assert f"  {key}" in message
    assert len(message.splitlines()) == len(set(message.splitlines()))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("neighbours: {k: [1}", "is not valid YAML"),
        ("- neighbours", "holds a list; expected sections such as `neighbours:`"),
        ("40", "holds a int"),
        ("neighbours: 5", "neighbours: "),
        ("1: {k: 3}", "1: "),
    ],
)
def test_files_that_are_no_config_are_refused(tmp_path, text, told):
    assert told in faults(path=write(tmp_path, text))


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "absent.yaml"
    assert f"cannot read the config file {path}: No such file" in faults(path=path)
    path.write_bytes(b"neighbours: \xff\xfe")
    assert f"{path} is not UTF-8 text" in faults(path=path)


def test_yaml_makes_no_objects(tmp_path):
    path = write(tmp_path, "source: !!python/object/apply:os.getcwd []\n")
    assert "is not valid YAML" in faults(path=path)


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_an_empty_file_changes_nothing(tmp_path, text):
    assert load_config(write(tmp_path, text)) == Config()


def test_the_hash_is_of_what_can_change_a_result():
    base = load_config().hash()
    assert re.fullmatch("[0-9a-f]{16}", base)
    same = [
        "spark.driver_memory=9g",
        "spark.shuffle_partitions=7",
        "source=a",
        "tables=b",
        "clusters.bias=1.750",
    ]
    for override in [*same, "neighbours.k=40", "similarities.face_weight=0.9"]:
        assert load_config(None, [override]).hash() == base, override
    others = [
        load_config(None, [override]).hash()
        for override in (
            "neighbours.k=41",
            "clusters.bias=0",
            "confidences.model=x",
            "coarse_groups.thresholds=[0.4]",
        )
    ]
    assert len({base, *others}) == 5


def test_the_hash_does_not_depend_on_how_a_value_was_given(tmp_path):
    path = write(tmp_path, "coarse_groups:\n  thresholds: [0.5, 0.3]\n")
    assert load_config(path).hash() == load_config(None, ["coarse_groups.thresholds=[0.3,0.5]"]).hash()


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_files_load_and_hold_differences_only(path):
    loaded, defaults = load_config(path), Config()
    assert loaded != defaults
    given = read_yaml(path)
    for section, keys in given.items():
        for key in keys:
            own, default = getattr(getattr(loaded, section), key), getattr(getattr(defaults, section), key)
            assert own != default, f"{section}.{key} repeats the default"


@pytest.mark.parametrize(
    "section", [s for s in SECTIONS.values() if s is not Section], ids=lambda s: s.__name__
)
def test_a_section_cannot_be_changed(section):
    name = next(iter(section.model_fields))
    made = section()
    with pytest.raises(ValidationError):
        setattr(made, name, getattr(made, name))
    with pytest.raises(ValidationError):
        section(surely_unknown=1)


# Their docstrings tell what all of their keys mean.
BY_DOCSTRING = {"Section", "Config", "ColumnsConfig", "SynthConfig"}


@pytest.mark.parametrize("name", sorted(SECTIONS))
def test_every_key_is_explained(name):
    section = SECTIONS[name]
    assert section.__doc__
    if name in BY_DOCSTRING:
        return
    lines = inspect.getsource(section).splitlines()
    for key in section.model_fields:
        place = next(at for at, line in enumerate(lines) if re.match(rf"    {key}: ", line))
        assert "  # " in lines[place] or lines[place - 1].strip().startswith("# "), f"{name}.{key}"
