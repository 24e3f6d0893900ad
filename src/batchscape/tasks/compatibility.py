"""Tests of whether a network and its loss fit the data and all analyses, on a few examples, before anything trains."""

import copy
import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import reduce
from typing import Any

import torch
from safetensors.numpy import save
from torch import nn
from torch.overrides import TorchFunctionMode

from batchscape.config.model import ModelConfig
from batchscape.config.optimizer import OptimizerConfig
from batchscape.config.task import TaskConfig
from batchscape.data.dataset import Batch, Dataset, input_tensors, map_inputs
from batchscape.data.prepared import PreparedData
from batchscape.data.spec import DataSpec, describe_large_batch
from batchscape.errors import UserError, is_out_of_memory
from batchscape.models.build import apply_network
from batchscape.models.parameters import flatten_tensors
from batchscape.models.perturbation import copy_perturbed
from batchscape.models.step_network import StepNetwork, check_step, unused_methods
from batchscape.optim.optimizers import check_optimizer_step, check_resume
from batchscape.runtime.randomness import seed_global_rngs
from batchscape.runtime.user_code import overridden_methods, summarize_error
from batchscape.tasks.build import build_objective
from batchscape.tasks.lightning import LightningObjective
from batchscape.tasks.modes import DoubleOutputs, enable_backward, enable_double_backward, evaluation_mode
from batchscape.tasks.objective import Objective, SupervisedObjective
from batchscape.tasks.task import Task, check_functions

NUM_PROBE_EXAMPLES = 4
# Examples whose loss is compared with that of their parts.
NUM_SPLIT_EXAMPLES = 8
CPU = torch.device("cpu")

# Hessian-vector products are compared with central differences of gradients in float64, along directions of length 1.
# The steps are tried in this order. They are so short that a ReLU hardly ever changes sign within one, which would
# affect the difference but not the derivative.
STEPS = 1e-6, 1e-5, 1e-7, 1e-4
# Tolerances for the difference in a parameter: relative to the larger of both, and relative to the norm over all
# parameters, so that parameters with hardly any curvature are not compared.
RELATIVE_TOLERANCE, TOTAL_TOLERANCE = 0.01, 1e-4
NUM_DIRECTIONS = 2
# Training passes after which the state of a network is compared with that of its saved weights.
NUM_STATE_PASSES = 3
# Factor that makes weights larger than a bound that a network may have for them.
LARGE_WEIGHTS = 1000.0


def probe_batch(data: Dataset, device: torch.device = CPU, count: int = NUM_PROBE_EXAMPLES) -> Batch:
    """Return the first examples of a dataset, on which networks are tested."""
    return data[:count].batch(slice(None), device)


def validate_network(
    config: ModelConfig, task_config: TaskConfig, largest_batch: int, data: PreparedData, device: torch.device = CPU
) -> dict[str, Any]:
    """Check a network and its loss on a few training examples, on the CPU and on the device where it will train.

    Args:
        config: Section `model` of the study file.
        task_config: Section `task`.
        largest_batch: The largest batch size of the study.
        data: The prepared data.
        device: Where the network will train.

    Returns:
        The content of `network.json`: input, outputs and parameters of the network, whether its Hessian can be
        computed, and the methods of a LightningModule that are not called.

    Raises:
        UserError: The network cannot be constructed or copied, does not accept the inputs, returns outputs of another
            shape than the loss needs or ones that in evaluation mode depend on the rest of the batch or on later
            tokens, cannot be differentiated, has no trainable parameters, changes its weights in evaluation mode,
            or has state that is not saved; the loss is not a mean over examples; or the largest batch is larger than
            the data.
    """
    validate_batch_size(largest_batch, data)
    spec, objective = data.spec, build_objective(config, task_config, data, seed=0)
    network = objective.module
    parameters = dict(network.named_parameters())
    for name, parameter in parameters.items():
        if parameter.dtype != torch.float32:
            raise UserError(
                f"model.name: {config.name} has parameters of {parameter.dtype} ({name}); training and all analyses "
                "use torch.float32, so convert them to it"
            )
    _check_entries(network, config.name)
    for place in dict.fromkeys((CPU, device)):
        batch = probe_batch(data.train, place)
        rebuilt, inputs = build_objective(config, task_config, data, seed=0).module, objective.network_inputs(batch)
        network.to(place)
        if isinstance(network, StepNetwork):
            check_step(network, inputs)
        replica = _copy_network(network, rebuilt.to(place), inputs, config.name)
        if isinstance(objective, SupervisedObjective):
            _check_outputs(replica, inputs, config.name, objective.task, task_config, spec)
        if not _follows_weights(network, inputs):
            raise UserError(
                f"model.name: {config.name} reuses, in evaluation mode, results computed from earlier weights, so "
                "analyses, which change the weights, would be wrong; compute them in each forward pass"
            )
        _check_gradient(objective.on(replica), batch, config.name)
    _check_evaluation(network, inputs, config.name)
    _check_state(network, build_objective(config, task_config, data, seed=0).module.to(place), inputs, config.name)
    examples = probe_batch(data.train, place, NUM_SPLIT_EXAMPLES)
    loss_name, outputs = task_config.loss, None
    if isinstance(objective, SupervisedObjective):
        outputs = objective.task.num_outputs
        if loss_name == "auto":
            loss_name = "binary_cross_entropy" if outputs == 1 else "cross_entropy"
        check_functions(task_config, objective.task, network(examples.inputs), examples.targets)
    check_additivity(objective, examples, loss_name)
    failure = diagnose_hessian(objective, batch)
    return {
        "name": config.name,
        "task": task_config.name,
        "input_shape": list(spec.shape),
        "classes": list(spec.classes),
        "outputs": outputs,
        "loss": loss_name,
        "parameters": sum(parameter.numel() for parameter in parameters.values()),
        "shapes": {name: list(parameter.shape) for name, parameter in parameters.items()},
        "batch_norm": has_batch_norm(network),
        "weighted": objective.example_weights(examples) is not None,
        "hessian": f"not computed: {failure}" if failure else "computed",
        "unused_methods": unused_methods(network) if isinstance(network, StepNetwork) else [],
    }


def validate_optimizer(
    config: OptimizerConfig,
    model: ModelConfig,
    task_config: TaskConfig,
    data: PreparedData,
    device: torch.device = CPU,
    is_named: bool = True,
) -> None:
    """Check that the optimizer trains the network, where it will train, and that a run with it resumes bit for bit.

    Args:
        config: Section `optimizer` of the study file.
        model: Section `model`.
        task_config: Section `task`.
        data: The prepared data.
        device: Where the network will train.
        is_named: Whether the study file names the optimizer, so that it need not be that of a LightningModule.

    Raises:
        UserError: It cannot be built, fails in a step, writes NaN from finite gradients, or has state that is lost; or
            a LightningModule configures an optimizer, and the study file names none.
    """
    network = build_objective(model, task_config, data, seed=0).module
    require_choice_of_optimizer(network, model.name, is_named)
    check_resume(config, network)
    check_optimizer_step(network.to(device), config)


def require_choice_of_optimizer(network: nn.Module, name: str, is_named: bool) -> None:
    """Raise UserError if a LightningModule configures an optimizer, and the study file does not say which one to use.

    Args:
        network: The network.
        name: Its name in the study file.
        is_named: Whether the study file names the optimizer.
    """
    module = network.module if isinstance(network, StepNetwork) else network
    if not is_named and "configure_optimizers" in (overridden_methods(module, "LightningModule") or ()):
        raise UserError(
            f"optimizer.name: {name} has an optimizer of its own, configure_optimizers; write `optimizer: {{name: "
            "module}` to train with it, or name another one, such as SGD"
        )


def check_additivity(objective: Objective, batch: Batch, loss_name: str) -> None:
    """Check the contract of `Objective` on a batch: it is split, and losses and gradients of the parts must add up.

    The network is in evaluation mode, where the outputs of an example do not depend on the others.

    Args:
        objective: The network with its loss.
        batch: At least two examples.
        loss_name: Name of the loss in the study file.

    Raises:
        UserError: The loss of the batch is not the weighted mean of those of its parts, or its gradient is not.
    """
    parameters = [parameter for parameter in objective.module.parameters() if parameter.requires_grad]

    def total(parts: Sequence[Batch]) -> tuple[float, torch.Tensor]:
        """Return the sums of weight × loss and of weight × gradient."""
        loss, gradient = 0.0, torch.zeros(sum(map(torch.numel, parameters)), dtype=torch.float64)
        for part in parts:
            weights = objective.example_weights(part)
            weight = len(part) if weights is None else weights.sum().item()
            outcome = objective(part)
            parts_of_gradient = torch.autograd.grad(outcome.loss, parameters, allow_unused=True, materialize_grads=True)
            gradient += weight * flatten_tensors(parts_of_gradient).double().cpu()
            loss += weight * outcome.loss.item()
        return loss, gradient

    own = isinstance(objective, LightningObjective)
    first = len(batch) // 3
    with evaluation_mode(objective.module), enable_backward(objective.module):
        loss, gradient = total([batch])
        split_loss, split_gradient = total(batch.split([first, len(batch) - first]))
    differs = not math.isclose(loss, split_loss, rel_tol=1e-4, abs_tol=1e-5) and math.isfinite(loss)
    if differs or not (gradient - split_gradient).norm() <= 1e-3 * gradient.norm() + 1e-5:
        fix = 'with `reduction="mean"` return the mean of what `reduction="none"` returns, and'
        fix = "let training_step return the mean over the examples of its batch, and" if own else fix
        totals = f"have the total loss {loss:.6g}, and in two parts {split_loss:.6g}"
        if not differs:
            totals = f"have another gradient than in two parts, although the total loss is the same, {loss:.6g}"
        raise UserError(
            f"task.loss: {loss_name} is not a mean over examples: {len(batch)} of them {totals}; {fix} let the loss of "
            "an example not depend on the others"
        )


def _copy_network(network: nn.Module, rebuilt: nn.Module, inputs: Any, name: str) -> nn.Module:
    """Return a copy of a network. Raises UserError if its outputs differ from those of the same network, rebuilt."""
    try:
        copied = copy.deepcopy(network)
    except Exception as error:
        raise UserError(f"model.name: {name} cannot be copied by copy.deepcopy: {summarize_error(error)}")
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        expected = apply_network(rebuilt.eval(), inputs, name)
        torch.manual_seed(0)
        outputs = apply_network(copied.eval(), inputs, f"{name}, copied by copy.deepcopy,")
    if isinstance(expected, torch.Tensor) and not torch.allclose(
        outputs, expected, rtol=1e-3, atol=1e-4, equal_nan=True
    ):
        raise UserError(
            f"model.name: {name} returns other outputs after copy.deepcopy, or after construction with the same seed; "
            "do not store state outside the module, such as in a hook that refers to the original"
        )
    return copied


def _check_outputs(
    network: nn.Module, inputs: Any, name: str, task: Task, task_config: TaskConfig, spec: DataSpec
) -> None:
    """Raise UserError if outputs have another shape, depend on other examples or later tokens, or have no gradient."""
    count = len(input_tensors(inputs)[0])
    expected_shape = (count, *task.output_shape)
    for training in (False, True):  # in both modes, because networks may behave differently
        predicted = apply_network(network.train(training), inputs, name)
        if not isinstance(predicted, torch.Tensor):
            raise UserError(
                f"model.name: {name} returns {type(predicted).__name__} for {count} examples in "
                f"{'training' if training else 'evaluation'} mode; return one tensor in both modes, with some networks "
                "of torchvision by `aux_logits: false` in model.arguments"
            )
        if tuple(predicted.shape) != expected_shape:
            kind = f"shape {tuple(predicted.shape)}"
            raise UserError(
                f"model.name: {name} returns {kind} for {count} examples; for {_describe_targets(spec)} and "
                f"`task.loss: {task_config.loss}` it must return shape {expected_shape}; change the last layer to "
                f"{task.num_outputs} outputs per {'token' if spec.targets == 'next_token' else 'example'}"
                + (
                    ", or write `task.loss: cross_entropy`"
                    if kind == f"shape {(count, 2)}" and task.output_shape == (1,) and spec.targets == "class"
                    else ""
                )
            )
        if not training:
            with torch.no_grad():  # as in evaluation, where a network might reuse the memory of its outputs
                first = apply_network(network, inputs, name)
                before = first.clone()
                apply_network(network, map_inputs(lambda tensor: tensor.flip(0), inputs), name)
            if not torch.allclose(first, before, rtol=0, atol=0, equal_nan=True):
                raise UserError(
                    f"model.name: {name} overwrites the outputs of its previous call; return a new tensor each time"
                )
            fewer = apply_network(network, map_inputs(lambda tensor: tensor[:2], inputs), name)
            if not torch.allclose(fewer, predicted[:2], rtol=1e-3, atol=1e-4, equal_nan=True):
                raise UserError(
                    f"model.name: {name}: in evaluation mode, the outputs of an example depend on the rest of the "
                    "batch; let BatchNorm track running statistics, and draw no random numbers"
                )
            if spec.targets == "next_token":
                _check_causality(network, inputs, predicted, name, spec)
    if not predicted.requires_grad:
        raise UserError(f"model.name: {name} has no trainable parameters")


def _check_causality(
    network: nn.Module, tokens: torch.Tensor, predicted: torch.Tensor, name: str, spec: DataSpec
) -> None:
    """Raise UserError if outputs of evaluation mode depend on later tokens, which they predict."""
    half = tokens.shape[1] // 2
    changed = torch.cat([tokens[:, :half], alter_inputs(tokens[:, half:], spec)], dim=1)
    outputs = apply_network(network, changed, name)
    if not torch.allclose(outputs[:, :half], predicted[:, :half], rtol=1e-3, atol=1e-4, equal_nan=True):
        raise UserError(
            f"model.name: {name}: the output for a token depends on later tokens, which it is to predict; use a "
            "causal mask"
        )


def _describe_targets(spec: DataSpec) -> str:
    if spec.targets == "class":
        return f"{len(spec.classes)} classes ({_join_first(spec.classes)})"
    if spec.targets == "next_token":
        return f"a vocabulary of {spec.vocabulary} tokens in blocks of {spec.shape[0]}"
    return f"targets of shape {spec.target_shape}" if spec.target_shape else "one number"


def alter_inputs(inputs: Any, spec: DataSpec) -> Any:
    """Return other inputs of the same shape, which differ from the given ones in nearly all values."""
    if spec.inputs == "tokens":
        return spec.vocabulary - 1 - inputs
    if spec.inputs == "columns":
        numbers, categories = inputs
        return 1 - numbers, torch.tensor(spec.categories, device=categories.device) - 1 - categories
    return 1 - inputs


def _check_gradient(objective: Objective, batch: Batch, name: str) -> None:
    """Raise UserError if the loss cannot be differentiated in training mode, or in evaluation mode, as analyses do."""
    network = objective.module
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for mode in ("training", "evaluation"):
        network.train(mode == "training").zero_grad()
        try:
            with enable_backward(network) if mode == "evaluation" else nullcontext():
                objective(batch).loss.backward()
                loss = objective(batch).loss
                gradients = torch.autograd.grad(loss, trainable, allow_unused=True, materialize_grads=True)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise UserError(f"model.name: {name} cannot be differentiated in {mode} mode: {summarize_error(error)}")
    for parameter_name, parameter in network.named_parameters():
        if parameter.grad is not None and parameter.grad.is_sparse:
            raise UserError(
                f"model.name: {name} has sparse gradients ({parameter_name}), and training and all analyses use dense "
                "ones; write `sparse=False` in the embedding"
            )
    accumulated = [torch.zeros_like(part) if part.grad is None else part.grad for part in trainable]
    network.zero_grad()
    for by_backward, by_grad in zip(accumulated, gradients, strict=True):
        if not torch.allclose(by_backward, by_grad, rtol=1e-3, atol=1e-6, equal_nan=True):
            raise UserError(
                f"model.name: {name} has another gradient with torch.autograd.grad, which analyses use, than with "
                "backward; with torch.utils.checkpoint set `use_reentrant=False`"
            )


def _follows_weights(network: nn.Module, inputs: Any) -> bool:
    """Return whether weights changed in evaluation mode have the same effect as weights changed before it.

    They do not if `eval()` merges some weights into others, or if results are computed once and cached.
    """
    changed_before, changed_after = copy_perturbed(network.train()).eval(), copy.deepcopy(network).eval()
    with torch.no_grad():
        changed_after(inputs)
        for parameter, perturbed in zip(changed_after.parameters(), copy_perturbed(network).parameters(), strict=True):
            parameter.copy_(perturbed)
        return torch.allclose(changed_after(inputs), changed_before(inputs), rtol=1e-4, atol=1e-6, equal_nan=True)


def _check_entries(network: nn.Module, name: str) -> None:
    """Raise UserError if an entry of the state dict cannot be in a weights file."""
    for entry, value in network.state_dict().items():
        try:
            save({entry: value.detach().reshape(-1)[:0].numpy()})
        except Exception:
            kind = str(value.dtype) if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"
            raise UserError(
                f"model.name: {name} cannot be saved: {entry} in its state_dict is {kind}; make it a tensor of another "
                "type, such as torch.float32, or if it is constant leave it out, as with `persistent=False`"
            )


def _check_evaluation(network: nn.Module, inputs: Any, name: str) -> None:
    """Raise UserError if an evaluation changes large weights, as an embedding with `max_norm` does."""
    replica = copy_perturbed(network).eval()  # zero weights would stay small
    with torch.no_grad():
        for parameter in replica.parameters():
            parameter.mul_(LARGE_WEIGHTS)
        before = [parameter.clone() for parameter in replica.parameters()]
        try:
            _outputs(replica, inputs)
        except Exception as error:  # such large weights may be an error to the network
            if is_out_of_memory(error):
                raise
    for (entry, after), same in zip(replica.named_parameters(), before, strict=True):
        if not torch.allclose(after, same, rtol=0, atol=0, equal_nan=True):
            raise UserError(
                f"model.name: {name} changes its weights ({entry}) in evaluation mode, so an evaluation would change "
                "the run; leave them to the optimizer, and give an embedding no `max_norm`"
            )


def _check_state(network: nn.Module, rebuilt: nn.Module, inputs: Any, name: str) -> None:
    """Raise UserError if training passes change more of a network than its state dict, which a rebuilt one gets."""
    trained = copy_perturbed(network).train()  # zero weights could hide the state from the outputs
    for _ in range(NUM_STATE_PASSES):
        _outputs(trained, inputs)
    try:
        rebuilt.load_state_dict(trained.state_dict())
    except Exception as error:
        raise UserError(
            f"model.name: {name} cannot be saved and loaded after a pass in training mode: {summarize_error(error)}; "
            "register all its parameters and buffers in `__init__`, with their final shapes"
        )
    for training in (False, True):
        expected, outputs = (_outputs(each.train(training), inputs) for each in (trained, rebuilt))
        if not torch.allclose(outputs, expected, rtol=1e-4, atol=1e-5, equal_nan=True):
            raise UserError(
                f"model.name: {name} has state that passes in training mode change, and that is not saved with its "
                f"weights: in {'training' if training else 'evaluation'} mode it returns other outputs after they are "
                "loaded; keep such state in persistent buffers (`self.register_buffer`)"
            )


def _outputs(network: nn.Module, inputs: Any) -> torch.Tensor:
    """Return the outputs of a network, with the same random numbers in each call."""
    with torch.random.fork_rng(devices=[]), seed_global_rngs(0):
        torch.manual_seed(0)
        outputs: torch.Tensor = network(inputs)
        return outputs.detach()


def _join_first(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def validate_batch_size(size: int, data: PreparedData) -> None:
    """Check a batch size against the data.

    Args:
        size: The batch size.
        data: The prepared data.

    Raises:
        UserError: It is larger than the number of training examples.
    """
    if too_large := describe_large_batch(size, len(data.train), len(data.validation)):
        raise UserError(too_large)


def examples_are_independent(objective: Objective, batch: Batch, spec: DataSpec) -> bool:
    """Return whether, in training mode, examples do not affect each other and a step changes no buffers.

    Only then do parts of a batch, computed one after the other or in several processes, give the result of the complete
    batch. BatchNorm computes statistics over the batch; other layers update statistics in buffers once per step.

    The outputs for the first example must not change with the others. Where there is only the loss of a batch, the
    effect of the first example on it must not change with the others.

    Args:
        objective: The network with its loss, which is left unchanged.
        batch: At least two examples, on the device of the network.
        spec: What an example is.
    """
    # Perturbed, because statistics of converged weights do not change, and zero weights hide what is before them.
    replica = objective.on(copy_perturbed(objective.module).train())
    before = [buffer.clone() for buffer in replica.module.buffers()]
    altered = input_tensors(alter_inputs(batch.inputs, spec))

    def compute(alters_first: bool, alters_others: bool) -> torch.Tensor:
        """Return the output of the network, with the same dropout in each call."""
        parts = [
            torch.cat([(new if alters_first else old)[:1], (new if alters_others else old)[1:]])
            for old, new in zip(input_tensors(batch.inputs), altered, strict=True)
        ]
        inputs = parts[0] if isinstance(batch.inputs, torch.Tensor) else tuple(parts)
        torch.manual_seed(0)
        return replica.module(replica.network_inputs(replace(batch, inputs=inputs)))

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        if isinstance(objective, LightningObjective):
            losses = [compute(alters, others)[0] for others in (False, True) for alters in (False, True)]
            effect, other_effect = losses[1] - losses[0], losses[3] - losses[2]
            tolerance = 1e-5 * float(torch.stack(losses).abs().max()) + 1e-7
            agrees = torch.allclose(effect, other_effect, rtol=1e-4, atol=tolerance, equal_nan=True)
        else:
            first, with_others_altered = compute(False, False)[0], compute(False, True)[0]
            agrees = torch.allclose(first, with_others_altered, rtol=1e-5, atol=1e-7, equal_nan=True)
    return all(map(torch.equal, before, replica.module.buffers())) and agrees


def has_batch_norm(network: nn.Module) -> bool:
    """Return whether a network has BatchNorm of torch."""
    # The base class of all BatchNorm layers has no public name.
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())


def supports_batch_size_one(objective: Objective, example: Batch) -> bool:
    """Return whether a network can train on a single example; BatchNorm cannot if it has one value per channel.

    Args:
        objective: The network with its loss, which is left unchanged.
        example: A batch of one, on the device of the network.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            copy.deepcopy(objective.module).train()(objective.network_inputs(example))
        except ValueError:
            return False
    return True


def diagnose_hessian(objective: Objective, batch: Batch) -> str:
    """Return why Hessian-vector products of the loss cannot be computed, in evaluation mode.

    For some operations without a second derivative torch silently uses zero. Therefore a product is compared with
    central differences of gradients, parameter by parameter, at slightly perturbed weights. This needs float64; for a
    network that converts to another precision, only errors are detected.

    Args:
        objective: The network, which is left unchanged, with its loss.
        batch: A few examples, on the device of the network.

    Returns:
        The reason, or an empty string if they can be computed.
    """
    try:
        single = _PerturbedLoss(objective, batch, torch.float32)
        single.hessian_vector_product(single.directions()[0])
    except Exception as error:  # from torch, or from a custom operation
        if is_out_of_memory(error):
            raise
        return summarize_error(error)
    try:
        return _compare_with_differences(objective, batch)
    except Exception as error:  # from a network that does not support float64
        if is_out_of_memory(error):
            raise
        return ""


def _compare_with_differences(objective: Objective, batch: Batch) -> str:
    """Return how a Hessian-vector product differs from differences of gradients.

    Empty if it does not differ, or if they cannot be compared.
    """
    double = _PerturbedLoss(objective, batch, torch.float64)
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

    def __init__(self, objective: Objective, batch: Batch, dtype: torch.dtype):
        self.network = copy_perturbed(objective.module).to(dtype).eval().requires_grad_()
        self.objective = objective.on(DoubleOutputs(self.network))
        self.batch = batch.to(dtype)
        self.names, self.parameters = zip(*self.network.named_parameters(), strict=True)
        self.start = [parameter.detach().clone() for parameter in self.parameters]

    def directions(self) -> list[list[torch.Tensor]]:
        """Return random directions of length 1, the same ones in each call.

        They do not move the padding rows of embeddings, whose gradient torch sets to zero though the loss may depend on
        them: a movement of these rows would change the gradient of others, and not a product with the Hessian.
        """
        generator = torch.Generator().manual_seed(0)
        drawn = [[torch.randn(part.shape, generator=generator) for part in self.start] for _ in range(NUM_DIRECTIONS)]
        positions = {parameter: position for position, parameter in enumerate(self.parameters)}
        for module in self.network.modules():
            if isinstance(module, nn.Embedding) and module.padding_idx is not None and module.weight in positions:
                for parts in drawn:
                    parts[positions[module.weight]][module.padding_idx] = 0
        lengths = map(_norm, drawn)
        return [
            [(part / length).to(self.start[0]) for part in parts] for parts, length in zip(drawn, lengths, strict=True)
        ]

    def gradient(self, create_graph: bool = False) -> Sequence[torch.Tensor]:
        """Return the gradient at the current weights, one tensor per parameter."""
        with enable_backward(self.network):
            return self._differentiate(self.objective(self.batch).loss, create_graph)

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
    """Records the floating-point types of what a network computes from its parameters.

    That is not all: a metric that is logged beside the loss may be in another one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[torch.dtype] = set()

    def __torch_function__(self, function: Any, types: Any, inputs: Any = (), options: Any = None) -> Any:
        result = function(*inputs, **(options or {}))
        parts = result if isinstance(result, tuple | list) else [result]
        self.seen |= {part.dtype for part in parts if isinstance(part, torch.Tensor) and part.requires_grad}
        return result


def _norm(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack([part.double().norm() for part in parts]).norm()
