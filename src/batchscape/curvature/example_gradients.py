"""Gradients of the losses of single examples, many at once where the network supports it."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from batchscape.data.dataset import Batch
from batchscape.models.parameters import flatten_tensors
from batchscape.models.perturbation import copy_perturbed
from batchscape.tasks.modes import enable_double_backward
from batchscape.tasks.objective import Objective

BatchGradients = Callable[[Batch], Tensor]
"""Maps a batch to the gradient of the loss of each example, (b, p), at the current weights of a network."""

# Relative difference of a vectorized gradient of float32 to that of a backward pass: one of 1e-5 was seen where it
# nearly vanishes.
RELATIVE_TOLERANCE = 1e-4


def choose_gradients(objective: Objective, example: Batch) -> tuple[BatchGradients, bool]:
    """Return the fastest function for the gradients of single examples that is right for a network.

    Vectorized gradients are used if the network supports them and they are those of backward passes, except for
    rounding, on `example`, at perturbed weights that make every layer count. Otherwise there is a backward pass for
    each example.

    Args:
        objective: The network, in evaluation mode, with its loss.
        example: A few examples.

    Returns:
        The function, and whether it is vectorized.
    """
    probe = objective.on(copy_perturbed(objective.module))
    expected = looped_gradients(probe)(example)
    try:
        vectorized = vectorized_gradients(probe)(example)
    except Exception:  # an operation, or custom code, that does not support it
        return looped_gradients(objective), False
    errors, norms = (vectors.norm(dim=1) for vectors in (vectorized - expected, expected))
    if bool((errors <= RELATIVE_TOLERANCE * (norms + 0.01 * norms.max())).all()):
        return vectorized_gradients(objective), True
    return looped_gradients(objective), False


def looped_gradients(objective: Objective) -> BatchGradients:
    """Return a function for the gradients of examples that does a backward pass for each."""
    parameters = list(objective.module.parameters())

    def gradients(batch: Batch) -> Tensor:
        return torch.stack(
            [flatten_tensors(compute_gradient(objective(example).loss, parameters)) for example in batch.split(1)]
        )

    return gradients


def vectorized_gradients(objective: Objective) -> BatchGradients:
    """Return a function for the gradients of examples that does one backward pass for all of a batch."""
    module = _LossModule(objective)

    def loss(parameters: dict[str, Tensor], example: Batch) -> Tensor:
        return functional_call(module, parameters, (_add_axis(example),))

    def gradients(batch: Batch) -> Tensor:
        parameters = {name: parameter.detach() for name, parameter in module.named_parameters()}

        def of_example(inputs: Tensor | tuple[Tensor, ...], targets: Tensor, weights: Tensor | None) -> Tensor:
            return grad(loss)(parameters, Batch(inputs, targets, weights))

        weight_axis = None if batch.weights is None else 0
        with enable_double_backward(module), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="There is a performance drop")  # it is still one call
            by_name = vmap(of_example, in_dims=(0, 0, weight_axis))(batch.inputs, batch.targets, batch.weights)
        return torch.cat([part.reshape(len(batch), -1) for part in by_name.values()], dim=1)

    return gradients


class _LossModule(nn.Module):
    """The loss of an objective as a module, so that the parameters of its network can be replaced in a call."""

    def __init__(self, objective: Objective):
        super().__init__()
        self.network = objective.module
        self._objective = objective

    def forward(self, batch: Batch) -> Tensor:
        """Return the loss of a batch."""
        return self._objective(batch).loss


def _add_axis(example: Batch) -> Batch:
    """Return an example without the axis of examples as a batch of one."""
    inputs = example.inputs
    return replace(
        example,
        inputs=inputs[None] if isinstance(inputs, Tensor) else tuple(part[None] for part in inputs),
        targets=example.targets[None],
        weights=None if example.weights is None else example.weights[None],
    )


def compute_gradient(value: Tensor, parameters: Sequence[nn.Parameter], create_graph: bool = False) -> Sequence[Tensor]:
    """Return the gradient of a value; 0 for parameters that the value does not depend on."""
    return torch.autograd.grad(value, parameters, create_graph=create_graph, allow_unused=True, materialize_grads=True)
