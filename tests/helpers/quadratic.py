"""The noisy quadratic: the loss of example i is ½·θᵀHθ + ξ_iᵀθ, whose statistics under training have closed forms."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from batchscape.config.run import RunSpec
from batchscape.config.task import RegressionConfig
from batchscape.data.dataset import Dataset
from batchscape.data.prepared import PreparedData
from batchscape.data.spec import DataSpec
from batchscape.tasks.objective import SupervisedObjective
from batchscape.tasks.task import build_task

TASK = {"name": "regression", "loss": "tests.helpers.quadratic:output", "outputs": 1}


class NoisyQuadratic(nn.Module):
    """Its output for an example ξ is the loss; H is diagonal. It trains in float64."""

    def __init__(self, eigenvalues: Sequence[float], start: Sequence[float]):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(start, dtype=torch.float64))
        self.register_buffer("eigenvalues", torch.tensor(eigenvalues, dtype=torch.float64), persistent=False)

    def forward(self, noise: Tensor) -> Tensor:
        return ((self.eigenvalues * self.weights**2).sum() / 2 + noise.to(self.weights.dtype) @ self.weights)[:, None]


def output(outputs: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:  # noqa: ARG001
    """Return the output of the network, as a loss of the user's own."""
    return outputs.mean() if reduction == "mean" else outputs


def noise_dataset(noise: np.ndarray) -> Dataset:
    """Return a dataset with the noise of each example, (n, p)."""
    spec = DataSpec("numbers", noise.shape[1:], "numbers")
    arrays = {"inputs": noise.astype(np.float32), "targets": np.zeros(len(noise), np.float32)}
    return Dataset.from_numpy(spec, arrays)


def noise_data(noise: np.ndarray) -> PreparedData:
    """Return data with that noise to train with; the validation set is its mean, so its loss is ½·θᵀHθ if that is 0."""
    train = noise_dataset(noise)
    return PreparedData(train.spec, train, noise_dataset(noise.mean(0, keepdims=True)), None)


def quadratic_spec(eigenvalues: Sequence[float], start: Sequence[float], **sections: object) -> RunSpec:
    """Return a run of batches of eight examples on the noisy quadratic, with other sections."""
    model = {"name": "tests.helpers.quadratic:NoisyQuadratic"}
    model |= {"arguments": {"eigenvalues": list(eigenvalues), "start": list(start)}}
    run = {"batch_size": 8, "learning_rate": 0.1, "seed": 0, "model": model, "task": TASK}
    return RunSpec.model_validate(run | sections)


def quadratic_objective(eigenvalues: Sequence[float], start: Sequence[float], data: Dataset) -> SupervisedObjective:
    task = build_task(RegressionConfig.model_validate(TASK), data.spec)
    return SupervisedObjective(NoisyQuadratic(eigenvalues, start), task)
