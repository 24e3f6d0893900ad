"""Examples from a `LightningDataModule`, whose datasets are read once, in order."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from batchscape.config.data.section import TaskName
from batchscape.data.interpret import IMAGE_CHANNELS, from_arrays
from batchscape.data.scratch import Scratch
from batchscape.data.source import LoadOptions, RawDataset, reject_measured_values
from batchscape.data.spec import SIDES, TEST, TRAIN, VALIDATION
from batchscape.errors import UserError
from batchscape.runtime.randomness import seed_global_rngs
from batchscape.runtime.user_code import overridden_methods, summarize_error

KEY = "data.source"
LOADERS = {TRAIN: "train_dataloader", VALIDATION: "val_dataloader", TEST: "test_dataloader"}
# The first examples of each side are read twice: augmentation that changes half of them is missed once in 65,536 times.
NUM_REPEATED = 16
# Examples that are in memory at once.
CHUNK = 256
_TRANSFERS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
# `default_collate` is in this module; it has no name of its own that loaders of all versions of torch share.
_DEFAULT_COLLATE = "torch.utils.data._utils.collate"


class _Example(NamedTuple):
    """An item of a dataset."""

    inputs: np.ndarray
    targets: np.ndarray | None


@contextmanager
def seed_generators() -> Iterator[None]:
    """Seed the global generators while the block runs, so that `random_split` draws the same each time."""
    with torch.random.fork_rng(devices=[]), seed_global_rngs(0):
        torch.manual_seed(0)
        yield


def load_data_module(module: Any, source: str, options: LoadOptions) -> RawDataset:
    """Return the examples of the training, validation and test loaders of a LightningDataModule.

    An item of a dataset is (inputs, target); for a language model it may be the tokens alone, the next one included.
    Inputs of shape (channels, height, width) are images. Labels are indices of classes.

    Args:
        module: The LightningDataModule.
        source: Its import path, for messages.
        options: The task, and the folder for temporary files.

    Raises:
        UserError: It fails, or it gives examples that cannot be stored: those of an iterable dataset, of varying
            shapes, in dicts, or other ones each time they are read.
    """
    with seed_generators():
        datasets = _datasets(module, source)
        inputs, targets, sides = _read(datasets, source, options.task, options.folder)
    classes = None
    if options.task == "classification" and targets is not None:
        classes = _classes(targets, datasets[TRAIN], source)
    kind, channels = _kind(inputs)
    raw = from_arrays(
        inputs, targets, classes, source, KEY, task=options.task, kind=kind, channels=channels, sides=sides
    )
    note = f"data: {source}: its datasets are read once, in order; batches are those of the study"
    return RawDataset(**{**vars(raw), "notes": (note, *raw.notes), "split_by": f"the loaders of {source}"})


def _datasets(module: Any, source: str) -> dict[str, Any]:
    """Return the map-style dataset of each side that the module has."""
    overridden = overridden_methods(module, "LightningDataModule") or set()
    if transfers := [name for name in _TRANSFERS if name in overridden]:
        raise UserError(
            f"{KEY}: {source} defines {transfers[0]}, which changes batches, and a study stores examples; change them "
            "in the dataset or in the network"
        )
    if LOADERS[TRAIN] not in overridden:
        raise UserError(f"{KEY}: {source} has no train_dataloader; define it")
    _call(module.prepare_data, source, "prepare_data")
    _call(lambda: module.setup("fit"), source, 'setup("fit")')
    if LOADERS[TEST] in overridden:
        _call(lambda: module.setup("test"), source, 'setup("test")')
    return {
        side: _dataset(_call(getattr(module, name), source, name), source, name)
        for side, name in LOADERS.items()
        if name in overridden
    }


def _call(function: Callable[[], Any], source: str, name: str) -> Any:
    try:
        return function()
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f"{KEY}: {name} of {source} fails: {summarize_error(error)}")


def _dataset(loader: Any, source: str, name: str) -> Any:
    """Return the dataset of a loader. Raises UserError if its examples cannot be read one by one."""
    place = f"{KEY}: {name} of {source}"
    if isinstance(loader, list | tuple) and len(loader) == 1:
        loader = loader[0]
    if not hasattr(loader, "dataset"):
        several = isinstance(loader, list | tuple | dict)
        found = f"{len(loader)} loaders" if several else type(loader).__name__
        raise UserError(f"{place} returns {found}; return one torch.utils.data.DataLoader")
    dataset = loader.dataset
    if any(cls.__name__ == "IterableDataset" for cls in type(dataset).__mro__) or not hasattr(dataset, "__len__"):
        raise UserError(
            f"{place} has the iterable dataset {type(dataset).__name__}, of which epochs cannot be shuffled by a seed; "
            "give it __len__ and __getitem__"
        )
    if not len(dataset):
        raise UserError(f"{place} has an empty dataset; add examples, or remove the loader")
    collate = getattr(loader, "collate_fn", None)
    if getattr(loader, "batch_size", None) is not None and getattr(collate, "__module__", None) != _DEFAULT_COLLATE:
        raise UserError(
            f"{place} has a collate_fn, which would not be used, because a study makes its own batches; change the "
            "examples in the dataset"
        )
    sampler = getattr(loader, "sampler", None)
    is_complete = not getattr(sampler, "replacement", False) and len(sampler or dataset) == len(dataset)
    if type(sampler).__name__ not in ("RandomSampler", "SequentialSampler") or not is_complete:
        raise UserError(
            f"{place} has the sampler {type(sampler).__name__}, which would not be used, because a study draws its own "
            "batches; use shuffle=True, or weights of classes (`task.class_weights`)"
        )
    return dataset


def _read(
    datasets: dict[str, Any], source: str, task: TaskName, folder: Path | None
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Return inputs, targets and sides of all examples."""
    inputs: Scratch | None = None
    first: _Example | None = None
    targets: list[np.ndarray] = []
    sides: list[int] = []
    for side, dataset in datasets.items():
        place = f"{KEY}: {LOADERS[side]} of {source}"
        _reject_augmentation(dataset, place, task)
        for start in range(0, len(dataset), CHUNK):
            rows = range(start, min(start + CHUNK, len(dataset)))
            chunk = [_example(dataset, index, place, task) for index in rows]
            first = first or chunk[0]
            for index, example in zip(rows, chunk, strict=True):
                _check_like(example, first, f"{place}: example {index}")
            inputs = inputs or Scratch(first.inputs.shape, first.inputs.dtype, folder)
            inputs.append(np.stack([example.inputs for example in chunk]))
            targets += [example.targets for example in chunk if example.targets is not None]
            sides += [SIDES.index(side)] * len(chunk)
    assert inputs is not None
    return inputs.read(), np.stack(targets) if targets else None, np.array(sides)


def _example(dataset: Any, index: int, place: str, task: TaskName) -> _Example:
    try:
        item = dataset[index]
    except Exception as error:
        raise UserError(f"{place}: example {index} cannot be read: {summarize_error(error)}")
    if task == "language_model":
        tokens = item[0] if isinstance(item, list | tuple) and len(item) == 1 else item
        if isinstance(tokens, list | tuple | dict) or np.ndim(tokens) != 1:
            raise UserError(
                f"{place}: example {index} is {_describe(item)}; for a language model it must be its tokens, with the "
                "one that follows last"
            )
        return _Example(np.asarray(tokens).copy(), None)
    parts = tuple(item) if isinstance(item, list | tuple) else ()
    if len(parts) != 2 or any(isinstance(part, list | tuple | dict) for part in parts):
        raise UserError(
            f"{place}: example {index} is {_describe(item)}; it must be a pair of an array and a target, (inputs, "
            "target)"
        )
    try:
        inputs, target = map(np.asarray, parts)
        return _Example(inputs.copy(), target.copy())  # as the dataset may reuse its memory
    except Exception as error:
        raise UserError(f"{place}: example {index} is not an array: {summarize_error(error)}")


def _describe(item: Any) -> str:
    if isinstance(item, dict):
        return f"a dict with {', '.join(map(str, item))}"
    if isinstance(item, list | tuple):
        return f"a {type(item).__name__} of {', '.join(type(part).__name__ for part in item)}"
    return f"a {type(item).__name__}"


def _check_like(example: _Example, first: _Example, place: str) -> None:
    """Raise UserError if an example has another shape or data type than the first one."""
    for noun, part, usual in zip(("an input", "a target"), example, first, strict=True):
        if part is None or usual is None:
            continue
        if part.shape != usual.shape:
            raise UserError(
                f"{place} has {noun} of shape {part.shape}, and the first one {usual.shape}; make them the same, by "
                "cropping or padding"
            )
        if part.dtype != usual.dtype:
            raise UserError(f"{place} has {noun} of {part.dtype}, and the first one {usual.dtype}; convert them to one")


def _reject_augmentation(dataset: Any, place: str, task: TaskName) -> None:
    """Raise UserError if an example differs when it is read again."""
    for index in range(min(NUM_REPEATED, len(dataset))):
        once, again = (_example(dataset, index, place, task) for _ in range(2))
        same = all(
            np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
            for a, b in zip(once, again, strict=True)
            if a is not None and b is not None
        )
        if not same:
            raise UserError(
                f"{place}: example {index} differs when it is read again, as with random augmentation, and a study "
                "stores each example once; remove the augmentation, or write `training.augment_flip: true`"
            )


def _classes(labels: np.ndarray, dataset: Any, source: str) -> list[str] | None:
    """Return the names of the classes, of which labels are indices; None if they are no integers, an error later."""
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        return None
    values, counts = np.unique(labels, return_counts=True)
    reject_measured_values(values, counts, KEY)
    if values[0] < 0:
        raise UserError(f"{KEY}: {source} has the label {values[0]}; labels must be indices of classes, from 0")
    while not hasattr(dataset, "classes") and hasattr(dataset, "dataset"):  # Subset, as of random_split
        dataset = dataset.dataset
    names = [str(name) for name in getattr(dataset, "classes", ())]
    return names if len(names) > values[-1] and len({*names}) == len(names) else list(map(str, range(values[-1] + 1)))


def _kind(inputs: np.ndarray) -> tuple[Literal["images", "numbers", "tokens"], Literal["first", "last"]]:
    """Return what inputs are, such that a network takes them in the shape that a loader gives them."""
    is_image = inputs.ndim == 4 and inputs.shape[1] in IMAGE_CHANNELS
    if is_image and (inputs.dtype.kind == "f" or inputs.dtype == np.uint8):
        return "images", "first"
    return ("tokens" if inputs.dtype.kind in "iu" and inputs.ndim == 2 else "numbers"), "last"
