"""Tests of whether a network fits the data and all analyses, on a few images, before anything trains."""

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from functools import reduce
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from batchscape.config.model import ModelConfig
from batchscape.data.prepared import PreparedData
from batchscape.data.tensors import normalize_images, to_tensors
from batchscape.errors import UserError, is_out_of_memory
from batchscape.models.build import apply_network, build_network
from batchscape.models.perturbation import copy_perturbed
from batchscape.runtime.user_code import summarize_error
from batchscape.tasks.losses import enable_backward, enable_double_backward, mean_loss, num_outputs

NUM_PROBE_EXAMPLES = 4
CPU = torch.device("cpu")

# Hessian-vector products are compared with central differences of gradients in float64, along directions of length 1.
# The steps are tried in this order. They are so short that a ReLU hardly ever changes sign within one, which would
# affect the difference but not the derivative.
STEPS = 1e-6, 1e-5, 1e-7, 1e-4
# Tolerances for the difference in a parameter: relative to the larger of both, and relative to the norm over all
# parameters, so that parameters with hardly any curvature are not compared.
RELATIVE_TOLERANCE, TOTAL_TOLERANCE = 0.01, 1e-4
NUM_DIRECTIONS = 2


def validate_network(
    config: ModelConfig, loss: str, largest_batch: int, data: PreparedData, device: torch.device = CPU
) -> dict[str, Any]:
    """Check a network on a few training images, on the CPU and on the device where it will train.

    Args:
        config: Section `model` of the study file.
        loss: `training.loss`.
        largest_batch: The largest batch size of the study.
        data: The prepared data.
        device: Where the network will train.

    Returns:
        The content of `network.json`: input, outputs and parameters of the network, and whether its Hessian can be
        computed.

    Raises:
        UserError: The network cannot be constructed or copied, does not accept the images, returns outputs of another
            shape than the loss needs or ones that in evaluation mode depend on the rest of the batch, cannot be
            differentiated, or has no trainable parameters; or the largest batch is larger than the data.
    """
    validate_batch_size(largest_batch, data)
    outputs = num_outputs(loss, len(data.classes))
    shape = data.train_images.shape[1:]
    network = build_network(config, shape, outputs, seed=0)
    parameters = dict(network.named_parameters())
    for name, parameter in parameters.items():
        if parameter.dtype != torch.float32:
            raise UserError(
                f"model.name: {config.name} has parameters of {parameter.dtype} ({name}); training and all analyses "
                "use torch.float32, so convert them to it"
            )
    for place in dict.fromkeys((CPU, device)):
        images, labels = to_tensors(
            data.train_images[:NUM_PROBE_EXAMPLES], data.train_labels[:NUM_PROBE_EXAMPLES], place
        )
        rebuilt = build_network(config, shape, outputs, seed=0)
        replica = _copy_network(network.to(place), rebuilt.to(place), images, config.name)
        _check_outputs(replica, images, config.name, outputs, loss, data.classes)
        if not _follows_weights(network, images):
            raise UserError(
                f"model.name: {config.name} reuses, in evaluation mode, results computed from earlier weights, so "
                "analyses, which change the weights, would be wrong; compute them in each forward pass"
            )
        _check_gradient(replica, images, labels, config.name)
    failure = diagnose_hessian(network, images, labels)
    return {
        "name": config.name,
        "image_shape": list(shape),
        "classes": list(data.classes),
        "outputs": outputs,
        "loss": "binary_cross_entropy" if outputs == 1 else "cross_entropy",
        "parameters": sum(parameter.numel() for parameter in parameters.values()),
        "shapes": {name: list(parameter.shape) for name, parameter in parameters.items()},
        # The base class of all BatchNorm layers has no public name.
        "batch_norm": any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules()),
        "hessian": f"not computed: {failure}" if failure else "computed",
    }


def _copy_network(network: nn.Module, rebuilt: nn.Module, images: torch.Tensor, name: str) -> nn.Module:
    """Return a copy of a network. Raises UserError if its outputs differ from those of the same network, rebuilt."""
    try:
        copied = copy.deepcopy(network)
    except Exception as error:
        raise UserError(f"model.name: {name} cannot be copied by copy.deepcopy: {summarize_error(error)}")
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        expected = apply_network(rebuilt.eval(), normalize_images(images), name)
        torch.manual_seed(0)
        outputs = apply_network(copied.eval(), normalize_images(images), f"{name}, copied by copy.deepcopy,")
    if isinstance(expected, torch.Tensor) and not torch.allclose(
        outputs, expected, rtol=1e-3, atol=1e-4, equal_nan=True
    ):
        raise UserError(
            f"model.name: {name} returns other outputs after copy.deepcopy, or after construction with the same seed; "
            "do not store state outside the module, such as in a hook that refers to the original"
        )
    return copied


def _check_outputs(
    network: nn.Module, images: torch.Tensor, name: str, outputs: int, loss: str, classes: tuple[str, ...]
) -> None:
    """Raise UserError if outputs have another shape, depend on the rest of the batch, or have no gradient."""
    expected_shape = (len(images), outputs)
    for training in (False, True):  # in both modes, because networks may behave differently
        predicted = apply_network(network.train(training), normalize_images(images), name)
        if not isinstance(predicted, torch.Tensor) or tuple(predicted.shape) != expected_shape:
            kind = (
                f"shape {tuple(predicted.shape)}" if isinstance(predicted, torch.Tensor) else type(predicted).__name__
            )
            raise UserError(
                f"model.name: {name} returns {kind} for {len(images)} images; for {len(classes)} classes "
                f"({_join_first(classes)}) and `training.loss: {loss}` it must return shape {expected_shape}; change "
                f"the last layer to {outputs} per image"
                + (
                    ", or write `training.loss: cross_entropy`"
                    if kind == f"shape {(len(images), 2)}" and outputs == 1
                    else ""
                )
            )
        if not training:
            with torch.no_grad():  # as in evaluation, where a network might reuse the memory of its outputs
                first = apply_network(network, normalize_images(images), name)
                before = first.clone()
                apply_network(network, normalize_images(images.flip(0)), name)
            if not torch.allclose(first, before, rtol=0, atol=0, equal_nan=True):
                raise UserError(
                    f"model.name: {name} overwrites the outputs of its previous call; return a new tensor each time"
                )
            fewer = apply_network(network, normalize_images(images[:2]), name)
            if not torch.allclose(fewer, predicted[:2], rtol=1e-3, atol=1e-4, equal_nan=True):
                raise UserError(
                    f"model.name: {name}: in evaluation mode, the outputs of an example depend on the rest of the "
                    "batch; let BatchNorm track running statistics, and draw no random numbers"
                )
    if not predicted.requires_grad:
        raise UserError(f"model.name: {name} has no trainable parameters")


def _check_gradient(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, name: str) -> None:
    """Raise UserError if the loss cannot be differentiated in training mode, or in evaluation mode, as analyses do."""
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for mode in ("training", "evaluation"):
        network.train(mode == "training").zero_grad()
        try:
            with enable_backward(network) if mode == "evaluation" else nullcontext():
                mean_loss(network(normalize_images(images)), labels).backward()
                loss = mean_loss(network(normalize_images(images)), labels)
                gradients = torch.autograd.grad(loss, trainable, allow_unused=True, materialize_grads=True)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise UserError(f"model.name: {name} cannot be differentiated in {mode} mode: {summarize_error(error)}")
    accumulated = [torch.zeros_like(part) if part.grad is None else part.grad for part in trainable]
    network.zero_grad()
    for by_backward, by_grad in zip(accumulated, gradients, strict=True):
        if not torch.allclose(by_backward, by_grad, rtol=1e-3, atol=1e-6, equal_nan=True):
            raise UserError(
                f"model.name: {name} has another gradient with torch.autograd.grad, which analyses use, than with "
                "backward; with torch.utils.checkpoint set `use_reentrant=False`"
            )


def _follows_weights(network: nn.Module, images: torch.Tensor) -> bool:
    """Return whether weights changed in evaluation mode have the same effect as weights changed before it.

    They do not if `eval()` merges some weights into others, or if results are computed once and cached.
    """
    changed_before, changed_after = copy_perturbed(network.train()).eval(), copy.deepcopy(network).eval()
    inputs = normalize_images(images)
    with torch.no_grad():
        changed_after(inputs)
        for parameter, perturbed in zip(changed_after.parameters(), copy_perturbed(network).parameters(), strict=True):
            parameter.copy_(perturbed)
        return torch.allclose(changed_after(inputs), changed_before(inputs), rtol=1e-4, atol=1e-6, equal_nan=True)


def _join_first(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def validate_batch_size(size: int, data: PreparedData) -> None:
    """Check a batch size against the data.

    Args:
        size: The batch size.
        data: The prepared data.

    Raises:
        UserError: It is larger than the number of training images.
    """
    count = len(data.train_labels)
    if size > count:
        may_fit = size < count + len(data.validation_labels)
        raise UserError(
            f"grid.batch_sizes: {size} is more than the {count} training images; remove it"
            + (" or lower data.validation_fraction" if may_fit else "")
        )


def examples_are_independent(network: nn.Module, images: torch.Tensor) -> bool:
    """Return whether, in training mode, each output depends on its image alone and a step changes no buffers.

    Only then do parts of a batch, computed one after the other or in several processes, give the result of the complete
    batch. BatchNorm computes statistics over the batch; other layers update statistics in buffers once per step.

    Args:
        network: The network, which is left unchanged.
        images: (n, channels, height, width), uint8, n at least 2, on the device of the network.
    """
    # Perturbed, because statistics of converged weights do not change, and zero weights hide what is before them.
    replica = copy_perturbed(network).train()
    before = [buffer.clone() for buffer in replica.buffers()]
    inputs = normalize_images(images)
    same_first = torch.cat([inputs[:1], 1 - inputs[1:]])
    outputs = []
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for batch in (inputs, same_first):
            torch.manual_seed(0)  # the same dropout
            outputs.append(replica(batch)[0])
    buffers_unchanged = all(map(torch.equal, before, replica.buffers()))
    return buffers_unchanged and torch.allclose(outputs[0], outputs[1], rtol=1e-5, atol=1e-7, equal_nan=True)


def supports_batch_size_one(network: nn.Module, images: torch.Tensor) -> bool:
    """Return whether a network can train on a single image; BatchNorm cannot if it has one value per channel.

    Args:
        network: The network, which is left unchanged.
        images: (n, channels, height, width), uint8, on the device of the network.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            copy.deepcopy(network).train()(normalize_images(images[:1]))
        except ValueError:
            return False
    return True


def diagnose_hessian(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> str:
    """Return why Hessian-vector products of a network's loss cannot be computed, in evaluation mode.

    For some operations without a second derivative torch silently uses zero. Therefore a product is compared with
    central differences of gradients, parameter by parameter, at slightly perturbed weights. This needs float64; for a
    network that converts to another precision, only errors are detected.

    Args:
        network: The network, which is left unchanged.
        images: (n, channels, height, width), uint8, on the device of the network.
        labels: (n,), on the device of the network.

    Returns:
        The reason, or an empty string if they can be computed.
    """
    try:
        single = _PerturbedLoss(network, images, labels, torch.float32)
        single.hessian_vector_product(single.directions()[0])
    except Exception as error:  # from torch, or from a custom operation
        if is_out_of_memory(error):
            raise
        return summarize_error(error)
    try:
        return _compare_with_differences(network, images, labels)
    except Exception as error:  # from a network that does not support float64
        if is_out_of_memory(error):
            raise
        return ""


def _compare_with_differences(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> str:
    """Return how a Hessian-vector product differs from differences of gradients.

    Empty if it does not differ, or if they cannot be compared.
    """
    double = _PerturbedLoss(network, images, labels, torch.float64)
    with _RecordedPrecisions() as precisions:
        size = _norm(double.gradient())
    if precisions.seen > {torch.float64} or not torch.isfinite(size):
        return ""
    unconfirmed = set(double.names)
    for direction in double.directions():
        product = double.hessian_vector_product(direction)
        for step in STEPS:
            difference = double.gradient_difference(direction, step)
            floor = TOTAL_TOLERANCE * _norm(difference) + 4 * torch.finfo(torch.float64).eps * size / step
            for name, exact, approximate in zip(double.names, product, difference, strict=True):
                larger = max(exact.norm(), approximate.norm())
                if (exact - approximate).norm() <= RELATIVE_TOLERANCE * larger + floor:
                    unconfirmed.discard(name)
            if not unconfirmed:
                return ""
    first = next(name for name in double.names if name in unconfirmed)
    return (
        "an operation of the network has no second derivative (a Hessian product differs from the difference of "
        f"gradients in {first})"
    )


class _PerturbedLoss:
    """The mean loss on some examples as a function of a network's weights, near its own, in evaluation mode."""

    def __init__(self, network: nn.Module, images: torch.Tensor, labels: torch.Tensor, dtype: torch.dtype):
        self.network = copy_perturbed(network).to(dtype).eval().requires_grad_()
        self.inputs, self.labels = normalize_images(images, dtype), labels
        self.names, self.parameters = zip(*self.network.named_parameters(), strict=True)
        self.start = [parameter.detach().clone() for parameter in self.parameters]

    def directions(self) -> list[list[torch.Tensor]]:
        """Return random directions of length 1, the same ones in each call."""
        generator = torch.Generator().manual_seed(0)
        drawn = [[torch.randn(part.shape, generator=generator) for part in self.start] for _ in range(NUM_DIRECTIONS)]
        lengths = map(_norm, drawn)
        return [
            [(part / length).to(self.start[0]) for part in parts] for parts, length in zip(drawn, lengths, strict=True)
        ]

    def gradient(self, create_graph: bool = False) -> Sequence[torch.Tensor]:
        """Return the gradient at the current weights, one tensor per parameter."""
        with enable_backward(self.network):
            loss = mean_loss(self.network(self.inputs).double(), self.labels)
            return self._differentiate(loss, create_graph)

    def hessian_vector_product(self, direction: list[torch.Tensor]) -> Sequence[torch.Tensor]:
        """Return the Hessian times a direction."""
        with enable_double_backward(self.network):
            gradient = self.gradient(create_graph=True)
            slope = reduce(torch.add, [(g * v).sum() for g, v in zip(gradient, direction, strict=True)])
            return self._differentiate(slope, create_graph=False)

    def gradient_difference(self, direction: list[torch.Tensor], step: float) -> list[torch.Tensor]:
        """Return the same by a central difference of gradients."""
        gradients = []
        for signed_step in (step, -step):
            with torch.no_grad():
                for parameter, start, along in zip(self.parameters, self.start, direction, strict=True):
                    parameter.copy_(start + signed_step * along)
            gradients.append(self.gradient())
        with torch.no_grad():
            for parameter, start in zip(self.parameters, self.start, strict=True):
                parameter.copy_(start)
        return [(ahead - behind) / (2 * step) for ahead, behind in zip(*gradients, strict=True)]

    def _differentiate(self, value: torch.Tensor, create_graph: bool) -> Sequence[torch.Tensor]:
        return torch.autograd.grad(
            value, self.parameters, create_graph=create_graph, allow_unused=True, materialize_grads=True
        )


class _RecordedPrecisions(TorchFunctionMode):
    """Records the floating-point types that a network computes in."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[torch.dtype] = set()

    def __torch_function__(self, function: Any, types: Any, inputs: Any = (), options: Any = None) -> Any:
        result = function(*inputs, **(options or {}))
        parts = result if isinstance(result, tuple | list) else [result]
        self.seen |= {part.dtype for part in parts if isinstance(part, torch.Tensor) and part.is_floating_point()}
        return result


def _norm(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack([part.double().norm() for part in parts]).norm()
