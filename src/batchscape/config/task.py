"""Section `task`: what the network is trained for: the targets, the loss and the metrics."""

from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field

from batchscape.config.base import AsTuple, Distinct, FromText, ImportPath, PositiveInt, Section, tagged_union


class Metric(NamedTuple):
    """A measure of the outputs that is reported beside the loss."""

    name: str
    """Name in columns, such as `accuracy` in `validation_accuracy`."""

    label: str
    """Name in figures and sentences, such as `accuracy`, with its unit if it has one."""

    higher_is_better: bool = False


ACCURACY = Metric("accuracy", "accuracy", higher_is_better=True)
RMSE = Metric("rmse", "RMSE")
MEAN_ABSOLUTE_ERROR = Metric("mae", "MAE")
R2 = Metric("r2", "R²", higher_is_better=True)
PERPLEXITY = Metric("perplexity", "perplexity")
BITS_PER_BYTE = Metric("bits_per_byte", "bits per byte")

Metrics = Annotated[tuple[ImportPath, ...], AsTuple, Distinct]


class TaskSection(Section):
    """What all tasks share."""

    selector: ClassVar[str] = "name"

    name: str

    metrics: Annotated[Metrics, Field(examples=[["my_package.my_module:top_5_error"]])] = ()
    """Import paths of further metrics, functions of outputs, targets and the keyword `reduction` (`mean` or `none`),
    like the losses of `torch.nn.functional`. Their columns have the names of the functions."""

    @property
    def custom_code(self) -> tuple[str, ...]:
        """The import paths of the loss and the metrics of the user's own."""
        loss = getattr(self, "loss", "")
        return (*((loss,) if ":" in loss else ()), *self.metrics)


class ClassificationConfig(TaskSection):
    """Each example has one of several classes."""

    name: Literal["classification"] = "classification"
    """What is predicted."""

    loss: Literal["auto", "binary_cross_entropy", "cross_entropy"] | ImportPath = "auto"
    """`binary_cross_entropy`: one output, the logit of the second of two classes. `cross_entropy`: one output per class
    (softmax). `auto`: the first for two classes, the second for more. An import path: a function with the signature of
    `torch.nn.functional.cross_entropy`, called with one output per class."""

    class_weights: Annotated[
        Literal["balanced"] | dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False), FromText]] | None,
        Field(examples=["balanced", {"cat": 2.0}]),
    ] = None
    """Weight of the examples of each class in the loss and in all metrics, by the name of the class (1 for those that
    are not named). `balanced`: inversely proportional to the number of training examples of the class."""

    label_smoothing: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False, examples=[0.1]), FromText] = 0.0
    """Share of the target distribution that is spread evenly over all classes (Szegedy et al. 2016)."""


class RegressionConfig(TaskSection):
    """Each example has one or several numbers."""

    name: Literal["regression"]
    """What is predicted."""

    loss: Literal["mse", "huber", "absolute"] | ImportPath = "mse"
    """`mse`: squared error. `huber`: squared below `huber_delta`, linear above (Huber 1964). `absolute`: absolute
    error. An import path: a function with the signature of `torch.nn.functional.mse_loss`."""

    huber_delta: Annotated[float, Field(gt=0, allow_inf_nan=False, examples=[1.0]), FromText] = 1.0
    """Error at which `huber` changes from squared to linear."""

    outputs: Annotated[PositiveInt | None, Field(examples=[2])] = None
    """Number of outputs per example, if a custom loss needs another than that of the target's numbers, such as a mean
    and a variance. Then only the metrics of `metrics` are reported."""


class LanguageModelConfig(TaskSection):
    """The next token of a text at each position."""

    name: Literal["language_model"]
    """What is predicted."""

    loss: Literal["cross_entropy"] | ImportPath = "cross_entropy"
    """`cross_entropy`: one output per token of the vocabulary (softmax). An import path: a function with the signature
    of `torch.nn.functional.cross_entropy`."""

    label_smoothing: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False, examples=[0.1]), FromText] = 0.0
    """Share of the target distribution that is spread evenly over the vocabulary (Szegedy et al. 2016)."""


TaskConfig = tagged_union(
    "name",
    {
        "classification": ClassificationConfig,
        "regression": RegressionConfig,
        "language_model": LanguageModelConfig,
    },
)
