"""Augmentation is a function of seed, epoch and example alone."""

import numpy as np
import pytest
import torch
from torch import nn

from batchscape.config.run import RunSpec
from batchscape.config.training import TrainingConfig
from batchscape.models import memory as chunks
from batchscape.training.augmentation import Augmentation, augment_images, draw_augmentation
from batchscape.training.lightning import pl
from batchscape.training.module import TrainingModule
from batchscape.training.sampler import epoch_order
from tests.helpers.objectives import classifier, image_data


def shift_pixels(image: np.ndarray, flip: bool, down: int, right: int) -> np.ndarray:
    """One image, (channels, height, width), pixel by pixel."""
    _, height, width = image.shape
    result = np.zeros_like(image)
    for row in range(height):
        for column in range(width):
            if 0 <= row + down < height and 0 <= column + right < width:
                source = width - 1 - column if flip else column
                result[:, row + down, column + right] = image[:, row, source]
    return result


def random_images(count: int, channels: int = 3, height: int = 5, width: int = 7) -> np.ndarray:
    """Return images without a black pixel, so that padding is detected."""
    return np.random.default_rng(0).integers(1, 256, (count, channels, height, width), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("channels_last", [False, True])
def test_images_are_flipped_and_shifted_like_a_pixel_loop(channels: int, channels_last: bool):
    cases = [(flip, down, right) for flip in (False, True) for down in range(-6, 7) for right in range(-8, 9)]
    images = random_images(len(cases), channels)
    flips, *shifts = map(np.array, zip(*cases, strict=True))
    tensor = torch.from_numpy(images.copy())
    if channels_last:
        tensor = tensor.contiguous(memory_format=torch.channels_last)
    actual = augment_images(tensor, Augmentation(torch.from_numpy(flips), torch.from_numpy(np.stack(shifts, axis=1))))
    assert actual.is_contiguous(memory_format=torch.channels_last)
    assert actual.dtype == torch.uint8
    for case, image, result in zip(cases, images, actual.numpy(), strict=True):
        assert np.array_equal(result, shift_pixels(image, *case)), case
    assert np.array_equal(tensor.numpy(), images)  # unchanged


def test_flips_and_shifts_are_uniform():
    drawn = draw_augmentation(20_000, True, 2, seed=1, epoch=1)
    assert drawn.flips.double().mean().item() == pytest.approx(0.5, abs=0.015)  # four standard errors
    pairs, counts = np.unique(drawn.shifts.numpy(), axis=0, return_counts=True)
    assert pairs.tolist() == [[down, right] for down in range(-2, 3) for right in range(-2, 3)]
    assert np.abs(counts / 20_000 - 1 / 25).max() < 0.006


def test_flips_and_shifts_are_drawn_independently():
    both = draw_augmentation(500, True, 3, seed=1, epoch=1)
    flip, shift = draw_augmentation(500, True, 0, seed=1, epoch=1), draw_augmentation(500, False, 3, seed=1, epoch=1)
    assert not flip.shifts.any()
    assert flip.flips.any()
    assert not shift.flips.any()
    assert torch.equal(shift.shifts, both.shifts)


def test_draws_differ_between_epochs_seeds_and_from_the_order():
    drawn = {
        tuple(draw_augmentation(50, True, 4, seed, epoch).shifts.flatten().tolist())
        for seed in range(20)
        for epoch in range(1, 21)
    }
    assert len(drawn) == 400
    rng = np.random.default_rng([3, 2])  # the stream that epoch_order permutes with
    assert rng.integers(-4, 4, (50, 2), endpoint=True).tolist() != draw_augmentation(50, True, 4, 3, 2).shifts.tolist()


def test_draw_is_stable_across_versions():
    # If this fails, every run with augmentation would change.
    drawn = draw_augmentation(4, True, 4, seed=3, epoch=2)
    assert drawn.flips.tolist() == [False, True, False, True]
    assert drawn.shifts.tolist() == [[1, 3], [1, -1], [-2, 4], [1, 2]]


class InputRecorder(nn.Module):
    """A network that records its inputs."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen: dict[bool, list[np.ndarray]] = {True: [], False: []}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen[self.training].append((images.detach() * 255).round().to(torch.uint8).numpy())
        return images.mean(dim=(1, 2, 3))[:, None] * self.weight


def training_inputs(batch_size: int, **training) -> tuple[np.ndarray, np.ndarray]:
    """Return the network's inputs in two epochs of seed 5 on 50 images, and in validation."""
    images, labels = random_images(60), np.arange(60) % 2
    data = image_data(images[:50], labels[:50], images[50:], labels[50:], ("no", "yes"))
    spec = RunSpec(batch_size=batch_size, learning_rate=0.1, seed=5, training=TrainingConfig(**training))
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = TrainingModule(classifier(InputRecorder()), data, spec)
    trainer.fit(module)
    module.network.seen[False].clear()
    module.validate()
    return np.concatenate(module.network.seen[True]), np.concatenate(module.network.seen[False])


@pytest.mark.parametrize("reshuffle", [True, False])
@pytest.mark.parametrize("batch_size", [16, 50])
@pytest.mark.parametrize("cut", [False, True])
def test_training_augments_each_example_independently_of_batches(
    batch_size: int, cut: bool, reshuffle: bool, monkeypatch: pytest.MonkeyPatch
):
    if cut:  # an image takes 4 × 106 bytes there: into parts of 7
        monkeypatch.setitem(chunks.ACTIVATION_BYTES, "cpu", 3000)
    seen, validated = training_inputs(batch_size, augment_flip=True, augment_shift=2, reshuffle=reshuffle)
    images, expected = random_images(60), []
    for epoch in (1, 2):
        drawn = draw_augmentation(50, True, 2, 5, epoch)
        augmented = list(zip(images[:50], drawn.flips.tolist(), *drawn.shifts.T.tolist(), strict=True))
        expected += [shift_pixels(*augmented[example]) for example in epoch_order(50, 5, epoch if reshuffle else 1)]
    assert np.array_equal(seen, expected)
    assert np.array_equal(validated, images[50:])


def test_training_without_augmentation_uses_original_images():
    seen, _ = training_inputs(16)
    assert np.array_equal(seen, random_images(60)[[*epoch_order(50, 5, 1), *epoch_order(50, 5, 2)]])


@pytest.mark.parametrize(("flip", "shift"), [(True, 0), (False, 2)])
def test_flip_and_shift_are_separate_options(flip: bool, shift: int):
    seen, _ = training_inputs(16, augment_flip=flip, augment_shift=shift)
    drawn = draw_augmentation(50, flip, shift, 5, 1)
    augmented = list(zip(random_images(60)[:50], drawn.flips.tolist(), *drawn.shifts.T.tolist(), strict=True))
    assert np.array_equal(seen[:50], [shift_pixels(*augmented[example]) for example in epoch_order(50, 5, 1)])
