"""What networks take: shapes of inputs, and examples of them."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from batchscape.data.dataset import Dataset
from batchscape.data.spec import DataSpec
from batchscape.models.inputs import describe_inputs, image_shape, random_inputs, zero_inputs

SPECS = {
    "images": DataSpec("images", (3, 4, 5), "class", ("a", "b")),
    "gray images": DataSpec("images", (1, 4, 5), "class", ("a", "b")),
    "numbers": DataSpec("numbers", (6, 2), "numbers"),
    "tokens": DataSpec("tokens", (7,), "next_token", vocabulary=9),
    "columns": DataSpec("columns", (2,), "numbers", categories=(3, 5)),
    "categories only": DataSpec("columns", (0,), "numbers", categories=(3, 5)),
}
STORED = {
    "images": {"inputs": np.zeros((2, 4, 5, 3), np.uint8), "targets": np.zeros(2, np.int64)},
    "gray images": {"inputs": np.zeros((2, 4, 5, 1), np.uint8), "targets": np.zeros(2, np.int64)},
    "numbers": {"inputs": np.zeros((2, 6, 2), np.float32), "targets": np.zeros(2, np.float32)},
    "tokens": {"inputs": np.zeros((2, 8), np.uint8)},
    "columns": {
        "inputs": np.zeros((2, 2), np.float32),
        "categories": np.zeros((2, 2), np.int32),
        "targets": np.zeros(2, np.float32),
    },
    "categories only": {
        "inputs": np.zeros((2, 0), np.float32),
        "categories": np.zeros((2, 2), np.int32),
        "targets": np.zeros(2, np.float32),
    },
}


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("make", [zero_inputs, random_inputs])
def test_inputs_have_the_shapes_and_types_of_a_batch(kind: str, make: Callable):
    batch = Dataset.from_numpy(SPECS[kind], STORED[kind]).batch(slice(0, 2), torch.device("cpu")).inputs
    expected, given = ((x,) if isinstance(x, torch.Tensor) else x for x in (batch, make(SPECS[kind], 2)))
    assert [(part.shape, part.dtype) for part in given] == [(part.shape, part.dtype) for part in expected]


@pytest.mark.parametrize("kind", ["images", "gray images"])
def test_random_images_are_channels_last_like_those_of_a_batch(kind: str):
    batch = Dataset.from_numpy(SPECS[kind], STORED[kind]).batch(slice(0, 2), torch.device("cpu")).inputs
    assert random_inputs(SPECS[kind], 2).stride() == batch.stride()


def test_random_tokens_and_categories_are_valid_and_take_all_values():
    assert random_inputs(SPECS["tokens"], 500).unique().tolist() == list(range(9))
    columns = random_inputs(SPECS["columns"], 500)[1]
    assert [column.unique().tolist() for column in columns.T] == [[0, 1, 2], [0, 1, 2, 3, 4]]


def test_shape_of_images_and_of_numbers_with_three_axes():
    assert image_shape(SPECS["images"], "vgg") == (3, 4, 5)
    assert image_shape(DataSpec("numbers", (2, 8, 8), "numbers"), "vgg") == (2, 8, 8)


@pytest.mark.parametrize(
    ("kind", "description", "fix"),
    [
        ("numbers", "numbers of shape (6, 2)", "mlp"),
        ("tokens", "blocks of 7 tokens", "transformer"),
        ("columns", "rows of 2 numbers and 2 categories", "mlp"),
    ],
)
def test_other_inputs_are_refused_with_what_they_are(kind: str, description: str, fix: str, refusal: Callable):
    assert describe_inputs(SPECS[kind]) == description
    assert refusal(image_shape, SPECS[kind], "resnet") == (
        f"model.name: resnet takes images, (channels, height, width), the data has {description}; write `name: {fix}`"
    )
