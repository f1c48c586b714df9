import inspect
import re

import pytest

from faceclust_spark import errors
from faceclust_spark.errors import FaceclustError

CLASSES = {name: item for name, item in vars(errors).items() if inspect.isclass(item)}


def drawn():
    """Read the tree of the docstring: the parent of each name, and the exit codes."""
    parents, codes, path = {}, {}, []
    for line in errors.__doc__.splitlines():
        found = re.match(r"^([│├└─ ]*)([A-Z]\w+Error)\b(?:.*exit code (\d+))?", line)
        if not found:
            continue
        depth = len(found[1]) // 4
        path[depth:] = [found[2]]
        parents[found[2]] = path[depth - 1] if depth else None
        if found[3]:
            codes[found[2]] = int(found[3])
    return parents, codes


def test_the_hierarchy_is_as_drawn():
    parents, _ = drawn()
    assert set(parents) == set(CLASSES)
    for name, parent in parents.items():
        assert CLASSES[name].__bases__ == (Exception if parent is None else CLASSES[parent],)


def test_exit_codes_are_as_drawn_and_tell_kinds_apart():
    _, codes = drawn()
    assert len(set(codes.values())) == len(codes) == 3
    assert {name: CLASSES[name].exit_code for name in codes} == codes
    assert FaceclustError.exit_code not in {0, *codes.values()}


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_every_error_ends_like_its_kind(name):
    kinds = [CLASSES[kind] for kind in drawn()[1] if issubclass(CLASSES[name], CLASSES[kind])]
    assert [kind.exit_code for kind in kinds] == (
        [] if name == "FaceclustError" else [CLASSES[name].exit_code]
    )


def test_all_names_every_error_in_order():
    assert errors.__all__ == sorted(CLASSES)


@pytest.mark.parametrize("name", sorted(set(CLASSES) - {"FaceclustError"}))
def test_every_error_says_when_it_is_raised(name):
    assert CLASSES[name].__doc__.startswith("Raised when ")


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_the_message_is_what_was_given(name):
    with pytest.raises(FaceclustError) as error:
        raise CLASSES[name]("what, found, allowed, remedy")
    assert str(error.value) == "what, found, allowed, remedy"
