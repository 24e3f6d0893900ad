"""What all sections of a study file share: strict validation, nested sections and value types."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import reduce
from operator import or_
from types import NoneType
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, JsonValue, Tag
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    """A section of a study file: no unknown keys, no type coercion, immutable.

    The docstrings of a section and of its fields are the reference page and the JSON schema.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)

    selector: ClassVar[str] = ""
    """The key that selects one of several kinds of this section, if there are."""


@dataclass(frozen=True)
class Nested:
    """The sections that a field may hold.

    Attributes:
        sections: The section types, by the value of their selector; a single type by "".
        multiplicity: One section, several of one type by user-given names, or one of several types.
    """

    sections: Mapping[str, type[Section]]
    multiplicity: Literal["one", "by name", "one of"] = "one"


def sections_in(annotation: Any) -> Nested | None:
    """Return the sections that a field may hold.

    Args:
        annotation: The type annotation of the field.

    Returns:
        The nested sections, or None if the field holds a plain value.
    """
    arguments = get_args(annotation)
    if len(arguments) == 2 and NoneType in arguments:  # `null` in place of the section
        return sections_in(next(argument for argument in arguments if argument is not NoneType))
    if get_origin(annotation) is dict and _is_section(arguments[1]):
        return Nested({"": arguments[1]}, "by name")
    tagged = [get_args(argument) for argument in arguments if get_origin(argument) is Annotated]
    kinds = {parts[1].tag: parts[0] for parts in tagged if _is_section(parts[0]) and isinstance(parts[1], Tag)}
    if kinds:
        return Nested(kinds, "one of")
    return Nested({"": annotation}) if _is_section(annotation) else None


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


IMPORT_PATH = "<import path>"


def tagged_union(
    key: str, kinds: Mapping[str, type[Section]], custom: type[Section] | None = None, custom_example: str = ""
) -> Any:
    """Return the type of a section that is one of several kinds.

    Args:
        key: The key that selects the kind; without it, the section is of the first kind.
        kinds: The section types by the value of the key.
        custom: The section type for any import path, `module:name`; None if there is none.
        custom_example: How error messages describe the value that selects `custom`.

    Returns:
        An annotation for a pydantic field.
    """
    default = next(iter(kinds))
    types = {**kinds, **({IMPORT_PATH: custom} if custom else {})}

    def tag(value: Any) -> str | None:
        if isinstance(value, Section):
            selected = getattr(value, key, None)
        elif isinstance(value, Mapping):
            selected = value.get(key, default)
        else:
            return None
        return IMPORT_PATH if custom and isinstance(selected, str) and ":" in selected else selected

    def check_kind(value: Any) -> Any:
        if isinstance(value, Mapping) and not (isinstance(value.get(key, default), str) and tag(value) in types):
            names = ", ".join(f"'{name}'" for name in kinds)
            alternative = f" or an {custom_example}" if custom else ""
            raise cross_field_error(key, f"must be {names}{alternative}, got {value[key]!r}")
        return value

    tagged = [Annotated[section, Tag(name)] for name, section in types.items()]
    return Annotated[reduce(or_, tagged), Discriminator(tag), BeforeValidator(check_kind)]


def cross_field_error(key: str, message: str) -> PydanticCustomError:
    """Return the error that a validator of a section raises if a key does not fit the other keys.

    Args:
        key: Path of the key, relative to the section.
        message: What is wrong and how to fix it.
    """
    return PydanticCustomError("cross_field", "{message}", {"key": key, "message": message})


def number_from_text(value: Any) -> Any:
    """Parse text: quoted numbers, and `1e-3` (without a dot) in YAML 1.1, are text but mean the number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _without_repeats(values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
    if values is None:
        return None
    repeated = dict.fromkeys(value for value in values if values.count(value) > 1)
    if repeated:
        raise ValueError(f"repeats {', '.join(map(str, repeated))}; list each value once")
    return values


def _check_learning_rate(rate: float) -> float:
    if not 1e-30 <= rate <= 1e30:
        raise ValueError(f"must be between 1e-30 and 1e30, got {rate:g}; the names of runs contain it")
    return rate


def check_import_path(text: Any) -> Any:
    """Return a value if it is no text or an import path, `module:name`. Raises ValueError otherwise."""
    if not isinstance(text, str):
        return text
    module, _, name = text.partition(":")
    if not (name.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        raise ValueError(f"must be a module and a name in it, got {text!r}; write `my_package.my_module:name`")
    return text


def _check_json(values: Any) -> Any:
    try:
        json.dumps(values, allow_nan=False)
    except ValueError:
        raise ValueError("must not contain nan or inf, which JSON does not have; write them as text, or leave them out")
    return values


def _list_to_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _list_to_pair(value: Any) -> Any:
    if not (isinstance(value, list | tuple) and len(value) == 2):
        raise ValueError("must be a list of two values, such as `[1, 2]`")
    return tuple(value)


# The bounds of a number precede this, so that they are in the JSON schema.
FromText = BeforeValidator(number_from_text)
NonNegativeReal = Annotated[float, Field(ge=0, allow_inf_nan=False), FromText]
LearningRate = Annotated[float, Field(gt=0, allow_inf_nan=False), FromText, AfterValidator(_check_learning_rate)]
PositiveInt = Annotated[int, Field(ge=1)]
# 2**32 - 1 is the largest seed that all libraries in use accept.
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]

# Checked before the pattern, which is for the JSON schema, because its message says more.
ImportPath = Annotated[str, Field(pattern=":"), BeforeValidator(check_import_path)]
# Keyword arguments of custom code, which are recorded as JSON.
Arguments = Annotated[dict[str, JsonValue], Field(default_factory=dict), AfterValidator(_check_json)]

# Selects jobs and does not change what they do: in no job's spec, so that an edit only adds or removes jobs.
JobSelection = Field(exclude=True)

# Lists of a study file become tuples, so that a frozen section is hashable and immutable.
AsTuple = BeforeValidator(_list_to_tuple)
AsPair = BeforeValidator(_list_to_pair)
Distinct = AfterValidator(_without_repeats)


def shortest_decimal(value: float) -> str:
    """Return the shortest decimal without exponent that parses to the same float, such as 0.01, 0.00005 or 1.

    Raises:
        ValueError: The value is nan or infinite.
    """
    if not math.isfinite(value):
        raise ValueError(f"{value} has no decimal form")
    text = format(Decimal(repr(float(value))), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
