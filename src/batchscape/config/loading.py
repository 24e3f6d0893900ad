"""From a study file to a mapping, and from a model's complaints to lines that a user can act on."""

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.constructor import DuplicateKeyError

from batchscape.errors import UserError


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping that a YAML 1.2 file holds.

    Raises UserError when the file cannot be read, is no YAML, repeats a key or holds no mapping.
    """
    try:
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file; give the path of a study file, such as config/config.yaml")
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder; give the path of a study file inside it")
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not a text file in UTF-8; give the path of a YAML study file")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); mend its permissions")
    except DuplicateKeyError as error:
        key = str(error.problem).split('"')[1]
        raise UserError(f"{path}: line {error.problem_mark.line + 1}: the key `{key}` stands twice; keep one of them")
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        what = " ".join(str(getattr(error, "problem", None) or error).split())
        raise UserError(f"{path}: {where}is not valid YAML ({what}); mend the indentation or quoting there")
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{path}: must hold keys and values (`name: my-study`), holds a {_kind(content)}")
    return content


def complaints(error: ValidationError, model: type[BaseModel], source: str) -> list[str]:
    """Return one line for each error: the source, the key's path, what is wrong, and how to mend it."""
    details = error.errors()
    parents = {detail["loc"][:-1] for detail in details}
    # A list whose only entry is wrong also counts as empty; the entry's own line says it better.
    told = [detail for detail in details if not (detail["type"] == "too_short" and detail["loc"] in parents)]
    return [_line(detail, model, source) for detail in told]


def _line(detail: Mapping[str, Any], model: type[BaseModel], source: str) -> str:
    location = tuple(part for part in detail["loc"] if not str(part).startswith("function-"))
    steps = list(_steps(location, model))
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    what, mend = _explain(detail, steps)
    return ": ".join(part for part in (source, path, f"{what}; {mend}" if mend else what) if part)


def _steps(location: tuple, model: type[BaseModel]) -> Iterator[tuple[type[BaseModel], FieldInfo | None]]:
    """Walk a location down the sections: at each key, the section that it stands in and its field."""
    section: Any = model
    for part in location:
        if not (isinstance(section, type) and issubclass(section, BaseModel)):
            return
        field = section.model_fields.get(str(part))
        yield section, field
        section = field.annotation if field else None


def _explain(detail: Mapping[str, Any], steps: list) -> tuple[str, str]:
    kind, context, got = detail["type"], detail.get("ctx", {}), detail.get("input")
    section, field = steps[-1] if steps else (None, None)
    key = str(detail["loc"][-1]) if detail["loc"] else ""
    if kind == "extra_forbidden":
        known = list(section.model_fields)
        near = difflib.get_close_matches(key, known, n=1)
        return "is not a known key", f"did you mean `{near[0]}`?" if near else f"known keys here: {', '.join(known)}"
    if kind == "value_error":
        return str(context["error"]), ""
    shown = f", got {got!r}" if not isinstance(got, dict | list | tuple) else f", got a {_kind(got)}"
    what = {
        "missing": "is missing",
        "int_type": "must be a whole number" + shown,
        "int_from_float": "must be a whole number" + shown,
        "float_type": "must be a number" + shown,
        "finite_number": "must be a finite number" + shown,
        "string_type": "must be text" + shown,
        "tuple_type": "must be a list" + shown,
        "too_short": "must not be empty",
        "model_type": "must be a section of keys and values" + shown,
        "model_attributes_type": "must be a section of keys and values" + shown,
        "greater_than": f"must be greater than {context.get('gt')}{shown}",
        "greater_than_equal": f"must be at least {context.get('ge')}{shown}",
        "less_than": f"must be less than {context.get('lt')}{shown}",
        "less_than_equal": f"must be at most {context.get('le')}{shown}",
        "literal_error": f"must be {context.get('expected')}{shown}",
    }.get(kind, detail["msg"] + shown)
    names = [str(part) for part in detail["loc"] if not isinstance(part, int)]
    example = field.examples[0] if field is not None and field.examples else None
    if example is not None and names:
        return what, f"write for example `{names[-1]}: {example}`"
    if kind.startswith("model") and names:
        keys = ", ".join(field.annotation.model_fields)
        return what, f"write its keys indented below `{names[-1]}:` ({keys}), or leave it out for the defaults"
    return what, ""


def _kind(value: Any) -> str:
    return {list: "list", tuple: "list", dict: "section", str: "text"}.get(type(value), "single value")
