"""Custom data sources: what a function may return."""

from collections.abc import Callable

import numpy as np
import pytest

from batchscape.config.data.arrays import CustomDataConfig
from batchscape.data.custom import load
from batchscape.data.prepare import prepare
from batchscape.data.source import LoadOptions
from batchscape.errors import UserError

RGB = (3, 12, 10)


def load_from(text: str, write_module: Callable, **arguments):
    write_module("my_data.py", f"import numpy as np\n{text}")
    return load(CustomDataConfig(source="my_data:load", arguments=arguments))


def test_function_returns_images_labels_and_classes(write_module: Callable):
    source = load_from(
        "def load(n):\n    return np.arange(n * 4, dtype=np.uint8).reshape(n, 2, 2), np.arange(n) % 2, ['no', 'yes']",
        write_module,
        n=5,
    )
    assert source.arrays["inputs"].shape == (5, 2, 2, 1)
    assert source.arrays["inputs"][1].ravel().tolist() == [4, 5, 6, 7]
    assert source.arrays["targets"].tolist() == [0, 1, 0, 1, 0]
    assert source.spec.classes == ("no", "yes")


def test_labels_without_names_are_classes_in_order(write_module: Callable):
    source = load_from(
        "def load():\n    return np.zeros((4, 2, 3, 3), np.uint8), np.array(['b', 'a', 'c', 'a'])", write_module
    )
    assert source.spec.classes == ("a", "b", "c")
    assert source.arrays["targets"].tolist() == [1, 0, 2, 0]


@pytest.mark.parametrize("labels", ["np.array([1, 0, 1]) == 1", "np.array([1, 0, 1], np.uint8)", "[1, 0, 1]"])
def test_labels_with_names_may_be_any_integer_type(write_module: Callable, labels: str):
    source = load_from(
        f"def load():\n    return np.zeros((3, 2, 2), np.uint8), {labels}, np.array(['no', 'yes'])", write_module
    )
    assert (source.arrays["targets"].tolist(), source.arrays["targets"].dtype) == ([1, 0, 1], np.int64)
    assert source.spec.classes == ("no", "yes")


def test_strings_in_an_object_array_are_text(write_module: Callable):
    source = load_from(
        "def load():\n    return np.zeros((3, 2, 2), np.uint8), np.array(['b', 'a', 'b'], object)", write_module
    )
    assert (source.spec.classes, source.arrays["targets"].tolist()) == (("a", "b"), [1, 0, 1])


def test_floats_stay_as_they_are(write_module: Callable):
    source = load_from("def load():\n    return np.array([[[0, 0.5, 1, -3]]]), np.array([3])", write_module)
    assert (source.spec.inputs, source.spec.shape) == ("numbers", (1, 4))
    assert source.arrays["inputs"].tolist() == [[[0, 0.5, 1, -3]]]


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        ("np.zeros((3, 2, 2), np.uint8)", "must return (images, labels)"),
        ("np.zeros((0, 2, 2), np.uint8), np.zeros(0, int)", "the inputs have shape (0, 2, 2)"),
        ("np.zeros((3, 2, 2), np.uint8), np.zeros(4, int)", "labels of shape (4,) for 3 images"),
        ("np.zeros((3, 2, 2), np.int32), np.zeros(3, int)", "images are int32"),
        ("np.zeros((3, 2, 2), np.uint8), np.zeros(3)", "labels are float64"),
        ("np.zeros((3, 2, 2), np.uint8), np.array([0, 1, 2]), ['a', 'b']", "integers from 0 to 1"),
        ("np.zeros((3, 2, 2), np.uint8), np.array([-1, 1, 0]), ['a', 'b']", "integers from 0 to 1"),
        ("np.zeros((3, 2, 2), np.uint8), np.array([0, None, 1])", "labels are object"),
        ("np.zeros((3, 2, 2), np.uint8), np.zeros(3, int), ['a', 'a']", "a list of unique names"),
        ("np.zeros((3, 2, 2), np.uint8), np.zeros(3, int), 2", "a list of unique names"),
        ("np.zeros((3, 2, 2), np.uint8), np.zeros(3, int), []", "a list of unique names"),
        ("[[[0, 1]], [[0]]], [0, 1]", "the inputs cannot be converted to a NumPy array: "),
        ("np.zeros((2, 3, 6, 6), np.uint8), np.array([0, 1])", "images of shape (2, 3, 6, 6) are channels-first"),
        ("exit(1)", "fails: SystemExit: 1 (my_data.py, line 3)"),
        ("1 / 0", "fails: ZeroDivisionError: division by zero (my_data.py, line 3)"),
    ],
)
def test_invalid_return_value_raises_a_one_line_error(write_module: Callable, returned: str, expected: str):
    with pytest.raises(UserError) as caught:
        load_from(f"def load():\n    return {returned}", write_module)
    message = str(caught.value)
    assert message.splitlines() == [message]
    assert message.startswith("data")
    assert expected in message


def test_function_returns_a_dict_of_arrays(write_module: Callable):
    text = (
        "def load():\n    return {'inputs': np.arange(12.).reshape(6, 2), 'targets': np.arange(6) / 2, "
        "'weights': np.ones(6), 'split': ['train'] * 4 + ['test', 'val'], 'groups': list('aabbcd')}"
    )
    write_module("my_data.py", f"import numpy as np\n{text}")
    config = CustomDataConfig(source="my_data:load", arguments={})
    source = load(config, LoadOptions(task="regression"))
    assert (source.spec.inputs, source.spec.shape, source.spec.targets) == ("numbers", (2,), "numbers")
    prepared = prepare(config, task="regression").data
    assert [len(side) for side in prepared.sides.values()] == [4, 1, 1]
    assert prepared.validation.arrays["targets"].tolist() == [2.5]
    assert set(prepared.train.arrays) == {"inputs", "targets", "weights"}


@pytest.mark.parametrize(
    "draw", ["np.random.permutation(40)", "random.sample(range(40), 40)", "torch.randperm(40).numpy()"]
)
def test_random_numbers_of_a_function_are_the_same_each_time(write_module: Callable, draw: str):
    text = f"import random\nimport torch\ndef load():\n    return 1.0 * np.array({draw})[:, None], np.arange(40) % 2"
    once, again = (load_from(text, write_module).arrays["inputs"] for _ in range(2))
    assert np.array_equal(once, again)
    assert not np.array_equal(once.ravel(), np.arange(40))


def test_seed_that_a_module_sets_counts(write_module: Callable):
    seed_and_load = "np.random.seed(7)\ndef load():\n    return np.random.rand(40, 1), np.arange(40) % 2"
    expected = np.random.RandomState(7).rand(40, 1)
    assert np.array_equal(load_from(seed_and_load, write_module).arrays["inputs"], expected)


def test_kind_of_a_dict_decides_what_inputs_are(write_module: Callable):
    text = "def load():\n    return {'inputs': np.arange(12).reshape(6, 2), 'labels': [0, 1] * 3, 'kind': 'tokens'}"
    source = load_from(text, write_module)
    assert (source.spec.inputs, source.spec.vocabulary) == ("tokens", 12)


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        ("{'x': 1, 'inputs': np.zeros((2, 2))}", "returns a dict with the key x, not one of inputs, images, "),
        ("{'targets': [0, 1]}", "returns a dict without `inputs`"),
        ("{'inputs': np.zeros((2, 2)), 'images': 1}", "returns two arrays of inputs"),
        (
            "{'inputs': np.zeros((2, 2)), 'labels': [0, 1], 'kind': 'sound'}",
            "the kind of inputs is 'sound'; it ",
        ),
        ("{'inputs': np.zeros((2, 2))}", "there are no targets; give an array with one per example"),
        (
            "{'inputs': np.zeros((2, 2)), 'labels': [0, 1], 'split': ['train', 'x']}",
            "split: example 1 is x; it must ",
        ),
    ],
)
def test_invalid_dict_raises_a_one_line_error(write_module: Callable, refusal: Callable, returned: str, expected: str):
    message = refusal(load_from, f"def load():\n    return {returned}", write_module)
    assert message.startswith("data.source: ")
    assert expected in message
