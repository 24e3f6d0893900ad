"""From a study file to a mapping, and from a model's format_validation_errors to lines that a user can act on."""

import copy
import difflib
import io
import reprlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.constructor import DuplicateKeyError

from batchscape.config.base import Section, sections_in
from batchscape.errors import UserError

# Keys of earlier versions, by section; a study file that has one gets the new name.
RENAMED_KEYS = {
    ("training", "snapshots"): "checkpoints",
    ("data", "colour"): "color",
    ("comparison", "fixed_lr"): "fixed_learning_rate",
    ("comparison", "high_lr"): "high_learning_rate",
    ("comparison", "small_batch"): "small_batch_size",
    ("comparison", "large_batch"): "large_batch_size",
    ("arms", "base_lr"): "base_learning_rate",
    ("arms", "base_batch"): "base_batch_size",
    ("tuning", "range"): "learning_rate_range",
    ("tuning", "coarse_trials"): "startup_trials",
    ("sharpness", "trace_products"): "trace_matvecs",
    ("interpolation", "alphas"): "alpha_range",
    ("gradient_alignment", "largest_batch"): "max_batch_size",
    ("gradient_alignment", "examples"): "max_examples",
    ("device_timing", "devices"): "device_counts",
}


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping that a YAML 1.2 file holds.

    Raises UserError when the file cannot be read, is no YAML, repeats a key or holds no mapping.
    """
    shown = printable(path)
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # to open a pipe would wait for ever
            raise UserError(f"{shown}: is no regular file; give the path of a study file, such as config/config.yaml")
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{shown}: there is no such file; give the path of a study file, such as config/config.yaml")
    except IsADirectoryError:
        raise UserError(f"{shown}: is a folder; give the path of a study file inside it")
    except UnicodeDecodeError:
        raise UserError(f"{shown}: is not a text file in UTF-8; give the path of a YAML study file")
    except OSError as error:
        raise UserError(f"{shown}: cannot be read ({error.strerror}); mend its permissions")
    except DuplicateKeyError as error:
        key = str(error.problem).split('"')[1]
        raise UserError(f"{shown}: line {error.problem_mark.line + 1}: the key `{key}` stands twice; keep one of them")
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        what = " ".join(str(getattr(error, "problem", None) or error).split())
        raise UserError(f"{shown}: {where}is not valid YAML ({what}); mend the indentation or quoting there")
    except (ValueError, KeyError, RecursionError) as error:  # a date, a number or a depth that the parser chokes on
        raise UserError(f"{shown}: is not valid YAML ({' '.join(str(error).split())}); mend the value that it names")
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{shown}: must hold keys and values (`name: my-study`), holds {_kind(content)}")
    return content


def to_yaml(mapping: Mapping[str, Any]) -> str:
    """Return a mapping as YAML, lists of numbers in one line each."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = None
    stream = io.StringIO()
    yaml.dump(mapping, stream)
    return stream.getvalue()


def read_assignments(assignments: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what `KEY=VALUE` texts assign, with values read as in a study file, and the same with all values as text.

    Of what Snakemake's own parser makes of `--config`, neither numbers and keys in sections nor leading zeros are left.
    """
    values: dict[str, Any] = {}
    texts: dict[str, Any] = {}
    for assignment in assignments:
        key, _, value = assignment.partition("=")
        values = merge_mappings(values, {key: _parsed(value, YAML(typ="safe", pure=True).load)})
        texts = merge_mappings(texts, {key: _parsed(value, YAML(typ="base", pure=True).load)})
    return values, texts


def _parsed(text: str, load: Callable[[str], Any]) -> Any:
    try:
        return load(text)
    except (YAMLError, ValueError):
        return text


def merge_mappings(mapping: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping with some keys replaced; a section that both have is merge_mappings in the same way."""
    result = copy.deepcopy(dict(mapping))
    for key, value in overrides.items():
        old = result.get(key)
        nested = isinstance(value, Mapping) and isinstance(old, Mapping)
        result[key] = merge_mappings(old, value) if nested else value
    return result


def drop_reparsed_texts(
    mapping: Mapping[str, Any], values: Mapping[str, Any], texts: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a mapping into which Snakemake merge_mappings assignments, without the keys that it read as text, such as `"32"`.

    `values` and `texts` are what `read_assignments` gives for the assignments.
    """
    result = {}
    for key, value in mapping.items():
        below = value, values.get(key), texts.get(key)
        if all(isinstance(part, Mapping) for part in below):
            result[key] = drop_reparsed_texts(*below)
        elif key in values or key not in texts:
            result[key] = value
    return result


def replace_misread_texts(
    mapping: Mapping[str, Any], texts: Mapping[str, Any], error: ValidationError, model: type[BaseModel]
) -> dict[str, Any]:
    """Return a mapping with the values that the model wants as text replaced by those in `texts`, where it has them."""
    result = copy.deepcopy(dict(mapping))
    for detail in error.errors():
        if detail["type"] == "string_type":
            *parents, last = _walk(detail["loc"], model)[0]
            place, text = result, texts
            try:
                for part in parents:
                    place, text = place[part], text[part]
                if isinstance(text[last], str):
                    place[last] = text[last]
            except (KeyError, IndexError, TypeError):  # it is not one of those that are assigned
                continue
    return result


def format_validation_errors(error: ValidationError, model: type[BaseModel], source: str) -> list[str]:
    """Return one line for each error: the source, the key's path, what is wrong, and how to mend it."""
    details = error.errors()
    parents = {detail["loc"][:-1] for detail in details}
    # A list whose only entry is wrong also counts as empty; the entry's own line says it better.
    told = [detail for detail in details if not (detail["type"] == "too_short" and detail["loc"] in parents)]
    return [_line(detail, model, source) for detail in told]


def _line(detail: Mapping[str, Any], model: type[BaseModel], source: str) -> str:
    location = detail["loc"]
    if detail["type"] != "extra_forbidden":  # which may be of a key of just that name
        location = tuple(part for part in location if part != "[key]")  # the key itself is wrong; it stands before
    shown, steps = _walk(location, model)
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{printable(part)}" for part in shown)
    if detail["type"] == "cross_field_error":
        path = f"{path}.{detail['ctx']['key']}"
    what, mend = _explain(detail, shown, steps, model)
    return ": ".join(part for part in (source, path.removeprefix("."), f"{what}; {mend}" if mend else what) if part)


Step = tuple[type[Section], FieldInfo | None]


def _walk(location: tuple, model: type[BaseModel]) -> tuple[list[str | int], list[Step]]:
    """Walk a location down the sections.

    Return its parts that stand in the study file, and at each key the section that it stands in and its field.
    """
    shown, steps = [], []
    section, nested = model, None
    for part in location:
        if nested and nested.multiplicity == "one of":  # this part says which one
            section, nested = nested.sections[part], None
            continue
        shown.append(part)
        if nested and nested.multiplicity == "by name":  # this part is a name of the user
            section, nested = nested.sections[""], None
        elif section is not None:
            field = section.model_fields.get(str(part))
            steps.append((section, field))
            nested = sections_in(field.annotation) if field else None
            section = nested.sections[""] if nested and nested.multiplicity == "one" else None
    return shown, steps


def _explain(
    detail: Mapping[str, Any], shown: list[str | int], steps: list[Step], model: type[BaseModel]
) -> tuple[str, str]:
    """Return what is wrong, and how to mend it (empty where the first says both)."""
    kind, context, got = detail["type"], detail.get("ctx", {}), detail.get("input")
    section, field = steps[-1] if steps else (None, None)
    if kind == "extra_forbidden" and (renamed := RENAMED_KEYS.get((shown[0], shown[-1]))):
        return f"is now `{'.'.join([*map(printable, shown[:-1]), renamed])}`", "rename it"
    if kind == "extra_forbidden":
        return "is not a known key", _suggest_key(str(detail["loc"][-1]), section, model)
    if kind == "invalid_key":
        return "is not a known key", "keys are text without quotes, such as `seeds`"
    if kind == "value_error":
        return str(context["error"]), ""
    if kind == "cross_field_error":
        return context["message"], ""
    but_got = f", got {_shown(got)}"
    what = {
        "missing": "is missing",
        "int_type": "must be a whole number" + but_got,
        "int_from_float": "must be a whole number" + but_got,
        "float_type": "must be a number" + but_got,
        "finite_number": "must be a finite number" + but_got,
        "bool_type": "must be true or false" + but_got,
        "string_type": "must be text" + but_got,
        "tuple_type": "must be a list" + but_got,
        "dict_type": "must be a section of keys and values" + but_got,
        "too_short": "must not be empty",
        "model_type": "must be a section of keys and values" + but_got,
        "union_tag_not_found": "must be a section of keys and values" + but_got,
        "string_pattern_mismatch": f"must match {context.get('pattern')}{but_got}",
        "greater_than": f"must be greater than {context.get('gt', 0):g}{but_got}",
        "greater_than_equal": f"must be at least {context.get('ge', 0):g}{but_got}",
        "less_than": f"must be less than {context.get('lt', 0):g}{but_got}",
        "less_than_equal": f"must be at most {context.get('le', 0):.10g}{but_got}",
        "literal_error": f"must be {context.get('expected')}{but_got}",
    }.get(kind, " ".join(detail["msg"].split()) + but_got)
    if field is None:
        return what, ""
    key = next(name for name, known in section.model_fields.items() if known is field)
    if kind in ("model_type", "union_tag_not_found"):
        keys = ", ".join(next(iter(sections_in(field.annotation).sections.values())).model_fields)
        return what, f"write its keys indented below `{key}:` ({keys}), or leave it out for the defaults"
    return what, f"write for example `{key}: {_example(field.examples[0] if field.examples else field.default)}`"


def _example(value: Any) -> str:
    """A value as one may write it in YAML."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_example(part)}" for key, part in value.items()) + "}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _suggest_key(key: str, section: type[BaseModel], model: type[BaseModel]) -> str:
    """Say where an unknown key belongs, or what is known where it stands."""
    known = list(section.model_fields)
    near = difflib.get_close_matches(key, known, n=1)
    if near:
        return f"did you mean `{near[0]}`?"
    found = {name: sections_in(field.annotation) for name, field in model.model_fields.items()}
    nests = {name: nested for name, nested in found.items() if nested}
    # First the other kinds of this section.
    for name in sorted(nests, key=lambda name: section not in nests[name].sections.values()):
        nested = nests[name]
        for kind, inner in nested.sections.items():
            if key in inner.model_fields:
                place = f"`{name}.<name>`" if nested.multiplicity == "by name" else f"`{name}`"
                which = f" with `{inner.selector}: {kind}`" if nested.multiplicity == "one of" else ""
                return f"it belongs in the section {place}{which}"
    return f"known keys here: {', '.join(known)}"


def printable(key: Any) -> str:
    """A key or a path as it was written; quoted if it would break the line or could not be seen."""
    text = str(key)
    return text if text and text.isprintable() else repr(text)


def _shown(value: Any) -> str:
    """A value as YAML spells it, short."""
    if isinstance(value, list | tuple | dict):
        return _kind(value)
    spelled = {None: "null", True: "true", False: "false"}
    return spelled[value] if value is None or isinstance(value, bool) else reprlib.repr(value)


def _kind(value: Any) -> str:
    return {list: "a list", tuple: "a list", dict: "a section", str: "text"}.get(type(value), "a single value")
