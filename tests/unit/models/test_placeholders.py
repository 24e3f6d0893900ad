"""What custom networks may ask for, and its place in their arguments."""

from collections.abc import Callable

import pytest
import torch

from batchscape.config.model import CustomModelConfig
from batchscape.data.spec import DataSpec
from batchscape.models.build import build_network
from batchscape.models.placeholders import fill_placeholders, values_for_network

IMAGES = DataSpec("images", (3, 12, 10), "class", ("a", "b", "c"))
TEXT = DataSpec("tokens", (16,), "next_token", vocabulary=50)
TABLE = DataSpec("columns", (4,), "numbers", categories=(3, 9))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            IMAGES,
            {
                "image_shape": (3, 12, 10),
                "shape": (3, 12, 10),
                "channels": 3,
                "height": 12,
                "width": 10,
                "features": 360,
            },
        ),
        (TEXT, {"shape": (16,), "vocabulary": 50, "length": 16}),
        (TABLE, {"shape": (4,), "features": 4, "categories": (3, 9)}),
        (DataSpec("numbers", (7,), "numbers"), {"shape": (7,), "features": 7}),
        (DataSpec("numbers", (20, 7), "numbers"), {"shape": (20, 7), "length": 20, "features": 7}),
        (DataSpec("numbers", (2, 3, 4, 5), "numbers"), {"shape": (2, 3, 4, 5), "features": 120}),
    ],
    ids=["images", "text", "table", "numbers", "sequences", "four axes"],
)
def test_values_are_those_that_the_data_has(spec: DataSpec, expected: dict):
    assert values_for_network(spec, 5) == {"outputs": 5} | expected


def test_placeholders_are_replaced_in_lists_and_mappings():
    arguments = {
        "num_classes": "$outputs",
        "img_size": ["$height", "$width"],
        "stem": {"channels": ["$channels", 8], "name": "plain"},
        "shape": "$shape",
        "depth": 2,
        "flag": None,
    }
    assert fill_placeholders(arguments, values_for_network(IMAGES, 3), IMAGES) == {
        "num_classes": 3,
        "img_size": [12, 10],
        "stem": {"channels": [3, 8], "name": "plain"},
        "shape": (3, 12, 10),
        "depth": 2,
        "flag": None,
    }


@pytest.mark.parametrize("text", ["outputs", "5$", "$5", "a $outputs", "$outputs ", "$", ""])
def test_other_texts_are_left_as_they_are(text: str):
    assert fill_placeholders({"a": text}, values_for_network(IMAGES, 3), IMAGES) == {"a": text}


def test_doubled_dollar_means_the_text():
    assert fill_placeholders({"a": "$$outputs"}, values_for_network(IMAGES, 3), IMAGES) == {"a": "$outputs"}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            IMAGES,
            "there is no $vocabulary for images of shape (3, 12, 10); write one of $outputs, $shape, $image_shape, "
            "$channels, $height, $width, $features, or $$vocabulary for the text $vocabulary",
        ),
        (TABLE, "there is no $vocabulary for rows of 4 numbers and 2 categories; write one of $outputs, $shape, "),
    ],
    ids=["images", "table"],
)
def test_placeholder_that_the_data_does_not_have_is_one_line_with_those_it_has(
    spec: DataSpec, expected: str, write_module: Callable, refusal: Callable
):
    write_module("my_net.py", "def Net(**arguments):\n    raise AssertionError('was called')")
    config = CustomModelConfig(name="my_net:Net", arguments={"a": [{"b": "$vocabulary"}]})
    assert refusal(build_network, config, spec, 3, 0).startswith(f"model.arguments: {expected}")


def test_network_of_tokens_is_built_from_offered_parameters_and_placeholders(write_module: Callable):
    write_module(
        "my_net.py",
        "from torch import nn\n"
        "def net(vocabulary, length, outputs, size, features=9):\n"
        "    assert (vocabulary, length, outputs, features) == (50, 16, 50, 9)\n"
        "    return nn.Sequential(nn.Embedding(vocabulary, size[0]), nn.Linear(size[0], outputs))",
    )
    config = CustomModelConfig(name="my_net:net", arguments={"size": ["$length"]})
    assert build_network(config, TEXT, 50, 0)[0].weight.shape == (50, 16)


def test_network_of_columns_gets_both_tensors_as_one_argument(write_module: Callable):
    write_module(
        "my_net.py",
        "import torch\nfrom torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, shape, categories, outputs):\n"
        "        super().__init__()\n"
        "        self.embeddings = nn.ModuleList([nn.Embedding(count, 2) for count in categories])\n"
        "        self.output = nn.LazyLinear(outputs)\n"
        "    def forward(self, inputs):\n"
        "        numbers, categories = inputs\n"
        "        numbers -= 1\n"
        "        parts = [layer(column) for layer, column in zip(self.embeddings, categories.T)]\n"
        "        return self.output(torch.cat([numbers, *parts], 1))",
    )
    network = build_network(CustomModelConfig(name="my_net:Net"), TABLE, 2, 0)
    assert network.output.weight.shape == (2, 4 + 2 * 2)
    numbers, categories = torch.ones(5, 4), torch.zeros(5, 2, dtype=torch.long)
    assert network((numbers, categories)).shape == (5, 2)
    assert (numbers == 1).all()  # the network writes into its input, and gets a copy
