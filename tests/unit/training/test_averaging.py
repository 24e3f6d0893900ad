"""The average of the weights of a run: computed from its weights by definition, evaluated, saved and analyzed."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F
from torch.optim.optimizer import register_optimizer_step_post_hook

from batchscape.analysis.surfaces import evaluate_at_checkpoints
from batchscape.config.run import RunSpec
from batchscape.curvature.loss_surface import LossSurface
from batchscape.data.dataset import Dataset
from batchscape.data.prepared import PreparedData, write_prepared
from batchscape.io.run_directory import RunDirectory
from batchscape.models.build import build_network
from batchscape.training.train import train
from tests.helpers.objectives import CPU
from tests.helpers.recipes import three_classes

HALF_LIFE = 40
SIZES = [12] * 8 + [1] + [12] * 5  # of the 14 steps


def spec_of(half_life: int | None, normalization: str) -> RunSpec:
    return RunSpec.model_validate(
        {
            "batch_size": 12,
            "learning_rate": 0.05,
            "seed": 3,
            "model": {
                "name": "tests.helpers.recipes:Exact", "arguments": {"normalization": normalization, "dropout": 0.2},
            },
            "training": {
                "budget": {"steps": len(SIZES)}, "evaluate_every": {"steps": 5}, "patience": None, "accelerator": "cpu",
            },
            "optimizer": {"arguments": {"momentum": 0.9}},
            "averaging": {"half_life": half_life},
        }
    )  # fmt: skip


@dataclass
class Averaged:
    """A run with an average, the same run without it, and the weights after each step."""

    run: RunDirectory
    without: RunDirectory
    path: list[np.ndarray]

    def expected(self, step: int) -> np.ndarray:
        """The average after a step, by its definition: Σ w_s θ_s / Σ w_s, w_s = (1 − d_s) d_{s+1} ⋯ d_t."""
        decays = [0.5 ** (size / HALF_LIFE) for size in SIZES[:step]]
        weights = [(1 - decay) * np.prod(decays[index + 1 :]) for index, decay in enumerate(decays)]
        return np.average(self.path[:step], axis=0, weights=weights)


@pytest.fixture(scope="module")
def data() -> PreparedData:
    return three_classes()


@pytest.fixture(scope="module", params=["group", "batch"])
def averaged(request: pytest.FixtureRequest, data: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> Averaged:
    folder, path = tmp_path_factory.mktemp("runs"), []
    write_prepared(folder / "prepared", data)

    def collect(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if len(parameters) > 1:  # otherwise a test for a fused implementation
            path.append(torch.nn.utils.parameters_to_vector(parameters).detach().numpy().copy())

    hook = register_optimizer_step_post_hook(collect)
    try:
        run = train(spec_of(HALF_LIFE, request.param), folder / "prepared", folder / "with")
    finally:
        hook.remove()
    without = train(spec_of(None, request.param), folder / "prepared", folder / "without")
    assert len(path) == len(SIZES)
    return Averaged(RunDirectory(run), RunDirectory(without), path)


def loaded(averaged: Averaged, data: PreparedData, vector: np.ndarray, buffers: dict[str, Any]) -> torch.nn.Module:
    """Return the network with some weights, in evaluation mode."""
    spec = RunSpec.model_validate(averaged.run.summary()["spec"])
    network = build_network(spec.model, data.spec, 3, 0).eval()
    torch.nn.utils.vector_to_parameters(torch.from_numpy(vector), network.parameters())
    network.load_state_dict({name: torch.from_numpy(array) for name, array in buffers.items()}, strict=False)
    return network


def loss_and_accuracy(network: torch.nn.Module, side: Dataset) -> tuple[float, float]:
    batch = side.batch(slice(None), CPU)
    with torch.no_grad():
        outputs = network(batch.inputs)
    return F.cross_entropy(outputs, batch.targets).item(), (outputs.argmax(1) == batch.targets).double().mean().item()


def test_average_does_not_change_training(averaged: Averaged):
    for name in ("init", "best", "last"):
        assert averaged.run.weights_file(name).read_bytes() == averaged.without.weights_file(name).read_bytes()
    assert np.array_equal(averaged.run.update_norms(), averaged.without.update_norms())
    histories = [pd.read_csv(run.history_file) for run in (averaged.run, averaged.without)]
    untimed = [column for column in histories[1] if "seconds" not in column]
    pd.testing.assert_frame_equal(histories[0][untimed], histories[1][untimed], check_exact=True)
    assert {column for column in histories[0] if column not in histories[1]} == {
        "average_validation_loss",
        "average_validation_accuracy",
    }
    assert not averaged.without.weights_file("average").exists()
    assert averaged.without.summary()["average_validation"] == averaged.without.summary()["average_test"] == {}


def test_file_has_the_average_by_its_definition(averaged: Averaged):
    average, last = averaged.run.checkpoint_weights("average"), averaged.run.weights("last")
    np.testing.assert_array_equal(last.vector, averaged.path[-1])
    np.testing.assert_allclose(average.vector, averaged.expected(len(SIZES)), rtol=1e-12, atol=1e-14)
    assert np.linalg.norm(average.vector - last.vector) > 1e-3
    assert average.shapes == last.shapes
    assert average.buffers.keys() == last.buffers.keys()
    for name, buffer in last.buffers.items():  # those of the network, which are not averaged
        np.testing.assert_array_equal(average.buffers[name], buffer)


def test_history_has_the_losses_of_the_average(averaged: Averaged, data: PreparedData):
    history = pd.read_csv(averaged.run.history_file)
    assert history["step"].tolist() == [5, 10, 14]
    last = averaged.run.weights("last")
    # BatchNorm has the statistics of its step, which only the last one saves.
    rows = range(3) if not last.buffers else [2]
    for row in rows:
        network = loaded(averaged, data, averaged.expected(history["step"][row]), last.buffers)
        loss, accuracy = loss_and_accuracy(network, data.validation)
        assert history["average_validation_loss"][row] == pytest.approx(loss, rel=1e-10)
        assert history["average_validation_accuracy"][row] == accuracy
        assert history["validation_loss"][row] != pytest.approx(loss, rel=1e-6)


def test_summary_has_the_average_at_the_end(averaged: Averaged, data: PreparedData):
    summary, last = averaged.run.summary(), averaged.run.weights("last")
    network = loaded(averaged, data, averaged.expected(len(SIZES)), last.buffers)
    for side, key in ((data.validation, "average_validation"), (data.test, "average_test")):
        loss, accuracy = loss_and_accuracy(network, side)
        assert summary[key] == {"loss": pytest.approx(loss, rel=1e-10), "accuracy": accuracy}


def test_analyses_evaluate_the_average(averaged: Averaged, data: PreparedData):
    def loss(surface: LossSurface, weights: np.ndarray) -> pd.DataFrame:
        return pd.DataFrame({"loss": [surface.value(weights, "train").loss]})

    rows = evaluate_at_checkpoints(averaged.run, data, ("average", "last"), loss)
    assert rows["checkpoint"].tolist() == ["average", "last"]
    last = averaged.run.weights("last")
    for found, vector in zip(rows["loss"], (averaged.expected(len(SIZES)), last.vector), strict=True):
        expected, _ = loss_and_accuracy(loaded(averaged, data, vector, last.buffers), data.train)
        assert found == pytest.approx(expected, rel=1e-6)
