"""The words for the loss and the metrics of a study in tables, figures and sentences."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

LOSSES = ("loss", "difference_to_best", "difference_to_chosen")
"""Columns, besides those of a side of the data, whose unit is that of the loss."""


def add_unit(text: str, unit: str) -> str:
    """Return a title with a unit in parentheses, if there is one."""
    return f"{text} ({unit})" if unit else text


def capitalize(text: str) -> str:
    """Return a text with a capital first letter, and the others as they are."""
    return text[:1].upper() + text[1:]


@dataclass(frozen=True)
class Measure:
    """A metric that is reported beside the loss.

    Attributes:
        name: Name in columns, such as `accuracy` in `validation_accuracy`.
        label: Name in sentences.
        unit: Its unit; empty if it has none.
        scale: Of the axis on which it is shown.
    """

    name: str
    label: str
    unit: str = ""
    scale: Literal["linear", "log"] = "linear"

    @property
    def title(self) -> str:
        """The name of an axis or panel, such as `RMSE (price)`."""
        return add_unit(capitalize(self.label), self.unit)

    def phrase(self, value: str) -> str:
        """Return the metric with a formatted value, such as `accuracy 0.95 ± 0.01`."""
        return f"{self.label} {value} {self.unit}".rstrip()


@dataclass(frozen=True)
class Measures:
    """The loss and the metrics of a study, and what its examples are called.

    Attributes:
        loss: Name of the loss in sentences, such as `cross-entropy`.
        loss_unit: Its unit, such as `nats`; empty if it has none.
        metrics: The metrics; figures show the first one.
        examples: What the examples are called, such as `images`.
    """

    loss: str
    loss_unit: str
    metrics: tuple[Measure, ...] = ()
    examples: str = "examples"

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """Return the measures of the setting `measures`, which `study.measures` writes."""
        metrics = tuple(Measure(**metric) for metric in settings["metrics"])
        return cls(**{**settings, "metrics": metrics})

    @property
    def first(self) -> Measure | None:
        """The metric that figures show; None if there is none."""
        return self.metrics[0] if self.metrics else None

    def metric(self, name: str) -> Measure:
        """Return a metric by its name in columns."""
        return next(metric for metric in self.metrics if metric.name == name)

    @property
    def loss_title(self) -> str:
        """The name of an axis that shows losses, such as `Cross-entropy (nats)`."""
        return self.with_loss_unit(capitalize(self.loss))

    def with_loss_unit(self, text: str) -> str:
        """Return a title with the unit of the loss in parentheses, if it has one."""
        return add_unit(text, self.loss_unit)

    def loss_phrase(self, value: str) -> str:
        """Return a formatted value of the loss with its unit."""
        return f"{value} {self.loss_unit}".rstrip()

    def per_weight(self, power: str = "") -> str:
        """Return the unit of the gradient of the loss, or with the power `²` that of its second derivative."""
        return f"{self.loss_unit}/unit{power}" if self.loss_unit else f"1/unit{power}"

    def unit_of(self, column: str) -> str:
        """Return the unit of a column of a table, such as `test_rmse`; empty if it has none."""
        if column in LOSSES or column.endswith(("train_loss", "validation_loss", "test_loss")):
            return self.loss_unit
        quantity = column.removesuffix("_at_best").removeprefix("average_")
        for side in ("train_", "validation_", "test_"):
            quantity = quantity.removeprefix(side)
        return next((metric.unit for metric in self.metrics if metric.name == quantity), "")

    @property
    def caption_words(self) -> dict[str, str]:
        """What replaces the fields of captions."""
        metric = self.first.label if self.first else ""
        return {"metric_item": f"{metric}, " * bool(metric), "and_metric": f" and {metric}" * bool(metric)}
