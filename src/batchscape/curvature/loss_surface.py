"""The loss of a network over a data set as a function of its weights: the engine of all analyses of the loss."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # the base class, which has no public name

from batchscape.curvature.inference import InferenceNetwork
from batchscape.data.tensors import normalize_images
from batchscape.models.memory import find_largest_fitting, max_micro_batch_size
from batchscape.tasks.losses import enable_backward, enable_double_backward, loss_and_accuracy, mean_loss

# Images are kept as floats if they take at most this; larger sets become floats chunk by chunk, each time.
FLOAT_BYTES = 512 << 20
# Examples whose statistics BatchNorm takes together when they are re-estimated.
STATISTICS_BATCH = 256


class Value(NamedTuple):
    """What a network gives over a data set at some weights."""

    loss: float
    accuracy: float


def _in_fitting_chunks(method: Callable[..., Any]) -> Callable[..., Any]:
    """Have a method of a LossSurface start from scratch with smaller chunks where they do not fit in memory."""

    @wraps(method)
    def call(surface: "LossSurface", *arguments: np.ndarray) -> Any:
        def compute(chunk: int) -> Any:
            if chunk < surface._chunk:
                surface._chunk, surface._keeps = chunk, False
                surface._kept.clear()
            return method(surface, *arguments)

        return find_largest_fitting(surface._chunk, compute)[1]

    return call


class LossSurface:
    """The mean loss f(θ) of a network over a data set, and its derivatives, at any weights θ.

    θ is a vector, (p,), of all parameters in the network's order. The network is in evaluation mode: dropout is off,
    and BatchNorm uses fixed statistics, at first those of the network that is given. That network is copied and left
    as it is, bit for bit.

    `images` is uint8, (n, channels, height, width), and `labels` int64, (n,). All is computed where the labels are; the
    images may be in host memory, if they are too many for a GPU. Networks compute in `dtype`; the mean over examples is
    taken in float64, and all results are float64. `chunk` examples go through the network together; by default as many
    as the processor's cache can take, and fewer where the memory does not hold so many. Results depend on it, and on
    the number of threads, by rounding only.
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
        self._network.requires_grad_()  # the surface is a function of all parameters, also of those that do not train
        example = self._inputs(images[:4])
        self._chunk = chunk or max_micro_batch_size(self._network, example)
        self._inference = InferenceNetwork(self._network, example)
        self._parameters = list(self._network.parameters())
        self._vectors = {module: _one_vector(module) for module in (self._network, self._inference.module)}
        self._kept: dict[str, list[torch.Tensor]] = {}
        self._keeps = images.numel() * dtype.itemsize <= FLOAT_BYTES

    def __len__(self) -> int:
        """The number of examples."""
        return len(self._labels)

    @property
    def has_batch_norm(self) -> bool:
        return bool(self.statistics)

    @property
    def statistics(self) -> dict[str, np.ndarray]:
        """The BatchNorm statistics in use, by name; empty for a network without BatchNorm."""
        return {
            f"{layer}.{name}".lstrip("."): buffer.cpu().numpy().copy()
            for layer, module in self._network.named_modules()
            if isinstance(module, _BatchNorm)
            for name, buffer in module.named_buffers(recurse=False)
        }

    @statistics.setter
    def statistics(self, values: Mapping[str, np.ndarray]) -> None:
        with torch.no_grad():
            for module in (self._network, self._inference.module):
                for name, buffer in module.named_buffers():
                    if name in values:
                        buffer.copy_(torch.from_numpy(np.asarray(values[name])))

    def estimate_statistics(self, weights: np.ndarray) -> None:
        """Take as BatchNorm statistics the means of those of equal batches of this data set, at given weights.

        Batches hold about 256 examples whatever the chunk, and examples from all over the data set. As in Izmailov
        et al. 2018 (SWA), section 3.2.
        """
        layers = [module for module in self._network.modules() if isinstance(module, _BatchNorm)]
        momenta = [layer.momentum for layer in layers]
        batches = max(1, round(len(self) / STATISTICS_BATCH))
        self._move(self._network, weights)
        try:
            for layer in layers:
                layer.reset_running_stats()
                layer.momentum = None  # the mean of all batches
                layer.train()
            with torch.inference_mode():
                for first in range(batches):
                    self._network(self._inputs(self._images[first::batches]))
        finally:
            for layer, momentum in zip(layers, momenta, strict=True):
                layer.momentum = momentum
                layer.eval()
        self.statistics = self.statistics

    @_in_fitting_chunks
    def value(self, weights: np.ndarray) -> Value:
        """Return loss and accuracy at θ, (p,). A loss that is not finite stays what it is."""
        self._move(self._inference.module, weights)
        with torch.inference_mode():
            logits = torch.cat(
                [self._inference(inputs) for inputs in self._chunks("inference", self._inference.inputs)]
            )
            return Value(*loss_and_accuracy(logits, self._labels))

    @_in_fitting_chunks
    def gradient(self, weights: np.ndarray) -> tuple[float, np.ndarray]:
        """Return f(θ) and ∇f(θ), (p,), at θ, (p,)."""
        self._move(self._network, weights)
        loss = torch.zeros((), dtype=torch.float64, device=self._device)
        total = torch.zeros(len(weights), dtype=torch.float64, device=self._device)
        with enable_backward(self._network):
            for inputs, labels in self._labelled_chunks():
                part = self._share(inputs, labels)
                total += _flat(_gradient(part, self._parameters))
                loss += part.detach()
        return loss.item(), total.cpu().numpy()

    @_in_fitting_chunks
    def hessian_vector_product(self, weights: np.ndarray, vector: np.ndarray) -> np.ndarray:
        """Return ∇²f(θ)·v, (p,), at θ, (p,), for v, (p,) (Pearlmutter 1994)."""
        self._move(self._network, weights)
        direction = torch.from_numpy(vector).to(self._device, torch.float64)
        total = torch.zeros_like(direction)
        sizes = [parameter.numel() for parameter in self._parameters]
        directions = [
            part.view_as(parameter)
            for part, parameter in zip(direction.to(self._dtype).split(sizes), self._parameters, strict=True)
        ]
        with enable_double_backward(self._network):
            for inputs, labels in self._labelled_chunks():
                gradient = _gradient(self._share(inputs, labels), self._parameters, create_graph=True)
                slope = sum((g * v).sum() for g, v in zip(gradient, directions, strict=True))
                total += _flat(_gradient(slope, self._parameters))
        return total.cpu().numpy()

    def example_gradient(self, weights: np.ndarray, index: int) -> np.ndarray:
        """Return the gradient of the loss of one example at θ, (p,)."""
        self._move(self._network, weights)
        example = slice(index, index + 1)
        with enable_backward(self._network):
            loss = mean_loss(self._network(self._inputs(self._images[example])).double(), self._labels[example])
            return _flat(_gradient(loss, self._parameters)).double().cpu().numpy()

    def _inputs(self, images: torch.Tensor) -> torch.Tensor:
        return normalize_images(images.to(self._device), self._dtype)

    def _move(self, module: nn.Module, weights: np.ndarray) -> None:
        vector = self._vectors[module]
        if weights.shape != tuple(vector.shape):
            raise ValueError(f"weights of shape {weights.shape} for a network of {len(vector)} parameters")
        vector.copy_(torch.from_numpy(weights))

    def _share(self, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """A chunk's contribution to the mean loss."""
        return mean_loss(self._network(inputs).double(), labels) * (len(labels) / len(self))

    def _labelled_chunks(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return zip(self._chunks("gradient", lambda inputs: inputs), self._labels.split(self._chunk), strict=True)

    def _chunks(self, use: str, layout: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[torch.Tensor]:
        """The inputs, chunk by chunk, in the layout of a use; kept as floats from the first pass on if they are few."""
        if use in self._kept:
            return iter(self._kept[use])
        chunks = (layout(self._inputs(part)) for part in self._images.split(self._chunk))
        if self._keeps:
            self._kept[use] = list(chunks)
            return iter(self._kept[use])
        return chunks


def _one_vector(network: nn.Module) -> torch.Tensor:
    """Lay all parameters of a network side by side in one vector, (p,), and return it; writing there sets them."""
    parameters = list(network.parameters())
    vector = _flat([parameter.detach() for parameter in parameters])
    nn.utils.vector_to_parameters(vector, parameters)
    return vector


def _gradient(
    value: torch.Tensor, parameters: list[nn.Parameter], create_graph: bool = False
) -> Sequence[torch.Tensor]:
    """Return the gradient of a value; it is 0 in what the value does not depend on."""
    return torch.autograd.grad(value, parameters, create_graph=create_graph, allow_unused=True, materialize_grads=True)


def _flat(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
