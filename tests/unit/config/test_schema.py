"""The JSON schema of study files."""

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from batchscape.errors import UserError
from batchscape.study.study import Study
from tests.helpers.study_files import EACH_KIND, KINDS, SELECTOR, keys_of, of_kind

SCHEMA = Draft202012Validator(json.loads((Path(__file__).parents[3] / "config" / "schema.json").read_text()))


@pytest.mark.parametrize(("section", "kind"), EACH_KIND)
def test_schema_accepts_each_kind_and_rejects_what_the_study_rejects(section: str, kind: str):
    other_keys = {key: values[0] for other in KINDS[section].values() for key, values in other.items()}
    foreign = [{key: value} for key, value in other_keys.items() if key not in keys_of(section, kind)]
    wrong = [{key: {"no": "value"}} for key in keys_of(section, kind) if key != "arguments"]
    assert SCHEMA.is_valid(of_kind(section, kind))
    for change in (*foreign, *wrong, {"arguments": 3}, {"no_such_key": 1}, {SELECTOR[section]: "no_such_kind"}):
        mapping = of_kind(section, kind, **change)
        assert not SCHEMA.is_valid(mapping), change
        with pytest.raises(UserError):
            Study.from_mapping(mapping, "s")


@pytest.mark.parametrize("section", ["data", "model"])
def test_schema_defaults_to_the_first_kind(section: str):
    first, *others = KINDS[section]
    without = of_kind(section, first)
    del without[section][SELECTOR[section]]
    assert SCHEMA.is_valid(without)
    assert Study.from_mapping(without, "s") == Study.from_mapping(of_kind(section, first), "s")
    for kind in others:
        without = of_kind(section, kind)
        del without[section][SELECTOR[section]]
        if not set(KINDS[section][kind]) <= set(KINDS[section][first]):
            assert not SCHEMA.is_valid(without), kind
