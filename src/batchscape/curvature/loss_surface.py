"""The loss of a network over a dataset as a function of its weights."""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property, wraps
from typing import Concatenate, Literal, ParamSpec, TypeVar

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # the base class, which has no public name

from batchscape.curvature.example_gradients import (
    BatchGradients,
    choose_gradients,
    compute_gradient,
)
from batchscape.curvature.inference import InferenceNetwork
from batchscape.data.dataset import Batch, Dataset, input_tensors, slices
from batchscape.models.memory import find_largest_fitting, max_micro_batch_size
from batchscape.models.parameters import flatten_tensors
from batchscape.tasks.modes import DoubleOutputs, enable_backward, enable_double_backward
from batchscape.tasks.objective import Measurement, Meter, Objective, dataset_weights

# Inputs of at most this size are cached as floats; larger ones are converted again in each pass.
INPUT_CACHE_BYTES = 512 << 20
# What the gradients of examples that are computed at once may take.
EXAMPLE_GRADIENT_BYTES = 64 << 20
# Examples in a batch for the re-estimation of BatchNorm statistics.
STATISTICS_BATCH_SIZE = 256

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def _retry_with_smaller_chunks(
    method: Callable[Concatenate["LossSurface", Arguments], Result],
) -> Callable[Concatenate["LossSurface", Arguments], Result]:
    """Decorate a method of `LossSurface` to start again with smaller chunks if it runs out of memory."""

    @wraps(method)
    def wrapper(self: "LossSurface", *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        def compute(chunk_size: int) -> Result:
            if chunk_size < self._chunk_size:
                self._chunk_size, self._caches_batches = chunk_size, False
                self._batch_cache.clear()
            return method(self, *args, **kwargs)

        return find_largest_fitting(self._chunk_size, compute)[1]

    return wrapper


class LossSurface:
    """The mean loss f(θ) of a network over a dataset, with its derivatives, at any weights θ.

    θ is a vector of all p parameters, in the network's order. The network is in evaluation mode: dropout is off, and
    BatchNorm uses fixed statistics, at first those of the given network. Networks compute in `dtype`; means over
    examples and all results are float64. Results depend on `chunk` and the number of threads only by rounding.

    Args:
        objective: The network with its loss; a copy is used, so it is not modified.
        data: The dataset. It may be in host memory if it does not fit on the GPU.
        device: The device that computes.
        dtype: Data type of the network.
        chunk: Number of examples in a forward pass; by default, as many as fit in the cache of the processor, and fewer
            if memory runs out.

    Attributes:
        example_weights: The weight of each example in the mean, shape (n,); None if all are 1.
    """

    def __init__(
        self,
        objective: Objective,
        data: Dataset,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        chunk: int | None = None,
    ):
        self._data, self._device, self._dtype = data, device, dtype
        self._network = copy.deepcopy(objective.module).to(device, dtype).eval()
        # The network computes in its own precision, the loss and its derivative with respect to the outputs in double.
        self._objective = objective.on(DoubleOutputs(self._network))
        self._network.requires_grad_()  # the surface is a function of all parameters, frozen ones included
        example = objective.network_inputs(self._batch(slice(4)))
        self._chunk_size = chunk or max_micro_batch_size(self._network, example)
        self._inference = InferenceNetwork(self._network, example)
        self._parameters = list(self._network.parameters())
        modules = (self._network, self._inference.module)
        self._flat_parameters = {module: _flatten_parameters(module) for module in modules}
        weights = dataset_weights(objective, data, device)
        self.example_weights = None if weights is None else weights.cpu().numpy()
        self._total_weight = float(len(data)) if weights is None else weights.sum().item()
        self._batch_cache: dict[str, list[Batch]] = {}
        example_bytes = sum(part.nbytes for part in input_tensors(example)) / len(input_tensors(example)[0])
        self._caches_batches = len(data) * example_bytes <= INPUT_CACHE_BYTES

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics of `value`."""
        return self._objective.metrics

    def __len__(self) -> int:
        """Return the number of examples, n."""
        return len(self._data)

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
                    self._network(self._objective.network_inputs(self._batch(slice(first, None, num_batches))))
        finally:
            for layer, momentum in zip(layers, momenta, strict=True):
                layer.momentum = momentum
                layer.eval()
        self.batch_norm_statistics = self.batch_norm_statistics  # also of the copy for inference

    @_retry_with_smaller_chunks
    def value(self, weights: np.ndarray, side: str = "train") -> Measurement:
        """Return loss and metrics.

        Args:
            weights: θ, shape (p,).
            side: The side of the split that the dataset is.

        Returns:
            f(θ), which may be inf or nan, and the metrics.
        """
        self._set_parameters(self._inference.module, weights)
        objective = self._objective.on(self._inference)
        meter = Meter(objective, self._device)
        with torch.inference_mode():
            for batch in self._chunks("inference"):
                meter.add(objective.record(batch))
            return objective.report(meter.sums(), self._total_weight, side)

    @_retry_with_smaller_chunks
    def gradient(self, weights: np.ndarray, indices: np.ndarray | None = None) -> tuple[float, np.ndarray]:
        """Return loss and gradient.

        Args:
            weights: θ, shape (p,).
            indices: Indices of the examples of a batch, shape (b,), whose mean loss takes the place of f; None: all.

        Returns:
            f(θ) and ∇f(θ), shape (p,).
        """
        self._set_parameters(self._network, weights)
        loss = torch.zeros((), dtype=torch.float64, device=self._device)
        total = torch.zeros(len(weights), dtype=torch.float64, device=self._device)
        with enable_backward(self._network):
            for batch in self._chunks("gradient", indices):
                chunk_loss = self._chunk_loss(batch, indices)
                total += flatten_tensors(compute_gradient(chunk_loss, self._parameters))
                loss += chunk_loss.detach()
        return loss.item(), total.cpu().numpy()

    @_retry_with_smaller_chunks
    def hessian_vector_product(
        self, weights: np.ndarray, vector: np.ndarray, indices: np.ndarray | None = None
    ) -> np.ndarray:
        """Return the product of the Hessian with a vector, by double backpropagation (Pearlmutter 1994).

        Args:
            weights: θ, shape (p,).
            vector: v, shape (p,).
            indices: As in `gradient`.

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
            for batch in self._chunks("gradient", indices):
                gradient = compute_gradient(self._chunk_loss(batch, indices), self._parameters, create_graph=True)
                slope = torch.zeros((), dtype=self._dtype, device=self._device)
                for part, along in zip(gradient, directions, strict=True):
                    slope = slope + (part * along).sum()
                total += flatten_tensors(compute_gradient(slope, self._parameters))
        return total.cpu().numpy()

    @_retry_with_smaller_chunks
    def example_gradients(self, weights: np.ndarray, indices: np.ndarray) -> np.ndarray:
        """Return the gradients of the losses of single examples.

        Args:
            weights: θ, shape (p,).
            indices: Indices of examples, shape (m,).

        Returns:
            The gradients, shape (m, p).
        """
        self._set_parameters(self._network, weights)
        rows = torch.from_numpy(indices).to(self._data.storage)
        chunk = max(1, min(self._chunk_size, EXAMPLE_GRADIENT_BYTES // (len(weights) * self._dtype.itemsize)))
        with enable_backward(self._network):
            parts = [self._gradients_of_examples(self._batch(part)).double().cpu() for part in rows.split(chunk)]
        return torch.cat(parts).numpy()

    @cached_property
    def _gradients_of_examples(self) -> BatchGradients:
        return choose_gradients(self._objective, self._batch(slice(4)))[0]

    def _batch(self, rows: slice | torch.Tensor) -> Batch:
        return self._data.batch(rows, self._device, self._dtype)

    def _set_parameters(self, module: nn.Module, weights: np.ndarray) -> None:
        vector = self._flat_parameters[module]
        if weights.shape != tuple(vector.shape):
            raise ValueError(f"weights of shape {weights.shape} for a network with {len(vector)} parameters")
        vector.copy_(torch.from_numpy(weights))

    def _chunk_loss(self, batch: Batch, indices: np.ndarray | None = None) -> torch.Tensor:
        """Return the contribution of a chunk to the mean loss over some examples, or all."""
        weights = self._objective.example_weights(batch)
        weight = len(batch) if weights is None else weights.sum()
        total = self._total_weight
        if indices is not None:
            total = float(len(indices) if self.example_weights is None else self.example_weights[indices].sum())
        return self._objective(batch).loss * (weight / total)

    def _chunks(self, purpose: Literal["gradient", "inference"], indices: np.ndarray | None = None) -> Iterator[Batch]:
        """Return examples in chunks, in the memory layout of a purpose; all are cached from the first pass if they fit.

        `indices` selects examples for the purpose `gradient`; None: all.
        """
        if indices is not None:
            return map(self._batch, torch.from_numpy(indices).to(self._data.storage).split(self._chunk_size))
        if purpose in self._batch_cache:
            return iter(self._batch_cache[purpose])
        chunks: Iterator[Batch] = map(self._batch, slices(len(self), self._chunk_size))
        if purpose == "inference":
            chunks = (replace(batch, inputs=self._inference.inputs(batch.inputs)) for batch in chunks)
        if self._caches_batches:
            self._batch_cache[purpose] = list(chunks)
            return iter(self._batch_cache[purpose])
        return chunks


def _flatten_parameters(network: nn.Module) -> torch.Tensor:
    """Make all parameters of a network views of one vector, shape (p,), and return it: writing to it sets them."""
    parameters = list(network.parameters())
    vector = flatten_tensors([parameter.detach() for parameter in parameters])
    nn.utils.vector_to_parameters(vector, parameters)
    return vector
