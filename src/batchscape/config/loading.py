"""Reads study files as mappings, and turns validation errors into lines that a user can act on."""

import copy
import difflib
import io
import json
import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.constructor import DuplicateKeyError

from batchscape.config.base import Nested, Section, sections_in
from batchscape.errors import UserError

# Keys of earlier versions, by section: error messages give the new name, with the section if that changed, or the new
# form, in which … is the value.
RENAMED_KEYS: Mapping[tuple[Any, Any], str] = {
    ("training", "snapshots"): "checkpoints",
    ("training", "max_epochs"): "training: {budget: {epochs: …}}",
    ("training", "momentum"): "optimizer: {arguments: {momentum: …}}",
    ("training", "weight_decay"): "optimizer: {arguments: {weight_decay: …}}",
    ("tuning", "epochs"): "tuning: {trial_budget: {epochs: …}}",
    ("data", "colour"): "color",
    ("comparison", "fixed_lr"): "fixed_learning_rate",
    ("comparison", "high_lr"): "high_learning_rate",
    ("comparison", "small_batch"): "small_batch_size",
    ("comparison", "large_batch"): "large_batch_size",
    ("comparison", "target_loss"): "comparison: {targets: [{loss: …}]}",
    ("arms", "base_lr"): "base_learning_rate",
    ("arms", "base_batch"): "base_batch_size",
    ("arms", "warmup_epochs"): "warmup: {epochs: …}",
    ("tuning", "range"): "tuning: {hyperparameters: {learning_rate: …}}",
    ("tuning", "learning_rate_range"): "tuning: {hyperparameters: {learning_rate: …}}",
    ("tuning", "coarse_trials"): "startup_trials",
    ("sharpness", "trace_products"): "trace_matvecs",
    ("interpolation", "alphas"): "alpha_range",
    ("gradient_alignment", "largest_batch"): "max_batch_size",
    ("gradient_alignment", "examples"): "analysis.examples",
    ("gradient_alignment", "max_examples"): "analysis.examples",
    ("device_timing", "devices"): "device_counts",
}
# Keys of earlier versions without a new form of the same value: what is instead of them.
REPLACED_KEYS: Mapping[tuple[Any, Any], str] = {
    ("tuning", "trials"): "remove it, and limit the cost of a search by `budget`, in complete trainings",
}


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML 1.2 file.

    Args:
        path: The file.

    Returns:
        The mapping in the file; empty if the file is.

    Raises:
        UserError: The file cannot be read, is not valid YAML, has a duplicate key or is not a mapping.
    """
    name = printable(path)
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # opening a pipe would block
            raise UserError(f"{name}: not a regular file; give the path of a study file, such as config/config.yaml")
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{name}: no such file; give the path of a study file, such as config/config.yaml")
    except IsADirectoryError:
        raise UserError(f"{name}: is a folder; give the path of a study file in it")
    except UnicodeDecodeError:
        raise UserError(f"{name}: is not a text file in UTF-8; give the path of a YAML study file")
    except OSError as error:
        raise UserError(f"{name}: cannot be read ({error.strerror}); check its permissions")
    except DuplicateKeyError as error:
        key = str(error.problem).split('"')[1]
        raise UserError(f"{name}: line {error.problem_mark.line + 1}: duplicate key `{key}`; remove one")
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise UserError(f"{name}: {line}is not valid YAML ({problem}); fix the indentation or quoting there")
    except (ValueError, KeyError, RecursionError) as error:  # a date, number or depth that the parser cannot handle
        raise UserError(f"{name}: is not valid YAML ({' '.join(str(error).split())}); fix the value named above")
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{name}: must contain keys and values (`name: my-study`), contains {_kind(content)}")
    return content


def to_yaml(mapping: Mapping[str, Any]) -> str:
    """Return a mapping as YAML, with each list of plain values in one line."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = None
    stream = io.StringIO()
    yaml.dump(mapping, stream)
    return stream.getvalue()


def read_assignments(assignments: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parse the assignments of the command line's `--config`.

    Snakemake's own parser loses leading zeros, and numbers and keys in sections.

    Args:
        assignments: Texts such as `training={patience: 5}`.

    Returns:
        The nested mapping with values parsed as in a study file, and the same with all values as text.
    """
    values: dict[str, Any] = {}
    texts: dict[str, Any] = {}
    for assignment in assignments:
        key, _, value = assignment.partition("=")
        values = merge_mappings(values, {key: _parse(value, YAML(typ="safe", pure=True).load)})
        texts = merge_mappings(texts, {key: _parse(value, YAML(typ="base", pure=True).load)})
    return values, texts


def _parse(text: str, load: Callable[[str], Any]) -> Any:
    try:
        return load(text)
    except (YAMLError, ValueError):
        return text


def merge_mappings(mapping: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping with some keys overridden; sections that both have are merged recursively."""
    result = copy.deepcopy(dict(mapping))
    for key, value in overrides.items():
        old = result.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            result[key] = merge_mappings(old, value)
        else:
            result[key] = value
    return result


def remove_assigned_text(
    mapping: Mapping[str, Any], values: Mapping[str, Any], texts: Mapping[str, Any]
) -> dict[str, Any]:
    """Remove the keys that Snakemake parsed as text, such as `"32"`, from a mapping with assignments merged into it.

    Args:
        mapping: The config as Snakemake has it.
        values: The assignments, first result of `read_assignments`.
        texts: The assignments as text, second result of `read_assignments`.
    """
    result = {}
    for key, value in mapping.items():
        assigned, text = values.get(key), texts.get(key)
        if isinstance(value, Mapping) and isinstance(assigned, Mapping) and isinstance(text, Mapping):
            result[key] = remove_assigned_text(value, assigned, text)
        elif key in values or key not in texts:
            result[key] = value
    return result


def restore_text(
    mapping: Mapping[str, Any], texts: Mapping[str, Any], error: ValidationError, model: type[Section]
) -> dict[str, Any]:
    """Replace values where the model expects text, such as 7 for `007`, by the text that was assigned."""
    result = copy.deepcopy(dict(mapping))
    for detail in error.errors():
        if detail["type"] == "string_type":
            *parents, last = _walk(detail["loc"], model)[0]
            target: Any = result
            text: Any = texts
            try:
                for key in parents:
                    target, text = target[key], text[key]
                if isinstance(text[last], str):
                    target[last] = text[last]
            except (KeyError, IndexError, TypeError):  # not an assigned value
                continue
    return result


def format_validation_errors(error: ValidationError, model: type[Section], source: str) -> list[str]:
    """Format validation errors for users.

    Args:
        error: The error of the model.
        model: The type that was validated.
        source: Name of the study file.

    Returns:
        One line per error: the source, the path of the key, what is wrong and how to fix it.
    """
    details = error.errors()
    parents = {detail["loc"][:end] for detail in details for end in range(len(detail["loc"]))}
    # A list whose only entry is invalid also counts as empty; the line of the entry is enough.
    details = [detail for detail in details if not (detail["type"] == "too_short" and detail["loc"] in parents)]
    return [_format_error(detail, model, source) for detail in details]


def _format_error(detail: ErrorDetails, model: type[Section], source: str) -> str:
    location = detail["loc"]
    if detail["type"] != "extra_forbidden":  # its key may have just this name
        location = tuple(part for part in location if part != "[key]")  # follows a key that is itself invalid
    keys, steps = _walk(location, model)
    path = "".join(f"[{key}]" if isinstance(key, int) else f".{printable(key)}" for key in keys)
    if detail["type"] == "cross_field":
        path = f"{path}.{detail['ctx']['key']}"
    problem, fix = _explain(detail, keys, steps, model)
    return ": ".join(filter(None, [source, path.removeprefix("."), f"{problem}; {fix}" if fix else problem]))


Step = tuple[type[Section], FieldInfo | None]


def _walk(location: tuple[int | str, ...], model: type[Section]) -> tuple[list[int | str], list[Step]]:
    """Follow the location of an error down the sections.

    Returns:
        The keys and list indices that are in the study file, and for each key of a section that section and the field.
    """
    keys: list[int | str] = []
    steps: list[Step] = []
    section: type[Section] | None = model
    nested: Nested | None = None
    for part in location:
        if nested and nested.multiplicity == "one of":  # the part selects the kind
            section, nested = nested.sections[str(part)], None
            continue
        keys.append(part)
        if nested and nested.multiplicity == "by name":  # the part is a user-given name
            section, nested = nested.sections[""], None
        elif section is not None:
            field = section.model_fields.get(str(part))
            steps.append((section, field))
            nested = sections_in(field.annotation) if field else None
            section = nested.sections[""] if nested and nested.multiplicity == "one" else None
    return keys, steps


SECTION_EXPECTED = ("dict_type", "model_type", "union_tag_not_found")
# Text that means the same in YAML without quotes.
PLAIN_TEXT = re.compile(r"(?!(?i:true|false|yes|no|on|off|null|y|n)$)[A-Za-z_][\w./:-]*")


def _explain(detail: ErrorDetails, keys: list[int | str], steps: list[Step], model: type[Section]) -> tuple[str, str]:
    """Return what is wrong and how to fix it; the latter is empty if the former says both."""
    kind, context = detail["type"], detail.get("ctx", {})
    section, field = steps[-1] if steps else (model, None)
    if kind == "extra_forbidden":
        renamed = RENAMED_KEYS.get((keys[0], keys[-1]))
        if renamed and "…" in renamed and detail["input"] is None:
            return "is no longer a key", "it has no value here, so remove it"
        if renamed and "…" in renamed:
            return f"is now `{renamed.replace('…', _spell(detail['input']))}`", "rewrite it"
        if renamed and "." in renamed:
            return f"is now `{renamed}`", "move it"
        if renamed:
            return f"is now `{'.'.join([*map(printable, keys[:-1]), renamed])}`", "rename it"
        if replaced := REPLACED_KEYS.get((keys[0], keys[-1])):
            return "is no longer a key", replaced
        return "is not a known key", _suggest_key(str(keys[-1]), section, model)
    if kind == "invalid_key":
        return "is not a known key", "keys are text without quotes, such as `seeds`"
    if kind == "value_error":
        return str(context["error"]), ""
    if kind == "cross_field":
        return context["message"], ""
    problem = _describe(kind, context, detail)
    if field is None:
        return problem, ""
    key = next(name for name, known in section.model_fields.items() if known is field)
    nested = sections_in(field.annotation)
    if nested and kind in SECTION_EXPECTED[1:]:
        known_keys = ", ".join(next(iter(nested.sections.values())).model_fields)
        return problem, f"indent its keys below `{key}:` ({known_keys}), or leave it out for the defaults"
    return problem, f"write for example `{key}: {_example(field.examples[0] if field.examples else field.default)}`"


def _describe(kind: str, context: Mapping[str, Any], detail: ErrorDetails) -> str:
    """Return what is wrong with a value."""
    if kind == "missing":
        return "is missing"
    if kind == "too_short":
        return "must not be empty"
    expected = {
        "int_type": "must be an integer",
        "int_from_float": "must be an integer",
        "float_type": "must be a number",
        "finite_number": "must be a finite number",
        "bool_type": "must be true or false",
        "string_type": "must be text in quotes" if isinstance(detail["input"], int | float) else "must be text",
        "tuple_type": "must be a list",
        **dict.fromkeys(SECTION_EXPECTED, "must be a section of keys and values"),
        "string_pattern_mismatch": f"must match {context.get('pattern')}",
        "greater_than": f"must be greater than {context.get('gt', 0):g}",
        "greater_than_equal": f"must be at least {context.get('ge', 0):g}",
        "less_than": f"must be less than {context.get('lt', 0):g}",
        "less_than_equal": f"must be at most {context.get('le', 0):.10g}",
        "literal_error": f"must be {context.get('expected')}",
    }.get(kind, " ".join(detail["msg"].split()))
    return f"{expected}, got {_shorten(detail['input'])}"


def _example(value: Any) -> str:
    """Return a value as YAML."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_example(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_example, value)) + "]"
    if isinstance(value, str) and not PLAIN_TEXT.fullmatch(value):
        return json.dumps(value, ensure_ascii=False)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _suggest_key(key: str, section: type[Section], model: type[Section]) -> str:
    """Return where an unknown key belongs, or the known keys of its section."""
    near = difflib.get_close_matches(key, list(section.model_fields), n=1)
    if near:
        return f"did you mean `{near[0]}`?"
    nested_by_name = {
        name: nested for name, field in model.model_fields.items() if (nested := sections_in(field.annotation))
    }
    # First the other kinds of this section.
    for name in sorted(nested_by_name, key=lambda name: section not in nested_by_name[name].sections.values()):
        nested = nested_by_name[name]
        for kind, other in nested.sections.items():
            if key in other.model_fields:
                place = f"`{name}.<name>`" if nested.multiplicity == "by name" else f"`{name}`"
                condition = f" with `{other.selector}: {kind}`" if nested.multiplicity == "one of" else ""
                fix = "; remove it" if section in nested.sections.values() else ""
                return f"it belongs in the section {place}{condition}{fix}"
    return f"known keys here: {', '.join(section.model_fields)}"


def printable(key: object) -> str:
    """Return a key or path for a message, quoted if it would break the line or be invisible."""
    text = str(key)
    return text if text and text.isprintable() else repr(text)


def _shorten(value: Any) -> str:
    """Return a short form of a value, spelled as in YAML."""
    if isinstance(value, list | tuple | dict):
        return _kind(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return reprlib.repr(value)


def _spell(value: Any) -> str:
    """Return a value as YAML if it is short, such as a range, and else a short form of it."""
    is_short = isinstance(value, list | tuple) and len(value) <= 4
    if is_short and all(isinstance(part, int | float | str) for part in value):
        return f"[{', '.join(map(_shorten, value))}]"
    return _shorten(value)


def _kind(value: object) -> str:
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, dict):
        return "a section"
    return "text" if isinstance(value, str) else "a single value"
