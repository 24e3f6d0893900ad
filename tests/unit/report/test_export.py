"""Exported settings: valid Python that trains as the study does, in Lightning and in plain torch."""

import ast
import logging
from collections.abc import Callable, Iterator
from typing import Any, get_args

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from batchscape.config.run import RunSpec
from batchscape.errors import UserError
from batchscape.optim.optimizers import build_optimizer
from batchscape.report.export import Format, export_setting, split_batch
from batchscape.training.lightning import pl
from batchscape.training.plan import StepPlan
from batchscape.training.precision import tf32

NUM_EXAMPLES = 96
ADAMW = {"name": "AdamW", "arguments": {"betas": [0.9, 0.95], "weight_decay": 0.1}, "decay_biases_and_norms": False}
SCHEDULES = {
    "constant": {},
    "warmup": {"warmup": {"steps": 3}},
    "linear": {"decay": "linear"},
    "cosine": {"warmup": {"fraction": 0.2}, "decay": "cosine", "final_factor": 0.1},
    "end": {"warmup": {"epochs": 1}, "decay": "sqrt", "decay_fraction": 0.5, "final_factor": 0.05},
    "warm-up to the end": {"warmup": {"fraction": 1.0}, "decay": "linear"},
}


@pytest.fixture(autouse=True)
def _tf32_is_restored() -> Iterator[None]:
    with tf32(True):
        yield


def make_spec(**sections: Any) -> RunSpec:
    values = {"batch_size": 24, "learning_rate": 0.05, "seed": 0, "training": {"budget": {"epochs": 5}}, **sections}
    return RunSpec.model_validate(values)


def exported(kind: str, spec: RunSpec, **options: Any) -> dict[str, Any]:
    text = export_setting(spec, NUM_EXAMPLES, "A setting", kind, **options)
    ast.parse(text)
    found: dict[str, Any] = {}
    exec(text, found)
    return found


@pytest.mark.parametrize(
    ("batch_size", "devices", "limit", "expected"),
    [(96, 1, None, (96, 1)), (96, 4, None, (24, 1)), (96, 4, 24, (24, 1)), (96, 4, 23, (12, 2)), (96, 2, 10, (8, 6)),
     (14, 2, 6, (1, 7)), (8, 8, 100, (1, 1)), (96, 3, 1, (1, 32))],
)  # fmt: skip
def test_shares_of_the_batch(batch_size: int, devices: int, limit: int | None, expected: tuple[int, int]):
    assert split_batch(batch_size, devices, limit) == expected
    assert devices * expected[0] * expected[1] == batch_size


@pytest.mark.parametrize(("devices", "limit"), [(5, None), (64, None), (0, None), (1, 0)])
def test_a_batch_that_cannot_be_shared_is_one_line(devices: int, limit: int | None):
    with pytest.raises(UserError) as error:
        split_batch(32, devices, limit)
    assert str(error.value).startswith("--max-per-device" if limit == 0 else "--devices")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("kind", ["lightning", "torchrun"])
def test_factor_of_the_learning_rate_is_that_of_the_study(kind: str, schedule: dict[str, Any]):
    spec = make_spec(schedule=schedule)
    plan = StepPlan(spec, NUM_EXAMPLES)
    found = exported(kind, spec)
    factor = found.get("learning_rate_factor", lambda _: 1.0)
    for step in range(1, plan.total + 1):
        assert factor(step - 1) == pytest.approx(plan.learning_rate_factor(step), abs=1e-12)
    assert found.get("max_steps", found.get("trainer", {}).get("max_steps")) == plan.total == 20


def reference(spec: RunSpec, network: nn.Module, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> nn.Module:
    """Train with the optimizer and the schedule of Batchscape, a global batch at a time."""
    optimizer, plan = build_optimizer(network, spec.optimizer, spec.learning_rate), StepPlan(spec, NUM_EXAMPLES)
    for step in range(1, plan.total + 1):
        inputs, targets = batches[(step - 1) % len(batches)]
        optimizer.zero_grad()
        nn.functional.mse_loss(network(inputs), targets).backward()
        if spec.optimizer.clip_norm:
            nn.utils.clip_grad_norm_(network.parameters(), spec.optimizer.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = spec.learning_rate * plan.learning_rate_factor(step)
        optimizer.step()
    return network


class Regression(pl.LightningModule):
    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        inputs, targets = batch
        return nn.functional.mse_loss(self.network(inputs), targets)


def make_problem() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    inputs = torch.randn(NUM_EXAMPLES, 4)
    network = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1))
    return network, inputs, inputs.sum(dim=1, keepdim=True)


def assert_same_weights(network: nn.Module, other: nn.Module) -> None:
    for parameter, expected in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected, rtol=1e-4, atol=1e-5)


RECIPES = {
    "AdamW": make_spec(optimizer={**ADAMW, "clip_norm": 0.5}, schedule=SCHEDULES["cosine"]),
    "SGD": make_spec(optimizer={"name": "SGD", "arguments": {"momentum": 0.9, "weight_decay": 0.01}}),
}


@pytest.mark.parametrize("spec", RECIPES.values(), ids=RECIPES)
def test_lightning_trains_as_the_study(spec: RunSpec, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(logging.getLogger("pytorch_lightning.utilities.rank_zero"), "level", logging.ERROR)
    network, inputs, targets = make_problem()
    found = exported("lightning", spec, max_per_device=6)
    assert found["trainer"]["accumulate_grad_batches"] == 4
    module = Regression(network)
    monkeypatch.setattr(Regression, "configure_optimizers", found["configure_optimizers"], raising=False)
    options = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(**found["trainer"], **options, enable_model_summary=False)
    loader = DataLoader(TensorDataset(inputs, targets), **{**found["dataloader"], "shuffle": False})
    trainer.fit(module, loader)
    assert trainer.global_step == StepPlan(spec, NUM_EXAMPLES).total
    batches = list(zip(inputs.split(24), targets.split(24), strict=True))
    assert_same_weights(network, reference(spec, make_problem()[0], batches))


@pytest.mark.parametrize("spec", RECIPES.values(), ids=RECIPES)
def test_loop_of_plain_torch_trains_as_the_study(spec: RunSpec):
    network, inputs, targets = make_problem()
    found = exported("torchrun", spec, max_per_device=6)
    built = found["build_optimizer"](network)
    optimizer, scheduler = built if isinstance(built, tuple) else (built, None)
    size, count = found["per_device_batch_size"], found["accumulation_steps"]
    batches = list(zip(inputs.split(size), targets.split(size), strict=True))
    for step in range(found["max_steps"]):
        optimizer.zero_grad()
        for index in range(count):
            one, other = batches[(step * count + index) % len(batches)]
            (nn.functional.mse_loss(network(one), other) / count).backward()
        if found["clip_norm"]:
            nn.utils.clip_grad_norm_(network.parameters(), found["clip_norm"])
        optimizer.step()
        if scheduler:
            scheduler.step()
    assert_same_weights(
        network, reference(spec, make_problem()[0], list(zip(inputs.split(24), targets.split(24), strict=True)))
    )


def test_training_arguments_have_the_values_of_the_study():
    spec = make_spec(
        optimizer={**ADAMW, "clip_norm": 0.5},
        schedule=SCHEDULES["cosine"],
        training={"budget": {"epochs": 5}, "precision": "bf16"},
    )
    found = exported("huggingface", spec, devices=2, max_per_device=4)
    assert found["arguments"] == {
        **{"per_device_train_batch_size": 4, "gradient_accumulation_steps": 3, "max_steps": 20},
        **{"learning_rate": 0.05, "max_grad_norm": 0.5, "bf16": True, "tf32": False, "optim": "adamw_torch"},
        **{"adam_beta1": 0.9, "adam_beta2": 0.95, "adam_epsilon": 1e-8, "weight_decay": 0.1, "warmup_steps": 4},
        **{"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.1}},
    }
    assert "build_optimizers" not in found


def test_without_clipping_the_default_of_training_arguments_is_disabled():
    assert exported("huggingface", make_spec(optimizer={"name": "Adam"}))["arguments"]["max_grad_norm"] == 0.0


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ({"optimizer": {"name": "SGD", "arguments": {"momentum": 0.9}}}, "SGD with its arguments"),
        ({"optimizer": {"name": "AdamW", "arguments": {"amsgrad": True}}}, "AdamW with amsgrad"),
        ({"optimizer": {"name": "AdamW"}}, "the weight decay of biases and normalization layers"),
        ({"optimizer": {"name": "Adam", "arguments": {"weight_decay": 0.1}}}, "the weight decay of Adam"),
        ({"optimizer": ADAMW, "schedule": SCHEDULES["end"]}, "a sqrt decay to 0.05 at the end of training"),
        ({"optimizer": ADAMW, "schedule": {"decay": "linear", "final_factor": 0.1}}, "a linear decay to 0.1"),
    ],
    ids=str,
)
def test_what_training_arguments_cannot_express_is_a_comment_and_code(sections: dict[str, Any], reason: str):
    spec = make_spec(**sections)
    text = export_setting(spec, NUM_EXAMPLES, "A setting", "huggingface")
    assert f"# Not expressed by TrainingArguments: {reason}" in text
    found: dict[str, Any] = {}
    exec(text, found)
    assert not {"optim", "weight_decay", "lr_scheduler_type"} & set(found["arguments"])
    network = make_problem()[0]
    optimizer, scheduler = found["build_optimizers"](network)
    plan = StepPlan(spec, NUM_EXAMPLES)
    for step in range(1, plan.total + 1):
        assert scheduler.get_last_lr()[0] == pytest.approx(0.05 * plan.learning_rate_factor(step), abs=1e-12)
        optimizer.step()
        scheduler.step()
    expected = build_optimizer(network, spec.optimizer, 0.05)
    for key in ("betas", "momentum", "weight_decay", "amsgrad", "eps"):
        assert [group.get(key) for group in optimizer.param_groups] == [
            group.get(key) for group in expected.param_groups
        ]


UNEXPRESSED = {
    "patience": ({}, {}, "without a lower validation loss"),
    "stages": (
        {"stages": [{"start": {"fraction": 0.5}, "batch_size_factor": 4, "learning_rate_factor": 2.0}]},
        {},
        "from 50 % of the budget on, the batch size was 4 times and the learning rate 2 times as large",
    ),
    "average": ({"averaging": {"half_life": 1000}}, {}, "half-life of 1,000 examples"),
    "augmentation": ({"training": {"budget": {"epochs": 5}, "augment_shift": 2}}, {}, "augmented"),
    "order": ({"training": {"budget": {"epochs": 5}, "reshuffle": False}}, {}, "the same batches"),
    "BatchNorm": ({}, {"has_batch_norm": True}, "BatchNorm"),
    "weights": ({}, {"is_weighted": True}, "examples have weights"),
    "last batch": ({"batch_size": 20}, {}, "the last batch of an epoch had 16 examples"),
}


@pytest.mark.parametrize(("sections", "options", "text"), UNEXPRESSED.values(), ids=UNEXPRESSED)
@pytest.mark.parametrize("kind", get_args(Format))
def test_what_is_not_expressed_is_a_comment(kind: str, sections: dict[str, Any], options: dict[str, Any], text: str):
    spec = make_spec(**sections)
    lines = export_setting(spec, NUM_EXAMPLES, "A setting", kind, devices=2, **options).splitlines()
    assert [line for line in lines if line.startswith("# Not expressed: ") and text in line] != []


def test_nothing_is_unexpressed_of_a_plain_recipe_on_one_device():
    spec = make_spec(training={"budget": {"epochs": 5}, "patience": None})
    for kind in ("lightning", "torchrun"):
        assert "Not expressed" not in export_setting(spec, NUM_EXAMPLES, "A setting", kind, has_batch_norm=True)


@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
def test_precision_is_that_of_the_study(precision: str):
    spec = make_spec(training={"budget": {"epochs": 5}, "precision": precision})
    found = exported("lightning", spec)
    assert found["trainer"]["precision"] == ("bf16-mixed" if precision == "bf16" else "32-true")
    assert torch.backends.cudnn.allow_tf32 is (precision == "tf32")
    assert exported("torchrun", spec)["autocast_dtype"] is (torch.bfloat16 if precision == "bf16" else None)


def test_an_optimizer_of_ones_own_is_imported():
    spec = make_spec(optimizer={"name": "torch.optim:NAdam", "arguments": {"betas": [0.9, 0.99]}})
    found = exported("lightning", spec)
    network = make_problem()[0]
    network.parameters()
    optimizer = found["configure_optimizers"](network)
    assert isinstance(optimizer, torch.optim.NAdam)
    assert optimizer.defaults["betas"] == (0.9, 0.99)


@pytest.mark.parametrize("kind", ["lightning", "huggingface", "torchrun"])
def test_the_decay_rates_of_adam_are_explicit_also_where_they_are_the_default(kind: str):
    text = export_setting(make_spec(optimizer={"name": "AdamW"}), NUM_EXAMPLES, "title", kind)
    assert "beta2=0.999" in text or "betas=(0.9, 0.999)" in text


@pytest.mark.parametrize(
    "wrap",
    [lambda each: each, lambda each: [each], lambda each: {"optimizer": each}, lambda each: ([each], [])],
    ids=["alone", "list", "dict", "tuple of lists"],
)
def test_an_optimizer_of_the_module_has_the_rate_of_the_study(wrap: Callable):
    spec = make_spec(optimizer={"name": "module"})
    network = make_problem()[0]
    groups = [
        {"params": [parameter], "lr": rate} for parameter, rate in zip(network.parameters(), (1, 4), strict=False)
    ]
    network.configure_optimizers = lambda: wrap(torch.optim.SGD(groups))
    optimizer = exported("torchrun", spec)["build_optimizer"](network)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.0125, 0.05])
    assert "super().configure_optimizers()  # in a subclass of your module" in export_setting(spec, 9, "s", "lightning")
    assert "# Not expressed by TrainingArguments: the optimizer of configure_optimizers" in export_setting(
        spec, 9, "s", "huggingface"
    )
