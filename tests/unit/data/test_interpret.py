"""Arrays of any type as examples: what they are taken for, and what is refused in one line."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from batchscape.config.data.arrays import ArraysConfig
from batchscape.config.data.section import TaskName
from batchscape.data.inspect import inspect_source
from batchscape.data.interpret import from_arrays
from batchscape.data.prepare import PrepareResult, prepare
from batchscape.data.spec import DataSpec

RNG = np.random.default_rng(0)
LABELS = np.arange(30) % 3
NUMBERS = RNG.normal(size=(30, 4))
TOKENS = RNG.integers(0, 50, (30, 9))
TARGETS = RNG.normal(size=30)


def prepare_arrays(
    folder: Path, task: TaskName = "classification", keys: dict | None = None, **arrays
) -> PrepareResult:
    """Return arrays prepared through a file."""
    np.savez(folder / "data.npz", **arrays)
    return prepare(ArraysConfig(source="arrays", path=str(folder / "data.npz"), **(keys or {})), task=task)


@pytest.mark.parametrize(
    ("task", "inputs", "keys", "expected"),
    [
        ("classification", np.zeros((30, 5, 6), np.uint8), {}, DataSpec("images", (1, 5, 6), "class")),
        ("classification", np.zeros((30, 5, 6, 3), np.uint8), {}, DataSpec("images", (3, 5, 6), "class")),
        ("classification", np.zeros((30, 5, 6, 7), np.uint8), {}, DataSpec("images", (7, 5, 6), "class")),
        ("classification", np.zeros((30, 5, 6, 4)), {}, DataSpec("images", (4, 5, 6), "class")),
        ("classification", np.zeros((30, 5, 6)), {}, DataSpec("numbers", (5, 6), "class")),
        ("classification", np.zeros((30, 5, 6)), {"inputs": "images"}, DataSpec("images", (1, 5, 6), "class")),
        ("classification", np.zeros((30, 2, 5, 6)), {"channels": "first"}, DataSpec("images", (2, 5, 6), "class")),
        ("classification", np.zeros((30, 5, 6, 9)), {}, DataSpec("numbers", (5, 6, 9), "class")),
        ("classification", np.zeros((30, 5, 6), np.uint8), {"inputs": "numbers"}, DataSpec("numbers", (5, 6), "class")),
        ("classification", np.zeros(30, np.float16), {}, DataSpec("numbers", (1,), "class")),
        ("classification", np.zeros((30, 5), bool), {}, DataSpec("numbers", (5,), "class")),
        (
            "classification",
            TOKENS,
            {"inputs": "tokens"},
            DataSpec("tokens", (9,), "class", vocabulary=50, token_unit="token"),
        ),
        ("regression", np.zeros((30, 5), np.int16), {}, DataSpec("numbers", (5,), "numbers")),
        ("regression", np.zeros((30, 5, 6, 3), np.uint8), {}, DataSpec("images", (3, 5, 6), "numbers")),
        ("language_model", TOKENS, {}, DataSpec("tokens", (8,), "next_token", vocabulary=50, token_unit="token")),
    ],
    ids=range(15),
)
def test_inputs_are_taken_for_images_numbers_or_tokens(
    task: TaskName, inputs: np.ndarray, keys: dict, expected: DataSpec, tmp_path: Path
):
    targets = {} if task == "language_model" else {"targets": TARGETS if task == "regression" else LABELS}
    prepared = prepare_arrays(tmp_path, task, keys, inputs=inputs, **targets)
    spec = prepared.data.spec
    assert (spec.inputs, spec.shape, spec.targets) == (expected.inputs, expected.shape, expected.targets)
    assert (spec.vocabulary, spec.token_unit) == (expected.vocabulary, expected.token_unit)
    assert spec.classes == (("0", "1", "2") if task == "classification" else ())
    config = ArraysConfig(source="arrays", path=str(tmp_path / "data.npz"), **keys)
    inspection = inspect_source(config, task)
    assert inspection.counts == (24, 6)
    if spec.inputs != "tokens":
        assert inspection.spec is not None
        assert (inspection.spec.shape, inspection.spec.classes) == (spec.shape, spec.classes)


@pytest.mark.parametrize("dtype", [">f8", "f2", "i8", "u2", "f4"])
def test_numbers_of_any_type_become_float32(dtype: str, tmp_path: Path):
    values = np.abs(NUMBERS * 10).astype(dtype)
    stored = prepare_arrays(tmp_path, keys={"split": "first"}, inputs=values, targets=LABELS).data
    inputs = np.concatenate([side.arrays["inputs"].numpy() for side in (stored.train, stored.validation)])
    assert inputs.dtype == np.float32
    assert np.array_equal(inputs, values.astype(np.float32))


def test_arrays_stored_column_by_column_are_read_as_they_are(tmp_path: Path):
    prepared = prepare_arrays(tmp_path, keys={"split": "first"}, inputs=np.asfortranarray(NUMBERS), targets=LABELS)
    assert np.array_equal(prepared.data.train.arrays["inputs"].numpy(), NUMBERS[:24].astype(np.float32))


def test_floats_of_images_are_not_rounded(tmp_path: Path):
    images = RNG.normal(size=(30, 2, 3, 1))
    prepared = prepare_arrays(tmp_path, keys={"split": "first"}, images=images, labels=LABELS)
    assert np.array_equal(prepared.data.train.arrays["inputs"].numpy(), images[:24].astype(np.float32))
    line = next(line for line in prepared.summary if line.startswith("levels: "))
    assert line.startswith("levels: pixel values are floats from -")
    assert line.endswith(", and are not scaled")
    bright = prepare_arrays(tmp_path, images=np.abs(images) * 100, labels=LABELS)
    assert any("divide them by the value of white beforehand" in line for line in bright.summary)


@pytest.mark.parametrize("shape", [(30,), (30, 1), (30, 2)])
def test_numeric_targets_keep_their_shape_and_their_variance_is_known(shape: tuple, tmp_path: Path):
    targets = RNG.normal(size=shape) * 5 + 1000
    prepared = prepare_arrays(tmp_path, "regression", {"split": "first"}, inputs=NUMBERS, targets=targets)
    spec = prepared.data.spec
    assert spec.target_shape == ((2,) if shape == (30, 2) else ())
    stored = prepared.data.train.arrays["targets"].numpy()
    assert np.array_equal(stored, targets[:24].reshape(stored.shape).astype(np.float32))
    assert spec.target_variance["validation"] == pytest.approx(
        np.var(targets[24:].astype(np.float32), axis=0, dtype=np.float64).mean(), rel=1e-10
    )


def test_language_model_needs_no_targets_and_holds_the_smallest_integers(tmp_path: Path):
    for largest, dtype in ((255, np.uint8), (256, np.int16), (32767, np.int16), (32768, np.int32)):
        tokens = TOKENS.copy()
        tokens[3, 4] = largest
        prepared = prepare_arrays(tmp_path, "language_model", {"split": "first"}, inputs=tokens)
        stored = prepared.data.train.arrays
        assert set(stored) == {"inputs"}
        assert stored["inputs"].numpy().dtype == dtype
        assert np.array_equal(stored["inputs"].numpy(), tokens[:24])
        assert prepared.data.spec.vocabulary == largest + 1


def test_weights_split_and_groups_are_used(tmp_path: Path):
    weights = RNG.random(30) + 0.1
    split = np.array(["train"] * 20 + ["val"] * 6 + ["Test"] * 4)
    for given in (split, np.repeat([0, 1, 2], [20, 6, 4])):
        prepared = prepare_arrays(tmp_path, inputs=NUMBERS, targets=LABELS, weights=weights, split=given)
        sides = prepared.data.sides
        assert {name: len(side) for name, side in sides.items()} == {"train": 20, "validation": 6, "test": 4}
        stored = np.concatenate([side.arrays["weights"].numpy() for side in sides.values()])
        assert np.array_equal(stored, weights.astype(np.float32))
        assert prepared.summary[0] == ("30 of 30 examples are used: 20 for training, 6 for validation, 4 for testing")
    groups = np.repeat(np.arange(10), 3)
    grouped = prepare_arrays(tmp_path, inputs=np.c_[NUMBERS, groups], targets=LABELS, groups=groups)
    sides = [set(side.arrays["inputs"][:, 4].tolist()) for side in grouped.data.sides.values()]
    assert (len(sides[0]), len(sides[1])) == (8, 2)
    assert not sides[0] & sides[1]
    line = "split: 20 % of the examples, drawn at random by group, are for validation (data.split_seed: 0)"
    assert line in grouped.summary


def test_test_side_without_validation_side_leaves_validation_to_the_study(tmp_path: Path):
    split = np.repeat([0, 2], [20, 10])
    prepared = prepare_arrays(tmp_path, inputs=NUMBERS, targets=LABELS, split=split)
    assert {name: len(side) for name, side in prepared.data.sides.items()} == {
        "train": 16, "validation": 4, "test": 10,
    }  # fmt: skip


def test_stratified_split_has_each_class_on_each_side(tmp_path: Path):
    keys = {"stratify": True, "validation_fraction": 0.2, "test_fraction": 0.1}
    prepared = prepare_arrays(tmp_path, keys=keys, inputs=NUMBERS, targets=LABELS)
    counts = [np.bincount(side.arrays["targets"].numpy()).tolist() for side in prepared.data.sides.values()]
    assert counts == [[7, 7, 7], [2, 2, 2], [1, 1, 1]]
    line = "split: 20 % of the examples, drawn at random within each class or tenth, are for validation, and 10 % for "
    assert line + "testing (data.split_seed: 0)" in prepared.summary
    numeric = prepare_arrays(tmp_path, "regression", keys, inputs=NUMBERS, targets=np.arange(30.0))
    validating = np.sort(numeric.data.validation.arrays["targets"].numpy())
    assert len(set(validating // 3)) == 6  # at most one of each tenth


NAN = NUMBERS.copy()
NAN[7, 2] = np.nan

# Arrays, keys of the section, the task, and the start of the message.
BAD = {
    "NaN in an input": ({"inputs": NAN, "targets": LABELS}, {}, "", "data.path: example 7: the input is NaN, infinite"),
    "infinite target": (
        {"inputs": NUMBERS, "targets": np.where(np.arange(30) == 4, np.inf, TARGETS)},
        {},
        "regression",
        "data.path: example 4: the target inf is NaN, infinite or too large for float32",
    ),
    "too large for float32": (
        {"inputs": NUMBERS, "targets": np.where(np.arange(30) == 4, 1e39, TARGETS)},
        {},
        "regression",
        "data.path: example 4: the target 1e+39 is NaN, infinite or too large",
    ),
    "negative weight": (
        {"inputs": NUMBERS, "targets": LABELS, "weights": np.where(np.arange(30) == 5, -1, 1)},
        {},
        "",
        "data.path: example 5: the weight -1 is negative",
    ),
    "weight of 0": (
        {"inputs": NUMBERS, "targets": LABELS, "weights": np.where(np.arange(30) == 5, 0, 1)},
        {},
        "",
        "data.path: example 5: the weight 0 is not above 0: remove the example",
    ),
    "NaN weight": (
        {"inputs": NUMBERS, "targets": LABELS, "weights": np.where(np.arange(30) == 5, np.nan, 1)},
        {},
        "",
        "data.path: example 5: the weight nan is NaN, infinite",
    ),
    "weights of another length": (
        {"inputs": NUMBERS, "targets": LABELS, "weights": np.ones(29)},
        {},
        "",
        "data.path: weights are float64 of shape (29,); they must be numbers of shape (30,)",
    ),
    "text as weights": (
        {"inputs": NUMBERS, "targets": LABELS, "weights": np.full(30, "1")},
        {},
        "",
        "data.path: weights are text of shape (30,)",
    ),
    "text as inputs": ({"inputs": NUMBERS.astype(str), "targets": LABELS}, {}, "", "data.path: inputs are text;"),
    "dates as inputs": (
        {"inputs": np.zeros((30, 2), "M8[s]"), "targets": LABELS},
        {},
        "",
        "data.path: inputs are datetime64[s]; they must be numbers",
    ),
    "complex inputs": ({"inputs": NUMBERS + 1j, "targets": LABELS}, {}, "", "data.path: inputs are complex128;"),
    "no axis": ({"inputs": np.array(3.0), "targets": LABELS}, {}, "", "data.path: the inputs have shape ();"),
    "empty axis": (
        {"inputs": np.zeros((30, 0)), "targets": LABELS},
        {},
        "",
        "data.path: the inputs have shape (30, 0);",
    ),
    "one-hot labels": (
        {"inputs": NUMBERS, "targets": np.eye(3)[LABELS]},
        {},
        "",
        "data.path: labels of shape (30, 3) for 30 examples; give one label per example, such as labels[:, 0], or for "
        "one-hot labels labels.argmax(axis=1)",
    ),
    "numbers as classes": (
        {"inputs": NUMBERS, "targets": TARGETS},
        {},
        "",
        "data.path: labels are float64; classes must be integers or text; for numbers, write `task: {name: ",
    ),
    "measured values as classes": (
        {"inputs": NUMBERS, "targets": np.arange(30) * 7},
        {},
        "",
        "data.path: the labels are 30 different integers from 0 to 203, half of them with fewer than 3 examples; these "
        "look like measured values: predict them with `task: {name: regression}`",
    ),
    "text as numeric targets": (
        {"inputs": NUMBERS, "targets": LABELS.astype(str)},
        {},
        "regression",
        "data.path: targets are text; a regression needs numbers",
    ),
    "targets of another length": (
        {"inputs": NUMBERS, "targets": TARGETS[:9]},
        {},
        "regression",
        "data.path: targets of shape (9,) for 30 examples; give one target per example",
    ),
    "no targets": ({"inputs": NUMBERS}, {}, "", "data.path: {path} has no array `labels`, only inputs; save it with "),
    "both names": (
        {"inputs": NUMBERS, "images": NUMBERS, "targets": LABELS},
        {},
        "",
        "data.path: {path} has both `inputs` and `images`; keep one of them",
    ),
    "one class": ({"inputs": NUMBERS, "targets": LABELS * 0}, {}, "", "data: only one class (0) has usable examples;"),
    "fractions as tokens": (
        {"inputs": NUMBERS},
        {},
        "language_model",
        "data.path: tokens are float64 of shape (30, 4); they must be integers of shape (n, length + 1), with the "
        "token that follows last",
    ),
    "one token": ({"inputs": TOKENS[:, :1]}, {}, "language_model", "data.path: tokens are int64 of shape (30, 1);"),
    "a stream of tokens": ({"inputs": TOKENS[0]}, {}, "language_model", "data.path: tokens are int64 of shape (9,);"),
    "negative token": (
        {"inputs": np.where(np.arange(30)[:, None] == 4, -100, TOKENS)},
        {},
        "language_model",
        "data.path: example 4: a token is -100; tokens are integers from 0",
    ),
    "huge token": (
        {"inputs": np.where(np.arange(30)[:, None] == 4, 2**40, TOKENS)},
        {},
        "language_model",
        "data.path: the largest token is 1,099,511,627,776;",
    ),
    "images for a language model": (
        {"inputs": TOKENS},
        {"inputs": "images"},
        "language_model",
        "data.path: a language model needs tokens, not images; remove `inputs: images`",
    ),
    "numbers with channels": (
        {"inputs": NUMBERS, "targets": LABELS},
        {"channels": "first", "inputs": "numbers"},
        "",
        "data.channels: inputs of shape (30, 4) are numbers, which have no channels; remove the key",
    ),
    "vectors as images": (
        {"inputs": NUMBERS, "targets": LABELS},
        {"inputs": "images"},
        "",
        "data.path: the images have shape (30, 4); they must be (n, height, width) or ",
    ),
    "floats with channels first": (
        {"inputs": np.zeros((30, 3, 8, 8)), "targets": LABELS},
        {},
        "",
        "data.channels: images of shape (30, 3, 8, 8) are channels-first; write `channels: first`",
    ),
    "bytes with four channels first": (
        {"inputs": np.zeros((30, 4, 8, 8), np.uint8), "targets": LABELS},
        {},
        "",
        "data.channels: images of shape (30, 4, 8, 8) are channels-first; write `channels: first`",
    ),
    "floats with four channels first": (
        {"inputs": np.zeros((30, 4, 8, 8)), "targets": LABELS},
        {},
        "",
        "data.channels: images of shape (30, 4, 8, 8) are channels-first; write `channels: first`",
    ),
    "16 bits": (
        {"inputs": np.zeros((30, 8, 8), np.uint16), "targets": LABELS},
        {},
        "",
        "data.path: images are uint16; they must be uint8 or floats: divide them by the value of white (255 for 8 "
        "bits, 4095 for 12, 65535 for 16), or if they are no images, write `inputs: numbers`",
    ),
    "unknown side": (
        {"inputs": NUMBERS, "targets": LABELS, "split": np.where(np.arange(30) == 6, "trian", "train")},
        {},
        "",
        "data.path: split: example 6 is trian; it must be one of train, validation, test, or 0, 1 or 2",
    ),
    "side 3": (
        {"inputs": NUMBERS, "targets": LABELS, "split": np.arange(30) % 4},
        {},
        "",
        "data.path: split: example 3 is 3; it must be",
    ),
    "booleans as sides": (
        {"inputs": NUMBERS, "targets": LABELS, "split": np.arange(30) < 20},
        {},
        "",
        "data.path: split: example 0 is True; it must be",
    ),
    "split of another length": (
        {"inputs": NUMBERS, "targets": LABELS, "split": np.zeros(3, int)},
        {},
        "",
        "data.path: split of shape (3,) for 30 examples; give one side per example",
    ),
    "no training side": (
        {"inputs": NUMBERS, "targets": LABELS, "split": np.repeat([1, 2], 15)},
        {},
        "",
        "data.path: the split given by the array `split` has no training examples; add some",
    ),
    "split given twice": (
        {"inputs": NUMBERS, "targets": LABELS, "split": np.repeat([0, 1], 15)},
        {"validation_fraction": 0.3},
        "",
        "data.validation_fraction: cannot be set, because the split is given by the array `split`; remove the key",
    ),
    "test side given twice": (
        {"inputs": NUMBERS, "targets": LABELS, "split": np.repeat([0, 2], 15)},
        {"test_fraction": 0.3},
        "",
        "data.test_fraction: cannot be set, because the split is given by the array `split`; remove the key",
    ),
    "group on two sides": (
        {"inputs": NUMBERS, "targets": LABELS, "split": np.repeat([0, 1], 15), "groups": np.arange(30) // 4},
        {},
        "",
        "data.path: example 12 and example 15 are of one group, but on the sides train and validation of the split "
        "given by the array `split`; put each group on one side",
    ),
    "fractions as groups": (
        {"inputs": NUMBERS, "targets": LABELS, "groups": TARGETS},
        {},
        "",
        "data.path: groups are float64 of shape (30,); they must be integers or text of shape (30,)",
    ),
    "one group": (
        {"inputs": NUMBERS, "targets": LABELS, "groups": np.zeros(30, int)},
        {},
        "",
        "data.validation_fraction: no group is left for training; lower it",
    ),
    "groups and strata": (
        {"inputs": NUMBERS, "targets": LABELS, "groups": np.arange(30) // 4},
        {"stratify": True},
        "",
        "data.stratify: cannot be combined with groups; remove the key, or the groups",
    ),
    "strata of a text": (
        {"inputs": TOKENS},
        {"stratify": True},
        "language_model",
        "data.stratify: the next token of a text has no classes; remove the key",
    ),
    "no validation side": (
        {"inputs": NUMBERS, "targets": LABELS},
        {"validation_fraction": 0.001},
        "",
        "data.validation_fraction: 0.001 of 30 examples leaves one side of the split empty; choose",
    ),
    "no test side": (
        {"inputs": NUMBERS, "targets": LABELS},
        {"test_fraction": 0.001},
        "",
        "data.test_fraction: 0.001 of 30 examples leaves one side of the split empty; choose",
    ),
    "Python objects": (
        {"inputs": np.array([[None, 1]] * 30), "targets": LABELS},
        {},
        "",
        "data.path: {path} cannot be read as .npy or .npz (it contains Python objects; save",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_unusable_arrays_are_refused_in_one_line(case: str, tmp_path: Path, refusal: Callable):
    arrays, keys, task, expected = BAD[case]
    message = refusal(prepare_arrays, tmp_path, task or "classification", keys, **arrays)
    assert message.startswith(expected.format(path=tmp_path / "data.npz") if "{path}" in expected else expected)


@pytest.mark.parametrize("task", ["regression", "language_model"])
def test_source_without_the_targets_of_a_task_is_refused(task: TaskName, refusal: Callable):
    from batchscape.config.data.images import DigitsConfig

    assert refusal(prepare, DigitsConfig(), task=task) == (
        f"task.name: {task} is not possible with data.source digits, which gives classification; use another task or "
        "source"
    )


def test_arrays_are_read_only_if_mapped_and_not_changed(tmp_path: Path):
    np.save(tmp_path / "inputs.npy", NUMBERS)
    mapped = np.load(tmp_path / "inputs.npy", mmap_mode="r")
    source = from_arrays(mapped, LABELS, None, "data", "data.source")
    assert np.shares_memory(source.arrays["inputs"], mapped)


def test_values_far_from_those_that_networks_train_on_are_reported(tmp_path: Path):
    def lines(inputs: np.ndarray, targets: np.ndarray) -> list[str]:
        summary = prepare_arrays(tmp_path, "regression", {"split": "first"}, inputs=inputs, targets=targets).summary
        return [line for line in summary if line.startswith(("inputs: values", "targets: "))]

    usual = lines(NUMBERS, TARGETS)
    assert [line.endswith(("not scaled", "on the training side")) for line in usual] == [True, True]
    raw, large = lines(NUMBERS * 1000, TARGETS * 3 + 500)
    assert "scale them beforehand" in raw
    mean, deviation = (TARGETS[:24] * 3 + 500).mean(), (TARGETS[:24] * 3).std()
    hint = "; networks train better on targets with mean 0 and standard deviation 1: scale them beforehand"
    assert large == f"targets: mean {mean:.6g}, standard deviation {deviation:.6g} on the training side{hint}"
    targets = TARGETS * 3 + 500  # of which `check` does not know the training side
    line = inspect_source(ArraysConfig(source="arrays", path=str(tmp_path / "data.npz")), "regression").lines[1]
    mean, deviation = targets.mean(), targets.std()
    assert line == f"data: targets: mean {mean:.6g}, standard deviation {deviation:.6g} of all examples{hint}"
