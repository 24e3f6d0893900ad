"""The loss surface against autograd on the network itself, in float64, with and without BatchNorm."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from batchscape.config.model import VggConfig
from batchscape.curvature.inference import InferenceNetwork, fuse_for_inference
from batchscape.curvature.loss_surface import LossSurface
from tests.helpers.networks import build_image_network
from tests.helpers.surfaces import batch_norm_network, image_surface, parameter_vector, synthetic_images

IMAGES, LABELS = synthetic_images(70)
NETWORK = build_image_network(VggConfig(channels=(3, 4), dense=(5,)), (1, 8, 8), 1, 0)
WEIGHTS = parameter_vector(NETWORK) + np.random.default_rng(0).normal(0, 0.1, len(parameter_vector(NETWORK)))


def reference_loss(network: nn.Module, weights: torch.Tensor) -> torch.Tensor:
    """Return the loss of the network in float64, differentiable with respect to the weights."""
    network = copy.deepcopy(network).double().eval()
    parts, start = {}, 0
    for name, parameter in network.named_parameters():
        parts[name] = weights[start : start + parameter.numel()].view(parameter.shape)
        start += parameter.numel()
    logits = functional_call(network, parts, ((IMAGES.double() / 255),))
    return F.binary_cross_entropy(torch.sigmoid(logits[:, 0]), LABELS.double())


def surface(network: nn.Module = NETWORK, **options) -> LossSurface:
    return image_surface(network, IMAGES, LABELS, **options)


@pytest.mark.parametrize("network", [NETWORK, batch_norm_network()], ids=["vgg", "BatchNorm"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float64, 1e-12)])
def test_value_gradient_and_hessian_match_autograd(network: nn.Module, dtype: torch.dtype, tolerance: float):
    rng = np.random.default_rng(1)
    weights = parameter_vector(network) + rng.normal(0, 0.1, len(parameter_vector(network)))
    weights = weights.astype(np.float32).astype(np.float64)  # so that float32 starts from the same point
    at = torch.from_numpy(weights)
    direction = rng.normal(size=len(weights))
    expected = reference_loss(network, at).item()
    slope, product = (
        torch.autograd.functional.jacobian(lambda w: reference_loss(network, w), at).numpy(),
        torch.autograd.functional.hvp(lambda w: reference_loss(network, w), at, torch.from_numpy(direction))[1].numpy(),
    )
    found = surface(network, dtype=dtype)
    assert found.value(weights).loss == pytest.approx(expected, rel=tolerance)
    loss, gradient = found.gradient(weights)
    assert loss == pytest.approx(expected, rel=tolerance)
    assert np.linalg.norm(gradient - slope) <= 10 * tolerance * np.linalg.norm(slope)
    difference = found.hessian_vector_product(weights, direction) - product
    assert np.linalg.norm(difference) <= 100 * tolerance * np.linalg.norm(product)


def test_gradient_is_the_mean_of_the_gradients_of_examples():
    found = surface(dtype=torch.float64)
    mean = found.example_gradients(WEIGHTS, np.arange(len(found))).mean(axis=0)
    assert found.gradient(WEIGHTS)[1] == pytest.approx(mean, rel=1e-10, abs=1e-15)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-13)])
@pytest.mark.parametrize("chunk", [1, 7, 69, 70, 1000])
def test_results_do_not_depend_on_the_chunk_size(chunk: int, dtype: torch.dtype, tolerance: float):
    default, chunked = surface(dtype=dtype), surface(dtype=dtype, chunk=chunk)
    assert chunked.value(WEIGHTS).metrics["accuracy"] == default.value(WEIGHTS).metrics["accuracy"]
    assert chunked.value(WEIGHTS).loss == pytest.approx(default.value(WEIGHTS).loss, rel=tolerance)
    assert np.linalg.norm(chunked.gradient(WEIGHTS)[1] - default.gradient(WEIGHTS)[1]) <= 100 * tolerance
    vector = np.ones(len(WEIGHTS))
    assert chunked.hessian_vector_product(WEIGHTS, vector) == pytest.approx(
        default.hessian_vector_product(WEIGHTS, vector), abs=1e3 * tolerance
    )


def test_results_do_not_depend_on_the_number_of_threads():
    found = {}
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found[threads] = (surface().value(WEIGHTS).loss, *surface().gradient(WEIGHTS)[1])
    torch.set_num_threads(1)
    assert found[1] == pytest.approx(found[2], rel=1e-5, abs=1e-7)


def test_uncached_inputs_give_identical_bits(monkeypatch: pytest.MonkeyPatch):
    cached = surface(chunk=16)
    expected = cached.value(WEIGHTS), cached.gradient(WEIGHTS)[0], cached.value(WEIGHTS)
    monkeypatch.setattr("batchscape.curvature.loss_surface.INPUT_CACHE_BYTES", 0)
    uncached = surface(chunk=16)
    assert (uncached.value(WEIGHTS), uncached.gradient(WEIGHTS)[0], uncached.value(WEIGHTS)) == expected
    assert not uncached._batch_cache


def test_value_does_not_depend_on_earlier_evaluations():
    found = surface()
    first = found.value(WEIGHTS)
    found.value(0 * WEIGHTS)
    found.gradient(2 * WEIGHTS)
    assert found.value(WEIGHTS) == first


def test_network_is_not_modified():
    network = batch_norm_network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found = surface(network)
    found.value(parameter_vector(network) + 1)
    found.gradient(parameter_vector(network) + 1)
    found.estimate_batch_norm_statistics(parameter_vector(network) + 1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(module.training for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_weights_of_the_wrong_size_raise_an_error():
    with pytest.raises(ValueError, match="parameters"):
        surface().value(WEIGHTS[1:])


@pytest.mark.parametrize(("factor", "loss"), [(np.nan, np.nan), (1e38, np.inf)])
def test_loss_that_is_not_finite_is_returned(factor: float, loss: float):
    found = surface().value(factor * np.abs(WEIGHTS))
    assert not np.isfinite(found.loss)
    if np.isnan(loss):
        assert np.isnan(found.loss)
        assert np.isnan(found.metrics["accuracy"])


# BatchNorm.


def test_batch_norm_statistics_are_used_by_value_and_gradient():
    network = batch_norm_network()
    found, weights = surface(network), parameter_vector(network)
    before = found.value(weights).loss, found.gradient(weights)[0]
    found.batch_norm_statistics = {name: value + 1 for name, value in found.batch_norm_statistics.items()}
    after = found.value(weights).loss, found.gradient(weights)[0]
    assert after[0] == pytest.approx(after[1], rel=1e-6)
    assert abs(after[0] - before[0]) > 1e-3


def test_estimated_statistics_are_the_mean_and_variance_of_the_inputs_of_the_layer():
    network = batch_norm_network()
    found, weights = surface(network, chunk=9), parameter_vector(network) * 1.5
    found.estimate_batch_norm_statistics(weights)
    convolution = copy.deepcopy(network[0])
    nn.utils.vector_to_parameters(torch.from_numpy(weights[:40]).float(), convolution.parameters())
    with torch.no_grad():
        inputs = convolution(IMAGES / 255).transpose(0, 1).flatten(1)  # 70 images are one batch
    assert found.batch_norm_statistics["1.running_mean"] == pytest.approx(inputs.mean(1).numpy(), rel=1e-4, abs=1e-6)
    assert found.batch_norm_statistics["1.running_var"] == pytest.approx(inputs.var(1).numpy(), rel=1e-4)


def test_estimated_statistics_do_not_depend_on_the_chunk_size_or_earlier_statistics():
    network = batch_norm_network()
    images, labels = synthetic_images(700)
    first, second = image_surface(network, images, labels), image_surface(network, images, labels, chunk=11)
    second.batch_norm_statistics = {name: value + 3 for name, value in second.batch_norm_statistics.items()}
    for found in (first, second):
        found.estimate_batch_norm_statistics(parameter_vector(network))
    assert all(
        np.array_equal(value, second.batch_norm_statistics[name]) for name, value in first.batch_norm_statistics.items()
    )


def test_network_without_batch_norm_has_no_statistics():
    assert not surface().has_batch_norm
    assert surface(batch_norm_network()).has_batch_norm


# Inference.


class Branching(nn.Module):
    """Uses the input of a ReLU again after it, so the ReLU must not work in place."""

    def __init__(self):
        super().__init__()
        self.chain = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2))
        self.out = nn.Linear(2 * 36 + 2 * 9, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        before = self.chain[0](images)
        after = self.chain[2](self.chain[1](before))
        return self.out(torch.cat([before.flatten(1), after.flatten(1)], 1))


class StridedOnly(nn.Module):
    """Raises an error for tensors in other memory layouts."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(64, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.layout != torch.strided:
            raise TypeError("expected a strided tensor")
        return self.out(images.flatten(1))


SHARED = nn.ReLU()
NETWORKS = {
    "vgg": NETWORK,
    "BatchNorm": batch_norm_network(),
    "branching": Branching(),
    "strided tensors only": StridedOnly(),
    "shared ReLU": nn.Sequential(
        nn.Conv2d(1, 2, 3), SHARED, nn.MaxPool2d(2), nn.Conv2d(2, 2, 2), SHARED, nn.Flatten(), nn.Linear(8, 1)
    ),
    "operations that oneDNN does not support": nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.GroupNorm(1, 2), nn.LeakyReLU(), nn.Flatten(), nn.Linear(72, 1)
    ),
    "dense layers only": nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 1)),
    "ReLU on the input": nn.Sequential(nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.ReLU(), nn.Linear(16, 1)),
    "pooling with padding": nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Flatten(), nn.Linear(18, 1)
    ),
}


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS.keys())
def test_inference_network_has_the_outputs_of_the_original(network: nn.Module):
    inputs = IMAGES[:9].float() / 255 - 0.5
    with torch.no_grad():
        expected = copy.deepcopy(network).eval()(inputs)
    original = inputs.clone()
    fast = InferenceNetwork(network, inputs[:2])
    with torch.inference_mode():
        for _ in range(2):
            assert torch.allclose(fast(fast.inputs(inputs)), expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(inputs, original)
    assert [name for name, _ in fast.module.named_parameters()] == [name for name, _ in network.named_parameters()]


def test_default_network_is_fused_and_uses_onednn():
    fast = InferenceNetwork(NETWORK, IMAGES[:2].float())
    assert fast.onednn
    kinds = [type(module) for module in fast.module]
    assert kinds[:3] == [nn.Conv2d, nn.MaxPool2d, nn.ReLU]
    assert all(module.inplace for module in fast.module if isinstance(module, nn.ReLU))
    assert not any(module.inplace for module in NETWORK if isinstance(module, nn.ReLU))


class CallsItsModules(nn.Sequential):
    """Calls its modules one by one, and uses the input of a ReLU again after it."""

    def __init__(self):
        super().__init__(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), nn.Flatten(), nn.Linear(72, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        before = self[0][0](images)
        after = self[0][1](before)
        return self[2](self[1](before + after))


def test_network_whose_outputs_would_change_is_not_fused():
    network, inputs = CallsItsModules(), IMAGES[:5].float() / 255 - 0.5
    fast = InferenceNetwork(network, inputs)
    assert not fast.module[0][1].inplace
    with torch.inference_mode():
        assert torch.allclose(fast(fast.inputs(inputs)), network.eval()(inputs), rtol=1e-4, atol=1e-6)


def test_pooling_with_indices_is_not_fused():
    replica = fuse_for_inference(nn.Sequential(nn.Identity(), nn.ReLU(), nn.MaxPool2d(2, return_indices=True)))
    assert [type(module) for module in replica] == [nn.Identity, nn.ReLU, nn.MaxPool2d]
    assert not replica[1].inplace


class Padded(nn.Module):
    """Looks up three rows of an embedding, of which the second is for padding."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(3, 2, padding_idx=1), nn.Linear(2, 1)
        nn.init.normal_(self.table.weight)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.table((2.99 * images).long())).mean((1, 2, 3)))


def test_padding_row_of_an_embedding_is_a_constant_for_the_hessian():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Padded()
    padded, weights = surface(network, dtype=torch.float64), parameter_vector(network).astype(float)
    columns = np.eye(len(weights))
    hessian = np.array([padded.hessian_vector_product(weights, column) for column in columns])
    row = slice(2, 4)
    assert np.array_equal(hessian[row], np.zeros((2, 9))) and np.array_equal(hessian[:, row], np.zeros((9, 2)))
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-14)
    moved = np.delete(np.arange(9), [2, 3])
    slopes = [
        padded.gradient(weights + 1e-6 * column)[1] - padded.gradient(weights - 1e-6 * column)[1]
        for column in columns[moved]
    ]
    np.testing.assert_allclose(hessian[moved], np.array(slopes) / 2e-6, atol=1e-8)
    assert np.linalg.norm(hessian) > 0.01
