"""The estimated time of trainings, from a few timed steps."""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from batchscape.cli.cost import Pace, describe_cost, fit_pace, read_current_data, total_seconds
from batchscape.config.budget import Budget
from batchscape.config.data.arrays import ArraysConfig
from batchscape.config.data.images import DigitsConfig, ImageFolderConfig, SyntheticConfig
from batchscape.config.data.section import DataSection
from batchscape.data.inspect import inspect_source
from batchscape.data.prepare import prepare
from batchscape.study.plan import TrainingGroup
from batchscape.study.study import Study
from tests.helpers.objectives import images_of


def test_pace_fits_both_timed_batch_sizes():
    pace = fit_pace({32: 0.010, 128: 0.022}, 1e-5)  # 6 ms a batch, and 125 µs an example
    assert pace == Pace(pytest.approx(0.006), pytest.approx(0.000125), 1e-5)
    assert pace.epoch(64, 1000, 200) == pytest.approx(16 * 0.006 + 1000 * 0.000125 + 200e-5)


@pytest.mark.parametrize("seconds", [{16: 0.02}, {16: 0.02, 64: 0.01}, {16: 0.02, 64: 0.2}])
def test_no_part_of_the_pace_is_negative(seconds: dict[int, float]):
    pace = fit_pace(seconds, 0.0)
    assert pace.batch >= 0
    assert pace.example >= 0
    assert math.isclose(pace.batch + 16 * pace.example, 0.02)


def test_total_time_sums_all_epochs_over_parts_and_batch_sizes():
    trainings = [
        TrainingGroup("run", 10, 6, Budget(epochs=100), Budget(epochs=1)),
        TrainingGroup("search", 20, 4, Budget(steps=150), Budget(examples=1000)),
    ]
    pace = Pace(batch=0.1, example=0.01, validation_example=0.001)
    of_10, of_20 = 10 * 0.1 + 1 + 0.05, 5 * 0.1 + 1 + 0.005  # evaluated every tenth epoch
    assert total_seconds(trainings, pace, 100, 50) == pytest.approx(600 * of_10 + 120 * of_20)
    # With patience 4, a run of the first kind ends after 5 epochs or later, and one of the second after its 30.
    assert total_seconds(trainings, pace, 100, 50, 4) == pytest.approx(30 * of_10 + 120 * of_20)
    branches = [replace(trainings[0], part="branch")]
    assert total_seconds(branches, pace, 100, 50, 4) == total_seconds(branches, pace, 100, 50)


class SmallBatchesOnly(nn.Linear):
    """Raises an error for larger batches in training."""

    def __init__(self, outputs: int):
        super().__init__(64, outputs)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.training and len(images) > 8:
            raise RuntimeError("no more than 8 images")
        return super().forward(images.flatten(1))


def test_an_invalid_network_is_an_error(refusal):
    study = {"name": "s", "grid": {"batch_sizes": [8, 16]}, "model": {"name": f"{__name__}:no_network"}}
    checked = Study.from_mapping(study, "s.yaml")
    assert refusal(describe_cost, checked, inspect_source(checked.data)).startswith(
        "model.name: no_network does not exist"
    )


def raise_error(outputs: torch.Tensor, targets: torch.Tensor, *, reduction: str = "mean") -> torch.Tensor:  # noqa: ARG001
    raise ValueError("no such loss")


def detach(outputs: torch.Tensor, targets: torch.Tensor, *, reduction: str = "mean") -> torch.Tensor:
    return nn.functional.cross_entropy(outputs.detach(), targets, reduction=reduction)


def sum_up(outputs: torch.Tensor, targets: torch.Tensor, *, reduction: str = "mean") -> torch.Tensor:
    losses = nn.functional.cross_entropy(outputs, targets, reduction="none")
    return losses.sum() if reduction == "mean" else losses


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"loss": f"{__name__}:raise_error"}, f"task.loss: {__name__}:raise_error fails: ValueError: no such loss ("),
        ({"loss": f"{__name__}:detach"}, f"task.loss: {__name__}:detach cannot be differentiated: it must compute "),
        ({"loss": f"{__name__}:sum_up"}, f"task.loss: {__name__}:sum_up returns "),
        ({"metrics": [f"{__name__}:raise_error"]}, f"task.metrics: {__name__}:raise_error fails: ValueError: "),
        ({"loss": f"{__name__}:missing"}, "task.loss: missing does not exist in test_cost.py; "),
        ({"class_weights": {"od": 2}}, "task.class_weights: the data has no class od; did you mean odd?"),
    ],
    ids=["raises", "no gradient", "no mean", "metric", "no function", "no class"],
)
def test_an_invalid_loss_metric_or_class_is_an_error(task: dict, message: str, refusal: Callable):
    study = {"name": "s", "grid": {"batch_sizes": [8]}, "model": {"name": "mlp"}, "task": task}
    checked = Study.from_mapping(study, "s.yaml")
    assert refusal(describe_cost, checked, inspect_source(checked.data)).startswith(message)


def test_a_training_that_diverges_at_once_is_timed(tmp_path: Path):
    np.savez(tmp_path / "a.npz", inputs=np.ones((40, 3), np.float32), targets=np.linspace(1e5, 3e5, 40))
    study = {
        "name": "s",
        "data": {"source": "arrays", "path": str(tmp_path / "a.npz")},
        "task": {"name": "regression"},
        "grid": {"batch_sizes": [8]},
        "model": {"name": "mlp", "dense": [4]},
        "comparison": {"fixed_learning_rate": 1e9},
    }
    checked = Study.from_mapping(study, "s.yaml")
    (line,) = describe_cost(checked, inspect_source(checked.data, "regression"))
    assert line.startswith("time (rough estimate "), line


def positive_only(outputs: torch.Tensor, targets: torch.Tensor, *, reduction: str = "mean") -> torch.Tensor:
    if not (targets > 0).all():
        raise ValueError("targets must be positive")
    return nn.functional.mse_loss(outputs, targets, reduction=reduction)


@pytest.mark.parametrize("target", [[], [2]])
def test_a_loss_is_timed_with_targets_of_the_data(target: list[int], tmp_path: Path):
    targets = np.random.default_rng(0).uniform(1, 2, (40, *target))
    np.savez(tmp_path / "a.npz", inputs=np.zeros((40, 3), np.float32), targets=targets)
    study = {
        "name": "s",
        "data": {"source": "arrays", "path": str(tmp_path / "a.npz")},
        "task": {"name": "regression", "loss": f"{__name__}:positive_only"},
        "grid": {"batch_sizes": [8]},
        "model": {"name": "mlp", "dense": []},
    }
    checked = Study.from_mapping(study, "s.yaml")
    (line,) = describe_cost(checked, inspect_source(checked.data, "regression"))
    assert line.startswith("time (rough estimate "), line


@pytest.mark.parametrize(
    ("keys", "pattern"),
    [
        ({}, r"time \(rough estimate .*\): an epoch takes \S+ s at batch size 8, \S+ s at batch size 16; all"),
        (
            {"data": {"source": "cats_vs_dogs", "image_size": [8, 9]}},
            r"time \(rough estimate .*\): an epoch of 1,000 examples takes \S+ s at batch size 8, ",
        ),
        (
            {"data": {"source": "my_data:load"}},
            "time: unknown before the data is prepared; run `batchscape run FILE prepare --cores 4`, then",
        ),
        (
            {"task": {"class_weights": {"class1": 3}}},
            r"time \(rough estimate .*\): an epoch takes \S+ s at batch size 8, ",
        ),
        (
            {"task": {"class_weights": "balanced"}},
            r"time \(rough estimate .*\): an epoch takes \S+ s at batch size 8, ",
        ),
        # The budget ends before the patience does.
        (
            {"training": {"budget": {"epochs": 3}, "patience": 3}},
            r"time .* all trainings one after another take at most ",
        ),
        ({"training": {"accelerator": "gpu"}}, r"time: not estimated \(training.accelerator: `gpu`, but .*\)$"),
        (
            {"model": {"name": f"{__name__}:SmallBatchesOnly", "arguments": {}}},
            "time: not estimated, because a few steps of training failed: RuntimeError: no more than 8 images ",
        ),
    ],
)
def test_the_estimate_states_its_basis_or_why_it_is_missing(
    keys: dict, pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    synthetic = {"source": "synthetic", "images": 100_000, "image_size": [8, 8], "channels": 1}
    study = {"name": "s", "data": synthetic, "grid": {"batch_sizes": [8, 16]}, "model": {"name": "mlp"}, **keys}
    checked = Study.from_mapping(study, "s.yaml")
    (line,) = describe_cost(checked, inspect_source(checked.data))
    assert re.match(pattern, line), line
    assert list(tmp_path.iterdir()) == []


def write_image_folder(path: Path) -> ImageFolderConfig:
    for number in range(12):
        file = path / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), 20 * number).save(file)
    return ImageFolderConfig(source="image_folder", path=str(path), image_size=(5, 6), color="grayscale")


def write_arrays(path: Path) -> ArraysConfig:
    path.mkdir()
    np.savez(path / "a.npz", images=np.zeros((11, 5, 6, 2), np.uint8), labels=np.arange(11) % 3)
    return ArraysConfig(source="arrays", path=str(path / "a.npz"))


def test_prepared_data_counts_only_until_its_source_or_task_is_edited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    frame = pd.DataFrame({"x": np.arange(40.0), "y": np.arange(40) % 3})
    frame.to_csv("t.csv", index=False)
    study = {"name": "s", "data": {"source": "table", "path": "t.csv", "target": "y"}, "model": {"name": "mlp"}}
    classes = Study.from_mapping({**study, "task": {"name": "classification"}}, "s")
    numbers = Study.from_mapping({**study, "task": {"name": "regression"}}, "s")
    file = Path(classes.paths.prepared_data)
    file.parent.mkdir(parents=True)
    prepare(classes.data, task="classification", path=file)
    assert read_current_data(classes, inspect_source(classes.data, "classification")) is not None
    inspection = inspect_source(numbers.data, "regression")
    assert read_current_data(numbers, inspection) is None
    assert "an epoch takes" in describe_cost(numbers, inspection)[0]


@pytest.mark.parametrize(
    "write",
    [
        lambda _: DigitsConfig(),
        lambda _: DigitsConfig(task="digit", validation_fraction=0.3),
        lambda _: SyntheticConfig(source="synthetic", images=33, image_size=(5, 6), classes=3),
        write_image_folder,
        write_arrays,
    ],
    ids=["digits", "ten digits", "synthetic", "image_folder", "arrays"],
)
def test_timed_data_is_like_the_prepared_data(tmp_path: Path, write: Callable[[Path], DataSection]):
    config = write(tmp_path / "data")
    inspection, data = inspect_source(config), prepare(config).data
    assert (inspection.spec.shape, inspection.spec.classes) == (data.spec.shape, data.spec.classes)
    assert images_of(data.train).shape[1:] == inspection.spec.shape
    assert inspection.counts == (len(data.train), len(data.validation))
