"""What custom networks may ask for: shapes of the data and the number of outputs, as `$name` in their arguments."""

import math
import re
from collections.abc import Mapping
from typing import Any

from batchscape.data.spec import DataSpec
from batchscape.errors import UserError
from batchscape.models.inputs import describe_inputs

PLACEHOLDER = re.compile(r"\$[A-Za-z_]\w*")

# Parameters that get their value by having its name. Not `features`, say, which a network may mean otherwise.
OFFERED = ("image_shape", "outputs", "shape", "vocabulary", "length", "categories")


def values_for_network(spec: DataSpec, outputs: int) -> dict[str, Any]:
    """Return what a network can know about the data, by name.

    Args:
        spec: What an example is.
        outputs: Number of outputs per example, or per position of the next token.

    Returns:
        `outputs`, `shape`, and what there is for the data: of images `image_shape`, `channels`, `height`, `width` and
        `features`, the number of pixels times channels; of tokens `vocabulary` and `length`; of numbers `features`,
        and with two axes, (length, features), `length`; of columns `features`, how many are numbers, and `categories`,
        a tuple with the number of indices of each categorical column.
    """
    shape = tuple(spec.shape)
    values: dict[str, Any] = {"outputs": outputs, "shape": shape}
    if spec.inputs == "tokens":
        return values | {"vocabulary": spec.vocabulary, "length": shape[0]}
    if spec.inputs == "columns":
        return values | {"features": shape[0], "categories": tuple(spec.categories)}
    if len(shape) == 2:
        return values | {"length": shape[0], "features": shape[1]}
    if len(shape) == 3:
        values |= {"image_shape": shape} | dict(zip(("channels", "height", "width"), shape, strict=True))
    return values | {"features": math.prod(shape)}


def fill_placeholders(arguments: Mapping[str, Any], values: Mapping[str, Any], spec: DataSpec) -> dict[str, Any]:
    """Replace each text that is `$name`, also in lists and mappings, by the value of that name; `$$` means `$`.

    Args:
        arguments: `model.arguments`.
        values: The values by name, as returned by `values_for_network`.
        spec: What an example is, for the message.

    Raises:
        UserError: There is no such value for the data.
    """

    def fill(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: fill(part) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [fill(part) for part in value]
        if isinstance(value, str) and value.startswith("$$"):
            return value[1:]
        if isinstance(value, str) and PLACEHOLDER.fullmatch(value):
            if value[1:] not in values:
                known = ", ".join(f"${name}" for name in values)
                raise UserError(
                    f"model.arguments: there is no {value} for {describe_inputs(spec)}; write one of {known}, or "
                    f"${value} for the text {value}"
                )
            return values[value[1:]]
        return value

    return {key: fill(value) for key, value in arguments.items()}
