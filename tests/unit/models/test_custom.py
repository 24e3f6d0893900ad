"""Custom networks: how they are constructed, validated and rejected."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from batchscape.config.budget import Budget
from batchscape.config.model import CustomModelConfig, MlpConfig, ResNetConfig, VggConfig
from batchscape.config.run import RunSpec
from batchscape.config.task import ClassificationConfig
from batchscape.config.training import TrainingConfig
from batchscape.data.prepared import PreparedData, write_prepared
from batchscape.io.run_directory import RunDirectory
from batchscape.study.study import Study
from batchscape.tasks.compatibility import validate_network
from batchscape.training.train import train
from tests.helpers.networks import build_image_network, net
from tests.helpers.objectives import image_data

RGB = (3, 12, 10)


def data(classes: int, shape: tuple[int, int, int] = RGB) -> PreparedData:
    images = np.random.default_rng(0).integers(0, 256, (12, *shape), np.uint8)
    labels = np.arange(12) % classes
    return image_data(images, labels, images, labels, tuple(map(str, range(classes))))


def model(name: str = "my_net:Net", **arguments) -> CustomModelConfig:
    return CustomModelConfig(name=name, arguments=arguments)


def test_network_receives_shape_outputs_and_arguments(write_module: Callable):
    write_module("my_net.py", net())
    layers = build_image_network(model(width=7), RGB, 3, 0).layers
    assert (layers[1].in_features, layers[1].out_features, layers[3].out_features) == (360, 7, 3)


def test_network_without_parameters_receives_no_arguments(write_module: Callable):
    write_module(
        "my_net.py", "from torch import nn\ndef plain():\n    return nn.Sequential(nn.Flatten(), nn.Linear(360, 1))"
    )
    assert validate_network(model("my_net:plain"), ClassificationConfig(), 2, data(2))["parameters"] == 361


def test_custom_network_keeps_its_initial_weights_given_by_the_seed(write_module: Callable, randomness):
    write_module("my_net.py", net())
    with torch.random.fork_rng():
        torch.manual_seed(5)
        expected = nn.Linear(360, 4).weight.detach()
    randomness.seed(1)
    untouched = randomness.draws()
    randomness.seed(1)
    first = build_image_network(model(), RGB, 1, 5).layers[1].weight.detach()
    assert randomness.draws() == untouched
    assert torch.equal(first, expected)
    assert not torch.equal(build_image_network(model(), RGB, 1, 6).layers[1].weight.detach(), expected)


def test_lazy_layers_are_initialized(write_module: Callable):
    write_module(
        "my_net.py",
        "from torch import nn\ndef lazy(outputs):\n    return nn.Sequential(nn.Flatten(), nn.LazyLinear(outputs))",
    )
    assert validate_network(model("my_net:lazy"), ClassificationConfig(), 2, data(3))["parameters"] == 361 * 3


def test_validation_returns_the_description_of_the_network(write_module: Callable):
    write_module("my_net.py", net())
    assert validate_network(model(), ClassificationConfig(loss="cross_entropy"), 2, data(2)) == {
        "name": "my_net:Net",
        "task": "classification",
        "input_shape": [3, 12, 10],
        "classes": ["0", "1"],
        "outputs": 2,
        "loss": "cross_entropy",
        "parameters": 361 * 4 + 10,
        "shapes": {
            "layers.1.weight": [4, 360],
            "layers.1.bias": [4],
            "layers.3.weight": [2, 4],
            "layers.3.bias": [2],
        },
        "batch_norm": False,
        "weighted": False,
        "hessian": "computed",
        "unused_methods": [],
    }


@pytest.mark.parametrize(
    ("channels", "options", "copies"),
    [(4, "stride=2", True), (8, "stride=2", False), (4, "stride=1", False), (4, "stride=2, groups=4", False)],
)
def test_network_with_a_layer_that_crashes_in_channels_last_memory_gets_contiguous_memory(
    write_module: Callable, channels: int, options: str, copies: bool
):
    """In a narrow 1×1 convolution with a stride, oneDNN writes beyond its buffers."""
    write_module(
        "my_net.py",
        "from torch import nn\ndef Net():\n"
        f"    return nn.Sequential(nn.Conv2d(3, {channels}, 3), nn.Conv2d({channels}, 8, 1, {options}), nn.Flatten())",
    )
    network = build_image_network(model(), RGB, 1, 0)
    seen = []
    network[1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].is_contiguous()))
    network(torch.rand(2, *RGB).contiguous(memory_format=torch.channels_last)).sum().backward()
    assert seen == [copies]
    assert network[0].weight.is_contiguous() == copies


# Networks that are rejected before anything trains.


@pytest.mark.parametrize(
    ("text", "name", "arguments", "expected"),
    [
        (net(outputs="2"), "my_net:Net", {}, r"^model\.name: my_net:Net returns shape \(4, 2\) for 4 examples; for 3 "),
        (net(features="99"), "my_net:Net", {}, r"^model\.name: my_net:Net cannot take inputs of shape \(3, 12, 10\): "),
        (net(), "my_net:Nat", {}, r"^model\.name: Nat does not exist in my_net\.py"),
        ("Net = 5", "my_net:Net", {}, r"^model\.name: Net is not a class or function in my_net\.py"),
        ("import no_such_thing", "my_net:Net", {}, r"^model\.name: my_net cannot be imported: ModuleNot.*line 1\)"),
        ("def Net(:", "my_net:Net", {}, r"^model\.name: my_net cannot be imported: SyntaxError: "),
        ("import sys\nsys.exit(3)", "my_net:Net", {}, r"^model\.name: my_net cannot be imported: SystemExit: 3"),
        (net(), "my_net:Net", {"depth": 3}, r"^model\.arguments: my_net:Net does not accept them: .*depth"),
        (net(), "my_net:Net", {"width": "wide"}, r"^model: my_net:Net fails: TypeError: "),
        ("def Net():\n    return 5", "my_net:Net", {}, r"^model\.name: my_net:Net returns int, but must"),
        (
            "from torch import nn\ndef Net():\n    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())",
            "my_net:Net", {}, r"^model\.name: my_net:Net has no trainable parameters",
        ),
        (
            "from torch import nn\nclass Net(nn.Module):\n    def forward(self, x):\n        return {'logits': x}",
            "my_net:Net", {}, r"^model\.name: my_net:Net returns dict for 4 examples in evaluation mode; return one",
        ),
        (
            "from torch import nn\nclass Net(nn.Sequential):\n    def __init__(self):\n"
            "        super().__init__(nn.Flatten(), nn.Linear(360, 3))\n    def forward(self, x):\n"
            "        logits = super().forward(x)\n        return (logits, logits) if self.training else logits",
            "my_net:Net", {}, r"^model\.name: my_net:Net returns tuple for 4 examples in training mode; return one .* "
            r"`aux_logits: false`",
        ),
        ("1 / 0", "my_net:Net", {}, r"^model\.name: my_net cannot be imported: ZeroDiv.*\(my_net\.py, line 1\)"),
        ("def Net(width):\n    pass", "my_net:Net", {}, r"^model\.arguments: .*'width'; its parameters are: width$"),
        (
            "from torch import nn\ndef Net():\n    return nn.LazyConv2d(4, 50)",
            "my_net:Net", {}, r"^model\.name: my_net:Net cannot take inputs of shape \(3, 12, 10\): RuntimeError: ",
        ),
        (
            "from torch import nn\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
            "        self.used, self.unused = nn.Linear(360, 3), nn.LazyLinear(3)\n"
            "    def forward(self, x):\n        return self.used(x.flatten(1))",
            "my_net:Net", {}, r"^model\.name: my_net:Net has a lazy layer that stays uninitialized",
        ),
        (
            "from torch import nn\nclass Net(nn.Sequential):\n    def __deepcopy__(self, memo):\n        1 / 0\n"
            "    def __init__(self):\n        super().__init__(nn.Flatten(), nn.Linear(360, 3))",
            "my_net:Net", {}, r"^model\.name: my_net:Net cannot be copied by copy\.deepcopy: ZeroDivision.*line 4\)",
        ),
        (
            "from torch import nn\nclass Net(nn.Sequential):\n    def __init__(self):\n"
            "        super().__init__(nn.Flatten(), nn.Linear(360, 3))\n    def forward(self, x):\n"
            "        logits = super().forward(x)\n        return logits if self.training else logits.softmax(1)[:, 0]",
            "my_net:Net", {}, r"^model\.name: my_net:Net returns shape \(4,\) for 4 examples",
        ),
        *(
            (
                f"import torch\nfrom torch import nn\nfrom torch.nn import functional as F\ndef Net():\n"
                f"    return nn.Sequential(nn.Flatten(), {layer}, nn.Linear(360, 3))\n"
                "class Noise(nn.Module):\n    def forward(self, x):\n        return F.dropout(x)",
                "my_net:Net", {}, r"^model\.name: my_net:Net: in evaluation mode, the outputs of an example depend",
            )
            for layer in ("nn.BatchNorm1d(360, track_running_stats=False)", "Noise()")
        ),
    ],
)  # fmt: skip
def test_invalid_network_raises_a_one_line_error(
    write_module: Callable, refusal: Callable, text: str, name: str, arguments: dict, expected: str
):
    write_module("my_net.py", text)
    message = refusal(validate_network, model(name, **arguments), ClassificationConfig(), 2, data(3))
    assert re.search(expected, message), message


BATCH_NORM_OF_NUMBERS = """
from torch import nn

def numbers(outputs):
    return nn.Sequential(nn.Flatten(), nn.Linear(360, 4), nn.BatchNorm1d(4), nn.Linear(4, outputs))

def images(outputs):
    return nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(360, outputs))
"""


def test_batch_of_one_image_is_rejected_if_batch_norm_cannot_train_on_it(
    write_module: Callable, refusal: Callable, tmp_path: Path
):
    write_module("my_net.py", BATCH_NORM_OF_NUMBERS)
    images, labels = np.zeros((13, *RGB), np.uint8), np.arange(13) % 3
    write_prepared(tmp_path / "data", image_data(images, labels, images, labels, ("a", "b", "c")))

    def run(name: str, batch_size: int, steps: int | None = None) -> Path:
        budget = Budget(epochs=None if steps else 1, steps=steps)
        training = TrainingConfig(budget=budget, accelerator="cpu")
        spec = RunSpec(
            batch_size=batch_size, learning_rate=0.1, seed=0, model=model(f"my_net:{name}"), training=training
        )
        return train(spec, tmp_path / "data", tmp_path / "run")

    for batch_size in (1, 4, 12):
        message = refusal(run, "numbers", batch_size)
        assert message.startswith(f"grid.batch_sizes: {batch_size} leaves a batch with one of the 13 training ")
    for name, batch_size in (("numbers", 5), ("numbers", 13), ("images", 4), ("images", 1)):
        assert (run(name, batch_size) / "run.json").exists()
    # The budget ends before the batch of one image.
    assert RunDirectory(run("numbers", 4, steps=3)).summary()["steps"] == 3


def test_batch_size_above_the_number_of_training_images_is_rejected(refusal: Callable):
    """A lower validation fraction is suggested only if it would help."""
    config = MlpConfig(name="mlp")
    assert validate_network(config, ClassificationConfig(), 12, data(2))["outputs"] == 1
    for size, way_out in ((13, "remove it or lower data.validation_fraction"), (24, "remove it")):
        message = refusal(validate_network, config, ClassificationConfig(), size, data(2))
        assert message == f"grid.batch_sizes: {size} is more than the 12 training examples; {way_out}"


def test_loss_for_another_number_of_classes_is_rejected(refusal: Callable):
    message = refusal(
        validate_network, MlpConfig(name="mlp"), ClassificationConfig(loss="binary_cross_entropy"), 2, data(3)
    )
    assert message.startswith("task.loss: binary_cross_entropy is for 2 classes, the data has 3; ")


@pytest.mark.parametrize("loss", ["auto", "cross_entropy"])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(
    "config",
    [
        VggConfig(channels=(4,), normalization="batch", dropout=0.5),
        VggConfig(channels=(4, 6), convolutions=2, normalization="group"),
        MlpConfig(name="mlp", dense=(6,), dropout=0.1),
        ResNetConfig(name="resnet", channels=(4, 8)),
        ResNetConfig(name="resnet", channels=(4, 8), normalization="group"),
    ],
    ids=str,
)
def test_built_in_networks_support_any_number_of_classes(config, classes: int, loss: str):
    description = validate_network(config, ClassificationConfig(loss=loss), 2, data(classes))
    assert description["outputs"] == (1 if classes == 2 and loss == "auto" else classes)
    assert description["batch_norm"] == (getattr(config, "normalization", "") == "batch")


def test_missing_files_of_a_study_are_reported_before_anything_runs(write_module: Callable, refusal: Callable):
    write_module("my_net.py", net())
    present = {"name": "s", "model": {"name": "my_net:Net"}}
    Study.from_mapping(present, "s.yaml").require_files("s.yaml")
    for section, key in (
        ({"model": {"name": "not_here:Net"}}, "model.name"),
        ({"data": {"source": "not_here:f"}}, "data.source"),
    ):
        message = refusal(Study.from_mapping({"name": "s", **section}, "s.yaml").require_files, "s.yaml")
        assert message.startswith(f"s.yaml: {key}: there is no module not_here")
    folder = {"source": "image_folder", "path": "no/pets", "image_size": [8, 8]}
    message = refusal(Study.from_mapping({"name": "s", "data": folder}, "s.yaml").require_files, "s.yaml")
    assert message.startswith("s.yaml: data.path: no/pets does not exist")
