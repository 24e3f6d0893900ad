"""Loss, accuracy and evaluation of networks."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from batchscape.config.model import VggConfig
from batchscape.data.dataset import Batch
from batchscape.data.prepared import PreparedData
from batchscape.tasks.modes import evaluation_mode
from tests.helpers import networks
from tests.helpers.networks import build_image_network
from tests.helpers.objectives import classifier, images_of, labels_of, tensors_of
from tests.helpers.surfaces import evaluate

DIGIT = (1, 8, 8)


def loss_and_accuracy(logits: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    objective = classifier(nn.Identity())
    sums = objective.measure(objective.record(Batch(logits, labels)))
    found = objective.report(sums, len(labels), "train")
    return found.loss, found.metrics["accuracy"]


def test_loss_and_accuracy_of_a_worked_example():
    logits = torch.tensor([[0.0], [math.log(3)], [-math.log(3)], [math.log(3)]], dtype=torch.float64)
    labels = torch.tensor([0.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    # probabilities ½, ¾, ¼, ¾
    expected = -(math.log(1 / 2) + math.log(3 / 4) + math.log(1 / 4) + math.log(1 / 4)) / 4
    objective = classifier(nn.Identity())
    assert objective(Batch(logits, labels)).loss.item() == pytest.approx(expected, rel=1e-14)
    loss, accuracy = loss_and_accuracy(logits.float(), labels.float())
    assert loss == pytest.approx(expected, rel=1e-6)
    assert accuracy == 2 / 4


def test_accuracy_is_nan_if_the_loss_is():
    logits = torch.tensor([[math.nan], [1.0]])
    assert all(map(math.isnan, loss_and_accuracy(logits, torch.tensor([0.0, 1.0]))))
    assert loss_and_accuracy(torch.tensor([[math.inf], [1.0]]), torch.tensor([0.0, 1.0])) == (math.inf, 0.5)


def test_large_logit_gives_a_finite_loss():
    logits, labels = torch.tensor([[1000.0], [-1000.0]]), torch.tensor([0.0, 0.0])
    assert classifier(nn.Identity())(Batch(logits, labels)).loss.item() == 500


@pytest.fixture(scope="module")
def digits(prepared: PreparedData) -> tuple[torch.Tensor, torch.Tensor]:
    return tensors_of(prepared.validation)


def test_evaluation_equals_an_independent_computation(prepared: PreparedData, digits: tuple):
    network = build_image_network(VggConfig(), DIGIT, 1, 0)
    replica = build_image_network(VggConfig(), DIGIT, 1, 0).double()
    with torch.no_grad():
        logits = replica(torch.from_numpy(images_of(prepared.validation) / 255.0)).numpy()[:, 0]
    probability, truth = 1 / (1 + np.exp(-logits)), labels_of(prepared.validation) == 1
    loss, accuracy = evaluate(network, *digits)
    assert loss == pytest.approx(-np.log(np.where(truth, probability, 1 - probability)).mean(), abs=1e-6)
    assert accuracy == ((probability > 0.5) == truth).mean()


@pytest.mark.parametrize("chunk", [1, 7, 358, 359, 10_000])
def test_evaluation_is_independent_of_the_chunk_size(digits: tuple, chunk: int):
    network = build_image_network(VggConfig(), DIGIT, 1, 0)
    loss, accuracy = evaluate(network, *digits)
    chunked_loss, chunked_accuracy = evaluate(network, *digits, chunk=chunk)
    assert chunked_loss == pytest.approx(loss, rel=1e-6)
    assert chunked_accuracy == accuracy


def test_evaluation_uses_evaluation_mode_and_leaves_no_trace(digits: tuple):
    """Dropout and batch statistics are not used, and neither gradients nor running statistics change."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(0.5), nn.Linear(144, 1))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    first = evaluate(network, *digits)
    assert evaluate(network, *digits) == first
    assert evaluate(network, *digits, chunk=5) == pytest.approx(first, rel=1e-6)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_restores_the_mode_of_the_network(digits: tuple, training: bool):
    network = build_image_network(VggConfig(), DIGIT, 1, 0).train(training)
    evaluate(network, *digits)
    assert all(module.training == training for module in network.modules())


SHAPE = (3, 8, 8)


class FreezesInEvaluation(networks.WritesIntoItsInput):
    def train(self, mode: bool = True) -> nn.Module:
        self.layers[1].requires_grad_(mode)
        return super().train(mode)


def test_evaluation_mode_restores_overridden_train():
    network = FreezesInEvaluation(SHAPE, 3)
    network.layers[2].eval()  # as user code may do
    with evaluation_mode(network):
        assert not network.layers[1].weight.requires_grad
    assert network.layers[1].weight.requires_grad
    assert (network.training, network.layers[1].training, network.layers[2].training) == (True, True, False)
