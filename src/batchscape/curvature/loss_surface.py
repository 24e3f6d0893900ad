"""The loss of a network over a dataset as a function of its weights."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from typing import Concatenate, NamedTuple, ParamSpec, TypeVar

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # the base class, which has no public name

from batchscape.curvature.inference import InferenceNetwork
from batchscape.data.tensors import normalize_images
from batchscape.models.memory import find_largest_fitting, max_micro_batch_size
from batchscape.tasks.losses import enable_backward, enable_double_backward, loss_and_accuracy, mean_loss

# Inputs of at most this size are cached as floats; larger ones are converted again in each pass.
INPUT_CACHE_BYTES = 512 << 20
# Examples in a batch for the re-estimation of BatchNorm statistics.
STATISTICS_BATCH_SIZE = 256

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class LossAndAccuracy(NamedTuple):
    """Mean loss in nats, and fraction of correct predictions."""

    loss: float
    accuracy: float


def _retry_with_smaller_chunks(
    method: Callable[Concatenate["LossSurface", Arguments], Result],
) -> Callable[Concatenate["LossSurface", Arguments], Result]:
    """Decorate a method of `LossSurface` to start again with smaller chunks if it runs out of memory."""

    @wraps(method)
    def wrapper(self: "LossSurface", *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        def compute(chunk_size: int) -> Result:
            if chunk_size < self._chunk_size:
                self._chunk_size, self._caches_inputs = chunk_size, False
                self._input_cache.clear()
            return method(self, *args, **kwargs)

        return find_largest_fitting(self._chunk_size, compute)[1]

    return wrapper


class LossSurface:
    """The mean loss f(θ) of a network over a dataset, with its derivatives, at any weights θ.

    θ is a vector of all p parameters, in the network's order. The network is in evaluation mode: dropout is off, and
    BatchNorm uses fixed statistics, at first those of the given network. Networks compute in `dtype`; means over
    examples and all results are float64. Results depend on `chunk` and the number of threads only by rounding.

    Args:
        network: The network; a copy is used, so it is not modified.
        images: uint8, shape (n, channels, height, width). May be in host memory if they do not fit on the GPU.
        labels: int64, shape (n,), on the device that computes.
        dtype: Data type of the network.
        chunk: Number of examples in a forward pass; by default, as many as fit in the cache of the processor, and fewer
            if memory runs out.
    """

    def __init__(
        self,
        network: nn.Module,
        images: torch.Tensor,
        labels: torch.Tensor,
        dtype: torch.dtype = torch.float32,
        chunk: int | None = None,
    ):
        self._images, self._labels, self._dtype = images, labels, dtype
        self._device = labels.device
        self._network = copy.deepcopy(network).to(self._device, dtype).eval()
        self._network.requires_grad_()  # the surface is a function of all parameters, frozen ones included
        example = self._normalize(images[:4])
        self._chunk_size = chunk or max_micro_batch_size(self._network, example)
        self._inference = InferenceNetwork(self._network, example)
        self._parameters = list(self._network.parameters())
        modules = (self._network, self._inference.module)
        self._flat_parameters = {module: _flatten_parameters(module) for module in modules}
        self._input_cache: dict[str, list[torch.Tensor]] = {}
        self._caches_inputs = images.numel() * dtype.itemsize <= INPUT_CACHE_BYTES

    def __len__(self) -> int:
        """Return the number of examples, n."""
        return len(self._labels)

    @property
    def has_batch_norm(self) -> bool:
        """Whether the network has BatchNorm statistics."""
        return bool(self.batch_norm_statistics)

    @property
    def batch_norm_statistics(self) -> dict[str, np.ndarray]:
        """The BatchNorm statistics in use, by name in the state dict; empty for a network without BatchNorm."""
        return {
            f"{layer}.{name}".lstrip("."): buffer.cpu().numpy().copy()
            for layer, module in self._network.named_modules()
            if isinstance(module, _BatchNorm)
            for name, buffer in module.named_buffers(recurse=False)
        }

    @batch_norm_statistics.setter
    def batch_norm_statistics(self, values: Mapping[str, np.ndarray]) -> None:
        with torch.no_grad():
            for module in (self._network, self._inference.module):
                for name, buffer in module.named_buffers():
                    if name in values:
                        buffer.copy_(torch.from_numpy(np.asarray(values[name])))

    def estimate_batch_norm_statistics(self, weights: np.ndarray) -> None:
        """Re-estimate the BatchNorm statistics on this dataset (Izmailov et al. 2018, SWA, section 3.2).

        They become the means of the statistics of equal batches of about 256 examples, spread over the dataset,
        independent of `chunk`.

        Args:
            weights: θ, shape (p,).
        """
        layers = [module for module in self._network.modules() if isinstance(module, _BatchNorm)]
        momenta = [layer.momentum for layer in layers]
        num_batches = max(1, round(len(self) / STATISTICS_BATCH_SIZE))
        self._set_parameters(self._network, weights)
        try:
            for layer in layers:
                layer.reset_running_stats()
                layer.momentum = None  # cumulative mean over all batches
                layer.train()
            with torch.inference_mode():
                for first in range(num_batches):
                    self._network(self._normalize(self._images[first::num_batches]))
        finally:
            for layer, momentum in zip(layers, momenta, strict=True):
                layer.momentum = momentum
                layer.eval()
        self.batch_norm_statistics = self.batch_norm_statistics  # also of the copy for inference

    @_retry_with_smaller_chunks
    def value(self, weights: np.ndarray) -> LossAndAccuracy:
        """Return loss and accuracy.

        Args:
            weights: θ, shape (p,).

        Returns:
            f(θ), which may be inf or nan, and the accuracy.
        """
        self._set_parameters(self._inference.module, weights)
        with torch.inference_mode():
            logits = torch.cat(
                [self._inference(inputs) for inputs in self._chunks("inference", self._inference.inputs)]
            )
            return LossAndAccuracy(*loss_and_accuracy(logits, self._labels))

    @_retry_with_smaller_chunks
    def gradient(self, weights: np.ndarray) -> tuple[float, np.ndarray]:
        """Return loss and gradient.

        Args:
            weights: θ, shape (p,).

        Returns:
            f(θ) and ∇f(θ), shape (p,).
        """
        self._set_parameters(self._network, weights)
        loss = torch.zeros((), dtype=torch.float64, device=self._device)
        total = torch.zeros(len(weights), dtype=torch.float64, device=self._device)
        with enable_backward(self._network):
            for inputs, labels in self._labeled_chunks():
                chunk_loss = self._chunk_loss(inputs, labels)
                total += _flatten(_gradient(chunk_loss, self._parameters))
                loss += chunk_loss.detach()
        return loss.item(), total.cpu().numpy()

    @_retry_with_smaller_chunks
    def hessian_vector_product(self, weights: np.ndarray, vector: np.ndarray) -> np.ndarray:
        """Return the product of the Hessian with a vector, by double backpropagation (Pearlmutter 1994).

        Args:
            weights: θ, shape (p,).
            vector: v, shape (p,).

        Returns:
            ∇²f(θ)·v, shape (p,).
        """
        self._set_parameters(self._network, weights)
        direction = torch.from_numpy(vector).to(self._device, torch.float64)
        total = torch.zeros_like(direction)
        sizes = [parameter.numel() for parameter in self._parameters]
        directions = [
            part.view_as(parameter)
            for part, parameter in zip(direction.to(self._dtype).split(sizes), self._parameters, strict=True)
        ]
        with enable_double_backward(self._network):
            for inputs, labels in self._labeled_chunks():
                gradient = _gradient(self._chunk_loss(inputs, labels), self._parameters, create_graph=True)
                slope = torch.zeros((), dtype=self._dtype, device=self._device)
                for part, along in zip(gradient, directions, strict=True):
                    slope = slope + (part * along).sum()
                total += _flatten(_gradient(slope, self._parameters))
        return total.cpu().numpy()

    def example_gradient(self, weights: np.ndarray, index: int) -> np.ndarray:
        """Return the gradient of the loss of one example.

        Args:
            weights: θ, shape (p,).
            index: Index of the example.

        Returns:
            The gradient, shape (p,).
        """
        self._set_parameters(self._network, weights)
        example = slice(index, index + 1)
        with enable_backward(self._network):
            loss = mean_loss(self._network(self._normalize(self._images[example])).double(), self._labels[example])
            return _flatten(_gradient(loss, self._parameters)).double().cpu().numpy()

    def _normalize(self, images: torch.Tensor) -> torch.Tensor:
        return normalize_images(images.to(self._device), self._dtype)

    def _set_parameters(self, module: nn.Module, weights: np.ndarray) -> None:
        vector = self._flat_parameters[module]
        if weights.shape != tuple(vector.shape):
            raise ValueError(f"weights of shape {weights.shape} for a network with {len(vector)} parameters")
        vector.copy_(torch.from_numpy(weights))

    def _chunk_loss(self, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the contribution of a chunk to the mean loss."""
        return mean_loss(self._network(inputs).double(), labels) * (len(labels) / len(self))

    def _labeled_chunks(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        inputs = self._chunks("gradient", lambda inputs: inputs)
        return zip(inputs, self._labels.split(self._chunk_size), strict=True)

    def _chunks(self, purpose: str, to_layout: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[torch.Tensor]:
        """Return the inputs in chunks, in the memory layout of a purpose; cached from the first pass if they fit."""
        if purpose in self._input_cache:
            return iter(self._input_cache[purpose])
        chunks = (to_layout(self._normalize(images)) for images in self._images.split(self._chunk_size))
        if self._caches_inputs:
            self._input_cache[purpose] = list(chunks)
            return iter(self._input_cache[purpose])
        return chunks


def _flatten_parameters(network: nn.Module) -> torch.Tensor:
    """Make all parameters of a network views of one vector, shape (p,), and return it: writing to it sets them."""
    parameters = list(network.parameters())
    vector = _flatten([parameter.detach() for parameter in parameters])
    nn.utils.vector_to_parameters(vector, parameters)
    return vector


def _gradient(
    value: torch.Tensor, parameters: list[nn.Parameter], create_graph: bool = False
) -> Sequence[torch.Tensor]:
    """Return the gradient of a value; 0 for parameters that the value does not depend on."""
    return torch.autograd.grad(value, parameters, create_graph=create_graph, allow_unused=True, materialize_grads=True)


def _flatten(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
