"""Batches of images on a device."""

import numpy as np
import pytest
import torch

from batchscape.data.tensors import gather_examples, normalize_images, storage_device

CPU = torch.device("cpu")


def test_bytes_are_divided_by_255_exactly():
    images = torch.arange(256, dtype=torch.uint8).reshape(64, 1, 2, 2)
    expected = (np.arange(256, dtype=np.float32) / np.float32(255)).reshape(64, 1, 2, 2)
    assert np.array_equal(normalize_images(images).numpy(), expected)
    assert images.flatten().tolist() == list(range(256))  # unchanged


def test_normalized_images_are_channels_last_in_memory():
    images = torch.arange(2 * 3 * 4 * 5, dtype=torch.uint8).reshape(2, 3, 4, 5)
    tensor = normalize_images(images)
    assert (tensor.shape, tensor.dtype) == ((2, 3, 4, 5), torch.float32)
    assert tensor.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal((tensor * 255).round().to(torch.uint8), images)


@pytest.mark.parametrize("channels_last", [True, False])
def test_gathered_examples_are_channels_last_in_memory(channels_last: bool):
    images = torch.arange(6 * 3 * 4 * 5).remainder(256).to(torch.uint8).reshape(6, 3, 4, 5)
    stored = images.contiguous(memory_format=torch.channels_last) if channels_last else images
    batch = gather_examples(stored, torch.tensor([4, 0, 4]), CPU)
    assert (batch.shape, batch.dtype) == ((3, 3, 4, 5), torch.uint8)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch, torch.stack([images[4], images[0], images[4]]))


def test_examples_are_gathered_to_another_device():
    images = torch.zeros(6, 3, 4, 5, dtype=torch.uint8)
    batch = normalize_images(gather_examples(images, torch.tensor([4, 0]), torch.device("meta")))
    assert (batch.device.type, batch.shape) == ("meta", (2, 3, 4, 5))
    assert batch.is_contiguous(memory_format=torch.channels_last)


def test_images_are_stored_on_the_device_if_they_fit_in_half_of_its_free_memory():
    gpu = torch.device("cuda", 0)
    assert storage_device(500, gpu, free_bytes=1000) == gpu
    assert storage_device(501, gpu, free_bytes=1000) == CPU
    assert storage_device(10**15, CPU) == CPU  # the only choice
