"""Interpretation of arrays of any type as the examples of a dataset."""

import hashlib
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from batchscape.config.data.section import TaskName
from batchscape.data.prepared import INPUTS, TARGETS, WEIGHTS, Rows
from batchscape.data.source import ManifestEntry, RawDataset, encode_labels
from batchscape.data.spec import SIDE_OF_WORD, SIDES, DataSpec
from batchscape.errors import UserError

InputKind = Literal["auto", "images", "numbers", "tokens"]
INPUT_KINDS = ("auto", "images", "numbers", "tokens")

# Numbers of channels that tell images of floats from other numbers, and which axis has the channels.
IMAGE_CHANNELS = (1, 3, 4)

NUMERIC_KINDS = "biuf"


def from_arrays(
    inputs: Any,
    targets: Any,
    classes: Sequence[str] | None,
    name: str,
    key: str,
    *,
    task: TaskName = "classification",
    kind: InputKind = "auto",
    channels: Literal["last", "first"] = "last",
    weights: Any = None,
    sides: Any = None,
    groups: Any = None,
    entries: Sequence[ManifestEntry] | None = None,
) -> RawDataset:
    """Return arrays as a dataset.

    Args:
        inputs: (n, …), array-like; see `infer_kind`. Mapped files are not read, except for tokens.
        targets: (n,), array-like. Classification: indices into `classes`, or without `classes` integers, booleans or
            text, each value a class. Regression: numbers, or (n, k). Language models: ignored, for the target is the
            next token.
        classes: Names of the classes; by default the sorted values of `targets`.
        name: Name of the arrays in the manifest.
        key: Key of the study file to name in errors.
        task: Name of the task.
        kind: What the inputs are; `auto`: as `infer_kind` says.
        channels: Which axis of images has the channels.
        weights: Weight of each example, (n,); of language models also of each target, (n, length).
        sides: Side of each example, (n,): `train`, `validation` or `test`, or 0, 1 or 2.
        groups: Group of each example, (n,), integers or text; no group is on two sides.
        entries: Entries of the manifest; by default one for all arrays.

    Raises:
        UserError: The arrays do not fit together, or are not what the task needs.
    """
    inputs = to_array(inputs, "inputs", key)
    kind = infer_kind(inputs.shape, inputs.dtype, kind, channels, task, key)
    count = len(inputs)
    shape = stored_shape(inputs.shape, kind, channels)
    if kind == "images" and channels == "first":
        inputs = np.moveaxis(inputs, 1, -1)
    inputs = inputs.reshape(count, *shape)
    arrays = {INPUTS: inputs}
    notes = []
    vocabulary = _count_tokens(inputs, key) if kind == "tokens" else 0
    if task == "language_model":
        spec = DataSpec("tokens", (shape[0] - 1,), "next_token", vocabulary=vocabulary, token_unit="token")
        if targets is not None:
            notes.append("targets: not used, because the target of a language model is the next token")
    else:
        if targets is None:
            raise UserError(f"{key}: there are no targets; give an array with one per example")
        arrays[TARGETS] = to_array(targets, "labels" if task == "classification" else "targets", key)
        unit = "token" if kind == "tokens" else ""
        shape = (shape[2], *shape[:2]) if kind == "images" else shape
        if task == "classification":
            validate_labels(arrays[TARGETS].shape, count, kind, key)
            arrays[TARGETS], names = encode_labels(arrays[TARGETS], classes, key)
            spec = DataSpec(kind, shape, "class", tuple(names), vocabulary=vocabulary, token_unit=unit)
        else:
            arrays[TARGETS] = check_numeric_targets(arrays[TARGETS], count, key)
            target_shape = arrays[TARGETS].shape[1:]
            spec = DataSpec(kind, shape, "numbers", target_shape=target_shape, vocabulary=vocabulary, token_unit=unit)
    if weights is not None:
        arrays[WEIGHTS] = _check_weights(to_array(weights, "weights", key), spec, count, key)
    if kind != "images":
        hint = (
            "; for images, write `inputs: images`" if key == "data.path" and inputs.ndim == 3 and not vocabulary else ""
        )
        notes.insert(0, f"inputs: {describe_inputs(spec, inputs.dtype)}{hint}")
    if entries is None:
        digest = hashlib.sha256()
        for chunk in Rows(arrays, np.arange(count)):
            for array in chunk.values():
                digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        entries = [ManifestEntry(name, digest.hexdigest(), examples=count)]
    return RawDataset(
        spec,
        arrays,
        entries,
        tuple(notes),
        sides=None if sides is None else parse_sides(to_array(sides, "split", key), count, key),
        groups=None if groups is None else _check_groups(to_array(groups, "groups", key), count, key),
        key=key,
        split_by="the array `split`",
    )


def infer_kind(
    shape: tuple[int, ...],
    dtype: np.dtype,
    kind: InputKind,
    channels: Literal["last", "first"],
    task: TaskName,
    key: str,
) -> Literal["images", "numbers", "tokens"]:
    """Return what inputs are, from their shape and data type.

    `auto` takes these as images: uint8 of 3 or 4 dimensions, and floats of 4 dimensions with 1, 3 or 4 channels. A
    language model's inputs are tokens. All else are numbers.

    Args:
        shape: Shape of the inputs, (n, …).
        dtype: Their data type.
        kind: What the study file says.
        channels: Which axis of images has the channels.
        task: Name of the task.
        key: Key of the study file to name in errors.

    Raises:
        UserError: They cannot be of this kind.
    """
    if not shape or not math.prod(shape):
        raise UserError(f"{key}: the inputs have shape {shape}; the first axis is the example, and none may be empty")
    if kind not in INPUT_KINDS:
        raise UserError(f"{key}: the kind of inputs is {kind!r}; it must be one of {', '.join(INPUT_KINDS)}")
    if task == "language_model":
        if kind not in ("auto", "tokens"):
            raise UserError(f"{key}: a language model needs tokens, not {kind}; remove `inputs: {kind}`")
        kind = "tokens"
    is_like_images = len(shape) == 4 and (
        shape[1 if channels == "first" else 3] in IMAGE_CHANNELS or has_channels_first(shape)
    )
    if kind == "auto":
        is_integer = dtype.kind in "iu" and len(shape) in (3, 4)
        kind = "images" if is_integer or channels == "first" or (dtype.kind == "f" and is_like_images) else "numbers"
    if kind == "images":
        _validate_images(shape, dtype, channels, key)
    elif channels == "first":
        raise UserError(f"data.channels: inputs of shape {shape} are {kind}, which have no channels; remove the key")
    elif kind == "tokens":
        if dtype.kind not in "iu" or len(shape) != 2 or (task == "language_model" and shape[1] < 2):
            raise UserError(
                f"{key}: tokens are {dtype} of shape {shape}; they must be integers of shape (n, length"
                f"{' + 1), with the token that follows last' if task == 'language_model' else ')'}"
            )
    elif dtype.kind not in NUMERIC_KINDS:
        raise UserError(f"{key}: inputs are {describe_dtype(dtype)}; they must be numbers")
    return kind


def _validate_images(shape: tuple[int, ...], dtype: np.dtype, channels: Literal["last", "first"], key: str) -> None:
    if len(shape) not in (3, 4):
        raise UserError(
            f"{key}: the images have shape {shape}; they must be (n, height, width) or (n, height, width, channels)"
        )
    if channels == "first" and len(shape) != 4:
        raise UserError(f"data.channels: images of shape {shape} have no channels; remove the key")
    if channels == "last" and has_channels_first(shape):
        fix = "write `channels: first`" if key == "data.path" else "use np.moveaxis(images, 1, -1)"
        raise UserError(
            f"{'data.channels' if key == 'data.path' else key}: images of shape {shape} are channels-first; {fix}"
        )
    if dtype.kind in "iu" and dtype != np.uint8:
        hint = ", or if they are no images, write `inputs: numbers`" if key == "data.path" else ""
        raise UserError(
            f"{key}: images are {dtype}; they must be uint8 or floats: divide them by the value of white (255 for 8 "
            f"bits, 4095 for 12, 65535 for 16){hint}"
        )
    if dtype.kind != "f" and dtype != np.uint8:
        raise UserError(f"{key}: images are {describe_dtype(dtype)}; they must be uint8 or floats")


def describe_dtype(dtype: np.dtype) -> str:
    """Return the name of a data type for messages."""
    return {"U": "text", "S": "text", "O": "Python objects"}.get(dtype.kind, str(dtype))


def stored_shape(
    shape: tuple[int, ...], kind: Literal["images", "numbers", "tokens"], channels: Literal["last", "first"]
) -> tuple[int, ...]:
    """Return the shape of one input as it is stored: images are (height, width, channels)."""
    if kind != "images":
        return shape[1:] or (1,)
    if len(shape) == 3:
        return (*shape[1:], 1)
    return (shape[2], shape[3], shape[1]) if channels == "first" else shape[1:]


def describe_inputs(spec: DataSpec, dtype: np.dtype) -> str:
    """Return what inputs are, in words."""
    if spec.inputs == "tokens":
        return f"{spec.shape[0]:,} tokens each, of a vocabulary of {spec.vocabulary:,}"
    shape = " × ".join(f"{size:,}" for size in spec.shape)
    return f"{shape} numbers each, {dtype}, stored as float32"


def has_channels_first(shape: tuple[int, ...]) -> bool:
    """Return whether a shape looks like (n, channels, height, width).

    That is, axis 1 has length 1, 3 or 4, and the last axis is too long to be channels.
    """
    return len(shape) == 4 and shape[1] in IMAGE_CHANNELS and shape[3] > max(IMAGE_CHANNELS)


def validate_labels(shape: tuple[int, ...], count: int, kind: str, key: str) -> None:
    """Raise UserError if there is not one label per example."""
    if shape != (count,):
        noun = "image" if kind == "images" else "example"
        raise UserError(
            f"{key}: labels of shape {shape} for {count} {noun}s; give one label per {noun}"
            + (", such as labels[:, 0], or for one-hot labels labels.argmax(axis=1)" if len(shape) == 2 else "")
        )


def check_numeric_targets(targets: np.ndarray, count: int, key: str) -> np.ndarray:
    """Return targets of a regression as (n,) or (n, …); raise UserError if they are not numbers, one per example."""
    if targets.dtype.kind not in NUMERIC_KINDS:
        raise UserError(f"{key}: targets are {describe_dtype(targets.dtype)}; a regression needs numbers")
    if targets.shape[:1] != (count,) or not targets.size:
        raise UserError(f"{key}: targets of shape {targets.shape} for {count} examples; give one target per example")
    return targets.reshape(count) if targets.shape[1:] == (1,) else targets


def _count_tokens(tokens: np.ndarray, key: str) -> int:
    """Return the number of tokens up to the largest one."""
    largest, start = -1, 0
    for chunk in Rows({INPUTS: tokens}, np.arange(len(tokens))):
        values = chunk[INPUTS]
        if values.min() < 0:
            row = start + int(np.flatnonzero((values < 0).any(axis=1))[0])
            raise UserError(f"{key}: example {row}: a token is {values.min()}; tokens are integers from 0")
        largest = max(largest, int(values.max()))
        start += len(values)
    if largest >= 2**31 - 1:
        raise UserError(f"{key}: the largest token is {largest:,}; tokens are indices into a vocabulary from 0")
    return largest + 1


def _check_weights(weights: np.ndarray, spec: DataSpec, count: int, key: str) -> np.ndarray:
    allowed = [(count,), (count, *spec.shape)] if spec.targets == "next_token" else [(count,)]
    if weights.dtype.kind not in NUMERIC_KINDS or weights.shape not in allowed:
        raise UserError(
            f"{key}: weights are {describe_dtype(weights.dtype)} of shape {weights.shape}; they must be numbers of "
            f"shape {' or '.join(map(str, allowed))}"
        )
    return weights


def parse_sides(sides: np.ndarray, count: int, key: str) -> np.ndarray:
    """Return sides, (n,), as indices of SIDES, from their names or from 0, 1 and 2. Raises UserError for all else."""
    if sides.shape != (count,):
        raise UserError(f"{key}: split of shape {sides.shape} for {count} examples; give one side per example")
    values, codes = np.unique(sides.astype(str) if sides.dtype == object else sides, return_inverse=True)
    names = [value.decode(errors="replace") if isinstance(value, bytes) else value for value in values.tolist()]
    parsed = [
        (SIDES.index(side) if (side := SIDE_OF_WORD.get(name.strip().lower())) else -1)
        if isinstance(name, str)
        else (name if name in (0, 1, 2) else -1)
        for name in names
    ]
    if -1 in parsed or sides.dtype.kind == "b":
        index = int(np.flatnonzero(codes == parsed.index(-1))[0]) if -1 in parsed else 0
        raise UserError(
            f"{key}: split: example {index} is {sides[index]}; it must be one of {', '.join(SIDES)}, or 0, 1 or 2"
        )
    return np.array(parsed, np.int8)[codes.reshape(-1)]


def _check_groups(groups: np.ndarray, count: int, key: str) -> np.ndarray:
    if groups.dtype == object and all(isinstance(group, str) for group in groups):
        groups = groups.astype(str)
    if groups.dtype.kind not in "iubUS" or groups.shape != (count,):
        raise UserError(
            f"{key}: groups are {describe_dtype(groups.dtype)} of shape {groups.shape}; they must be integers or text "
            f"of shape {(count,)}"
        )
    return groups


def to_array(values: Any, name: str, key: str) -> np.ndarray:
    """Return values as an array; raise UserError, naming it, if that is impossible."""
    try:
        return np.asarray(values)
    except Exception as error:  # rows of different lengths, a tensor on a GPU, …
        raise UserError(f"{key}: the {name} cannot be converted to a NumPy array: {' '.join(str(error).split())}")
