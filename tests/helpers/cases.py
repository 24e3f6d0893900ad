"""The table of tasks that the tests of every engine run over, each with data, a network and an independent loss."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from batchscape.config.task import ClassificationConfig, LanguageModelConfig, RegressionConfig, TaskConfig
from batchscape.data.dataset import Batch, Dataset
from batchscape.data.spec import DataSpec
from batchscape.tasks.objective import SupervisedObjective
from batchscape.tasks.task import Task, build_task

HIDDEN = 5
CPU = torch.device("cpu")


class Smooth(nn.Module):
    """A small network in float64 for inputs of any kind, with derivatives of all orders, and so few parameters that
    all of its Hessian can be computed."""

    def __init__(self, spec: DataSpec, outputs: int):
        super().__init__()
        if spec.inputs == "tokens":
            self.embedding = nn.Embedding(spec.vocabulary, HIDDEN)
            size = HIDDEN
        else:
            size = int(np.prod(spec.shape)) + len(spec.categories)
            self.embedding = nn.ModuleList([nn.Embedding(count, 1) for count in spec.categories])
        self.first = nn.Linear(size, HIDDEN)
        self.second = nn.Linear(HIDDEN, outputs)
        self.double()

    def forward(self, inputs: Any) -> Tensor:
        if isinstance(inputs, tuple):
            numbers, categories = inputs
            columns = zip(self.embedding, categories.unbind(1), strict=True)
            inputs = torch.cat([numbers.double(), *(embedding(column) for embedding, column in columns)], 1)
        elif isinstance(self.embedding, nn.Embedding):
            inputs = self.embedding(inputs)
        else:
            inputs = inputs.double().flatten(1)
        return self.second(torch.tanh(self.first(inputs)))


class Linear(nn.Linear):
    """Linear regression without a constant, in float64."""

    def __init__(self, spec: DataSpec, outputs: int):
        super().__init__(spec.shape[0], outputs, bias=False, dtype=torch.float64)

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs.double())


def log_cosh(outputs: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    """Return log cosh of the error: a loss of the user's own."""
    errors = outputs - targets
    values = errors + nn.functional.softplus(-2 * errors) - np.log(2)
    return values.mean() if reduction == "mean" else values


def bias(outputs: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    """Return the signed error: a metric of the user's own."""
    values = outputs - targets
    return values.mean() if reduction == "mean" else values


def _softmax_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return −log softmax at the target, from its definition; axes before the last are examples, or tokens."""
    chosen = outputs.gather(-1, targets[..., None]).squeeze(-1)
    return outputs.exp().sum(-1).log() - chosen


def _sigmoid_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    logits = outputs[:, 0]
    return (1 + logits.exp()).log() - targets * logits


def _smoothed_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy with a fifth of the target distribution spread over all classes."""
    losses = [_softmax_loss(outputs, torch.full_like(targets, label)) for label in range(outputs.shape[1])]
    return 0.8 * _softmax_loss(outputs, targets) + 0.2 * torch.stack(losses).mean(0)


@dataclass(frozen=True)
class Case:
    """A task with its data.

    Attributes:
        config: Section `task`.
        spec: What an example is.
        arrays: Draws the arrays of a dataset of n examples.
        expected_loss: The loss of each example, or token, from outputs and targets, by definition.
        class_weights: The weight of each class, where the task has them.
    """

    config: TaskConfig
    spec: DataSpec
    arrays: Callable[[np.random.Generator, int], dict[str, np.ndarray]]
    expected_loss: Callable[[Tensor, Tensor], Tensor]
    class_weights: tuple[float, ...] = ()
    network: Callable[[DataSpec, int], nn.Module] = Smooth

    def build_network(self, outputs: int) -> nn.Module:
        return self.network(self.spec, outputs)

    def dataset(self, count: int = 23, seed: int = 0) -> Dataset:
        """Return a dataset of `count` examples."""
        return Dataset.from_numpy(self.spec, self.arrays(np.random.default_rng(seed), count))

    def task(self) -> Task:
        return build_task(self.config, self.spec, self.dataset().arrays.get("targets"))

    def objective(self, seed: int = 0) -> SupervisedObjective:
        """Return the objective of a network with random weights."""
        task = self.task()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return SupervisedObjective(self.build_network(task.num_outputs), task)

    def expected_weights(self, batch: Batch) -> Tensor:
        """Return the weight of each example, or token, in the mean, float64."""
        outputs = torch.zeros(len(batch), *self.task().output_shape)
        losses = self.expected_loss(outputs, batch.targets).double()
        weights = torch.ones_like(losses) if batch.weights is None else batch.weights.double()
        if self.class_weights:
            weights = weights * torch.tensor(self.class_weights, dtype=torch.float64)[batch.targets]
        return weights.expand_as(losses)

    def expected_losses(self, network: Callable[[Any], Tensor], batch: Batch) -> Tensor:
        """Return the loss of each example, or token, float64."""
        return self.expected_loss(network(batch.inputs).double(), batch.targets)

    def expected_mean(self, network: Callable[[Any], Tensor], batch: Batch) -> Tensor:
        """Return Σ w·ℓ / Σ w over a batch, differentiable."""
        weights = self.expected_weights(batch)
        return (weights * self.expected_losses(network, batch)).sum() / weights.sum()


def _images(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.integers(0, 256, (count, 3, 2, 2), dtype=np.uint8)


def _numbers(rng: np.random.Generator, count: int, size: int = 4) -> np.ndarray:
    return rng.normal(size=(count, size)).astype(np.float32)


def _weights(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.uniform(0.1, 3, shape).astype(np.float32)


def _padded_tokens(rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    """Return blocks of 6 + 1 tokens; every third is padded after 1, 2 or 3 targets."""
    tokens = rng.integers(1, 7, (count, 7)).astype(np.uint8)
    weights = np.ones((count, 6), np.float32)
    for row in range(0, count, 3):
        weights[row, 1 + row % 4 % 3 :] = 0
        tokens[row, 2 + row % 4 % 3 :] = 0
    return {"inputs": tokens, "weights": weights}


def _columns(rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    categories = np.stack([rng.integers(0, 3, count), rng.integers(0, 2, count)], 1).astype(np.int32)
    return {
        "inputs": _numbers(rng, count, 2),
        "categories": categories,
        "targets": (rng.normal(size=count) + categories[:, 0]).astype(np.float32),
    }


def _squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    return ((outputs - targets.reshape(outputs.shape)) ** 2).mean(1)


IMAGES = DataSpec("images", (2, 3, 2), "class", classes=("a", "b", "c"))
TWO_CLASSES = DataSpec("numbers", (4,), "class", classes=("no", "yes"))
THREE_CLASSES = DataSpec("numbers", (4,), "class", classes=("a", "b", "c"))
NUMBER = DataSpec("numbers", (4,), "numbers", target_variance={"train": 1.0, "validation": 1.0, "test": 1.0})
NUMBERS = DataSpec("numbers", (4,), "numbers", target_shape=(3,))
COLUMNS = DataSpec("columns", (2,), "numbers", categories=(3, 2))
TOKENS = DataSpec("tokens", (6,), "next_token", vocabulary=7, token_unit="character")

REGRESSION = RegressionConfig(name="regression")
OWN = RegressionConfig(name="regression", loss="tests.helpers.cases:log_cosh", metrics=("tests.helpers.cases:bias",))

CASES = {
    "classification": Case(
        ClassificationConfig(),
        IMAGES,
        lambda rng, n: {"inputs": _images(rng, n), "targets": rng.integers(0, 3, n)},
        _softmax_loss,
    ),
    "binary": Case(
        ClassificationConfig(),
        TWO_CLASSES,
        lambda rng, n: {"inputs": _numbers(rng, n), "targets": rng.integers(0, 2, n)},
        _sigmoid_loss,
    ),
    "class weights and label smoothing": Case(
        ClassificationConfig(class_weights={"a": 3.0, "c": 0.5}, label_smoothing=0.2),
        THREE_CLASSES,
        lambda rng, n: {"inputs": _numbers(rng, n), "targets": rng.integers(0, 3, n)},
        _smoothed_loss,
        class_weights=(3.0, 1.0, 0.5),
    ),
    "class weights and weighted examples": Case(
        ClassificationConfig(class_weights={"yes": 4.0}),
        TWO_CLASSES,
        lambda rng, n: {"inputs": _numbers(rng, n), "targets": rng.integers(0, 2, n), "weights": _weights(rng, n)},
        _sigmoid_loss,
        class_weights=(1.0, 4.0),
    ),
    "regression": Case(
        REGRESSION,
        NUMBER,
        lambda rng, n: {"inputs": _numbers(rng, n), "targets": _numbers(rng, n, 1)[:, 0]},
        _squared_error,
    ),
    "regression of several numbers, weighted": Case(
        REGRESSION,
        NUMBERS,
        lambda rng, n: {"inputs": _numbers(rng, n), "targets": _numbers(rng, n, 3), "weights": _weights(rng, n)},
        _squared_error,
    ),
    "own loss": Case(OWN, COLUMNS, _columns, lambda outputs, targets: (outputs[:, 0] - targets).cosh().log()),
    "language model": Case(
        LanguageModelConfig(name="language_model"),
        TOKENS,
        lambda rng, n: {"inputs": rng.integers(0, 7, (n, 7)).astype(np.uint8)},
        _softmax_loss,
    ),
    "language model with padding": Case(
        LanguageModelConfig(name="language_model"), TOKENS, _padded_tokens, _softmax_loss
    ),
}

LINEAR_REGRESSION = Case(
    REGRESSION,
    NUMBER,
    lambda rng, n: {"inputs": _numbers(rng, n), "targets": _numbers(rng, n, 1)[:, 0]},
    _squared_error,
    network=Linear,
)


def network(case: str, outputs: int) -> nn.Module:
    """Return the network of a case, as a study names it by its import path."""
    return {**CASES, "linear regression": LINEAR_REGRESSION}[case].build_network(outputs)
