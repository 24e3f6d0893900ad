"""What all sections of a study file share: strictness and the number types."""

import math
from decimal import Decimal
from typing import Annotated, Any, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    """A mapping of a study file: unknown keys are refused, types are not guessed, values are frozen."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)


def sections_in(annotation: Any) -> tuple[type[Section] | None, bool]:
    """Return the section that a field holds, and whether it holds several of them by names of the user."""
    if get_origin(annotation) is dict and isinstance(get_args(annotation)[1], type):
        section, by_name = get_args(annotation)[1], True
    else:
        section, by_name = annotation, False
    return (section, by_name) if isinstance(section, type) and issubclass(section, Section) else (None, False)


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
