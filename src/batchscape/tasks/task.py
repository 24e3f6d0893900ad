"""What a network is trained for: outputs, loss and metrics, from the section `task` and the data."""

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from batchscape.config.task import (
    BITS_PER_BYTE,
    MEAN_ABSOLUTE_ERROR,
    PERPLEXITY,
    R2,
    RMSE,
    ClassificationConfig,
    LanguageModelConfig,
    Metric,
    RegressionConfig,
    TaskConfig,
)
from batchscape.data.spec import DataSpec
from batchscape.errors import UserError, is_out_of_memory
from batchscape.runtime.user_code import describe_mismatch, import_object, summarize_error

Reduction = Literal["mean", "none"]

# Difference of float32 values at which two ways to compute them disagree.
RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE = 1e-4, 1e-6


class LossFunction(Protocol):
    """A loss or metric, called like those of `torch.nn.functional`."""

    def __call__(self, outputs: Tensor, targets: Tensor, /, *, reduction: Reduction = "mean") -> Tensor:
        """Return the values for a batch.

        Args:
            outputs: (n, *output_shape), outputs of the network.
            targets: (n, …), targets as `Batch` has them.
            reduction: `none`: (n,), or (n, length) for a language model. `mean`: the mean of these, a scalar.
        """


def _as_it_is(value: float, side: str) -> float:  # noqa: ARG001
    return value


@dataclass(frozen=True)
class TaskMetric:
    """A measure of the outputs that is reported beside the loss.

    Attributes:
        metric: Its name and label.
        function: The values that are averaged with the weights of the loss.
        finalize: Returns what is reported for a weighted mean of `function` over a side of the data (`train`,
            `validation` or `test`), such as the root of the mean squared error.
    """

    metric: Metric
    function: LossFunction
    finalize: Callable[[float, str], float] = _as_it_is

    @property
    def name(self) -> str:
        """Name in columns, such as `accuracy` in `validation_accuracy`."""
        return self.metric.name


@dataclass(frozen=True)
class Task:
    """What a network is trained for.

    Attributes:
        num_outputs: Outputs per example, or per token for a language model.
        output_shape: Shape of the network's outputs for one example: (num_outputs,), or (length, vocabulary).
        loss: The loss, whose weighted mean is minimized.
        metrics: What is reported beside the loss, the one that figures show first.
        target_weights: Returns weights of examples, (n,), float32, for their targets; they multiply those of the data.
            None if all are 1.
    """

    num_outputs: int
    output_shape: tuple[int, ...]
    loss: LossFunction
    metrics: tuple[TaskMetric, ...]
    target_weights: Callable[[Tensor], Tensor] | None = None

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The names of the metrics, as in columns."""
        return tuple(metric.name for metric in self.metrics)


def build_task(config: TaskConfig, spec: DataSpec, train_targets: Tensor | None = None) -> Task:
    """Return the task for some data.

    Args:
        config: Section `task` of the study file.
        spec: What an example is.
        train_targets: Targets of all training examples, (n,), from which `class_weights: balanced` follows.

    Returns:
        The task. Its functions compute in the data type of the outputs and on their device.

    Raises:
        UserError: The task is for other data, or a loss or metric of the user cannot be imported or called.
    """
    check_targets(config, spec)
    match config:
        case ClassificationConfig():
            return _classification(config, spec, train_targets)
        case RegressionConfig():
            return _regression(config, spec)
    return _language_model(config, spec)


def count_outputs(spec: DataSpec) -> int:
    """Return one output per class or token of the vocabulary, or per number of a target."""
    match spec.targets:
        case "class":
            return len(spec.classes)
        case "next_token":
            return spec.vocabulary
        case "numbers":
            return math.prod(spec.target_shape)


def check_targets(config: TaskConfig, spec: DataSpec) -> None:
    """Raise UserError if the data has other targets than those of the task."""
    needed = {"classification": "class", "regression": "numbers", "language_model": "next_token"}
    if spec.targets == needed[config.name]:
        return
    names = {"class": "classes", "numbers": "numbers", "next_token": "the next tokens of a text"}
    suited = next(name for name, targets in needed.items() if targets == spec.targets)
    raise UserError(
        f"task.name: {config.name} predicts {names[needed[config.name]]}, but the targets of this data are "
        f"{names[spec.targets]}; write `task: {{name: {suited}}}`"
    )


def _classification(config: ClassificationConfig, spec: DataSpec, train_targets: Tensor | None) -> Task:
    count = len(spec.classes)
    if config.loss == "binary_cross_entropy" and count != 2:
        raise UserError(
            f"task.loss: binary_cross_entropy is for 2 classes, the data has {count}; write `loss: cross_entropy`"
        )
    binary = config.loss == "binary_cross_entropy" or (config.loss == "auto" and count == 2)
    loss: LossFunction
    if ":" in config.loss:
        loss = _custom(config.loss, "task.loss", "one value per example")
    elif binary:
        loss = partial(_binary_cross_entropy, label_smoothing=config.label_smoothing)
    else:
        loss = partial(F.cross_entropy, label_smoothing=config.label_smoothing)
    accuracy = _binary_accuracy if binary else _accuracy
    outputs = 1 if binary else count
    return Task(
        num_outputs=outputs,
        output_shape=(outputs,),
        loss=loss,
        metrics=_metrics(config, spec, {"accuracy": (accuracy, _as_it_is)}, "one value per example"),
        target_weights=_class_weights(config, spec, train_targets),
    )


def _binary_cross_entropy(
    outputs: Tensor, targets: Tensor, *, reduction: Reduction = "mean", label_smoothing: float = 0.0
) -> Tensor:
    """Return the cross-entropy, in nats, of logits of class 1, (n, 1), whose probability is the sigmoid."""
    outputs = outputs.squeeze(1)
    truth = targets.to(outputs.dtype)
    if label_smoothing:
        truth = truth * (1 - label_smoothing) + label_smoothing / 2
    return F.binary_cross_entropy_with_logits(outputs, truth, reduction=reduction)


def _binary_accuracy(outputs: Tensor, targets: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Return 1 for correct predictions; at a probability of ½ each, class 0 is predicted."""
    return _reduce((outputs.squeeze(1) > 0) == targets, outputs.dtype, reduction)


def _accuracy(outputs: Tensor, targets: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    return _reduce(outputs.argmax(1) == targets, outputs.dtype, reduction)


def _reduce(correct: Tensor, dtype: torch.dtype, reduction: Reduction) -> Tensor:
    values = correct.to(dtype)
    return values.mean() if reduction == "mean" else values


class _ClassWeights:
    """The weight of each example by its class."""

    def __init__(self, weights: Tensor):
        self.weights = weights
        """(classes,), float32."""

    def __call__(self, targets: Tensor) -> Tensor:
        if self.weights.device != targets.device:
            self.weights = self.weights.to(targets.device)  # once: each copy waits for the device
        return self.weights[targets]


def _class_weights(config: ClassificationConfig, spec: DataSpec, train_targets: Tensor | None) -> _ClassWeights | None:
    if not config.class_weights:
        return None
    if config.class_weights == "balanced":
        if train_targets is None:
            raise TypeError("balanced class weights need the training targets")
        counts = torch.bincount(train_targets.cpu(), minlength=len(spec.classes)).double()
        if not counts.all():
            missing = spec.classes[int((counts == 0).nonzero()[0])]
            raise UserError(
                f"task.class_weights: class {missing} has no training examples, so it has no balanced weight; write "
                "`data.stratify: true`, or list the weights"
            )
        return _ClassWeights((counts.sum() / (len(counts) * counts)).float())
    for name in config.class_weights:
        if name not in spec.classes:
            near = difflib.get_close_matches(name, spec.classes, n=1)
            known = ", ".join(spec.classes[:5]) + (", …" if len(spec.classes) > 5 else "")
            raise UserError(
                f"task.class_weights: the data has no class {name}; "
                + (f"did you mean {near[0]}?" if near else f"classes are {known}")
            )
    return _ClassWeights(torch.tensor([config.class_weights.get(name, 1.0) for name in spec.classes]))


def _regression(config: RegressionConfig, spec: DataSpec) -> Task:
    count = math.prod(spec.target_shape)
    arrange = _per_example if config.outputs else _over_numbers
    # One object for the loss and the metrics that follow from the same mean, which is then computed once.
    squared_error: LossFunction = partial(_over_numbers, F.mse_loss)
    absolute_error: LossFunction = partial(_over_numbers, F.l1_loss)
    loss: LossFunction
    match config.loss:
        case "mse":
            loss = squared_error
        case "absolute":
            loss = absolute_error
        case "huber":
            loss = partial(_over_numbers, partial(F.huber_loss, delta=config.huber_delta))
        case _:
            loss = partial(arrange, _custom(config.loss, "task.loss", "one value per example"))
    own: dict[str, tuple[LossFunction, Callable[[float, str], float]]] = {
        RMSE.name: (squared_error, partial(_root_mean_square, spec.target_scale)),
        MEAN_ABSOLUTE_ERROR.name: (absolute_error, partial(_scaled, spec.target_scale)),
        R2.name: (squared_error, partial(_coefficient_of_determination, spec.target_variance)),
    }
    outputs = config.outputs or count
    return Task(
        num_outputs=outputs,
        output_shape=(outputs,),
        loss=loss,
        metrics=_metrics(config, spec, own, "one value per example", arrange),
    )


def _over_numbers(function: LossFunction, outputs: Tensor, targets: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Return the values of a function of numbers, each the mean over the numbers of an example.

    Both arguments of `function` have the shape of the targets: outputs, (n, 1), minus targets, (n,), would broadcast
    to (n, n).
    """
    return _per_example(function, outputs.reshape(targets.shape), targets, reduction=reduction)


def _per_example(function: LossFunction, outputs: Tensor, targets: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Return the values of a function of numbers, each the mean over what it returns for an example."""
    values = function(outputs, targets.to(outputs.dtype), reduction=reduction)
    return values.flatten(1).mean(1) if values.ndim > 1 else values


def _root_mean_square(scale: float, value: float, side: str) -> float:  # noqa: ARG001
    return math.sqrt(value) * scale


def _scaled(scale: float, value: float, side: str) -> float:  # noqa: ARG001
    return value * scale


def _coefficient_of_determination(variances: dict[str, float], value: float, side: str) -> float:
    """Return R² of a mean squared error; nan if the targets of that side are constant or their variance unknown."""
    variance = variances.get(side, math.nan)
    return 1 - value / variance if variance > 0 else math.nan


def _language_model(config: LanguageModelConfig, spec: DataSpec) -> Task:
    cross_entropy: LossFunction = partial(_over_tokens, F.cross_entropy)
    loss: LossFunction
    if ":" in config.loss:
        loss = partial(_over_tokens, _custom(config.loss, "task.loss", "one value per token"))
    elif config.label_smoothing:
        loss = partial(_over_tokens, partial(F.cross_entropy, label_smoothing=config.label_smoothing))
    else:
        loss = cross_entropy
    own: dict[str, tuple[LossFunction, Callable[[float, str], float]]] = {
        PERPLEXITY.name: (cross_entropy, _exponential),
        BITS_PER_BYTE.name: (cross_entropy, partial(_scaled, 1 / math.log(2))),
    }
    (length,) = spec.shape
    return Task(
        num_outputs=spec.vocabulary,
        output_shape=(length, spec.vocabulary),
        loss=loss,
        metrics=_metrics(config, spec, own, "one value per token", _over_tokens),
    )


def _over_tokens(function: LossFunction, outputs: Tensor, targets: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Return the values of a function of tokens: of outputs, (tokens, vocabulary), and targets, (tokens,)."""
    values = function(outputs.flatten(0, 1), targets.flatten(), reduction=reduction)
    return values if reduction == "mean" else values.reshape(targets.shape)


def _exponential(value: float, side: str) -> float:  # noqa: ARG001
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def _metrics(
    config: TaskConfig,
    spec: DataSpec,
    own: dict[str, tuple[LossFunction, Callable[[float, str], float]]],
    needed: str,
    arrange: Callable[..., Tensor] | None = None,
) -> tuple[TaskMetric, ...]:
    """Return the reported metrics: those of the task, by name, and the user's, called as `arrange` does."""
    paths = {path.partition(":")[2]: path for path in config.metrics}
    metrics = []
    for metric in config.reported_metrics(spec.token_unit):
        if metric.name in own:
            metrics.append(TaskMetric(metric, *own[metric.name]))
        else:
            function: LossFunction = _custom(paths[metric.name], "task.metrics", needed)
            metrics.append(TaskMetric(metric, partial(arrange, function) if arrange else function))
    return tuple(metrics)


class _CustomFunction:
    """A loss or metric of the user, whose errors and results are checked in each call."""

    def __init__(self, function: Callable[..., Any], origin: str, needed: str):
        self.function, self.origin, self.needed = function, origin, needed

    def __call__(self, outputs: Tensor, targets: Tensor, *, reduction: Reduction = "mean") -> Tensor:
        try:
            values = self.function(outputs, targets, reduction=reduction)
        except Exception as error:
            if isinstance(error, UserError) or is_out_of_memory(error):
                raise
            raise UserError(f"{self.origin} fails: {summarize_error(error)}")
        if not isinstance(values, Tensor):
            raise UserError(f"{self.origin} returns {type(values).__name__}, but must return a tensor")
        if reduction == "mean":
            if values.ndim:
                raise UserError(
                    f"{self.origin} returns shape {tuple(values.shape)} for reduction='mean', but must return the mean "
                    "as a scalar"
                )
        elif values.shape[:1] != targets.shape[:1] or values.ndim > targets.ndim:
            raise UserError(
                f"{self.origin} returns shape {tuple(values.shape)} for reduction='none' and targets of shape "
                f"{tuple(targets.shape)}, but must return {self.needed}"
            )
        return values


def _custom(import_path: str, key: str, needed: str) -> _CustomFunction:
    """Import a loss or metric. Raises UserError if it does not take outputs, targets and `reduction`."""
    function, origin = import_object(import_path, key), f"{key}: {import_path}"
    if mismatch := describe_mismatch(function, None, None, reduction="mean"):
        raise UserError(
            f"{origin} must take outputs, targets and the keyword `reduction`, like the losses of torch.nn.functional: "
            f"{mismatch}"
        )
    return _CustomFunction(function, origin, needed)


def check_functions(config: TaskConfig, task: Task, outputs: Tensor, targets: Tensor) -> None:
    """Check the loss and the metrics of the user on a few examples.

    Args:
        config: Section `task` of the study file.
        task: The task.
        outputs: (n, *output_shape), n at least 2, outputs of a network.
        targets: (n, …), as `Batch` has them.

    Raises:
        UserError: A function returns another shape than one value per example (or token), values that depend on the
            other examples or that are not finite, or another mean than that of the values; or the loss cannot be
            differentiated.
    """
    functions = {f"task.metrics: {path}": path.partition(":")[2] for path in config.metrics}
    by_name = {metric.name: metric.function for metric in task.metrics}
    checked = {origin: by_name[name] for origin, name in functions.items()}
    if ":" in config.loss:
        checked[f"task.loss: {config.loss}"] = task.loss
        _check_gradient(f"task.loss: {config.loss}", task.loss, outputs, targets)
    outputs = outputs.detach()
    for origin, function in checked.items():
        values = function(outputs, targets, reduction="none")
        if not torch.isfinite(values).all():
            raise UserError(f"{origin} is not finite at the initial weights; check it with outputs of either sign")
        first = function(outputs[:1], targets[:1], reduction="none")
        if not _close(first, values[:1]):
            raise UserError(
                f"{origin} gives an example another value if the rest of the batch differs; compute each value from "
                "the outputs and targets of its example"
            )
        mean = function(outputs, targets, reduction="mean")
        if not _close(mean, values.mean()):
            raise UserError(
                f"{origin} returns {mean.item():.6g} for reduction='mean', but the mean of the values that it returns "
                f"for reduction='none' is {values.mean().item():.6g}; return their mean"
            )
        double = function(outputs.double(), targets, reduction="mean")
        if not _close(double, mean):
            raise UserError(
                f"{origin} returns {mean.item():.6g} for float32 outputs, but {double.item():.6g} for float64; compute "
                "in the data type of the outputs"
            )


def _check_gradient(origin: str, loss: LossFunction, outputs: Tensor, targets: Tensor) -> None:
    """Raise UserError if the mean loss has no gradient by the outputs, or one that is not finite."""
    outputs = outputs.detach().clone().requires_grad_()
    value = loss(outputs, targets, reduction="mean")
    if not value.requires_grad:
        raise UserError(f"{origin} cannot be differentiated: it must compute with torch, from the outputs it is given")
    try:
        (gradient,) = torch.autograd.grad(value, outputs)
    except Exception as error:
        raise UserError(f"{origin} cannot be differentiated: {summarize_error(error)}")
    if not torch.isfinite(gradient).all():
        raise UserError(f"{origin} has a gradient that is not finite at the initial weights; check it for 0/0 or √0")


def _close(values: Tensor, expected: Tensor) -> bool:
    return values.shape == expected.shape and torch.allclose(
        values.double(), expected.double(), rtol=RELATIVE_TOLERANCE, atol=ABSOLUTE_TOLERANCE
    )
