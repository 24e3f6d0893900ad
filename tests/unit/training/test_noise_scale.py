"""The gradient noise scale against gradients of single examples, and against all partitions of a few of them."""

from itertools import permutations

import numpy as np
import pytest
import torch
from torch import nn

from batchscape.data.dataset import convert_images
from batchscape.data.prepared import PreparedData
from batchscape.io.run_directory import is_noise_scale_evaluation
from batchscape.training import noise_scale
from tests.helpers.objectives import CPU, classifier, image_dataset, images_of, labels_of


def network(*, batch_norm: bool = False) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 3, 3, padding=1), *([nn.BatchNorm2d(3)] if batch_norm else []), nn.ReLU(), nn.Dropout(0.5)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(3 * 64, 1))


def estimate_noise_scale(
    net: nn.Module, images: torch.Tensor, labels: torch.Tensor, order: torch.Tensor, *sizes: int, **options
) -> tuple[float, float]:
    outputs = next(layer for layer in reversed(net) if isinstance(layer, nn.Linear)).out_features
    data = image_dataset(images, labels, classes=max(2, outputs))
    return noise_scale.estimate_noise_scale(classifier(net, outputs), data, order, CPU, None, *sizes, **options)


def first_examples(small_data: PreparedData, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(images_of(small_data.train)[:count]), torch.from_numpy(
        labels_of(small_data.train)[:count]
    ).float()


def gradients_of_examples(net: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
    """Return the gradient of each example's loss, (n, p), computed from log(1 + eᶻ) − yz."""
    net.eval()
    rows = []
    for image, label in zip(convert_images(images), labels, strict=True):
        logit = net(image[None]).squeeze()
        net.zero_grad()
        (torch.log1p(logit.exp()) - label * logit).backward()
        rows.append(torch.cat([parameter.grad.flatten() for parameter in net.parameters()]).double().numpy())
    net.zero_grad()
    net.train()
    return np.array(rows)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("outputs", [1, 3])
def test_chunk_size_does_not_change_the_estimate(small_data: PreparedData, batch_norm: bool, outputs: int):
    net = network(batch_norm=batch_norm)
    net[-1] = nn.Linear(3 * 64, outputs)
    images, labels = torch.from_numpy(images_of(small_data.train)[:40]), torch.arange(40) % max(2, outputs)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    estimates = {
        chunk: estimate_noise_scale(net, images, labels, order, batch_size=16, chunk=chunk)
        for chunk in (None, 1, 5, 16, 99)
    }
    assert estimates[None] == estimates[16] == estimates[99]
    assert estimates[1] == pytest.approx(estimates[16], rel=1e-5)
    assert estimates[5] == pytest.approx(estimates[16], rel=1e-5)


def norm_and_trace(gradients: np.ndarray) -> tuple[float, float]:
    return float(np.linalg.norm(gradients.mean(axis=0))), float(np.trace(np.cov(gradients.T)))


@pytest.mark.parametrize("count", [2, 7])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_batches_of_one_give_the_exact_trace(small_data: PreparedData, count: int, batch_norm: bool):
    net = network(batch_norm=batch_norm)
    images, labels = first_examples(small_data, count)
    norm, trace = norm_and_trace(gradients_of_examples(net, images, labels))
    estimate = estimate_noise_scale(net, images, labels, torch.arange(count), batch_size=1)
    assert estimate == pytest.approx((norm, trace / norm**2), rel=1e-5)


@pytest.mark.parametrize("batch", [2, 3])
def test_estimate_is_unbiased_for_any_batch_sizes(small_data: PreparedData, batch: int):
    net = network()
    images, labels = first_examples(small_data, 6 if batch == 2 else 7)  # 2+2+2 and 3+3+1
    norm, trace = norm_and_trace(gradients_of_examples(net, images, labels))
    # The order within a batch does not matter, so a few hundred of the orders are all partitions.
    partitions = {}
    for order in permutations(range(len(labels))):
        parts = tuple(tuple(sorted(order[i : i + batch])) for i in range(0, len(order), batch))
        partitions.setdefault(frozenset(parts), order)
    assert len(partitions) == {2: 15, 3: 70}[batch]
    estimates = [estimate_noise_scale(net, images, labels, torch.tensor(order), batch) for order in partitions.values()]
    norms, scales = np.array(estimates).T
    assert norms == pytest.approx(norm, rel=1e-5)
    assert scales.mean() * norm**2 == pytest.approx(trace, rel=1e-5)
    assert np.ptp(scales) > 0.01 * scales.mean()


def test_equal_batches_give_the_estimate_of_mccandlish(small_data: PreparedData):
    net = network()
    images, labels = first_examples(small_data, 24)
    gradients = gradients_of_examples(net, images, labels)
    small = np.mean([np.sum(part.mean(axis=0) ** 2) for part in np.split(gradients, 3)])
    big = np.sum(gradients.mean(axis=0) ** 2)
    trace = (small - big) / (1 / 8 - 1 / 24)  # appendix A.1
    assert estimate_noise_scale(net, images, labels, torch.arange(24), 8)[1] == pytest.approx(trace / big, rel=1e-5)


def test_equal_examples_have_noise_scale_zero(small_data: PreparedData):
    images, labels = first_examples(small_data, 1)
    norm, scale = estimate_noise_scale(network(), images.repeat(70, 1, 1, 1), labels.repeat(70), torch.randperm(70))
    assert norm > 0
    assert scale == pytest.approx(0, abs=1e-6)


def test_fewer_examples_than_a_batch_are_split_in_two(small_data: PreparedData):
    images, labels = first_examples(small_data, 20)
    order = torch.arange(20)
    estimate = estimate_noise_scale(network(), images, labels, order)
    assert estimate == estimate_noise_scale(network(), images, labels, order, batch_size=10)
    assert np.isfinite(estimate).all()


def test_noise_scale_of_non_finite_weights_is_nan(small_data: PreparedData):
    net = network()
    nn.init.constant_(net[-1].weight, torch.inf)
    assert np.isnan(estimate_noise_scale(net, *first_examples(small_data, 20), torch.arange(20))).all()


def test_frozen_and_unused_parameters_are_ignored(small_data: PreparedData):
    net, partly = network(), network()
    partly[0].weight.requires_grad_(False)
    partly.idle = nn.Identity()
    partly.idle.weight = nn.Parameter(torch.ones(3))
    images, labels = first_examples(small_data, 8)
    rest = gradients_of_examples(net, images, labels)[:, 27:]
    norm, trace = norm_and_trace(rest)
    estimate = estimate_noise_scale(partly, images, labels, torch.arange(8), 1)
    assert estimate == pytest.approx((norm, trace / norm**2), rel=1e-5)


def test_network_and_random_states_are_unchanged(small_data: PreparedData, randomness):
    net = network(batch_norm=True)
    net.train()
    net[1].eval()
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    randomness.seed(3)
    expected = randomness.draws()
    randomness.seed(3)
    estimate_noise_scale(net, *first_examples(small_data, 40), torch.arange(40))
    assert randomness.draws() == expected
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(torch.equal(parameter.grad, torch.ones_like(parameter)) for parameter in net.parameters())
    assert [module.training for module in net] == [True, False, True, True, True, True]


def test_noise_scale_is_measured_after_powers_of_two():
    assert [epoch for epoch in range(1, 100) if is_noise_scale_evaluation(epoch)] == [1, 2, 4, 8, 16, 32, 64]
