"""Gradients of single examples against a backward pass for each."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from batchscape.config.task import LanguageModelConfig, RegressionConfig
from batchscape.curvature.example_gradients import choose_gradients, looped_gradients
from batchscape.curvature.loss_surface import LossSurface
from batchscape.data.dataset import Dataset
from batchscape.data.spec import DataSpec
from batchscape.tasks.objective import SupervisedObjective
from batchscape.tasks.task import build_task
from tests.helpers.objectives import CPU, classifier, image_dataset
from tests.helpers.surfaces import batch_norm_network, parameter_vector, synthetic_images

IMAGES = image_dataset(*synthetic_images(7))


class TinyLanguageModel(nn.Module):
    """An embedding, causal attention whose kernel has no batching rule, and tied output weights."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.query = nn.Linear(8, 8)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        states = self.embedding(tokens)
        query = self.query(states).unflatten(2, (2, 4)).transpose(1, 2)
        mixed = nn.functional.scaled_dot_product_attention(query, query, query, is_causal=True)
        return mixed.transpose(1, 2).flatten(2) @ self.embedding.weight.T


class Columns(nn.Module):
    """A linear function of numbers and an embedded category."""

    def __init__(self):
        super().__init__()
        self.numbers, self.category = nn.Linear(3, 1), nn.Embedding(4, 1)

    def forward(self, inputs: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        numbers, categories = inputs
        return self.numbers(numbers) + self.category(categories[:, 0])


class Recurrent(nn.Module):
    """A recurrent layer, whose kernels have no batching rule."""

    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(8, 4, batch_first=True), nn.Linear(4, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(images[:, 0])[0][:, -1])


class Branching(nn.Module):
    """A network that reads a value of its input."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(64, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        outputs = self.head(images.flatten(1))
        return outputs if outputs.sum().item() < 1e9 else -outputs


class WrongRule(torch.autograd.Function):
    """Doubling, with a batching rule that triples."""

    @staticmethod
    def forward(values: torch.Tensor) -> torch.Tensor:
        return 2 * values

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:  # noqa: ARG004
        return 2 * gradient

    @staticmethod
    def vmap(info: Any, in_dims: Any, values: torch.Tensor) -> tuple[torch.Tensor, Any]:  # noqa: ARG004
        return 3 * values, in_dims[0]


class Wrong(Branching):
    """A network whose vectorized outputs are others."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return WrongRule.apply(self.head(images.flatten(1)))


def language_model() -> tuple[SupervisedObjective, Dataset]:
    spec = DataSpec("tokens", (5,), "next_token", vocabulary=11, token_unit="byte")
    generator = np.random.default_rng(0)
    weights = generator.integers(0, 2, (6, 5)).astype(np.float32)
    weights[:, 0] = 1
    arrays = {"inputs": generator.integers(0, 11, (6, 6)).astype(np.uint8), "weights": weights}
    return SupervisedObjective(
        TinyLanguageModel(), build_task(LanguageModelConfig(name="language_model"), spec)
    ), Dataset.from_numpy(spec, arrays)


def regression() -> tuple[SupervisedObjective, Dataset]:
    spec = DataSpec("columns", (3,), "numbers", categories=(4,))
    generator = np.random.default_rng(0)
    arrays = {
        "inputs": generator.standard_normal((6, 3)).astype(np.float32),
        "categories": generator.integers(0, 4, (6, 1)).astype(np.int32),
        "targets": generator.standard_normal(6).astype(np.float32),
        "weights": generator.uniform(0.5, 2, 6).astype(np.float32),
    }
    return SupervisedObjective(Columns(), build_task(RegressionConfig(name="regression"), spec)), Dataset.from_numpy(
        spec, arrays
    )


CASES = {
    "convolutions and BatchNorm": (lambda: (classifier(batch_norm_network().eval()), IMAGES), True),
    "tokens with padding": (language_model, True),
    "weighted rows": (regression, True),
    "recurrent": (lambda: (classifier(Recurrent()), IMAGES), True),
    "branching": (lambda: (classifier(Branching()), IMAGES), False),
    "wrong when vectorized": (lambda: (classifier(Wrong()), IMAGES), False),
}


@pytest.mark.parametrize(("build", "is_vectorized"), CASES.values(), ids=CASES)
def test_gradients_are_those_of_single_backward_passes(build: Any, is_vectorized: bool):
    torch.manual_seed(0)
    objective, data = build()
    batch = data.batch(slice(0, len(data)), CPU)
    gradients, vectorized = choose_gradients(objective, batch)
    assert vectorized == is_vectorized
    found = gradients(batch)
    parameters = list(objective.module.parameters())
    for index in range(len(data)):
        objective.module.zero_grad()
        objective(data.batch(slice(index, index + 1), CPU)).loss.backward()
        expected = torch.cat([parameter.grad.reshape(-1) for parameter in parameters])
        assert found[index].tolist() == pytest.approx(expected.tolist(), rel=1e-4, abs=1e-6)
    assert torch.equal(found, gradients(batch))


@pytest.mark.parametrize("name", ["convolutions and BatchNorm", "weighted rows", "recurrent"])
def test_weighted_mean_of_the_gradients_of_a_surface_is_its_gradient(name: str):
    torch.manual_seed(1)
    objective, data = CASES[name][0]()
    surface = LossSurface(objective, data, CPU, dtype=torch.float64, chunk=2)
    weights = parameter_vector(objective.module) + 0.1
    found = surface.example_gradients(weights, np.arange(len(data)))
    mean = np.average(found, axis=0, weights=surface.example_weights)
    assert mean == pytest.approx(surface.gradient(weights)[1], rel=1e-10, abs=1e-12)


def test_gradients_follow_the_weights_and_the_indices():
    surface = LossSurface(classifier(batch_norm_network()), IMAGES, CPU, dtype=torch.float64)
    weights = parameter_vector(batch_norm_network())
    for vector in (weights, 2 * weights, weights):
        found = surface.example_gradients(vector, np.array([4, 1]))
        for row, index in enumerate((4, 1)):
            single = LossSurface(
                classifier(batch_norm_network()), IMAGES[slice(index, index + 1)], CPU, dtype=torch.float64
            )
            assert found[row] == pytest.approx(single.gradient(vector)[1], rel=1e-10, abs=1e-12)


def test_gradient_of_an_unused_parameter_is_zero():
    network = batch_norm_network().eval()
    network.unused = nn.Parameter(torch.ones(2))
    objective = classifier(network)
    batch = IMAGES.batch(slice(0, 3), CPU)
    gradients, vectorized = choose_gradients(objective, batch)
    assert vectorized
    for function in (gradients, looped_gradients(objective)):
        assert not function(batch)[:, :2].any()  # a module's own parameters precede those of its layers
        assert function(batch)[:, 2:].any()
