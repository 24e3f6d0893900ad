"""The user's own network and data: how they are found, called, checked and refused."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from batchscape.config.data import OwnDataConfig
from batchscape.config.model import MlpConfig, OwnModelConfig, ResNetConfig, VggConfig
from batchscape.config.run import RunSpec
from batchscape.config.training import TrainingConfig
from batchscape.data.custom import load
from batchscape.data.prepared import PreparedData, write_prepared
from batchscape.errors import UserError
from batchscape.models.build import build_network
from batchscape.runtime.user_code import module_file
from batchscape.study.fingerprint import fingerprint
from batchscape.study.study import Study
from batchscape.tasks.compatibility import validate_network
from batchscape.training.train import train

RGB = (3, 12, 10)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], Path]]:
    """Write a module where the workflow runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


def data(classes: int, shape: tuple[int, int, int] = RGB) -> PreparedData:
    images = np.random.default_rng(0).integers(0, 256, (12, *shape), np.uint8)
    labels = np.arange(12) % classes
    return PreparedData(images, labels, images, labels, tuple(map(str, range(classes))))


NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, image_shape, outputs, width=4):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear({features}, width), nn.ReLU(), nn.Linear(width, {outputs}))

    def forward(self, images):
        return self.layers(images)
"""


def net(features: str = "image_shape[0] * image_shape[1] * image_shape[2]", outputs: str = "outputs") -> str:
    return NET.format(features=features, outputs=outputs)


def model(name: str = "my_net:Net", **arguments) -> OwnModelConfig:
    return OwnModelConfig(name=name, arguments=arguments)


# Found and called.


def test_a_module_is_found_without_being_run(own: Callable):
    top = own("my_net.py", "raise SystemExit('was run')")
    inner = own("my_package/deep/net.py", "raise SystemExit('was run')")
    package = own("other/__init__.py", "raise SystemExit('was run')")
    own("other/net.py", "raise SystemExit('was run')")
    assert module_file("my_net:Net", "model.name") == top
    assert module_file("my_package.deep.net:Net", "model.name") == inner
    assert module_file("other:Net", "model.name") == package
    assert module_file("other.net:Net", "model.name") == package.with_name("net.py")


@pytest.mark.parametrize("path", ["nowhere:Net", "my_net.inner:Net", "nowhere.deep:Net", "__main__:Net"])
def test_a_module_that_is_not_there_is_told_with_its_key(own: Callable, refusal: Callable, path: str):
    own("my_net.py", net())
    message = refusal(module_file, path, "model.name")
    assert message.startswith("model.name: there is no module ")
    assert path.partition(":")[0] in message


def test_a_module_beside_the_snakefile_comes_before_an_installed_one_that_is_loaded(own: Callable):
    """So it does in a job, which is a process of its own."""
    import pooch

    path = own("pooch.py", net())
    assert module_file("pooch:Net", "model.name") == path != Path(pooch.__file__)


def test_a_network_is_given_its_shape_outputs_and_arguments(own: Callable):
    own("my_net.py", net())
    layers = build_network(model(width=7), RGB, 3, 0).layers
    assert (layers[1].in_features, layers[1].out_features, layers[3].out_features) == (360, 7, 3)


def test_a_network_that_asks_for_nothing_is_given_nothing(own: Callable):
    own("my_net.py", "from torch import nn\ndef plain():\n    return nn.Sequential(nn.Flatten(), nn.Linear(360, 1))")
    assert validate_network(model("my_net:plain"), "auto", 2, data(2))["parameters"] == 361


def test_an_own_network_keeps_its_initial_weights_which_the_seed_decides(own: Callable, randomness):
    own("my_net.py", net())
    with torch.random.fork_rng():
        torch.manual_seed(5)
        expected = nn.Linear(360, 4).weight.detach()
    randomness.seed(1)
    untouched = randomness.draws()
    randomness.seed(1)
    first = build_network(model(), RGB, 1, 5).layers[1].weight.detach()
    assert randomness.draws() == untouched
    assert torch.equal(first, expected)
    assert not torch.equal(build_network(model(), RGB, 1, 6).layers[1].weight.detach(), expected)


def test_lazy_layers_learn_their_sizes(own: Callable):
    own(
        "my_net.py",
        "from torch import nn\ndef lazy(outputs):\n    return nn.Sequential(nn.Flatten(), nn.LazyLinear(outputs))",
    )
    assert validate_network(model("my_net:lazy"), "auto", 2, data(3))["parameters"] == 361 * 3


def test_what_is_known_of_a_network_stands_in_the_check(own: Callable):
    own("my_net.py", net())
    assert validate_network(model(), "cross_entropy", 2, data(2)) == {
        "name": "my_net:Net",
        "image_shape": [3, 12, 10],
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
        "hessian": "computed",
    }


# Refused before anything trains.


@pytest.mark.parametrize(
    ("text", "name", "arguments", "expected"),
    [
        (net(outputs="2"), "my_net:Net", {}, r"^model\.name: my_net:Net returns shape \(4, 2\) for 4 images; for 3 "),
        (net(features="99"), "my_net:Net", {}, r"^model\.name: my_net:Net cannot take images of shape \(3, 12, 10\): "),
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
            "my_net:Net", {}, r"^model\.name: my_net:Net returns dict for 4 images",
        ),
        ("1 / 0", "my_net:Net", {}, r"^model\.name: my_net cannot be imported: ZeroDiv.*\(my_net\.py, line 1\)"),
        ("def Net(width):\n    pass", "my_net:Net", {}, r"^model\.arguments: .*'width'; its parameters are: width$"),
        (
            "from torch import nn\ndef Net():\n    return nn.LazyConv2d(4, 50)",
            "my_net:Net", {}, r"^model\.name: my_net:Net cannot take images of shape \(3, 12, 10\): RuntimeError: ",
        ),
        (
            "from torch import nn\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
            "        self.used, self.idle = nn.Linear(360, 3), nn.LazyLinear(3)\n"
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
            "my_net:Net", {}, r"^model\.name: my_net:Net returns shape \(4,\) for 4 images",
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
def test_what_does_not_fit_is_one_line(
    own: Callable, refusal: Callable, text: str, name: str, arguments: dict, expected: str
):
    own("my_net.py", text)
    message = refusal(validate_network, OwnModelConfig(name=name, arguments=arguments), "auto", 2, data(3))
    assert re.search(expected, message), message


BATCH_NORM_OF_NUMBERS = """
from torch import nn

def numbers(outputs):
    return nn.Sequential(nn.Flatten(), nn.Linear(360, 4), nn.BatchNorm1d(4), nn.Linear(4, outputs))

def images(outputs):
    return nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(360, outputs))
"""


def test_a_batch_of_one_image_is_refused_where_batch_norm_cannot_train_on_it(
    own: Callable, refusal: Callable, tmp_path: Path
):
    own("my_net.py", BATCH_NORM_OF_NUMBERS)
    images, labels = np.zeros((13, *RGB), np.uint8), np.arange(13) % 3
    write_prepared(tmp_path / "data", PreparedData(images, labels, images, labels, ("a", "b", "c")))

    def run(name: str, batch_size: int) -> Path:
        training = TrainingConfig(max_epochs=1, accelerator="cpu")
        spec = RunSpec(
            batch_size=batch_size, learning_rate=0.1, seed=0, model=model(f"my_net:{name}"), training=training
        )
        return train(spec, tmp_path / "data", tmp_path / "run")

    for batch_size in (1, 4, 12):
        message = refusal(run, "numbers", batch_size)
        assert message.startswith(f"grid.batch_sizes: {batch_size} leaves a last batch with one of the 13 training ")
    for name, batch_size in (("numbers", 5), ("numbers", 13), ("images", 4), ("images", 1)):
        assert (run(name, batch_size) / "run.json").exists()


def test_no_batch_size_of_a_study_is_above_the_training_images(refusal: Callable):
    """Seen with the network, before the first run; a fraction is no way out where no fraction would leave enough."""
    config = MlpConfig(name="mlp")
    assert validate_network(config, "auto", 12, data(2))["outputs"] == 1
    for size, way_out in ((13, "remove it or lower data.validation_fraction"), (24, "remove it")):
        message = refusal(validate_network, config, "auto", size, data(2))
        assert message == f"grid.batch_sizes: {size} is more than the 12 training images; {way_out}"


def test_a_loss_for_another_number_of_classes_is_refused(refusal: Callable):
    message = refusal(validate_network, MlpConfig(name="mlp"), "binary_cross_entropy", 2, data(3))
    assert message.startswith("training.loss: binary_cross_entropy is for 2 classes, the data has 3; ")


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
def test_the_common_networks_fit_any_number_of_classes(config, classes: int, loss: str):
    found = validate_network(config, loss, 2, data(classes))
    assert found["outputs"] == (1 if classes == 2 and loss == "auto" else classes)
    assert found["batch_norm"] == (getattr(config, "normalization", "") == "batch")


def test_a_study_names_what_is_missing_before_anything_runs(own: Callable, refusal: Callable):
    own("my_net.py", net())
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
    assert message.startswith("s.yaml: data.path: there is no no/pets")


# Data.


def given(text: str, own: Callable, **arguments):
    own("my_data.py", f"import numpy as np\n{text}")
    return load(OwnDataConfig(source="my_data:load", arguments=arguments))


def test_a_function_gives_images_labels_and_classes(own: Callable):
    source = given(
        "def load(n):\n    return np.arange(n * 4, dtype=np.uint8).reshape(n, 2, 2), np.arange(n) % 2, ['no', 'yes']",
        own,
        n=5,
    )
    assert source.images.shape == (5, 2, 2, 1)
    assert source.images[1].ravel().tolist() == [4, 5, 6, 7]
    assert source.labels.tolist() == [0, 1, 0, 1, 0]
    assert source.classes == ("no", "yes")
    assert [entry.label for entry in source.entries] == ["no", "yes", "no", "yes", "no"]


def test_labels_without_names_are_classes_in_order(own: Callable):
    source = given("def load():\n    return np.zeros((4, 2, 3, 3), np.uint8), np.array(['b', 'a', 'c', 'a'])", own)
    assert source.classes == ("a", "b", "c")
    assert source.labels.tolist() == [1, 0, 2, 0]


@pytest.mark.parametrize("labels", ["np.array([1, 0, 1]) == 1", "np.array([1, 0, 1], np.uint8)", "[1, 0, 1]"])
def test_labels_with_names_may_be_any_whole_numbers(own: Callable, labels: str):
    source = given(f"def load():\n    return np.zeros((3, 2, 2), np.uint8), {labels}, np.array(['no', 'yes'])", own)
    assert (source.labels.tolist(), source.labels.dtype) == ([1, 0, 1], np.int64)
    assert source.classes == ("no", "yes")
    assert [entry.label for entry in source.entries] == ["yes", "no", "yes"]


def test_text_in_an_array_of_objects_is_text(own: Callable):
    source = given("def load():\n    return np.zeros((3, 2, 2), np.uint8), np.array(['b', 'a', 'b'], object)", own)
    assert (source.classes, source.labels.tolist()) == (("a", "b"), [1, 0, 1])


def test_floats_from_0_to_1_become_bytes(own: Callable):
    source = given("def load():\n    return np.array([[[0, 0.5, 1, 0.002]]]), np.array([3])", own)
    assert source.images.ravel().tolist() == [0, 128, 255, 1]


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        ("np.zeros((3, 2, 2), np.uint8)", "must return (images, labels)"),
        ("np.zeros((3, 2), np.uint8), np.zeros(3, int)", "the images have shape (3, 2)"),
        ("np.zeros((0, 2, 2), np.uint8), np.zeros(0, int)", "the images have shape (0, 2, 2)"),
        ("np.zeros((3, 2, 2), np.uint8), np.zeros(4, int)", "labels of shape (4,) for 3 images"),
        ("np.zeros((3, 2, 2), np.int32), np.zeros(3, int)", "images are int32"),
        ("np.full((3, 2, 2), 2.0), np.zeros(3, int)", "images are floats from 2 to 2"),
        ("np.full((3, 2, 2), np.nan), np.zeros(3, int)", "3 of the 3 images have pixels that are NaN or infinite"),
        ("np.zeros((3, 2, 2), np.uint8), np.zeros(3)", "labels are float64"),
        ("np.zeros((3, 2, 2), np.uint8), np.array([0, 1, 2]), ['a', 'b']", "integers from 0 to 1"),
        ("np.zeros((3, 2, 2), np.uint8), np.array([-1, 1, 0]), ['a', 'b']", "integers from 0 to 1"),
        ("np.zeros((3, 2, 2), np.uint8), np.array([0, None, 1])", "labels are object"),
        ("np.zeros((3, 2, 2), np.uint8), np.zeros(3, int), ['a', 'a']", "a list of unique names"),
        ("np.zeros((3, 2, 2), np.uint8), np.zeros(3, int), 2", "a list of unique names"),
        ("np.zeros((3, 2, 2), np.uint8), np.zeros(3, int), []", "a list of unique names"),
        ("[[[0, 1]], [[0]]], [0, 1]", "the images cannot be converted to a NumPy array: "),
        ("np.zeros((2, 3, 6, 6), np.uint8), np.array([0, 1])", "images of shape (2, 3, 6, 6) are channels-first"),
        ("exit(1)", "fails: SystemExit: 1 (my_data.py, line 3)"),
        ("1 / 0", "fails: ZeroDivisionError: division by zero (my_data.py, line 3)"),
    ],
)
def test_what_a_function_must_not_return_is_told_in_a_line(own: Callable, returned: str, expected: str):
    with pytest.raises(UserError) as caught:
        given(f"def load():\n    return {returned}", own)
    message = str(caught.value)
    assert message.splitlines() == [message]
    assert message.startswith("data")
    assert expected in message


# What makes jobs stale.


def fingerprint_anew(root: Path) -> str:
    fingerprint.__globals__["_fingerprint"].cache_clear()
    fingerprint.__globals__["_read"].cache_clear()
    return fingerprint(root)


def test_an_edit_of_what_a_module_uses_changes_its_fingerprint(own: Callable):
    root = own("net.py", "import torch\nimport layers\nfrom kit import norms\n")
    beside = own("layers.py", "x = 1\n")
    own("kit/__init__.py", "")
    inside = own("kit/norms.py", "from .deep import y\n")
    deep = own("kit/deep.py", "y = 1\n")
    unrelated = own("unrelated.py", "z = 1\n")

    before = fingerprint_anew(root)
    for file in (root, beside, inside, deep, unrelated):
        text = file.read_text()
        file.write_text(f"# a comment\n{text}")
        assert fingerprint_anew(root) == before
        file.write_text(f"{text}edited = 1\n")
        assert (fingerprint_anew(root) == before) == (file is unrelated), file
        file.write_text(text)
    assert fingerprint_anew(root) == before


@pytest.mark.parametrize(
    "statement",
    [
        "import docs.kit.norms",
        "from docs.kit import norms",
        "from docs.kit.norms import x",
        "from ..kit import norms",
        "from ..kit.norms import x",
    ],
)
def test_folders_without_an_init_file_are_packages_too(own: Callable, statement: str):
    root, used = own("docs/example/net.py", f"{statement}\n"), own("docs/kit/norms.py", "x = 1\n")
    before = fingerprint_anew(root)
    used.write_text("x = 2\n")
    assert fingerprint_anew(root) != before


def test_the_packages_around_a_module_run_before_it_and_count(own: Callable):
    root, outer, inner = own("a/b/net.py", "y = 1\n"), own("a/__init__.py", ""), own("a/b/__init__.py", "")
    helper = own("a/helper.py", "z = 1\n")
    seen = {fingerprint_anew(root)}
    for file, text in ((outer, "from . import helper\n"), (inner, "x = 1\n"), (helper, "z = 2\n")):
        file.write_text(text)
        seen.add(fingerprint_anew(root))
    assert len(seen) == 4


@pytest.mark.parametrize("content", [b"def Net(:\n", b"x = 1\0", b"# coding: latin-1\nx = '\xe9'\n", b"x = '\xe9'\n"])
def test_what_is_no_python_in_utf_8_has_a_fingerprint_as_well(own: Callable, content: bytes):
    root = own("net.py", "")
    root.write_bytes(content)
    before = fingerprint_anew(root)
    root.write_bytes(content.replace(b"x", b"y").replace(b"Net", b"Nat"))
    assert fingerprint_anew(root) != before


def test_packages_that_are_installed_beside_a_module_do_not_count(tmp_path: Path):
    site = tmp_path / "site-packages"
    texts = {
        "mine/__init__.py": "",
        "mine/net.py": "import other\nfrom . import more\n",
        "mine/more.py": "a = 1\n",
        "other/__init__.py": "b = 1\n",
    }
    for name, text in texts.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)

    root = site / "mine" / "net.py"
    before = fingerprint_anew(root)
    (site / "other" / "__init__.py").write_text("b = 2\n")
    assert fingerprint_anew(root) == before
    (site / "mine" / "more.py").write_text("a = 2\n")
    assert fingerprint_anew(root) != before
