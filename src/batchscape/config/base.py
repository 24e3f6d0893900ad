"""What all sections of a study file share: strictness and the number types."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, JsonValue, Tag
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    """A mapping of a study file: unknown keys are refused, types are not guessed, values are frozen."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)


@dataclass(frozen=True)
class Nested:
    """The sections that a field may hold."""

    sections: Mapping[str, type[Section]]
    """By the tag of `one_of`; a single one by ""."""

    how: Literal["one", "by name", "one of"] = "one"
    """A single section, several of one kind by names of the user, or one of several kinds."""


def sections_in(annotation: Any) -> Nested | None:
    """Return the sections that a field with this annotation may hold; None if it holds a value."""
    arguments = get_args(annotation)
    if get_origin(annotation) is dict and _is_section(arguments[1]):
        return Nested({"": arguments[1]}, "by name")
    tagged = [get_args(argument) for argument in arguments if get_origin(argument) is Annotated]
    kinds = {parts[1].tag: parts[0] for parts in tagged if _is_section(parts[0]) and isinstance(parts[1], Tag)}
    if kinds:
        return Nested(kinds, "one of")
    return Nested({"": annotation}) if _is_section(annotation) else None


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


OWN = "import path"


def one_of(key: str, own_example: str, kinds: Mapping[str, type[Section]], own: type[Section]) -> Any:
    """Return the type of a section whose `key` says which of several kinds it is, the first one if it is left out.

    An import path, `module:name`, says that it is of the kind `own`; `own_example` describes one.
    """
    first = next(iter(kinds))

    def tag(value: Any) -> str | None:
        if isinstance(value, Section):
            given = getattr(value, key, None)
        elif isinstance(value, Mapping):
            given = value.get(key, first)
        else:
            return None
        return OWN if isinstance(given, str) and ":" in given else given

    def known(value: Any) -> Any:
        if isinstance(value, Mapping) and tag(value) not in (*kinds, OWN):
            names = ", ".join(f"'{name}'" for name in kinds)
            raise misfit(key, f"must be {names} or an {own_example}, got {value[key]!r}; write one of them")
        return value

    tagged = [Annotated[section, Tag(name)] for name, section in {**kinds, OWN: own}.items()]
    return Annotated[reduce(or_, tagged), Discriminator(tag), BeforeValidator(known)]


def misfit(key: str, what: str) -> PydanticCustomError:
    """Return the error that a section's validator raises when one key does not fit another one."""
    return PydanticCustomError("misfit", "{what}", {"key": key, "what": what})


def _number_from_text(value: Any) -> Any:
    """Quoted numbers, and `1e-3` (no dot) in YAML 1.1, are text; every user means the number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _without_repeats(values: tuple | None) -> tuple | None:
    repeated = sorted({value for value in values or () if values.count(value) > 1})
    if repeated:
        raise ValueError(f"repeats {', '.join(map(str, repeated))}; list each value once")
    return values


def _fits_a_name(rate: float) -> float:
    if not 1e-30 <= rate <= 1e30:
        raise ValueError(f"must be between 1e-30 and 1e30, got {rate:g}; runs are named by it")
    return rate


def _import_path(text: str) -> str:
    module, _, name = text.partition(":")
    if not (name.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        raise ValueError(f"must be a module and a name in it, got {text!r}; write `my_package.my_module:name`")
    return text


def _finite(values: Any) -> Any:
    try:
        json.dumps(values, allow_nan=False)
    except ValueError:
        raise ValueError("must not hold nan or inf, which JSON lacks; write them as text, or leave them out")
    return values


def _from_list(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _pair(value: Any) -> Any:
    if not (isinstance(value, list | tuple) and len(value) == 2):
        raise ValueError("must be a list of two values; write them in brackets, with a comma between")
    return tuple(value)


# The bounds of a number stand before this, so that the JSON schema shows them.
FromText = BeforeValidator(_number_from_text)
NonNegativeReal = Annotated[float, Field(ge=0, allow_inf_nan=False), FromText]
LearningRate = Annotated[float, Field(gt=0, allow_inf_nan=False), FromText, AfterValidator(_fits_a_name)]
PositiveInt = Annotated[int, Field(ge=1)]
# 2**32 - 1 is the largest seed that every library in use takes.
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]

ImportPath = Annotated[str, Field(pattern=":"), AfterValidator(_import_path)]
# What the user's own code is called with; it is recorded as JSON.
Arguments = Annotated[dict[str, JsonValue], Field(default_factory=dict), AfterValidator(_finite)]

# Says which jobs there are, not what a job does: stands in no job's slice, so that an edit makes only new jobs.
JobSelection = Field(exclude=True)

# Lists of a study file become tuples, so that a frozen model is hashable and cannot be changed.
AsTuple = BeforeValidator(_from_list)
AsPair = BeforeValidator(_pair)
Distinct = AfterValidator(_without_repeats)


def shortest_decimal(value: float) -> str:
    """Return the shortest decimal without exponent that parses back to the same float (0.01, 0.00005, 1)."""
    if not math.isfinite(value):
        raise ValueError(f"{value} has no decimal form")
    text = format(Decimal(repr(float(value))), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
