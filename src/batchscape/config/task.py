"""Section `task`: what the network is trained for: the targets, the loss and the metrics."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from batchscape.config.base import (
    AsTuple,
    Distinct,
    FromText,
    ImportPath,
    PositiveInt,
    Section,
    check_import_path,
    cross_field_error,
    number_from_text,
    tagged_union,
)


class Metric(NamedTuple):
    """A measure of the outputs that is reported beside the loss."""

    name: str
    """Name in columns, such as `accuracy` in `validation_accuracy`."""

    label: str
    """Name in figures and sentences, such as `accuracy`, with its unit if it has one."""

    higher_is_better: bool = False

    optimum: float | None = None
    """Its value for perfect outputs, if that is known."""


ACCURACY = Metric("accuracy", "accuracy", higher_is_better=True, optimum=1)
WEIGHTED_ACCURACY = Metric("accuracy", "weighted accuracy", higher_is_better=True, optimum=1)
RMSE = Metric("rmse", "RMSE", optimum=0)
MEAN_ABSOLUTE_ERROR = Metric("mae", "MAE", optimum=0)
R2 = Metric("r2", "R²", higher_is_better=True, optimum=1)
PERPLEXITY = Metric("perplexity", "perplexity", optimum=1)
BITS_PER_BYTE = Metric("bits_per_byte", "bits per byte", optimum=0)

BUILT_IN_METRICS = (ACCURACY, RMSE, MEAN_ABSOLUTE_ERROR, R2, PERPLEXITY, BITS_PER_BYTE)


# The loss of the network itself: that of the `training_step` of a LightningModule.
OWN_LOSS = "module"


def function_name(import_path: str) -> str:
    """Return the name after the colon of `module:name`; a name without one is that of a value that is logged."""
    return import_path.rpartition(":")[2]


def _names_are_free(import_paths: tuple[str, ...]) -> tuple[str, ...]:
    """Check that each column of a metric has one meaning."""
    names = [function_name(path) for path in import_paths]
    for path, name in zip(import_paths, names, strict=True):
        # The times of an epoch have such columns too. A network with a loss of its own has no built-in metrics.
        built_in = {metric.name for metric in BUILT_IN_METRICS} if ":" in path else set()
        if name in {"loss", "seconds", "cpu_seconds", *built_in}:
            raise ValueError(f"{path} has the name of a built-in column, `{name}`; rename the function")
        if names.count(name) > 1:
            raise ValueError(f"two functions have the name {name}, which names their columns; rename one")
    return import_paths


def _check_metric(value: Any) -> Any:
    return value if isinstance(value, str) and value.isidentifier() else check_import_path(value)


MetricName = Annotated[str, Field(examples=["my_package.my_module:top_5_error"]), BeforeValidator(_check_metric)]
Metrics = Annotated[tuple[MetricName, ...], AsTuple, Distinct, AfterValidator(_names_are_free)]


def _named_or_imported(*names: str) -> BeforeValidator:
    """Return a check, before the choice is made, for one of some names or an import path: one line names both."""

    def check(value: Any) -> Any:
        if value in names:
            return value
        if isinstance(value, str) and ":" in value:
            return check_import_path(value)
        raise ValueError(
            f"must be {', '.join(names)}, or the import path of a function, such as `my_package.my_module:my_loss`, "
            f"got {value!r}"
        )

    return BeforeValidator(check)


ClassificationLoss = Annotated[
    Literal["auto", "binary_cross_entropy", "cross_entropy", "module"] | ImportPath,
    _named_or_imported("auto", "binary_cross_entropy", "cross_entropy", OWN_LOSS),
]
RegressionLoss = Annotated[
    Literal["mse", "huber", "absolute", "module"] | ImportPath,
    _named_or_imported("mse", "huber", "absolute", OWN_LOSS),
]
LanguageModelLoss = Annotated[
    Literal["cross_entropy", "module"] | ImportPath, _named_or_imported("cross_entropy", OWN_LOSS)
]


def _check_class_weights(weights: Any) -> Any:
    """Return class weights with the names of classes as text: these are often digits, which YAML reads as integers."""
    if weights is None or weights == "balanced":
        return weights
    if not isinstance(weights, Mapping):
        raise ValueError(f"must be balanced, or weights by class, such as `{{cat: 2}}`, got {weights!r}")
    checked = {}
    for name, text in weights.items():
        weight = number_from_text(text)
        if isinstance(name, bool) or not isinstance(name, str | int):
            raise ValueError(f"has the class {name!r}; write the name of a class in quotes")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
            raise ValueError(f"gives class {name} the weight {weight!r}; it must be a finite number above 0")
        checked[str(name)] = float(weight)
    return checked or None


class TaskSection(Section):
    """What all tasks share."""

    selector: ClassVar[str] = "name"

    name: str

    metrics: Annotated[Metrics, Field(examples=[["my_package.my_module:top_5_error"]])] = ()
    """Import paths of further metrics, functions of outputs, targets and the keyword `reduction` (`mean` or `none`),
    like the losses of `torch.nn.functional`. Their columns have the names of the functions. With `loss: module`, names
    of values that `training_step` logs, without `train_`, each a mean over the examples of the batch."""

    @model_validator(mode="after")
    def _smoothing_is_for_built_in_losses(self) -> Self:
        loss = getattr(self, "loss", "")
        if ":" in loss and getattr(self, "label_smoothing", None):
            raise cross_field_error(
                "label_smoothing", f"is for the cross-entropy, not for a loss of your own, {loss}; smooth there instead"
            )
        return self

    @model_validator(mode="after")
    def _keys_fit_the_loss_of_the_network(self) -> Self:
        for index, path in enumerate(self.metrics):
            if self.has_own_loss and ":" in path:
                raise cross_field_error(
                    f"metrics[{index}]",
                    f"{path} is a function of the outputs, which a network with `loss: module` does not return; name a "
                    f"value that training_step logs, such as `accuracy`",
                )
            if not self.has_own_loss and ":" not in path:
                raise cross_field_error(
                    f"metrics[{index}]",
                    f"{path} is a value that a LightningModule logs, which needs `loss: module`; write that, or the "
                    f"import path `my_module:{path}` of a function",
                )
        for key in ("class_weights", "label_smoothing", "outputs") if self.has_own_loss else ():
            if getattr(self, key, None):
                raise cross_field_error(key, "is not for `loss: module`, which is computed by the network; remove it")
        return self

    @property
    def has_own_loss(self) -> bool:
        """Whether the network, a LightningModule, computes the loss."""
        return getattr(self, "loss", "") == OWN_LOSS

    @property
    def custom_code(self) -> tuple[str, ...]:
        """The import paths of the loss and the metrics of the user's own."""
        return tuple(path for path in (getattr(self, "loss", ""), *self.metrics) if ":" in path)

    def reported_metrics(self, token_unit: str = "") -> tuple[Metric, ...]:
        """Return the metrics that are reported beside the loss, the one that figures show first.

        Args:
            token_unit: What a token of the data is: `byte`, `character` or `token`; empty if there are none.
        """
        names = map(function_name, self.metrics)
        custom = [ACCURACY if name == ACCURACY.name else Metric(name, name.replace("_", " ")) for name in names]
        return tuple(custom) if self.has_own_loss else (*self._own_metrics(token_unit), *custom)

    def _own_metrics(self, token_unit: str) -> tuple[Metric, ...]:
        raise NotImplementedError


class ClassificationConfig(TaskSection):
    """Each example has one of several classes."""

    name: Literal["classification"] = "classification"
    """What is predicted."""

    loss: ClassificationLoss = "auto"
    """`binary_cross_entropy`: one output, the logit of the second of two classes. `cross_entropy`: one output per class
    (softmax). `auto`: the first for two classes, the second for more. `module`: the loss that `training_step` of a
    LightningModule returns. An import path: a function with the signature of `torch.nn.functional.cross_entropy`,
    called with one output per class."""

    class_weights: Annotated[
        Literal["balanced"] | dict[str, Annotated[float, Field(gt=0)]] | None,
        Field(examples=["balanced", {"cat": 2.0}]),
        BeforeValidator(_check_class_weights),
    ] = None
    """Weight of the examples of each class in the loss and in all metrics, by the name of the class (1 for those that
    are not named). `balanced`: inversely proportional to the number of training examples of the class."""

    label_smoothing: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False, examples=[0.1]), FromText] = 0.0
    """Share of the target distribution that is spread evenly over all classes (Szegedy et al. 2016)."""

    def _own_metrics(self, token_unit: str) -> tuple[Metric, ...]:  # noqa: ARG002
        return (WEIGHTED_ACCURACY if self.class_weights else ACCURACY,)


class RegressionConfig(TaskSection):
    """Each example has one or several numbers."""

    name: Literal["regression"]
    """What is predicted."""

    loss: RegressionLoss = "mse"
    """`mse`: squared error. `huber`: squared below `huber_delta`, linear above (Huber 1964). `absolute`: absolute
    error. `module`: the loss that `training_step` of a LightningModule returns. An import path: a function with the
    signature of `torch.nn.functional.mse_loss`."""

    huber_delta: Annotated[float, Field(gt=0, allow_inf_nan=False, examples=[1.0]), FromText] = 1.0
    """Error at which `huber` changes from squared to linear."""

    outputs: Annotated[PositiveInt | None, Field(examples=[2])] = None
    """Number of outputs per example, if a custom loss needs another than that of the target's numbers, such as a mean
    and a variance. Then only the metrics of `metrics` are reported."""

    @model_validator(mode="after")
    def _keys_are_for_the_loss(self) -> Self:
        if self.huber_delta != 1 and self.loss != "huber":
            raise cross_field_error("huber_delta", f"is for `loss: huber`, not for `{self.loss}`; remove it")
        if self.outputs is not None and ":" not in self.loss:
            raise cross_field_error(
                "outputs",
                f"is for a loss of your own; `{self.loss}` has one output per number of the target; remove it",
            )
        return self

    def _own_metrics(self, token_unit: str) -> tuple[Metric, ...]:  # noqa: ARG002
        return () if self.outputs else (RMSE, MEAN_ABSOLUTE_ERROR, R2)


class LanguageModelConfig(TaskSection):
    """The next token of a text at each position."""

    name: Literal["language_model"]
    """What is predicted."""

    loss: LanguageModelLoss = "cross_entropy"
    """`cross_entropy`: one output per token of the vocabulary (softmax). `module`: the loss that `training_step` of a
    LightningModule returns. An import path: a function with the signature of `torch.nn.functional.cross_entropy`."""

    label_smoothing: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False, examples=[0.1]), FromText] = 0.0
    """Share of the target distribution that is spread evenly over the vocabulary (Szegedy et al. 2016)."""

    def _own_metrics(self, token_unit: str) -> tuple[Metric, ...]:
        return (PERPLEXITY, BITS_PER_BYTE) if token_unit == "byte" else (PERPLEXITY,)


TaskConfig = tagged_union(
    "name",
    {
        "classification": ClassificationConfig,
        "regression": RegressionConfig,
        "language_model": LanguageModelConfig,
    },
)
