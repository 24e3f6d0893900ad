"""Whether a network fits the data: seen in one step with a few images, before anything trains."""

import copy
from collections.abc import Sequence
from contextlib import nullcontext
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


# How a Hessian product is compared with central differences of gradients, in float64. The steps along a direction of
# length 1, tried in this order, are so short that hardly ever a ReLU changes its side on the way, which a difference
# sees and a derivative does not. The two may differ by so much relative to the greater one in a parameter, and by so
# much of the whole: a parameter with less of the curvature is not looked at.
STEPS = 1e-6, 1e-5, 1e-7, 1e-4
RELATIVE, SHARE = 0.01, 1e-4
DIRECTIONS = 2


def validate_network(
    config: ModelConfig, loss: str, largest_batch: int, data: PreparedData, device: torch.device = CPU
) -> dict[str, Any]:
    """Return what the network is: its input, outputs and parameters, and whether its Hessian can be computed.

    Raises UserError if it cannot be made or copied, cannot take the images, gives outputs of another shape than the
    loss wants for these classes, or ones that depend on the other images in evaluation, cannot be differentiated, or
    has nothing to train; and if the largest batch is larger than the data. All is seen on the CPU, where every run
    looks at its network first, and on `device`, where it trains.
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
                "compute in torch.float32, so make them of that"
            )
    for place in dict.fromkeys((CPU, device)):
        images, labels = to_tensors(
            data.train_images[:NUM_PROBE_EXAMPLES], data.train_labels[:NUM_PROBE_EXAMPLES], place
        )
        tried = _copied(network.to(place), build_network(config, shape, outputs, seed=0).to(place), images, config.name)
        _require_outputs(tried, images, config.name, outputs, loss, data.classes)
        if not _follows_weights(network, images):
            raise UserError(
                f"model.name: {config.name} keeps in evaluation mode what it computed from earlier weights, so that "
                "analyses, which move the weights there, would be wrong; have it compute that in each forward pass"
            )
        _require_gradient(tried, images, labels, config.name)
    fault = diagnose_hessian(network, images, labels)
    return {
        "name": config.name,
        "image_shape": list(shape),
        "classes": list(data.classes),
        "outputs": outputs,
        "loss": "binary_cross_entropy" if outputs == 1 else "cross_entropy",
        "parameters": sum(parameter.numel() for parameter in parameters.values()),
        "shapes": {name: list(parameter.shape) for name, parameter in parameters.items()},
        "batch_norm": any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules()),
        "hessian": f"not computed: {fault}" if fault else "computed",
    }


def _copied(network: nn.Module, twin: nn.Module, images: torch.Tensor, name: str) -> nn.Module:
    """Return a copy of a network. Raises UserError if it gives other outputs than `twin`, the same network again."""
    try:
        copied = copy.deepcopy(network)
    except Exception as error:
        raise UserError(f"model.name: {name} cannot be copied by copy.deepcopy: {summarize_error(error)}")
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        expected = apply_network(twin.eval(), normalize_images(images), name)
        torch.manual_seed(0)
        found = apply_network(copied.eval(), normalize_images(images), f"{name}, copied by copy.deepcopy,")
    if isinstance(expected, torch.Tensor) and not torch.allclose(found, expected, rtol=1e-3, atol=1e-4, equal_nan=True):
        raise UserError(
            f"model.name: {name} gives other outputs once it is copied by copy.deepcopy, or made again from the same "
            "seed; keep nothing outside the module, such as in a hook that holds the original"
        )
    return copied


def _require_outputs(
    network: nn.Module, images: torch.Tensor, name: str, outputs: int, loss: str, classes: tuple[str, ...]
) -> None:
    wanted = (len(images), outputs)
    for training in (False, True):  # both, for a network may do other things when it does not train
        predicted = apply_network(network.train(training), normalize_images(images), name)
        if not isinstance(predicted, torch.Tensor) or tuple(predicted.shape) != wanted:
            got = f"shape {tuple(predicted.shape)}" if isinstance(predicted, torch.Tensor) else type(predicted).__name__
            raise UserError(
                f"model.name: {name} gives {got} for {len(images)} images; for {len(classes)} classes "
                f"({_few(classes)}) and "
                f"`training.loss: {loss}` it must give shape {wanted}; let its last layer give {outputs} for each image"
                + (
                    ", or write `training.loss: cross_entropy`"
                    if got == f"shape {(len(images), 2)}" and outputs == 1
                    else ""
                )
            )
        if not training:
            with torch.no_grad():  # as it is evaluated, where outputs may lie in memory of the network
                kept = apply_network(network, normalize_images(images), name)
                before = kept.clone()
                apply_network(network, normalize_images(images.flip(0)), name)
            if not torch.allclose(kept, before, rtol=0, atol=0, equal_nan=True):
                raise UserError(
                    f"model.name: {name} overwrites the outputs of its last call in the next one; give a new tensor"
                )
            fewer = apply_network(network, normalize_images(images[:2]), name)
            if not torch.allclose(fewer, predicted[:2], rtol=1e-3, atol=1e-4, equal_nan=True):
                raise UserError(
                    f"model.name: {name} gives an image other outputs among other images, when it is "
                    "evaluated; have BatchNorm track running statistics, and nothing drawn at random"
                )
    if not predicted.requires_grad:
        raise UserError(f"model.name: {name} has no parameter that training could change; give it one")


def _require_gradient(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, name: str) -> None:
    """Raise UserError if the loss cannot be differentiated in training, or in evaluation, as analyses do."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for mode in ("training", "evaluation"):
        network.train(mode == "training").zero_grad()
        try:
            with enable_backward(network) if mode == "evaluation" else nullcontext():
                mean_loss(network(normalize_images(images)), labels).backward()
                loss = mean_loss(network(normalize_images(images)), labels)
                gradient = torch.autograd.grad(loss, trained, allow_unused=True, materialize_grads=True)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise UserError(f"model.name: {name} cannot be differentiated in {mode} mode: {summarize_error(error)}")
    accumulated = [torch.zeros_like(part) if part.grad is None else part.grad for part in trained]
    network.zero_grad()
    for of_backward, of_grad in zip(accumulated, gradient, strict=True):
        if not torch.allclose(of_backward, of_grad, rtol=1e-3, atol=1e-6, equal_nan=True):
            raise UserError(
                f"model.name: {name} has another gradient by torch.autograd.grad, which analyses take, than by "
                "backward; with torch.utils.checkpoint write `use_reentrant=False`"
            )


def _follows_weights(network: nn.Module, images: torch.Tensor) -> bool:
    """Say whether weights that are moved in evaluation mode count as those that were there before it.

    They do not where `eval()` merges some weights into others, or where something is computed once and kept.
    """
    before, after = copy_perturbed(network.train()).eval(), copy.deepcopy(network).eval()
    inputs = normalize_images(images)
    with torch.no_grad():
        after(inputs)
        for parameter, moved in zip(after.parameters(), copy_perturbed(network).parameters(), strict=True):
            parameter.copy_(moved)
        return torch.allclose(after(inputs), before(inputs), rtol=1e-4, atol=1e-6, equal_nan=True)


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def validate_batch_size(size: int, data: PreparedData) -> None:
    """Raise UserError if a batch size is above the number of training images."""
    count = len(data.train_labels)
    if size > count:
        may_fit = size < count + len(data.validation_labels)
        raise UserError(
            f"grid.batch_sizes: {size} is more than the {count} training images; take it out"
            + (" or lower data.validation_fraction" if may_fit else "")
        )


def examples_are_independent(network: nn.Module, images: torch.Tensor) -> bool:
    """Say whether what a network in training gives an image depends on that image alone, and no step leaves a trace.

    Only then do parts of a batch, one after the other or in several processes, give what the batch gives as a whole.
    BatchNorm takes its statistics from all images; others keep statistics in buffers, once for each step. `images` is
    uint8, (n, channels, height, width), n at least 2. The network is left as it is.
    """
    # Statistics of the weights are at rest until a step moves these, and weights of zero hide what is before them.
    twin = copy_perturbed(network).train()
    before = [buffer.clone() for buffer in twin.buffers()]
    inputs = normalize_images(images)
    others = torch.cat([inputs[:1], 1 - inputs[1:]])
    outputs = []
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for batch in (inputs, others):
            torch.manual_seed(0)  # the same dropout
            outputs.append(twin(batch)[0])
    untouched = all(map(torch.equal, before, twin.buffers()))
    return untouched and torch.allclose(*outputs, rtol=1e-5, atol=1e-7, equal_nan=True)


def supports_batch_size_one(network: nn.Module, images: torch.Tensor) -> bool:
    """Say whether a network can train on a batch of one image: BatchNorm of single numbers has no variance there.

    `images` is uint8, (n, channels, height, width). The network is left as it is.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            copy.deepcopy(network).train()(normalize_images(images[:1]))
        except ValueError:
            return False
    return True


def diagnose_hessian(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> str:
    """Return why Hessian products of a network's loss cannot be computed, in evaluation mode; empty if they can.

    torch gives some operations that have no second derivative one of zero, without a word. So a product is compared
    with central differences of gradients, at weights that were moved a little, parameter by parameter. This takes
    float64; a network that computes in another precision whatever its weights are is only seen not to fail. `images`
    is uint8, (n, channels, height, width), `labels` (n,), both where the network is; that is left as it is.
    """
    try:
        single = _Loss(network, images, labels, torch.float32)
        single.product(single.directions()[0])
    except Exception as error:  # torch's, or of the user's own operation
        if is_out_of_memory(error):
            raise
        return summarize_error(error)
    try:
        return _differing_product(network, images, labels)
    except Exception as error:  # of a network that does not take float64
        if is_out_of_memory(error):
            raise
        return ""


def _differing_product(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> str:
    """Return how a Hessian product differs from differences of gradients; empty if it agrees or cannot be compared."""
    double = _Loss(network, images, labels, torch.float64)
    with _Precisions() as precisions:
        size = _norm(double.gradient())
    if precisions.seen > {torch.float64} or not torch.isfinite(size):
        return ""
    waiting = set(double.names)
    for direction in double.directions():
        product = double.product(direction)
        for step in STEPS:
            difference = double.difference(direction, step)
            floor = SHARE * _norm(difference) + 4 * torch.finfo(torch.float64).eps * size / step
            for name, exact, near in zip(double.names, product, difference, strict=True):
                if (exact - near).norm() <= RELATIVE * max(exact.norm(), near.norm()) + floor:
                    waiting.discard(name)
            if not waiting:
                return ""
    first = next(name for name in double.names if name in waiting)
    return (
        "an operation of the network has no second derivative (a Hessian product differs from the difference of "
        f"gradients in {first})"
    )


class _Loss:
    """The mean loss of some examples as a function of a network's weights, moved a little, in evaluation mode."""

    def __init__(self, network: nn.Module, images: torch.Tensor, labels: torch.Tensor, dtype: torch.dtype):
        self.network = copy_perturbed(network).to(dtype).eval().requires_grad_()
        self.inputs, self.labels = normalize_images(images, dtype), labels
        self.names, self.parameters = zip(*self.network.named_parameters(), strict=True)
        self.start = [parameter.detach().clone() for parameter in self.parameters]

    def directions(self) -> list[list[torch.Tensor]]:
        """Random directions of length 1, always the same."""
        draw = torch.Generator().manual_seed(0)
        drawn = [[torch.randn(part.shape, generator=draw) for part in self.start] for _ in range(DIRECTIONS)]
        lengths = map(_norm, drawn)
        return [
            [(part / length).to(self.start[0]) for part in parts] for parts, length in zip(drawn, lengths, strict=True)
        ]

    def gradient(self, create_graph: bool = False) -> Sequence[torch.Tensor]:
        with enable_backward(self.network):
            loss = mean_loss(self.network(self.inputs).double(), self.labels)
            return self._gradient_of(loss, create_graph)

    def product(self, direction: list[torch.Tensor]) -> Sequence[torch.Tensor]:
        """The Hessian times a direction."""
        with enable_double_backward(self.network):
            slope = sum((g * v).sum() for g, v in zip(self.gradient(create_graph=True), direction, strict=True))
            return self._gradient_of(slope, create_graph=False)

    def difference(self, direction: list[torch.Tensor], step: float) -> list[torch.Tensor]:
        """The same by a central difference of gradients."""
        gradients = []
        for signed in (step, -step):
            with torch.no_grad():
                for parameter, begin, along in zip(self.parameters, self.start, direction, strict=True):
                    parameter.copy_(begin + signed * along)
            gradients.append(self.gradient())
        with torch.no_grad():
            for parameter, begin in zip(self.parameters, self.start, strict=True):
                parameter.copy_(begin)
        return [(ahead - behind) / (2 * step) for ahead, behind in zip(*gradients, strict=True)]

    def _gradient_of(self, value: torch.Tensor, create_graph: bool) -> Sequence[torch.Tensor]:
        return torch.autograd.grad(
            value, self.parameters, create_graph=create_graph, allow_unused=True, materialize_grads=True
        )


class _Precisions(TorchFunctionMode):
    """Sees in which precisions a network computes."""

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
