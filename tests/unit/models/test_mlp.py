"""The multilayer perceptron on images, numbers and columns."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from batchscape.config.model import MlpConfig
from batchscape.data.spec import DataSpec
from batchscape.models.build import build_network

TABLE = DataSpec("columns", (3,), "numbers", categories=(2, 5, 200))


def mlp(spec: DataSpec, outputs: int = 2, **settings) -> nn.Module:
    return build_network(MlpConfig(name="mlp", **{"dense": (7,)} | settings), spec, outputs, seed=1)


@pytest.mark.parametrize("shape", [(4,), (5, 2), (3, 4, 5), (2, 2, 2, 2), ()], ids=str)
def test_numbers_of_any_shape_are_flattened(shape: tuple[int, ...]):
    network, inputs = mlp(DataSpec("numbers", shape, "numbers")), torch.randn(6, *shape)
    hidden = torch.relu(inputs.reshape(6, -1) @ network.dense1.weight.T + network.dense1.bias)
    torch.testing.assert_close(network(inputs), hidden @ network.output.weight.T + network.output.bias)


def test_numbers_and_images_of_one_shape_have_the_same_network():
    images, numbers = (mlp(DataSpec(kind, (1, 4, 5), "class", ("a", "b"))) for kind in ("images", "numbers"))
    assert all(map(torch.equal, images.parameters(), numbers.parameters()))


def test_categories_are_embedded_beside_the_numbers():
    network = mlp(TABLE)
    embeddings = [module for module in network.modules() if isinstance(module, nn.Embedding)]
    # min(50, ⌈k/2⌉) dimensions
    assert [tuple(embedding.weight.shape) for embedding in embeddings] == [(2, 1), (5, 3), (200, 50)]
    numbers = torch.randn(4, 3)
    categories = torch.tensor([[0, 4, 199], [1, 0, 0], [1, 2, 100], [0, 4, 7]])
    tables = [embedding.weight.detach().numpy() for embedding in embeddings]
    rows = np.stack(
        [
            np.concatenate([row.numpy(), *(table[index] for table, index in zip(tables, indices, strict=True))])
            for row, indices in zip(numbers, categories.tolist(), strict=True)
        ]
    )
    expected = network.output(torch.relu(network.dense1(torch.from_numpy(rows))))
    torch.testing.assert_close(network((numbers, categories)), expected)


def test_number_of_parameters_with_categories_is_that_counted_by_hand():
    features = 3 + 1 + 3 + 50
    expected = (2 * 1 + 5 * 3 + 200 * 50) + (features * 7 + 7) + (7 * 2 + 2)
    assert sum(parameter.numel() for parameter in mlp(TABLE).parameters()) == expected


@pytest.mark.parametrize(("numbers", "categories"), [(3, ()), (0, (4, 6))], ids=["numbers only", "categories only"])
def test_columns_of_one_kind_alone(numbers: int, categories: tuple[int, ...]):
    network = mlp(DataSpec("columns", (numbers,), "numbers", categories=categories))
    indices = torch.zeros(5, len(categories), dtype=torch.long)
    assert network((torch.randn(5, numbers), indices)).shape == (5, 2)


def test_linear_regression_has_no_hidden_layers():
    network = mlp(DataSpec("numbers", (4,), "numbers"), outputs=1, dense=())
    assert {name: tuple(parameter.shape) for name, parameter in network.named_parameters()} == {
        "output.weight": (1, 4),
        "output.bias": (1,),
    }


def test_embeddings_are_standard_normal_and_depend_on_the_seed():
    spec = DataSpec("columns", (1,), "numbers", categories=(400,))
    first, again = (mlp(spec).columns.embedding1.weight for _ in range(2))
    assert torch.equal(first, again)
    assert first.std().item() == pytest.approx(1, abs=0.02)
    other = build_network(MlpConfig(name="mlp", dense=(7,)), spec, 2, seed=2).columns.embedding1.weight
    assert not torch.equal(first, other)


def test_tokens_are_refused(refusal: Callable):
    message = refusal(mlp, DataSpec("tokens", (8,), "next_token", vocabulary=9))
    assert message == (
        "model.name: mlp takes images, numbers and columns, the data has blocks of 8 tokens; write `name: transformer`"
    )
