"""Objectives and datasets for tests that begin with a network and with images, or with arrays."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from batchscape.config.task import ClassificationConfig
from batchscape.data.dataset import Dataset
from batchscape.data.prepared import PreparedData
from batchscape.data.spec import DataSpec
from batchscape.tasks.objective import SupervisedObjective, evaluate
from batchscape.tasks.task import build_task

CPU = torch.device("cpu")


def image_dataset(images: torch.Tensor | np.ndarray, labels: torch.Tensor | np.ndarray, classes: int = 2) -> Dataset:
    """Return uint8 images, (n, channels, height, width), and labels, (n,), as a dataset."""
    images, labels = torch.as_tensor(images), torch.as_tensor(labels)
    spec = DataSpec("images", tuple(images.shape[1:]), "class", classes=tuple(map(str, range(classes))))
    return Dataset(spec, {"inputs": images.permute(0, 2, 3, 1).contiguous(), "targets": labels.long()})


def classifier(network: nn.Module, outputs: int = 1) -> SupervisedObjective:
    """Return the objective of a network that classifies images: one output for two classes, otherwise one a class."""
    spec = DataSpec("images", (1, 8, 8), "class", classes=tuple(map(str, range(max(2, outputs)))))
    loss = "binary_cross_entropy" if outputs == 1 else "cross_entropy"
    return SupervisedObjective(network, build_task(ClassificationConfig(loss=loss), spec))


def loss_and_accuracy(objective: SupervisedObjective, data: Dataset, chunk: int | None = None) -> tuple[float, float]:
    """Return the mean loss and the accuracy of a classifier over a dataset, evaluated in chunks."""
    size = chunk or len(data)
    parts = (data.batch(slice(start, start + size), CPU) for start in range(0, len(data), size))
    found = objective.report(evaluate(objective, parts, CPU), len(data), "validation")
    return found.loss, found.metrics["accuracy"]


def image_data(
    train_images: np.ndarray,
    train_labels: np.ndarray,
    validation_images: np.ndarray,
    validation_labels: np.ndarray,
    classes: Sequence[str],
) -> PreparedData:
    """Return uint8 images, (n, channels, height, width), and labels, (n,), of two sides as prepared data."""
    spec = DataSpec("images", tuple(train_images.shape[1:]), "class", classes=tuple(classes))
    train, validation = (
        Dataset(spec, image_dataset(*side).arrays)
        for side in ((train_images, train_labels), (validation_images, validation_labels))
    )
    return PreparedData(spec, train, validation, None)


def images_of(data: Dataset) -> np.ndarray:
    """Return the images of a dataset, (n, channels, height, width), uint8."""
    return data.arrays["inputs"].numpy().transpose(0, 3, 1, 2)


def labels_of(data: Dataset) -> np.ndarray:
    """Return the class indices of a dataset, (n,), int64."""
    return data.arrays["targets"].numpy()


def tensors_of(data: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the images, (n, channels, height, width) uint8, and the class indices, (n,), of a dataset."""
    return data.arrays["inputs"].permute(0, 3, 1, 2), data.arrays["targets"]
