"""Examples from a user's function or `LightningDataModule`."""

from collections.abc import Mapping
from typing import Any

from batchscape.config.data.arrays import CustomDataConfig
from batchscape.data.data_module import load_data_module, seed_generators
from batchscape.data.interpret import from_arrays
from batchscape.data.source import DEFAULT_OPTIONS, LoadOptions, RawDataset
from batchscape.errors import UserError
from batchscape.runtime.user_code import call_user_code, import_object, overridden_methods

# What a function may return, by the parameter of `from_arrays`.
NAMES = {
    "inputs": "inputs",
    "images": "inputs",
    "targets": "targets",
    "labels": "targets",
    "classes": "classes",
    "weights": "weights",
    "split": "sides",
    "groups": "groups",
    "kind": "kind",
}


def load(config: CustomDataConfig, options: LoadOptions = DEFAULT_OPTIONS) -> RawDataset:
    """Return what the function returns: inputs, targets and, optionally, class names, or a dict of NAMES.

    Of a LightningDataModule, return the examples of its loaders. Raises UserError if it cannot be imported, fails, or
    returns anything else.
    """
    with seed_generators():  # also during the import: a seed that the module sets itself then counts for the call
        function = import_object(config.source, "data.source")
        returned = call_user_code(function, config.arguments, config.source, "data")
    if overridden_methods(returned, "LightningDataModule") is not None:
        return load_data_module(returned, config.source, options)
    values = _by_name(returned, config.source)
    inputs, targets, classes = (values.pop(name, None) for name in ("inputs", "targets", "classes"))
    return from_arrays(inputs, targets, classes, config.source, "data.source", task=options.task, **values)


def _by_name(returned: Any, source: str) -> dict[str, Any]:
    """Return what a function returned by the parameter of `from_arrays`."""
    if isinstance(returned, tuple | list) and len(returned) in (2, 3):
        return dict(zip(("inputs", "targets", "classes"), returned, strict=False))
    if not isinstance(returned, Mapping):
        raise UserError(
            f"data.source: {source} must return (images, labels), (images, labels, classes), or a dict with any of the "
            f"keys {', '.join(NAMES)}"
        )
    unknown = sorted(str(name) for name in returned if name not in NAMES)
    if unknown:
        raise UserError(
            f"data.source: {source} returns a dict with the key {unknown[0]}, not one of {', '.join(NAMES)}"
        )
    values: dict[str, Any] = {}
    for name, value in returned.items():
        if NAMES[name] in values:
            raise UserError(f"data.source: {source} returns two arrays of {NAMES[name]}; return one of them")
        values[NAMES[name]] = value
    if "inputs" not in values:
        raise UserError(f"data.source: {source} returns a dict without `inputs`; add them")
    return values
