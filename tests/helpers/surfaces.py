"""Helpers for tests of loss surfaces: a quadratic in closed form, and small networks on synthetic images."""

import copy

import numpy as np
import torch
from torch import nn

from batchscape.curvature.loss_surface import LossSurface
from batchscape.data.dataset import Dataset, convert_images
from batchscape.tasks.objective import SupervisedObjective
from tests.helpers.objectives import CPU, classifier, image_dataset, loss_and_accuracy

MATRIX = np.array([[4.0, 1.0, 0.0], [1.0, 3.0, 0.5], [0.0, 0.5, 2.0]])


class Quadratic:
    """f(θ) = base + gᵀ(θ − c) + ½ (θ − c)ᵀ H (θ − c), with the derivatives of a LossSurface."""

    def __init__(self, hessian: np.ndarray, center: np.ndarray, base: float = 0.0, slope: np.ndarray | None = None):
        self.hessian, self.center, self.base = hessian, center, base
        self.slope = np.zeros(len(center)) if slope is None else slope

    def gradient(self, weights: np.ndarray) -> tuple[float, np.ndarray]:
        step = weights - self.center
        value = self.base + self.slope @ step + step @ self.hessian @ step / 2
        return float(value), self.slope + self.hessian @ step

    def hessian_vector_product(self, weights: np.ndarray, vector: np.ndarray) -> np.ndarray:  # noqa: ARG002
        return self.hessian @ vector

    def max_in_box(self, half_widths: np.ndarray) -> float:
        """Return the maximum in the box around the center; that of a convex function is in a corner."""
        corners = np.stack(np.meshgrid(*[[-w, w] for w in half_widths]), -1).reshape(-1, len(half_widths))
        return max(self.gradient(self.center + corner)[0] for corner in corners)


def synthetic_images(
    count: int, shape: tuple[int, int, int] = (1, 8, 8), seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random uint8 images and labels."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)
    return images, torch.randint(0, 2, (count,), generator=generator).float()


def batch_norm_network(seed: int = 0) -> nn.Sequential:
    """Return a network with BatchNorm, in training mode, with random statistics."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 1),
    )  # fmt: skip
    network[1].running_mean.uniform_(-0.1, 0.1)
    network[1].running_var.uniform_(0.5, 1.5)
    return network


def image_surface(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, **options) -> LossSurface:
    """Return the loss of a classifier over images, (n, channels, height, width) uint8, and labels, (n,), on the CPU."""
    objective, data = classify(network, images, labels)
    return LossSurface(objective, data, CPU, **options)


def evaluate(
    network: nn.Module, images: torch.Tensor, labels: torch.Tensor, chunk: int | None = None
) -> tuple[float, float]:
    """Return the mean loss and the accuracy of a classifier over images and labels."""
    return loss_and_accuracy(*classify(network, images, labels), chunk)


def classify(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> tuple[SupervisedObjective, Dataset]:
    """Return the objective of a classifier, and the dataset of images and labels."""
    with torch.no_grad():
        outputs = copy.deepcopy(network).eval()(convert_images(images[:1])).shape[1]
    return classifier(network, outputs), image_dataset(images, labels, max(2, outputs))


def parameter_vector(network: nn.Module) -> np.ndarray:
    """Return all parameters of a network, (p,), float64."""
    return np.concatenate([p.detach().numpy().ravel() for p in network.parameters()]).astype(np.float64)


def parameter_shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(p.shape) for name, p in network.named_parameters()}
