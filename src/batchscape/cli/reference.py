"""The JSON schema and the reference page of study files, both generated from the typed models."""

import json
from typing import Any, get_args

from batchscape.config.base import Nested, Section, sections_in
from batchscape.study.study import Study

HEADER = """# Config reference

<!-- Generated from the typed models in src/batchscape/config by `make docs`; a test compares. -->

A study is one YAML file, independent of all others: keys that it leaves out have the defaults below.
`batchscape check FILE` checks a file without running anything.
"""


def schema() -> str:
    """Return the JSON schema of a study file (draft 2020-12), for completion and checks in an editor."""
    content = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Study.model_json_schema()}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def reference() -> str:
    """Return the reference page as Markdown: one table per section of a study file."""
    nested_by_key = {key: sections_in(field.annotation) for key, field in Study.model_fields.items()}
    parts = [HEADER, _table(Study, [key for key, nested in nested_by_key.items() if nested is None])]
    for key, nested in nested_by_key.items():
        if nested is None:
            continue
        for kind, section in nested.sections.items():
            title = f"## `{key}.<name>`" if nested.multiplicity == "by name" else f"## `{key}`"
            if nested.multiplicity == "one of":
                title = f"{title} with `{section.selector}: {kind}`"
            purpose = " ".join((section.__doc__ or "").split())
            parts.append(f"{title}\n\n{purpose}\n\n{_table(section, list(section.model_fields))}")
    for section, keys in _subsections(nested_by_key).items():
        names = ", ".join(f"`{key}`" for key in keys)
        purpose = " ".join((section.__doc__ or "").split())
        parts.append(f"## {names}\n\n{purpose}\n\n{_table(section, list(section.model_fields))}")
    return "\n".join(parts)


def _subsections(nested_by_key: dict[str, Nested | None]) -> dict[type[Section], list[str]]:
    """Return the sections within sections, each with the paths of its keys."""
    paths: dict[type[Section], list[str]] = {}
    for key, nested in nested_by_key.items():
        parent = f"{key}.<name>" if nested and nested.multiplicity == "by name" else key
        for section in nested.sections.values() if nested else ():
            for name, field in section.model_fields.items():
                inner = sections_in(field.annotation) or _values_of_mapping(field.annotation)
                if inner and inner.multiplicity != "one of":
                    suffix = ".<batch size>" if inner.multiplicity == "by name" else ""
                    paths.setdefault(inner.sections[""], []).append(f"{parent}.{name}{suffix}")
    return paths


def _values_of_mapping(annotation: Any) -> Nested | None:
    """Return the sections that a mapping, or null, holds."""
    return next(filter(None, map(sections_in, get_args(annotation))), None)


def _table(section: type[Section], keys: list[str]) -> str:
    properties = section.model_json_schema()["properties"]
    lines = ["| Key | Value | Default | Meaning |", "| --- | --- | --- | --- |"]
    for key in keys:
        field = section.model_fields[key]
        default = "required" if field.is_required() else f"`{_yaml(field.get_default(call_default_factory=True))}`"
        meaning = " ".join((field.description or "").split())
        lines.append(f"| `{key}` | {_values(properties[key])} | {default} | {meaning} |")
    return "\n".join(lines) + "\n"


def _yaml(value: Any) -> str:
    if isinstance(value, Section):
        given = value.model_dump(exclude_none=True)
        return "{" + ", ".join(f"{key}: {json.dumps(part)}" for key, part in given.items()) + "}"
    if isinstance(value, tuple) and value and isinstance(value[0], Section):
        return f"[{', '.join(map(_yaml, value))}]"
    return json.dumps(value) if value is not None else "null"


def _values(entry: dict[str, Any]) -> str:
    """Describe the values that a property of a JSON schema accepts."""
    if "$ref" in entry:
        return "section, see below"
    if "anyOf" in entry:
        return " or ".join(_values(choice) for choice in entry["anyOf"])
    if "const" in entry:
        return f"`{entry['const']}`"
    if "enum" in entry:
        return ", ".join(f"`{choice}`" for choice in entry["enum"])
    if "prefixItems" in entry:
        return f"pair of: {_values(entry['prefixItems'][0])}"
    if entry["type"] == "array":
        return f"list of: {_values(entry['items'])}" + (", not empty" if entry.get("minItems") else "")
    if entry["type"] == "object":
        if entry["additionalProperties"] == {"$ref": "#/$defs/JsonValue"}:
            return "mapping of names to values"
        if entry.get("maxProperties") == 1:
            return f"mapping of one name to: {_values(entry['additionalProperties'])}"
        return f"mapping to: {_values(entry['additionalProperties'])}"
    words = {
        "integer": "integer",
        "number": "number",
        "string": "text",
        "null": "`null`",
        "boolean": "`true` or `false`",
    }
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {entry[bound]:g}" for bound, sign in bounds.items() if bound in entry and entry[bound] < 2**31]
    return " ".join([words[entry["type"]], ", ".join(limits)]).strip()
