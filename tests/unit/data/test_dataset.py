"""Batches of examples on a device."""

import numpy as np
import torch

from batchscape.data.dataset import Dataset, convert_images, storage_device
from batchscape.data.spec import DataSpec
from tests.helpers.objectives import image_dataset

CPU = torch.device("cpu")


def test_bytes_are_divided_by_255_exactly():
    images = torch.arange(256, dtype=torch.uint8).reshape(64, 1, 2, 2)
    expected = (np.arange(256, dtype=np.float32) / np.float32(255)).reshape(64, 1, 2, 2)
    assert np.array_equal(convert_images(images).numpy(), expected)
    assert images.flatten().tolist() == list(range(256))  # unchanged


def test_normalized_images_are_channels_last_in_memory():
    images = torch.arange(2 * 3 * 4 * 5, dtype=torch.uint8).reshape(2, 3, 4, 5)
    tensor = convert_images(images)
    assert (tensor.shape, tensor.dtype) == ((2, 3, 4, 5), torch.float32)
    assert tensor.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal((tensor * 255).round().to(torch.uint8), images)


def test_examples_are_gathered_channels_last_in_memory():
    images = torch.arange(6 * 3 * 4 * 5).remainder(256).to(torch.uint8).reshape(6, 3, 4, 5)
    data = image_dataset(images, torch.arange(6), classes=6)
    batch = data.batch(torch.tensor([4, 0, 4]), CPU)
    assert (batch.inputs.shape, batch.inputs.dtype) == ((3, 3, 4, 5), torch.float32)
    assert batch.inputs.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch.inputs, torch.stack([images[4], images[0], images[4]]) / 255)
    assert batch.targets.tolist() == [4, 0, 4]
    assert batch.weights is None


def test_examples_are_gathered_to_another_device():
    data = image_dataset(torch.zeros(6, 3, 4, 5, dtype=torch.uint8), torch.zeros(6))
    batch = data.batch(torch.tensor([4, 0]), torch.device("meta"))
    assert (batch.inputs.device.type, batch.inputs.shape, batch.targets.device.type) == ("meta", (2, 3, 4, 5), "meta")
    assert batch.inputs.is_contiguous(memory_format=torch.channels_last)


def test_inputs_and_targets_of_a_language_model_are_shifted_by_one():
    spec = DataSpec("tokens", (3,), "next_token", vocabulary=256)
    tokens = torch.tensor([[5, 6, 7, 8], [200, 201, 202, 203]], dtype=torch.uint8)
    weights = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    batch = Dataset(spec, {"inputs": tokens, "weights": weights}).batch(torch.tensor([1, 0]), CPU)
    assert batch.inputs.tolist() == [[200, 201, 202], [5, 6, 7]]
    assert batch.targets.tolist() == [[201, 202, 203], [6, 7, 8]]
    assert batch.weights.tolist() == [[1, 1, 1], [1, 1, 0]]


def test_columns_are_a_pair_of_numbers_and_categories():
    spec = DataSpec("columns", (2,), "numbers", categories=(3, 5))
    data = Dataset.from_numpy(
        spec,
        {
            "inputs": np.arange(6, dtype=np.float32).reshape(3, 2),
            "categories": np.array([[1, 4], [0, 2], [2, 0]], np.int32),
            "targets": np.array([0.5, 1.5, 2.5], np.float32),
        },
    )
    batch = data.batch(slice(1, 3), CPU, torch.float64)
    numbers, categories = batch.inputs
    assert (numbers.dtype, numbers.tolist()) == (torch.float64, [[2, 3], [4, 5]])
    assert (categories.dtype, categories.tolist()) == (torch.int64, [[0, 2], [2, 0]])
    assert batch.targets.tolist() == [1.5, 2.5]
    first, second = batch.split(1)
    assert (len(batch), len(first), second.inputs[1].tolist(), second.targets.tolist()) == (2, 1, [[2, 0]], [2.5])


def test_floating_point_images_are_not_scaled():
    spec = DataSpec("images", (1, 2, 2), "class", classes=("a", "b"))
    images = torch.tensor([-3.0, 0.5, 1.0, 4095.0]).reshape(1, 2, 2, 1)
    batch = Dataset(spec, {"inputs": images, "targets": torch.tensor([1])}).batch(slice(1), CPU)
    assert torch.equal(batch.inputs, images.permute(0, 3, 1, 2))


def test_images_are_stored_on_the_device_if_they_fit_in_half_of_its_free_memory():
    gpu = torch.device("cuda", 0)
    assert storage_device(500, gpu, free_bytes=1000) == gpu
    assert storage_device(501, gpu, free_bytes=1000) == CPU
    assert storage_device(10**15, CPU) == CPU  # the only choice
