"""LightningModules: their own loss and optimizer under exact global batches, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn

from batchscape.config.data.arrays import CustomDataConfig
from batchscape.config.model import CustomModelConfig
from batchscape.config.optimizer import OptimizerConfig
from batchscape.config.run import RunSpec
from batchscape.config.task import ClassificationConfig, RegressionConfig
from batchscape.curvature.loss_surface import LossSurface
from batchscape.data.prepare import prepare
from batchscape.data.prepared import PreparedData, write_prepared
from batchscape.data.spec import DataSpec
from batchscape.io.run_directory import RunDirectory
from batchscape.models.step_network import StepNetwork
from batchscape.optim.optimizers import build_optimizer
from batchscape.tasks.build import build_objective
from batchscape.tasks.compatibility import (
    check_additivity,
    examples_are_independent,
    probe_batch,
    supports_batch_size_one,
    validate_network,
    validate_optimizer,
)
from batchscape.tasks.objective import Objective
from batchscape.training.execution import Execution
from batchscape.training.train import train
from tests.helpers.lightning import LitBatchNorm, LitClassifier, LitContrastive
from tests.helpers.objectives import CPU

OWN_LOSS = ClassificationConfig(loss="module", metrics=("accuracy",))
OWN = OptimizerConfig(name="module")


@pytest.fixture(scope="module")
def data() -> PreparedData:
    """168 images to train with, 48 to validate and 24 to test with."""
    return prepare(CustomDataConfig(source="tests.helpers.lightning:MnistLike")).data


@pytest.fixture(scope="module")
def data_file(data: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "prepared.safetensors"
    write_prepared(path, data)
    return path


def model(name: str) -> CustomModelConfig:
    return CustomModelConfig(name=name if ":" in name else f"tests.helpers.lightning:{name}")


def objective_of(name: str, data: PreparedData, task: ClassificationConfig = OWN_LOSS) -> Objective:
    return build_objective(model(name), task, data, seed=0)


def run_of(name: str, file: Path, folder: Path, **settings: object) -> RunDirectory:
    training = {"budget": {"epochs": 3}, "accelerator": "cpu"}
    values = {"batch_size": 50, "learning_rate": 0.01, "seed": 1, "model": model(name), "training": training}
    return RunDirectory(train(RunSpec.model_validate({**values, **settings}), file, folder))


@pytest.mark.parametrize(
    ("plain", "own"),
    [
        (OptimizerConfig(arguments={"momentum": 0.9}), OptimizerConfig(arguments={"momentum": 0.9})),
        (OptimizerConfig(name="AdamW", arguments={"fused": False}), OWN),
    ],
    ids=["optimizer of the study", "optimizer of the module"],
)
def test_run_equals_that_of_the_network_with_the_same_loss(
    data_file: Path, tmp_path: Path, plain: OptimizerConfig, own: OptimizerConfig
):
    expected = run_of("Network", data_file, tmp_path / "plain", optimizer=plain)
    found = run_of("LitClassifier", data_file, tmp_path / "own", optimizer=own, task=OWN_LOSS)
    for name in ("init", "last", "best"):
        assert found.weights_file(name).read_bytes() == expected.weights_file(name).read_bytes()
    assert np.array_equal(found.update_norms(), expected.update_norms())
    columns = [f"{side}_{name}" for side in ("train", "validation") for name in ("loss", "accuracy")]
    losses, plain_losses = (run.history([*columns, "gradient_norm"]).to_numpy() for run in (found, expected))
    np.testing.assert_allclose(losses, plain_losses, rtol=1e-5)
    assert found.summary()["test_at_best"] == pytest.approx(expected.summary()["test_at_best"], rel=1e-5)


def test_module_whose_forward_is_not_compared_trains(data_file: Path, tmp_path: Path):
    task = ClassificationConfig(loss="module")
    run = run_of("LitAutoEncoder", data_file, tmp_path / "run", task=task, optimizer=OWN)
    losses = run.history(["validation_loss"])["validation_loss"]
    assert losses.iloc[-1] < 0.9 * losses.iloc[0]
    assert "encoder.0.weight" in load_file(run.weights_file("last"))


def test_loss_surface_is_that_of_the_network_with_the_same_loss(data: PreparedData):
    plain = objective_of("Network", data, ClassificationConfig())
    own = objective_of("LitClassifier", data)
    surfaces = [LossSurface(each, data.train, CPU, chunk=50) for each in (plain, own)]
    weights = torch.nn.utils.parameters_to_vector(plain.module.parameters()).detach().double().numpy()
    direction, rows = np.random.default_rng(0).normal(size=len(weights)), np.arange(5)
    for compute in (
        lambda surface: list(surface.value(weights).columns("").values()),
        lambda surface: surface.gradient(weights)[1],
        lambda surface: surface.gradient(weights, np.arange(60))[1],
        lambda surface: surface.hessian_vector_product(weights, direction),
        lambda surface: surface.example_gradients(weights, rows),
    ):
        expected, found = (np.asarray(compute(surface)) for surface in surfaces)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_copies_share_nothing_and_keep_their_names(data: PreparedData):
    objective = objective_of("LitClassifier", data)
    copied = objective.copy()
    network, replica = objective.module, copied.module
    assert isinstance(network, StepNetwork) and isinstance(replica, StepNetwork)
    names = [name for name, _ in LitClassifier().named_parameters()]
    assert list(network.state_dict()) == names == [name for name, _ in replica.named_parameters()]
    with torch.no_grad():
        for parameter in replica.parameters():
            parameter.zero_()
    batch = probe_batch(data.train)
    assert copied(batch).loss.item() == pytest.approx(np.log(10), rel=1e-6)
    assert objective(batch).loss.item() != copied(batch).loss.item()
    assert not replica.eval().module.training and network.module.training


@pytest.mark.parametrize(
    ("layer", "expected"),
    [(nn.BatchNorm1d(16), False), (nn.LayerNorm(16), True), (nn.Dropout(), True), (nn.Identity(), True)],
    ids=lambda value: type(value).__name__,
)
def test_batch_is_split_only_if_examples_are_independent(data: PreparedData, layer: nn.Module, expected: bool):
    objective = objective_of("LitClassifier", data)
    objective.module.layers[2] = layer
    batch = probe_batch(data.train)
    assert examples_are_independent(objective, batch, data.spec) is expected
    assert supports_batch_size_one(objective, probe_batch(data.train, count=1)) is not isinstance(layer, nn.BatchNorm1d)


def test_description_names_what_is_not_called(data: PreparedData):
    described = validate_network(model("LitClassifier"), OWN_LOSS, 50, data)
    assert (described["loss"], described["outputs"], described["hessian"]) == ("module", None, "computed")
    assert described["unused_methods"] == ["validation_step"]


def test_loss_that_compares_examples_is_refused(data: PreparedData, refusal: Callable):
    task = ClassificationConfig(loss="module")
    message = refusal(validate_network, model("LitContrastive"), task, 50, data)
    assert message.startswith("task.loss: module is not a mean over examples: 8 of them have the total loss ")
    assert "let training_step return the mean over the examples of its batch" in message
    check_additivity(objective_of("LitBatchNorm", data), probe_batch(data.train, count=8), "module")
    assert LitBatchNorm.training_step is LitClassifier.training_step is not LitContrastive.training_step


def test_empty_shard_of_a_module_with_batch_norm_is_refused(data_file: Path, tmp_path: Path, refusal: Callable):
    values = {"batch_size": 167, "learning_rate": 0.01, "seed": 1, "model": model("LitBatchNorm"), "task": OWN_LOSS}
    message = refusal(train, RunSpec.model_validate(values), data_file, tmp_path / "run", Execution(devices=2))
    assert message.startswith("resources.devices: batch size 167 leaves a batch of 1 of the 168 training examples")


MODULE = """
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional as F

class Lit(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
        self.automatic_optimization = {automatic}

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self.layers(batch[0]), batch[1])
        {step}

{methods}
"""


def write_lit(write_module: Callable, step: str = "return loss", methods: str = "", automatic: bool = True):
    write_module("my_lit.py", MODULE.format(step=step, methods=methods, automatic=automatic))
    return model("my_lit:Lit")


@pytest.mark.parametrize(
    ("step", "methods", "expected"),
    [
        ("return None", "", "model.name: my_lit:Lit: training_step returns no loss; return it, or a dict"),
        ("return {'logits': loss}", "", "model.name: my_lit:Lit: training_step returns no loss; return it, or a dict"),
        ("return loss.item()", "", "model.name: my_lit:Lit: training_step returns float; it must return the mean loss"),
        ("return loss.expand(3)", "", "model.name: my_lit:Lit: training_step returns shape (3,); it must return"),
        ("return loss.detach()", "", "model.name: my_lit:Lit has no trainable parameters that its loss depends on"),
        ("return loss * torch.rand(())", "", "model.name: my_lit:Lit: training_step gives another loss for the same"),
        ("return loss * (batch_idx + 1)", "", "model.name: my_lit:Lit: the loss depends on batch_idx"),
        ("return loss / self.trainer.max_steps", "", "model.name: the LightningModule reads self.trainer, and no Tra"),
        ("return loss * self.current_epoch", "", "model.name: the LightningModule reads self.current_epoch, and no"),
        (
            "return loss[0]",
            "",
            "model.name: my_lit:Lit: training_step fails on a batch of shapes (4, 1, 28",
        ),
        ("return loss.sum() * len(batch[0])", "", "task.loss: module is not a mean over examples: 8 of them"),
        (
            "return loss",
            "    def on_train_epoch_end(self): pass\n    def optimizer_step(self, *a): pass",
            "model.name: my_lit:Lit defines on_train_epoch_end and optimizer_step, which only a Trainer calls; move",
        ),
        (
            "return loss",
            "    def setup(self, stage): pass",
            "model.name: my_lit:Lit defines setup, which only",
        ),
        (
            "return loss",
            "    def training_step(self, dataloader_iter): pass",
            "model.name: my_lit:Lit: training_step",
        ),
    ],
    ids=lambda value: "" if value.startswith(("model.", "task.")) else value.strip()[:40],
)
def test_what_would_not_be_honored_is_refused(
    write_module: Callable, refusal: Callable, data: PreparedData, step: str, methods: str, expected: str
):
    config, task = write_lit(write_module, step, methods), ClassificationConfig(loss="module")
    assert refusal(validate_network, config, task, 50, data).startswith(expected)


def test_modules_and_settings_that_do_not_fit_are_refused(
    write_module: Callable, refusal: Callable, data: PreparedData
):
    task = ClassificationConfig(loss="module")
    manual = write_lit(write_module, automatic=False)
    message = refusal(build_objective, manual, task, data, 0)
    assert message.startswith("model.name: my_lit:Lit sets automatic_optimization = False")
    message = refusal(build_objective, model("Network"), task, data, 0)
    assert message.startswith(
        "task.loss: module: tests.helpers.lightning:Network returns Network, which is no Lightning"
    )
    message = refusal(
        build_objective, model("LitClassifier"), RegressionConfig(name="regression", loss="module"), data, 0
    )
    assert message.startswith("task.name: regression predicts numbers")
    unlogged = ClassificationConfig(loss="module", metrics=("f1",))
    message = refusal(validate_network, model("LitClassifier"), unlogged, 50, data)
    assert message == (
        "task.metrics: f1 is not logged by training_step of tests.helpers.lightning:LitClassifier, which logs "
        "train_loss, train_accuracy; log it there"
    )
    spec = DataSpec("images", (1, 28, 28), "class", data.spec.classes)
    weighted = type(data.train)(spec, {**data.train.arrays, "weights": torch.ones(len(data.train))})
    message = refusal(build_objective, model("LitClassifier"), task, PreparedData(spec, weighted, weighted, None), 0)
    assert message.startswith("task.loss: module: the data has weights, and training_step cannot weight")


def test_regression_on_numbers_trains(write_module: Callable, tmp_path: Path):
    write_module(
        "my_line.py",
        "import numpy as np, pytorch_lightning as pl, torch\n"
        "def load():\n    x = np.random.default_rng(0).normal(size=(80, 3)).astype('float32')\n"
        "    return x, x.sum(1)\n"
        "class Line(pl.LightningModule):\n    def __init__(self, outputs):\n        super().__init__()\n"
        "        self.line = torch.nn.Linear(3, outputs)\n"
        "    def training_step(self, batch):\n        x, y = batch\n"
        "        return {'loss': (self.line(x).squeeze(1) - y).square().mean()}\n",
    )
    task = RegressionConfig(name="regression", loss="module")
    source = CustomDataConfig(source="my_line:load")
    data = prepare(source, task="regression", path=tmp_path / "line.safetensors").data
    assert validate_network(model("my_line:Line"), task, 8, data)["parameters"] == 4
    run = run_of("my_line:Line", tmp_path / "line.safetensors", tmp_path / "run", task=task, learning_rate=0.1)
    assert run.history(["validation_loss"])["validation_loss"].iloc[-1] < 0.1


OPTIMIZERS = "    def configure_optimizers(self):\n        return {}"


@pytest.mark.parametrize(
    "returned",
    [
        "torch.optim.SGD(groups, lr=1.0)",
        "[torch.optim.SGD(groups, lr=1.0)]",
        "([torch.optim.SGD(groups, lr=1.0)], [])",
        "{'optimizer': torch.optim.SGD(groups, lr=1.0)}",
    ],
)
def test_rates_of_groups_keep_their_ratios(write_module: Callable, data: PreparedData, returned: str, tmp_path: Path):
    groups = "        groups = [{'params': [self.layers[1].weight]}, {'params': [self.layers[1].bias], 'lr': 0.25}]\n"
    methods = OPTIMIZERS.format(returned).replace("        return", f"{groups}        return")
    config = write_lit(write_module, methods=methods)
    task = ClassificationConfig(loss="module")
    network = build_objective(config, task, data, 0).module
    assert [group["lr"] for group in build_optimizer(network, OWN, 0.5).param_groups] == [0.5, 0.125]
    if returned.startswith("torch"):  # and in each step, as of plain SGD
        write_prepared(tmp_path / "data.safetensors", data)
        steps = {"budget": {"steps": 1}, "evaluate_every": {"steps": 1}, "accelerator": "cpu"}
        run = run_of(
            "my_lit:Lit", tmp_path / "data.safetensors", tmp_path / "run",
            task=task, optimizer=OWN, training=steps, learning_rate=0.5, batch_size=168,
        )  # fmt: skip
        network = build_objective(config, task, data, 1)
        network(data.train.batch(slice(None), CPU)).loss.backward()
        weight, bias = network.module.parameters()
        change = run.weights("last").vector - run.weights("init").vector
        np.testing.assert_allclose(change[:-10], -0.5 * weight.grad.flatten(), rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(change[-10:], -0.125 * bias.grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        ("None", "configure_optimizers returns NoneType, not an optimizer"),
        ("[torch.optim.SGD(self.parameters(), 1.0)] * 2", "configure_optimizers returns 2 optimizers"),
        ("torch.optim.LBFGS(self.parameters())", "configure_optimizers evaluates the loss several times a step"),
        ("torch.optim.SGD(nn.Linear(2, 2).parameters(), 1.0)", "the optimizer of configure_optimizers has parameters"),
        ("torch.optim.SGD(self.parameters(), 0.0)", "the optimizer of configure_optimizers has no learning rate above"),
        ("torch.optim.SGD(self.parameters(), 1.0, maximize=True)", "configure_optimizers sets maximize, which would"),
        ("1 / 0", "configure_optimizers fails: ZeroDivisionError"),
        (
            "{'optimizer': (o := torch.optim.SGD(self.parameters(), 1.0)),"
            " 'lr_scheduler': torch.optim.lr_scheduler.StepLR(o, 1)}",
            "configure_optimizers returns a scheduler of the learning rate",
        ),
    ],
    ids=lambda value: value[:30],
)
def test_optimizer_that_would_not_be_honored_is_refused(
    write_module: Callable, refusal: Callable, data: PreparedData, returned: str, expected: str
):
    config = write_lit(write_module, methods=OPTIMIZERS.format(returned))
    message = refusal(validate_optimizer, OWN, config, ClassificationConfig(loss="module"), data)
    assert message.startswith(f"optimizer.name: {expected}")
